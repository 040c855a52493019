"""Finds the bytes of an array in its file, so that an edit can be written back in place.

A reader notes each piece of memory that holds unchanged bytes of the file. Every view of such
memory, also sliced, flipped or transposed, then has a place in the file: the address of its first
element gives the offset, and its strides are the strides in the file. Decompressed or decoded data
is not noted and has no place.
"""

import bisect
from typing import NamedTuple

import numpy as np


class _Piece(NamedTuple):
    """Memory with bytes of the file; the reference keeps other objects from its address."""

    address: int
    length: int
    offset: int
    memory: bytes | np.ndarray


class Places:
    """The memory that holds bytes of one file."""

    def __init__(self, data: bytes) -> None:
        """data: the whole file."""
        self._pieces: dict[int, _Piece] = {}  # by the identity of the memory
        self._sorted: list[_Piece] = []  # the pieces by address, updated on demand
        self.note(data, 0)

    def note(self, memory: bytes | np.ndarray, offset: int) -> None:
        """Remembers that this contiguous memory holds the bytes of the file from `offset` on."""
        flat = np.frombuffer(memory, np.uint8) if isinstance(memory, bytes) else memory
        if flat.nbytes:
            address = flat.__array_interface__["data"][0]
            self._pieces[id(memory)] = _Piece(address, flat.nbytes, offset, memory)

    def offset_of_noted(self, memory: bytes) -> int | None:
        """Returns the offset in the file of a noted object, or None for any other."""
        piece = self._pieces.get(id(memory))
        return None if piece is None else piece.offset

    def offset_of(self, array: np.ndarray) -> int | None:
        """Returns the file offset of the first element; None if some element has no place."""
        if len(self._sorted) != len(self._pieces):
            self._sorted = sorted(self._pieces.values(), key=lambda piece: piece.address)
        low, high = np.lib.array_utils.byte_bounds(array)
        index = bisect.bisect(self._sorted, low, key=lambda piece: piece.address) - 1
        if index < 0 or not array.size:
            return None
        piece = self._sorted[index]
        if high > piece.address + piece.length:
            return None
        return piece.offset + array.__array_interface__["data"][0] - piece.address
