"""Gives each value of a file's content the name that it has in the program that wrote the file.

1. Dicts, lists and tuples: key or position.
2. A pickled PyTorch module: the names of its state dict for parameters and buffers, also of its
   submodules; other attributes by their own names.
3. A pickled network of NVIDIA's TensorFlow programs: its variables and the variables of its
   components, joined by slashes.

Dots join all other parts of a name.
"""

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tools.convert_weights.readers.structure import Record

_GROUPS = ("_parameters", "_buffers", "_modules")
# The order in which NVIDIA's TensorFlow programs pickle their three networks.
_TRIPLE = ("G", "D", "Gs")
# The function by which NVIDIA's PyTorch programs pickle a module; its argument describes it.
_PERSISTENT = "_reconstruct_persistent_obj"

# The home of a module's attributes other than parameters and buffers; these are no weights.
ATTRIBUTES = -1


class Leaf(NamedTuple):
    """A value that is no container.

    home: number of the container that holds the value, or ATTRIBUTES. A module with all its
    submodules counts as one container.
    """

    value: Any
    home: int


@dataclasses.dataclass(frozen=True)
class Contents:
    """All leaves, and all pickled objects, by their full names."""

    root: Any
    leaves: Mapping[str, Leaf]
    records: Mapping[str, Record]

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by their full names."""
        return {
            name: leaf.value
            for name, leaf in self.leaves.items()
            if isinstance(leaf.value, np.ndarray)
        }


def is_module(value: Any) -> bool:
    """Whether the value is a pickled module of PyTorch."""
    return (
        isinstance(value, Record)
        and isinstance(value.state, dict)
        and any(isinstance(value.state.get(group), dict) for group in _GROUPS)
    )


def is_tensorflow(value: Any) -> bool:
    """Whether the value is a pickled network of NVIDIA's TensorFlow programs."""
    return (
        isinstance(value, Record)
        and isinstance(value.state, dict)
        and isinstance(value.state.get("variables"), list)
    )


def name_values(root: Any) -> Contents:
    """Names all values in `root`, which has passed `structure.check_structure`."""
    namer = _Namer()
    named = is_tensorflow(root) and isinstance(root.state.get("name"), str)
    namer.visit(root.state["name"] if named else "", root)
    return Contents(root, namer.leaves, namer.records)


class _Namer:
    """Walks over the content and collects its values by name."""

    def __init__(self) -> None:
        self.leaves: dict[str, Leaf] = {}
        self.records: dict[str, Record] = {}
        self.repeats: collections.Counter[str] = collections.Counter()
        self.homes = itertools.count(1)

    def visit(self, path: str, value: Any, home: int = 0) -> None:
        if isinstance(value, dict):
            self.visit_items(path, value.items())
        elif isinstance(value, list | tuple):
            self.visit_items(path, zip(_positions(value), value, strict=True))
        elif isinstance(value, Record):
            self.visit_record(path, value)
        else:
            self.note(path or "array", value, home)

    def visit_items(self, path: str, items: Iterable[tuple[Any, Any]]) -> None:
        home = next(self.homes)
        for index, (key, child) in enumerate(items):
            # Keys that are no scalars are records; the position tells them apart.
            label = f"{key}{index}" if isinstance(key, Record) else key
            self.visit(_join(path, label), child, home)

    def note(self, path: str, value: Any, home: int) -> None:
        """Keeps a value under its name; numbers further values of the same name."""
        if isinstance(value, np.generic):
            value = np.asarray(value)
        if path in self.leaves and self.leaves[path].value is value:
            return
        name = path
        while name in self.leaves:
            self.repeats[path] += 1
            count = self.repeats[path]
            name = f"{path} (again{f' {count}' if count > 1 else ''})"
        self.leaves[name] = Leaf(value, home)

    def visit_record(self, path: str, record: Record) -> None:
        described = record.arguments[0] if record.arguments else None
        if record.name.endswith(_PERSISTENT) and isinstance(described, dict):
            record = Record(str(described.get("class_name")), (), described.get("state"))
        self.records.setdefault(path, record)
        if is_module(record):
            self.visit_module(path, record, next(self.homes))
        elif is_tensorflow(record):
            self.visit_tensorflow(path, ".", record, next(self.homes))
        else:
            for part in (record.entries, record.items, record.state, record.arguments):
                if part is not None:
                    self.visit(path, part)

    def visit_module(self, path: str, module: Record, home: int) -> None:
        parameters, buffers, modules = (_items(module.state.get(group)) for group in _GROUPS)
        for key, value in itertools.chain(parameters, buffers):
            if value is not None:
                self.note(_join(path, key), value, home)
        for key, child in modules:
            below = _join(path, key)
            if is_module(child):
                self.records.setdefault(below, child)
                self.visit_module(below, child, home)
            else:
                self.visit(below, child, home)
        for key, value in module.state.items():
            if key not in _GROUPS:
                self.visit(_join(path, key), value, ATTRIBUTES)

    def visit_tensorflow(self, path: str, separator: str, network: Record, home: int) -> None:
        for variable in network.state["variables"]:
            if isinstance(variable, tuple | list) and len(variable) == 2:
                value = variable[1] if isinstance(variable[1], Record) else np.asarray(variable[1])
                self.note(_join(path, variable[0], separator), value, home)
        for key, component in _items(network.state.get("components")):
            if is_tensorflow(component):
                self.visit_tensorflow(_join(path, key, separator), "/", component, home)


def _join(path: str, key: Any, separator: str = ".") -> str:
    return f"{path}{separator}{key}" if path else str(key)


def _items(group: Any) -> Iterable[tuple[Any, Any]]:
    return group.items() if isinstance(group, dict) else ()


def _positions(values: Sequence[Any]) -> Sequence[str]:
    """Returns the names of a list's values: positions, or the names of TensorFlow networks."""
    numbers = [str(index) for index in range(len(values))]
    if not values or not all(map(is_tensorflow, values)):
        return numbers
    names = [value.state.get("name") for value in values]
    if all(isinstance(name, str) for name in names) and len(set(names)) == len(names):
        return names
    return _TRIPLE if len(values) == len(_TRIPLE) else numbers
