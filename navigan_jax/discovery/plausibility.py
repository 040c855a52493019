"""How far weights can be shifted before images stop looking like the generator's own.

The rule: an image is plausible if each of its statistics is no further from the mean of the
unchanged images than three of their standard deviations, or a small floor where these hardly
differ. Statistics are mean, contrast, the share of saturated pixels, and the energy in each band
of a distance's features. The largest plausible shift is the one up to which nine in ten of the
images shifted by ±t along the first directions are plausible.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax.array_types import Array, Float, Images
from navigan_jax.errors import InputError
from navigan_jax.perceptual.base import Distance, squared_norms

_DEVIATIONS = 3.0
_FLOOR = 0.02  # of images in [-1, 1]: differences below cannot be seen
_SATURATED = 0.98  # |value| from which a pixel is black or white in its channel
_WANTED = 0.9  # share of plausible images
_FLAT = 0.05  # of the contrast of unchanged images: below, an image is grey
_PRECISION = 1.05  # of the shift that is found
_MOST_STEPS = 40

# shift -> images of some samples, each along its own direction
Render = Callable[[float], Images]


@dataclasses.dataclass(frozen=True)
class Judgement:
    """plausible, flat, broken: shares of images; flat ones have no contrast, broken ones NaN."""

    plausible: float
    flat: float
    broken: float


def make_judge(metric: Distance, originals: Images) -> Callable[[Images], Judgement]:
    """Returns images -> judgement, by what is usual among the `originals`.

    Raises: InputError if these are not finite.
    """
    describe = jax.jit(_describe)
    usual = np.asarray(describe(metric, originals), np.float64)
    if not np.isfinite(usual).all():
        raise InputError(
            "generator: expected finite images; got NaN or infinity from the unchanged weights; "
            "check them (python -m tools.convert_weights inspect FILE)"
        )
    centre = usual.mean(axis=0)
    allowed = np.maximum(_DEVIATIONS * usual.std(axis=0), _FLOOR)
    contrast = np.median(usual[:, 1])

    def judge(images: Images) -> Judgement:
        found = np.asarray(describe(metric, images), np.float64)
        finite = np.isfinite(found).all(axis=1)
        near = (np.abs(np.nan_to_num(found) - centre) <= allowed).all(axis=1)
        flat = finite & (found[:, 1] < _FLAT * contrast)
        return Judgement(float(np.mean(finite & near)), float(flat.mean()), float(np.mean(~finite)))

    return judge


def _describe(metric: Distance, images: Images) -> Float[Array, "batch statistics"]:
    pixels = images.reshape(len(images), -1)
    energies = jnp.sqrt(squared_norms(metric.features(images)))
    saturated = jnp.mean(jnp.abs(pixels) > _SATURATED, axis=1)
    # A mean of booleans hides what is not finite; the others do not.
    return jnp.stack([jnp.mean(pixels, axis=1), jnp.std(pixels, axis=1), saturated, *energies], 1)


def largest_plausible_shift(
    render: Render, judge: Callable[[Images], Judgement], *, first: float
) -> float:
    """Returns the largest t at which nine in ten images are plausible, within 5 %.

    first: where to begin. The shift is doubled or halved until it is bracketed, then bisected in
    its logarithm; what lies beyond a first shift that is too large is not looked at.
    Raises: InputError if no shift is too large or too small, as then images do not depend on it.
    """

    def is_plausible(shift: float) -> bool:
        return judge(render(shift)).plausible >= _WANTED

    low, high, shift = 0.0, np.inf, first
    for _ in range(_MOST_STEPS):
        if is_plausible(shift):
            low = shift
        else:
            high = shift
        if low and high < np.inf:
            if high <= _PRECISION * low:
                return low
            shift = float(np.sqrt(low * high))
        else:
            shift = 2 * low if low else high / 2
    raise InputError(
        f"shift.scale: expected a largest shift at which images stay plausible; got none between "
        f"{low:g} and {high:g}; these weights do not matter, or break at any shift: choose another "
        "layer with --config.layer=NAME, or give the scale with --config.shift.scale=T"
    )


def require_images(
    render: Render, judge: Callable[[Images], Judgement], *, scale: float, first: float
) -> Judgement:
    """Returns the judgement at t = ±scale; refuses a scale at which images are none.

    first: for the search of a better scale, which the message names.
    Raises: InputError if most images there are grey or not finite, or none at all is plausible.
    """
    found = judge(render(scale))
    share = found.flat + found.broken
    if share > 0.5 or not found.plausible:
        got = "NaN or infinity" if found.broken >= found.flat else "plain grey"
        if share <= 0.5:
            got, share = "what this generator never makes", 1.0
        advice = largest_plausible_shift(render, judge, first=min(first, scale))
        raise InputError(
            f"config.shift.scale: expected shifts at which images stay images; got {got} in "
            f"{share:.0%} of those at ±{scale:g}; the largest plausible shift is about "
            f"{advice:.3g}: set --config.shift.scale={advice:.3g}, or 0 to have it found"
        )
    return found


def along_directions(
    images_of: Callable[[Any, Any], Images], *, directions: int, samples: int
) -> Render:
    """Returns shift -> images along each direction in turn, at +t, then at −t, and so on.

    images_of: (indices, shifts) -> images, compiled.
    """
    indices = jnp.arange(samples) % directions
    signs = jnp.where(jnp.arange(samples) // directions % 2, -1.0, 1.0)
    return lambda shift: images_of(indices, jnp.float32(shift) * signs)
