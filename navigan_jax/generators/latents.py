"""Users' files of latents: one rule, for tasks and viewer, decides what an array means.

A file is an .npz with one array of latents, possibly among other arrays, or an .npy. The name and
the shape of the array decide what it is:

  [count, rows, w]                        w_plus
  [rows, w]                               one w_plus; under the name w: `rows` latents w
  [count, w] or [w]                       w, which is used for all rows
  [count, z], [z] or [count, z, 1, 1]     z

If z and w have the same size, the name decides: that of the array, or of the .npy file. An array
without such a name is then refused. The result describes in words what was read.
"""

import dataclasses
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import BinaryIO

import numpy as np

from navigan_jax import checkpoints, faults
from navigan_jax.errors import InputError
from navigan_jax.generators.base import Generator
from navigan_jax.generators.latent_space import NormalSpace
from navigan_jax.generators.stored_arrays import StoredArray, opened, pickled

MOST_BYTES = 4 * 2**30  # unpacked: two million w of 512 numbers
_ANY = ("w_plus", "w", "z")
# The kinds that an array of that name can be; the first kind that fits its shape counts. These are
# the names in the official projector, StyleGAN's own programs, pSp, e4e and pivotal tuning.
_KINDS = {
    "z": ("z",),
    "w": ("w", "w_plus"),
    **dict.fromkeys(("w_plus", "wplus", "w+", "wp"), ("w_plus",)),
    **dict.fromkeys(
        ("ws", "dlatent", "dlatents", "projected_w", "w_opt", "w_pivot"), ("w_plus", "w")
    ),
    **dict.fromkeys(("latent", "latents", "code", "codes", "latent_code", "latent_codes"), _ANY),
}
_MOST_LISTED = 8  # arrays in a message


@dataclasses.dataclass(frozen=True)
class Spaces:
    """The sizes of a generator's latents.

    z: size without the label. label_dim: number of classes; label: the class of every z that comes
    without a label. rows, width: of w_plus; 0 if the generator has no w. shape: of one latent that
    is no such vector; then z is 0.
    """

    z: int
    label_dim: int = 0
    label: int | None = None
    rows: int = 0
    width: int = 0
    shape: tuple[int, ...] = ()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """{kind: shape of one latent}: z with its label, and w and w_plus if there is a mapping."""
        shapes: dict[str, tuple[int, ...]] = {"z": self.shape or (self.z + self.label_dim,)}
        if self.rows:
            shapes |= {"w": (self.width,), "w_plus": (self.rows, self.width)}
        return shapes

    def __str__(self) -> str:
        each = [f"{kind} [count, {', '.join(map(str, shape))}]" for kind, shape in self._allowed()]
        return " or ".join(each)

    def _allowed(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        for kind, shape in self.shapes.items():
            needs_no_label = kind == "z" and self.label is not None
            yield kind, (self.z,) if needs_no_label else shape


@dataclasses.dataclass(frozen=True)
class Latents:
    """Latents as generators take them.

    space: "z", values [count, z with its label], or "w_plus", values [count, rows, w]; float32.
    told: what was read from the file, in words.
    """

    space: str
    values: np.ndarray
    told: str


def spaces_of(generator: Generator) -> Spaces:
    """Returns the sizes of a generator's latents."""
    space = generator.space
    if isinstance(space, NormalSpace):
        spaces = Spaces(space.z_dim, space.label_dim, space.label)
    else:
        spaces = Spaces(0, shape=space.shape)
    if not generator.mapping_stages:
        return spaces
    rows, width = generator.latent_shape
    return dataclasses.replace(spaces, rows=rows, width=width)


def is_latent_name(name: object) -> bool:
    """Returns whether `name` is a common name of an array of latents."""
    return isinstance(name, str) and name.lower() in _KINDS


def read_latents(path: str, spaces: Spaces) -> Latents:
    """Returns the latents in a file.

    Raises: InputError if the file is missing, or does not hold latents of that generator.
    """
    source = pathlib.Path(path)
    if not source.is_file():
        raise InputError(
            f"{path}: expected an .npz or .npy file of latents; got {faults.found_at(source)}; "
            "check the path"
        )
    try:
        with source.open("rb") as file:
            return parse_latents(file, path, spaces)
    except OSError as error:
        raise InputError(
            f"{path}: expected a readable file; got {faults.in_words(error)}; check it"
        ) from error


def parse_latents(
    file: BinaryIO, name: str, spaces: Spaces, *, most_bytes: int = MOST_BYTES
) -> Latents:
    """Returns the latents in an open file; `name` is the file's name in messages.

    most_bytes: limit of the file's size, also when it is unpacked.
    Raises: InputError if the file does not hold latents of that generator.
    """
    try:
        with opened(file, name, most_bytes) as stored:
            chosen = _choose(stored, name, spaces)
            kind, shape = _kind_of(chosen, name, spaces)
            array = chosen.read()
    except InputError:
        raise
    except checkpoints.NO_NPZ as error:
        raise InputError(
            f"{name}: expected an .npz or .npy file with latents {spaces}; got one that cannot be "
            "read; write it anew with numpy.savez"
        ) from error
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(array.reshape(shape), dtype=np.float32)
    if not np.isfinite(values).all():
        raise InputError(
            f"{name}: expected finite numbers within float32; got NaN, infinity or a larger number "
            f"in {chosen}; make the latents anew"
        )
    told = f"{name}: {len(values)} latent{'s' * (len(values) != 1)} taken as {kind}, from {chosen}"
    if kind == "z" and not spaces.shape:
        values, more = _with_label(values, chosen, name, spaces)
        return Latents("z", values, told + more)
    if kind == "z":
        return Latents("z", values, told)
    if kind == "w":
        values = np.repeat(values[:, None], spaces.rows, axis=1)
        told += f", each for all {spaces.rows} rows of w_plus"
    return Latents("w_plus", values, told)


def _choose(stored: list[StoredArray], name: str, spaces: Spaces) -> StoredArray:
    """Returns the only array with a common name of latents, else the only array that fits."""
    named = [each for each in stored if each.claim in _KINDS]
    fitting = [each for each in stored if _readings(each.shape, spaces)]
    candidates = named or fitting or stored
    if len(candidates) == 1:
        return candidates[0]
    listed = ", ".join(map(str, candidates[:_MOST_LISTED]))
    more = len(candidates) - _MOST_LISTED
    raise InputError(
        f"{name}: expected one array of latents, {spaces}; got {len(candidates)} that can be "
        f"meant: {listed}{f' and {more} more' if more > 0 else ''}; keep one, for example with "
        "numpy.savez(FILE, w=numpy.load(OLD)['w'])"
    )


def _kinds(stored: StoredArray) -> tuple[str, ...]:
    """Returns the kinds of latents that an array of that name can be."""
    return _KINDS.get(stored.claim, _ANY)


def _readings(shape: tuple[int, ...], spaces: Spaces) -> Mapping[str, tuple[int, ...]]:
    """Returns {kind: shape for that kind}, for all kinds that an array of that shape can be."""
    if spaces.shape and shape[-len(spaces.shape) :] == spaces.shape:
        return {"z": (-1, *spaces.shape)}
    if len(shape) == 4 and shape[2:] == (1, 1):  # as some write z for convolutions
        shape = shape[:2]
    if len(shape) == 1:
        shape = (1, *shape)
    found: dict[str, tuple[int, ...]] = {}
    per_latent = (spaces.rows, spaces.width)
    if len(shape) == 2:
        if shape == per_latent:
            found["w_plus"] = (1, *shape)
        if spaces.rows and shape[1] == spaces.width:
            found["w"] = shape
        if shape[1] in (spaces.z, spaces.z + spaces.label_dim):
            found["z"] = shape
    if len(shape) == 3 and spaces.rows and shape[1:] == per_latent:
        found["w_plus"] = shape
    return found


def _kind_of(stored: StoredArray, name: str, spaces: Spaces) -> tuple[str, tuple[int, ...]]:
    """Returns the kind of latents that the array holds, and the shape for that kind."""
    if stored.dtype.hasobject:
        raise pickled(name, f"{stored} of Python objects, which is a pickle")
    if stored.dtype.kind not in "fiu":
        raise InputError(
            f"{name}: expected an array of real numbers; got {stored} of type {stored.dtype}; "
            "write it as float32"
        )
    readings = _readings(stored.shape, spaces) if math.prod(stored.shape) else {}
    fitting = [kind for kind in _kinds(stored) if kind in readings]
    if not fitting:
        raise InputError(
            f"{name}: expected latents of this generator, {spaces}; got {stored}; give latents "
            "that were made with a generator of these sizes"
        )
    if {"w", "z"} <= set(fitting) and fitting[0] != "w_plus":
        raise InputError(
            f"{name}: expected a name that tells z from w, as both have {spaces.width} numbers "
            f"here; got {stored}; write the file as numpy.savez(FILE, z=array), or w=array"
        )
    return fitting[0], readings[fitting[0]]


def _with_label(
    values: np.ndarray, stored: StoredArray, name: str, spaces: Spaces
) -> tuple[np.ndarray, str]:
    """Returns z with its label, and words about a label that was added."""
    if values.shape[1] == spaces.z + spaces.label_dim:
        return values, ""
    if spaces.label is None:
        raise InputError(
            f"{name}: expected z followed by a label, a one among {spaces.label_dim} numbers, or "
            f"z alone and a class for all; got {stored}; set the class with "
            "--config.synthesis.label=CLASS"
        )
    label = np.eye(spaces.label_dim, dtype=np.float32)[spaces.label]
    labels = np.tile(label, (len(values), 1))
    return np.concatenate([values, labels], axis=1), f", with the label {spaces.label} added"
