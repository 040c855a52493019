"""A cache of computed values with a bound in bytes; the least recently used go first."""

import collections
import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import jax

Value = TypeVar("Value")


def nbytes(tree: object) -> int:
    """Returns the size of all arrays of a tree, in bytes."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


class Kept(Generic[Value]):
    """A least-recently-used cache, safe for threads.

    most: bytes of all values together; 0 keeps nothing. size: value -> bytes.
    """

    def __init__(self, most: int, size: Callable[[Value], int]) -> None:
        self._most, self._size = most, size
        self._held = 0
        self._values: collections.OrderedDict[Hashable, Value] = collections.OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: Hashable) -> Value | None:
        """Returns the value kept under this key, or None."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def keep(self, key: Hashable, value: Value) -> None:
        """Keeps a value; drops the least recently used ones until all fit the bound.

        A value larger than the bound is not kept, and nothing is dropped for it.
        """
        size = self._size(value)
        with self._lock:
            if key in self._values or size > self._most:
                return
            self._values[key] = value
            self._held += size
            while self._held > self._most:
                self._held -= self._size(self._values.popitem(last=False)[1])
