"""Finds a network in a file's content, inside any wrapper.

A network is recognised by one of its arrays, the anchor. The prefix of the anchor's name
(`state_dict.`, `module.`, `_orig_mod.`, `decoder.`, a position in a list, several of them in any
order) is the wrapper, and the arrays with this prefix are the network. So any wrapper will do.
The prefix matters only for the choice between several networks that fit: the average of
training comes before the trained network, and a discriminator comes last.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from navigan_jax.errors import InputError
from tools.convert_weights.readers.modules import ATTRIBUTES, Contents, is_module, is_tensorflow
from tools.convert_weights.readers.structure import Record

T = TypeVar("T")

# Wrappers of PyTorch itself, and further parts of a path that say nothing about the network. Labels
# leave out both.
_ENGINES = frozenset(("module", "_orig_mod"))
_WRAPPERS = _ENGINES | {"state_dict", "model", "model_state_dict", "main"}
_AVERAGE = re.compile(r"(?:^|[^a-z])ema|ema(?:$|[^a-z])|shadow|average|(?:^|[^a-z])(?:avg|gs)$")
_GENERATOR = re.compile(r"(?:^|[^a-z0-9])(?:g|gen|netg|decoder)(?:$|[^a-z])|generator")
_DISCRIMINATOR = re.compile(r"(?:^|[^a-z0-9])(?:d|disc|netd|critic)(?:$|[^a-z])|discriminator")
_LISTED = 8
# The most candidates in a file; each costs a walk over all names.
_MOST = 100


@dataclasses.dataclass(frozen=True)
class Form:
    """One naming scheme of a network's arrays.

    anchor: a pattern for the name of an array that every such network has. is_anchor: whether an
    array can be the anchor. knows: whether a name is that of one of the network's arrays.
    """

    name: str
    anchor: str
    knows: Callable[[str], bool]
    is_anchor: Callable[[np.ndarray], bool] = lambda array: True


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Arrays that may be a network.

    label: a short name of the network. path: its full path in the file. arrays: by their names
    below the wrapper. unread: classes of objects in the place of arrays, such as sparse tensors, by
    name. record: the pickled object of the network, if it is one. siblings: names of the arrays
    beside the network in the same module or state dict; none if the network's own name is that of a
    whole network, such as `generator`.
    """

    label: str
    path: str
    form: str
    arrays: Mapping[str, np.ndarray]
    unread: Mapping[str, str]
    record: Record | None
    siblings: tuple[str, ...]
    contents: Contents

    @property
    def modules(self) -> dict[str, Record]:
        """The pickled submodules of the network, by their paths in it."""
        prefix = f"{self.path}." if self.path else ""
        return {
            path.removeprefix(prefix): record
            for path, record in self.contents.records.items()
            if path.startswith(prefix) and path != self.path and isinstance(record.state, dict)
        }

    def beside(self, key: str) -> Any:
        """Returns the value named `key` in the network or else in the nearest wrapper, or None."""
        parts = re.split(r"(?<=[./])", self.path + ".") if self.path else [""]
        for count in range(len(parts), -1, -1):
            name = "".join(parts[:count]) + key
            leaf = self.contents.leaves.get(name)
            if leaf is not None and leaf.value is not None:
                return leaf.value
            if name in self.contents.records:
                return self.contents.records[name]
        return None


def find(contents: Contents, forms: Sequence[Form], name: str) -> list[Candidate]:
    """Returns all candidates for a network in one of the forms, the preferred ones first.

    Raises: InputError, which begins with `name`, if there are too many.
    """
    prefixes: dict[tuple[str, str], tuple[Form, int]] = {}
    for form in forms:
        anchor = re.compile(rf"(.*[./])?(?:{form.anchor})")
        for key, leaf in contents.leaves.items():
            is_weight = isinstance(leaf.value, np.ndarray) and leaf.home != ATTRIBUTES
            match = anchor.fullmatch(key) if is_weight else None
            if match and form.is_anchor(leaf.value):
                prefixes.setdefault((match[1] or "", form.name), (form, leaf.home))
    if len(prefixes) > _MOST:
        raise InputError(
            f"{name}: expected up to {_MOST} networks in a file; got {len(prefixes)} "
            "candidates; save the network that you want alone"
        )
    paths = [prefix.rstrip("./") for prefix, _ in prefixes]
    labels = _labels(paths, contents)
    found = [
        Candidate(
            label=label,
            path=path,
            form=form.name,
            arrays=_arrays_below(prefix, home, form, contents),
            unread={
                key: record.name
                for place, record in contents.records.items()
                if place.startswith(prefix) and form.knows(key := place[len(prefix) :])
            },
            record=contents.records.get(path),
            siblings=_siblings(prefix, home, contents),
            contents=contents,
        )
        for (prefix, _), (form, home), path, label in zip(
            prefixes, prefixes.values(), paths, labels, strict=True
        )
    ]
    return sorted(_different(found), key=_rank)


def choose(
    candidates: Sequence[Candidate], read: Callable[[Candidate], T], wanted: str | None, name: str
) -> tuple[Candidate, T]:
    """Returns the network that the user named, or else the preferred one, and its `read` result.

    candidates: one or more, in the order of `find`. read: converts a candidate; raises an
    InputError for another kind of network. wanted: label or path, or None. name: the file's name in
    messages.

    Raises: the error of `read` if no candidate fits; an InputError if several fit equally well.
    """
    if wanted is not None:
        named = [
            candidate for candidate in candidates if wanted in (candidate.label, candidate.path)
        ]
        if not named:
            raise InputError(
                f"{name}: expected a file with the network {wanted!r}; got one with "
                f"{_listed([candidate.label for candidate in candidates])}; choose one of these "
                "with --network, or leave it out"
            )
        return named[0], _read(named[0], read, name)
    fitting: list[tuple[Candidate, T]] = []
    errors: list[InputError] = []
    for candidate in candidates:
        if _rank(candidate) != _rank(candidates[0]):
            break
        try:
            fitting.append((candidate, _read(candidate, read, name)))
        except InputError as error:
            errors.append(error)
    if not fitting:
        raise errors[0]
    if len(fitting) > 1:
        labels = [candidate.label for candidate, _ in fitting]
        raise InputError(
            f"{name}: expected one network; got {len(labels)} that fit equally well, "
            f"{_listed(labels)}; choose one of these with --network"
        )
    return fitting[0]


def _read(candidate: Candidate, read: Callable[[Candidate], T], name: str) -> T:
    """Returns the result of `read`; refuses a candidate with unread arrays."""
    for key, kind in candidate.unread.items():
        raise InputError(
            f"{name}: expected an array {key}; got an object {kind}; load the file with the "
            "program that wrote it and save a plain state_dict of dense tensors"
        )
    return read(candidate)


def describe(contents: Contents) -> str:
    """Returns a text on a file's content, for the message that no network was found."""
    root, arrays = contents.root, list(contents.arrays)
    if isinstance(root, dict):
        text = f"a dict of {_listed(list(map(str, root)))}"
    elif isinstance(root, Record):
        text = f"an object {root.name}"
    else:
        size = f" of {len(root)}" if isinstance(root, list | tuple) else ""
        text = f"a {type(root).__name__}{size}"
    classes = {
        record.name
        for path, record in contents.records.items()
        if not (is_module(record) or is_tensorflow(record)) or path.count(".") < 1
    }
    if classes and not isinstance(root, Record):
        text += f"; objects {_listed(sorted(classes))}"
    if not arrays:
        return f"{text}; no arrays"
    samples = arrays[:: max(1, len(arrays) // _LISTED)]
    return f"{text}; {len(arrays)} arrays, such as {', '.join(samples[:_LISTED])}"


def _arrays_below(
    prefix: str, home: int, form: Form, contents: Contents
) -> Mapping[str, np.ndarray]:
    """Returns the arrays of a network by their names below the wrapper.

    These are all arrays of each container that holds the anchor or another array of the network,
    also arrays that the network does not know, which its reader then refuses. Other containers,
    such as an optimiser's state, are left out.
    """
    below = {
        name[len(prefix) :]: leaf
        for name, leaf in contents.leaves.items()
        if name.startswith(prefix) and isinstance(leaf.value, np.ndarray)
    }
    homes = {home} | {leaf.home for name, leaf in below.items() if form.knows(name)}
    homes.discard(ATTRIBUTES)
    return {name: leaf.value for name, leaf in below.items() if leaf.home in homes}


def _siblings(prefix: str, home: int, contents: Contents) -> tuple[str, ...]:
    parent, _, part = prefix.rstrip("./").rpartition(".")
    if (
        not part
        or part in _ENGINES
        or _AVERAGE.search(part.lower())
        or _GENERATOR.search(part.lower())
    ):
        return ()
    parent = f"{parent}." if parent else ""
    return tuple(
        name.removeprefix(parent)
        for name, leaf in contents.leaves.items()
        if leaf.home == home
        and name.startswith(parent)
        and not name.startswith(prefix)
        and isinstance(leaf.value, np.ndarray)
    )


def _different(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Drops candidates with the same arrays as an earlier candidate."""
    found: dict[tuple[Any, ...], Candidate] = {}
    for candidate in candidates:
        identity = tuple(
            sorted((name, id(array)) for name, array in candidate.arrays.items() if array.ndim)
        )
        found.setdefault((candidate.form, identity), candidate)
    return list(found.values())


def _labels(paths: Sequence[str], contents: Contents) -> list[str]:
    """Returns a short name for each path: without wrappers, unless that name is ambiguous."""
    bare = "network" if isinstance(contents.root, Record) else "state"
    short = [
        ".".join(part for part in path.split(".") if part not in _WRAPPERS) or bare
        for path in paths
    ]
    known: dict[str, set[str]] = {}
    for label, path in zip(short, paths, strict=True):
        known.setdefault(label, set()).add(path)
    return [
        label if len(known[label]) == 1 else path or bare
        for label, path in zip(short, paths, strict=True)
    ]


def _rank(candidate: Candidate) -> int:
    path = candidate.path.lower()
    if _DISCRIMINATOR.search(path):
        return 3
    if _AVERAGE.search(path):
        return 0
    return 1 if _GENERATOR.search(path) else 2


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return (", ".join(names[:_LISTED]) or "nothing") + more
