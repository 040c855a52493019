"""Latents that a user uploads to the viewer; they are saved under a digest of their content."""

import collections
import dataclasses
import io
import pathlib
import threading

import numpy as np

from navigan_jax import checkpoints
from navigan_jax import params as params_lib
from navigan_jax.errors import InputError
from navigan_jax.generators.latents import Latents, Spaces, parse_latents
from navigan_jax.generators.pix2pixhd.label_maps import LabelMaps
from navigan_jax.generators.pix2pixhd.map_files import is_file_of_maps, parse_label_maps

MOST_LATENTS = 256  # read from a file
_MOST_FILES = 100
_MOST_BYTES = 256 * 2**20  # uncompressed
_HELD = 8  # files held in memory
_NAME_LENGTH = 16  # digits of the digest


class OwnLatents:
    """The uploaded latents by name; safe for threads.

    folder: where they are saved, so that they survive a restart. spaces: the sizes of the
    generator's latents. label_maps: their space, if they are label maps.
    """

    def __init__(
        self, folder: pathlib.Path, spaces: Spaces, label_maps: LabelMaps | None = None
    ) -> None:
        self._folder = folder
        self._spaces = spaces
        self._label_maps = label_maps
        self._held: collections.OrderedDict[str, Latents] = collections.OrderedDict()
        self._lock = threading.Lock()

    def add(self, data: bytes, file: str = "latents") -> tuple[str, Latents]:
        """Saves the latents of a file, at most `MOST_LATENTS`; returns their name and the latents.

        file: the user's file name, which may tell the space of an .npy, such as w_plus.npy.
        Raises: InputError if the file holds no latents of this generator, or too many files are
          saved.
        """
        latents = self._parse(data, file)
        name = params_lib.digest({latents.space: latents.values})[:_NAME_LENGTH]
        path = self._path(name)
        with self._lock:
            if not path.exists():
                folder = checkpoints.make_folder(path.parent)
                if len(list(folder.glob("*.npz"))) >= _MOST_FILES:
                    raise InputError(
                        f"{folder}: expected at most {_MOST_FILES} files of latents; got one "
                        "more; remove some from this folder"
                    )
                with checkpoints.atomic_output(path) as temporary:
                    np.savez(temporary, allow_pickle=False, **{latents.space: latents.values})
        return name, latents

    def find(self, name: object) -> Latents:
        """Returns the latents of this name.

        Raises: InputError if there are none.
        """
        is_name = isinstance(name, str) and len(name) == _NAME_LENGTH
        if not is_name or not set(str(name)) <= set("0123456789abcdef"):
            raise InputError(f"own: expected the name of own latents; got {str(name)[:80]!r}")
        with self._lock:
            if name not in self._held:
                path = self._path(str(name))
                if not path.is_file():
                    raise InputError(
                        f"own: expected the name of own latents; got {name}, which is not saved "
                        "here; open the file of latents again"
                    )
                self._held[str(name)] = self._parse(path.read_bytes(), path.name)
                if len(self._held) > _HELD:
                    self._held.popitem(last=False)
            self._held.move_to_end(str(name))
            return self._held[str(name)]

    def _path(self, name: str) -> pathlib.Path:
        return self._folder / f"{name}.npz"

    def _parse(self, data: bytes, file: str) -> Latents:
        if self._label_maps is not None and is_file_of_maps(data):
            return parse_label_maps(data, file, self._label_maps, MOST_LATENTS)
        found = parse_latents(io.BytesIO(data), file, self._spaces, most_bytes=_MOST_BYTES)
        if len(found.values) <= MOST_LATENTS:
            return found
        told = f"{found.told}; only the first {MOST_LATENTS} are used"
        return dataclasses.replace(found, values=found.values[:MOST_LATENTS], told=told)
