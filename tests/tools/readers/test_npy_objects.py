"""Arrays of Python objects: plain containers come back, everything else is refused."""

import io
from typing import Any

import numpy as np
import pytest

from navigan_jax.errors import InputError
from tests.tools.crafting import Build, Call, Global, numpy_array, pickled
from tools.convert_weights.readers.npy_objects import read_any_npy


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def of_objects(pickle: bytes) -> bytes:
    """Returns an .npy file with a header for one object, and the pickle."""
    buffer = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + pickle


def test_objects_come_back_as_they_were_saved() -> None:
    numbers = np.arange(6, dtype=np.int16).reshape(2, 3)
    saved = {"a": [numbers, np.asfortranarray(numbers)], "b": (1, "text", None), "c": {"d": 0.5}}
    found = read_any_npy(npy(np.array(saved, object)), "file")
    for array in found["a"]:
        np.testing.assert_array_equal(array, numbers)
        assert array.dtype == np.int16
    assert found["b"] == [1, "text", None] and found["c"] == {"d": 0.5}
    two = np.empty(2, object)
    two[:] = [{"a": 1}, {"a": 2}]
    assert read_any_npy(npy(two), "file") == [{"a": 1}, {"a": 2}]
    np.testing.assert_array_equal(read_any_npy(npy(numbers), "file"), numbers)


def state_of(*state: Any) -> bytes:
    empty = Call(
        Global("numpy.core.multiarray", "_reconstruct"), (Global("numpy", "ndarray"), (0,), b"b")
    )
    return of_objects(pickled(Build(empty, state)))


OBJECT = Build(Call(Global("numpy", "dtype"), ("O8",)), (3, "|", None, None, None, -1, -1, 63))
BYTES = Build(Call(Global("numpy", "dtype"), ("i1",)), (3, "|", None, None, None, -1, -1, 0))


@pytest.mark.parametrize(
    ("data", "got"),
    [
        (of_objects(pickled(Call(Global("os", "system"), ("true",)))), r"os\.system"),
        (of_objects(pickled(numpy_array(np.ones(3)))[:-9]), "pickle"),
        (state_of(1, (), OBJECT, False), "without its shape"),
        (state_of(1, (), OBJECT, False, b"abc"), "without a list"),
        (state_of(1, (3,), BYTES, False, [1, 2, 3]), "without a list"),
        (state_of(1, (4,), BYTES, False, b"abc"), "expected the bytes of int8"),
        (state_of(1, (3,), "i1", False, b"abc"), "expected a dtype"),
    ],
)
def test_what_is_no_plain_object_is_told(data: bytes, got: str) -> None:
    with pytest.raises(InputError, match=rf"^file: .*{got}"):
        read_any_npy(data, "file")
