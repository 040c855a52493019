"""Reads NumPy arrays of Python objects, such as a dict in `numpy.save`, as plain containers.

The file is an `.npy` header and a pickle of the array, whose elements are the objects.
"""

from typing import Any

import numpy as np

from navigan_jax.errors import InputError
from tools.convert_weights.readers.archive import Archive
from tools.convert_weights.readers.npz import read_npy
from tools.convert_weights.readers.numpy_names import NUMPY_NAMES, PYTHON_NAMES, PickledDtype
from tools.convert_weights.readers.stand_ins import allow, allow_record
from tools.convert_weights.readers.structure import Record
from tools.convert_weights.readers.unpickle import read_pickle

_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_ARRAY = f"{_MODULES[0]}._reconstruct"
_DTYPE, _NUMBERS = NUMPY_NAMES["numpy", "dtype"], NUMPY_NAMES[_MODULES[0], "_reconstruct"]


def read_any_npy(data: bytes, name: str) -> Any:
    """Returns the array in the bytes of an `.npy` file.

    An array of objects becomes a list, and an array of one object becomes the object, such as a
    dict.

    Raises: InputError if the bytes are damaged or hold other objects than plain data.
    """
    begin = 10 if data[6:7] == b"\x01" else 12
    end = begin + int.from_bytes(data[8:begin], "little")
    if b"'|O'" not in data[begin:end]:
        return read_npy(data, name)
    content, _ = read_pickle(data, _NAMES, name=name, start=end)
    try:
        objects = _plain(content)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name}: expected an array of plain objects; got {error}; the file is damaged: write "
            "it again"
        ) from error
    return objects[0] if isinstance(objects, list) and len(objects) == 1 else objects


def read_any_npz(archive: Archive, name: str) -> dict[str, Any]:
    """Returns the arrays of an `.npz` file by name, each as `read_any_npy` returns it.

    Raises: as `read_any_npy`.
    """
    return {
        member.removesuffix(".npy"): read_any_npy(archive.read(member), f"{name}: {member}")
        for member in archive.names
    }


def _dtype(code: str, *more: Any) -> PickledDtype:
    assert _DTYPE.call is not None
    return PickledDtype("O") if code in ("O", "O8") else _DTYPE.call(code, *more)


def _plain(value: Any) -> Any:
    """Replaces records by arrays of numbers and lists of objects, recursively."""
    if isinstance(value, Record) and value.name == _ARRAY:
        return _array(value.state)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _array(state: Any) -> Any:
    """Returns the array of a state (version, shape, dtype, order, objects or bytes)."""
    if not isinstance(state, tuple) or len(state) != 5:
        raise ValueError("an array without its shape, dtype, order and data")
    is_of_objects = isinstance(state[2], PickledDtype) and state[2].code == "O"
    if is_of_objects != isinstance(state[4], list):
        raise ValueError("an array of objects without a list of its objects")
    if is_of_objects:
        return [_plain(item) for item in state[4]]
    assert _NUMBERS.build is not None
    array = np.empty(0, np.uint8)
    _NUMBERS.build(array, state)
    return array


_NAMES = (
    PYTHON_NAMES
    | NUMPY_NAMES
    | allow(["numpy"], "dtype", _dtype, _DTYPE.build)
    | allow_record(_MODULES, "_reconstruct")
)
