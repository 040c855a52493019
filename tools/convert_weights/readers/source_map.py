"""Builds the map of a source file: the bytes of each converted array in that file."""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

from navigan_jax.generators.source_map import Checksum, Place, SourceMap, Spectral
from tools.convert_weights.readers import signatures
from tools.convert_weights.readers.archive import Archive
from tools.convert_weights.readers.places import Places
from tools.convert_weights.readers.structure import Found


def make_source_map(
    name: str,
    data: bytes,
    places: Places,
    converted: str,
    networks: Mapping[str, Mapping[str, Found]],
) -> SourceMap:
    """Returns the map of a file's bytes; `name` is the file's name in messages.

    converted: name in the file of the converted network. networks: for each network, by its name in
    the file, the arrays by our path. The map leaves out arrays without a place in the file
    and arrays whose elements share bytes.
    """
    maps = {
        name: {path: place for path, found in arrays.items() if (place := _place(found, places))}
        for name, arrays in networks.items()
    }
    return SourceMap(
        file=name,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        converted=converted,
        networks=maps,
        checksums=tuple(_checksums(data)),
    )


def _place(found: Found, places: Places) -> Place | None:
    view = found.view
    offset = places.offset_of(view)
    if offset is None or not _is_injective(view):
        return None
    dtype = view.dtype.name if view.dtype.kind == "V" else view.dtype.str
    spectral = None
    if found.vectors is not None:
        stored = found.vectors
        u = _vector(stored.u, places)
        v = None if stored.v is None else _vector(stored.v, places)
        if u is None or (v is None) != (stored.v is None):
            return None
        spectral = Spectral(stored.names, u, v, stored.epsilon, stored.absorbers)
    return Place(offset, dtype, view.strides, found.added, spectral)


def _vector(vector: np.ndarray, places: Places) -> tuple[int, str, int] | None:
    """Returns the place of a contiguous vector, or None."""
    offset = places.offset_of(vector)
    if offset is None or vector.dtype.kind != "f" or vector.strides != (vector.itemsize,):
        return None
    return offset, vector.dtype.str, len(vector)


def _is_injective(view: np.ndarray) -> bool:
    """Whether each element has bytes of its own, as in every slice of a contiguous array."""
    reach = view.itemsize
    axes = [(abs(step), size) for step, size in zip(view.strides, view.shape, strict=True)]
    for step, size in sorted(axis for axis in axes if axis[1] > 1):
        if step < reach:
            return False
        reach = step * size
    return True


def _checksums(data: bytes) -> Iterable[Checksum]:
    if signatures.kind_of(data) != signatures.ZIP:
        return
    archive = Archive(data, "source")
    for member in archive.names:
        if (stored := archive.stored(member)) is not None:
            yield Checksum(stored.start, stored.stop, stored.checksums)
