"""Files that are whole or absent: atomic writing, arrays with metadata, state to resume from.

All are single safetensors files: arrays by name and a flat table of strings, no pickle.
"""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import re
import secrets
import socket
import stat
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from navigan_jax import faults
from navigan_jax.errors import InputError

_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up: free some space or choose another folder",
    errno.EACCES: "the folder may not be written to: choose another or change its permissions",
    errno.EPERM: "the folder may not be written to: choose another or change its permissions",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.ENOTDIR: "a part of the path is a file: choose another folder",
    errno.EEXIST: "a part of the path is a file: choose another folder",
    errno.EISDIR: "there is a folder or a device of that name: choose another name",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
}

# Prefix of files that are being written; host, process and a random word follow.
_UNFINISHED = ".unfinished-"
# Seconds without a change after which such a file counts as abandoned, on any host.
_ABANDONED = 3600.0

# What reading an .npz file raises if it is none, damaged, or lacks the array.
NO_NPZ = (
    OSError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    MemoryError,
    OverflowError,
    RuntimeError,  # encrypted, or an unknown compression
    zipfile.BadZipFile,
    zlib.error,
)


@contextlib.contextmanager
def _told_as_input_error(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "check the path and the disk")
        reason = error.strerror or str(error)
        raise InputError(f"{path}: could not be written ({reason}); {advice}") from error


def make_folder(path: str | os.PathLike[str]) -> pathlib.Path:
    """Creates the folder and its parents if they are missing, and returns its path.

    Raises: InputError if it cannot be made or written to.
    """
    folder = pathlib.Path(path)
    with _told_as_input_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    return folder


def is_same_file(path: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether two paths name one file, also through links. The file may not exist yet."""
    try:
        return os.path.samefile(path, other)
    except OSError:
        return os.path.realpath(path) == os.path.realpath(other)


@contextlib.contextmanager
def atomic_output(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`; on success that file takes the name `path`.

    The bytes are on the disk before the file is renamed, so a reader finds the old file or the new
    one, never a part. After an error the temporary file is removed.

    Raises: InputError naming the path, the reason and what to do if the system refuses to write.
    """
    target = pathlib.Path(path)
    owner = f"{socket.gethostname()}-{os.getpid()}"
    temporary = target.parent / f"{_UNFINISHED}{owner}-{secrets.token_hex(4)}{target.suffix}"
    with _told_as_input_error(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not target.is_file():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        try:
            with open(temporary, "xb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            yield temporary
            # safetensors replaces the file by one that only this user may read.
            os.chmod(temporary, mode)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Locks the folder for this process; the system unlocks it when the process ends.

    Unfinished files of killed writers in the folder and its subfolders are removed, those of
    another host after an hour.
    Raises: InputError if another process holds it.
    """
    with _told_as_input_error(pathlib.Path(folder)):
        handle = os.open(folder, os.O_RDONLY)  # the folder itself: no file is left behind
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise InputError(
            f"{folder}: expected a workdir that no other run uses; got one that is in use; wait "
            "for that run, or choose another --workdir"
        ) from error
    try:
        _remove_unfinished(pathlib.Path(folder))
        yield
    finally:
        os.close(handle)


def _remove_unfinished(folder: pathlib.Path) -> None:
    for pattern in (f"{_UNFINISHED}*", f"*/{_UNFINISHED}*"):
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):  # gone, or not ours
                if _is_abandoned(path):
                    path.unlink()


def _is_abandoned(path: pathlib.Path) -> bool:
    """Whether the writer of an unfinished file is gone, as far as this host can tell."""
    host, _, process = path.name.removeprefix(_UNFINISHED).rpartition("-")[0].rpartition("-")
    if host == socket.gethostname() and process.isdecimal():
        try:
            os.kill(int(process), 0)  # sends nothing: asks whether the process is there
        except ProcessLookupError:
            return True
        except OSError:  # a process of another user
            return False
    return time.time() - path.stat().st_mtime > _ABANDONED


def read_text(path: str | os.PathLike[str]) -> str:
    """Returns a text file that a run wrote.

    Raises: InputError if it cannot be read as UTF-8.
    """
    try:
        return pathlib.Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: expected a text file; got {faults.in_words(error)}; remove it, or choose "
            "another --workdir"
        ) from error


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes the text as UTF-8, atomically.

    Raises: as `atomic_output`.
    """
    with atomic_output(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_arrays(
    path: str | os.PathLike[str], arrays: Mapping[str, Any], metadata: Mapping[str, str]
) -> None:
    """Writes arrays and metadata as one safetensors file, atomically.

    Raises: as `atomic_output`.
    """
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    with atomic_output(path) as temporary:
        try:
            safetensors.numpy.save_file(contiguous, temporary, metadata=dict(metadata))
        except safetensors.SafetensorError as error:
            # safetensors wraps the system's error; only the text keeps its number.
            code = re.search(r"\(os error (\d+)\)", str(error))
            if code is None:
                raise
            raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
        _sort_metadata(temporary)


def _sort_metadata(path: pathlib.Path) -> None:
    """Sorts the metadata of a safetensors file, whose order differs with every write.

    The header keeps its length, so no array moves; the format allows blanks as padding.
    """
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) <= size:
            file.seek(8)
            file.write(text.ljust(size))


def read_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns the arrays and the metadata of a safetensors file.

    Raises: InputError if the file is missing, unreadable, truncated or of another format.
    """
    source = pathlib.Path(path)
    if not os.path.isfile(source):
        raise InputError(
            f"{source}: expected a file; got {faults.found_at(source)}; check the path"
        )
    try:
        with safetensors.safe_open(source, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"{source}: expected a whole safetensors file; got {_other_file(source, error)}; make "
            "it anew if it is "
            "damaged, or convert it if it has another format: "
            f"python -m tools.convert_weights KIND {source} --out FILE.safetensors"
        ) from error
    return arrays, metadata


def _other_file(path: pathlib.Path, error: Exception) -> str:
    """Returns a description of a file that could not be read as safetensors."""
    try:
        with open(path, "rb") as opened:
            start = opened.read(2)
    except OSError as refused:
        return faults.in_words(refused)
    if start == b"PK":
        return "a zip archive (a PyTorch file or a wheel)"
    if start[:1] == b"\x80":
        return "a pickle (of PyTorch or NVIDIA)"
    if isinstance(error, ValueError | AttributeError):
        return "arrays of a type or shape that NumPy lacks"
    reason = faults.in_words(error)
    if isinstance(error, safetensors.SafetensorError):
        return f"other bytes ({re.sub('^Error while [^:]*: ', '', reason)})"
    return reason


def require_format(path: str | os.PathLike[str], metadata: Mapping[str, str], kind: str) -> None:
    """Checks the metadata's `format` and `format_version` ("1").

    Raises: InputError if the file is of another kind or version.
    """
    expected, got = f"navigan_jax.{kind}", metadata.get("format", "no format")
    if got != expected:
        raise InputError(
            f"{path}: expected a file of format {expected}; got {got}; see what it is with: "
            f"python -m tools.convert_weights inspect {path}"
        )
    version = metadata.get("format_version")
    if version != "1":
        raise InputError(
            f"{path}: expected format version 1; got {version}; "
            "a newer navigan_jax wrote it: update, or make the file anew"
        )


def read_json(
    path: str | os.PathLike[str], metadata: Mapping[str, str], key: str, kind: type = dict
) -> Any:
    """Returns a JSON entry of the metadata, checked to be of the given kind.

    Raises: InputError if it is missing, no JSON or of another kind.
    """
    try:
        value = json.loads(metadata[key])
    except (KeyError, ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise InputError(
            f"{path}: expected JSON under {key!r} in the metadata, a {kind.__name__}; got "
            f"{str(metadata.get(key))[:200]!r}; the file is damaged: make it anew"
        )
    return value


def write_state(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Writes the state from which a run resumes, a nested mapping of arrays, atomically.

    Empty branches are lost.
    Raises: as `atomic_output`.
    """
    from navigan_jax import params  # imports JAX, which `main` puts off

    metadata = {"format": "navigan_jax.state", "format_version": "1"}
    write_arrays(path, params.flatten(state), metadata)


def read_state(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Returns what `write_state` wrote, as NumPy arrays, or None if there is nothing.

    Raises: InputError if the file is damaged or of another kind.
    """
    from navigan_jax import params

    if not os.path.lexists(path):
        return None
    try:
        arrays, metadata = read_arrays(path)
        require_format(path, metadata, "state")
    except InputError as error:
        raise InputError(f"{error}; or delete {path} to start anew") from error
    return params.unflatten(arrays)


def remove_state(path: str | os.PathLike[str]) -> None:
    """Removes the file of `write_state`, if it exists."""
    pathlib.Path(path).unlink(missing_ok=True)
