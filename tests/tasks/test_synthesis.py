"""The keys `synthesis` in every task that makes images, and in the recipes between them."""

import inspect
import json
import pathlib
from typing import Any

import jax
import pytest

from configs import discover, edit, gallery, maps, tiny, viewer
from navigan_jax import checkpoints, generators, tasks, testing
from navigan_jax import config as config_lib
from navigan_jax import params as params_lib
from navigan_jax.checkpoints import make_folder
from navigan_jax.directions import read_directions, write_directions
from navigan_jax.editing import recipe_files
from navigan_jax.editing.recipe import Drawn, Recipe, Synthesis
from navigan_jax.errors import InputError
from navigan_jax.generators.files import OPTIONS, read_generator, write_generator
from navigan_jax.tasks import inputs
from navigan_jax.viewer.studio import Studio
from tests.viewer.serving import LAYERS, make_directions

# Every key at once; in such a form that all are felt.
CHANGES = {
    "synthesis.truncation": 0.5,
    "synthesis.truncation_cutoff": 3,
    "synthesis.noise": "random",
    "synthesis.noise_seed": 9,
    "synthesis.label": "1",
    "synthesis.precision": "bfloat16",
}
CHOSEN = Synthesis(0.5, 3, "random", 9, "1", "bfloat16")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Returns a folder with a StyleGAN2 of two classes, directions of it and a recipe."""
    folder = tmp_path_factory.mktemp("synthesis")
    params = testing.draw_params(testing.tiny_generators()["stylegan2"], seed=1)
    params = {**params, "mapping": jax.tree.map(lambda x: 100 * x, params["mapping"])}
    config, digest = testing.TINY_CONFIGS["stylegan2"], params_lib.digest(params)
    write_generator(folder / "generator.safetensors", "stylegan2", config, params, {})
    found = make_directions(params, LAYERS["stylegan2"], digest)
    write_directions(folder / "directions.safetensors", found)
    recipe_files.write_recipe(folder / "recipe.json", Recipe(digest, (Drawn(0), Drawn(1))))
    return folder


def configure(folder: pathlib.Path, task: str, **changes: Any) -> config_lib.Config:
    """Returns the tiny config of a task; changes by the path of their key."""
    viewed = {"viewer": viewer.get_config}
    config = viewed[task]() if task in viewed else tiny.get_config(task)
    config.generator = str(folder / "generator.safetensors")
    if task in ("gallery", "maps", "viewer"):
        config.directions = str(folder / "directions.safetensors")
    if task == "edit":
        config.recipe = str(folder / "recipe.json")
    if task in ("hessian", "discover"):
        config.layer = LAYERS["stylegan2"]
    config.update_from_flattened_dict(changes)
    return config_lib.freeze(config)


TASKS = ("hessian", "discover", "sweep", "gallery", "maps", "edit", "viewer")


@pytest.mark.parametrize("task", TASKS)
def test_every_task_makes_the_generator_that_the_keys_choose(
    folder: pathlib.Path, tmp_path: pathlib.Path, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All keys reach the constructor; a class that is not there is told before any work."""
    made = []

    def stop(*arguments: Any) -> None:
        made.append(arguments)
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(inputs, "read_generator", stop)
        with pytest.raises(InterruptedError):
            tasks.TASKS[task](configure(folder, task, **CHANGES), tmp_path)
    assert made == [(str(folder / "generator.safetensors"), CHOSEN.options())]
    message = r"^config.synthesis.label: expected a class of this generator; got 'cow'; allowed: 0"
    with pytest.raises(InputError, match=message):
        tasks.TASKS[task](configure(folder, task, **{"synthesis.label": "cow"}), tmp_path)
    message = (
        r"^config.synthesis.truncation_cutoff: expected a whole number from 0 to \d.*; got 999"
    )
    with pytest.raises(InputError, match=message):
        tasks.TASKS[task](configure(folder, task, **{"synthesis.truncation_cutoff": 999}), tmp_path)
    with pytest.raises(InputError, match=r"synthesis.precision: .*allowed: float32, bfloat16"):
        tasks.TASKS[task](configure(folder, task, **{"synthesis.precision": "half"}), tmp_path)


@pytest.mark.parametrize("task", ["hessian", "discover", "sweep"])
@pytest.mark.parametrize("cutoff", [None, 4])
def test_truncation_that_makes_all_images_the_same_is_told_before_any_work(
    folder: pathlib.Path,
    tmp_path: pathlib.Path,
    task: str,
    cutoff: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If images of several latents are compared, and truncation changes all rows."""
    changes = {"synthesis.truncation": 0.0, "synthesis.truncation_cutoff": cutoff}
    with pytest.raises(
        InputError, match=r"^config.synthesis.truncation: .*; got 0, .*=N, less tha"
    ):
        tasks.TASKS[task](configure(folder, task, **changes), tmp_path)
    assert not list(tmp_path.iterdir())
    changes["synthesis.truncation_cutoff"] = 3
    generator, _ = read_generator(folder / "generator.safetensors")
    inputs.require_different(configure(folder, task, **changes), generator)


def test_png_of_the_viewer_is_the_edit_tasks_with_all_keys(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Byte by byte: the recipe carries the keys. Without them it is another picture."""
    path = folder / "directions.safetensors"
    studios = []
    for synthesis in (CHOSEN, Synthesis()):
        generator, params = read_generator(folder / "generator.safetensors", synthesis.options())
        directions = read_directions(path, digest=params_lib.digest(params))
        studios.append(Studio(generator, params, directions, path, tmp_path, synthesis))
    data = {
        "sample": {"seed": 7, "index": 2},
        "moves": [{"index": 1, "shift": 2.5}],
        "mix": {"source": {"seed": 3}, "rows": [1, 3], "amount": 0.5},
    }
    view, plain = (studio.view(data) for studio in studios)
    recipe = folder / "viewed.json"  # beside the directions, which it names
    recipe.write_text(studios[0].recipe_text(view.recipe), encoding="utf-8")
    out = make_folder(tmp_path / "same")
    tasks.TASKS["edit"](configure(folder, "edit", recipe=str(recipe)), out)
    png = (out / "edit_000.png").read_bytes()
    assert png == studios[0].png(view) != studios[1].png(plain)
    written = recipe_files.read_recipe(out / "recipe.json")
    assert written.synthesis == CHOSEN
    facts = studios[0].describe()["directions"]["facts"]
    assert "noise random" in facts["synthesis"] and "truncation 0.5" in facts["synthesis"]


def test_keys_of_the_edit_task_take_the_place_of_the_recipes(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """With a truncation of 0 all samples are the same; the settings used are written."""
    recipe = recipe_files.read_recipe(folder / "recipe.json")
    kept = Synthesis(noise="none", truncation=0.9)
    path = tmp_path / "recipe.json"
    recipe_files.write_recipe(path, Recipe(recipe.generator, recipe.samples, synthesis=kept))
    config = configure(folder, "edit", recipe=str(path), **{"synthesis.truncation": 0.0})
    tasks.TASKS["edit"](config, make_folder(tmp_path / "out"))
    images = [(tmp_path / "out" / f"edit_00{n}.png").read_bytes() for n in (0, 1)]
    assert images[0] == images[1]
    written = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert written["synthesis"] == {"truncation": 0.0, "noise": "none"}


# What is so without a word, said; all rows are 4.
DEFAULTS = {
    "truncation": 1.0,
    "truncation_cutoff": 4,
    "noise": "constant",
    "noise_seed": 0,
    "label": "0",
    "precision": "float32",
}


def test_recipe_in_the_workdir_stays_as_it_is(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Keys of the task that would replace the recipe's are refused."""
    path = tmp_path / "recipe.json"
    text = (folder / "recipe.json").read_text() + "\n"  # as written by hand
    path.write_text(text)
    said = configure(folder, "edit", recipe=str(path), **{"synthesis.noise": "none"})
    with pytest.raises(InputError, match=r"recipe.json: .* others in config.synthesis; choose"):
        tasks.TASKS["edit"](said, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["recipe.json"]
    tasks.TASKS["edit"](configure(folder, "edit", recipe=str(path)), tmp_path)
    assert path.read_text() == text and (tmp_path / "edit_000.png").exists()


@pytest.mark.parametrize("key", DEFAULTS)
def test_a_default_that_is_said_takes_the_place_of_the_recipes(
    folder: pathlib.Path, key: str
) -> None:
    """And what is not said is the recipe's."""
    config = configure(folder, "edit", **{f"synthesis.{key}": DEFAULTS[key]})
    generator, _, setting = inputs.read_set_generator(config, CHOSEN)
    want = Synthesis(**{**CHOSEN.to_json(), key: DEFAULTS[key]})
    assert setting == want
    path = folder / "generator.safetensors"
    assert generator == read_generator(path, want.options())[0]
    plain, _, _ = inputs.read_set_generator(configure(folder, "edit"), CHOSEN)
    assert plain == read_generator(path, CHOSEN.options())[0] != generator
    assert inputs.read_set_generator(configure(folder, "edit"))[0] == read_generator(path)[0]


def test_empty_texts_and_huge_numbers(folder: pathlib.Path) -> None:
    """A label of no letters is none; a number that only ends in NaN is told by its key."""
    empty = configure(folder, "edit", **{"synthesis.label": ""})
    assert inputs.synthesis(empty) == Synthesis()
    huge = configure(folder, "edit", **{"synthesis.truncation": 1e30})
    with pytest.raises(InputError, match=r"^config.synthesis.truncation: .*got 1e\+30; correct it"):
        inputs.read_set_generator(huge)


def test_a_config_is_kept_with_its_defaults_in_full(folder: pathlib.Path) -> None:
    """So to say one changes nothing; an empty config is as a config of all defaults."""
    empty = inputs.fill_defaults(configure(folder, "hessian"))
    assert empty.synthesis.to_dict() == dict(OPTIONS)
    said = {f"synthesis.{key}": value for key, value in OPTIONS.items()}
    assert inputs.fill_defaults(configure(folder, "hessian", **said)) == empty
    changed = inputs.fill_defaults(configure(folder, "hessian", **CHANGES))
    assert changed.synthesis.to_dict() == CHOSEN.to_json()
    again = config_lib.from_text(config_lib.to_text(changed))
    assert inputs.synthesis(again) == CHOSEN


@pytest.mark.parametrize("key", DEFAULTS)
def test_option_that_a_dcgan_lacks_is_told_by_the_key(
    folder: pathlib.Path, tmp_path: pathlib.Path, key: str
) -> None:
    """The message names the key of the config or recipe; an explicit default is accepted."""
    generator = testing.tiny_generators()["dcgan"]
    path, params = tmp_path / "dcgan.safetensors", testing.draw_params(generator, 0)
    write_generator(path, "dcgan", testing.TINY_CONFIGS["dcgan"], params, {})
    own = {"generator": str(path)}
    changes = {f"synthesis.{key}": getattr(CHOSEN, key)}
    config, plain = configure(folder, "edit", **own, **changes), configure(folder, "edit", **own)
    recipe = Synthesis(**{key: getattr(CHOSEN, key)})
    if key == "precision":
        assert inputs.read_set_generator(config)[0] != generator
        return
    makers = sorted(generators.ARCHITECTURES.items())
    having = ", ".join(name for name, make in makers if key in inspect.signature(make).parameters)
    reason = (
        f"{key}: expected an option of dcgan, .*; got .* option of {having} only; allowed: prec"
    )
    with pytest.raises(InputError, match=rf"^config\.synthesis\.{reason}"):
        inputs.read_set_generator(config)
    with pytest.raises(InputError, match=rf"recipe\.json: synthesis: {reason}"):
        inputs.read_set_generator(plain, recipe)
    said = {f"synthesis.{key}": OPTIONS[key]}
    assert inputs.read_set_generator(configure(folder, "edit", **own, **said))[0] == generator


def test_maps_and_galleries_say_how_the_generator_was_set(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Maps in their file, the gallery on its page; mixed latents have other maps."""
    found = []
    for number, row in enumerate((None, 1)):
        changes = {"choose": "0", "latents.count": 2, "latents.mix_from": row}
        config = configure(folder, "maps", **changes, **{"synthesis.label": "1"})
        workdir = make_folder(tmp_path / str(number))
        tasks.TASKS["maps"](config, workdir)
        arrays, metadata = checkpoints.read_arrays(workdir / "maps.safetensors")
        assert json.loads(metadata["synthesis"]) == {"label": "1"}
        found.append(arrays["change"])
    with pytest.raises(AssertionError, match="relative error"):
        testing.assert_close(*found, 1e-2)
    changes = {"choose": "0", "video.directions": 0, "figure.directions": 0}
    config = configure(folder, "gallery", **changes, **{"synthesis.noise": "none"})
    tasks.TASKS["gallery"](config, tmp_path)
    text = (tmp_path / "gallery.html").read_text()
    assert "<dt>noise</dt><dd>none</dd>" in text.replace("\n", "")


def test_configs_have_one_table_of_keys() -> None:
    """The same keys with the same defaults, so that a command line is good for all tasks."""
    tables = [
        module.get_config().synthesis.to_dict()
        for module in (discover, edit, gallery, maps, viewer)
    ]
    assert tables == [tiny.get_config("hessian").synthesis.to_dict()] * len(tables)
