"""Users' notes on directions: names, stars, good ranges, free text.

The notes on `directions.safetensors` are in a sidecar file, `directions.notes.json`, so naming a
direction never changes the large file. Each note is stored under the digest of the directions and
the number of its direction. If other directions replace the file, the old notes stay in the sidecar
but are not shown; they come back with the old directions.
"""

import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from navigan_jax import checkpoints, faults
from navigan_jax.errors import InputError

FORMAT = "navigan_jax.notes"
VERSION = 1
LONGEST_NAME = 120  # characters
LONGEST_TEXT = 4000
_LARGEST = sys.float_info.max

_FIELDS = ("name", "starred", "good_range", "text")


@dataclasses.dataclass(frozen=True)
class Note:
    """A user's note on one direction.

    good_range: the lowest and highest shift, in units of ‖ξ‖, at which the direction does what its
      name says.
    Raises: InputError for a value of another kind or length.
    """

    name: str = ""
    starred: bool = False
    good_range: tuple[float, float] | None = None
    text: str = ""

    def __post_init__(self) -> None:
        for field, longest in (("name", LONGEST_NAME), ("text", LONGEST_TEXT)):
            value = getattr(self, field)
            if not isinstance(value, str) or len(value) > longest:
                raise _misfit(field, f"a text of at most {longest} characters", value)
        if any("\ud800" <= character <= "\udfff" for character in self.text):
            raise _misfit("text", "valid Unicode text, without lone surrogates", self.text)
        if not self.name.isprintable():
            raise _misfit("name", "one line without control characters", self.name)
        if not isinstance(self.starred, bool):
            raise _misfit("starred", "true or false", self.starred)
        if self.good_range is not None and not _is_range(self.good_range):
            raise _misfit("good_range", "two finite shifts, the lower one first", self.good_range)

    @classmethod
    def from_json(cls, value: Any) -> "Note":
        """Returns the note from the result of `to_json`.

        Raises: InputError for anything else.
        """
        if not isinstance(value, Mapping) or value.keys() - set(_FIELDS):
            raise _misfit("note", f"a table of {', '.join(_FIELDS)}", value)
        limits = value.get("good_range")
        if isinstance(limits, list):
            limits = tuple(limits)
        return cls(**{**value, "good_range": limits})

    def to_json(self) -> dict[str, Any]:
        """Returns the note as plain data for JSON."""
        limits = None if self.good_range is None else list(self.good_range)
        return {"name": self.name, "starred": self.starred, "good_range": limits, "text": self.text}


def _is_range(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(type(x) in (int, float) and -_LARGEST <= x <= _LARGEST for x in value)
        and value[0] < value[1]
    )


def _misfit(field: str, expected: str, value: Any) -> InputError:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return InputError(f"{field}: expected {expected}; got {shown}; change it")


@dataclasses.dataclass(frozen=True)
class Notes:
    """The notes on the directions with this digest (`directions.digest`), by direction number.

    others: the sidecar's notes on other directions, {digest: notes as JSON}; they are kept.
    """

    digest: str
    by_index: Mapping[int, Note] = dataclasses.field(default_factory=dict)
    others: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def get(self, index: int) -> Note:
        """Returns the note on a direction, or an empty note."""
        return self.by_index.get(index, Note())

    def with_note(self, index: int, note: Note) -> "Notes":
        """Returns these notes with `note` for that direction; an empty note removes the entry."""
        kept = {other: old for other, old in self.by_index.items() if other != index}
        if note != Note():
            kept[index] = note
        return dataclasses.replace(self, by_index=dict(sorted(kept.items())))


def sidecar_path(directions_path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the path of the notes on a directions file.

    >>> sidecar_path("runs/demo/directions.safetensors").name
    'directions.notes.json'
    """
    return pathlib.Path(directions_path).with_suffix(".notes.json")


def notes_to_json(notes: Notes) -> dict[str, Any]:
    """Returns the sidecar's content as plain data for JSON."""
    own = {str(index): note.to_json() for index, note in notes.by_index.items()}
    return {
        "format": FORMAT,
        "version": VERSION,
        "directions": {**notes.others, **({notes.digest: own} if own else {})},
    }


def notes_from_json(data: Any, *, digest: str, count: int) -> Notes:
    """Returns the notes on `count` directions from the content of a sidecar.

    Raises: InputError that names the fault.
    """
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InputError(f"notes: expected a table of format {FORMAT}; got none")
    if data.get("version") != VERSION or not isinstance(data.get("directions"), dict):
        raise InputError(
            f"notes: expected version {VERSION} with the notes of directions by digest; got "
            f"version {data.get('version')!r}"
        )
    others = dict(data["directions"])
    own = others.pop(digest, {})
    if not isinstance(own, dict):
        raise _misfit("notes", "a table by the number of the direction", own)
    numbers = {str(index): index for index in range(count)}
    if unknown := [key for key in own if key not in numbers]:
        raise _misfit("notes", f"numbers of directions, 0 to {count - 1}", unknown[0])
    by_index = {}
    for key, value in own.items():
        try:
            by_index[numbers[key]] = Note.from_json(value)
        except InputError as error:
            raise InputError(f"direction {key}: {error}") from error
    return Notes(digest, dict(sorted(by_index.items())), others)


def read_notes(directions_path: str | os.PathLike[str], *, digest: str, count: int) -> Notes:
    """Returns the notes beside a file of `count` directions; empty notes without a sidecar.

    digest: of the directions (`directions.digest`).
    Raises: InputError that names the sidecar if it is damaged.
    """
    path = sidecar_path(directions_path)
    if not os.path.lexists(path):
        return Notes(digest)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return notes_from_json(data, digest=digest, count=count)
    except InputError as error:
        raise InputError(f"{path}: {error}; mend the file, or move it away") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: expected the notes on {directions_path} as JSON; got "
            f"{faults.in_words(error)}; mend the file, or move it away"
        ) from error


def write_notes(directions_path: str | os.PathLike[str], notes: Notes) -> pathlib.Path:
    """Writes the sidecar of a directions file, atomically; returns its path.

    Raises: InputError as `checkpoints.atomic_output`.
    """
    path = sidecar_path(directions_path)
    text = json.dumps(notes_to_json(notes), ensure_ascii=False, allow_nan=False, indent=2)
    checkpoints.write_text(path, text + "\n")
    return path
