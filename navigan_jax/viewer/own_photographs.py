"""Photographs that a user opens in the viewer: inverted.safetensors, saved under its digest."""

import pathlib
import threading
from collections.abc import Mapping

from navigan_jax import checkpoints, inverted
from navigan_jax.array_types import Params
from navigan_jax.errors import InputError
from navigan_jax.generators.latents import Spaces
from navigan_jax.inverted import Inverted

_MOST_FILES = 20
_NAME_LENGTH = 16  # digits of the digest
_ENDING = ".safetensors"


def is_photographs(data: bytes) -> bool:
    """Returns whether the bytes begin like a safetensors file."""
    return len(data) > 8 and data[8:9] == b"{" and int.from_bytes(data[:8], "little") < len(data)


class OwnPhotographs:
    """The opened photographs by name; safe for threads.

    folder: where they are saved, so that they survive a restart. params, digest: of the generator.
    """

    def __init__(self, folder: pathlib.Path, spaces: Spaces, params: Params, digest: str) -> None:
        self._folder, self._spaces = folder, spaces
        self._params, self._digest = params, digest
        self._held: dict[str, tuple[str, Inverted]] = {}  # {name: (digest, photographs)}
        self._lock = threading.Lock()

    @property
    def by_digest(self) -> Mapping[str, Inverted]:
        """All photographs that are held, by their digests."""
        with self._lock:
            return dict(self._held.values())

    def add(self, data: bytes, file: str) -> tuple[str, Inverted]:
        """Saves the photographs of a file; returns their name and the photographs.

        Raises: InputError if they were not found in this generator, or too many files are saved.
        """
        with self._lock:
            folder = checkpoints.make_folder(self._folder)
            if len(list(folder.glob(f"*{_ENDING}"))) >= _MOST_FILES:
                raise InputError(
                    f"{folder}: expected at most {_MOST_FILES} files of photographs; got one more; "
                    "remove some from this folder"
                )
            with checkpoints.atomic_output(folder / f"last{_ENDING}") as temporary:
                temporary.write_bytes(data)
            last = folder / f"last{_ENDING}"
            try:
                found = self._read(last)
            except InputError as error:
                raise InputError(str(error).replace(str(last), file)) from error
            finally:
                last.unlink(missing_ok=True)
            digest = inverted.digest(found)
            name = digest[:_NAME_LENGTH]
            with checkpoints.atomic_output(folder / f"{name}{_ENDING}") as temporary:
                temporary.write_bytes(data)
            self._held[name] = digest, found
        return name, found

    def find(self, name: object) -> str | None:
        """Returns the digest of the photographs of this name; None if there are none.

        Raises: InputError if the saved file is damaged.
        """
        is_name = isinstance(name, str) and len(name) == _NAME_LENGTH
        if not is_name or not set(str(name)) <= set("0123456789abcdef"):
            return None
        with self._lock:
            path = self._folder / f"{name}{_ENDING}"
            if str(name) not in self._held and path.is_file():
                found = self._read(path)
                self._held[str(name)] = inverted.digest(found), found
            return self._held[str(name)][0] if name in self._held else None

    def _read(self, path: pathlib.Path) -> Inverted:
        shapes = self._spaces.shapes
        return inverted.read_fitting(path, self._params, shapes, digest=self._digest)
