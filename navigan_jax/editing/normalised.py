"""Edits of weights that the original program divides by a spectral norm, in its own file.

The edit is of the weight in use. The stored weight changes by σ times the edit, σ being the divisor
so far, and something beside it changes too:

1. u, so that the divisor stays σ. This is tried first; see `nn.spectral_norm`.
2. If no u gives σ, the copy uses c times the edited weight, and arrays around it absorb c.
3. If nothing absorbs a factor, the edit cannot be stored.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from navigan_jax.errors import InputError
from navigan_jax.generators.source_map import Spectral
from navigan_jax.nn import spectral_norm

_ROUNDINGS = 16  # of the dtype of u: how far σ may be off
_STEPS = 10  # of bisection: a share to three digits


def divisor(weights: np.ndarray, place: Spectral, memory: Any) -> float:
    """Returns σ of a stored weight in our order of the axes; memory: the whole file."""
    u, v = place.vectors(memory)
    return spectral_norm.divisor(spectral_norm.as_matrix(weights), u, v, place.epsilon)


def store_beside(
    weights: np.ndarray,
    sigma: float,
    place: Spectral,
    absorbing: Mapping[str, np.ndarray],
    memory: Any,
) -> tuple[str, ...]:
    """Changes u, or what absorbs a factor, and returns the names of all stored arrays that changed.

    Nothing changes if the weight cannot be stored; the names are then empty. weights: as changed in
    the file. sigma: σ before. absorbing: views of the absorbers in the file, by our path.
    """
    weight_name, left_name = place.names
    if (left := _left(weights, sigma, place, memory)) is not None:
        place.write_left(memory, left)
        return weight_name, left_name
    if not place.absorbers or any(each.path not in absorbing for each in place.absorbers):
        return ()
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        factor = np.float64(sigma) / divisor(weights, place, memory)
        changed = {}
        for each in place.absorbers:
            view = absorbing[each.path]
            shifted = view.astype(np.float64) + each.epsilon
            changed[each.path] = (factor**each.power * shifted - each.epsilon).astype(view.dtype)
            is_variance = each.power == 2
            if not np.isfinite(changed[each.path]).all() or (
                is_variance and changed[each.path].min() < 0
            ):
                return ()
    for path, values in changed.items():
        absorbing[path][...] = values
    return weight_name, *(each.name for each in place.absorbers)


def largest_share(
    weights: np.ndarray, change: np.ndarray, sigma: float, place: Spectral, memory: Any
) -> float:
    """Returns a share in [0, 1) of a change of the stored weight that can be stored, rounded down.

    weights: as stored before the change, which cannot be stored as a whole. It is the largest share
    if the largest singular value is what falls too low: that is a convex function of the share.
    """
    low, high = 0, 1 << _STEPS
    while high - low > 1:
        middle = (low + high) // 2
        tried = (weights + middle / (1 << _STEPS) * change).astype(weights.dtype)
        if _left(tried, sigma, place, memory) is None:
            high = middle
        else:
            low = middle
    return low / (1 << _STEPS)


def _left(weights: np.ndarray, sigma: float, place: Spectral, memory: Any) -> np.ndarray | None:
    """Returns u, as rounded in the file, with which the divisor is σ; None if there is none."""
    matrix, (u, v) = spectral_norm.as_matrix(weights), place.vectors(memory)
    dtype = np.dtype(place.u[1])
    left = spectral_norm.left_vector(matrix, u, v, sigma).astype(dtype)
    got = spectral_norm.divisor(matrix, left.astype(np.float64), v, place.epsilon)
    is_close = abs(got - sigma) <= _ROUNDINGS * np.finfo(dtype).eps * abs(sigma)
    return left if is_close else None


def describe(weights: np.ndarray, sigma: float, place: Spectral) -> str:
    """Returns in words why no u gives σ."""
    if place.v is not None:
        return "whose product with the stored vector v is 0"
    values = np.linalg.svd(spectral_norm.as_matrix(weights), compute_uv=False) / abs(sigma)
    if values[0] < 1:
        return f"whose largest singular value is {values[0]:.6g}, below 1"
    if values[-1] > 1:
        return f"whose smallest singular value is {values[-1]:.6g}, above 1"
    return "whose norm would be lost in the rounding of the file"


def refusal(
    source: pathlib.Path, misfits: Mapping[str, tuple[str, float]], shifts: Sequence[float]
) -> InputError:
    """Returns the error for weights that cannot be stored. misfits: {path: (reason, share)}."""
    share = min(share for _, share in misfits.values())
    if share == 0:
        most = "no smaller shift of this sign works"
    elif len(shifts) == 1:
        most = f"the largest shift that works is {share * shifts[0]:.6g}"
    else:
        most = f"all shifts times {share:.3g} would work"
    got = "; ".join(f"{path}, {reason}" for path, (reason, _) in misfits.items())
    return InputError(
        f"{source}: expected edited weights that a spectral norm can give; got {got}; the original "
        f"program divides by the norm, so no stored weight gives these; {most}; shift less, or the "
        "other way, or use the converted generator with a recipe"
    )
