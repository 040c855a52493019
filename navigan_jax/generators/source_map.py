"""Where a generator's weights are in the file from which they were converted.

The converter writes this map into the generator file. With the map, `editing.bake` writes an edit
into a copy of the user's own file, byte by byte and without knowing the file's format: a place is
an offset, a dtype and strides, and the strides express all flips and transpositions.
"""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from navigan_jax import checkpoints
from navigan_jax.assets import finding
from navigan_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Absorber:
    """An array x that can take a factor c of a weight: with c · weight and c^power (x + ε) - ε the
    images stay the same.

    path: in our parameters. name: in the file. epsilon: ε.
    """

    path: str
    name: str
    power: int
    epsilon: float = 0.0


@dataclasses.dataclass(frozen=True)
class Spectral:
    """Where the vectors of a spectral normalisation are; see `nn.spectral_norm`.

    names: of the stored weight and of u, in the file. u, v: (offset, dtype, entries) of a vector,
    in bytes; v None: it is not stored. epsilon: of the norms. absorbers: all of them together take
    a factor of the weight; none: nothing can.
    """

    names: tuple[str, str]
    u: tuple[int, str, int]
    v: tuple[int, str, int] | None
    epsilon: float
    absorbers: tuple[Absorber, ...] = ()

    def vectors(self, memory: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns u and v in float64; memory: the whole file. Raises: ValueError if outside."""
        u = _view(self.u, memory).astype(np.float64)
        return u, None if self.v is None else _view(self.v, memory).astype(np.float64)

    def write_left(self, memory: Any, u: np.ndarray) -> None:
        """Overwrites u in the file."""
        _view(self.u, memory)[...] = u


def _view(place: tuple[int, str, int], memory: Any) -> np.ndarray:
    offset, dtype, entries = place
    return np.ndarray((entries,), dtype, memory, offset)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an array is: element i of our array is at offset + Σ strides·i, in bytes.

    dtype: in NumPy's notation, with the byte order. added: our array minus the file's array.
    spectral: set if our array is the file's array divided by its spectral norm.
    """

    offset: int
    dtype: str
    strides: tuple[int, ...]
    added: float = 0.0
    spectral: Spectral | None = None

    def bounds(self, shape: Sequence[int]) -> tuple[int, int]:
        """Returns the first byte of an array of that shape, and the byte after its last."""
        steps = [(size - 1) * step for size, step in zip(shape, self.strides, strict=True)]
        low = self.offset + sum(step for step in steps if step < 0)
        high = self.offset + sum(step for step in steps if step > 0)
        return low, high + np.dtype(self.dtype).itemsize

    def changed(self, shape: Sequence[int]) -> list[tuple[int, int]]:
        """Returns the bounds of all bytes that an edit of the array changes."""
        if self.spectral is None:
            return [self.bounds(shape)]
        offset, dtype, entries = self.spectral.u
        return [self.bounds(shape), (offset, offset + entries * np.dtype(dtype).itemsize)]

    def view(self, memory: Any, shape: Sequence[int]) -> np.ndarray:
        """Returns the array as a view of the whole file in memory; writable if `memory` is.

        Raises: ValueError if a part of the array is outside.
        """
        return np.ndarray(
            tuple(shape), self.dtype, buffer=memory, offset=self.offset, strides=self.strides
        )


@dataclasses.dataclass(frozen=True)
class Checksum:
    """The CRC-32 of the bytes from start to stop, stored in 4 bytes at each of the offsets."""

    start: int
    stop: int
    offsets: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class SourceMap:
    """The map of one file.

    file: its name. sha256, size: of the file, in hexadecimal and bytes. converted: the name of the
    network whose weights were converted. networks: {name: {path in our parameters: place}}, for
    each network of that architecture in the file. Arrays that are not plain bytes have no place.
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
            name: {path: _entry(place) for path, place in places.items()}
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
    path = finding.find_generator(path)
    _, metadata = checkpoints.read_arrays(path)
    checkpoints.require_format(path, metadata, "generator")
    content = checkpoints.read_json(path, metadata, "source").get("map")
    if content is None:
        raise InputError(
            f"{path}: expected a generator file with a map of its weights' places in the source "
            "file; got none, because an older version made it or its source is compressed; convert "
            "the uncompressed source anew: python -m tools.convert_weights KIND SOURCE --out FILE"
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


def _entry(place: Place) -> list[Any]:
    """Returns the place as plain data; the spectral normalisation, if any, comes last."""
    entry: list[Any] = [place.offset, place.dtype, list(place.strides), place.added]
    if place.spectral is not None:
        entry.append(dataclasses.asdict(place.spectral))
    return entry


def _place(
    offset: int, dtype: str, strides: Sequence[int], added: float, spectral: Any = None
) -> Place:
    if np.dtype(dtype).kind not in "fV" or not math.isfinite(added):
        raise ValueError(f"numbers of type {dtype}")
    found = None if spectral is None else _spectral(**spectral)
    return Place(int(offset), dtype, tuple(map(int, strides)), float(added), found)


def _spectral(names: Any, u: Any, v: Any, epsilon: float, absorbers: Any) -> Spectral:
    weight, left = names
    return Spectral(
        (str(weight), str(left)),
        _vector(*u),
        None if v is None else _vector(*v),
        float(epsilon),
        tuple(
            Absorber(str(x["path"]), str(x["name"]), int(x["power"]), float(x["epsilon"]))
            for x in absorbers
        ),
    )


def _vector(offset: int, dtype: str, entries: int) -> tuple[int, str, int]:
    if np.dtype(dtype).kind != "f":
        raise ValueError(f"a vector of type {dtype}")
    return int(offset), dtype, int(entries)
