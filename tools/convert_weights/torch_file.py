"""Reads what `torch.save` writes, without PyTorch: the zip archive and the older stream.

1. Zip archive (since PyTorch 1.6): `<root>/data.pkl`, a pickle whose tensors refer to the members
   `<root>/data/<key>`, raw storages; `<root>/byteorder` in newer files.
2. Stream (before): pickles of a magic number, of the protocol version, of the writer's properties,
   of the object and of the list of storage keys; then for each key an int64 count and raw elements.
   Storages come after the pickle that refers to them, so their memory is made first, filled last.

Tensors become read-only NumPy arrays, views of their storages with offset and strides as stored, so
tensors that share a storage still share memory. Devices are ignored. bfloat16 is that of ml_dtypes.
"""

import os
import pathlib
from typing import Any

import numpy as np

from navigan_jax.errors import InputError
from tools.convert_weights import signatures
from tools.convert_weights.archive import Archive
from tools.convert_weights.torch_names import TORCH_NAMES, Storage, storage_request
from tools.convert_weights.unpickle import MAX_OPCODES, read_pickle

# The whole file is held in memory.
MAX_FILE_BYTES = 4 << 30
_STREAM_PROTOCOL = 1001
# The pickles around the object of a stream: a number, a small dict.
_HEADER_OPCODES = 100


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Returns the bytes of a file.

    Raises: InputError if there is none, it cannot be read or is larger than MAX_FILE_BYTES.
    """
    source = pathlib.Path(path)
    if not source.is_file():
        found = "a folder" if source.is_dir() else "nothing"
        raise InputError(f"{source}: expected a file; got {found}; check the path")
    try:
        size = source.stat().st_size
        if size > MAX_FILE_BYTES:
            raise InputError(
                f"{source}: expected a weight file; got {size} bytes; allowed: {MAX_FILE_BYTES}; "
                "save the generator's state alone"
            )
        return source.read_bytes()
    except OSError as error:
        raise InputError(
            f"{source}: expected a readable file; got {error.strerror}; check its permissions"
        ) from error


def read_torch(path: str | os.PathLike[str]) -> Any:
    """Returns the object in a file of `torch.save`: nested plain containers with NumPy arrays.

    Raises: InputError if the file is missing, damaged, hostile or of another format.
    """
    return read_torch_bytes(read_bytes(path), str(path))


def read_torch_bytes(data: bytes, name: str) -> Any:
    """Returns the object in the bytes of such a file; `name` is what messages call it.

    Raises: as `read_torch`.
    """
    kind = signatures.kind_of(data)
    if kind == signatures.ZIP:
        return _read_zip(Archive(data, name), name)
    if kind == signatures.TORCH_LEGACY:
        return read_stream(data, name)
    advice = "see what it is with: python -m tools.convert_weights inspect FILE"
    if kind == signatures.TORCH_TAR:
        advice = "load it with PyTorch 1.x and save it again"
    raise InputError(
        f"{name}: expected a PyTorch file; got {kind}; "
        f"allowed: zip archives and streams written by torch.save; {advice}"
    )


def _read_zip(archive: Archive, name: str) -> Any:
    roots = [path.removesuffix("data.pkl") for path in archive.names if path.endswith("/data.pkl")]
    if len(roots) != 1:
        what = f"{len(roots)} members data.pkl among {len(archive.names)}"
        raise InputError(
            f"{name}: expected a zip archive of torch.save with one data.pkl; got {what}; "
            "give the weight file itself"
        )
    (root,) = roots
    if f"{root}constants.pkl" in archive.names:
        raise InputError(
            f"{name}: expected weights; got a TorchScript program; "
            "load it with torch.jit.load and save its state_dict()"
        )
    _require_little_endian(archive, root, name)
    raw: dict[str, bytes] = {}

    def storage(identity: Any) -> Storage:
        key, dtype, count = storage_request(identity, fields=5)
        if key not in raw:
            raw[key] = archive.read(f"{root}data/{key}")
        if count * dtype.itemsize != len(raw[key]):
            raise ValueError(f"storage {key} of {count} {dtype}, but {len(raw[key])} bytes of it")
        return Storage(np.frombuffer(raw[key], dtype))

    content, _ = read_pickle(
        archive.read(f"{root}data.pkl"), TORCH_NAMES, name=name, persistent=storage
    )
    return content


def _require_little_endian(archive: Archive, root: str, name: str) -> None:
    member = f"{root}byteorder"
    order = archive.read(member) if member in archive.names else b"little"
    if order != b"little":
        raise InputError(
            f"{name}: expected little-endian weights; got byte order {order[:20]!r}; "
            "save the file again on a little-endian machine"
        )


def read_stream(data: bytes, name: str, *, max_opcodes: int = MAX_OPCODES) -> Any:
    """Returns the object in an old PyTorch stream.

    Raises: as `read_torch`.
    """
    position, header = 0, []
    for _ in range(3):
        part, position = read_pickle(
            data, {}, name=name, start=position, max_opcodes=_HEADER_OPCODES
        )
        header.append(part)
    magic, version, properties = header
    if (magic, version) != (signatures.TORCH_LEGACY_MAGIC, _STREAM_PROTOCOL):
        raise InputError(
            f"{name}: expected a PyTorch stream of version {_STREAM_PROTOCOL}; got another one; "
            "load it and save it again with a newer PyTorch"
        )
    if not isinstance(properties, dict) or properties.get("little_endian") is not True:
        raise InputError(
            f"{name}: expected little-endian weights; got another byte order; "
            "save the file again on a little-endian machine"
        )
    storages: dict[str, Storage] = {}
    spare = len(data) - position

    def storage(identity: Any) -> Storage:
        nonlocal spare
        key, dtype, count = storage_request(identity, fields=6)
        if key not in storages:
            spare -= count * dtype.itemsize
            if spare < 0:
                raise ValueError(f"storage {key} of {count} {dtype}, more than the file has left")
            storages[key] = Storage(np.empty(count, dtype))
        array = storages[key].array
        if (array.dtype, array.size) != (dtype, count):
            raise ValueError(
                f"storage {key} both as {array.size} {array.dtype} and {count} {dtype}"
            )
        return storages[key]

    content, position = read_pickle(
        data,
        TORCH_NAMES,
        name=name,
        start=position,
        persistent=storage,
        max_opcodes=max_opcodes,
    )
    keys, position = read_pickle(data, {}, name=name, start=position, max_opcodes=max_opcodes)
    if not isinstance(keys, list) or any(type(key) is not str for key in keys):
        raise _truncated(name, "no list of storage keys after the object")
    if sorted(keys) != sorted(storages):
        raise _truncated(name, "another list of storages than the tensors refer to")
    for key in keys:
        position = _fill(storages[key].array, key, data, position, name)
    if position != len(data):
        raise _truncated(name, f"{len(data) - position} bytes after the last storage")
    return content


def _fill(array: np.ndarray, key: str, data: bytes, position: int, name: str) -> int:
    """Copies a storage from its place in the stream; returns the position after it."""
    begin, end = position + 8, position + 8 + array.nbytes
    if end > len(data):
        raise _truncated(name, f"{len(data)} bytes where storage {key} ends at {end}")
    count = int.from_bytes(data[position:begin], "little", signed=True)
    if count != array.size:
        raise _truncated(name, f"storage {key} with {count} elements instead of {array.size}")
    array[:] = np.frombuffer(data, array.dtype, array.size, begin)
    return end


def _truncated(name: str, got: str) -> InputError:
    return InputError(
        f"{name}: expected a whole PyTorch stream; got {got}; "
        "the file is truncated or damaged: download or write it again"
    )
