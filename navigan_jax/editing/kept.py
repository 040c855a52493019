"""What was computed and may be asked for again, within a bound of memory."""

import collections
import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import jax

Value = TypeVar("Value")


def nbytes(tree: object) -> int:
    """Returns the size of all arrays of a tree."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


class Kept(Generic[Value]):
    """The last used values of at most so many bytes; any thread may use it.

    most: bytes; 0 keeps nothing. size: of a value in bytes.
    """

    def __init__(self, most: int, size: Callable[[Value], int]) -> None:
        self._most, self._size = most, size
        self._held = 0
        self._values: collections.OrderedDict[Hashable, Value] = collections.OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: Hashable) -> Value | None:
        """Returns the value that was kept by that key, or None."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def keep(self, key: Hashable, value: Value) -> None:
        """Keeps a value, at the cost of those that were not used for longest.

        One that is larger than the bound is not kept, and costs no other its place.
        """
        size = self._size(value)
        with self._lock:
            if key in self._values or size > self._most:
                return
            self._values[key] = value
            self._held += size
            while self._held > self._most:
                self._held -= self._size(self._values.popitem(last=False)[1])
