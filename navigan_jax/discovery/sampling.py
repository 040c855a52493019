"""Draws of training: a direction and a shift for each sample."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from navigan_jax.array_types import Array, Float, Int, Key
from navigan_jax.errors import InputError


def _uniform(key: Key, batch: int) -> Float[Array, "batch"]:
    return jax.random.uniform(key, (batch,), minval=-1, maxval=1)


def _normal(key: Key, batch: int) -> Float[Array, "batch"]:
    return jax.random.normal(key, (batch,))


DISTRIBUTIONS: Mapping[str, Callable[[Key, int], Float[Array, "batch"]]] = {
    "uniform": _uniform,
    "normal": _normal,
}


def sample_shifts(
    key: Key,
    batch: int,
    directions: int,
    *,
    shift_scale: float,
    min_shift: float,
    distribution: str = "uniform",
) -> tuple[Int[Array, "batch"], Float[Array, "batch"]]:
    """Returns direction indices k, uniform in 0 to directions − 1, and shifts t.

    shift_scale: t is shift_scale times a draw of the distribution, U(-1, 1) or N(0, 1). min_shift:
    a shift with 0 < |t| < min_shift is moved to ±min_shift.
    Raises: InputError for an unknown distribution.
    Source: Voynov and Babenko 2020, section 3.2; min_shift is from the official program.
    """
    if distribution not in DISTRIBUTIONS:
        raise InputError(
            f"distribution: expected a distribution of shifts; got {distribution!r}; allowed: "
            f"{', '.join(DISTRIBUTIONS)}; set config.distribution"
        )
    key_index, key_shift = jax.random.split(key)
    indices = jax.random.randint(key_index, (batch,), 0, directions)
    shifts = shift_scale * DISTRIBUTIONS[distribution](key_shift, batch)
    return indices, keep_away_from_zero(shifts, min_shift)


def keep_away_from_zero(shifts: Float[Array, "batch"], min_shift: float) -> Float[Array, "batch"]:
    """Returns the shifts with 0 < |t| < min_shift moved to ±min_shift."""
    return jnp.where(jnp.abs(shifts) < min_shift, jnp.sign(shifts) * min_shift, shifts)
