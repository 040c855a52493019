"""Own latents: what they may be, that they survive, what is told of anything else."""

import io
import pathlib
import zipfile
from typing import Any

import numpy as np
import pytest

from navigan_jax.errors import InputError
from navigan_jax.viewer.own_latents import MOST_LATENTS, OwnLatents

SHAPES = {"z": (5,), "w_plus": (3, 4)}


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
        ({"w_plus": np.ones((7, 3, 4)), "z": np.ones((7, 5))}, "w_plus", 7),
    ],
)
def test_latents_are_found_again_after_a_restart(
    tmp_path: pathlib.Path, arrays: Any, space: str, count: int
) -> None:
    name, told, number = OwnLatents(tmp_path, SHAPES).add(npz(**arrays))
    assert (told, number) == (space, count)
    found, latents = OwnLatents(tmp_path, SHAPES).find(name)
    assert found == space and latents.dtype == np.float32
    np.testing.assert_array_equal(latents, arrays[space].reshape(count, *SHAPES[space]))


def test_same_latents_are_kept_once_and_others_apart(tmp_path: pathlib.Path) -> None:
    own = OwnLatents(tmp_path, SHAPES)
    one, again, other = (own.add(npz(z=np.full((1, 5), value)))[0] for value in (1, 1, 2))
    assert one == again != other
    assert len(list(tmp_path.iterdir())) == 2


def test_only_so_many_are_taken(tmp_path: pathlib.Path) -> None:
    data = npz(z=np.ones((MOST_LATENTS + 9, 5)))
    assert OwnLatents(tmp_path, SHAPES).add(data)[2] == MOST_LATENTS


def bomb() -> bytes:
    """Returns an archive that unpacks to 300 MB of zeros."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("z.npy", bytes(300 * 2**20))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected an .npz file with an array z"),
        (b"PK nothing", "expected an .npz file"),
        (bomb, "more than 268435456"),
        (npz(x=np.ones(5)), "got 'the arrays x'"),
        (npz(z=np.ones((2, 4))), r"got z of shape \[2, 4\]"),
        (npz(z=np.ones((0, 5))), r"got z of shape \[0, 5\]"),
        (npz(w_plus=np.ones((2, 4, 4))), r"got w_plus of shape \[2, 4, 4\]"),
        (npz(z=np.full((2, 5), np.nan)), "got NaN"),
        (npz(z=np.full((2, 5), 1e300)), "got NaN or infinity"),
        (npz(z=np.array([["a"] * 5])), "numbers of type"),
        (npz(z=np.array([None] * 5, object)), "expected an .npz file"),
    ],
)
def test_other_files_are_told(tmp_path: pathlib.Path, data: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        OwnLatents(tmp_path, SHAPES).add(data() if callable(data) else data)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["0" * 16, "../../etc/passwd", "", 3, None, "A" * 16, "0" * 17])
def test_unknown_names_are_told(tmp_path: pathlib.Path, name: Any) -> None:
    with pytest.raises(InputError, match=r"^own: "):
        OwnLatents(tmp_path, SHAPES).find(name)


def test_folder_does_not_grow_without_end(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("navigan_jax.viewer.own_latents._MOST_FILES", 1)
    own = OwnLatents(tmp_path, SHAPES)
    own.add(npz(z=np.ones((1, 5))))
    with pytest.raises(InputError, match="at most 1 files"):
        own.add(npz(z=np.zeros((1, 5))))
