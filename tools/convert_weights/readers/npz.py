"""Reads NumPy's `.npy` and `.npz` files without evaluating headers; refuses object arrays."""

import math
import re

import numpy as np

from navigan_jax.errors import InputError
from tools.convert_weights.readers.archive import Archive

# Magic, version, length of the header (two bytes in version 1, four from then on), header.
_MAGIC = b"\x93NUMPY"
_HEADER = re.compile(
    rb"\{'descr': '([<>|=][a-zA-Z]\d{0,6})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,18}, ?)*\d{0,18})\), \} *\n"
)


def is_npz(archive: Archive) -> bool:
    """Whether all members of the archive are arrays."""
    return bool(archive.names) and all(member.endswith(".npy") for member in archive.names)


def read_npz(archive: Archive, name: str) -> dict[str, np.ndarray]:
    """Returns the arrays of an `.npz` file; `name` is its name in messages.

    Raises: InputError if a member is damaged or holds objects.
    """
    return {
        member.removesuffix(".npy"): read_npy(archive.read(member), f"{name}: {member}")
        for member in archive.names
    }


def read_npy(data: bytes, name: str) -> np.ndarray:
    """Returns the array in the bytes of an `.npy` file; `name` is its name in messages.

    Raises: InputError if the bytes are damaged or the array holds objects.
    """
    begin = 10 if data[6:7] == b"\x01" else 12
    end = begin + int.from_bytes(data[8:begin], "little")
    header = _HEADER.fullmatch(data[begin:end])
    if data.startswith(_MAGIC) and len(data) < end:
        raise _damaged(name, f"{len(data)} bytes, too few for its header")
    if not data.startswith(_MAGIC) or header is None or header[1].endswith(b"O"):
        raise _damaged(name, "an invalid header, or an array of objects or structures")
    try:
        dtype = np.dtype(header[1].decode())
    except TypeError as error:
        raise _damaged(name, f"the type {header[1].decode()}") from error
    shape = tuple(map(int, re.findall(rb"\d+", header[3])))
    if math.prod(shape) * dtype.itemsize != len(data) - end:
        raise _damaged(name, f"{len(data) - end} bytes for {dtype} {list(shape)}")
    flat = np.frombuffer(data, dtype, offset=end) if len(data) > end else np.empty(0, dtype)
    try:
        return flat.reshape(shape, order="F" if header[2] == b"True" else "C")
    except ValueError as error:
        raise _damaged(name, f"the shape {list(shape)}") from error


def _damaged(name: str, got: str) -> InputError:
    return InputError(
        f"{name}: expected a NumPy array of numbers; got {got}; "
        "the file is truncated, damaged or no weight file: get it again"
    )
