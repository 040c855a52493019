"""What directions do to the factors that gauges read: response, purity, monotone range, name.

A direction ξ with shift t changes each factor of an image, and it changes the image as a whole. The
signed perceptual change p(t) = sign(t)·√(E_z d(G_θ(z), G_{θ+tξ}(z)) / d̄) grows nearly in proportion
to t; d̄ is the mean distance of two independent images, so |p| = 1 is as much as another latent
changes. All responses are per unit of p, so the unit of t has no effect.
Changes of factors are in units of their range; circular factors are unwrapped along t.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from navigan_jax.array_types import Array, Images, Params
from navigan_jax.directions import Edit
from navigan_jax.editing.edit import apply_edit
from navigan_jax.generators.base import EditableLayer, Generator
from navigan_jax.perceptual.base import Distance, squared_norms


@dataclasses.dataclass(frozen=True, eq=False)
class Readings:
    """Factors of edited images, and the distances of these images to their originals.

    values: in the units of the gauges. between: the mean distance of two independent images.
    """

    values: Float[np.ndarray, "edits latents steps factors"]
    original: Float[np.ndarray, "latents factors"]
    distances: Float[np.ndarray, "edits latents steps"]
    between: float


@dataclasses.dataclass(frozen=True, eq=False)
class Responses:
    """The responses of factors to directions.

    mean: E_z of the slope of each factor's change against p, in ranges per unit of perceptual
    change. size: its root mean square over latents. curves: the mean change of each factor at each
    shift, in ranges. perceptual: p at each shift. shifts: t, ascending, without 0.
    """

    mean: Float[np.ndarray, "directions factors"]
    size: Float[np.ndarray, "directions factors"]
    curves: Float[np.ndarray, "directions steps factors"]
    perceptual: Float[np.ndarray, "directions steps"]
    shifts: Float[np.ndarray, "directions steps"]

    @property
    def purity(self) -> Float[np.ndarray, "directions"]:
        """The share of the largest factor in the sum of squared responses; 0 without response."""
        power = self.size**2
        total = power.sum(axis=1)
        return np.divide(power.max(axis=1), total, out=np.zeros_like(total), where=total > 0)

    @property
    def largest(self) -> np.ndarray:
        """The factor with the largest response, for each direction."""
        return self.size.argmax(axis=1)

    @property
    def consistency(self) -> Float[np.ndarray, "directions"]:
        """|mean| / size of the largest factor: 1 if it changes alike for every latent."""
        rows = np.arange(len(self.size))
        size = self.size[rows, self.largest]
        mean = np.abs(self.mean[rows, self.largest])
        return np.divide(mean, size, out=np.zeros_like(size), where=size > 0)

    def monotone_range(self, index: int, factor: int) -> tuple[float, float]:
        """Returns the shifts between which the factor's mean change only grows, or only falls.

        The range holds 0. An end is 0 if the factor turns back at the first step of that side.
        """
        curve, shifts = self.curves[index, :, factor], self.shifts[index]
        growth = np.sign(self.mean[index, factor]) * curve
        ends = []
        for side in (-1.0, 1.0):
            order = np.argsort(np.abs(shifts[shifts * side > 0]))
            values = side * growth[shifts * side > 0][order]
            rising = np.diff(values, prepend=0.0) > 0
            count = len(rising) if rising.all() else int(np.argmin(rising))
            along = np.abs(shifts[shifts * side > 0][order])
            ends.append(side * float(along[count - 1]) if count else 0.0)
        return ends[0], ends[1]

    def reach(self, index: int, factor: int) -> float:
        """Returns the largest |mean change| of a factor over the shifts, in ranges."""
        return float(np.abs(self.curves[index, :, factor]).max())


def measure_responses(
    readings: Readings,
    shifts: Float[np.ndarray, "edits steps"],
    units: Float[np.ndarray, "factors"],
    circular: Sequence[bool],
) -> Responses:
    """Returns the responses of factors.

    shifts: t of the steps; ascending, without 0. units: the range of each factor in its own unit.
    circular: factors whose range is a period.
    """
    changes = (readings.values - readings.original[None, :, None]) / units
    changes = np.where(np.asarray(circular), _unwrap(changes, shifts), changes)
    share = readings.distances.mean(axis=1) / readings.between
    perceptual = np.sign(shifts) * np.sqrt(share)
    total = (perceptual**2).sum(axis=1)
    slopes = np.einsum("es,elsf->elf", perceptual, changes)
    safe = np.where(total > 0, total, 1)[:, None, None]
    slopes = np.where(total[:, None, None] > 0, slopes / safe, 0.0)
    return Responses(
        mean=slopes.mean(axis=1),
        size=np.sqrt((slopes**2).mean(axis=1)),
        curves=changes.mean(axis=1),
        perceptual=perceptual,
        shifts=shifts,
    )


def _unwrap(
    changes: Float[np.ndarray, "edits latents steps factors"],
    shifts: Float[np.ndarray, "edits steps"],
) -> Float[np.ndarray, "edits latents steps factors"]:
    """Returns changes in periods, followed from t = 0 outwards by the nearest representative."""
    middle = int((shifts[0] < 0).sum())
    if not (((shifts < 0).sum(axis=1) == middle) & (np.diff(shifts, axis=1) > 0).all(1)).all():
        raise ValueError("shifts: expected ascending rows with equally many below 0")
    start = np.zeros_like(changes[:, :, :1])
    below = np.concatenate([start, changes[:, :, :middle][:, :, ::-1]], axis=2)
    above = np.concatenate([start, changes[:, :, middle:]], axis=2)
    parts = (np.unwrap(part, period=1.0, axis=2)[:, :, 1:] for part in (below, above))
    left, right = parts
    return np.concatenate([left[:, :, ::-1], right], axis=2)


def read_factors(
    generator: Generator,
    params: Params,
    layers: Sequence[EditableLayer],
    metric: Distance,
    read: Callable[[Images], Float[np.ndarray, "batch factors"]],
    z: Float[Array | np.ndarray, "latents latent"],
    edits: Sequence[Edit],
    shifts: Float[np.ndarray, "edits steps"],
    *,
    microbatch: int,
    on_edit: Callable[[], None] = lambda: None,
) -> Readings:
    """Returns what a gauge reads off the images of all latents at all shifts of each edit.

    read: images in [-1, 1] -> factors. z, microbatch, on_edit: as for `read_moves`.
    """
    layers = tuple(layers)

    def begin(z: np.ndarray) -> Start:
        return Start(*_begin(params, metric, z, generator, layers))

    def move(start: Start, number: int, shift: float) -> tuple[Images, Array]:
        edit, state = edits[number], (start.state, start.features)
        return _edited(params, metric, *state, edit, jnp.float32(shift), generator, layers)

    return read_moves(begin, move, read, z, shifts, microbatch=microbatch, on_move=on_edit)


class Start(NamedTuple):
    """Unedited images of a microbatch.

    state: what moves begin from. features: of the images. steps: distances to the next image.
    """

    state: Any
    images: Images
    features: Any
    steps: Float[Array, "pairs"]


def read_moves(
    begin: Callable[[np.ndarray], Start],
    move: Callable[[Start, int, float], tuple[Images, Float[Array, "batch"]]],
    read: Callable[[Images], Float[np.ndarray, "batch factors"]],
    z: Float[Array | np.ndarray, "latents latent"],
    shifts: Float[np.ndarray, "moves steps"],
    *,
    microbatch: int,
    on_move: Callable[[], None] = lambda: None,
) -> Readings:
    """Returns what a gauge reads off moved images; a move changes weights or latents.

    move: (start, number of the move, t) -> images and their distances to the originals. read:
    images in [-1, 1] -> factors. z: two latents at least, as their images give the unit of
    perceptual change. microbatch: latents at once, two at least. on_move: called after each move
    of each microbatch.
    Cost: one image, one distance and one reading for each latent, move and shift.
    """
    z = np.asarray(z)
    size = min(max(microbatch, 2), len(z))
    values, distances, originals, apart = [], [], [], []
    for first in range(0, len(z), size):
        rows = z[first : first + size]
        count = len(rows)
        start = begin(np.concatenate([rows, np.repeat(rows[-1:], size - count, axis=0)]))
        originals.append(read(start.images)[:count])
        apart.append(np.asarray(start.steps)[: count - 1])
        for number, row in enumerate(shifts):
            for shift in row:
                images, distance = move(start, number, float(shift))
                values.append(read(images)[:count])
                distances.append(np.asarray(distance)[:count])
            on_move()
    return Readings(
        _gather(values, shifts.shape),
        np.concatenate(originals).astype(np.float64),
        _gather(distances, shifts.shape),
        float(np.concatenate(apart).mean(dtype=np.float64)),
    )


def _gather(parts: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Returns [moves, latents, steps, ...] of parts in the order batch, move, step."""
    moves, steps = shape
    each = moves * steps
    batches = [np.stack(parts[i : i + each]) for i in range(0, len(parts), each)]
    whole = np.concatenate(batches, axis=1).astype(np.float64)
    return whole.reshape(moves, steps, *whole.shape[1:]).swapaxes(1, 2)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _begin(
    params: Params,
    metric: Distance,
    z: Array,
    generator: Generator,
    layers: tuple[EditableLayer, ...],
) -> tuple[Any, Images, Any, Float[Array, "pairs"]]:
    """Returns the layers' input, the images, their features, and distances to the next image."""
    carry = generator.prefix(params, z, layers)
    images = generator.suffix(params, carry, layers)
    features = metric.features(images)
    steps = jax.tree.map(lambda leaf: leaf[1:] - leaf[:-1], features)
    return carry, images, features, jnp.sum(squared_norms(steps), axis=0)


@functools.partial(jax.jit, static_argnums=(6, 7))
def _edited(
    params: Params,
    metric: Distance,
    carry: Any,
    original: Any,
    edit: Edit,
    shift: Array,
    generator: Generator,
    layers: tuple[EditableLayer, ...],
) -> tuple[Images, Float[Array, "batch"]]:
    """Returns the edited images and their distances to the originals."""
    images = generator.suffix(apply_edit(params, edit, shift), carry, layers)
    difference = jax.tree.map(jnp.subtract, metric.features(images), original)
    return images, jnp.sum(squared_norms(difference), axis=0)
