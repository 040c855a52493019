"""Files that are whole or absent: atomic writing, arrays with metadata, state to resume from.

Results are single safetensors files: arrays by name and a flat table of strings, no pickle. What
a long run resumes from is written by Orbax.
"""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from navigan_jax.errors import InputError

_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up: free some space or choose another folder",
    errno.EACCES: "the folder may not be written to: choose another or change its permissions",
    errno.EPERM: "the folder may not be written to: choose another or change its permissions",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.ENOTDIR: "a part of the path is a file: choose another folder",
    errno.EEXIST: "a part of the path is a file: choose another folder",
    errno.EISDIR: "there is a folder of that name: choose another name",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
}


@contextlib.contextmanager
def _told_as_input_error(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "check the path and the disk")
        reason = error.strerror or str(error)
        raise InputError(f"{path}: could not be written ({reason}); {advice}") from error


def make_folder(path: str | os.PathLike[str]) -> pathlib.Path:
    """Makes the folder and its parents if need be; returns it.

    Raises: InputError if it cannot be made or written to.
    """
    folder = pathlib.Path(path)
    with _told_as_input_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    return folder


@contextlib.contextmanager
def atomic_output(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`; on success that file takes the name `path`.

    The bytes are on the disk before the name changes, so a reader finds the old file or the new
    one, never a half. On any error the temporary file is removed.

    Raises: InputError naming the path, the reason and what to do if the system refuses to write.
    """
    target = pathlib.Path(path)
    temporary: pathlib.Path | None = None
    try:
        with _told_as_input_error(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            handle, name = tempfile.mkstemp(
                dir=target.parent, prefix=f".{target.name[:80]}.", suffix=target.suffix
            )
            os.close(handle)
            temporary = pathlib.Path(name)
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            # mkstemp makes files private; a result has the permissions of any other new file.
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(temporary, 0o666 & ~mask)
            os.replace(temporary, target)
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


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
            # The library wraps the system's refusal; its text still holds the number.
            if "os error 28" in str(error).lower() or "StorageFull" in str(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise OSError(errno.EIO, str(error)) from error


def read_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns the arrays and the metadata of a safetensors file.

    Raises: InputError if the file is missing, unreadable, truncated or of another format.
    """
    source = pathlib.Path(path)
    if not source.is_file():
        found = "a folder" if source.is_dir() else "nothing"
        raise InputError(f"{source}: expected a file; got {found}; check the path")
    try:
        with safetensors.safe_open(source, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(
            f"{source}: expected a whole safetensors file; got {error}; other formats are converted"
            " by: python -m tools.convert_weights KIND SOURCE --out FILE"
        ) from error
    return arrays, metadata


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


def read_json(path: str | os.PathLike[str], metadata: Mapping[str, str], key: str) -> Any:
    """Returns a JSON entry of the metadata.

    Raises: InputError if it is missing or is no JSON.
    """
    try:
        return json.loads(metadata[key])
    except (KeyError, json.JSONDecodeError) as error:
        raise InputError(
            f"{path}: expected JSON under {key!r} in the metadata; got {metadata.get(key)!r}; "
            "the file is damaged: make it anew"
        ) from error


def write_state(path: str | os.PathLike[str], state: Any) -> None:
    """Writes a tree of arrays with Orbax; the folder `path` holds this state whole, or the last.

    Raises: InputError if the system refuses to write.
    """
    import orbax.checkpoint as ocp  # slow to import, and only long runs need it

    target = pathlib.Path(path).resolve()
    fresh = target.with_name(target.name + ".new")
    with _told_as_input_error(target):
        shutil.rmtree(fresh, ignore_errors=True)
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(fresh, state)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(fresh, target)


def read_state(path: str | os.PathLike[str]) -> Any | None:
    """Returns the tree written by `write_state` as NumPy arrays, or None if there is none.

    A run killed between removing the old state and renaming the new one leaves the latter, whole,
    under its other name; it is taken.

    Raises: InputError if the state is damaged.
    """
    import orbax.checkpoint as ocp

    target = pathlib.Path(path).resolve()
    fresh = target.with_name(target.name + ".new")
    found = next((folder for folder in (target, fresh) if folder.is_dir()), None)
    if found is None:
        return None
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            return checkpointer.restore(found)
    except (ValueError, OSError, KeyError) as error:
        raise InputError(
            f"{found}: expected a state to resume from; got {error}; "
            "delete that folder to start anew"
        ) from error


def remove_state(path: str | os.PathLike[str]) -> None:
    """Removes the state, if there is one."""
    target = pathlib.Path(path).resolve()
    shutil.rmtree(target, ignore_errors=True)
    shutil.rmtree(target.with_name(target.name + ".new"), ignore_errors=True)
