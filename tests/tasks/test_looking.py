"""From a file of directions to pictures, pages, videos and maps, on a tiny generator."""

import dataclasses
import io
import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

from configs import edit, gallery, maps, sweep, tiny
from navigan_jax import checkpoints, notes, tasks, testing
from navigan_jax import config as config_lib
from navigan_jax import directions as directions_lib
from navigan_jax.directions import read_directions, write_directions
from navigan_jax.editing import recipe_files, rendering
from navigan_jax.editing.recipe import Drawn, Move, Recipe, Video
from navigan_jax.errors import InputError, NoEffectError
from navigan_jax.evaluation import locality
from navigan_jax.generators.files import make_generator, read_generator, write_generator
from navigan_jax.notes import Note, Notes
from navigan_jax.showcase import base, figure
from navigan_jax.showcase import gallery as gallery_page
from navigan_jax.tasks import budget, choosing
from navigan_jax.tasks import edit as edit_task
from navigan_jax.tasks import gallery as gallery_task
from navigan_jax.tasks import maps as maps_task
from navigan_jax.tasks import sweep as sweep_task
from tests.tasks.calibrated import COUNT, SIZES, write_calibrated

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_calibrated(tmp_path_factory.mktemp("looking"))


def configure(experiment, folder, **changes):
    config = tiny.get_config(experiment)
    config.generator = str(folder / "generator.safetensors")
    if experiment in ("gallery", "maps"):
        config.directions = str(folder / "directions.safetensors")
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config_lib.freeze(config)


def run(config, workdir):
    tasks.TASKS[config.task](config, checkpoints.make_folder(workdir))


def page_data(path):
    block = re.search(r'id="data">(.*?)</script>', path.read_text(), re.DOTALL)
    return json.loads(block[1])


def test_plausible_ranges_come_back_and_may_be_missing(folder, tmp_path):
    directions = read_directions(folder / "directions.safetensors", digest=None)
    np.testing.assert_array_equal(directions.plausible, np.full((COUNT, 2), [1.5, 9.0]))
    path = tmp_path / "directions.safetensors"
    write_directions(path, dataclasses.replace(directions, plausible=None))
    assert read_directions(path, digest=None).plausible is None
    write_directions(path, dataclasses.replace(directions, plausible=np.zeros((COUNT, 3))))
    with pytest.raises(InputError, match=r"expected plausible of 5 directions.*got shape \[5, 3\]"):
        read_directions(path, digest=None)


def test_gallery_shows_the_chosen_directions_with_their_notes(folder, tmp_path):
    """Directions are in the order of the choice; all files exist and hold these directions."""
    run(configure("gallery", folder, choose="starred"), tmp_path)
    data = page_data(tmp_path / "gallery.html")
    assert [direction["index"] for direction in data["directions"]] == [1, 3]
    digest = data["notes"]["digest"]
    assert data["notes"]["file"]["directions"][digest]["3"]["name"] == "smile"
    first = data["directions"][0]
    assert first["scale"] == 3.0 and first["plausible"] == [1.0, 3.0]
    texts = {"plausible": "−1.5 … +9", "equal": "−2 … +3", "scale": "−1.5 … +3"}
    assert first["texts"].items() >= texts.items()
    np.testing.assert_allclose(first["allShifts"][:: len(first["allShifts"]) - 1], [-1.5, 3.0])
    assert data["measures"] == ["accuracy"]
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {"gallery.html", "gallery.png", "figure.pdf", "video.mp4", "video.gif"}
    with Image.open(io.BytesIO((tmp_path / "video.gif").read_bytes())) as image:
        assert image.n_frames > 2


def test_page_has_reduced_images_and_figure_whole_ones(folder, tmp_path, monkeypatch):
    """The page reduces images that are too large for it; the figure shows the same samples."""
    drawn = []
    monkeypatch.setattr(figure, "write_figure", lambda path, showcase: drawn.append(showcase))
    config = configure("gallery", folder, choose="0,2", show__steps=5, video__directions=0)
    run(config, tmp_path / "whole")
    monkeypatch.setattr(gallery_page, "LARGEST_CELL", 4)
    monkeypatch.setattr(budget, "_PIXELS_AT_ONCE", 100)
    run(config, tmp_path / "small")
    whole, small = (page_data(tmp_path / name / "gallery.html") for name in ("whole", "small"))
    assert whole["height"] == 4 * small["height"]
    side = whole["height"]
    assert f"from {side} × {side} pixels" in (tmp_path / "small" / "gallery.html").read_text()
    assert "× pixels</dd>" not in (tmp_path / "whole" / "gallery.html").read_text()
    testing.assert_close(drawn[1].frames, drawn[0].frames[:, :, [0, 2, 4]], 1e-5)
    assert drawn[1].directions[1].shifts == (-1.5, 0.0, 3.0)


def test_raw_shift_stands_in_for_the_scales(folder, tmp_path):
    """For calibrated directions, and for others, which need a raw shift."""
    config = configure("gallery", folder, raw_shift=7.0, choose="2", video__directions=0)
    run(config, tmp_path / "raw")
    assert page_data(tmp_path / "raw" / "gallery.html")["directions"][0]["scale"] == 7.0
    directions = read_directions(folder / "directions.safetensors", digest=None)
    plain = dataclasses.replace(directions, shift_scales=np.zeros((COUNT, 2)), plausible=None)
    write_directions(tmp_path / "plain.safetensors", plain)
    config = configure("gallery", folder, directions=str(tmp_path / "plain.safetensors"))
    with pytest.raises(InputError, match=r"not calibrated; got 0; set it with --config.raw_shift"):
        run(config, tmp_path / "plain")


def test_directions_of_other_weights_are_shown_if_told_so(folder, tmp_path):
    """A generator trained on: refused unless told otherwise; of other sizes, always refused."""
    for name, sizes in (("later", SIZES), ("wider", SIZES | {"widths": [8, 6]})):
        params = testing.draw_params(make_generator("dcgan", sizes), 1)
        write_generator(tmp_path / f"{name}.safetensors", "dcgan", sizes, params, {})
    changes = {"generator": str(tmp_path / "later.safetensors"), "choose": "0"}
    with pytest.raises(InputError, match=r"directions of the weights .*any_weights=True"):
        run(configure("maps", folder, **changes), tmp_path / "run")
    run(configure("maps", folder, **changes, any_weights=True), tmp_path / "run")
    assert (tmp_path / "run" / "maps.png").exists()
    changes["generator"] = str(tmp_path / "wider.safetensors")
    with pytest.raises(InputError, match="expected directions for weights of these sizes; got"):
        run(configure("maps", folder, **changes, any_weights=True), tmp_path / "run")


@pytest.mark.parametrize(
    ("words", "meant"),
    [("all", (0, 1, 2, 3, 4)), ("starred", (1, 3)), ("4,0-1, 0", (4, 0, 1)), (" 2 ", (2,))],
)
def test_choice_means_directions(words, meant):
    noted = Notes("a", {1: Note(starred=True), 2: Note("x"), 3: Note(starred=True)})
    assert choosing.choose(words, COUNT, noted) == meant


@pytest.mark.parametrize("words", ["5", "2-9", "3-1", "", "first", "-1", "1,,2", "1" * 30])
def test_choice_of_nothing_is_one_message(words):
    with pytest.raises(InputError, match=r"config.choose: expected numbers of directions from 0"):
        choosing.choose(words, COUNT, Notes("a"))


def test_no_stars_is_one_message():
    with pytest.raises(InputError, match="expected starred directions; got none; star some in"):
        choosing.choose("starred", COUNT, Notes("a"))


def make_recipe(folder, **changes):
    directions = read_directions(folder / "directions.safetensors", digest=None)
    move = Move(directions_lib.digest(directions), 3, 1.5, "directions.safetensors", "smile")
    digest = directions.provenance["digest"]
    return Recipe(
        **{"generator": digest, "samples": (Drawn(1), Drawn(2, 4)), "moves": (move,), **changes}
    )


def test_edit_makes_the_images_of_its_recipe_to_the_bit(folder, tmp_path):
    """PNG files hold what `render` gives, enlarged; the directions lie beside the recipe."""
    recipe = make_recipe(folder, enlarge=2, video=Video(0.0, 1.0, 0.4))
    recipe_files.write_recipe(folder / "recipe.json", recipe)
    run(configure("edit", folder, recipe=str(folder / "recipe.json")), tmp_path)
    generator, params = read_generator(folder / "generator.safetensors")
    directions = read_directions(folder / "directions.safetensors", digest=None)
    known = {directions_lib.digest(directions): directions}
    for name, one in (("edit", recipe), ("original", recipe.original())):
        expected = base.to_rgb(rendering.render(one, generator, params, known))
        for number, image in enumerate(expected):
            with Image.open(tmp_path / f"{name}_{number:03}.png") as picture:
                enlarged = image.repeat(2, axis=0).repeat(2, axis=1)
                np.testing.assert_array_equal(np.asarray(picture), enlarged)
    assert recipe_files.read_recipe(tmp_path / "recipe.json") == recipe
    assert {"video.mp4", "video.gif"} <= {path.name for path in tmp_path.iterdir()}


def test_edit_tells_what_is_missing(folder, tmp_path):
    """Directions that nobody finds, a recipe of another generator: one message, no files."""
    path = tmp_path / "recipe.json"
    recipe_files.write_recipe(path, make_recipe(folder))
    workdir = tmp_path / "run"
    with pytest.raises(InputError, match=r"expected its directions in directions.safetensors; got"):
        run(configure("edit", folder, recipe=str(path)), workdir)
    recipe_files.write_recipe(path, make_recipe(folder, generator="f00"))
    config = configure(
        "edit", folder, recipe=str(path), directions=str(folder / "directions.safetensors")
    )
    with pytest.raises(InputError, match=r"recipe.json: expected the generator with weights of"):
        run(config, workdir)
    move = Move("f00", 0, 1.0, "directions.safetensors")
    recipe_files.write_recipe(path, make_recipe(folder, moves=(move,)))
    message = r"recipe.json: expected the directions of digest f00 .*--config.directions=FILE, or"
    with pytest.raises(InputError, match=message):
        run(config, workdir)
    assert not list(workdir.iterdir())


@pytest.mark.parametrize("task", ["gallery", "maps", "edit"])
def test_directions_of_another_shape_are_refused(folder, tmp_path, task):
    """A changed file, which names the right generator."""
    found = read_directions(folder / "directions.safetensors", digest=None)
    turned = {path: np.swapaxes(rows, 3, 4) for path, rows in found.basis.items()}
    found = dataclasses.replace(found, basis=turned)
    path, recipe = tmp_path / "turned.safetensors", tmp_path / "recipe.json"
    write_directions(path, found)
    move = Move(directions_lib.digest(found), 0, 1.0)
    recipe_files.write_recipe(recipe, make_recipe(folder, moves=(move,)))
    config = configure(task, folder, directions=str(path))
    if task == "edit":
        config = configure(task, folder, directions=str(path), recipe=str(recipe))
    with pytest.raises(InputError, match=r"turned.safetensors: expected directions for weights of"):
        run(config, tmp_path / "run")


def test_maps_are_those_of_the_chosen_directions(folder, tmp_path):
    """From −s of each direction to its +s, evenly on each side; again the same bits.

    With as many latents at once as fit.
    """
    config = configure("maps", folder, choose="3,0", microbatch=0)
    run(config, tmp_path / "a")
    run(config, tmp_path / "b")
    assert (tmp_path / "a/maps.png").read_bytes() == (tmp_path / "b/maps.png").read_bytes()
    arrays, metadata = checkpoints.read_arrays(tmp_path / "a/maps.safetensors")
    again, _ = checkpoints.read_arrays(tmp_path / "b/maps.safetensors")
    np.testing.assert_array_equal(again["change"], arrays["change"])
    np.testing.assert_array_equal(arrays["index"], [3, 0])
    np.testing.assert_array_equal(arrays["shift"], [[1.5, 3.0]] * 2)
    generator, params = read_generator(folder / "generator.safetensors")
    directions = read_directions(folder / "directions.safetensors", digest=None)
    assert metadata["directions"] == directions_lib.digest(directions)
    z = generator.sample_latents(jax.random.fold_in(jax.random.key(config.seed), 4), 6)
    expected = locality.change_maps(
        generator,
        params,
        generator.find_layers(["conv1"]),
        z,
        [directions.edit(3), directions.edit(0)],
        np.array([[-1.5, 0.0, 3.0]] * 2),
        microbatch=6,
    )
    testing.assert_close(arrays["change"], expected, 1e-5)


@pytest.fixture(scope="module")
def swept(folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("swept")
    config = configure("sweep", folder, layers="conv1, main.6", metric__name="l2")
    run(config, workdir)
    return config, workdir


def test_sweep_leaves_what_the_hessian_task_would(swept, folder, tmp_path):
    """The same bits in each layer's folder, and a page that names both layers."""
    _, workdir = swept
    assert {path.name for path in workdir.iterdir()} == {"conv1", "conv2", "layers.html"}
    single = configure("hessian", folder, layer="conv1/kernel", metric__name="l2", latents__count=6)
    run(single, tmp_path)
    ours, theirs = (
        checkpoints.read_arrays(place / "directions.safetensors")[0]
        for place in (workdir / "conv1", tmp_path)
    )
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name])
    text = (workdir / "layers.html").read_text()
    assert text.count("<section ") == 2 and text.count('alt="where direction') == 4
    assert "<script" not in text and "http" not in text.replace("http-equiv", "")


def test_sweep_goes_on_where_it_was(swept):
    """What was found is read back and the page is the same; a lost layer is found anew."""
    config, workdir = swept
    page = (workdir / "layers.html").read_bytes()
    kept, lost = (workdir / name / "directions.safetensors" for name in ("conv1", "conv2"))
    before, arrays = kept.stat().st_mtime_ns, checkpoints.read_arrays(lost)[0]
    lost.unlink()
    run(config, workdir)
    assert kept.stat().st_mtime_ns == before
    again = checkpoints.read_arrays(lost)[0]
    for name in arrays:
        np.testing.assert_array_equal(again[name], arrays[name])
    assert (workdir / "layers.html").read_bytes() == page


def test_sweep_shows_the_names_that_people_gave(swept, tmp_path):
    """Notes beside a layer's directions, as the viewer writes them."""
    config, workdir = swept
    again = pathlib.Path(shutil.copytree(workdir, tmp_path / "again"))
    path = again / "conv1" / "directions.safetensors"
    digest = directions_lib.digest(read_directions(path, digest=None))
    notes.write_notes(path, Notes(digest).with_note(1, Note("smile <wide>")))
    run(config, again)
    text = (again / "layers.html").read_text()
    assert text.count("smile &lt;wide&gt;") > 0 and "smile <" not in text
    assert "smile" not in (workdir / "layers.html").read_text()


def test_sweep_leaves_out_a_layer_without_effect(swept, folder, tmp_path, monkeypatch):
    """The others are shown, and the page tells; a sweep of nothing else is refused."""
    config, workdir = swept
    again = pathlib.Path(shutil.copytree(workdir, tmp_path / "again"))
    find = sweep_task.hessian.find

    def find_none(one, folder, problem, z):
        if one.layer == "conv1/kernel":
            raise NoEffectError("conv1/kernel: expected images that change with these weights")
        return find(one, folder, problem, z)

    monkeypatch.setattr(sweep_task.hessian, "find", find_none)
    run(config, again)
    text = (again / "layers.html").read_text()
    assert text.count("<section ") == 1
    assert "<dt>layers without effect</dt><dd>conv1/kernel</dd>" in text
    alone = configure("sweep", folder, layers="conv1", metric__name="l2")
    with pytest.raises(InputError, match=r"config\.layers: .*got conv1/kernel; choose others"):
        run(alone, tmp_path / "none")


def test_sweep_that_was_killed_ends_with_the_same_bits(swept, folder, tmp_path):
    """SIGKILL once the directions of a layer are there, not measured yet; then run again.

    A process of its own starts and compiles anew, hence the seconds.
    """
    command = [
        *(sys.executable, "-m", "navigan_jax.main", "--config=configs/tiny.py:sweep"),
        f"--config.generator={folder / 'generator.safetensors'}",
        *("--config.layers=main.6", "--config.metric.name=l2", f"--workdir={tmp_path}"),
    ]
    found = tmp_path / "conv2/directions.safetensors"
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not found.exists():
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "layers.html").exists()
    before = checkpoints.read_arrays(found)[0]
    run(configure("sweep", folder, layers="main.6", metric__name="l2"), tmp_path)
    ours = checkpoints.read_arrays(found)[0]
    theirs = checkpoints.read_arrays(swept[1] / "conv2/directions.safetensors")[0]
    assert ours.keys() == theirs.keys()
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name])
    assert not before["shift_scales"].any() and theirs["shift_scales"].all()


def test_layers_by_words():
    generator = testing.tiny_generators()["stylegan2"]
    every = sweep_task.choose_layers(generator, "all")
    convolutions = sweep_task.choose_layers(generator, "convolutions")
    assert set(convolutions) < set(every) == set(generator.layers)
    assert all(len(layer.shape) == 4 for layer in convolutions)
    with pytest.raises(InputError, match="expected a layer of this stylegan2; got 'conv9'"):
        sweep_task.choose_layers(generator, "conv9")


CONFIGS = {
    "edit": (edit.get_config, edit_task.SETTINGS),
    "gallery": (gallery.get_config, gallery_task.SETTINGS),
    "maps": (maps.get_config, maps_task.SETTINGS),
    "maps:paper": (lambda: maps.get_config("paper"), maps_task.SETTINGS),
    "sweep": (sweep.get_config, sweep_task.SETTINGS),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_config_has_every_key_the_task_reads_and_no_other(name):
    get_config, settings = CONFIGS[name]
    config = get_config()
    for key in ("generator", "directions", "recipe"):
        if key in config and config[key] is None:
            config[key] = "a"
    settings.check(config_lib.freeze(config))
    assert config.task in tasks.TASKS


def test_every_key_is_read():
    """Each key's name stands somewhere in tasks/ or main, beside the table of keys."""
    package = ROOT / "navigan_jax"
    text = "".join(p.read_text() for p in [*package.glob("tasks/*.py"), package / "main.py"])
    for _, settings in CONFIGS.values():
        for key in settings.kinds:
            assert re.search(rf"\.{key.rpartition('.')[2]}\b(?!\")", text), key


def test_unknown_variant_of_maps_is_refused():
    with pytest.raises(ValueError, match="expected the variant default or paper; got 'papr'"):
        maps.get_config("papr")
