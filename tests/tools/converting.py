"""Conversions from a path, as the commands put them together."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from navigan_jax.array_types import Params
from navigan_jax.directions import Directions
from navigan_jax.generators.base import Generator
from navigan_jax.generators.files import read_generator
from tools.convert_weights import __main__ as command
from tools.convert_weights.foreign import read_foreign
from tools.convert_weights.networks import dcgan, navigan
from tools.convert_weights.networks.stylegan2 import reading
from tools.convert_weights.readers.modules import ATTRIBUTES, is_tensorflow, name_values
from tools.convert_weights.readers.nvidia_file import networks_in
from tools.convert_weights.readers.structure import Record


def read_stylegan2(path: pathlib.Path, options: reading.Options | None = None) -> Any:
    """Returns (config, params, source)."""
    return reading.from_foreign(read_foreign(path), options or reading.Options())


def from_rosinality(state: Mapping[str, Any], latent_avg: Any, **options: Any) -> Any:
    """Returns (config, params) of a state dict in rosinality's names.

    latent_avg: the average w, or None if the file lacks it.
    """
    average = {} if latent_avg is None else {"latent_avg": latent_avg}
    return reading.from_content({"g_ema": state} | average, "file", reading.Options(**options))


def read_nvidia(path: pathlib.Path) -> dict[str, Record]:
    """Returns the networks of a pickle of NVIDIA's programs by name."""
    return networks_in(read_foreign(path).content)


def convert_file(kind: str, source: pathlib.Path, *more: str) -> Any:
    """Returns the generator and parameters of a file, by the command; more: its arguments.

    The command writes converted.safetensors beside the file.
    """
    out = source.parent / "converted.safetensors"
    assert command.main([kind, str(source), "--out", str(out), *more]) == 0
    return read_generator(out)


def read_dcgan(path: pathlib.Path) -> Any:
    """Returns (config, params, source)."""
    return dcgan.from_foreign(read_foreign(path, dcgan.WHEEL_MEMBER))


def read_navigan(
    path: pathlib.Path,
    generator: Generator,
    params: Params,
    *,
    basis: pathlib.Path | None = None,
    layer: str | None = None,
) -> Directions:
    """Returns the directions."""
    return navigan.from_foreign(
        read_foreign(path),
        generator,
        params,
        basis=None if basis is None else read_foreign(basis),
        layer=layer,
    )


def named_arrays(content: Any) -> dict[str, np.ndarray]:
    """Returns all arrays of a file's content by name."""
    leaves = name_values(content).leaves
    return {
        name: np.asarray(leaf.value)
        for name, leaf in leaves.items()
        if isinstance(leaf.value, np.ndarray | np.generic)
    }


def arrays_of(network: Record) -> dict[str, np.ndarray]:
    """Returns the weights of a pickled network by name, without those of its class."""
    leaves = name_values(network).leaves
    own = f"{network.state.get('name')}." if is_tensorflow(network) else ""
    return {
        name.removeprefix(own): leaf.value
        for name, leaf in leaves.items()
        if isinstance(leaf.value, np.ndarray) and leaf.home != ATTRIBUTES
    }
