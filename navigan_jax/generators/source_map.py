"""Where a generator's weights stand in the file that they were converted from.

The converter writes this map into the generator file. With it an edit can be written into a copy
of the user's own file byte by byte (`editing.bake`), by a program that does not know its format: a
place is an offset, a number type and strides, and all turning and transposing is in the strides.
"""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from navigan_jax import checkpoints
from navigan_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an array stands: element i of our array is at offset + Σ strides·i, in bytes.

    dtype: as NumPy writes it, byte order included. added: our array is the file's plus this.
    """

    offset: int
    dtype: str
    strides: tuple[int, ...]
    added: float = 0.0

    def bounds(self, shape: Sequence[int]) -> tuple[int, int]:
        """Returns the first byte of an array of that shape, and the one after its last."""
        steps = [(size - 1) * step for size, step in zip(shape, self.strides, strict=True)]
        low = self.offset + sum(step for step in steps if step < 0)
        high = self.offset + sum(step for step in steps if step > 0)
        return low, high + np.dtype(self.dtype).itemsize

    def view(self, memory: Any, shape: Sequence[int]) -> np.ndarray:
        """Returns the array in the memory that holds the whole file; writable if that is.

        Raises: ValueError if a part of it lies outside.
        """
        return np.ndarray(
            tuple(shape), self.dtype, buffer=memory, offset=self.offset, strides=self.strides
        )


@dataclasses.dataclass(frozen=True)
class Checksum:
    """The CRC-32 of the bytes from start to stop stands, in 4 bytes each, at all the offsets."""

    start: int
    stop: int
    offsets: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class SourceMap:
    """The map of one file.

    file: its name. sha256, size: of the file, in hexadecimal and bytes. converted: which of its
    networks the weights are. networks: for each network of that architecture in it, the places of
    its arrays by their path in our parameters; arrays that are not there as plain bytes have none.
    """

    file: str
    sha256: str
    size: int
    converted: str
    networks: Mapping[str, Mapping[str, Place]]
    checksums: tuple[Checksum, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns plain data for `json`."""
        networks = {
            name: {
                path: [place.offset, place.dtype, list(place.strides), place.added]
                for path, place in places.items()
            }
            for name, places in self.networks.items()
        }
        return {
            "file": self.file,
            "sha256": self.sha256,
            "size": self.size,
            "converted": self.converted,
            "networks": networks,
            "checksums": [[each.start, each.stop, list(each.offsets)] for each in self.checksums],
        }


def read_source_map(path: str | os.PathLike[str]) -> SourceMap:
    """Returns the map in a generator file.

    Raises: InputError if the file has none, or a damaged one.
    """
    _, metadata = checkpoints.read_arrays(path)
    checkpoints.require_format(path, metadata, "generator")
    content = checkpoints.read_json(path, metadata, "source").get("map")
    if content is None:
        raise InputError(
            f"{path}: expected a generator file that knows the places of its weights in the file "
            "they are from; got one without; an older version converted it, or from a packed file: "
            "convert the file itself anew: python -m tools.convert_weights KIND SOURCE --out FILE"
        )
    try:
        return _from_json(content)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path}: expected a map of the places of its weights; got a damaged one; "
            "convert the source anew"
        ) from error


def _from_json(content: Any) -> SourceMap:
    networks = {
        name: {path: _place(*entry) for path, entry in places.items()}
        for name, places in content["networks"].items()
    }
    if content["converted"] not in networks:
        raise ValueError("it lacks the network that was converted")
    checksums = tuple(
        Checksum(int(start), int(stop), tuple(map(int, offsets)))
        for start, stop, offsets in content["checksums"]
    )
    size = int(content["size"])
    for each in checksums:
        if not 0 <= each.start <= each.stop <= size or any(
            not 0 <= at <= size - 4 for at in each.offsets
        ):
            raise ValueError("a checksum outside of the file")
    return SourceMap(
        str(content["file"]),
        str(content["sha256"]),
        size,
        str(content["converted"]),
        networks,
        checksums,
    )


def _place(offset: int, dtype: str, strides: Sequence[int], added: float) -> Place:
    if np.dtype(dtype).kind not in "fV" or not math.isfinite(added):
        raise ValueError(f"numbers of type {dtype}")
    return Place(int(offset), dtype, tuple(map(int, strides)), float(added))
