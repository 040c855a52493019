"""Names that the task `factors` proposes for directions, after the factors that they change.

Suggestions on `directions.safetensors` are in a sidecar file, `directions.factors.json`. A name in
the notes always takes precedence: a suggestion is shown where the user has given no name.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from navigan_jax import faults
from navigan_jax.errors import InputError

FORMAT = "navigan_jax.factors"
VERSION = 1


def sidecar_path(directions_path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the path of the suggestions on a directions file.

    >>> sidecar_path("runs/demo/directions.safetensors").name
    'directions.factors.json'
    """
    return pathlib.Path(directions_path).with_suffix(".factors.json")


def read_suggestions(
    directions_path: str | os.PathLike[str], *, digest: str, count: int
) -> Mapping[int, str]:
    """Returns the proposed names, {direction: name}; nothing without a sidecar.

    digest: of the directions (`directions.digest`); suggestions for other directions do not count.
    Raises: InputError that names the sidecar if it is damaged.
    """
    path = sidecar_path(directions_path)
    if not os.path.lexists(path):
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return _from_json(data, digest=digest, count=count)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: expected the factors of {directions_path} as JSON; got "
            f"{faults.in_words(error)}; remove the file, or make it anew with "
            "--config=configs/factors.py"
        ) from error


def _from_json(data: Any, *, digest: str, count: int) -> Mapping[int, str]:
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f"no table of format {FORMAT}")
    if data.get("version") != VERSION:
        raise ValueError(f"version {data.get('version')!r}, where {VERSION} is known")
    if data.get("directions_digest") != digest:
        return {}
    found = {}
    rows = data.get("directions")
    for row in rows if isinstance(rows, list) else [None]:
        index, name = (row.get("index"), row.get("name")) if isinstance(row, dict) else (None, None)
        if type(index) is not int or not 0 <= index < count or not _is_name(name):
            raise ValueError("a row without a number of a direction and a name")
        if name:
            found[index] = name
    return found


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 120 and value.isprintable()
