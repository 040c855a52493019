"""Eigensolvers for a symmetric product given as a function; knows no images.

Vectors are rows: a block is [vectors, entries]. Long loops are Python generators of immutable
states, so that the caller can show, save and resume them; a state holds everything that the rest
of the run depends on.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax.array_types import Array, Block, Float, Key, Vector

Product = Callable[[Block], Block]

# Below this share of its norm before, what is left of a vector after a projection is rounding.
_FLOAT32_NOISE = 1e-5
_JOINED_ROWS = 16


@jax.jit
def _overlap(basis: Block, block: Block) -> Float[Array, "basis block"]:
    # The highest precision keeps TPUs and tensor cores from rounding the products.
    return jnp.matmul(basis, block.T, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _combine(coefficients: Float[Array, "out basis"], basis: Block) -> Block:
    return jnp.matmul(coefficients, basis, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _project_out(basis: Block, block: Block) -> tuple[Block, Float[Array, "basis block"]]:
    coefficients = _overlap(basis, block)
    return block - _combine(coefficients.T, basis), coefficients


def orthonormalise(block: Block) -> tuple[Block, np.ndarray, int]:
    """Returns (rows Q, lower-triangular R, rank) with block = R Q and orthonormal Q.

    Rows of Q that the block does not determine (a dependent row) are zero, and so are their
    columns of R. Two passes, the small matrix in float64 (CholeskyQR2 with a guard).
    """
    count = block.shape[0]
    factor = np.eye(count)
    keep = np.ones(count, dtype=bool)
    for _ in range(2):
        gram = np.asarray(_overlap(block, block), dtype=np.float64)
        lower = np.zeros((count, count))
        inverse = np.zeros((count, count))
        # Row by row Cholesky: a row that depends on those before it is dropped, not divided by 0.
        scale = np.sqrt(np.max(np.diag(gram), initial=0.0))
        for i in range(count):
            lower[i, :i] = inverse[:i, :i] @ gram[i, :i]
            rest = gram[i, i] - lower[i, :i] @ lower[i, :i]
            norm = np.sqrt(max(rest, 0.0))
            # A square root of a float32 difference: digits below this are rounding.
            if not keep[i] or norm <= 3e-4 * np.sqrt(gram[i, i]) or norm <= 1e-30 * scale:
                keep[i] = False
                continue
            lower[i, i] = norm
            inverse[i, :i] = -(lower[i, :i] @ inverse[:i, :i]) / norm
            inverse[i, i] = 1.0 / norm
        block = _combine(jnp.asarray(inverse, block.dtype), block)
        factor = factor @ lower
    return block, factor, int(keep.sum())


def fix_signs(vectors: Block) -> Block:
    """Returns the rows with signs such that the entry of largest magnitude is positive.

    The first such entry decides a tie. An eigenvector is defined up to its sign; the rule makes
    reruns agree.
    """

    def fix(vector: Vector) -> Vector:
        return vector * jnp.where(vector[jnp.argmax(jnp.abs(vector))] < 0, -1, 1)

    return jax.lax.map(fix, vectors)


@dataclasses.dataclass(frozen=True)
class KrylovState:
    """A block Krylov decomposition: H V' = V' T + Q' C', V and Q orthonormal rows.

    basis: the blocks of V, m rows together. projected: T = V H V', (m, m), float64.
    candidate: Q, the next block, orthogonal to V. coupling: C', (m, block), float64.
    products: products with single vectors so far. restarts: how often V was contracted.
    """

    basis: tuple[Block, ...]
    projected: np.ndarray
    candidate: Block
    coupling: np.ndarray
    products: int = 0
    restarts: int = 0

    def ritz(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns (values, descending; coefficients of the vectors in V as columns; residuals).

        residuals: the norms ||H v - value * v||, exact up to rounding.
        """
        values, coefficients = np.linalg.eigh(self.projected)
        values, coefficients = values[::-1], coefficients[:, ::-1]
        return values, coefficients, np.linalg.norm(self.coupling.T @ coefficients, axis=0)

    def vectors(self, coefficients: np.ndarray) -> Block:
        """Returns V' combined by the columns of `coefficients` [m, count], as rows."""
        weights = jnp.asarray(coefficients.T, self.candidate.dtype)
        return sum(
            (
                _combine(weights[:, start : start + len(block)], block)
                for start, block in zip(_starts(self.basis), self.basis, strict=True)
            ),
            jnp.zeros((coefficients.shape[1], self.candidate.shape[1]), self.candidate.dtype),
        )


def start_lanczos(key: Key, entries: int, block_size: int, dtype: jnp.dtype) -> KrylovState:
    """Returns the empty decomposition with a random orthonormal block as its first candidate."""
    candidate, _, _ = orthonormalise(jax.random.normal(key, (block_size, entries), dtype))
    empty = np.zeros((0, 0))
    return KrylovState((), empty, candidate, np.zeros((0, block_size)))


def lanczos(
    key: Key,
    product: Product,
    state: KrylovState,
    *,
    wanted: int,
    max_vectors: int,
) -> Iterator[KrylovState]:
    """Yields the decomposition after each block product, without end: the caller decides when.

    Block Lanczos with full reorthogonalisation and thick restarts (Wu and Simon 2000; for blocks
    Golub and Underwood 1977). One product of the block a step; nothing else touches H. At most
    `max_vectors` vectors of full length are held at a time (`smallest_max_vectors` at least).
    A block finds as many copies of a repeated eigenvalue as it has rows, and clusters at the pace
    of their distance to the rest. The run depends on `key`, `state` and `product` alone.
    """
    block_size = state.candidate.shape[0]
    kept = _kept_at_restart(wanted, block_size)
    capacity = max_vectors - kept - 3 * block_size
    while True:
        rows = len(state.projected)
        if rows + block_size > capacity and rows > kept:
            state = _restart(state, kept)
        state = _extend(jax.random.fold_in(key, state.products), product, state)
        yield state


def smallest_max_vectors(wanted: int, block_size: int) -> int:
    """Returns the fewest vectors with which `lanczos` can find `wanted` pairs."""
    return 2 * _kept_at_restart(wanted, block_size) + 5 * block_size


def _kept_at_restart(wanted: int, block_size: int) -> int:
    # Some more than wanted: the last wanted pairs converge at the pace of the first one dropped.
    extra = max(block_size, wanted // 8)
    return -(-(wanted + extra) // block_size) * block_size


def _starts(blocks: Sequence[Block]) -> list[int]:
    return [0, *np.cumsum([len(block) for block in blocks])[:-1].tolist()] if blocks else []


def _extend(key: Key, product: Product, state: KrylovState) -> KrylovState:
    """Moves the candidate into the basis and makes the next one of its product."""
    basis = _append(state.basis, state.candidate)
    block_size = state.candidate.shape[0]
    old = len(state.projected)
    rest = product(state.candidate)
    norms = _norms(rest)
    # First the blocks that H couples to the candidate, then all: after the first step what
    # remains along the others is rounding, so one pass over them leaves no more than rounding.
    coupled = np.abs(state.coupling).sum(axis=1) > 0
    first = [
        i
        for i, start in enumerate(_starts(basis))
        if start == old or coupled[start : start + len(basis[i])].any()
    ]
    column = np.zeros((old + block_size, block_size))
    rest = _subtract(basis, first, rest, column)
    while True:
        before = _norms(rest)
        rest = _subtract(basis, range(len(basis)), rest, column)
        if np.all(_norms(rest) >= 0.5 * before) or np.all(_norms(rest) <= _FLOAT32_NOISE * norms):
            break
    # A row that is only rounding carries no direction of the Krylov space: the space is invariant.
    alive = _norms(rest) > _FLOAT32_NOISE * np.maximum(norms, 1e-30)
    if not alive.all():
        rest = rest * jnp.asarray(alive, rest.dtype)[:, None]
    candidate, factor, rank = orthonormalise(rest)
    if rank < block_size:
        candidate, factor = _refill(key, basis, candidate, factor)
    projected = np.zeros((old + block_size, old + block_size))
    projected[:old, :old] = state.projected
    projected[:, old:] = column
    projected[old:, :old] = column[:old].T
    corner = projected[old:, old:]
    projected[old:, old:] = (corner + corner.T) / 2
    coupling = np.zeros((old + block_size, block_size))
    coupling[old:] = factor
    return KrylovState(
        basis, projected, candidate, coupling, state.products + block_size, state.restarts
    )


def _append(basis: tuple[Block, ...], block: Block) -> tuple[Block, ...]:
    """Returns the basis with one more block; small ones at the end are joined to one of 16 rows.

    A projection reads what it projects once for each block, so few large blocks are faster.
    """
    last = [i for i, earlier in enumerate(basis) if len(earlier) >= _JOINED_ROWS]
    first = last[-1] + 1 if last else 0
    if sum(len(earlier) for earlier in basis[first:]) + len(block) < _JOINED_ROWS:
        return (*basis, block)
    return (*basis[:first], jnp.concatenate([*basis[first:], block]))


@jax.jit
def _row_norms(block: Block) -> Array:
    return jnp.sqrt(jnp.sum(block * block, axis=1))


def _norms(block: Block) -> np.ndarray:
    return np.asarray(_row_norms(block), dtype=np.float64)


def _subtract(
    basis: tuple[Block, ...], chosen: Sequence[int] | range, rest: Block, column: np.ndarray
) -> Block:
    """Removes the chosen blocks' components, newest first; adds the coefficients to `column`."""
    starts = _starts(basis)
    pending = []
    for i in reversed(chosen):
        rest, coefficients = _project_out(basis[i], rest)
        pending.append((starts[i], coefficients))
    for start, coefficients in pending:
        column[start : start + len(coefficients)] += np.asarray(coefficients, dtype=np.float64)
    return rest


def _refill(
    key: Key, basis: tuple[Block, ...], candidate: Block, factor: np.ndarray
) -> tuple[Block, np.ndarray]:
    """Replaces zero rows by random ones orthogonal to everything; H does not couple to them."""
    empty = _norms(candidate) < 0.5
    fresh = jax.random.normal(key, candidate.shape, candidate.dtype)
    fresh = fresh * jnp.asarray(empty, candidate.dtype)[:, None]
    for _ in range(2):
        for block in (*basis, candidate):
            fresh, _ = _project_out(block, fresh)
    rows, _, _ = orthonormalise(fresh)
    factor = factor.copy()
    factor[:, empty] = 0.0
    return candidate + rows, factor


def _restart(state: KrylovState, kept: int) -> KrylovState:
    """Contracts the basis to the leading Ritz vectors; all residuals lie along the candidate."""
    values, coefficients, _ = state.ritz()
    block_size = state.candidate.shape[0]
    blocks = []
    for start in range(0, kept, block_size):
        rows = state.vectors(coefficients[:, start : start + block_size])
        blocks.append(jax.block_until_ready(rows))
    return dataclasses.replace(
        state,
        basis=tuple(blocks),
        projected=np.diag(values[:kept]),
        coupling=coefficients[:, :kept].T @ state.coupling,
        restarts=state.restarts + 1,
    )


def power_iteration(
    product: Callable[[Vector], Vector],
    found: Sequence[Vector],
    start: Vector,
    *,
    iterations: int,
) -> Iterator[tuple[Vector, int]]:
    """Yields (iterate, number) for number 0 .. iterations, deflated against the `found` vectors.

    The paper's section 3.3 as its authors' code has it: v <- P(H v / ||v||), where P removes the
    component along each found vector in turn, and v itself is never normalised, so that its norm
    tends to the eigenvalue. `start` is projected too.
    """
    vector = _deflate(found, start)
    yield vector, 0
    for number in range(1, iterations + 1):
        vector = _deflate(found, product(vector) / jnp.linalg.norm(vector))
        yield vector, number


def _deflate(found: Sequence[Vector], vector: Vector) -> Vector:
    for other in found:
        vector = _deflate_once(other, vector)
    return vector


@jax.jit
def _deflate_once(other: Vector, vector: Vector) -> Vector:
    unit = other / jnp.linalg.norm(other)
    return vector - jnp.vdot(unit, vector) * unit
