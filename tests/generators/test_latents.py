"""Files of latents: name and shape of an array decide what it is; other files are refused."""

import io
import pathlib
import shlex
import zipfile
from typing import Any

import numpy as np
import pytest

from navigan_jax import testing
from navigan_jax.errors import InputError
from navigan_jax.generators.latents import Latents, Spaces, parse_latents, read_latents, spaces_of

APART = Spaces(z=5, rows=3, width=4)
ALIKE = Spaces(z=4, rows=3, width=4)  # as in published networks, where both are 512
LABELLED = Spaces(z=5, label_dim=2, rows=3, width=4)
PLAIN = Spaces(z=5)


def draw(*shape: int) -> np.ndarray:
    return np.random.RandomState(sum(shape)).standard_normal(shape).astype(np.float32)


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def parse(data: bytes, spaces: Spaces = APART, name: str = "file.npz") -> Latents:
    return parse_latents(io.BytesIO(data), name, spaces)


def in_rows(w: np.ndarray) -> np.ndarray:
    return np.repeat(w[:, None], 3, axis=1)


@pytest.mark.parametrize("spaces", [APART, ALIKE])
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("w", (1, 3, 4)),  # the official projector
        ("w", (2, 3, 4)),
        ("dlatents", (1, 3, 4)),
        ("wp", (2, 3, 4)),
        ("w_plus", (3, 4)),
        ("projected_w", (1, 3, 4)),
        ("latents", (6, 3, 4)),
        ("latent", (3, 4)),
        ("arr_0", (1, 3, 4)),  # numpy.savez without a name
        ("anything", (2, 3, 4)),
    ],
)
def test_w_of_each_row_is_taken_by_its_axes(
    spaces: Spaces, name: str, shape: tuple[int, ...]
) -> None:
    array = draw(*shape)
    for found in (parse(npz(**{name: array}), spaces), parse(npy(array), spaces, f"{name}.npy")):
        assert found.space == "w_plus" and found.values.dtype == np.float32
        np.testing.assert_array_equal(found.values, array.reshape(-1, 3, 4))
        assert f"latent{'s' * (len(found.values) != 1)} taken as w_plus, from" in found.told
        assert str(list(shape)) in found.told


@pytest.mark.parametrize(
    ("name", "shape"),
    [("w", (2, 4)), ("w", (4,)), ("w", (3, 4)), ("dlatents", (2, 4)), ("ws", (2, 4))],
)
@pytest.mark.parametrize("spaces", [APART, ALIKE])
def test_w_of_all_rows_is_repeated(spaces: Spaces, name: str, shape: tuple[int, ...]) -> None:
    """Under the name w, two axes are [count, w], even if the count equals the number of rows."""
    array = draw(*shape)
    for found in (parse(npz(**{name: array}), spaces), parse(npy(array), spaces, f"{name}.npy")):
        assert found.space == "w_plus"
        np.testing.assert_array_equal(found.values, in_rows(array.reshape(-1, 4)))
        assert "each for all 3 rows" in found.told


@pytest.mark.parametrize("shape", [(2, 5), (5,), (2, 5, 1, 1), (3, 5)])
@pytest.mark.parametrize("spaces", [APART, PLAIN])
def test_z_is_taken_by_its_size(spaces: Spaces, shape: tuple[int, ...]) -> None:
    array = draw(*shape)
    for name in ("z", "latents", "arr_0"):
        found = parse(npz(**{name: array}), spaces)
        assert found.space == "z"
        np.testing.assert_array_equal(found.values, array.reshape(-1, 5))


def test_name_decides_where_z_and_w_are_of_one_size() -> None:
    array = draw(2, 4)
    assert parse(npz(z=array), ALIKE).space == "z"
    assert parse(npy(array), ALIKE, "some/folder/z.npy").space == "z"
    assert parse(npz(w=array), ALIKE).space == "w_plus"
    assert parse(npy(draw(3, 4)), ALIKE, "Z.npy").space == "z"
    for data, name in ((npz(latents=array), "file.npz"), (npy(array), "mine.npy")):
        with pytest.raises(InputError, match=rf"{name}: expected a name that tells z from w"):
            parse(data, ALIKE, name)
    assert parse(npz(latents=array), APART).space == "w_plus"


def test_label_is_added_where_the_class_is_told() -> None:
    z = draw(2, 5)
    whole = np.c_[z, [[0, 1], [1, 0]]].astype(np.float32)
    np.testing.assert_array_equal(parse(npz(z=whole), LABELLED).values, whole)
    told = Spaces(z=5, label_dim=2, label=1, rows=3, width=4)
    found = parse(npz(z=z), told)
    np.testing.assert_array_equal(found.values, np.c_[z, [[0, 1], [0, 1]]])
    assert "with the label 1 added" in found.told
    np.testing.assert_array_equal(parse(npz(z=whole), told).values, whole)
    with pytest.raises(InputError, match=r"z followed by a label.*--config\.synthesis\.label="):
        parse(npz(z=z), LABELLED)


@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", ">f4", "<f2", ">f2", "<i8", "u1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_numbers_of_any_type_and_order_are_the_same(dtype: str, order: Any) -> None:
    array = np.asarray(np.arange(24).reshape(2, 3, 4), dtype, order=order)
    compressed = io.BytesIO()
    np.savez_compressed(compressed, w=array)
    files = (npz(w=array), "a.npz"), (npy(array), "w.npy"), (compressed.getvalue(), "a.npz")
    for data, name in files:
        found = parse(data, APART, name).values
        np.testing.assert_array_equal(found, np.arange(24).reshape(2, 3, 4))
        assert found.dtype == np.float32 and found.flags.c_contiguous


def test_other_arrays_beside_the_latents_do_not_matter() -> None:
    """The only array with a common name is read, else the only array whose shape fits."""
    w, noise = draw(1, 3, 4), draw(1, 1, 8, 8)
    assert "'w' [1, 3, 4]" in parse(npz(noise=noise, w=w, w_avg=draw(4))).told
    assert "'mine' [1, 3, 4]" in parse(npz(noise=noise, mine=w, loss=np.float32(3))).told


@pytest.mark.parametrize(
    ("arrays", "listed"),
    [
        ({"z": (2, 5), "w": (2, 4)}, r"2 that can be meant: 'z' \[2, 5\], 'w' \[2, 4\]"),
        ({"w_plus": (1, 3, 4), "dlatents": (9, 9)}, r"'w_plus' \[1, 3, 4\], 'dlatents' \[9, 9\]"),
        ({"a": (1, 3, 4), "b": (2, 3, 4)}, r"2 that can be meant: 'a' \[1, 3, 4\], 'b'"),
        ({f"{n}": (7,) for n in range(20)}, r"20 that can be meant: .*'7' \[7\] and 12 more;"),
    ],
)
def test_several_arrays_that_can_be_meant_are_named(arrays: Any, listed: str) -> None:
    data = npz(**{name: draw(*shape) for name, shape in arrays.items()})
    with pytest.raises(InputError, match=rf"file\.npz: expected one array of latents.*{listed}"):
        parse(data)


@pytest.mark.parametrize(
    ("name", "array", "got"),
    [
        ("w", draw(1, 4, 4), r"got 'w' \[1, 4, 4\]"),  # rows
        ("w", draw(1, 3, 6), r"got 'w' \[1, 3, 6\]"),  # width
        ("w", draw(2, 6), r"got 'w' \[2, 6\]"),
        ("z", draw(2, 4), r"got 'z' \[2, 4\]"),  # z is of another size, w would fit
        ("z", draw(1, 3, 4), r"got 'z' \[1, 3, 4\]"),
        ("w_plus", draw(2, 4), r"got 'w_plus' \[2, 4\]"),
        ("w", draw(1, 1, 3, 4), r"got 'w' \[1, 1, 3, 4\]"),
        ("z", draw(2, 5, 2, 1), r"got 'z' \[2, 5, 2, 1\]"),
        ("w", draw(0, 3, 4), r"got 'w' \[0, 3, 4\]"),
        ("z", draw(0, 5), r"got 'z' \[0, 5\]"),
        ("w", np.float32(1), r"got 'w' \[\]"),
    ],
)
def test_latents_of_another_generator_are_told(name: str, array: Any, got: str) -> None:
    allowed = r"z \[count, 5\] or w \[count, 4\] or w_plus \[count, 3, 4\]"
    with pytest.raises(InputError, match=rf"expected latents of this generator, {allowed}; {got}"):
        parse(npz(**{name: array}))
    with pytest.raises(InputError, match=r"expected latents of this generator, .*got an array"):
        parse(npy(array), APART, f"{name}.npy")


def test_generator_without_w_takes_z_alone() -> None:
    with pytest.raises(InputError, match=r"generator, z \[count, 5\]; got 'w' \[2, 5\]"):
        parse(npz(w=draw(2, 5)), PLAIN)


def bomb() -> bytes:
    """Returns an archive of a few kB that unpacks to 5 MB of zeros."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.npy", bytes(5 * 2**20))
    return buffer.getvalue()


def header_of(shape: tuple[int, ...]) -> bytes:
    """Returns an .npy file that ends after a header of this shape."""
    buffer = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def archive_of(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return buffer.getvalue()


OBJECTS: Any = np.array({"a.jpg": draw(3, 4)})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected latents in an .npz or .npy file; got an empty file"),
        (b"<!DOCTYPE html>", "got a file that begins with b'<!DOCTYPE html>'"),
        (b"PK nothing", "got one that cannot be read; write"),
        (npz(w=draw(1, 3, 4))[:-40], "got one that cannot be read"),
        (npy(draw(1, 3, 4))[:-1], "got one that cannot be read; write"),
        (b"\x93NUMPY\x03\0", "cannot be read"),
        (b"\x93NUMPY\x09\0\0\0", "got one that cannot be read; write"),
        (header_of((10**7, 3, 4)), "got one that cannot be read; write"),
        (archive_of(w=header_of((10**9, 3, 4))), "cannot be read"),
        (archive_of(w=b"nothing"), "cannot be read"),
        (archive_of(), "got a zip archive without arrays"),
        (bomb(), "expected at most 1048576 bytes of latents; got 5242880"),
        (npy(np.zeros((30000, 3, 4), np.float32)), "expected at most 1048576 bytes"),
        (npz(w=np.full((1, 3, 4), np.nan)), "finite numbers within float32; got NaN, infinity"),
        (npz(w=np.full((1, 3, 4), 1e300)), "finite numbers within float32"),
        (npz(w=np.ones((1, 3, 4), bool)), "array of real numbers; got 'w' .* of type bool"),
        (npz(w=np.ones((1, 3, 4), complex)), "of type complex128"),
        (npz(w=np.full((1, 3, 4), "a")), "of type <U1"),
        (npz(w=np.ones((1, 3, 4), [("a", "f4")])), "real numbers"),
    ],
)
def test_file_that_is_none_is_told(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=rf"^w\.npz: .*{message}"):
        parse_latents(io.BytesIO(data), "w.npz", APART, most_bytes=2**20)


@pytest.mark.parametrize(
    ("data", "got"),
    [
        (archive_of(w=npy(OBJECTS)), r"got 'w' \[\] of Python objects"),
        (npy(OBJECTS), r"got an array \[\] of Python objects"),
        (b"\x80\x02}q\x00.", "got a pickle, perhaps of PyTorch"),
        (None, "got a PyTorch file, which is a pickle"),
    ],
)
def test_pickled_latents_are_told_the_command_that_converts_them(
    data: bytes | None, got: str
) -> None:
    if data is None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
        data = buffer.getvalue()
    name = "my latents.pt"
    with pytest.raises(InputError, match=got) as told:
        parse(data, APART, name)
    command = str(told.value).partition("reads it: ")[2]
    assert shlex.split(command) == [
        *("python", "-m", "tools.convert_weights", "latents", name),
        *("--out", "latents.npz"),
    ]


def test_path_without_a_file_is_told(tmp_path: pathlib.Path) -> None:
    for path, found in ((tmp_path, "a folder"), (tmp_path / "none.npz", "nothing")):
        with pytest.raises(InputError, match=rf"expected an \.npz or \.npy file .*got {found}"):
            read_latents(str(path), APART)


def test_sizes_are_those_of_the_generator() -> None:
    generators = testing.tiny_generators()
    assert spaces_of(generators["dcgan"]) == Spaces(*generators["dcgan"].space.shape)
    stylegan2 = generators["stylegan2"]
    assert spaces_of(stylegan2).shapes["w_plus"] == (4, 11)
