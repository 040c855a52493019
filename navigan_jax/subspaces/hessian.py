"""The top of the spectrum of a Hessian that is given by its products.

Departures from the official code: 1. eigenvalues and residuals are kept, and the run stops when
the residuals are small, not after a fixed number of iterations; 2. block Lanczos needs about a
third of the products of power iteration and finds all pairs to the same accuracy, in order;
3. where vectors are few, the matrix is made and solved whole; 4. signs follow a rule
(`linalg.fix_signs`). The official way is `power_spectrum`, its missing normalisation included.

Weighed against ours and not taken (benchmarks/solvers.py): `lobpcg_standard` of JAX holds three
blocks of all the wanted vectors, computes a product of each in every iteration and cannot be
resumed; the Lanczos routines of matfree run to a fixed depth with single vectors and leave
stopping, restarting and resuming to the caller, which is most of what is here.
"""

import dataclasses
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import linalg
from navigan_jax.array_types import Array, Block, Float, Key, Vector

# What rounding leaves of a zero residual in products of float32, relative to the largest
# eigenvalue: the Krylov relation says less, but no product could show it.
_NOISE = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class Spectrum:
    """The leading eigenpairs, largest first (for the power iteration: in order of discovery).

    vectors: orthonormal rows. residuals: ||Hv - λv|| / |λ|, infinite where λ = 0; none is told
    to be smaller than the products' rounding.
    products: products with single vectors that the run took. converged: whether all residuals
    are within the tolerance. lost_step: for central differences, the largest share of weights
    that the step ε‖v‖ did not change in their own precision (None for other products).
    """

    vectors: Block
    eigenvalues: np.ndarray
    residuals: np.ndarray
    products: int
    converged: bool
    lost_step: float | None = None


def relative_residuals(values: np.ndarray, residuals: np.ndarray) -> np.ndarray:
    """Returns residual / |value|, not below rounding, infinite where the value is 0."""
    floor = _NOISE * np.max(np.abs(values), initial=0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(values == 0, np.inf, np.maximum(residuals, floor) / np.abs(values))


def converged_pairs(state: linalg.KrylovState, count: int, tolerance: float) -> np.ndarray:
    """Returns for each of the `count` leading pairs whether it is found; False for missing ones.

    A residual within float32's noise of the largest eigenvalue counts: it cannot be smaller.
    """
    values, _, residuals = state.ritz()
    largest = np.max(np.abs(values), initial=0.0)
    allowed = np.maximum(tolerance * np.abs(values), _NOISE * largest)
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

    state: where an earlier run stopped; the result is the same to the bit as without the stop.
    on_step: called with the state after every block. Stops when all pairs are within the
      tolerance, or when `max_products` are used up (then `converged` is False), or when the
      first product shows that H is zero.
    Raises: ValueError if `count` is larger than `entries`, or `max_vectors` is too small.
    """
    needed = linalg.smallest_max_vectors(count, block_size)
    if not 1 <= count <= entries:
        raise ValueError(f"spectrum: expected 1 to {entries} pairs; got {count}")
    if entries <= max(max_vectors, needed):
        return _dense_spectrum(product, entries, count=count, dtype=dtype)
    if max_vectors < needed:
        raise ValueError(f"spectrum: expected max_vectors of {needed} or more; got {max_vectors}")
    start_key, run_key = jax.random.split(key)
    if state is None:
        state = linalg.start_lanczos(start_key, entries, block_size, dtype)
    steps = linalg.lanczos(run_key, product, state, wanted=count, max_vectors=max_vectors)
    while not _is_done(state, count, tolerance, max_products):
        state = next(steps)
        on_step(state)
    values, coefficients, residuals = state.ritz()
    values, residuals = values[:count], residuals[:count]
    return Spectrum(
        vectors=linalg.fix_signs(state.vectors(coefficients[:, :count])),
        eigenvalues=values,
        residuals=relative_residuals(values, residuals),
        products=state.products,
        converged=bool(converged_pairs(state, count, tolerance).all()),
    )


def _is_done(state: linalg.KrylovState, count: int, tolerance: float, max_products: int) -> bool:
    if not state.products:
        return False
    enough = len(state.projected) >= count and converged_pairs(state, count, tolerance).all()
    is_zero = not np.any(state.projected) and len(state.projected) >= count
    return bool(enough or is_zero or state.products >= max_products or not _is_finite(state))


def _is_finite(state: linalg.KrylovState) -> bool:
    return bool(np.isfinite(state.projected).all() and np.isfinite(state.coupling).all())


def _dense_spectrum(
    product: Callable[[Block], Block], entries: int, *, count: int, dtype: jnp.dtype
) -> Spectrum:
    """Makes the matrix, 16 columns at a time, and solves it in float64."""
    identity = np.eye(entries)
    columns = [
        np.asarray(product(jnp.asarray(identity[start : start + 16], dtype)), np.float64)
        for start in range(0, entries, 16)
    ]
    matrix = np.concatenate(columns)
    matrix = (matrix + matrix.T) / 2
    if not np.isfinite(matrix).all():
        values, vectors = np.full(entries, np.nan), identity
    else:
        values, vectors = np.linalg.eigh(matrix)
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    residuals = np.linalg.norm(matrix @ vectors - vectors * values[None, :], axis=0)
    return Spectrum(
        vectors=linalg.fix_signs(jnp.asarray(vectors.T, dtype)),
        eigenvalues=values,
        residuals=relative_residuals(values, residuals),
        products=entries,
        converged=True,
    )


@dataclasses.dataclass(frozen=True)
class PowerState:
    """Where a power iteration stands.

    found: the vectors so far, each of the norm it ended with, which estimates its eigenvalue.
    iterate, number: the current vector and its iterations. lost_step: as in `Spectrum`.
    """

    found: tuple[Vector, ...]
    iterate: Vector | None
    number: int
    lost_step: float = 0.0


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

    The paper's section 3.3 with the step ε‖v‖ of its code. Where `weights` + εv rounds back to
    `weights`, the difference says nothing; `lost_step` keeps the largest share of such entries.
    """
    while len(state.found) < count:
        start = state.iterate
        if start is None:
            draw = jax.random.fold_in(key, len(state.found))
            start = jax.random.normal(draw, weights.shape, weights.dtype)
        iterates = linalg.power_iteration(
            product, state.found, start, iterations=iterations - state.number
        )
        for vector, done in iterates:
            if done == 0:
                previous = vector
                continue
            lost = max(state.lost_step, float(share_of_lost_step(weights, previous, epsilon)))
            previous = vector
            number = state.number + 1
            last = number == iterations
            state = PowerState(
                found=(*state.found, vector) if last else state.found,
                iterate=None if last else vector,
                number=0 if last else number,
                lost_step=lost,
            )
            yield state


@jax.jit
def share_of_lost_step(weights: Vector, vector: Vector, epsilon: float) -> Float[Array, ""]:
    """Returns the share of entries of `weights` that adding ε · `vector` leaves as they are."""
    return jnp.mean((weights + epsilon * vector == weights) & (vector != 0))


def power_spectrum(
    product: Callable[[Block], Block], state: PowerState, *, iterations: int, tolerance: float
) -> Spectrum:
    """Returns what a finished power iteration found, with residuals: one more product a vector.

    Vectors keep the order of discovery and their own norms' eigenvalue estimates, as the paper's
    code would; nothing is sorted or mended.
    """
    values = np.array([float(jnp.linalg.norm(vector)) for vector in state.found])
    vectors = jnp.stack([v / jnp.maximum(jnp.linalg.norm(v), 1e-30) for v in state.found])
    images = jnp.concatenate([product(vector[None]) for vector in vectors])
    difference = images - jnp.asarray(values, vectors.dtype)[:, None] * vectors
    residuals = relative_residuals(values, np.asarray(jnp.linalg.norm(difference, axis=1)))
    return Spectrum(
        vectors=linalg.fix_signs(vectors),
        eigenvalues=values,
        residuals=residuals,
        products=len(values) * (iterations + 1),
        converged=bool((residuals <= tolerance).all()),
        lost_step=state.lost_step,
    )
