"""NumPy's arrays of Python objects: what `numpy.save` makes of a dict, read as plain containers.

The file is an `.npy` header and a pickle of the array, whose elements are the objects.
"""

from typing import Any

import numpy as np

from tools.convert_weights.readers.archive import Archive
from tools.convert_weights.readers.npz import read_npy
from tools.convert_weights.readers.numpy_names import NUMPY_NAMES, PYTHON_NAMES, PickledDtype
from tools.convert_weights.readers.stand_ins import allow
from tools.convert_weights.readers.structure import Record
from tools.convert_weights.readers.unpickle import read_pickle

_ARRAY = "numpy.ndarray"
_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_DTYPE, _NUMBERS = NUMPY_NAMES["numpy", "dtype"], NUMPY_NAMES[_MODULES[0], "_reconstruct"]


def read_any_npy(data: bytes, name: str) -> Any:
    """Returns the array in the bytes of an `.npy` file; one of objects becomes their list, or the
    object itself if it is one alone, as of a dict.

    Raises: InputError if the bytes are damaged, or hold more than plain data.
    """
    begin = 10 if data[6:7] == b"\x01" else 12
    end = begin + int.from_bytes(data[8:begin], "little")
    if b"'|O'" not in data[begin:end]:
        return read_npy(data, name)
    content, _ = read_pickle(data, _NAMES, name=name, start=end)
    objects = _plain(content)
    return objects[0] if isinstance(objects, list) and len(objects) == 1 else objects


def read_any_npz(archive: Archive, name: str) -> dict[str, Any]:
    """Returns what `read_any_npy` makes of each array of an `.npz` file, by its name.

    Raises: as `read_any_npy`.
    """
    return {
        member.removesuffix(".npy"): read_any_npy(archive.read(member), f"{name}: {member}")
        for member in archive.names
    }


def _dtype(code: str, *more: Any) -> PickledDtype:
    assert _DTYPE.call is not None
    return PickledDtype("O") if code in ("O", "O8") else _DTYPE.call(code, *more)


def _empty_array(*arguments: Any) -> Record:
    """An array to be filled by its state, of numbers or of objects, which only the state tells."""
    return Record(_ARRAY)


def _set_state(record: Record, state: Any) -> None:
    if not isinstance(state, tuple) or len(state) != 5:
        raise ValueError("expected version, shape, dtype, order and data")
    is_objects = isinstance(state[2], PickledDtype) and state[2].code == "O"
    if is_objects != isinstance(state[4], list):
        raise ValueError("expected a list of objects, or bytes of numbers")
    if is_objects:
        record.state = state[4]
        return
    assert _NUMBERS.build is not None
    record.state = np.empty(0, np.uint8)
    _NUMBERS.build(record.state, state)


def _plain(value: Any) -> Any:
    """Returns the value with arrays and lists in the place of records."""
    if isinstance(value, Record):
        return _plain(value.state)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


_NAMES = (
    PYTHON_NAMES
    | NUMPY_NAMES
    | allow(["numpy"], "dtype", _dtype, _DTYPE.build)
    | allow(_MODULES, "_reconstruct", _empty_array, _set_state)
)
