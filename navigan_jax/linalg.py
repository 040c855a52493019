"""Eigensolvers for a symmetric matrix that is given as a function: its product with vectors.

Vectors are rows: a block is [vectors, entries]. Long loops are Python generators of immutable
states, which the caller can show, save and resume. A state holds everything on which the rest of
the run depends.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax.array_types import Array, Block, Float, Key, Vector

Product = Callable[[Block], Block]

# A projection reads its argument once for each block of the basis, so few large blocks are faster.
_JOINED_ROWS = 16

# Result vectors computed at once: fewer take less memory, more read the basis less often.
_ROWS_AT_A_TIME = 8


def _rounding(block: Block) -> float:
    """Returns the relative norm below which the rest of a projected vector is only rounding."""
    return 100 * float(jnp.finfo(block.dtype).eps)


@jax.jit
def _overlap(basis: Block, block: Block) -> Float[Array, "basis block"]:
    # The highest precision keeps TPUs and tensor cores from rounding the products.
    return jnp.matmul(basis, block.T, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _combine(coefficients: Float[Array, "out basis"], basis: Block) -> Block:
    return jnp.matmul(coefficients, basis, precision=jax.lax.Precision.HIGHEST)


@functools.partial(jax.jit, donate_argnums=0)
def _accumulate(total: Block, coefficients: Float[Array, "out basis"], basis: Block) -> Block:
    return total + _combine(coefficients, basis)


@jax.jit
def _project_out(basis: Block, block: Block) -> tuple[Block, Float[Array, "basis block"]]:
    coefficients = _overlap(basis, block)
    return block - _combine(coefficients.T, basis), coefficients


def orthonormalise(block: Block) -> tuple[Block, np.ndarray]:
    """Returns (rows Q, lower-triangular R) with block = R Q and orthonormal rows.

    A row of the block that depends on the rows before it gives a zero row of Q and a zero column of
    R. The method is Cholesky QR with the small matrix in float64, repeated until no row gets much
    shorter.
    """
    return _orthonormalise(block, _on_host(_overlap(block, block)))


def _orthonormalise(block: Block, gram: np.ndarray) -> tuple[Block, np.ndarray]:
    """Returns the same as `orthonormalise`, given the block's Gram matrix."""
    count = len(block)
    resolution = float(jnp.finfo(block.dtype).eps) ** 0.5
    original = np.sqrt(np.diag(gram))
    factor = np.eye(count)
    while True:
        lengths = np.sqrt(np.diag(gram))
        lower, inverse = np.zeros((count, count)), np.zeros((count, count))
        for i in range(count):
            lower[i, :i] = inverse[:i, :i] @ gram[i, :i]
            rest = gram[i, i] - lower[i, :i] @ lower[i, :i]
            # A difference of squares has half the digits; the next round measures the true rest.
            length = max(np.sqrt(max(rest, 0.0)), resolution * lengths[i])
            if factor[i, i] * length <= _rounding(block) * original[i]:
                continue
            lower[i, i] = length
            inverse[i, :i] = -(lower[i, :i] @ inverse[:i, :i]) / length
            inverse[i, i] = 1.0 / length
        block = _combine(jnp.asarray(inverse, block.dtype), block)
        factor = factor @ lower
        pivots = np.diag(lower)
        # The shorter a row gets, the more rounding it has along the other rows; half is still fine.
        if not np.any((pivots > 0) & (pivots < 0.5 * lengths)):
            return block, factor
        gram = _on_host(_overlap(block, block))


def _on_host(array: Array) -> np.ndarray:
    return np.asarray(array, dtype=np.float64)


@functools.partial(jax.jit, donate_argnums=0)
def _put_rows(block: Block, rows: Block, start: int) -> Block:
    return jax.lax.dynamic_update_slice_in_dim(block, rows, start, axis=0)


@jax.jit
def fix_signs(vectors: Block) -> Block:
    """Returns the rows with signs such that the entry of largest magnitude is positive.

    In a tie the first such entry decides. An eigenvector is defined up to its sign; this rule makes
    reruns agree.
    """

    def sign(vector: Vector) -> Float[Array, ""]:
        return jnp.where(vector[jnp.argmax(jnp.abs(vector))] < 0, -1, 1).astype(vector.dtype)

    return vectors * jax.lax.map(sign, vectors)[:, None]


@dataclasses.dataclass(frozen=True)
class KrylovState:
    """A block Krylov decomposition: H V' = V' T + Q' C', V and Q orthonormal rows.

    basis: the blocks of V, m rows together. projected: T = V H V', (m, m), float64.
    candidate: Q, the next block, orthogonal to V. coupling: C', (m, block), float64.
    products: number of products with single vectors. restarts: number of contractions of V.
    """

    basis: tuple[Block, ...]
    projected: np.ndarray
    candidate: Block
    coupling: np.ndarray
    products: int = 0
    restarts: int = 0

    @property
    def is_finite(self) -> bool:
        """Whether no product so far held a NaN or an infinity."""
        return bool(np.isfinite(self.projected).all() and np.isfinite(self.coupling).all())

    def ritz(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns (values, descending; coefficients of the vectors in V as columns; residuals).

        residuals: the norms ||H v - value * v||, exact up to rounding.
        Values and residuals are NaN once the products are not finite.
        """
        return self._ritz

    @functools.cached_property
    def _ritz(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if not self.is_finite:
            unknown = np.full(len(self.projected), np.nan)
            return unknown, np.eye(len(unknown)), unknown
        values, coefficients = np.linalg.eigh(self.projected)
        values, coefficients = values[::-1], coefficients[:, ::-1]
        return values, coefficients, np.linalg.norm(self.coupling.T @ coefficients, axis=0)

    def vectors(self, coefficients: np.ndarray) -> Block:
        """Returns, as rows, V' times the columns of `coefficients` [m, count]."""
        weights = jnp.asarray(coefficients.T, self.candidate.dtype)
        total = jnp.zeros((len(weights), self.candidate.shape[1]), self.candidate.dtype)
        for start, block in zip(_starts(self.basis), self.basis, strict=True):
            total = _accumulate(total, weights[:, start : start + len(block)], block)
        return total

    def leading_vectors(self, count: int) -> Block:
        """Returns the `count` leading Ritz vectors with fixed signs, computed a few at a time."""
        _, coefficients, _ = self.ritz()
        result = jnp.zeros((count, self.candidate.shape[1]), self.candidate.dtype)
        for start in range(0, count, _ROWS_AT_A_TIME):
            some = coefficients[:, start : min(start + _ROWS_AT_A_TIME, count)]
            result = _put_rows(result, fix_signs(self.vectors(some)), start)
        return result

    def to_arrays(self) -> dict[str, Any]:
        """Returns the state as a tree of NumPy arrays, for saving."""
        return {
            "basis": {f"{index:04}": np.asarray(block) for index, block in enumerate(self.basis)},
            "projected": self.projected,
            "candidate": np.asarray(self.candidate),
            "coupling": self.coupling,
            "counts": np.array([self.products, self.restarts]),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> Self:
        """Returns the state from the result of `to_arrays`."""
        products, restarts = (int(count) for count in arrays["counts"])
        return cls(
            basis=tuple(jnp.asarray(arrays["basis"][name]) for name in sorted(arrays["basis"])),
            projected=np.asarray(arrays["projected"]),
            candidate=jnp.asarray(arrays["candidate"]),
            coupling=np.asarray(arrays["coupling"]),
            products=products,
            restarts=restarts,
        )


def start_lanczos(key: Key, entries: int, block_size: int, dtype: jnp.dtype) -> KrylovState:
    """Returns the empty decomposition with a random orthonormal block as its first candidate."""
    candidate, _ = orthonormalise(jax.random.normal(key, (block_size, entries), dtype))
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
    """Yields the decomposition after each block product; it never ends, the caller stops.

    Block Lanczos with full reorthogonalisation and thick restarts (Wu and Simon 2000; for blocks
    Golub and Underwood 1977). A step uses H for one product of the block and nothing else. At most
    `max_vectors` full-length vectors are in memory at a time, the caller's copy of the latest state
    included, the product's own memory not; `smallest_max_vectors` is the minimum. A block finds as
    many copies of a repeated eigenvalue as it has rows. A cluster converges at a rate given by its
    distance to the rest of the spectrum. The run depends only on `key`, `state` and `product`.
    """
    block_size = state.candidate.shape[0]
    kept = _kept_at_restart(wanted, block_size)
    # A contraction holds both bases, the candidate, and two copies of one group of rows.
    capacity = max_vectors - kept - _JOINED_ROWS - 2 * block_size
    while True:
        state = _extend(jax.random.fold_in(key, state.products), product, state)
        if len(state.projected) + block_size > capacity:
            state = _restart(state, kept)
        yield state


def smallest_max_vectors(wanted: int, block_size: int) -> int:
    """Returns the smallest `max_vectors` with which `lanczos` can find `wanted` pairs."""
    return 2 * _kept_at_restart(wanted, block_size) + _JOINED_ROWS + 4 * block_size


def _kept_at_restart(wanted: int, block_size: int) -> int:
    # More than wanted: the first dropped pair limits how fast the last wanted pairs converge.
    extra = max(block_size, wanted // 8)
    return -(-(wanted + extra) // block_size) * block_size


def _starts(blocks: Sequence[Block]) -> list[int]:
    return [0, *np.cumsum([len(block) for block in blocks])[:-1].tolist()] if blocks else []


def _extend(key: Key, product: Product, state: KrylovState) -> KrylovState:
    """Moves the candidate into the basis and makes the next candidate from its product."""
    basis = _append(state.basis, state.candidate)
    block_size = len(state.candidate)
    old = len(state.projected)
    new = old + block_size
    products = state.products + block_size
    newest_first = list(zip(_starts(basis), basis, strict=True))[::-1]
    coupled = np.append(np.abs(state.coupling).sum(axis=1) > 0, np.ones(block_size, bool))
    # First the blocks that H couples to the candidate, then all blocks. After the first pass only
    # rounding is left along the others, so one more pass over all of them is enough.
    first = [(at, block) for at, block in newest_first if coupled[at : at + len(block)].any()]
    column = np.zeros((new, block_size))
    factor = np.eye(block_size)
    rest, near = _subtract(first, product(state.candidate))
    norms: np.ndarray | None = None  # of the product
    fresh = np.zeros(block_size, dtype=bool)
    while True:
        rest, removed = _subtract(newest_first, rest)
        gram = _on_host(_overlap(rest, rest))  # the only wait for the device in a round
        if not np.isfinite(gram).all():
            unknown = np.full((new, new), np.nan)
            return KrylovState(
                basis, unknown, state.candidate, unknown[:, old:], products, state.restarts
            )
        lengths = np.sqrt(np.diag(gram))
        before = np.hypot(lengths, _record(removed, column, factor))
        if norms is None:
            norms = np.hypot(before, _record(near, column, factor))
        # A row that is only rounding adds no direction to the Krylov space.
        alive = fresh | (np.diag(factor) * lengths > _rounding(rest) * norms)
        if not alive.all():
            rest = rest * jnp.asarray(alive, rest.dtype)[:, None]
            gram = gram * np.outer(alive, alive)
        rest, again = _orthonormalise(rest, gram)
        factor = factor @ again
        pivots = np.diag(again)
        if np.any(pivots == 0):  # the space is invariant: continue with a random row outside it
            fresh |= pivots == 0
            factor[:, pivots == 0] = 0
            rest = _fill_zero_rows(key, rest)
        # A row that got much shorter has more rounding, along the basis too: repeat the round.
        elif not np.any(pivots < 0.1 * before):
            break
    projected = np.zeros((new, new))
    projected[:old, :old] = state.projected
    projected[:, old:] = column
    projected[old:, :old] = column[:old].T
    corner = projected[old:, old:]
    projected[old:, old:] = (corner + corner.T) / 2
    coupling = np.zeros((new, block_size))
    coupling[old:] = factor
    return KrylovState(basis, projected, rest, coupling, products, state.restarts)


def _append(basis: tuple[Block, ...], block: Block) -> tuple[Block, ...]:
    """Returns the basis with one more block; small blocks are joined in pairs, up to 16 rows.

    So each row is copied only a few times, and few shapes are compiled.
    """
    joined, rows = [block], len(block)
    while basis and len(basis[-1]) <= rows and len(basis[-1]) + rows <= _JOINED_ROWS:
        joined.insert(0, basis[-1])
        rows += len(basis[-1])
        basis = basis[:-1]
    return (*basis, jnp.concatenate(joined) if len(joined) > 1 else block)


Removed = list[tuple[int, Float[Array, "basis block"]]]


def _subtract(blocks: Sequence[tuple[int, Block]], rest: Block) -> tuple[Block, Removed]:
    """Returns `rest` with its components along the blocks removed in turn, and the coefficients."""
    removed = []
    for start, block in blocks:
        rest, coefficients = _project_out(block, rest)
        removed.append((start, coefficients))
    return rest, removed


def _record(removed: Removed, column: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Returns the norm of the components removed from each row, and adds them to `column`.

    The product of the candidate is `column` in the basis, plus `factor` times the current rows.
    """
    squares = np.zeros(len(factor))
    for start, coefficients in removed:
        part = _on_host(coefficients)
        column[start : start + len(part)] += part @ factor.T
        squares += np.sum(part**2, axis=0)
    return np.sqrt(squares)


@jax.jit
def _fill_zero_rows(key: Key, block: Block) -> Block:
    empty = jnp.all(block == 0, axis=1, keepdims=True)
    return jnp.where(empty, jax.random.normal(key, block.shape, block.dtype), block)


def _restart(state: KrylovState, kept: int) -> KrylovState:
    """Contracts the basis to the leading Ritz vectors; all residuals lie along the candidate."""
    values, coefficients, _ = state.ritz()
    leading = coefficients[:, :kept]
    groups = [
        jax.block_until_ready(state.vectors(leading[:, start : start + _JOINED_ROWS]))
        for start in range(0, kept, _JOINED_ROWS)
    ]
    return dataclasses.replace(
        state,
        basis=tuple(groups),
        projected=np.diag(values[:kept]),
        coupling=leading.T @ state.coupling,
        restarts=state.restarts + 1,
    )


def power_step(
    product: Callable[[Vector], Vector], found: Sequence[Vector], vector: Vector
) -> Vector:
    """Returns the next iterate P(H v / ||v||) of the power iteration for v = `vector`.

    This is the paper's section 3.3 as in its authors' code: P is `deflate` against the `found`
    vectors, and v is never normalised, so its norm tends to the eigenvalue. The first v is deflated
    too.
    """
    return deflate(found, product(vector) / jnp.linalg.norm(vector))


def deflate(found: Sequence[Vector], vector: Vector) -> Vector:
    """Returns the vector with its components along the `found` vectors removed in turn."""
    for other in found:
        vector = _deflate_once(other, vector)
    return vector


@jax.jit
def _deflate_once(other: Vector, vector: Vector) -> Vector:
    unit = other / jnp.linalg.norm(other)
    return vector - jnp.vdot(unit, vector) * unit
