"""Finds the file of a network that comes with the package; any other path stays as it is."""

import difflib
import importlib.resources
import os
import pathlib
from collections.abc import Mapping

from navigan_jax import assets
from navigan_jax.errors import InputError


def find_generator(path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the path of a generator file; `path` may be a name such as "cars".

    Raises: InputError for a bare word that is neither a name nor a file.
    """
    return _find(path, assets.GENERATORS, "a generator file")


def find_gauges(path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the path of a file of gauges; `path` may be a name such as "cars".

    Raises: as `find_generator`.
    """
    return _find(path, assets.GAUGES, "a file of gauges")


def _find(path: str | os.PathLike[str], known: Mapping[str, str], expected: str) -> pathlib.Path:
    word = os.fspath(path)
    if os.path.lexists(word):
        return pathlib.Path(word)
    if word in known:
        return pathlib.Path(str(importlib.resources.files(assets) / known[word]))
    if word.isidentifier():
        near = difflib.get_close_matches(word, known, n=1)
        hint = f"; did you mean {near[0]}? Correct the name" if near else "; correct the name"
        raise InputError(
            f"{word}: expected {expected}, or the name of one in the package; got neither; "
            f"allowed names: {', '.join(known)}{hint}, or give a path"
        )
    return pathlib.Path(word)
