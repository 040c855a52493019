"""Generators of grey and alpha, and of RGB and alpha: every task ends in pictures of them."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from configs import tiny
from navigan_jax import config as config_lib
from navigan_jax import directions as directions_lib
from navigan_jax import params as params_lib
from navigan_jax.directions import Directions, read_directions, write_directions
from navigan_jax.editing import recipe_files
from navigan_jax.editing.recipe import Drawn, Move, Recipe, Video
from navigan_jax.generators.files import write_generator
from tests.tasks.spectra import PICTURES, SIZES, draw_params, run

KEYS = ("architecture", "method", "metric", "seed", "latents", "config")


def write_network(folder: pathlib.Path, channels: int) -> str:
    """Writes a generator of such images, and directions of its layer conv1; returns its digest."""
    sizes = SIZES | {"image_channels": channels}
    params = draw_params(sizes)
    write_generator(folder / "generator.safetensors", "dcgan", sizes, params, {})
    rows = np.random.RandomState(0).standard_normal((2, *params["conv1"]["kernel"].shape))
    rows /= np.linalg.norm(rows.reshape(2, -1), axis=1).reshape(2, 1, 1, 1, 1)
    digest = params_lib.digest(params)
    directions = Directions(
        basis={"conv1/kernel": rows.astype(np.float32)},
        measures={"accuracy": np.array([1.0, 0.5])},
        shift_scales=np.full((2, 2), 2.0),
        distances=np.full((2, 2), 0.1),
        provenance=dict.fromkeys(KEYS, "none") | {"digest": digest},
    )
    write_directions(folder / "directions.safetensors", directions)
    return digest


def configure(task: str, folder: pathlib.Path, **changes: object) -> config_lib.Config:
    config = tiny.get_config(task)
    config.generator = str(folder / "generator.safetensors")
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config_lib.freeze(config)


def made(folder: pathlib.Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.stat().st_size > 100}


@pytest.mark.parametrize(("channels", "mode"), [(2, "LA"), (4, "RGBA")])
def test_directions_are_shown_mapped_and_edited(
    channels: int, mode: str, tmp_path: pathlib.Path
) -> None:
    """Galleries, figure, videos and maps; the PNG files of an edit keep the alpha."""
    digest = write_network(tmp_path, channels)
    path = tmp_path / "directions.safetensors"
    for task, files in (
        ("gallery", {"gallery.html", "gallery.png", "figure.pdf", "video.mp4", "video.gif"}),
        ("maps", {"maps.png", "maps.safetensors"}),
    ):
        run(configure(task, tmp_path, directions=str(path)), tmp_path / task)
        assert files <= made(tmp_path / task)
    found = read_directions(path, digest=None)
    move = Move(directions_lib.digest(found), 1, 1.5, path.name)
    recipe = Recipe(digest, (Drawn(1),), (move,), video=Video(0.0, 1.0, 0.2))
    recipe_files.write_recipe(tmp_path / "recipe.json", recipe)
    run(configure("edit", tmp_path, recipe=str(tmp_path / "recipe.json")), tmp_path / "edit")
    assert {"video.mp4", "video.gif"} <= made(tmp_path / "edit")
    with Image.open(tmp_path / "edit" / "edit_000.png") as picture:
        assert picture.mode == mode


def test_spectrum_of_the_last_layer_moves_colour_and_alpha(tmp_path: pathlib.Path) -> None:
    """The run finds shift scales and effective ranges, and makes pictures."""
    write_network(tmp_path, 4)
    config = configure("hessian", tmp_path, layer="conv2", metric__name="l2", directions=2)
    run(config, tmp_path / "run")
    assert set(PICTURES) <= made(tmp_path / "run")
    found = read_directions(tmp_path / "run" / "directions.safetensors", digest=None)
    parts = np.abs(found.basis["conv2/kernel"]).sum(axis=(1, 2, 3))
    assert parts.shape == (2, 4) and (parts > 0.01 * parts.max()).all()
    assert found.plausible is not None and found.plausible.min() > 0
