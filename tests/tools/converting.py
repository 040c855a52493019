"""Conversions from a path, as the commands put them together."""

import pathlib
from typing import Any

import numpy as np

from navigan_jax.array_types import Params
from navigan_jax.directions import Directions
from navigan_jax.generators.base import Generator
from tools.convert_weights.foreign import read_foreign
from tools.convert_weights.networks import dcgan, navigan
from tools.convert_weights.networks.stylegan2 import reading
from tools.convert_weights.readers.modules import ATTRIBUTES, is_tensorflow, name_values
from tools.convert_weights.readers.structure import Record


def read_stylegan2(path: pathlib.Path, options: reading.Options | None = None) -> Any:
    """Returns (config, params, source)."""
    return reading.from_foreign(read_foreign(path), options or reading.Options())


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


def arrays_of(network: Record) -> dict[str, np.ndarray]:
    """Returns the weights of a pickled network by name, without those of its class."""
    leaves = name_values(network).leaves
    own = f"{network.state.get('name')}." if is_tensorflow(network) else ""
    return {
        name.removeprefix(own): leaf.value
        for name, leaf in leaves.items()
        if isinstance(leaf.value, np.ndarray) and leaf.home != ATTRIBUTES
    }
