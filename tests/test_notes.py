"""Notes beside a directions file: stored by digest and number, and read back equal."""

import json
import math
import os
import re

import pytest

from navigan_jax.errors import InputError
from navigan_jax.notes import Note, Notes, notes_from_json, read_notes, sidecar_path, write_notes

SMILE = Note("smile", True, (-2.5, 4.0), "teeth show\nbeyond 4")


def test_notes_come_back_equal(tmp_path):
    """Names, stars, ranges and texts; directions without a note have an empty note."""
    path = tmp_path / "directions.safetensors"
    notes = Notes("a1").with_note(3, SMILE).with_note(0, Note(starred=True))
    assert write_notes(path, notes) == sidecar_path(path) == tmp_path / "directions.notes.json"
    got = read_notes(path, digest="a1", count=4)
    assert got == notes
    assert list(got.by_index) == [0, 3]
    assert (got.get(3), got.get(1)) == (SMILE, Note())


def test_notes_of_other_directions_are_kept_but_not_shown(tmp_path):
    """A repeated run writes other directions to the file; both keep their own notes."""
    path = tmp_path / "directions.safetensors"
    write_notes(path, Notes("a1").with_note(3, SMILE))
    fresh = read_notes(path, digest="b2", count=2)
    assert not fresh.by_index and fresh.get(0) == Note()
    write_notes(path, fresh.with_note(1, Note("hair")))
    assert read_notes(path, digest="a1", count=4).by_index == {3: SMILE}
    assert read_notes(path, digest="b2", count=2).by_index == {1: Note("hair")}


def test_verbs_leave_the_value_as_it_was():
    notes = Notes("a1").with_note(3, SMILE)
    assert notes.with_note(3, Note()) == Notes("a1")
    assert notes.get(3) == SMILE


def test_no_sidecar_means_no_notes(tmp_path):
    assert read_notes(tmp_path / "directions.safetensors", digest="a1", count=4) == Notes("a1")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "x" * 121}, "name: expected a text of at most 120 characters; got 'xxx"),
        ({"name": "two\nlines"}, "name: expected one line without control characters"),
        ({"starred": 1}, "starred: expected true or false; got 1"),
        ({"good_range": (2.0, 1.0)}, "good_range: expected two finite shifts, the lower one first"),
        ({"good_range": (0.0, math.nan)}, "good_range: expected two finite shifts"),
        ({"good_range": (False, True)}, "good_range: expected two finite shifts"),
        ({"text": None}, "text: expected a text of at most 4000 characters; got None"),
    ],
)
def test_wrong_note_is_one_message(values, message):
    with pytest.raises(InputError, match=message):
        Note(**values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"expected the notes on .*directions.safetensors as JSON; got .*; mend the file"),
        (b"\xff", "as JSON; got invalid UTF-8 at byte 0; mend"),
        (b"[]", "notes: expected a table of format navigan_jax.notes"),
        (b'{"format": "navigan_jax.notes", "version": 2}', "notes: expected version 1 .* got ver"),
        ({"9": {"name": "a"}}, "notes: expected numbers of directions, 0 to 3; got '9'"),
        ({"1": {"nom": "a"}}, "direction 1: note: expected a table of name, starred, good_range"),
        ({"1": {"good_range": [1, "2"]}}, "direction 1: good_range: expected two finite shifts"),
        ([], "notes: expected a table by the number of the direction"),
    ],
)
def test_broken_sidecar_is_one_message(content, message, tmp_path):
    """The message names the file, and the file does not change."""
    path = tmp_path / "directions.safetensors"
    if not isinstance(content, bytes):
        data = {"format": "navigan_jax.notes", "version": 1, "directions": {"a1": content}}
        content = json.dumps(data).encode()
    sidecar_path(path).write_bytes(content)
    with pytest.raises(InputError, match=re.escape(str(sidecar_path(path))) + ".*" + message):
        read_notes(path, digest="a1", count=4)
    assert sidecar_path(path).read_bytes() == content


def test_writing_that_fails_leaves_the_old_notes(tmp_path, monkeypatch):
    path = tmp_path / "directions.safetensors"
    write_notes(path, Notes("a1").with_note(3, SMILE))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="disk is full"):
        write_notes(path, Notes("a1"))
    monkeypatch.undo()
    assert read_notes(path, digest="a1", count=4).by_index == {3: SMILE}
    assert [entry.name for entry in tmp_path.iterdir()] == ["directions.notes.json"]


def test_note_of_defaults_may_leave_keys_out():
    data = {"format": "navigan_jax.notes", "version": 1, "directions": {"a1": {"2": {"name": "a"}}}}
    assert notes_from_json(data, digest="a1", count=3).get(2) == Note("a")
