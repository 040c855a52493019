"""The keys `synthesis` in every task that makes images, and in the recipes between them."""

import json
import pathlib
from typing import Any

import jax
import pytest

from configs import discover, edit, gallery, maps, tiny, viewer
from navigan_jax import checkpoints, tasks, testing
from navigan_jax import config as config_lib
from navigan_jax import params as params_lib
from navigan_jax.checkpoints import make_folder
from navigan_jax.directions import read_directions, write_directions
from navigan_jax.editing import recipe_files
from navigan_jax.editing.recipe import Drawn, Recipe, Synthesis
from navigan_jax.errors import InputError
from navigan_jax.generators.files import read_generator, write_generator
from navigan_jax.tasks import choosing, inputs
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


# Where each task has its generator from.
READERS = {
    "hessian": inputs,
    "discover": inputs,
    "sweep": tasks.sweep,
    "gallery": choosing,
    "maps": choosing,
    "edit": tasks.edit,
    "viewer": tasks.viewer,
}


@pytest.mark.parametrize("task", READERS)
def test_every_task_makes_the_generator_that_the_keys_choose(
    folder: pathlib.Path, tmp_path: pathlib.Path, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All keys reach the constructor; a class that is not there is told before any work."""
    made = []

    def stop(*arguments: Any) -> None:
        made.append(arguments)
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(READERS[task], "read_generator", stop)
        with pytest.raises(InterruptedError):
            tasks.TASKS[task](configure(folder, task, **CHANGES), tmp_path)
    assert made == [(str(folder / "generator.safetensors"), CHOSEN.options())]
    with pytest.raises(InputError, match="label: expected a class of this generator; got 'cow'"):
        tasks.TASKS[task](configure(folder, task, **{"synthesis.label": "cow"}), tmp_path)
    with pytest.raises(InputError, match=r"synthesis.precision: .*allowed: float32, bfloat16"):
        tasks.TASKS[task](configure(folder, task, **{"synthesis.precision": "half"}), tmp_path)


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
    """One by one: with a truncation of 0 all samples are the same; what was made is written."""
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
