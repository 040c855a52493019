"""Uploaded latents: allowed files, persistence, messages for other files."""

import io
import pathlib
import zipfile
from typing import Any

import numpy as np
import pytest

from navigan_jax.errors import InputError
from navigan_jax.generators.latents import Spaces, parse_latents
from navigan_jax.viewer.own_latents import MOST_LATENTS, OwnLatents

SPACES = Spaces(z=5, rows=3, width=4)


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("arrays", "space", "count"),
    [
        ({"z": np.ones((2, 5))}, "z", 2),
        ({"z": np.ones(5, np.int64)}, "z", 1),
        ({"w_plus": np.ones((3, 4), np.float16)}, "w_plus", 1),
        ({"w": np.ones((1, 3, 4)), "noise": np.ones(9)}, "w_plus", 1),
        ({"w": np.ones((7, 4))}, "w_plus", 7),
    ],
)
def test_latents_are_found_again_after_a_restart(
    tmp_path: pathlib.Path, arrays: Any, space: str, count: int
) -> None:
    """They equal the latents that tasks read from the same file."""
    data = npz(**arrays)
    name, told = OwnLatents(tmp_path, SPACES).add(data, "mine.npz")
    assert (told.space, len(told.values)) == (space, count)
    expected = parse_latents(io.BytesIO(data), "mine.npz", SPACES)
    assert told.told == expected.told
    found = OwnLatents(tmp_path, SPACES).find(name)
    assert found.space == space and found.values.dtype == np.float32
    np.testing.assert_array_equal(found.values, expected.values)


def test_name_of_the_file_tells_the_space_of_an_array(tmp_path: pathlib.Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.ones((2, 4)))
    own = OwnLatents(tmp_path, Spaces(z=4, rows=3, width=4))
    name, latents = own.add(buffer.getvalue(), "w.npy")
    assert latents.space == own.find(name).space == "w_plus"
    name, latents = own.add(buffer.getvalue(), "z.npy")
    assert latents.space == own.find(name).space == "z"
    with pytest.raises(InputError, match=r"^mine\.npy: expected a name that tells z from w"):
        own.add(buffer.getvalue(), "mine.npy")


def test_equal_latents_are_saved_once_and_others_apart(tmp_path: pathlib.Path) -> None:
    own = OwnLatents(tmp_path, SPACES)
    one, again, other = (own.add(npz(z=np.full((1, 5), value)))[0] for value in (1, 1, 2))
    assert one == again != other
    assert len(list(tmp_path.iterdir())) == 2


def test_only_the_first_latents_of_a_large_file_are_used(tmp_path: pathlib.Path) -> None:
    data = npz(z=np.ones((MOST_LATENTS + 9, 5)))
    _, latents = OwnLatents(tmp_path, SPACES).add(data)
    assert len(latents.values) == MOST_LATENTS and latents.told.endswith("the first 256 are used")


def bomb() -> bytes:
    """Returns an archive that holds 300 MB of zeros, compressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("z.npy", bytes(300 * 2**20))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected latents in an .npz or .npy file; got an empty file"),
        (bomb, "expected at most 268435456 bytes of latents"),
        (npz(z=np.ones((2, 4)), w=np.ones((2, 4))), "'z' .*, 'w' "),
        (npz(z=np.ones((0, 5))), r"got 'z' \[0, 5\]"),
        (npz(z=np.full((2, 5), np.nan)), "got NaN"),
        (npz(z=np.array([None] * 5, object)), "python -m tools.convert_weights latents"),
    ],
)
def test_other_files_are_refused_as_in_tasks(
    tmp_path: pathlib.Path, data: Any, message: str
) -> None:
    """Tasks and the viewer share the reader, whose tests have the other messages."""
    with pytest.raises(InputError, match=f"^own.npz: .*{message}"):
        OwnLatents(tmp_path, SPACES).add(data() if callable(data) else data, "own.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["0" * 16, "../../etc/passwd", "", 3, None, "A" * 16, "0" * 17])
def test_unknown_names_are_refused(tmp_path: pathlib.Path, name: Any) -> None:
    with pytest.raises(InputError, match=r"^own: "):
        OwnLatents(tmp_path, SPACES).find(name)


def test_number_of_files_is_bounded(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("navigan_jax.viewer.own_latents._MOST_FILES", 1)
    own = OwnLatents(tmp_path, SPACES)
    own.add(npz(z=np.ones((1, 5))))
    with pytest.raises(InputError, match="at most 1 files"):
        own.add(npz(z=np.zeros((1, 5))))
