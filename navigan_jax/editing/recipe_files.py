"""Recipes as JSON: checked key by key when read; a written recipe reads back equal to the bit."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

from navigan_jax import checkpoints, faults
from navigan_jax.editing.recipe import (
    Drawn,
    Given,
    Mix,
    Move,
    Photo,
    Recipe,
    Sample,
    Synthesis,
    Video,
    misfit,
    to_tuples,
)
from navigan_jax.errors import InputError

FORMAT = "navigan_jax.recipe"
VERSION = 1

_NO_FILE = "recipe: "  # begins a message that names no file
_INSPECT = "python -m tools.convert_weights inspect FILE"
_DIGESTS = {
    "generator": f"generator, the digest of its weights, which {_INSPECT} prints",
    "directions": f"directions, the digest of the directions, which {_INSPECT} prints",
}


def to_text(recipe: Recipe) -> str:
    """Returns the recipe as JSON; `from_text` gives an equal one back."""
    data = {
        "format": FORMAT,
        "version": VERSION,
        "generator": recipe.generator,
        "samples": [sample.to_json() for sample in recipe.samples],
        "moves": [move.to_json() for move in recipe.moves],
        "mixes": [mix.to_json() for mix in recipe.mixes],
        "truncation": recipe.truncation,
        "enlarge": recipe.enlarge,
        "video": None if recipe.video is None else recipe.video.to_json(),
    }
    # Written only if it is set: older programs, which do not know the key, then refuse the recipe.
    if synthesis := recipe.synthesis.to_json():
        data["synthesis"] = synthesis
    return json.dumps(data, ensure_ascii=False, allow_nan=False, indent=2) + "\n"


def from_text(text: str) -> Recipe:
    """Returns the recipe in this JSON.

    Raises: InputError that names the wrong entry, what was expected and what came.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"recipe: expected JSON; got {faults.in_words(error)}; correct it there"
        ) from error
    return from_json(data)


def from_json(data: Any) -> Recipe:
    """Returns the recipe of decoded JSON.

    Raises: as `from_text`.
    """
    keys = {field.name for field in dataclasses.fields(Recipe)}
    table = _table("recipe", data, keys | {"format", "version"}, needed={"generator", "samples"})
    if table.pop("format", None) != FORMAT or table.pop("version", None) != VERSION:
        raise InputError(
            f'recipe: expected "format": "{FORMAT}" and "version": {VERSION}; got '
            f"{data.get('format')!r} and {data.get('version')!r}; it is not a recipe, or a newer "
            "navigan_jax wrote it"
        )
    table["samples"] = _each("samples", table["samples"], _sample)
    table["moves"] = _each("moves", table.get("moves", []), _move)
    table["mixes"] = _each("mixes", table.get("mixes", []), _mix)
    if table.get("video") is not None:
        names = {field.name for field in dataclasses.fields(Video)}
        table["video"] = Video(**_table("video", table["video"], names))
    names = {field.name for field in dataclasses.fields(Synthesis)}
    table["synthesis"] = Synthesis(**_table("synthesis", table.get("synthesis", {}), names))
    return Recipe(**table)


def without_place(error: InputError) -> str:
    """Returns the message without "recipe: ", to be put behind the name of a file."""
    return str(error).removeprefix(_NO_FILE)


def _sample(place: str, data: Any) -> Sample:
    table = _table(place, data, {"seed", "index", "z", "w_plus", "photographs", "file"})
    if "photographs" in table:
        return Photo(**_table(place, data, {"photographs", "index", "file"}, needed={"index"}))
    if table.keys() in ({"z"}, {"w_plus"}):
        ((space, values),) = table.items()
        return Given(space, to_tuples(values) if isinstance(values, list) else ())
    if "seed" not in table or table.keys() - {"seed", "index"}:
        raise misfit(
            place, "a seed (and an index), z, w_plus, or photographs and an index", sorted(table)
        )
    return Drawn(**table)


def _move(place: str, data: Any) -> Move:
    names = {field.name for field in dataclasses.fields(Move)}
    return Move(**_table(place, data, names, needed={"directions", "index", "shift"}))


def _mix(place: str, data: Any) -> Mix:
    names = {field.name for field in dataclasses.fields(Mix)}
    table = _table(place, data, names, needed={"source"})
    table["source"] = _sample(f"{place}: source", table["source"])
    for name in ("rows", "samples"):
        if table.get(name) is not None:
            if not isinstance(table[name], list):
                raise misfit(f"{place}: {name}", "a list of whole numbers, or null", table[name])
            table[name] = tuple(table[name])
    return Mix(**table)


def _table(
    place: str, data: Any, allowed: set[str], needed: set[str] | None = None
) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise misfit(place, f"a JSON object with the keys {', '.join(sorted(allowed))}", data)
    if unknown := sorted(data.keys() - allowed):
        raise misfit(place, f"only the keys {', '.join(sorted(allowed))}", unknown[0])
    if missing := sorted((needed or set()) - data.keys()):
        raise misfit(place, f"the key {_DIGESTS.get(missing[0], missing[0])}", sorted(data))
    return dict(data)


def _each(place: str, data: Any, read: Callable[[str, Any], Any]) -> tuple[Any, ...]:
    if not isinstance(data, list):
        raise misfit(place, "a list", data)
    found = []
    for number, item in enumerate(data):
        try:
            found.append(read(f"{place}[{number}]", item))
        except InputError as error:
            message = str(error)
            message = message if message.startswith(place) else f"{place}[{number}]: {message}"
            raise InputError(message) from error
    return tuple(found)


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Returns the recipe in a file.

    Raises: InputError that names the file and the wrong entry.
    """
    try:
        return from_text(pathlib.Path(path).read_text(encoding="utf-8"))
    except InputError as error:
        raise InputError(f"{path}: {without_place(error)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: expected a recipe; got {faults.in_words(error)}; export one from the viewer, "
            "or write one"
        ) from error


def write_recipe(path: str | os.PathLike[str], recipe: Recipe) -> None:
    """Writes the recipe, atomically.

    Raises: InputError as `checkpoints.atomic_output`.
    """
    checkpoints.write_text(path, to_text(recipe))
