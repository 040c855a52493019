"""The leading eigenpairs of a Hessian that is given by its products.

Departures from the official code:
1. Eigenvalues and residuals are kept, and the run stops when the residuals are small, not after a
   fixed number of iterations.
2. Block Lanczos needs about a third of the products of power iteration, and finds all pairs to the
   same accuracy and in order.
3. If there are few weights, the matrix is made and solved directly.
4. Signs follow a rule (`linalg.fix_signs`).
The official method is `power_spectrum`, with its missing normalisation.

Alternatives that were compared and rejected (benchmarks/solvers.py): JAX's `lobpcg_standard` holds
three blocks of all wanted vectors, computes a product of each in every iteration and cannot be
resumed. The Lanczos routines of matfree run to a fixed depth with single vectors, and leave
stopping, restarting and resuming to the caller, which is most of this module.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import linalg
from navigan_jax.array_types import Array, Block, Float, Key, Vector


def _noise(values: np.ndarray, dtype: jnp.dtype) -> float:
    """Returns the size of a zero residual after rounding, in products of that precision.

    The Krylov relation may give a smaller number, but no product could confirm it.
    """
    return 10 * float(jnp.finfo(dtype).eps) * float(np.max(np.abs(values), initial=0.0))


@dataclasses.dataclass(frozen=True, eq=False)
class Spectrum:
    """The leading eigenpairs, largest first (for the power iteration: in order of discovery).

    vectors: orthonormal rows. residuals: ||Hv - λv|| / |λ|, infinite where λ = 0, and never below
    the rounding of the products.
    products: number of products with single vectors. converged: whether all residuals are within
    the tolerance. lost_step: for central differences, the largest share of weights that the step
    ε‖v‖ does not change in their own precision (None for other products).
    """

    vectors: Block
    eigenvalues: np.ndarray
    residuals: np.ndarray
    products: int
    converged: bool
    lost_step: float | None = None


def relative_residuals(values: np.ndarray, residuals: np.ndarray, dtype: jnp.dtype) -> np.ndarray:
    """Returns residual / |value|, at least the rounding; infinite where the value is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.maximum(residuals, _noise(values, dtype)) / np.abs(values)
    return np.where(values == 0, np.inf, relative)


def converged_pairs(state: linalg.KrylovState, count: int, tolerance: float) -> np.ndarray:
    """Returns whether each of the `count` leading pairs has converged; False for missing pairs.

    A residual at the rounding of the products counts as converged: it cannot get smaller.
    """
    values, _, residuals = state.ritz()
    allowed = np.maximum(tolerance * np.abs(values), _noise(values, state.candidate.dtype))
    found = np.zeros(count, dtype=bool)
    found[: len(values)] = (residuals <= allowed)[:count]
    return found


def lanczos_spectrum(
    key: Key,
    product: Callable[[Block], Block],
    entries: int,
    *,
    count: int,
    tolerance: float,
    block_size: int,
    max_vectors: int,
    max_products: int,
    dtype: jnp.dtype = jnp.float32,
    state: linalg.KrylovState | None = None,
    on_step: Callable[[linalg.KrylovState], None] = lambda state: None,
) -> Spectrum:
    """Returns the `count` leading eigenpairs by block Lanczos.

    If the whole matrix fits in `max_vectors`, it is made and solved directly instead.
    state: where an earlier run stopped; the result is the same to the bit as without the stop.
    on_step: called with the state after every block. The run stops when all pairs are within the
      tolerance, or, with `converged` False, when `max_products` are used up or a product is not
      finite.
    Raises: ValueError if `count` is larger than `entries`, or `max_vectors` is too small.
    """
    needed = linalg.smallest_max_vectors(count, block_size)
    if not 1 <= count <= entries:
        raise ValueError(f"spectrum: expected 1 to {entries} pairs; got {count}")
    if entries > needed > max_vectors:
        raise ValueError(f"spectrum: expected max_vectors of {needed} or more; got {max_vectors}")
    start_key, run_key = jax.random.split(key)
    if state is None:
        state = linalg.start_lanczos(start_key, entries, block_size, dtype)
    if entries <= max(max_vectors, needed):
        steps = _solve_whole(product, state, count)
    else:
        steps = linalg.lanczos(run_key, product, state, wanted=count, max_vectors=max_vectors)
    while not _is_done(state, count, tolerance, max_products):
        state = next(steps)
        on_step(state)
    values, _, residuals = state.ritz()
    values, residuals = values[:count], residuals[:count]
    return Spectrum(
        vectors=state.leading_vectors(min(count, len(values))),
        eigenvalues=values,
        residuals=relative_residuals(values, residuals, state.candidate.dtype),
        products=state.products,
        converged=bool(converged_pairs(state, count, tolerance).all()),
    )


def _is_done(state: linalg.KrylovState, count: int, tolerance: float, max_products: int) -> bool:
    if state.products >= max_products or not state.is_finite:
        return True
    return len(state.projected) >= count and bool(converged_pairs(state, count, tolerance).all())


def _solve_whole(
    product: Callable[[Block], Block], state: linalg.KrylovState, count: int
) -> Iterator[linalg.KrylovState]:
    """Yields once: the decomposition by `count` eigenvectors of the whole matrix.

    The matrix is made 16 rows at a time, and solved in float64.
    """
    dtype, entries = state.candidate.dtype, state.candidate.shape[1]
    identity = np.eye(entries)
    matrix = np.concatenate(
        [
            np.asarray(product(jnp.asarray(identity[start : start + 16], dtype)), np.float64)
            for start in range(0, entries, 16)
        ]
    )
    values, vectors = np.full(count, np.nan), identity[:, :count]
    if np.isfinite(matrix).all():
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    yield dataclasses.replace(
        state,
        basis=(jnp.asarray(vectors.T, dtype),),
        projected=np.diag(values),
        coupling=np.zeros((count, len(state.candidate))),
        products=entries,
    )


@dataclasses.dataclass(frozen=True)
class PowerState:
    """The state of a power iteration.

    found: the vectors so far; the norm of each estimates its eigenvalue.
    iterate, number: the current vector and its number of iterations. lost_step: as in `Spectrum`.
    products: number of products with single vectors.
    """

    found: tuple[Vector, ...] = ()
    iterate: Vector | None = None
    number: int = 0
    lost_step: float = 0.0
    products: int = 0

    def to_arrays(self) -> dict[str, Any]:
        """Returns the state as a tree of NumPy arrays, for saving."""
        vectors = [*self.found, *([] if self.iterate is None else [self.iterate])]
        return {
            "vectors": {f"{index:04}": np.asarray(vector) for index, vector in enumerate(vectors)},
            "counts": np.array([len(self.found), self.number, self.products]),
            "lost_step": np.array(self.lost_step),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> Self:
        """Returns the state from the result of `to_arrays`."""
        vectors = [jnp.asarray(arrays["vectors"][name]) for name in sorted(arrays["vectors"])]
        found, number, products = (int(count) for count in arrays["counts"])
        return cls(
            found=tuple(vectors[:found]),
            iterate=vectors[found] if len(vectors) > found else None,
            number=number,
            lost_step=float(arrays["lost_step"]),
            products=products,
        )


def power_steps(
    key: Key,
    product: Callable[[Vector], Vector],
    weights: Vector,
    *,
    count: int,
    iterations: int,
    epsilon: float,
    state: PowerState,
) -> Iterator[PowerState]:
    """Yields the state after every iteration until `count` vectors are found.

    This is the paper's section 3.3 with the step ε‖v‖ of its code. An entry at which `weights` + εv
    rounds back to `weights` adds nothing to the difference; `lost_step` is the largest share of
    such entries. The iteration ends early if a vector becomes zero or not finite; that vector
    counts as found.
    """
    while len(state.found) < count:
        vector = state.iterate
        if vector is None:
            draw = jax.random.fold_in(key, len(state.found))
            vector = jax.random.normal(draw, weights.shape, weights.dtype)
            vector = linalg.deflate(state.found, vector)
        lost = float(share_of_lost_step(weights, vector, epsilon))
        vector = linalg.power_step(product, state.found, vector)
        norm = float(jnp.linalg.norm(vector))
        is_lost = norm == 0 or not math.isfinite(norm)
        is_last = is_lost or state.number + 1 == iterations
        state = PowerState(
            found=(*state.found, vector) if is_last else state.found,
            iterate=None if is_last else vector,
            number=0 if is_last else state.number + 1,
            lost_step=max(state.lost_step, lost),
            products=state.products + 1,
        )
        yield state
        if is_lost:
            return


@jax.jit
def share_of_lost_step(weights: Vector, vector: Vector, epsilon: float) -> Float[Array, ""]:
    """Returns the share of entries of `weights` that adding ε · `vector` does not change."""
    return jnp.mean((weights + epsilon * vector == weights) & (vector != 0))


def power_spectrum(
    product: Callable[[Block], Block], state: PowerState, *, tolerance: float
) -> Spectrum:
    """Returns the result of a finished power iteration; residuals take one more product per vector.

    As in the paper's code, vectors keep the order of discovery, their norms estimate the
    eigenvalues, and nothing is sorted or corrected. A zero vector at the end, which means that H
    has no further eigenvector, is left out unless it is the only one.
    """
    values = np.array([float(jnp.linalg.norm(vector)) for vector in state.found])
    count = max(1, int(np.count_nonzero(values)))
    values = values[:count]
    units = [v / jnp.maximum(jnp.linalg.norm(v), 1e-30) for v in state.found[:count]]
    residuals = [
        float(jnp.linalg.norm(product(unit[None])[0] - value * unit))
        for unit, value in zip(units, values, strict=True)
    ]
    relative = relative_residuals(values, np.array(residuals), units[0].dtype)
    return Spectrum(
        vectors=linalg.fix_signs(jnp.stack(units)),
        eigenvalues=values,
        residuals=relative,
        products=state.products + count,
        converged=bool((relative <= tolerance).all()),
        lost_step=state.lost_step,
    )
