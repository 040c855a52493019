"""Where in a file the bytes of an array lie, so that a change of it can be written back in place.

A reader notes each piece of memory that it fills with bytes of the file as they are. Whatever is a
view of such memory, however sliced, turned or transposed, then has a place in the file: the address
of its first element tells the offset, and its strides are those of the file. What was decompressed
or decoded on the way is noted nowhere and has no place.
"""

import bisect
from typing import Any

import numpy as np


class Places:
    """The memory that holds bytes of one file."""

    def __init__(self, data: bytes) -> None:
        """data: the whole file."""
        self._addresses: list[int] = []
        # By the same index: length, offset in the file, and the memory itself, which is kept so
        # that no other object comes to lie at its address.
        self._pieces: list[tuple[int, int, Any]] = []
        self.note(data, 0)

    def note(self, memory: bytes | np.ndarray, offset: int) -> None:
        """Remembers that this memory holds the bytes of the file from `offset` on."""
        address, length = _extent(memory)
        if length:
            index = bisect.bisect(self._addresses, address)
            self._addresses.insert(index, address)
            self._pieces.insert(index, (length, offset, memory))

    def offset_of(self, memory: bytes | np.ndarray) -> int | None:
        """Returns the offset in the file of the first element; None if any element has no place."""
        if isinstance(memory, np.ndarray):
            low, high = np.lib.array_utils.byte_bounds(memory)
            first = memory.__array_interface__["data"][0]
        else:
            low, length = _extent(memory)
            first, high = low, low + length
        index = bisect.bisect(self._addresses, low) - 1
        if index < 0 or high == low:
            return None
        length, offset, _ = self._pieces[index]
        start = self._addresses[index]
        return offset + first - start if high <= start + length else None


def _extent(memory: bytes | np.ndarray) -> tuple[int, int]:
    """Returns address and length of contiguous memory."""
    flat = np.frombuffer(memory, np.uint8) if isinstance(memory, bytes) else memory
    return flat.__array_interface__["data"][0], flat.nbytes
