"""Latents that a user brings to the viewer, read from .npz files and kept by their content."""

import collections
import io
import pathlib
import threading
import zipfile
from collections.abc import Mapping

import numpy as np

from navigan_jax import checkpoints
from navigan_jax import params as params_lib
from navigan_jax.errors import InputError

MOST_LATENTS = 256  # taken of a file
_MOST_FILES = 100
_MOST_BYTES = 256 * 2**20  # unpacked
_HELD = 8  # files held in memory
_NAME_LENGTH = 16


class OwnLatents:
    """Own latents by name; any thread may use it.

    shapes: {space: shape of one latent}, the space that says most last. A latent that was given
    once is found again after a restart, as the folder keeps it.
    """

    def __init__(self, folder: pathlib.Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._folder = folder
        self._shapes = dict(shapes)
        self._held: collections.OrderedDict[str, tuple[str, np.ndarray]] = collections.OrderedDict()
        self._lock = threading.Lock()

    def add(self, data: bytes) -> tuple[str, str, int]:
        """Keeps the latents of an .npz file; returns their name, their space and their number.

        Raises: InputError if it holds none of this generator, or if there is no room.
        """
        space, latents = self._parse(data)
        name = params_lib.digest({space: latents})[:_NAME_LENGTH]
        path = self._path(name)
        with self._lock:
            if not path.exists():
                folder = checkpoints.make_folder(path.parent)
                if len(list(folder.glob("*.npz"))) >= _MOST_FILES:
                    raise InputError(
                        f"{folder}: expected at most {_MOST_FILES} files of own latents; got "
                        "another; remove some there"
                    )
                with checkpoints.atomic_output(path) as temporary:
                    np.savez(temporary, allow_pickle=False, **{space: latents})
        return name, space, len(latents)

    def find(self, name: object) -> tuple[str, np.ndarray]:
        """Returns the space and the latents [count, ...] of that name.

        Raises: InputError if there are none.
        """
        is_name = isinstance(name, str) and len(name) == _NAME_LENGTH
        if not is_name or not set(str(name)) <= set("0123456789abcdef"):
            raise InputError(f"own: expected the name of own latents; got {str(name)[:80]!r}")
        with self._lock:
            if name not in self._held:
                path = self._path(str(name))
                if not path.is_file():
                    raise InputError(f"own: no latents of the name {name} here; open the file anew")
                self._held[str(name)] = self._parse(path.read_bytes())
                if len(self._held) > _HELD:
                    self._held.popitem(last=False)
            self._held.move_to_end(str(name))
            return self._held[str(name)]

    def _path(self, name: str) -> pathlib.Path:
        return self._folder / f"{name}.npz"

    def _parse(self, data: bytes) -> tuple[str, np.ndarray]:
        allowed = " or ".join(
            f"{space} [count, {', '.join(map(str, shape))}]"
            for space, shape in self._shapes.items()
        )
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
            if size > _MOST_BYTES:
                raise ValueError(f"{size} bytes unpacked, more than {_MOST_BYTES}")
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                found = [space for space in self._shapes if space in file.files]
                if not found:
                    raise KeyError(f"the arrays {', '.join(file.files) or 'none'}")
                latents = file[found[-1]]
            if latents.dtype.kind not in "fiu":
                raise TypeError(f"numbers of type {latents.dtype}")
            with np.errstate(over="ignore"):
                latents = latents.astype(np.float32)
        except checkpoints.NO_NPZ as error:
            raise InputError(
                f"latents: expected an .npz file with an array {allowed}; got {error}; write one "
                "with numpy.savez(FILE, z=z)"
            ) from error
        space, shape = found[-1], self._shapes[found[-1]]
        if latents.shape == shape:
            latents = latents[None]
        if latents.shape[1:] != shape or not len(latents):
            raise InputError(
                f"latents: expected {allowed}; got {space} of shape {list(latents.shape)}; give "
                "latents of this generator"
            )
        if not np.isfinite(latents).all():
            raise InputError(
                "latents: expected finite numbers; got NaN or infinity; draw them anew"
            )
        return space, latents[:MOST_LATENTS]
