"""Baking: writes an edit into a copy of the original checkpoint, in the checkpoint's own format.

Only the edited weights, what is stored to normalise them, and the checksums over them change; the
size and all other bytes stay. So every program that reads the original reads the copy. The
checkpoint may lie in a zip archive, for example a Python wheel; the copy is then of the checkpoint
alone.
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
from navigan_jax.editing import normalised
from navigan_jax.errors import InputError
from navigan_jax.generators.source_map import Place, SourceMap, Spectral

# What `zipfile` raises for a file that is no archive, damaged, encrypted or of unknown compression.
_NO_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


def bake(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    source_map: SourceMap,
    params: Params,
    edits: Sequence[tuple[Edit, float]],
    *,
    networks: Sequence[str] = (),
) -> tuple[str, ...]:
    """Writes a copy of `source` to `out` in which the weights are θ + Σ t·ξ, atomically.

    source: the file that the map describes, or a zip archive, such as a wheel, that holds it.
    params: θ, as converted from the source. edits: (ξ, t). networks: the networks of the file to
    change; none: the one that was converted. Each weight is rounded once, to the file's dtype.

    Returns the names in the file of the arrays that changed for weights that are normalised there:
    these weights, and what is stored beside them; see `editing.normalised`.

    Raises: InputError if the source is not the file of the map, lacks one of the networks or keeps
      an edited weight in a form that cannot be overwritten, or if `out` is the source.
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
        names: list[str] = []
        misfits: dict[str, tuple[str, float]] = {}
        for network, places in chosen.items():
            # Weights that are normalised come last: they change other arrays too.
            for path, place in sorted(places.items(), key=lambda item: bool(item[1].spectral)):
                weights = np.asarray(params_lib.get(params, path))
                there = _view(source, path, place, weights.shape, memory)
                if network == source_map.converted:
                    _check_weights(
                        source, path, _in_use(source, path, there, place, memory), weights
                    )
                if place.spectral is None:
                    _add(source, path, there, deltas[path])
                elif deltas[path].any():
                    spectral = place.spectral
                    absorbing = _absorbing(source, source_map, network, spectral, params, memory)
                    before, sigma = there.copy(), _sigma(source, path, there, spectral, memory)
                    change = sigma * deltas[path]
                    _add(source, path, there, change)
                    changed = normalised.store_beside(there, sigma, spectral, absorbing, memory)
                    names += [name for name in changed if name not in names]
                    if not changed:
                        share = normalised.largest_share(before, change, sigma, spectral, memory)
                        misfits[path] = normalised.describe(there, sigma, spectral), share
        if misfits:
            raise normalised.refusal(source, misfits, [shift for _, shift in edits])
        _renew_checksums(memory, source_map, chosen, params)
        memory.flush()
    return tuple(names)


def add_edits(params: Params, edits: Sequence[tuple[Edit, float]]) -> Params:
    """Returns θ + Σ t·ξ as NumPy arrays. edits: (ξ, t). Each weight is rounded once.

    Raises: InputError if a weight becomes infinite.
    """
    changed = {path: np.asarray(leaf) for path, leaf in params_lib.flatten(params).items()}
    for path, delta in _sum(edits).items():
        weights = changed[path].copy()
        _add(pathlib.Path("parameters"), path, weights, delta)
        changed[path] = weights
    return params_lib.unflatten(changed)


def original_name(source: str | os.PathLike[str], source_map: SourceMap) -> str:
    """Returns the name of the file that is copied: `source`, or the checkpoint in the archive."""
    return pathlib.PurePosixPath(_member(pathlib.Path(source), source_map) or source).name


def _member(source: pathlib.Path, source_map: SourceMap) -> str | None:
    """Returns the archive's member of the size that the map states; None if `source` is no archive.

    None as well if no member has that size.
    """
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
            f"{source}: expected the checkpoint that the generator was converted from; got "
            "nothing; set config.source to its path"
        )
    if checkpoints.is_same_file(out, source):
        raise InputError(
            f"{out}: expected a file other than the source; got the source itself; set config.out"
        )
    digest = hashlib.sha256()
    try:
        with _open_original(source, source_map) as original:
            while block := original.read(2**20):
                digest.update(block)
    except (OSError, *_NO_ZIP) as error:
        raise InputError(
            f"{source}: expected the checkpoint that the generator was converted from, or an "
            f"archive with it; got {faults.in_words(error)}; give the checkpoint itself"
        ) from error
    if digest.hexdigest() != source_map.sha256:
        raise InputError(
            f"{source}: expected the file that the generator was converted from, "
            f"{source_map.file} with {source_map.size} bytes of SHA-256 {source_map.sha256}; got "
            f"{source.stat().st_size} bytes of SHA-256 {digest.hexdigest()}; give that file, or "
            "convert this one again"
        )


def _sum(edits: Sequence[tuple[Edit, float]]) -> dict[str, np.ndarray]:
    """Returns Σ t·ξ in float64, so that rounding happens once, in the weights."""
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
            "compressed, stored as text, or computed by the converter; load the file with the "
            "program that wrote it, save it again uncompressed with a current version, and "
            "convert that file"
        )
    return {path: known[path] for path in deltas}


def _check_apart(
    source: pathlib.Path,
    source_map: SourceMap,
    chosen: Mapping[str, Mapping[str, Place]],
    params: Params,
) -> None:
    """Raises InputError if an edited weight shares bytes of the file with another weight."""
    shapes = {path: np.shape(leaf) for path, leaf in params_lib.flatten(params).items()}
    extents = sorted(
        (*place.bounds(shapes[path]), network, path)
        for network, places in source_map.networks.items()
        for path, place in places.items()
        if path in shapes and len(place.strides) == len(shapes[path])
    )
    reach, holder = 0, ("", "")  # the furthest end so far, and the network and path it belongs to
    for start, stop, network, path in extents:
        touched = any(
            path in chosen.get(network, {}) for network, path in (holder, (network, path))
        )
        if start < reach and touched:
            raise InputError(
                f"{source}: expected edited weights with bytes of their own; got "
                f"{' '.join(holder)} and {network} {path} in the same bytes; load the file with "
                "the program that wrote it, save a copy of each tensor, and convert that file"
            )
        if stop > reach:
            reach, holder = stop, (network, path)


def _check_weights(source: pathlib.Path, path: str, found: np.ndarray, weights: np.ndarray) -> None:
    if not np.array_equal(np.asarray(found, np.float32), weights):
        raise InputError(
            f"{source}: expected the generator's weights at the places of {path}; got other "
            "values; the map in the generator file is damaged: convert the source again"
        )


def _view(
    source: pathlib.Path, path: str, place: Place, shape: Sequence[int], memory: mmap.mmap
) -> np.ndarray:
    try:
        return place.view(memory, shape)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{source}: expected places inside the file; got {place} for {path}; "
            "the map in the generator file is damaged: convert the source again"
        ) from error


def _add(source: pathlib.Path, path: str, weights: np.ndarray, delta: np.ndarray) -> None:
    with np.errstate(over="ignore"):
        changed = (weights.astype(np.float64) + delta).astype(weights.dtype)
    if not np.isfinite(changed.astype(np.float64)).all():
        raise InputError(
            f"{source}: expected edited weights that {weights.dtype} can hold; got infinity in "
            f"{path}; make the shifts smaller"
        )
    weights[...] = changed


def _in_use(
    source: pathlib.Path, path: str, there: np.ndarray, place: Place, memory: mmap.mmap
) -> np.ndarray:
    """Returns the weights as the network uses them, from those that the file stores."""
    if place.spectral is None:
        return there + place.added
    values = np.asarray(there, np.float32)
    return values.astype(np.float64) / _sigma(source, path, values, place.spectral, memory)


def _sigma(
    source: pathlib.Path, path: str, there: np.ndarray, place: Spectral, memory: mmap.mmap
) -> float:
    try:
        return normalised.divisor(there, place, memory)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{source}: expected the vectors of a spectral norm inside the file, of the sizes of "
            f"{path}; got others; the map in the generator file is damaged: convert the source "
            "again"
        ) from error


def _absorbing(
    source: pathlib.Path,
    source_map: SourceMap,
    network: str,
    spectral: Spectral,
    params: Params,
    memory: mmap.mmap,
) -> dict[str, np.ndarray]:
    """Returns views of the arrays that can absorb a factor of a weight, by our path."""
    known = source_map.networks[network]
    return {
        path: _view(source, path, known[path], np.shape(params_lib.get(params, path)), memory)
        for path in (each.path for each in spectral.absorbers)
        if path in known
    }


def _renew_checksums(
    memory: mmap.mmap,
    source_map: SourceMap,
    chosen: Mapping[str, Mapping[str, Place]],
    params: Params,
) -> None:
    extents = [
        extent
        for places in chosen.values()
        for path, place in places.items()
        for extent in place.changed(np.shape(params_lib.get(params, path)))
    ]
    extents += [
        source_map.networks[network][each.path].bounds(np.shape(params_lib.get(params, each.path)))
        for network, places in chosen.items()
        for place in places.values()
        for each in (place.spectral.absorbers if place.spectral else ())
        if each.path in source_map.networks[network]
    ]
    with memoryview(memory) as view:
        for part in source_map.checksums:
            if any(part.start < stop and start < part.stop for start, stop in extents):
                with view[part.start : part.stop] as changed:
                    crc = struct.pack("<I", zlib.crc32(changed))
                for offset in part.offsets:
                    memory[offset : offset + 4] = crc
