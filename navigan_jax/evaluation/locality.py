"""Maps of change: the mean squared change of each pixel, which show where a direction acts.

Source: Cherepkov et al. 2021, section 4.6 and figures 12 and 13: the squared difference to the
original, averaged over latents and over shifts spread evenly on both sides of 0. Here the average
is over the colour channels too, and pixels go from 0 (black) to 1 (white), so that the root of a
value is a share of the whole range. Images with alpha are measured over black and over white, and
both are averaged (see `channels`).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import channels
from navigan_jax.array_types import Array, Float, Params
from navigan_jax.directions import Edit
from navigan_jax.editing.edit import apply_edit
from navigan_jax.generators.base import EditableLayer, Generator


def change_maps(
    generator: Generator,
    params: Params,
    layers: Sequence[EditableLayer],
    z: Float[Array | np.ndarray, "latents latent"],
    edits: Sequence[Edit],
    shifts: Float[np.ndarray, "edits steps"],
    *,
    microbatch: int,
    on_batch: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, "edits height width"]:
    """Returns E_{z,t} of the squared difference between edited and original image, per pixel.

    shifts: t, one row per edit. microbatch: latents per call; it changes the result by rounding
    alone. on_batch: called after each edit of each batch.
    Cost: one image for each latent, edit and shift, and one original for each latent; one compiled
    program serves all.
    """
    z = np.asarray(z)
    size = min(microbatch, len(z))
    total = np.zeros((len(edits), *generator.image_shape[:2]), np.float64)
    for start in range(0, len(z), size):
        chosen = z[start : start + size]
        weights = np.zeros(size, np.float32)
        weights[: len(chosen)] = 1
        padding = np.repeat(chosen[-1:], size - len(chosen), axis=0)
        carry, original = _begin(
            params, np.concatenate([chosen, padding]), generator=generator, layers=tuple(layers)
        )
        for number, (edit, row) in enumerate(zip(edits, shifts, strict=True)):
            total[number] += np.asarray(
                _sum_of_changes(
                    params,
                    carry,
                    original,
                    weights,
                    edit,
                    jnp.asarray(row, jnp.float32),
                    generator=generator,
                    layers=tuple(layers),
                )
            )
            on_batch()
    return total / (len(z) * shifts.shape[1])


@functools.partial(jax.jit, static_argnames=("generator", "layers"))
def _begin(
    params: Params, z: Array, *, generator: Generator, layers: tuple[EditableLayer, ...]
) -> tuple[Any, Array]:
    """Returns the input of the layers, and the original images composited as in `channels`."""
    carry = generator.prefix(params, z, layers)
    return carry, channels.over_black_and_white(generator.suffix(params, carry, layers))


@functools.partial(jax.jit, static_argnames=("generator", "layers"))
def _sum_of_changes(
    params: Params,
    carry: Any,
    original: Array,
    weights: Array,
    edit: Edit,
    shifts: Array,
    *,
    generator: Generator,
    layers: tuple[EditableLayer, ...],
) -> Float[Array, "height width"]:
    """Returns the squared changes, summed over the shifts and, weighted, over the batch."""

    def add(total: Array, shift: Array) -> tuple[Array, None]:
        images = generator.suffix(apply_edit(params, edit, shift), carry, layers)
        difference = channels.over_black_and_white(images) - original
        change = jnp.mean((difference / 2) ** 2, axis=3)
        return total + jnp.einsum("b,bhw->hw", weights, change), None

    return jax.lax.scan(add, jnp.zeros(original.shape[1:3], original.dtype), shifts)[0]


def change_map(
    original: Float[np.ndarray, "height width channels"],
    edited: Float[np.ndarray, "*steps height width channels"],
) -> Float[np.ndarray, "height width"]:
    """Returns the squared difference between an image and its edited versions, their mean."""
    before, after = map(channels.over_black_and_white, (original.astype(np.float64), edited))
    change = ((after - before) / 2) ** 2
    return change.reshape(-1, *before.shape).mean(axis=(0, 3))


def half_area(change: Float[np.ndarray, "height width"]) -> float:
    """Returns the smallest share of the pixels that holds half of the change, at most 0.5.

    0.5: the change is the same everywhere. Near 0: it is in a single place.
    """
    ordered = np.sort(change, axis=None)[::-1]
    reached = np.cumsum(ordered)
    if not reached[-1] > 0:
        return 0.5
    count = int(np.searchsorted(reached, reached[-1] / 2))
    before = reached[count - 1] if count else 0.0
    return float((count + (reached[-1] / 2 - before) / ordered[count]) / ordered.size)
