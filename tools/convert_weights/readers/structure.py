"""The content of a foreign file: plain containers, arrays and inert records.

A hostile file can nest its containers so deep that a recursive walk overflows the stack, can put a
container into itself, or can repeat one container so often that a walk never ends.
`check_structure` refuses all three without recursion, so later walks may be recursive.
"""

import collections
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from navigan_jax.errors import InputError
from navigan_jax.generators.source_map import Absorber
from navigan_jax.nn import spectral_norm

# A StyleGAN2-ADA pickle, the deepest of the known formats, nests 29 deep.
MAX_DEPTH = 200
# Values met on a walk that repeats shared containers; a 1024 px StyleGAN2-ADA has about 50,000.
MAX_VALUES = 5_000_000
# Bytes of arrays and texts met on that walk; the largest known checkpoints have 0.6 GB.
MAX_BYTES = 16 << 30
# Characters of the paths of all values; a 1024 px StyleGAN2-ADA pickle has some 3 million.
MAX_PATHS = 256 << 20
# Characters that a position or a number takes in a path, roughly.
_POSITION = 10
_LONGEST_NAME = 100


@dataclasses.dataclass(eq=False, repr=False, slots=True)
class Record:
    """An object of a foreign class, without behaviour: its class name, arguments and state.

    Not frozen, because a pickle sets the state and the items after it has made the object.

    arguments: of the constructor; named arguments are in a dict at the end. state: the attributes.
    items: of a foreign list or set. entries: of a foreign dict. is_known: whether the class is in
    the reader's allow-list.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = dataclasses.field(default_factory=list)
    entries: dict[Any, Any] = dataclasses.field(default_factory=dict)
    is_known: bool = True

    def __repr__(self) -> str:
        return f"<{self.name[:_LONGEST_NAME]}>"


_CONTAINERS = dict | list | tuple | set | frozenset | Record


def _edges(value: Any) -> Iterable[tuple[Any, Any]]:
    """Yields (key, value) of the values directly inside a container; nothing for a leaf.

    The key is a dict key, a position or "state" if the value can be replaced there, else None.
    """
    if isinstance(value, dict):
        yield from value.items()
        yield from ((None, key) for key in value if isinstance(key, Record))
    elif isinstance(value, list):
        yield from enumerate(value)
    elif isinstance(value, tuple | set | frozenset):
        yield from ((None, child) for child in value)
    elif isinstance(value, Record):
        yield "state", value.state
        yield from ((None, part) for part in (value.arguments, value.items, value.entries) if part)


class Vectors(NamedTuple):
    """The stored vectors of a spectral normalisation, as views; see `nn.spectral_norm`.

    names: of the stored weight and of u, in the file. absorbers: see `generators.source_map`.
    """

    names: tuple[str, str]
    u: np.ndarray
    v: np.ndarray | None
    epsilon: float
    absorbers: tuple[Absorber, ...] = ()

    def divisor(self, weights: np.ndarray) -> float:
        """Returns σ of a weight in our order of the axes."""
        u, v = (None if each is None else np.asarray(each, np.float64) for each in (self.u, self.v))
        assert u is not None
        return spectral_norm.divisor(spectral_norm.as_matrix(weights), u, v, self.epsilon)


class Found(NamedTuple):
    """A converted array: `view`, a view of the array in the file, plus `added`.

    vectors: set if the view is divided by its spectral norm.
    """

    view: np.ndarray
    added: float = 0.0
    vectors: Vectors | None = None

    def values(self) -> np.ndarray:
        """Returns the converted array, in float32 and with memory of its own."""
        values = np.array(self.view, np.float32) + np.float32(self.added)
        if self.vectors is None:
            return np.ascontiguousarray(values)
        divided = values.astype(np.float64) / self.vectors.divisor(values)
        return np.ascontiguousarray(divided, np.float32)


def children(value: Any) -> Iterable[Any]:
    """Returns the values directly inside a container; none for a leaf."""
    return (child for _, child in _edges(value))


@dataclasses.dataclass(slots=True)
class _Visit:
    """A container on the current path of the walk, with its totals so far.

    key: of the container in its parent. last_record: position of the last foreign object on the
    path, -1 for none. depth, values, size, paths: levels, values, bytes and characters of paths
    below the container.
    """

    key: Any
    value: Any
    remaining: Iterator[tuple[Any, Any]]
    last_record: int
    depth: int = 1
    values: int = 1
    size: int = 0
    paths: int = 0

    def absorb(self, key: Any, depth: int, values: int, size: int, paths: int) -> None:
        self.depth = max(self.depth, depth + 1)
        self.values += values
        self.size += size
        self.paths += paths + values * (len(key) if isinstance(key, str | bytes) else _POSITION)


def _leaf_size(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return value.nbytes
    return len(value) if isinstance(value, str | bytes | bytearray) else 0


def check_structure(root: Any, name: str) -> None:
    """Refuses contents that are nested too deep, contain themselves or are too large.

    A cycle through a foreign object is common and harmless, such as a part that refers to its
    owner: an empty record of the same name replaces the reference that closes the cycle.

    Each container is visited once, even if it occurs many times.

    Raises: InputError, which begins with `name`.
    """
    finished: dict[int, tuple[int, int, int, int]] = {}
    visits: list[_Visit] = []
    within: dict[int, int] = {}
    ends: dict[int, Record] = {}  # replacements that break cycles, by the replaced object's id

    def enter(key: Any, value: Any) -> None:
        if len(visits) >= MAX_DEPTH:
            raise _refusal(name, f"containers nested more than {MAX_DEPTH} deep")
        last = visits[-1].last_record if visits else -1
        within[id(value)] = len(visits)
        last = len(visits) if isinstance(value, Record) else last
        visits.append(_Visit(key, value, iter(_edges(value)), last))

    enter("", root)
    while visits:
        visit = visits[-1]
        for key, child in visit.remaining:
            if id(child) in finished:
                if len(visits) + finished[id(child)][0] > MAX_DEPTH:
                    raise _refusal(name, f"containers nested more than {MAX_DEPTH} deep")
                visit.absorb(key, *finished[id(child)])
            elif not isinstance(child, _CONTAINERS):
                visit.absorb(key, 0, 1, _leaf_size(child), 0)
            elif not child and len(visits) < MAX_DEPTH:
                visit.absorb(key, 1, 1, 0, 0)  # an empty container needs no visit
            elif id(child) not in within:
                enter(key, child)
                break
            elif visit.last_record < within[id(child)]:
                raise _refusal(name, "a container that contains itself")
            else:
                if id(child) not in ends:
                    ends[id(child)] = _without_content(child)
                if not _replace(visit.value, key, ends[id(child)]):
                    raise _refusal(name, "a container that contains itself")
                visit.absorb(key, 0, 1, 0, 0)
        else:
            visits.pop()
            del within[id(visit.value)]
            if visit.values > MAX_VALUES or visit.size > MAX_BYTES or visit.paths > MAX_PATHS:
                got = f"{visit.values} values and {visit.size} bytes of data"
                raise _refusal(name, f"{got}, and {visit.paths} characters of paths")
            found = (visit.depth, visit.values, visit.size, visit.paths)
            finished[id(visit.value)] = found
            if visits:
                visits[-1].absorb(visit.key, *found)


def _replace(container: Any, key: Any, value: Record) -> bool:
    """Replaces the value at `key` by the record; returns whether that is possible."""
    if isinstance(container, dict | list) and key is not None:
        container[key] = value
    elif isinstance(container, Record) and key == "state":
        container.state = value
    else:
        return False
    return True


def _without_content(value: Any) -> Record:
    return Record(value.name if isinstance(value, Record) else type(value).__name__)


def _refusal(name: str, got: str) -> InputError:
    return InputError(
        f"{name}: expected nested plain data; got {got}; allowed: {MAX_DEPTH} levels, {MAX_VALUES} "
        f"values, {MAX_BYTES} bytes, {MAX_PATHS} characters of paths; no known weight file needs "
        "more: get it from its source"
    )


def unknown_classes(root: Any) -> collections.Counter[str]:
    """Returns the number of objects of each unknown class; each object counts once.

    `root` has passed `check_structure`.
    """
    found: collections.Counter[str] = collections.Counter()
    seen, waiting = {id(root)}, [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Record) and not value.is_known:
            found[value.name] += 1
        for child in children(value):
            if isinstance(child, _CONTAINERS) and id(child) not in seen:
                seen.add(id(child))
                waiting.append(child)
    return found
