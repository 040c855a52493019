"""The source map of a generator file: reading returns what was written, or refuses it."""

import copy
import dataclasses
import pathlib
from typing import Any

import numpy as np
import pytest

from navigan_jax import testing
from navigan_jax.errors import InputError
from navigan_jax.generators.files import write_generator
from navigan_jax.generators.source_map import (
    Absorber,
    Checksum,
    Place,
    SourceMap,
    Spectral,
    read_source_map,
)

SPECTRAL = Spectral(("conv1.weight", "conv1.u"), (40, "<f4", 3), (52, ">f8", 2), 1e-6)
WITHOUT_V = dataclasses.replace(
    SPECTRAL, v=None, absorbers=(Absorber("norm0/bias", "norm.bias", -1, 0.5),)
)
MAP = SourceMap(
    file="network.pt",
    sha256="ab" * 32,
    size=1000,
    converted="G",
    networks={
        "G": {
            "conv0/kernel": Place(64, "<f4", (8, -4)),
            "norm0/bias": Place(8, ">f2", (2,), 1.0),
            "conv1/kernel": Place(200, "<f4", (4, 8), spectral=SPECTRAL),
            "conv2/kernel": Place(300, "<f4", (4, 8), spectral=WITHOUT_V),
        },
        "G_ema": {},
    },
    checksums=(Checksum(60, 200, (14, 900)),),
)


def written(folder: pathlib.Path, content: Any) -> pathlib.Path:
    generator = testing.tiny_generators()["dcgan"]
    config: dict[str, Any] = dict(testing.TINY_CONFIGS["dcgan"])
    path = folder / "generator.safetensors"
    params = testing.draw_params(generator, 0)
    write_generator(path, "dcgan", config, params, {"map": content})
    return path


def test_map_comes_back_equal(tmp_path: pathlib.Path) -> None:
    """Written to and read from the metadata of the file."""
    assert read_source_map(written(tmp_path, MAP.to_json())) == MAP


def _spectral(content: Any) -> Any:
    return content["networks"]["G"]["conv1/kernel"][4]


DAMAGE = {
    "no list": lambda content: content.update(networks=3),
    "no type of numbers": lambda content: content["networks"]["G"].update(a=[0, "O", [4], 0.0]),
    "whole numbers": lambda content: content["networks"]["G"].update(a=[0, "<i4", [4], 0.0]),
    "field missing": lambda content: content.pop("size"),
    "checksum outside": lambda content: content.update(checksums=[[0, 10, [998]]]),
    "part outside": lambda content: content.update(checksums=[[0, 1001, [4]]]),
    "other network": lambda content: content.update(converted="Gs"),
    "vector of whole numbers": lambda content: _spectral(content).update(u=[0, "<i4", 3]),
    "vector missing": lambda content: _spectral(content).pop("u"),
    "absorber without a path": lambda content: _spectral(content).update(absorbers=[{"name": "a"}]),
    "place of three": lambda content: content["networks"]["G"].update(a=[0, "<f4", [4]]),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_map_is_refused(case: str, tmp_path: pathlib.Path) -> None:
    """One message names the file."""
    content = copy.deepcopy(MAP.to_json())
    DAMAGE[case](content)
    with pytest.raises(InputError, match=r"generator.safetensors: expected a map .* damaged one"):
        read_source_map(written(tmp_path, content))


def test_bounds_and_views_are_those_of_the_strides() -> None:
    """A negative stride starts at the end; a view covers the bytes between the bounds."""
    memory = bytearray(np.arange(50, dtype="<f4").tobytes())
    place = Place(100, "<f4", (-40, 8))
    view = place.view(memory, (2, 3))
    np.testing.assert_array_equal(view, [[25, 27, 29], [15, 17, 19]])
    low, high = place.bounds((2, 3))
    assert (low, high) == (60, 120)
    view[...] = -1
    changed = np.flatnonzero(np.frombuffer(memory, "<f4") == -1)
    assert (4 * changed[0], 4 * changed[-1] + 4) == (low, high)
    for offset in (20, 190):
        with pytest.raises(ValueError, match=r"strides|buffer"):
            Place(offset, "<f4", (-40, 8)).view(memory, (2, 3))
