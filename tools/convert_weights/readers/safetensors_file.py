"""Reads foreign safetensors files as views of the file's bytes, so that each array has a place."""

import json
import math
from typing import Any

import ml_dtypes
import numpy as np

from navigan_jax.errors import InputError
from tools.convert_weights.readers.numpy_names import array_shape, whole_numbers

_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "C64": np.dtype("<c8"),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "BOOL": np.dtype(np.bool_),
}
_MAX_HEADER = 100_000_000  # as the format's own library allows


def read_safetensors(data: bytes, name: str) -> dict[str, np.ndarray]:
    """Returns the arrays of a file by name; `name` is the file's name in messages.

    Raises: InputError if the file is damaged or an array is of an unknown type.
    """
    header, start = _header(data, name)
    entries = ((key, entry) for key, entry in header.items() if key != "__metadata__")
    arrays = {key: _array(data, start, entry, f"{name}: {key}") for key, entry in entries}
    if sum(array.nbytes for array in arrays.values()) > len(data) - start:
        raise _damaged(name, "arrays that overlap")
    return arrays


def read_metadata(data: bytes, name: str) -> dict[str, str]:
    """Returns the metadata of the file, texts by key.

    Raises: InputError if the file is damaged.
    """
    found = _header(data, name)[0].get("__metadata__", {})
    if not isinstance(found, dict) or any(not isinstance(text, str) for text in found.values()):
        raise _damaged(name, "metadata that are not all texts")
    return found


def _header(data: bytes, name: str) -> tuple[dict[str, Any], int]:
    """Returns the JSON header, and the position of the first array."""
    start = 8 + int.from_bytes(data[:8], "little")
    if not 8 < start <= min(len(data), _MAX_HEADER):
        raise _damaged(name, f"a header of {start - 8} bytes in a file of {len(data)}")
    try:
        header = json.loads(data[8:start])
    except (ValueError, RecursionError) as error:
        raise _damaged(name, "a header that is no JSON") from error
    if not isinstance(header, dict):
        raise _damaged(name, "a header that is no JSON object")
    return header, start


def _array(data: bytes, start: int, entry: Any, name: str) -> np.ndarray:
    if not isinstance(entry, dict):
        raise _damaged(name, "a header entry that describes no array")
    span, dtype = entry.get("data_offsets"), entry.get("dtype")
    try:
        shape = array_shape(entry.get("shape"))
        begin, end = whole_numbers(span, "offsets")
    except ValueError as error:
        raise _damaged(name, str(error)) from error
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise InputError(
            f"{name}: expected an array of numbers; got the type {dtype!r}; allowed: "
            f"{', '.join(_DTYPES)}; save it in one of these"
        )
    kind, size = _DTYPES[dtype], math.prod(shape)
    if end - begin != size * kind.itemsize or start + end > len(data):
        raise _damaged(name, f"the bytes {begin} to {end} for {dtype} {list(shape)}")
    if not size:
        return np.empty(shape, kind)
    return np.frombuffer(data, kind, size, start + begin).reshape(shape)


def _damaged(name: str, got: str) -> InputError:
    return InputError(
        f"{name}: expected a whole safetensors file; got {got}; "
        "the file is truncated or damaged: download or write it again"
    )
