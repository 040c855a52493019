"""The arrays in an open .npz or .npy file from a stranger, listed before any of them is read.

The headers give shapes and dtypes. The unpacked size of the file and the size of each array are
checked before memory is allocated. Pickles are never read: the message names the command that
converts them.
"""

import contextlib
import dataclasses
import io
import math
import pathlib
import shlex
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import IO, Any, BinaryIO

import numpy as np

from navigan_jax.errors import InputError

# Version 3 is for structured dtypes with Unicode names, which latents do not have.
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclasses.dataclass(frozen=True)
class StoredArray:
    """An array in a file. name: None in an .npy file; claim: lowercase name of array or file."""

    name: str | None
    claim: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], np.ndarray]

    def __str__(self) -> str:
        called = "an array" if self.name is None else repr(self.name)
        return f"{called} {list(self.shape)}"


@contextlib.contextmanager
def opened(file: BinaryIO, name: str, most_bytes: int) -> Iterator[list[StoredArray]]:
    """Yields the arrays of a file, not yet read; `name` is the file's name in messages.

    most_bytes: limit of the file's size, also when it is unpacked.
    Raises: InputError for a file of another kind, or a larger file; the exceptions in
      `checkpoints.NO_NPZ` for a damaged file, also from `read`.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(16)
    file.seek(0)
    if not head:
        raise _no_latents(name, "an empty file")
    if head.startswith(b"\x93NUMPY"):
        _require_size(name, size, most_bytes)
        stem = pathlib.PurePath(name).stem
        yield [_stored(lambda: contextlib.nullcontext(file), size, None, stem)]
    elif head.startswith(b"PK"):
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if any(entry.filename.endswith("data.pkl") for entry in entries):
                raise pickled(name, "a PyTorch file, which is a pickle")
            entries = [entry for entry in entries if entry.filename.endswith(".npy")]
            if not entries:
                raise _no_latents(name, "a zip archive without arrays")
            _require_size(name, sum(entry.file_size for entry in entries), most_bytes)
            yield [_member(archive, entry) for entry in entries]
    elif head.startswith(b"\x80"):
        raise pickled(name, "a pickle, perhaps of PyTorch")
    else:
        raise _no_latents(name, f"a file that begins with {head!r}")


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> StoredArray:
    name = entry.filename.removesuffix(".npy")
    return _stored(lambda: archive.open(entry), entry.file_size, name, name)


def _stored(
    open_: Callable[[], AbstractContextManager[IO[bytes]]], size: int, name: str | None, claim: str
) -> StoredArray:
    """Returns an array after reading only its header."""
    with open_() as stream:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"an array of NumPy's format {version}")
        shape, _, dtype = _HEADERS[version](stream)
        begin = stream.tell()

    def read() -> np.ndarray:
        if math.prod(shape) * dtype.itemsize > size - begin:  # before memory is asked for
            raise ValueError(f"{size - begin} bytes for {dtype} {list(shape)}")
        with open_() as stream:
            stream.seek(0)
            return np.lib.format.read_array(stream, allow_pickle=False)

    return StoredArray(name, claim.lower(), shape, dtype, read)


def _require_size(name: str, size: int, most: int) -> None:
    if size > most:
        raise InputError(
            f"{name}: expected at most {most} bytes of latents; got {size}; give fewer latents"
        )


def _no_latents(name: str, got: str) -> InputError:
    return InputError(
        f"{name}: expected latents in an .npz or .npy file; got {got}; write one with "
        "numpy.savez(FILE, w=w), or z=z"
    )


def pickled(name: str, got: str) -> InputError:
    """Returns the error for a pickle, with the command that converts the file."""
    return InputError(
        f"{name}: expected latents in an .npz or .npy file; got {got}; only the converter reads "
        f"it: python -m tools.convert_weights latents {shlex.quote(name)} --out latents.npz"
    )
