"""Writing an edit into a copy of the file that the weights are from, in the file's own format.

Only the bytes of the edited weights change, and the checksums of the parts that hold them; the size
and all else stay. Every program that reads the original reads the copy. The file may lie in a zip
archive, as in a Python wheel: then the copy is of the file alone.
"""

import contextlib
import hashlib
import mmap
import os
import pathlib
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import IO

import numpy as np

from navigan_jax import checkpoints, faults
from navigan_jax import params as params_lib
from navigan_jax.array_types import Params
from navigan_jax.directions import Edit
from navigan_jax.errors import InputError
from navigan_jax.generators.source_map import Place, SourceMap

# What `zipfile` raises of what is no archive, or a damaged, packed or locked one.
_NO_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


def bake(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    source_map: SourceMap,
    params: Params,
    edits: Sequence[tuple[Edit, float]],
    *,
    networks: Sequence[str] = (),
) -> None:
    """Writes a copy of `source` to `out` in which the weights are θ + Σ t·ξ, atomically.

    source: the file of the map, or a zip archive such as a wheel with that file in it.
    params: θ, as converted from the source. edits: (ξ, t). networks: of the file, in which to
    change them; none: the one that was converted. Each weight is rounded once, to the file's type.

    Raises: InputError if the source is not the file of the map, has no such network or keeps an
      edited weight in a way that cannot be written to, or if `out` is the source.
    """
    source, out = pathlib.Path(source), pathlib.Path(out)
    _check_source(source, out, source_map)
    deltas = _sum(edits)
    for network in networks or (source_map.converted,):
        if network not in source_map.networks:
            raise InputError(
                f"{source}: expected networks of this file; got {network!r}; allowed: "
                f"{', '.join(sorted(source_map.networks))}; set config.networks"
            )
    chosen = {
        network: _places(source, source_map, network, deltas)
        for network in networks or (source_map.converted,)
    }
    _check_apart(source, source_map, chosen, params)
    with checkpoints.atomic_output(out) as temporary:
        with _open_original(source, source_map) as original, open(temporary, "wb") as copy:
            shutil.copyfileobj(original, copy)
        with open(temporary, "r+b") as file:
            # Not closed by hand, which fails while an error that ends this holds a view of it.
            memory = mmap.mmap(file.fileno(), 0)
        for network, places in chosen.items():
            for path, place in places.items():
                weights = np.asarray(params_lib.get(params, path))
                there = _view(source, path, place, weights.shape, memory)
                if network == source_map.converted:
                    _check_weights(source, path, there + place.added, weights)
                _add(source, path, there, deltas[path])
        _renew_checksums(memory, source_map, chosen, params)
        memory.flush()


def original_name(source: str | os.PathLike[str], source_map: SourceMap) -> str:
    """Returns the name of the file that is copied: of `source`, or of the one in that archive."""
    return pathlib.PurePosixPath(_member(pathlib.Path(source), source_map) or source).name


def _member(source: pathlib.Path, source_map: SourceMap) -> str | None:
    """Returns which member of an archive has the size of the map's file; None for another file."""
    try:
        if source.stat().st_size == source_map.size:
            return None
        with zipfile.ZipFile(source) as archive:
            sizes = {member.filename: member.file_size for member in archive.infolist()}
    except (OSError, *_NO_ZIP):
        return None
    return next((name for name, size in sizes.items() if size == source_map.size), None)


@contextlib.contextmanager
def _open_original(source: pathlib.Path, source_map: SourceMap) -> Iterator[IO[bytes]]:
    member = _member(source, source_map)
    with contextlib.ExitStack() as held:
        if member is None:
            yield held.enter_context(open(source, "rb"))
        else:
            archive = held.enter_context(zipfile.ZipFile(source))
            yield held.enter_context(archive.open(member))


def _check_source(source: pathlib.Path, out: pathlib.Path, source_map: SourceMap) -> None:
    if not source.is_file():
        raise InputError(
            f"{source}: expected the file that the weights are from; got nothing; "
            "set config.source to its path"
        )
    if checkpoints.is_same_file(out, source):
        raise InputError(
            f"{out}: expected another file than the source; got the source itself; set config.out"
        )
    digest = hashlib.sha256()
    try:
        with _open_original(source, source_map) as original:
            while block := original.read(2**20):
                digest.update(block)
    except (OSError, *_NO_ZIP) as error:
        raise InputError(
            f"{source}: expected the file that the weights are from, or an archive with it; got "
            f"{faults.in_words(error)}; give the file itself"
        ) from error
    if digest.hexdigest() != source_map.sha256:
        raise InputError(
            f"{source}: expected the file that the generator was converted from, "
            f"{source_map.file} with {source_map.size} bytes of SHA-256 {source_map.sha256}; got "
            f"{source.stat().st_size} bytes of SHA-256 {digest.hexdigest()}; give that file, or "
            "convert this one anew"
        )


def _sum(edits: Sequence[tuple[Edit, float]]) -> dict[str, np.ndarray]:
    """Returns Σ t·ξ in float64, so that only the weights are rounded."""
    total: dict[str, np.ndarray] = {}
    for edit, shift in edits:
        for path, delta in edit.deltas.items():
            step = shift * np.asarray(delta, np.float64)
            total[path] = total[path] + step if path in total else step
    return total


def _places(
    source: pathlib.Path, source_map: SourceMap, network: str, deltas: Mapping[str, np.ndarray]
) -> dict[str, Place]:
    known = source_map.networks[network]
    if missing := [path for path in deltas if path not in known]:
        raise InputError(
            f"{source}: expected the weights of {network} as plain bytes; got {', '.join(missing)} "
            "packed, kept as text, or made by the converter; load the file with the program that "
            "wrote it, save it again uncompressed with a current version, and convert that"
        )
    return {path: known[path] for path in deltas}


def _check_apart(
    source: pathlib.Path,
    source_map: SourceMap,
    chosen: Mapping[str, Mapping[str, Place]],
    params: Params,
) -> None:
    """Refuses to change bytes that other weights have in common with the edited ones."""
    shapes = {path: np.shape(leaf) for path, leaf in params_lib.flatten(params).items()}
    extents = sorted(
        (*place.bounds(shapes[path]), network, path)
        for network, places in source_map.networks.items()
        for path, place in places.items()
        if path in shapes and len(place.strides) == len(shapes[path])
    )
    reach, holder = 0, ("", "")  # the end of the extents so far, and whose it is
    for start, stop, network, path in extents:
        touched = any(
            path in chosen.get(network, {}) for network, path in (holder, (network, path))
        )
        if start < reach and touched:
            raise InputError(
                f"{source}: expected weights with bytes of their own; got {' '.join(holder)} and "
                f"{network} {path} in the same ones; load the file with the program that wrote "
                "it, save a copy of each tensor, and convert that"
            )
        if stop > reach:
            reach, holder = stop, (network, path)


def _check_weights(source: pathlib.Path, path: str, found: np.ndarray, weights: np.ndarray) -> None:
    if not np.array_equal(np.asarray(found, np.float32), weights):
        raise InputError(
            f"{source}: expected the generator's weights at the places of {path}; got others; "
            "the map in the generator file is damaged: convert the source anew"
        )


def _view(
    source: pathlib.Path, path: str, place: Place, shape: Sequence[int], memory: mmap.mmap
) -> np.ndarray:
    try:
        return place.view(memory, shape)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{source}: expected places inside the file; got {place} for {path}; "
            "the map in the generator file is damaged: convert the source anew"
        ) from error


def _add(source: pathlib.Path, path: str, weights: np.ndarray, delta: np.ndarray) -> None:
    with np.errstate(over="ignore"):
        changed = (weights.astype(np.float64) + delta).astype(weights.dtype)
    if not np.isfinite(changed.astype(np.float64)).all():
        raise InputError(
            f"{source}: expected shifts that {weights.dtype} can hold; got an infinite weight in "
            f"{path}; make the shifts smaller"
        )
    weights[...] = changed


def _renew_checksums(
    memory: mmap.mmap,
    source_map: SourceMap,
    chosen: Mapping[str, Mapping[str, Place]],
    params: Params,
) -> None:
    extents = [
        place.bounds(np.shape(params_lib.get(params, path)))
        for places in chosen.values()
        for path, place in places.items()
    ]
    with memoryview(memory) as view:
        for part in source_map.checksums:
            if any(part.start < stop and start < part.stop for start, stop in extents):
                with view[part.start : part.stop] as changed:
                    crc = struct.pack("<I", zlib.crc32(changed))
                for offset in part.offsets:
                    memory[offset : offset + 4] = crc
