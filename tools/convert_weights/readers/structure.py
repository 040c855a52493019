"""What a foreign file holds once it is read: plain containers, arrays and inert records.

A hostile file can nest its containers so deep that a recursive walk overflows the stack, can put a
container into itself, or can mention one container so often that walking all mentions never ends.
`check_structure` refuses all three without recursion, so that every later walk may be plain.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from navigan_jax.errors import InputError

# A StyleGAN2-ADA pickle, the deepest of the known formats, nests 29 deep.
MAX_DEPTH = 200
# Values met on a walk over every mention; a 1024 px StyleGAN2-ADA pickle has about 50,000.
MAX_VALUES = 5_000_000
# Bytes of arrays and texts met on such a walk; the largest known checkpoints have 0.6 GB.
MAX_BYTES = 16 << 30


@dataclasses.dataclass(eq=False)
class Record:
    """An object of an allowed foreign class: its name, what it was made from, its state.

    It has no behaviour. `state` arrives after the record is made, hence it is not frozen.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None


class Found(NamedTuple):
    """An array of ours as a view of what was read; ours is the view plus `added`."""

    view: np.ndarray
    added: float = 0.0


def children(value: Any) -> Iterable[Any]:
    """Returns the values directly inside a container; nothing for a leaf."""
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list | tuple | set | frozenset):
        return value
    if isinstance(value, Record):
        return (*value.arguments, value.state)
    return ()


@dataclasses.dataclass
class _Visit:
    """A container on the way from the root to the place of the walk, and what is known of it."""

    value: Any
    remaining: Iterator[Any]
    depth: int = 1
    values: int = 1
    size: int = 0

    def absorb(self, depth: int, values: int, size: int) -> None:
        self.depth = max(self.depth, depth + 1)
        self.values += values
        self.size += size


def _leaf_size(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return value.nbytes
    return len(value) if isinstance(value, str | bytes | bytearray) else 0


def check_structure(root: Any, name: str) -> None:
    """Refuses contents that cannot be walked: too deep, inside themselves, or too large.

    The cost is one visit for each container, however often it is mentioned.

    Raises: InputError, which begins with `name`.
    """
    finished: dict[int, tuple[int, int, int]] = {}
    visits = [_Visit(root, iter(children(root)))]
    within = {id(root)}
    while visits:
        visit = visits[-1]
        for child in visit.remaining:
            if id(child) in finished:
                if len(visits) + finished[id(child)][0] > MAX_DEPTH:
                    raise _refusal(name, f"containers nested more than {MAX_DEPTH} deep")
                visit.absorb(*finished[id(child)])
            elif isinstance(child, dict | list | tuple | set | frozenset | Record):
                if id(child) in within:
                    raise _refusal(name, "a container that contains itself")
                if len(visits) >= MAX_DEPTH:
                    raise _refusal(name, f"containers nested more than {MAX_DEPTH} deep")
                within.add(id(child))
                visits.append(_Visit(child, iter(children(child))))
                break
            else:
                visit.absorb(0, 1, _leaf_size(child))
        else:
            visits.pop()
            within.discard(id(visit.value))
            finished[id(visit.value)] = (visit.depth, visit.values, visit.size)
            if visit.values > MAX_VALUES or visit.size > MAX_BYTES:
                raise _refusal(name, f"{visit.values} values and {visit.size} bytes of data")
            if visits:
                visits[-1].absorb(visit.depth, visit.values, visit.size)


def _refusal(name: str, got: str) -> InputError:
    return InputError(
        f"{name}: expected nested plain data; got {got}; allowed: {MAX_DEPTH} levels, {MAX_VALUES} "
        f"values, {MAX_BYTES} bytes; no known weight file looks like that: get it from its source"
    )


def named_arrays(root: Any) -> dict[str, np.ndarray]:
    """Returns {path: array} of all arrays and NumPy scalars; a path joins keys with slashes.

    `root` has passed `check_structure`.
    """
    found: dict[str, np.ndarray] = {}

    def visit(path: str, value: Any) -> None:
        if isinstance(value, np.ndarray | np.generic):
            found[path or "array"] = np.asarray(value)
        elif isinstance(value, dict):
            for key, child in value.items():
                visit(f"{path}/{key}" if path else str(key), child)
        elif isinstance(value, list | tuple):
            for index, child in enumerate(value):
                visit(f"{path}/{index}" if path else str(index), child)
        elif isinstance(value, Record):
            visit(path, value.state)

    visit("", root)
    return found
