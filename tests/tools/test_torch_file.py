"""Files of torch.save: every layout is read, every damaged or hostile one is one clear message."""

import io
import os
import pathlib
import tarfile
import tracemalloc
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
    Raw,
    pickled,
    row_strides,
    state_dict_file,
    storage,
    tensor,
    torch_stream,
    torch_zip,
    zip_archive,
)
from tools.convert_weights import torch_file
from tools.convert_weights.structure import named_arrays
from tools.convert_weights.torch_file import read_torch, read_torch_bytes
from tools.convert_weights.unpickle import ForbiddenName

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
    """Parameters, sizes, devices, dtypes, options of a program and metadata of layers are data."""
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
    "text": (b"hello", "bytes of no known format"),
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
    """A wrong path is an InputError that repeats it."""
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


def _view(size: Any, stride: Any, offset: Any = 0, count: Any = 6) -> Any:
    return lambda legacy: tensor(
        storage("0", "float32", count, legacy=legacy), size, stride, offset
    )


def _reference(*fields: Any) -> Any:
    """A tensor whose storage is referred to by these fields, one more in a stream."""

    def content(legacy: bool) -> Any:
        identity = (*fields, None) if legacy else fields
        return tensor(Raw(pickled(identity)[2:-1] + b"Q"), (1,), (1,))

    return content


FLOATS = Global("torch", "FloatStorage")

# Content over one storage "0" of six float32, and what the message says.
IMPOSSIBLE = {
    "too many elements": (
        _view((7,), (1,)),
        r"inside a storage of 6 elements, got offset 0, sizes \[7\]",
    ),
    "offset beyond": (_view((1,), (1,), 6), "inside a storage of 6"),
    "stride beyond": (_view((2, 2), (5, 1)), "inside a storage of 6"),
    "repeated elements": (_view((7,), (0,)), "inside a storage of 6"),
    "huge repetition": (_view((2**20, 2**19), (0, 0)), "inside a storage of 6"),
    "negative size": (_view((-1,), (1,)), "wrong arguments for torch._utils._rebuild_tensor_v2"),
    "negative stride": (_view((2,), (-1,), 5), "strides: expected whole numbers"),
    "negative offset": (_view((1,), (1,), -1), "offset: expected whole numbers"),
    "overflowing sizes": (_view((2**40, 2**40), (1, 1)), "at most"),
    "overflowing stride": (_view((2,), (2**64,)), "inside a storage of 6"),
    "empty but huge": (_view((0, 2**62), (1, 1)), "at most"),
    "size that is a float": (_view((1.0,), (1,)), "expected whole numbers"),
    "size that is a bool": (_view((True,), (1,)), "expected whole numbers"),
    "size that is a number": (_view(6, (1,)), "up to 32 whole numbers"),
    "many axes": (_view((1,) * 33, (1,) * 33), "up to 32 whole numbers"),
    "one stride too few": (_view((2, 3), (3,)), "one stride for each size"),
    "no storage": (lambda legacy: tensor([1.0], (1,), (1,)), "a storage, got list"),
    "parameter of nothing": (
        lambda legacy: Call(Global("torch._utils", "_rebuild_parameter"), (None, True, None)),
        "a tensor, got NoneType",
    ),
    "device of a list": (
        lambda legacy: Call(Global("torch", "device"), ([1],)),
        "the name of a device",
    ),
    "count that disagrees": (_view((5,), (1,), 0, 5), "storage 0"),
    "count beyond the file": (_view((5,), (1,), 0, 2**40), "storage 0"),
    "negative count": (_view((5,), (1,), 0, -5), "without a key or an element count"),
    "id that is a text": (_reference("storage"), "no storage of"),
    "id without a count": (_reference("storage", FLOATS, "0", "cpu"), "no storage of"),
    "id of another kind": (_reference("module", FLOATS, "0", "cpu", 6), "no storage of"),
    "class that is a text": (
        _reference("storage", "FloatStorage", "0", "cpu", 6),
        "without a storage class",
    ),
    "class that is no storage": (
        _reference("storage", Global("torch", "float32"), "0", "cpu", 6),
        "without a storage class",
    ),
    "key that is a number": (_reference("storage", FLOATS, 0, "cpu", 6), "without a key"),
    "key of no storage": (_reference("storage", FLOATS, "7", "cpu", 6), "7|list of storages"),
    "key that climbs": (
        _reference("storage", FLOATS, "../data.pkl", "cpu", 6),
        "no member|list of storages",
    ),
}


@LEGACY
@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_impossible_tensor_is_refused(case: str, legacy: bool) -> None:
    """No size, stride, offset or reference reaches outside of the storage that is there."""
    make, message = IMPOSSIBLE[case]
    with pytest.raises(InputError, match=message):
        read(craft(make(legacy), {"0": np.zeros(6, "f4")}, legacy))


def test_view_of_a_storage_in_a_stream_is_refused() -> None:
    """Files of 2016 have storages inside storages; they are refused, not misread."""
    identity = ("storage", FLOATS, "0", "cpu", 6, ("1", 0, 6))
    with pytest.raises(InputError, match="a storage that is a view of another one"):
        read(torch_stream(Raw(pickled(identity)[2:-1] + b"Q"), {"0": np.zeros(6, "f4")}))


@LEGACY
def test_one_storage_of_two_sizes_is_refused(legacy: bool) -> None:
    """Of two references to one storage, the one whose size is not the storage's is refused."""
    both = [
        tensor(storage("0", dtype, 6, legacy=legacy), (6,), (1,))
        for dtype in ("float32", "float64")
    ]
    with pytest.raises(InputError, match=r"storage 0 .*6 float64"):
        read(craft(both, {"0": np.zeros(6, "f4")}, legacy))


def _stream_of(*parts: bytes) -> bytes:
    content = tensor(storage("0", "float32", 2, legacy=True), (2,), (1,))
    return b"".join(
        map(pickled, (torch_file.signatures.TORCH_LEGACY_MAGIC, 1001, PROPERTIES, content))
    ) + b"".join(parts)


ONES = np.ones(2, "f4").tobytes()
TWO = (2).to_bytes(8, "little")

BROKEN_STREAMS = {
    "no keys": (pickled(None), "no list of storage keys"),
    "keys that are numbers": (pickled([0]) + TWO + ONES, "no list of storage keys"),
    "missing key": (pickled([]), "another list of storages"),
    "key too many": (pickled(["0", "1"]) + (TWO + ONES) * 2, "another list of storages"),
    "key twice": (pickled(["0", "0"]) + (TWO + ONES) * 2, "another list of storages"),
    "no count": (pickled(["0"]), "bytes where storage 0 ends at"),
    "other count": (pickled(["0"]) + (3).to_bytes(8, "little") + ONES, "3 elements instead of 2"),
    "negative count": (pickled(["0"]) + b"\xff" * 8 + ONES, "-1 elements instead of 2"),
    "too short": (pickled(["0"]) + TWO + ONES[:-1], "bytes where storage 0 ends at"),
    "too long": (pickled(["0"]) + TWO + ONES + b"x", "1 bytes after the last storage"),
}


@pytest.mark.parametrize("case", BROKEN_STREAMS)
def test_broken_stream_is_refused(case: str) -> None:
    """What follows the object must be exactly the storages that it refers to."""
    data, message = BROKEN_STREAMS[case]
    with pytest.raises(InputError, match=f"expected a whole PyTorch stream; got .*{message}"):
        read(_stream_of(data))


def test_control_of_the_broken_streams_is_read() -> None:
    """The same stream with the right end is read: the cases above fail for their own reason."""
    np.testing.assert_array_equal(read(_stream_of(pickled(["0"]), TWO, ONES)), [1, 1])


@LEGACY
def test_command_is_named_and_not_run(legacy: bool, tmp_path: pathlib.Path) -> None:
    """A file that would run a command when loaded names it, and nothing happens."""
    mark = tmp_path / "mark"
    content = {"w": Call(Global("os", "system"), (f"touch {mark}",))}
    with pytest.raises(ForbiddenName, match=r"asks for 'os\.system'; nothing was executed"):
        read(craft(content, {}, legacy))
    assert not mark.exists()


@LEGACY
@pytest.mark.parametrize(
    "name", ["torch.nn.modules.container.Sequential", "torch._utils._rebuild_sparse_tensor"]
)
def test_saved_module_is_refused_with_advice(name: str, legacy: bool) -> None:
    """A pickled network needs its code; the message says to save its state instead."""
    module, _, attribute = name.rpartition(".")
    with pytest.raises(ForbiddenName, match=f"asks for '{name}'.*save a plain state_dict"):
        read(craft(Global(module, attribute), {}, legacy))


def _sample(legacy: bool) -> bytes:
    arrays = {
        "g.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "g.bias": np.ones(3, np.float16),
        "steps": np.array(7, np.int64),
    }
    return state_dict_file(arrays, legacy=legacy)


@LEGACY
def test_every_truncation_is_an_input_error(legacy: bool) -> None:
    """A file cut at any byte is told as damaged; at each tenth of it in particular."""
    data = _sample(legacy)
    for end in range(len(data)):
        with pytest.raises(InputError, match=r"^file: expected "):
            read(data[:end])


@LEGACY
@pytest.mark.parametrize("seed", range(2))
def test_flipped_bytes_are_read_or_refused(legacy: bool, seed: int) -> None:
    """Damage gives a result or an InputError: no other exception, no hang, no large memory."""
    random, whole = np.random.RandomState(seed), _sample(legacy)
    refused = 0
    tracemalloc.start()
    for _ in range(1_000):
        data = bytearray(whole)
        for position in random.randint(len(data), size=random.randint(1, 5)):
            data[position] = random.randint(256)
        try:
            named_arrays(read(bytes(data)))
        except InputError:
            refused += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused > 200
    assert peak < 100 << 20


@LEGACY
def test_numbers_flipped_in_the_pickle_are_read_or_refused(legacy: bool) -> None:
    """Damage of the pickle alone, behind a right checksum, is no way around the checks."""
    random = np.random.RandomState(0)
    for _ in range(1_000):
        size, stride = (tuple(int(v) for v in random.randint(-1, 9, 2)) for _ in range(2))
        offset, count = int(random.randint(-1, 9)), int(random.randint(5, 8))
        try:
            got = read(
                craft(_view(size, stride, offset, count)(legacy), {"0": np.ones(6, "f4")}, legacy)
            )
        except InputError:
            continue
        assert count == 6
        assert np.all(got == 1)


def test_stream_cannot_claim_more_memory_than_it_has() -> None:
    """Two storages of half the file each are refused before their memory is taken."""
    size = 1 << 20
    content = [
        tensor(storage(str(key), "uint8", size, legacy=True), (1,), (1,)) for key in range(1_000)
    ]
    tracemalloc.start()
    with pytest.raises(InputError, match="more than the file has left"):
        read(torch_stream(content, {"0": np.zeros(size, np.uint8)}))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * size


def test_writing_position_of_the_reader_is_untouched(tmp_path: pathlib.Path) -> None:
    """Reading leaves the file as it was."""
    path = tmp_path / "w.pt"
    path.write_bytes(_sample(False))
    before = (path.read_bytes(), os.stat(path).st_mtime_ns)
    read_torch(path)
    assert (path.read_bytes(), os.stat(path).st_mtime_ns) == before


def test_row_strides_of_the_crafting_are_numpys() -> None:
    """Control of the tests' own writer: its strides are those of a contiguous array."""
    array = np.zeros((2, 3, 5), "f4")
    assert row_strides(array.shape) == tuple(step // 4 for step in array.strides)
