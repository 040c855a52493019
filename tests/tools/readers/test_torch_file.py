"""Files of torch.save: every layout is read, every damaged or hostile one is one clear message."""

import io
import os
import pathlib
import tarfile
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from navigan_jax.errors import InputError
from tests.tools.crafting import (
    PROPERTIES,
    STORAGE_CLASSES,
    Build,
    Call,
    Global,
    New,
    pickled,
    row_strides,
    state_dict_file,
    storage,
    tensor,
    torch_stream,
    torch_zip,
    zip_archive,
)
from tools.convert_weights.readers import torch_file
from tools.convert_weights.readers.torch_file import read_torch, read_torch_bytes

LEGACY = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "stream"])


def read(data: bytes) -> Any:
    return read_torch_bytes(data, "file")


def craft(content: Any, storages: dict[str, np.ndarray], legacy: bool) -> bytes:
    return (torch_stream if legacy else torch_zip)(content, storages)


def numbers(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    count = int(np.prod(shape))
    kind = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    return (np.arange(count) % 5 - 1).astype(kind).reshape(shape)


@LEGACY
@pytest.mark.parametrize("dtype", STORAGE_CLASSES)
def test_state_dict_comes_back_equal(dtype: str, legacy: bool) -> None:
    """Every dtype, 0-d, empty and larger shapes: bit for bit, in the order of the file."""
    shapes = {"d": (), "c": (3,), "b": (2, 0, 3), "a": (2, 3, 5, 7)}
    want = {name: numbers(dtype, shape) for name, shape in shapes.items()}
    got = read(state_dict_file(want, legacy=legacy))
    assert list(got) == list(want)
    for name, array in want.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array)


@LEGACY
def test_views_follow_offset_and_strides(legacy: bool) -> None:
    """Offsets, transposed and stepped views and channels-last weights are those of the storage."""
    memory = np.arange(120, dtype=np.float32)
    shared = storage("0", "float32", 120, legacy=legacy)
    content = {
        "all": tensor(shared, (120,), (1,)),
        "transposed": tensor(shared, (5, 4), (1, 5), 3),
        "stepped": tensor(shared, (3, 2), (20, 7), 1),
        "channels_last": tensor(shared, (2, 3, 4, 5), (60, 1, 15, 3)),
        "last": tensor(shared, (1,), (1,), 119),
    }
    got = read(craft(content, {"0": memory}, legacy))
    np.testing.assert_array_equal(got["all"], memory)
    np.testing.assert_array_equal(got["transposed"], memory[3:23].reshape(4, 5).T)
    np.testing.assert_array_equal(got["stepped"], [[1, 8], [21, 28], [41, 48]])
    np.testing.assert_array_equal(
        got["channels_last"], memory.reshape(2, 4, 5, 3).transpose(0, 3, 1, 2)
    )
    assert got["last"] == [119]
    assert np.shares_memory(got["all"], got["last"])
    assert not got["all"].flags.writeable


@LEGACY
def test_devices_are_ignored(legacy: bool) -> None:
    """A file saved from an accelerator is read like any other."""
    content = {"w": tensor(storage("0", "float32", 2, legacy=legacy, place="cuda:0"), (2,), (1,))}
    np.testing.assert_array_equal(
        read(craft(content, {"0": np.ones(2, "f4")}, legacy))["w"], [1, 1]
    )


@LEGACY
def test_what_surrounds_weights_is_read(legacy: bool) -> None:
    """Parameters, sizes, devices, dtypes, program options and layers' metadata are data."""
    view = tensor(storage("0", "float32", 2, legacy=legacy), (2,), (1,))
    ordered = Call(Global("collections", "OrderedDict"), ())
    options = Build(New(Global("argparse", "Namespace")), {"lr": 0.1})
    content = {
        "parameter": Call(Global("torch._utils", "_rebuild_parameter"), (view, True, ordered)),
        "old": tensor(storage("0", "float32", 2, legacy=legacy), (2,), (1,), 0, "_rebuild_tensor"),
        "size": Call(Global("torch", "Size"), ((2, 3),)),
        "device": Call(Global("torch", "device"), ("cuda", 1)),
        "cpu": Call(Global("torch", "device"), ("cpu",)),
        "dtype": Global("torch", "bfloat16"),
        "options": options,
        "state": Build(ordered, {"_metadata": {"version": 1}}),
    }
    got = read(craft(content, {"0": np.array([1, 2], "f4")}, legacy))
    np.testing.assert_array_equal(got["parameter"], [1, 2])
    np.testing.assert_array_equal(got["old"], [1, 2])
    assert (got["size"], got["device"], got["cpu"]) == ((2, 3), "cuda:1", "cpu")
    assert got["dtype"].value == ml_dtypes.bfloat16
    assert (got["options"].name, got["options"].state) == ("argparse.Namespace", {"lr": 0.1})
    assert got["state"] == {}


def test_container_is_told_by_its_bytes_not_its_name(tmp_path: pathlib.Path) -> None:
    """A zip archive named .tar, and a stream named .zip, are read for what they are."""
    for name, legacy in (("weights.tar", False), ("weights.zip", True)):
        path = tmp_path / name
        path.write_bytes(state_dict_file({"w": np.ones(3, "f4")}, legacy=legacy))
        np.testing.assert_array_equal(read_torch(path)["w"], [1, 1, 1])


def test_root_of_the_archive_may_have_any_name() -> None:
    """PyTorch names the root after the file."""
    content = tensor(storage("0", "int8", 1), (1,), (1,))
    data = zip_archive({"odd name (1)/data.pkl": pickled(content), "odd name (1)/data/0": b"\x05"})
    assert read(data) == [5]


def _tar(names: tuple[str, ...]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return stream.getvalue()


OTHER_FORMATS = {
    "nothing": (b"", "an empty file"),
    "text": (b"hello", "a text .hello., no weights"),
    "web page": (b"<!DOCTYPE html><html>", "a web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    "gzip": (b"\x1f\x8b\x08\0", "a gzip archive, which must be unpacked"),
    "pickle": (pickled([1]), "got pickle"),
    "safetensors": (b"\x02\0\0\0\0\0\0\0{}", "got safetensors"),
    "old tar": (
        _tar(("sys_info", "pickle", "tensors", "storages")),
        r"PyTorch tar archive \(before version 0\.2\)",
    ),
    "other tar": (_tar(("a", "b")), "a tar archive, which must be unpacked"),
    "other zip": (zip_archive({"a.txt": b"a"}), "0 members data.pkl among 1"),
    "two roots": (
        zip_archive({"a/data.pkl": b"N.", "b/data.pkl": b"N."}),
        "2 members data.pkl among 2",
    ),
    "TorchScript": (
        zip_archive({"a/data.pkl": b"N.", "a/constants.pkl": b"N."}),
        "got a TorchScript program",
    ),
    "big-endian zip": (
        torch_zip([], {}, {"archive/byteorder": b"big"}),
        "little-endian weights; got byte order b'big'",
    ),
    "big-endian stream": (
        torch_stream([], {}, properties=PROPERTIES | {"little_endian": False}),
        "little-endian weights; got another byte order",
    ),
    "stream without properties": (torch_stream([], {}, properties=[]), "little-endian weights"),
    "stream of another version": (torch_stream([], {}, version=2000), "of version 1001"),
}


@pytest.mark.parametrize("case", OTHER_FORMATS)
def test_other_format_is_named(case: str) -> None:
    """The message says what the file is instead, and what to do."""
    data, message = OTHER_FORMATS[case]
    with pytest.raises(InputError, match=rf"^file: expected .*{message}.*; \S+"):
        read(data)


def test_missing_file_and_folder_are_told(tmp_path: pathlib.Path) -> None:
    """The InputError repeats the wrong path."""
    with pytest.raises(InputError, match="absent: expected a file; got nothing; check the path"):
        read_torch(tmp_path / "absent")
    with pytest.raises(InputError, match="expected a file; got a folder"):
        read_torch(tmp_path)


def test_size_of_a_file_is_bounded(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file beyond the limit is not even opened."""
    path = tmp_path / "large.pt"
    path.write_bytes(state_dict_file({"w": np.ones(3, "f4")}))
    monkeypatch.setattr(torch_file, "MAX_FILE_BYTES", path.stat().st_size - 1)
    with pytest.raises(InputError, match=r"got \d+ bytes; allowed"):
        read_torch(path)


def test_reading_leaves_the_file_as_it_was(tmp_path: pathlib.Path) -> None:
    """Neither its bytes nor its time of change are touched."""
    path = tmp_path / "w.pt"
    path.write_bytes(state_dict_file({"w": np.ones(3, "f4")}))
    before = (path.read_bytes(), os.stat(path).st_mtime_ns)
    read_torch(path)
    assert (path.read_bytes(), os.stat(path).st_mtime_ns) == before


def test_row_strides_of_the_crafting_are_numpys() -> None:
    """Control: the strides of the tests' own writer are those of a contiguous array."""
    array = np.zeros((2, 3, 5), "f4")
    assert row_strides(array.shape) == tuple(step // 4 for step in array.strides)
