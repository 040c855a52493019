"""Pickled latents become an .npz that tasks and viewer take; other contents are reported."""

import io
import pathlib
from typing import Any

import numpy as np
import pytest

from navigan_jax.generators.latents import Spaces, read_latents
from tests.tools.crafting import (
    Call,
    Global,
    numpy_array,
    pickled,
    row_strides,
    storage,
    tensor,
    torch_stream,
    torch_zip,
)
from tools.convert_weights import __main__ as command

SPACES = Spaces(z=4, rows=3, width=4)


def draw(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.RandomState(sum(shape)).standard_normal(shape).astype(dtype)


def torch_file(content: Any, *, legacy: bool = False) -> bytes:
    """Returns a PyTorch file in which the arrays of nested containers are tensors."""
    storages: dict[str, np.ndarray] = {}

    def as_tensors(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            key = str(len(storages))
            storages[key] = value
            memory = storage(key, value.dtype.name, value.size, legacy=legacy)
            return tensor(memory, value.shape, row_strides(value.shape))
        if isinstance(value, dict):
            return {key: as_tensors(item) for key, item in value.items()}
        return type(value)(map(as_tensors, value)) if isinstance(value, list | tuple) else value

    made = as_tensors(content)
    return (torch_stream if legacy else torch_zip)(made, storages)


def convert(folder: pathlib.Path, file: str, data: bytes, *options: str) -> int:
    (folder / file).write_bytes(data)
    out = f"--out={folder / 'latents.npz'}"
    return command.main(["latents", str(folder / file), out, *options])


def entry(latent: np.ndarray) -> dict[str, Any]:
    """Returns the entry that rosinality's projector stores for an image."""
    return {"img": draw(3, 8, 8), "latent": latent, "noise": [draw(1, 1, 4, 4), draw(1, 1, 8, 8)]}


W = draw(4)
ROWS = draw(3, 4)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"a.png": entry(ROWS), "b/c.png": entry(-ROWS)}, [ROWS, -ROWS]),
        ({"a.png": entry(ROWS)}, [ROWS]),
        (np.stack([ROWS, -ROWS]), [ROWS, -ROWS]),  # e4e
        (ROWS[None], [ROWS]),  # pivotal tuning
        ([ROWS, -ROWS], [ROWS, -ROWS]),
        ([ROWS[None], -ROWS[None]], [ROWS, -ROWS]),
        ({"a.jpg": ROWS, "b.jpg": -ROWS}, [ROWS, -ROWS]),
        ({"w": ROWS[None], "loss": draw(9), "step": 3}, [ROWS]),
        ({"dlatents": ROWS[None].astype(np.float64)}, [ROWS]),
        ({"latents": ROWS[None].astype(np.float16)}, [ROWS.astype(np.float16)]),
    ],
)
def test_latents_are_found_in_what_programs_write(
    tmp_path: pathlib.Path, content: Any, expected: Any, legacy: bool
) -> None:
    assert convert(tmp_path, "projected.pt", torch_file(content, legacy=legacy)) == 0
    found = read_latents(str(tmp_path / "latents.npz"), SPACES)
    assert found.space == "w_plus"
    np.testing.assert_array_equal(found.values, np.asarray(expected, np.float32))


@pytest.mark.parametrize(
    ("file", "content", "options", "space"),
    [
        ("w.pt", np.stack([W, -W]), [], "w_plus"),
        ("z.pt", np.stack([W, -W]), [], "z"),
        ("mine.pt", [W, -W], ["--name=z"], "z"),
        ("mine.pt", [W, -W], ["--name=w"], "w_plus"),
        ("mine.pt", {"a.png": {"z": W}, "b.png": {"z": -W}}, [], "z"),
    ],
)
def test_one_w_or_z_each_is_told_by_its_name(
    tmp_path: pathlib.Path, file: str, content: Any, options: list[str], space: str
) -> None:
    assert convert(tmp_path, file, torch_file(content), *options) == 0
    found = read_latents(str(tmp_path / "latents.npz"), SPACES)
    assert found.space == space
    rows = found.values if space == "z" else found.values[:, 1]
    np.testing.assert_array_equal(rows, [W, -W])


def test_other_containers_are_read_too(tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "wp.npy", ROWS[None])
    np.savez(tmp_path / "own.npz", w=ROWS[None], noise=draw(8))
    files = {
        "wp.npy": (tmp_path / "wp.npy").read_bytes(),
        "own.npz": (tmp_path / "own.npz").read_bytes(),
        "w.pkl": pickled({"w": numpy_array(ROWS[None])}),
    }
    for file, data in files.items():
        assert convert(tmp_path, file, data) == 0
        found = read_latents(str(tmp_path / "latents.npz"), SPACES)
        np.testing.assert_array_equal(found.values, ROWS[None])


@pytest.mark.parametrize(
    "content",
    [
        {"a.jpg": ROWS, "b.jpg": -ROWS},
        {"a.jpg": [ROWS], "b.jpg": (-ROWS,)},
        {"a.jpg": np.asfortranarray(ROWS), "b.jpg": -ROWS},
    ],
)
def test_dict_that_numpy_saved_is_read(tmp_path: pathlib.Path, content: Any) -> None:
    """Encoders write such a file: an array of one object, which is a pickle."""
    array = np.array(content, object)
    np.save(tmp_path / "latents.npy", array, allow_pickle=True)
    data = (tmp_path / "latents.npy").read_bytes()
    assert convert(tmp_path, "latents.npy", data) == 0
    found = read_latents(str(tmp_path / "latents.npz"), SPACES)
    np.testing.assert_array_equal(found.values, [ROWS, -ROWS])


def hostile_npy() -> bytes:
    """Returns an array of objects whose pickle asks for a program to run."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "|O", "fortran_order": False, "shape": ()}
    )
    return buffer.getvalue() + pickled(Call(Global("os", "system"), ("true",)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            torch_file({"step": 3}),
            "expected latents, arrays of numbers with one to three axes; got none",
        ),
        (
            torch_file({"a.weight": draw(7, 4), "b.weight": draw(4)}),
            "expected latents of one shape; got 2 arrays: a.weight [7, 4], b.weight [4]",
        ),
        (torch_file([draw(3, 8, 5, 5), draw(4).astype(bool)]), "got none"),
        (torch_file({"a": [draw(n) for n in range(1, 9)]}), "8 arrays: a[0] [1], a[1] [2], a[2]"),
        (torch_file({"w": ROWS, "z": W}), "expected one entry with latents; got w, z"),
        (b"<html>", "expected a weight file; got a web page"),
        (pickled(Call(Global("os", "system"), ("true",))), "os.system"),
        (hostile_npy(), "os.system"),
    ],
)
def test_file_without_latents_is_told(
    tmp_path: pathlib.Path, data: bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(tmp_path, "file.pt", data) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "latents.npz").exists()


def test_name_of_the_output_is_checked(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "w.npz").write_bytes(b"")
    for out, message in (("w.safetensors", "ends in .npz"), ("w.npz", "another file than")):
        assert command.main(["latents", str(tmp_path / "w.npz"), f"--out={tmp_path / out}"]) == 2
        assert message in capsys.readouterr().err
