"""Helpers for tests only: golden data, random weights, closeness, 64-bit mode, trace counts."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax.array_types import Params
from navigan_jax.generators.base import Generator
from navigan_jax.generators.files import make_generator
from navigan_jax.perceptual import lpips

_DEFAULT_GOLDEN_DIR = pathlib.Path(__file__).resolve().parents[1] / "tests" / "golden"


def _golden_dir() -> pathlib.Path:
    return pathlib.Path(os.environ.get("NAVIGAN_GOLDEN_DIR", _DEFAULT_GOLDEN_DIR))


@functools.cache
def _read_index(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / "index.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"golden data: {path} is missing; the folder is tests/golden, or the one named in "
            "NAVIGAN_GOLDEN_DIR"
        )
    return json.loads(path.read_text(encoding="utf-8"))


@dataclasses.dataclass(frozen=True)
class GoldenCase:
    """A case of the golden data: its entry in the index, and its files by role."""

    name: str
    folder: pathlib.Path
    info: Mapping[str, Any]

    def path(self, role: str) -> pathlib.Path:
        """Returns the path of a file, e.g. of the role "data".

        Raises: FileNotFoundError if it is missing; ValueError if its SHA-256 differs from the
            index.
        """
        path = self.folder / self.info["files"][role]
        if not path.is_file():
            raise FileNotFoundError(f"golden data: case {self.name} needs {path}, which is missing")
        listed = _read_index(self.folder)["files"][path.name]["sha256"]
        if hashlib.sha256(path.read_bytes()).hexdigest() != listed:
            raise ValueError(f"golden data: {path} was changed; copy it anew, never regenerate it")
        return path

    def arrays(self, role: str) -> dict[str, np.ndarray]:
        """Returns the arrays of an .npz file by name."""
        with np.load(self.path(role), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}

    @property
    def program(self) -> str:
        """The program that made the case, as "repository: classes"."""
        return "{repository}: {classes}".format_map(self.info["source"])

    @property
    def tolerance(self) -> Mapping[str, float]:
        """Tolerances by quantity, in the metric of `assert_close`."""
        return self.info["tolerance"]


def golden_case(name: str) -> GoldenCase:
    """Returns the case of that name.

    Raises: FileNotFoundError if there is no index; ValueError if the index lacks the case.
    """
    folder = _golden_dir()
    cases = _read_index(folder)["cases"]
    if name not in cases:
        raise ValueError(f"golden data: {folder} has no case {name!r}; it has {', '.join(cases)}")
    return GoldenCase(name, folder, cases[name])


def golden_names(program: str) -> list[str]:
    """Returns the names of the cases made by a program, in the order of the index.

    program: how `GoldenCase.program` begins, e.g. "rosinality/stylegan2-pytorch"; "": all cases.
    Raises: ValueError if there is none.
    """
    folder = _golden_dir()
    programs = {name: golden_case(name).program for name in _read_index(folder)["cases"]}
    names = [name for name, text in programs.items() if text.startswith(program)]
    if not names:
        raise ValueError(f"golden data: {folder} has no case of {program!r}; it has {programs}")
    return names


def golden_fill_start(fill: str) -> int:
    """Returns the start value for `fill_state_dict` that the index gives for a network."""
    return _read_index(_golden_dir())["fill_rule"]["start"][fill]


def fill_state_dict(
    names_and_shapes: Mapping[str, Sequence[int]], start: int
) -> dict[str, np.ndarray]:
    """Returns random float32 weights by the rule that filled the golden networks.

    Each tensor has its own random generator, seeded by the CRC-32 of its name with the start value
    `start`. Kernels have He's standard deviation; biases and running means 0.1 around 0; scales 0.1
    around 1. Running variances lie between 0.5 and 1.5, and counters are 0.
    """
    return {name: _fill(name, tuple(shape), start) for name, shape in names_and_shapes.items()}


def _fill(name: str, shape: tuple[int, ...], start: int) -> np.ndarray:
    random = np.random.RandomState(zlib.crc32(name.encode(), start))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.float32)
    if name.endswith("running_var"):
        values = 0.5 + random.random_sample(shape)
    elif len(shape) >= 2:
        values = random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith("weight"):
        values = 1 + 0.1 * random.standard_normal(shape)
    else:
        values = 0.1 * random.standard_normal(shape)
    return values.astype(np.float32)


def random_lpips(net: str, seed: int, *, linear: bool = True, version: str = "0.1") -> lpips.LPIPS:
    """Returns LPIPS with random weights: He's deviation for kernels, linear weights in [0, 1]."""
    random = np.random.RandomState(seed)

    def draw(path: tuple[Any, ...], shape: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[0].key == "linear":
            return random.random_sample(shape.shape).astype(np.float32)
        fan_in = np.prod(shape.shape[:-1]) if shape.ndim > 1 else 200
        return (random.standard_normal(shape.shape) * np.sqrt(2 / fan_in)).astype(np.float32)

    params = jax.tree.map_with_path(draw, lpips.expected_params(net, linear))
    return lpips.create(params, net=net, version=version, linear=linear)


def assert_close(
    actual: Any, desired: Any, tolerance: float, name: str = "", *, scale: Any = None
) -> None:
    """Asserts that max |actual − desired| ≤ tolerance · scale.

    scale: the natural size of the quantity; by default the root mean square of `desired`.
    """
    actual, desired = np.asarray(actual), np.asarray(desired)
    assert actual.shape == desired.shape, f"{name}: shape {actual.shape}, not {desired.shape}"
    assert np.isfinite(actual).all(), f"{name}: {np.sum(~np.isfinite(actual))} values not finite"
    if scale is None:
        scale = np.sqrt(np.mean(np.square(desired, dtype=np.float64)))
        assert scale > 0, f"{name}: all desired values are 0; give the scale of the quantity"
    error = np.max(np.abs(actual.astype(np.float64) - desired.astype(np.float64))) / float(scale)
    assert error <= tolerance, f"{name}: relative error {error:.3g} exceeds {tolerance:.3g}"


@contextlib.contextmanager
def x64(*, optimised: bool = False) -> Iterator[None]:
    """Returns a context manager in which JAX computes with 64-bit numbers.

    optimised: whether programs are optimised even if the tests compile without optimisations;
    convolutions of 64 bits are plain loops, which otherwise take ten times as long.
    """
    compiles_fast = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", compiles_fast and not optimised)
    try:
        with jax.enable_x64(True):
            yield
    finally:
        jax.config.update("jax_disable_most_optimizations", compiles_fast)


def normal_like(seed: int, tree: Any) -> Any:
    """Returns a tree of standard normal arrays with the shapes and dtypes of `tree`."""
    random = np.random.RandomState(seed)
    return jax.tree.map(lambda x: jnp.asarray(random.standard_normal(x.shape), x.dtype), tree)


class TraceCounter:
    """A function for `jax.jit` that counts in `traces` how often it is traced."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.traces = 0

    def __call__(self, *arguments: Any) -> Any:
        self.traces += 1
        return self.function(*arguments)


TINY_CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "dcgan": {"z_dim": 7, "widths": (6, 5), "image_channels": 3},
    "stylegan2": {
        "z_dim": 7,
        "label_dim": 2,
        "label_width": 3,
        "labels": "embedded",
        "mapping_widths": (9, 11),
        "mapping_rate": 0.01,
        "channels": (6, 5),
        "image_channels": 3,
        "blocks": "skip",
        "resample_taps": (1, 3, 3, 1),
        "clamp": None,
    },
    "sngan": {
        "z_dim": 7,
        "widths": (6, 5, 5),
        "bypass_sides": (1, 0),
        "image_channels": 3,
        "label_dim": 2,
    },
    "biggan": {
        "z_dim": 6,
        "label_dim": 3,
        "embedding": 2,
        "widths": (9, 8, 10),
        "attention": (0,),
    },
    "biggan_deep": {
        "z_dim": 5,
        "label_dim": 3,
        "embedding": 2,
        "first_width": 12,
        "outputs": (12, 8),
        "doubles": (False, True),
        "attention": (1,),
        "entries": 3,
    },
    "pix2pixhd": {
        "labels": 29,
        "has_instances": True,
        "width_first": 4,
        "halvings": 1,
        "blocks": 1,
        "enhancer_blocks": (1,),
        "height": 16,
        "width": 24,
    },
    "proggan": {"z_dim": 7, "widths": (6, 5), "image_channels": 3},
}


def tiny_generators() -> dict[str, Generator]:
    """Returns {architecture: a small generator}; all axes have different sizes."""
    return {name: make_generator(name, config) for name, config in TINY_CONFIGS.items()}


def draw_params(generator: Generator, seed: int) -> Params:
    """Returns random parameters: no special values such as 0 or 1, and positive variances."""
    shapes = generator.weights
    random = np.random.RandomState(seed)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        spread = 0.3 if leaf.ndim > 1 else 0.1
        drawn = spread * random.standard_normal(leaf.shape)
        if path[-1].key in ("scale", "var"):
            drawn = 1 + np.abs(drawn)
        return drawn.astype(np.float32)

    return jax.tree.map_with_path(draw, shapes)
