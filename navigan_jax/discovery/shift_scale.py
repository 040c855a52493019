"""How far weights can be shifted before images stop looking like the generator's own.

Out-of-distribution scores are those of `editing.plausibility`. The largest plausible shift is the
end of an effective range shared by all directions: up to it, the mean score of images along ± the
directions does not exceed its bound.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax.array_types import Images
from navigan_jax.editing.plausibility import Plausibility
from navigan_jax.errors import InputError

_FLAT = 0.05  # share of the contrast of unchanged images below which an image is grey
_PRECISION = 1.05  # ratio of the two shifts between which a search ends
_MOST_STEPS = 40

# shift -> images of some samples, each along its own direction
Render = Callable[[float], Images]


@dataclasses.dataclass(frozen=True)
class Judgement:
    """How far images are from the generator's own.

    score: mean out-of-distribution score, in units of its bound. plausible: share of images with a
    score of at most 1. flat: share without contrast. broken: share with NaN or infinity.
    """

    score: float
    plausible: float
    flat: float
    broken: float


Judge = Callable[[Images], Judgement]


def make_judge(plausible: Plausibility, originals: Images) -> Judge:
    """Returns images -> judgement, relative to `originals`: unshifted images of these latents."""

    @jax.jit
    def describe(plausible: Plausibility, images: Images) -> Any:
        return plausible.scores(images), jnp.std(images, axis=(1, 2, 3))

    own, contrasts = (np.asarray(row, np.float64) for row in describe(plausible, originals))
    contrast, correction = np.median(contrasts), np.asarray(plausible.usual) - own.mean(axis=0)

    def judge(images: Images) -> Judgement:
        scores, contrasts = (np.asarray(row, np.float64) for row in describe(plausible, images))
        is_broken = np.logical_not(np.isfinite(scores).all(axis=1))
        mean = np.where(is_broken[:, None], np.inf, scores).mean(axis=0)
        is_flat = ~is_broken & (contrasts < _FLAT * contrast)
        return Judgement(
            score=float((mean + correction).max()),
            plausible=float(np.mean((scores <= 1).all(axis=1))),
            flat=float(is_flat.mean()),
            broken=float(is_broken.mean()),
        )

    return judge


def largest_plausible_shift(render: Render, judge: Judge, *, first: float) -> float:
    """Returns the largest t at which the mean score does not exceed its bound, within 5 %.

    first: shift at which the search begins. The search doubles or halves the shift until the result
    is bracketed, then bisects its logarithm. It never goes beyond a first shift that is too large.
    Raises: InputError if all shifts are within the bound or none is.
    """
    low, high, shift = 0.0, np.inf, first
    for _ in range(_MOST_STEPS):
        if judge(render(shift)).score <= 1:
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
        f"{low:g} and {high:g}; images hardly change with these weights, or break at any shift: "
        "choose another layer with --config.layer=NAME, or set a scale with --config.shift.scale=T"
    )


def require_images(render: Render, judge: Judge, *, scale: float, first: float) -> Judgement:
    """Returns the judgement at t = ±scale; refuses a scale that destroys the images.

    first: shift at which the search for the scale in the error message begins.
    Raises: InputError if most images at ±scale are grey or not finite, or none is plausible.
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
            f"{share:.0%} of the images at ±{scale:g}; the largest plausible shift is about "
            f"{advice:.3g}: set --config.shift.scale={advice:.3g}, or 0 to have it found"
        )
    return found


def along_directions(
    images_of: Callable[[Any, Any], Images], *, directions: int, samples: int
) -> Render:
    """Returns shift -> images along all directions in turn at +t, then at −t, and so on.

    images_of: (indices, shifts) -> images, compiled.
    """
    indices = jnp.arange(samples) % directions
    signs = jnp.where(jnp.arange(samples) // directions % 2, -1.0, 1.0)
    return lambda shift: images_of(indices, jnp.float32(shift) * signs)
