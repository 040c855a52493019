"""Messages describe file errors in plain words, without Python's own text."""

import errno
import json
import os
import pathlib
import re
from collections.abc import Callable

import pytest

from navigan_jax import checkpoints, faults, notes
from navigan_jax import config as config_lib
from navigan_jax.editing.recipe_files import read_recipe
from navigan_jax.errors import InputError
from navigan_jax.generators.files import read_generator
from navigan_jax.perceptual.files import read_perceptual
from tools.convert_weights.inspect_file import describe_file

_PYTHON = re.compile(
    r"\[Errno|<class|<_io|object at 0x|NoneType|Expecting |Error\b|codec|invalid literal|char \d"
)


def _make(path: pathlib.Path, kind: str) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "broken link":
        path.symlink_to("nowhere")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind != "nothing":
        path.write_bytes(CONTENT[kind])


CONTENT = {"empty": b"", "bytes": b"\xff\xfe\x00", "half": b'{"a": [1,', "deep": b"[" * 10**5}
KINDS = ("nothing", "folder", "pipe", "broken link", "loop", *CONTENT)
READERS: dict[str, Callable[[pathlib.Path], object]] = {
    "arrays": checkpoints.read_arrays,
    "text": checkpoints.read_text,
    "generator": read_generator,
    "perceptual": read_perceptual,
    "recipe": read_recipe,
    "config": lambda path: config_lib.load(str(path)),
    "notes": lambda path: notes.read_notes(_beside(path), digest="0", count=1),
    "inspect": describe_file,
}


def _beside(path: pathlib.Path) -> pathlib.Path:
    """Returns the directions whose notes are at `path`."""
    sidecar = notes.sidecar_path(path.with_name("d.safetensors"))
    if os.path.lexists(path):
        path.rename(sidecar)
    return path.with_name("d.safetensors")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["plain.py", "a, b=~c\nü.py"])
@pytest.mark.parametrize("reader", READERS)
def test_no_reader_lets_python_speak(
    tmp_path: pathlib.Path, reader: str, name: str, kind: str
) -> None:
    """Anything at a file's path that cannot be read gives one message, without Python's text."""
    if kind == "pipe" and reader in ("text", "recipe", "notes", "inspect"):
        return  # a pipe may be read: <(program)
    path = tmp_path / name
    _make(path, kind)
    try:
        READERS[reader](path)
    except InputError as error:
        assert str(tmp_path) in str(error)
        assert not _PYTHON.search(str(error)), str(error)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOENT, "No such file or directory"), "nothing"),
        (OSError(errno.EISDIR, "Is a directory"), "a folder"),
        (OSError(errno.EACCES, "Permission denied"), "a file that this user may not read"),
        (OSError(errno.EIO, "?"), "a system error (Input/output error)"),
        (UnicodeDecodeError("utf-8", b"a\xff", 1, 2, "?"), "invalid UTF-8 at byte 1"),
        (json.JSONDecodeError("?", "{\n ?", 3), "invalid JSON at line 2, column 2"),
        (RecursionError("?"), "lists or tables that are nested too deeply"),
        (ValueError("of two lines\nand more"), "of two lines"),
    ],
)
def test_errors_in_words(error: Exception, words: str) -> None:
    assert faults.in_words(error) == words


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("nothing", "nothing"),
        ("folder", "a folder"),
        ("empty", "a file"),
        ("broken link", "a link to nothing"),
        ("loop", "a link to nothing"),
        ("pipe", "a pipe, a socket or a device"),
    ],
)
def test_what_is_found_at_a_path(tmp_path: pathlib.Path, kind: str, words: str) -> None:
    _make(tmp_path / "a", kind)
    assert faults.found_at(tmp_path / "a") == words
