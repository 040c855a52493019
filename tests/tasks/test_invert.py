"""From photographs to edited pictures, on a small StyleGAN2."""

import csv
import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs import edit, gallery, invert, tiny
from navigan_jax import checkpoints, inverted, tasks, testing
from navigan_jax import config as config_lib
from navigan_jax import directions as directions_lib
from navigan_jax import params as params_lib
from navigan_jax.directions import Directions, write_directions
from navigan_jax.editing import recipe_files
from navigan_jax.editing.edit import apply_edit, combine
from navigan_jax.editing.recipe import Move, Photo, Recipe
from navigan_jax.errors import InputError
from navigan_jax.generators.files import write_generator
from navigan_jax.inversion import coarse
from navigan_jax.inverted import read_inverted
from navigan_jax.tasks import inputs
from navigan_jax.tasks import invert as invert_task
from tests.inversion.toy import LINEAR, STYLES, STYLES_CONFIG, images_of_z, own_image, styles_params
from tests.tasks.spectra import run

LAYER = "synthesis/b8/conv1/kernel"
KEYS = ("architecture", "method", "metric", "seed", "latents", "config")
PARTS = "photographs"


def encode(image):
    return np.clip(np.rint((image + 1) * 127.5), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A generator, directions, and two photographs larger than its images."""
    folder = tmp_path_factory.mktemp("invert")
    params = styles_params()
    write_generator(folder / "generator.safetensors", "stylegan2", STYLES_CONFIG, params, {})
    rows = np.random.RandomState(0).standard_normal((2, *params_lib.get(params, LAYER).shape))
    rows /= np.linalg.norm(rows.reshape(2, -1), axis=1).reshape(2, 1, 1, 1, 1)
    directions = Directions(
        basis={LAYER: rows.astype(np.float32)},
        measures={"accuracy": np.array([1.0, 0.5])},
        shift_scales=np.full((2, 2), 2.0),
        distances=np.full((2, 2), 0.1),
        provenance=dict.fromkeys(KEYS, "none") | {"digest": params_lib.digest(params)},
    )
    write_directions(folder / "directions.safetensors", directions)
    for number in range(2):
        small = encode(own_image(STYLES, params, seed=number)[0])
        large = small.repeat(3, axis=0).repeat(3, axis=1)
        framed = np.pad(large, ((5, 5), (9, 9), (0, 0)), constant_values=70)
        Image.fromarray(framed).save(folder / f"photo{number}.png")
    return folder


def configure(folder, *, word="default", **changes):
    config = invert.get_config(word)
    config.update_from_flattened_dict(tiny.SIZES["invert"])
    config.generator = str(folder / "generator.safetensors")
    config.images = ",".join(str(folder / f"photo{number}.png") for number in range(2))
    config.metric.name = "l2"
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config_lib.freeze(config)


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    """The workdir of a run with tuned weights and directions."""
    workdir = tmp_path_factory.mktemp("inverted")
    directions = str(folder / "directions.safetensors")
    run(configure(folder, tune__steps=3, tune__until=0.0, directions=directions), workdir)
    return workdir


def test_run_writes_what_it_says(done, folder):
    names = {path.name for path in done.iterdir()}
    for number in range(2):
        for suffix in ("reconstruction.png", "reconstruction_full.png", "edited_full.png"):
            assert f"{number:03}_{suffix}" in names
        with np.load(done / f"{number:03}_projected_w.npz") as file:
            assert file["w"].shape == (1, *STYLES.latent_shape)
    assert "state.safetensors" not in names
    with Image.open(done / "000_reconstruction_full.png") as full:
        assert full.size == (66, 58)
    with Image.open(done / "comparison.png") as sheet:
        assert sheet.size[0] > 7 * 128
    with (done / "inverted.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["photograph"] for row in rows] == ["photo0.png", "photo1.png"]
    assert all(0 < float(row["mse"]) < 1 and -1 <= float(row["ssim"]) <= 1 for row in rows)


def test_measures_are_those_of_the_image(done, folder):
    found = read_inverted(done / "inverted.safetensors", digest=None)
    params = styles_params()
    for number in range(2):
        tuned = apply_edit(params, found.edit(number), 1.0)
        image = images_of_z(tuned, jnp.asarray(found.latents[number][None]), generator=STYLES)
        with Image.open(folder / f"photo{number}.png") as picture:
            cut = picture.crop((4, 0, 62, 58)).resize((16, 16), Image.Resampling.LANCZOS)
        target = np.asarray(cut, np.float64) / 127.5 - 1
        error = np.mean((np.asarray(image[0], np.float64) - target) ** 2)
        np.testing.assert_allclose(found.measures["mse"][number], error, rtol=0.05)


def test_a_photograph_does_not_depend_on_the_others(done, folder, tmp_path):
    found = read_inverted(done / "inverted.safetensors", digest=None)
    alone = configure(folder, images=str(folder / "photo1.png"), tune__steps=3, tune__until=0.0)
    run(alone, tmp_path)
    single = read_inverted(tmp_path / "inverted.safetensors", digest=None)
    np.testing.assert_array_equal(single.latents[0], found.latents[1])
    for path, rows in single.changes.items():
        np.testing.assert_array_equal(rows[0], found.changes[path][1], err_msg=path)


class Stop(Exception):
    """Ends a run as a signal would."""


def test_stopped_run_resumes_with_the_same_bits(done, folder, tmp_path, monkeypatch):
    keys = {"tune__steps": 3, "tune__until": 0.0, "save_minutes": 0.0}
    written, original = [], checkpoints.write_state

    def stop(path, state):
        original(path, state)
        written.append(path)
        if len(written) == 5:
            raise Stop

    monkeypatch.setattr(checkpoints, "write_state", stop)
    for _ in range(3):
        written.clear()
        with pytest.raises(Stop):
            run(configure(folder, **keys), tmp_path)
    monkeypatch.undo()
    run(configure(folder, **keys), tmp_path)
    whole = read_inverted(done / "inverted.safetensors", digest=None)
    found = read_inverted(tmp_path / "inverted.safetensors", digest=None)
    assert inverted.digest(found) == inverted.digest(whole)


def test_finished_photographs_are_kept_when_more_come(done, folder, monkeypatch):
    monkeypatch.setattr(invert_task, "_invert", None)  # would be called for a new one
    directions = str(folder / "directions.safetensors")
    keys = {"tune__steps": 3, "tune__until": 0.0, "directions": directions}
    before = (done / "inverted.safetensors").read_bytes()
    run(configure(folder, paste__feather=0.2, **keys), done)
    assert (done / "inverted.safetensors").read_bytes() == before
    with pytest.raises(InputError, match="results of another"):
        run(configure(folder, usual=0.5, **keys), done)


@pytest.mark.parametrize(
    "keys",
    [
        {"method": "adam", "noise": True, "space": "w"},
        {"space": "z", "start": "best"},
        {"word": "standard", "metric__name": "l2"},
    ],
    ids=["noise", "z", "standard"],
)
def test_other_spaces_and_methods_run(folder, tmp_path, keys):
    config = configure(folder, images=str(folder / "photo0.png"), **keys)
    run(config, tmp_path)
    found = read_inverted(tmp_path / "inverted.safetensors", digest=None)
    assert found.space == ("z" if config.space == "z" else "w_plus")
    if config.space == "w":
        assert (found.latents == found.latents[:, :1]).all()
    noise = [path for path in found.changes if path.endswith("/noise")]
    assert bool(noise) == config.noise


def test_search_begins_at_given_latents(done, folder, tmp_path):
    keys = {"steps": 1, "method": "adam", "images": str(folder / "photo1.png")}
    found = read_inverted(done / "inverted.safetensors", digest=None)
    for number in range(2):
        np.savez(tmp_path / f"start{number}.npz", w_plus=found.latents[number])
    run(configure(folder, start=str(tmp_path / "start1.npz"), **keys), tmp_path / "a")
    near = read_inverted(tmp_path / "a" / "inverted.safetensors", digest=None)
    np.testing.assert_allclose(near.latents[0], found.latents[1], atol=1e-6)  # rate 0 at first
    (tmp_path / "start0.npz").replace(tmp_path / "start1.npz")
    with pytest.raises(InputError, match="start: other content"):
        run(configure(folder, start=str(tmp_path / "start1.npz"), **keys), tmp_path / "a")


def test_recipe_shows_the_photograph_and_moves_it(done, folder, tmp_path):
    found = read_inverted(done / "inverted.safetensors", digest=None)
    params = styles_params()
    path = folder / "directions.safetensors"
    directions = directions_lib.read_directions(path, digest=None)
    recipe = Recipe(
        generator=params_lib.digest(params),
        samples=(Photo(inverted.digest(found), 1, str(done / "inverted.safetensors")),),
        moves=(Move(directions_lib.digest(directions), 1, 1.5, str(path)),),
    )
    recipe_files.write_recipe(tmp_path / "move.json", recipe)
    assert recipe_files.read_recipe(tmp_path / "move.json") == recipe
    config = edit.get_config()
    config.generator = str(folder / "generator.safetensors")
    config.recipe = str(tmp_path / "move.json")
    run(config_lib.freeze(config), tmp_path / "out")
    whole = combine([found.edit(1), directions.edit(1)], [1.0, 1.5])
    w_plus = jnp.asarray(found.latents[1][None])
    for name, weights in (
        ("edit", apply_edit(params, whole, 1.0)),
        ("original", apply_edit(params, found.edit(1), 1.0)),
    ):
        expected = encode(np.asarray(images_of_z(weights, w_plus, generator=STYLES))[0])
        with Image.open(tmp_path / "out" / f"{name}_000.png") as picture:
            assert np.abs(np.asarray(picture).astype(int) - expected).max() <= 1
        with Image.open(tmp_path / "out" / f"{name}_000_full.png") as picture:
            assert picture.size == (66, 58)
    with pytest.raises(InputError, match="photographs"):
        wrong = json.loads((tmp_path / "move.json").read_text())
        wrong["samples"][0]["photographs"] = "other"
        (tmp_path / "move.json").write_text(json.dumps(wrong))
        run(config_lib.freeze(config), tmp_path / "out")


def test_gallery_shows_photographs(done, folder, tmp_path):
    config = gallery.get_config()
    config.update_from_flattened_dict(tiny.SIZES["gallery"])
    config.generator = str(folder / "generator.safetensors")
    config.directions = str(folder / "directions.safetensors")
    config.show.photographs = str(done / "inverted.safetensors")
    config.video.directions = config.figure.directions = 1
    seen = {}
    original = tasks.gallery.page.write_gallery
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            tasks.gallery.page,
            "write_gallery",
            lambda path, showcase: (seen.update(frames=showcase.frames), original(path, showcase)),
        )
        run(config_lib.freeze(config), tmp_path)
    found = read_inverted(done / "inverted.safetensors", digest=None)
    assert seen["frames"].shape[1] == 2
    for number in range(2):
        tuned = apply_edit(styles_params(), found.edit(number), 1.0)
        expected = images_of_z(tuned, jnp.asarray(found.latents[number][None]), generator=STYLES)
        np.testing.assert_allclose(seen["frames"][0, number, 1], expected[0], atol=1e-4)


def test_other_tasks_take_the_latents(done, capsys):
    config = tiny.get_config("hessian")
    config.latents.path = str(done / "inverted.safetensors")
    config.latents.count = 1
    latents = inputs.draw_latents(config_lib.freeze(config), STYLES)
    found = read_inverted(done / "inverted.safetensors", digest=None)
    np.testing.assert_array_equal(latents, found.latents[:1])
    assert "their changes of weights and noise are left out" in capsys.readouterr().out
    with pytest.raises(InputError, match="latents of shape"):
        inputs.draw_latents(config_lib.freeze(config), LINEAR)


def test_class_is_asked_for_where_the_search_does_not_move_it(folder):
    generator = testing.tiny_generators()["biggan"]
    invert_task._require_class(configure(folder, space="z", start="best"), generator)
    invert_task._require_class(configure(folder, space="z", synthesis__label="1"), generator)
    with pytest.raises(InputError, match=r"config\.synthesis\.label"):
        invert_task._require_class(configure(folder, space="z"), generator)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"images": "nowhere.png"}, "nowhere"),
        ({"place__method": "box"}, r"config\.place\.box"),
        ({"place__box": (0.0, 0.0, 9.0, 9.0)}, r"config\.place\.method=box"),
        ({"place__method": "face"}, r"config\.place\.landmarks"),
        ({"noise": True}, "method=adam"),
        ({"start": "nowhere.npz"}, "nowhere"),
        ({"space": "v"}, r"config\.space"),
        ({"place__method": "box", "place__box": (0.0, 0.0, 3.0, 3.0)}, "4 pixels"),
        ({"place__method": "box", "place__box": (90.0, 0.0, 120.0, 30.0)}, "place"),
        ({"metric__name": "lpips"}, r"config\.metric\.weights"),
    ],
)
def test_wrong_keys_are_told_before_any_work(folder, tmp_path, keys, told, monkeypatch):
    monkeypatch.setattr(coarse, "fit", None)
    with pytest.raises(InputError, match=told):
        run(configure(folder, **keys), tmp_path)
    assert not (tmp_path / "inverted.safetensors").exists()


def test_one_photograph_that_cannot_be_used_does_not_stop_the_others(
    done, folder, tmp_path, capsys
):
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes((folder / "photo0.png").read_bytes()[:90])
    directions = str(folder / "directions.safetensors")
    keys = {"tune__steps": 3, "tune__until": 0.0, "directions": directions}
    images = f"{damaged},{folder / 'photo0.png'},{folder / 'photo1.png'}"
    run(configure(folder, images=images, **keys), done)
    assert "damaged.png: expected a whole picture" in capsys.readouterr().out
    assert len(read_inverted(done / "inverted.safetensors", digest=None)) == 2


def test_face_is_aligned_by_its_landmarks(folder, tmp_path):
    path = tmp_path / "faces.json"
    face = [[26.0, 20], [38, 22], [27, 34], [36, 36]]
    path.write_text(json.dumps({"photo0.png": [face, face[:4]]}))
    keys = {"place__method": "face", "place__landmarks": str(path), "steps": 2}
    run(configure(folder, images=str(folder / "photo0.png"), place__face=1, **keys), tmp_path)
    found = read_inverted(tmp_path / "inverted.safetensors", digest=None)
    assert len(found) == 1
    with pytest.raises(InputError, match="number 7"):
        run(configure(folder, images=str(folder / "photo0.png"), place__face=7, **keys), tmp_path)
    with pytest.raises(InputError, match="expected a face"):
        run(configure(folder, images=str(folder / "photo1.png"), **keys), tmp_path)
