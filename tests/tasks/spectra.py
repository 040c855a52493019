"""Spectra of a random generator so small that a run of the task takes seconds."""

import dataclasses
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
import pytest

from configs import tiny
from navigan_jax import checkpoints, tasks
from navigan_jax import config as config_lib
from navigan_jax.errors import InputError
from navigan_jax.generators.files import make_generator

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIZES = {"z_dim": 5, "widths": [7, 6], "image_channels": 3}
PICTURES = ("spectrum.png", "gallery.png", "gallery.html", "animation.gif")
Overrides = Any


def draw_params(sizes: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    """Returns float32 weights of such a DCGAN; running variances are positive."""
    random = np.random.RandomState(seed)
    shapes = make_generator("dcgan", sizes).weights

    def draw(path: tuple[jax.tree_util.DictKey, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        lowest = -0.5 if path[-1].key == "kernel" else 0.2
        return random.uniform(lowest, 0.6, leaf.shape).astype(np.float32)

    return jax.tree.map_with_path(draw, shapes)


def configure(files: pathlib.Path, **changes: Overrides) -> config_lib.Config:
    """Returns the tiny config with values by path, dots written as two underscores."""
    return override(tiny.get_config("hessian"), files, changes)


def override(
    config: config_lib.Config, files: pathlib.Path, changes: dict[str, Overrides]
) -> config_lib.Config:
    defaults = {"generator": str(files / "generator.safetensors"), "layer": "conv1"}
    for name, value in (defaults | {"metric__name": "l2"} | changes).items():
        *parents, last = name.split("__")
        node = config
        for parent in parents:
            node = node[parent]
        node[last] = value
    return config_lib.freeze(config)


def run(config: config_lib.Config, workdir: pathlib.Path) -> None:
    """Runs the task as main does."""
    tasks.TASKS[config.task](config, checkpoints.make_folder(workdir))


@dataclasses.dataclass(frozen=True)
class Finished:
    """A finished run, which nobody changes."""

    config: config_lib.Config
    workdir: pathlib.Path

    def copy(self, to: pathlib.Path) -> pathlib.Path:
        return pathlib.Path(shutil.copytree(self.workdir, to / "copy"))


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def arrays_of(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    return checkpoints.read_arrays(workdir / "directions.safetensors")[0]


def assert_same_results(ours: pathlib.Path, theirs: pathlib.Path) -> None:
    """The same bits, in directions, metrics and page; how often states were saved may differ."""
    our, their = arrays_of(ours), arrays_of(theirs)
    assert our.keys() == their.keys()
    for name in our:
        np.testing.assert_array_equal(our[name], their[name])
    for name in ("metrics.jsonl", "gallery.html"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


def refused(config: config_lib.Config, workdir: pathlib.Path, message: str) -> str:
    """Asserts that the run ends with one such message and that the workdir stays as it is."""
    before = contents(checkpoints.make_folder(workdir))
    with pytest.raises(InputError, match=message) as caught:
        run(config, workdir)
    assert contents(workdir) == before
    return str(caught.value)


class Stop(Exception):
    """Ends a run where a test wants it to end."""


def stop(*_: Any, **__: Any) -> None:
    raise Stop
