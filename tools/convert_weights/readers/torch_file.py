"""Reads files of `torch.save` without PyTorch: the zip archive and the older stream.

1. Zip archive (since PyTorch 1.6): `<root>/data.pkl`, a pickle whose tensors refer to the members
   `<root>/data/<key>`, raw storages; `<root>/byteorder` in newer files.
2. Stream (before): pickles of a magic number, of the protocol version, of the writer's properties,
   of the object and of the list of storage keys; then for each key an int64 count and raw elements.
   The storages follow the pickle that refers to them, so the pickle is read twice: first with empty
   memory, to learn the lengths of the storages, then with the file's own memory.

Tensors become read-only NumPy arrays, views of their storages with offset and strides as stored, so
tensors that share a storage still share memory. Devices are ignored. bfloat16 is ml_dtypes' type.
"""

import os
import pathlib
from typing import Any

import numpy as np

from navigan_jax import faults
from navigan_jax.errors import InputError
from tools.convert_weights.readers import signatures
from tools.convert_weights.readers.archive import Archive
from tools.convert_weights.readers.places import Places
from tools.convert_weights.readers.torch_names import TORCH_NAMES, Storage, storage_request
from tools.convert_weights.readers.unpickle import MAX_OPCODES, read_pickle

# The whole file is held in memory.
MAX_FILE_BYTES = 4 << 30
_STREAM_PROTOCOL = 1001
# Enough for the pickles before the object of a stream: two numbers and a small dict.
_HEADER_OPCODES = 100


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Returns the bytes of a file.

    Raises: InputError if the file is missing, unreadable or larger than MAX_FILE_BYTES.
    """
    source = pathlib.Path(path)
    if not source.is_file():
        raise InputError(
            f"{source}: expected a file; got {faults.found_at(source)}; check the path"
        )
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
            f"{source}: expected a readable file; got {faults.in_words(error)}; check its "
            "permissions"
        ) from error


def read_torch(path: str | os.PathLike[str]) -> Any:
    """Returns the object in a file of `torch.save`: nested plain containers with NumPy arrays.

    Raises: InputError if the file is missing, damaged, hostile or of another format.
    """
    return read_torch_bytes(read_bytes(path), str(path))


def read_torch_bytes(data: bytes, name: str, *, places: Places | None = None) -> Any:
    """Returns the object in the bytes of a file of `torch.save`.

    name: the file's name in messages. places: of `data`; receives the places of all storages that
    are not compressed.

    Raises: as `read_torch`.
    """
    kind = signatures.kind_of(data)
    if kind == signatures.ZIP:
        return _read_zip(Archive(data, name), name, places)
    if kind == signatures.TORCH_LEGACY:
        return read_stream(data, name)
    advice = "see what the file is with: python -m tools.convert_weights inspect FILE"
    if kind == signatures.TORCH_TAR:
        advice = "load it with PyTorch 1.x and save it again"
    raise InputError(
        f"{name}: expected a PyTorch file; got {kind}; "
        f"allowed: zip archives and streams written by torch.save; {advice}"
    )


def _read_zip(archive: Archive, name: str, places: Places | None) -> Any:
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
            raw[key] = archive.read(member := f"{root}data/{key}")
            stored = archive.stored(member)
            if places is not None and stored is not None:
                places.note(raw[key], stored.start)
        if count * dtype.itemsize != len(raw[key]):
            raise ValueError(f"storage {key} of {count} {dtype}, but {len(raw[key])} bytes of it")
        return Storage(np.frombuffer(raw[key], dtype))

    content, _ = read_pickle(
        archive.read(f"{root}data.pkl"),
        TORCH_NAMES,
        name=name,
        persistent=storage,
        beside=archive.size,
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
            f"{name}: expected a PyTorch stream of version {_STREAM_PROTOCOL}; got "
            "another version; load it and save it again with a newer PyTorch"
        )
    if not isinstance(properties, dict) or properties.get("little_endian") is not True:
        raise InputError(
            f"{name}: expected little-endian weights; got another byte order; "
            "save the file again on a little-endian machine"
        )
    lengths, end = _measure(data, position, name, max_opcodes)
    keys, end = read_pickle(data, {}, name=name, start=end, max_opcodes=max_opcodes)
    if not isinstance(keys, list) or any(type(key) is not str for key in keys):
        raise _truncated(name, "no list of storage keys after the object")
    if sorted(keys) != sorted(lengths):
        raise _truncated(name, "a list of storages that does not match the tensors")
    storages = {}
    for key in keys:
        storages[key] = _storage_at(data, end, key, lengths[key], name)
        end += 8 + storages[key].array.nbytes
    if end != len(data):
        raise _truncated(name, f"{len(data) - end} bytes after the last storage")
    content, _ = read_pickle(
        data,
        TORCH_NAMES,
        name=name,
        start=position,
        persistent=lambda identity: storages[storage_request(identity, fields=6)[0]],
        max_opcodes=max_opcodes,
    )
    return content


def _measure(
    data: bytes, start: int, name: str, max_opcodes: int
) -> tuple[dict[str, tuple[np.dtype[Any], int]], int]:
    """Returns the pickle's storages, key to dtype and element count, and the pickle's end.

    The memory for the storages is allocated but never touched, and never exceeds the rest of the
    file.
    """
    lengths: dict[str, tuple[np.dtype[Any], int]] = {}
    spare = len(data) - start

    def storage(identity: Any) -> Storage:
        nonlocal spare
        key, dtype, count = storage_request(identity, fields=6)
        if key not in lengths:
            spare -= count * dtype.itemsize
            if spare < 0:
                raise ValueError(f"storage {key} of {count} {dtype}, more than the file has left")
            lengths[key] = (dtype, count)
        if lengths[key] != (dtype, count):
            known, size = lengths[key]
            raise ValueError(f"storage {key} both as {size} {known} and {count} {dtype}")
        return Storage(np.empty(count, dtype))

    _, end = read_pickle(
        data, TORCH_NAMES, name=name, start=start, persistent=storage, max_opcodes=max_opcodes
    )
    return lengths, end


def _storage_at(
    data: bytes, position: int, key: str, length: tuple[np.dtype[Any], int], name: str
) -> Storage:
    """Returns the storage whose count and elements begin at `position`."""
    dtype, expected = length
    begin = position + 8
    end = begin + expected * dtype.itemsize
    if end > len(data):
        raise _truncated(name, f"{len(data)} bytes where storage {key} ends at {end}")
    count = int.from_bytes(data[position:begin], "little", signed=True)
    if count != expected:
        raise _truncated(name, f"storage {key} with {count} elements instead of {expected}")
    if not expected:
        return Storage(np.empty(0, dtype))
    return Storage(np.frombuffer(data, dtype, expected, begin))


def _truncated(name: str, got: str) -> InputError:
    return InputError(
        f"{name}: expected a whole PyTorch stream; got {got}; "
        "the file is truncated or damaged: download or write it again"
    )
