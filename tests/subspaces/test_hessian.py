"""Spectra against dense solutions, for matrices with prescribed eigenvalues."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import linalg
from navigan_jax.array_types import Array, Block
from navigan_jax.subspaces import hessian

ENTRIES = 173
SPECTRA = {
    "decaying": 2.0 * 0.9 ** np.arange(ENTRIES),
    "clustered": np.concatenate([[3, 2, 2 * (1 - 1e-4), 2 * (1 - 2e-4)], 0.9 ** np.arange(169)]),
    "low rank": np.concatenate([[2.0, 1.0], np.zeros(ENTRIES - 2)]),
}


@functools.cache
def draw_rotation(entries: int) -> np.ndarray:
    """Returns a random orthogonal matrix, whose columns are the eigenvectors of the problems."""
    return np.linalg.qr(np.random.RandomState(1).standard_normal((entries, entries)))[0]


def make_matrix(values: np.ndarray) -> np.ndarray:
    vectors = draw_rotation(len(values))
    matrix = (vectors * values[None, :]) @ vectors.T
    return ((matrix + matrix.T) / 2).astype(np.float32)


class Product:
    """Multiplies rows by a matrix and counts them."""

    def __init__(self, matrix: np.ndarray) -> None:
        self._matrix = jnp.asarray(matrix)
        self.rows = 0

    def __call__(self, block: Block) -> Block:
        self.rows += len(block)
        return jnp.matmul(block, self._matrix, precision=jax.lax.Precision.HIGHEST)


def solve(product: Callable[[Block], Block], **changed: object) -> hessian.Spectrum:
    """Returns the leading pairs, by default with settings that need restarts."""
    settings = {
        "entries": ENTRIES,
        "count": 4,
        "tolerance": 1e-4,
        "block_size": 2,
        "max_vectors": 50,
        "max_products": 600,
    }
    return hessian.lanczos_spectrum(jax.random.key(5), product, **(settings | changed))


def assert_is_spectrum_of(spectrum: hessian.Spectrum, matrix: np.ndarray, tolerance: float) -> None:
    """Asserts the dense values and projector onto all the vectors, and the true residuals."""
    count = len(spectrum.eigenvalues)
    values, vectors = np.linalg.eigh(np.float64(matrix))
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    np.testing.assert_allclose(spectrum.eigenvalues, values, atol=tolerance * values[0])
    found = np.asarray(spectrum.vectors, np.float64)
    np.testing.assert_allclose(found @ found.T, np.eye(count), atol=1e-5)
    np.testing.assert_allclose(found.T @ found, vectors @ vectors.T, atol=0.02)
    rest = np.float64(matrix) @ found.T - found.T * spectrum.eigenvalues[None, :]
    true = np.linalg.norm(rest, axis=0) / np.abs(spectrum.eigenvalues)
    assert (spectrum.residuals <= 2 * tolerance).all()
    assert (true <= np.maximum(1.5 * spectrum.residuals, 3e-6)).all()


@pytest.mark.parametrize("block_size", [1, 2, 3])
@pytest.mark.parametrize("spectrum", ["decaying", "clustered"])
def test_lanczos_finds_the_dense_spectrum(spectrum: str, block_size: int) -> None:
    """Little memory forces restarts; products are counted, and signs follow the rule."""
    matrix = make_matrix(SPECTRA[spectrum])
    product = Product(matrix)
    found = solve(product, block_size=block_size)
    assert found.converged and found.products == product.rows < 400
    assert_is_spectrum_of(found, matrix, 1e-4)
    np.testing.assert_array_equal(linalg.fix_signs(jnp.array(found.vectors)), found.vectors)


def test_more_pairs_than_the_rank_have_zero_values() -> None:
    """The run ends; infinite residuals mark the vectors without meaning."""
    found = solve(Product(make_matrix(SPECTRA["low rank"])))
    np.testing.assert_allclose(found.eigenvalues, [2, 1, 0, 0], atol=1e-5)
    assert (found.residuals[:2] < 1e-4).all() and (found.residuals[2:] > 1e-2).all()


def test_zero_matrix_ends_with_zero_values() -> None:
    found = solve(Product(np.zeros((ENTRIES, ENTRIES), np.float32)))
    np.testing.assert_array_equal(found.eigenvalues, 0)
    assert np.isinf(found.residuals).all()


@pytest.mark.parametrize("entries", [2, 37, 50])
def test_small_matrix_is_solved_whole(entries: int) -> None:
    """One product per entry gives all pairs to rounding, up to the size of the matrix."""
    matrix = make_matrix(2.0 * 0.9 ** np.arange(entries))
    product = Product(matrix)
    states: list[linalg.KrylovState] = []
    found = solve(product, entries=entries, count=2, on_step=states.append)
    assert found.products == product.rows == entries and found.converged
    assert_is_spectrum_of(found, matrix, 1e-6)
    (state,) = states
    assert hessian.converged_pairs(state, 2, 1e-6).all()
    again = solve(product, entries=entries, count=2, state=state)
    assert product.rows == entries
    np.testing.assert_array_equal(again.vectors, found.vectors)
    whole = solve(product, entries=entries, count=entries)
    assert_is_spectrum_of(whole, matrix, 1e-3)


def test_small_and_large_ways_agree() -> None:
    """Both methods solve the same matrix; their numbers of products differ."""
    matrix = make_matrix(SPECTRA["decaying"])
    ways = [solve(Product(matrix), max_vectors=size, tolerance=1e-6) for size in (50, ENTRIES)]
    assert ways[0].products != ways[1].products == ENTRIES
    np.testing.assert_allclose(ways[0].eigenvalues, ways[1].eigenvalues, rtol=1e-5)
    np.testing.assert_allclose(ways[0].vectors, ways[1].vectors, atol=1e-4)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"count": ENTRIES + 1}, f"expected 1 to {ENTRIES} pairs; got {ENTRIES + 1}"),
        ({"count": 0}, f"expected 1 to {ENTRIES} pairs; got 0"),
        ({"max_vectors": 35}, "expected max_vectors of 36 or more; got 35"),
    ],
)
def test_settings_that_cannot_work_are_refused(changed: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solve(Product(make_matrix(SPECTRA["decaying"])), **changed)


def test_run_that_gives_up_says_so() -> None:
    """It stops at the allowed number of products and returns its pairs with true residuals."""
    product = Product(make_matrix(SPECTRA["decaying"]))
    found = solve(product, max_products=12)
    assert not found.converged and product.rows == found.products == 12
    assert len(found.eigenvalues) == 4 and found.residuals.max() > 1e-4


@pytest.mark.parametrize("max_vectors", [50, ENTRIES])
def test_products_that_are_not_finite_end_the_run(max_vectors: int) -> None:
    """The run ends at once, with NaN as values and no exception of the small eigensolver."""
    product = Product(np.full((ENTRIES, ENTRIES), np.nan, np.float32))
    found = solve(product, max_vectors=max_vectors)
    assert not found.converged and np.isnan(found.eigenvalues).all()
    assert product.rows <= ENTRIES


def test_resumed_run_ends_with_the_same_bits() -> None:
    """From saved states early, at a restart and late; no product is repeated."""
    product = Product(make_matrix(SPECTRA["clustered"]))
    states: list[linalg.KrylovState] = []
    whole = solve(product, on_step=states.append)
    assert states[-1].restarts > 0
    restart = next(i for i, state in enumerate(states) if state.restarts > 0)
    for at in (0, restart - 1, restart, len(states) - 2, len(states) - 1):
        state = linalg.KrylovState.from_arrays(states[at].to_arrays())
        product.rows = 0
        resumed = solve(product, state=state)
        np.testing.assert_array_equal(resumed.vectors, whole.vectors)
        np.testing.assert_array_equal(resumed.eigenvalues, whole.eigenvalues)
        np.testing.assert_array_equal(resumed.residuals, whole.residuals)
        assert product.rows == whole.products - states[at].products


def test_run_depends_on_its_seed_alone_and_signs_on_none() -> None:
    """The same key gives the same bits; another key other bits, but the same pairs and signs."""
    product = Product(make_matrix(SPECTRA["decaying"]))
    first, again = solve(product), solve(product)
    np.testing.assert_array_equal(first.vectors, again.vectors)
    settings = {"count": 4, "tolerance": 1e-5, "block_size": 2, "max_vectors": 50}
    other = hessian.lanczos_spectrum(
        jax.random.key(6), product, ENTRIES, max_products=600, **settings
    )
    assert np.any(np.asarray(other.vectors) != np.asarray(first.vectors))
    np.testing.assert_allclose(other.vectors, first.vectors, atol=1e-2)


def test_residual_is_never_told_below_the_rounding_of_products() -> None:
    """Also for an eigenvalue that is negative or zero."""
    values, residuals = np.array([2.0, -0.5, 1e-9, 0.0]), np.array([0.0, 1e-3, 0.0, 0.0])
    single = hessian.relative_residuals(values, residuals, jnp.float32)
    eps = float(jnp.finfo(jnp.float32).eps)
    np.testing.assert_allclose(single[:3], [10 * eps, 2e-3, 2e10 * eps])
    assert np.isinf(single[3])
    double = hessian.relative_residuals(values, residuals, jnp.float64)
    assert double[0] < 1e-8 * single[0]


def power_run(
    product: Callable[[Array], Array],
    weights: Array,
    state: hessian.PowerState | None = None,
    *,
    count: int = 3,
    iterations: int = 40,
    epsilon: float = 0.1,
) -> list[hessian.PowerState]:
    """Returns all states of a power iteration."""
    steps: Iterator[hessian.PowerState] = hessian.power_steps(
        jax.random.key(8),
        product,
        weights,
        count=count,
        iterations=iterations,
        epsilon=epsilon,
        state=hessian.PowerState() if state is None else state,
    )
    return list(steps)


def one_by_one(product: Product) -> Callable[[Array], Array]:
    return lambda vector: product(vector[None])[0]


def test_power_iteration_finds_well_separated_pairs() -> None:
    """Pairs are in order; eigenvalues are the iterates' norms; a residual takes a product."""
    values = 4.0 * 0.5 ** np.arange(ENTRIES)
    matrix = make_matrix(values)
    product = Product(matrix)
    states = power_run(one_by_one(product), jnp.ones(ENTRIES))
    assert [state.products for state in states] == list(range(1, 121))
    assert product.rows == 120
    found = hessian.power_spectrum(product, states[-1], tolerance=1e-4)
    assert product.rows == found.products == 123 and found.converged
    assert_is_spectrum_of(found, matrix, 1e-4)


def test_power_iteration_starts_from_deflated_draws() -> None:
    """Each vector's first iterate is a step from its own draw, deflated against earlier vectors."""
    product = one_by_one(Product(make_matrix(SPECTRA["decaying"])))
    states = power_run(product, jnp.ones(ENTRIES), iterations=2)
    for number in range(3):
        found = states[2 * number].found
        draw = jax.random.normal(jax.random.fold_in(jax.random.key(8), number), (ENTRIES,))
        first = linalg.power_step(product, found, linalg.deflate(found, draw))
        np.testing.assert_array_equal(states[2 * number].iterate, first)


def test_power_iteration_reports_what_it_has_not_found() -> None:
    """Few iterations on a flat spectrum: residuals are large and true, `converged` is False."""
    matrix = make_matrix(2.0 * 0.98 ** np.arange(ENTRIES))
    product = Product(matrix)
    state = power_run(one_by_one(product), jnp.ones(ENTRIES), iterations=5)[-1]
    found = hessian.power_spectrum(product, state, tolerance=1e-3)
    assert not found.converged and found.residuals.min() > 0.01
    vectors = np.asarray(found.vectors, np.float64)
    rest = np.float64(matrix) @ vectors.T - vectors.T * found.eigenvalues[None, :]
    true = np.linalg.norm(rest, axis=0) / found.eigenvalues
    np.testing.assert_allclose(found.residuals, true, rtol=1e-3)


def test_resumed_power_iteration_ends_with_the_same_bits() -> None:
    """From every state, within a vector and between two."""
    product = one_by_one(Product(make_matrix(SPECTRA["clustered"])))
    weights = jnp.linspace(-1, 1, ENTRIES)
    whole = power_run(product, weights, iterations=4)
    for at in range(len(whole)):
        state = hessian.PowerState.from_arrays(whole[at].to_arrays())
        resumed = power_run(product, weights, state, iterations=4)
        assert len(resumed) == len(whole) - at - 1
        last = resumed[-1] if resumed else state
        for field in dataclasses.fields(hessian.PowerState):
            ours, theirs = (getattr(end, field.name) for end in (last, whole[-1]))
            jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_step_that_float32_loses_is_reported() -> None:
    """With large weights and a Hessian so flat that the iterate shrinks, w + ε v rounds to w.

    The true central difference is then zero or rounding; with small weights nothing is lost.
    """
    product = one_by_one(Product(make_matrix(1e-5 * SPECTRA["decaying"])))
    lost = {}
    for size in (1e-3, 10.0):
        weights = jnp.full(ENTRIES, size)
        state = power_run(product, weights, count=1, iterations=3)[-1]
        lost[size] = state.lost_step
        vector = state.found[0]
        moved = np.asarray(weights + 0.1 * vector) != np.asarray(weights)
        assert abs(np.mean(~moved) - lost[size]) < 0.2
    assert lost[1e-3] < 0.05 and lost[10.0] > 0.9


def test_share_of_lost_step_counts_entries() -> None:
    """Of four entries: two change, one is too large to change, one has no step."""
    weights = jnp.array([1.0, -0.5, 1e9, 3.0])
    vector = jnp.array([1.0, 1e-3, 1.0, 0.0])
    assert float(hessian.share_of_lost_step(weights, vector, 0.1)) == 0.25


@pytest.mark.parametrize(("bad", "first"), [(0.0, True), (np.nan, True), (0.0, False)])
def test_power_iteration_ends_where_a_vector_vanishes(bad: float, first: bool) -> None:
    """Zero and NaN end it at once; a zero vector after others is not returned as a direction."""
    product = one_by_one(Product(make_matrix(SPECTRA["decaying"])))
    calls = []

    def failing(vector: Array) -> Array:
        calls.append(1)
        return product(vector) * (bad if first or len(calls) > 12 else 1.0)

    states = power_run(failing, jnp.ones(ENTRIES), iterations=10)
    assert len(calls) == (1 if first else 13) == states[-1].products
    found = hessian.power_spectrum(
        lambda block: failing(block[0])[None], states[-1], tolerance=1e-3
    )
    assert len(found.eigenvalues) == len(found.vectors) == 1
    if first:
        np.testing.assert_array_equal(found.eigenvalues, bad)
    else:
        assert found.eigenvalues[0] > 0
