"""Hostile and damaged files of torch.save: one clear message, no code, no needless memory."""

import pathlib
import tracemalloc
from typing import Any

import numpy as np
import pytest

from navigan_jax.errors import InputError
from tests.tools.converting import named_arrays
from tests.tools.crafting import (
    MAGIC,
    PROPERTIES,
    Call,
    Global,
    Raw,
    pickled,
    state_dict_file,
    storage,
    tensor,
    torch_stream,
    torch_zip,
)
from tools.convert_weights.readers.torch_file import read_torch_bytes
from tools.convert_weights.readers.unpickle import ForbiddenName

LEGACY = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "stream"])


def read(data: bytes) -> Any:
    return read_torch_bytes(data, "file")


def craft(content: Any, storages: dict[str, np.ndarray], legacy: bool) -> bytes:
    return (torch_stream if legacy else torch_zip)(content, storages)


def _view(size: Any, stride: Any, offset: Any = 0, count: Any = 6) -> Any:
    return lambda legacy: tensor(
        storage("0", "float32", count, legacy=legacy), size, stride, offset
    )


def _reference(*fields: Any) -> Any:
    """Returns a tensor whose storage reference has these fields, and one more in a stream."""

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
    "repeated elements beyond": (_view((7, 2), (0, 6)), "inside a storage of 6"),
    "huge repetition": (_view((2**20, 2**19), (0, 0)), "268435456 bytes of repeated elements"),
    "much repetition": (
        lambda legacy: [_view((2**13, 2**12), (0, 0))(legacy)] * 3,
        "268435456 bytes of repeated elements",
    ),
    "negative size": (_view((-1,), (1,)), "wrong arguments for torch._utils._rebuild_tensor_v2"),
    "negative stride": (_view((2,), (-1,), 5), "strides: expected non-negative whole numbers"),
    "negative offset": (_view((1,), (1,), -1), "offset: expected non-negative whole numbers"),
    "overflowing sizes": (_view((2**40, 2**40), (1, 1)), "at most"),
    "overflowing stride": (_view((2,), (2**64,)), "inside a storage of 6"),
    "empty but huge": (_view((0, 2**62), (1, 1)), "at most"),
    "size that is a float": (_view((1.0,), (1,)), "expected non-negative whole numbers"),
    "size that is a bool": (_view((True,), (1,)), "expected non-negative whole numbers"),
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
    """No size, stride, offset or reference reaches outside of the storage."""
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
    """If two references to one storage differ in size, the wrong one is refused."""
    both = [
        tensor(storage("0", dtype, 6, legacy=legacy), (6,), (1,))
        for dtype in ("float32", "float64")
    ]
    with pytest.raises(InputError, match=r"storage 0 .*6 float64"):
        read(craft(both, {"0": np.zeros(6, "f4")}, legacy))


def _stream_of(*parts: bytes) -> bytes:
    content = tensor(storage("0", "float32", 2, legacy=True), (2,), (1,))
    return b"".join(map(pickled, (MAGIC, 1001, PROPERTIES, content))) + b"".join(parts)


ONES = np.ones(2, "f4").tobytes()
TWO = (2).to_bytes(8, "little")

BROKEN_STREAMS = {
    "no keys": (pickled(None), "no list of storage keys"),
    "keys that are numbers": (pickled([0]) + TWO + ONES, "no list of storage keys"),
    "missing key": (pickled([]), "a list of storages"),
    "key too many": (pickled(["0", "1"]) + (TWO + ONES) * 2, "a list of storages"),
    "key twice": (pickled(["0", "0"]) + (TWO + ONES) * 2, "a list of storages"),
    "no count": (pickled(["0"]), "bytes where storage 0 ends at"),
    "other count": (pickled(["0"]) + (3).to_bytes(8, "little") + ONES, "3 elements instead of 2"),
    "negative count": (pickled(["0"]) + b"\xff" * 8 + ONES, "-1 elements instead of 2"),
    "too short": (pickled(["0"]) + TWO + ONES[:-1], "bytes where storage 0 ends at"),
    "too long": (pickled(["0"]) + TWO + ONES + b"x", "1 bytes after the last storage"),
}


@pytest.mark.parametrize("case", BROKEN_STREAMS)
def test_broken_stream_is_refused(case: str) -> None:
    """After the object, exactly its storages must follow."""
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
    with pytest.raises(ForbiddenName, match=r"refers to 'os\.system'; nothing was executed"):
        read(craft(content, {}, legacy))
    assert not mark.exists()


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
