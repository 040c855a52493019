"""Block Lanczos by its defining relation, on matrices with prescribed spectra."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import linalg
from navigan_jax.array_types import Array, Block

ENTRIES = 211
WANTED = 5
DTYPES = ("float32", "float64")


def tail(*leading: float) -> np.ndarray:
    """Returns the leading eigenvalues, followed by a tail that decays far below them."""
    return np.concatenate([leading, 0.1 * min(leading) * 0.97 ** np.arange(ENTRIES - len(leading))])


# Descending. The five leading pairs of each are what the tests look for.
SPECTRA = {
    "decaying": 3.0 * 0.8 ** np.arange(ENTRIES),
    "cluster": tail(2.0, 1.0 + 2e-3, 1.0 + 1e-3, 1.0, 0.7),
    "near tie": tail(2.0, 1.5, 1.5 * (1 - 1e-5), 1.0, 1.0 * (1 - 1e-5)),
    "double": tail(2.0, 2.0, 1.5, 1.0, 1.0),
    "triple": tail(2.0, 2.0, 2.0, 1.5, 1.0),
    "indefinite": np.concatenate([tail(2.0, 1.6, 1.3, 1.0, 0.8)[:-2], [-0.5, -1.9]]),
    "low rank": np.concatenate([[2.0, 1.0, 0.5], np.zeros(ENTRIES - 3)]),
    "identity": np.ones(ENTRIES),
    "zero": np.zeros(ENTRIES),
}
COPIES = {"double": 2, "triple": 3, "identity": WANTED}


@pytest.fixture(params=DTYPES)
def dtype(request: pytest.FixtureRequest) -> Iterator[np.dtype]:
    """Each dtype, with 64 bits on while a test needs them."""
    with jax.enable_x64(request.param == "float64"):
        yield np.dtype(request.param)


def eps(dtype: np.dtype) -> float:
    return float(np.finfo(dtype).eps)


@functools.cache
def draw_rotation() -> np.ndarray:
    """Returns a random orthogonal matrix."""
    return np.linalg.qr(np.random.RandomState(1).standard_normal((ENTRIES, ENTRIES)))[0]


def draw_matrix(spectrum: str, dtype: np.dtype) -> np.ndarray:
    """Returns a symmetric matrix with these eigenvalues and random eigenvectors."""
    vectors = draw_rotation()
    matrix = (vectors * SPECTRA[spectrum][None, :]) @ vectors.T
    return ((matrix + matrix.T) / 2).astype(dtype)


class CountedProduct:
    """Multiplies rows by a matrix; counts the rows, and the full-length vectors in memory."""

    def __init__(self, matrix: np.ndarray) -> None:
        self._matrix = jnp.asarray(matrix)
        self.rows = 0
        self.most_alive = 0

    def __call__(self, block: Block) -> Block:
        self.rows += len(block)
        return jnp.matmul(block, self._matrix, precision=jax.lax.Precision.HIGHEST)

    def look(self) -> None:
        """Records the number of full-length vectors now in memory."""
        alive = [array for array in jax.live_arrays() if array is not self._matrix]
        vectors = sum(array.size // ENTRIES for array in alive if array.shape[-1:] == (ENTRIES,))
        self.most_alive = max(self.most_alive, vectors)


def run(
    product: Callable[[Block], Block],
    dtype: np.dtype,
    *,
    block_size: int,
    steps: int,
    max_vectors: int | None = None,
    wanted: int = WANTED,
    state: linalg.KrylovState | None = None,
) -> list[linalg.KrylovState]:
    """Returns the states after each of `steps` steps; by default with the least memory."""
    if state is None:
        state = linalg.start_lanczos(jax.random.key(3), ENTRIES, block_size, dtype)
    if max_vectors is None:
        max_vectors = linalg.smallest_max_vectors(wanted, block_size)
    states = linalg.lanczos(
        jax.random.key(4), product, state, wanted=wanted, max_vectors=max_vectors
    )
    return [next(states) for _ in range(steps)]


def rows_of(state: linalg.KrylovState) -> np.ndarray:
    return np.concatenate([np.asarray(block, np.float64) for block in state.basis])


def assert_relation(
    matrix: np.ndarray, scale: float, state: linalg.KrylovState, tolerance: float
) -> None:
    """H V' = V' T + Q' C', with orthonormal rows of V and Q together."""
    v, q = rows_of(state), np.asarray(state.candidate, np.float64)
    together = np.concatenate([v, q])
    np.testing.assert_allclose(together @ together.T, np.eye(len(together)), atol=tolerance)
    left = np.float64(matrix) @ v.T
    right = v.T @ state.projected + q.T @ state.coupling.T
    np.testing.assert_allclose(left, right, atol=tolerance * scale)
    np.testing.assert_array_equal(state.projected, state.projected.T)


@pytest.mark.parametrize("block_size", [1, 2, 3])
@pytest.mark.parametrize("spectrum", ["cluster", "triple", "low rank", "identity", "zero"])
def test_every_state_is_a_block_krylov_decomposition(
    spectrum: str, block_size: int, dtype: np.dtype
) -> None:
    """The relation, orthonormality and the count of products hold through all restarts."""
    matrix = draw_matrix(spectrum, dtype)
    product = CountedProduct(matrix)
    states = run(product, dtype, block_size=block_size, steps=30)
    assert states[-1].restarts >= 1
    for number, state in enumerate(states, start=1):
        assert state.products == number * block_size
        if number % 5 == 0 or number == 1:
            assert_relation(matrix, np.abs(SPECTRA[spectrum]).max(), state, 300 * eps(dtype))
    assert product.rows == states[-1].products


@pytest.mark.parametrize("block_size", [1, 2, 3])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_leading_pairs_are_those_of_the_matrix(
    spectrum: str, block_size: int, dtype: np.dtype
) -> None:
    """Values, and the subspace of each group of equal values, in little memory with restarts.

    A block finds as many copies of an eigenvalue as it has rows; with fewer rows the test asks for
    only that many.
    """
    matrix = draw_matrix(spectrum, dtype)
    state = run(CountedProduct(matrix), dtype, block_size=block_size, steps=150 // block_size)[-1]
    values, coefficients, residuals = state.ritz()
    expected = SPECTRA[spectrum]
    largest = max(np.abs(expected).max(), 1e-30)
    limit = 1e3 * eps(dtype) * largest
    if block_size < COPIES.get(spectrum, 1):
        copies = np.sum(np.abs(values[:WANTED] - expected[0]) <= limit)
        assert copies >= block_size
        return
    np.testing.assert_allclose(values[:WANTED], expected[:WANTED], atol=limit)
    assert (residuals[:WANTED] <= limit).all()
    vectors = np.asarray(state.vectors(coefficients[:, :WANTED]), np.float64)
    # Every vector lies in the span of the eigenvectors to its value and those very close to it.
    for value, vector in zip(values, vectors, strict=False):
        near = draw_rotation()[:, np.abs(expected - value) < 1e-2 * largest]
        outside = vector - near @ (near.T @ vector)
        assert np.linalg.norm(outside) <= 1e5 * eps(dtype)


def test_leading_vectors_are_the_ritz_vectors_with_fixed_signs() -> None:
    """For counts around the number of vectors computed at once."""
    dtype = np.dtype("float32")
    product = CountedProduct(draw_matrix("decaying", dtype))
    state = run(product, dtype, block_size=2, steps=15, wanted=17)[-1]
    _, coefficients, _ = state.ritz()
    for count in (1, 7, 8, 9, 17):
        expected = linalg.fix_signs(state.vectors(coefficients[:, :count]))
        np.testing.assert_allclose(state.leading_vectors(count), expected, atol=1e-6)


@pytest.mark.parametrize("spectrum", ["decaying", "cluster", "indefinite"])
def test_reported_residual_is_the_true_one(spectrum: str, dtype: np.dtype) -> None:
    """||H v - value v|| by separate products, before and after restarts."""
    matrix = draw_matrix(spectrum, dtype)
    largest = np.abs(SPECTRA[spectrum]).max()
    seen_large = False
    for state in run(CountedProduct(matrix), dtype, block_size=2, steps=30)[2::7]:
        values, coefficients, residuals = state.ritz()
        vectors = np.asarray(state.vectors(coefficients), np.float64).T
        true = np.linalg.norm(np.float64(matrix) @ vectors - vectors * values[None, :], axis=0)
        np.testing.assert_allclose(residuals, true, atol=300 * eps(dtype) * largest)
        seen_large |= residuals.max() > 1e-2 * largest
    assert seen_large


@pytest.mark.parametrize("block_size", [1, 2])
def test_stopped_run_goes_on_with_the_same_bits(block_size: int) -> None:
    """From the arrays of any state, also those right before and after a restart."""
    dtype = np.dtype("float32")
    product = CountedProduct(draw_matrix("cluster", dtype))
    whole = run(product, dtype, block_size=block_size, steps=30)
    assert whole[-1].restarts >= 1
    for at in range(0, 29, 4):
        stored = linalg.KrylovState.from_arrays(whole[at].to_arrays())
        rest = run(product, dtype, block_size=block_size, steps=30 - at - 1, state=stored)
        for field in dataclasses.fields(linalg.KrylovState):
            ours, theirs = (getattr(state, field.name) for state in (rest[-1], whole[-1]))
            jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize(
    ("wanted", "block_size", "spare"), [(1, 1, 0), (5, 1, 0), (5, 2, 7), (20, 3, 0), (5, 16, 0)]
)
def test_no_more_vectors_are_held_than_allowed(wanted: int, block_size: int, spare: int) -> None:
    """Counts all full-length arrays in memory, at each product and after each step."""
    dtype = np.dtype("float32")
    limit = linalg.smallest_max_vectors(wanted, block_size) + spare
    product = CountedProduct(draw_matrix("decaying", dtype))
    before = len([a for a in jax.live_arrays() if a.shape[-1:] == (ENTRIES,)]) - 1
    assert before == 0, "vectors of another test are alive"
    state = linalg.start_lanczos(jax.random.key(0), ENTRIES, block_size, dtype)
    seen = linalg.lanczos(jax.random.key(1), product, state, wanted=wanted, max_vectors=limit)
    for _ in range(40):
        state = next(seen)  # the last one is held until then, as a caller does that may save it
        product.look()
    assert state.restarts >= 2
    assert product.most_alive <= limit
    assert len(rows_of(state)) >= wanted


def test_neither_restart_nor_result_holds_more_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts inside, while two bases, or a basis and the result, are in memory."""
    dtype = np.dtype("float32")
    limit = linalg.smallest_max_vectors(20, 2) + 5
    product = CountedProduct(draw_matrix("decaying", dtype))
    project, combine = linalg._project_out, linalg.KrylovState.vectors

    def project_and_look(*arguments: Array) -> tuple[Array, Array]:
        result = project(*arguments)
        product.look()
        return result

    def combine_and_look(state: linalg.KrylovState, coefficients: np.ndarray) -> Block:
        result = combine(state, coefficients)
        product.look()
        return result

    monkeypatch.setattr(linalg, "_project_out", project_and_look)
    monkeypatch.setattr(linalg.KrylovState, "vectors", combine_and_look)
    state = linalg.start_lanczos(jax.random.key(0), ENTRIES, 2, dtype)
    seen = linalg.lanczos(jax.random.key(1), product, state, wanted=20, max_vectors=limit)
    for _ in range(40):
        state = next(seen)
    state.leading_vectors(20)
    assert state.restarts >= 2
    assert limit / 2 < product.most_alive <= limit


def test_products_that_are_not_finite_end_the_step() -> None:
    """The state reports it, its values are NaN, and no loop runs forever."""
    start = linalg.start_lanczos(jax.random.key(3), ENTRIES, 2, jnp.float32)
    for bad in (np.nan, np.inf):
        (state,) = run(
            lambda block, bad=bad: block.at[1, 3].set(bad),
            np.dtype("float32"),
            block_size=2,
            steps=1,
            state=start,
        )
        assert not state.is_finite
        assert np.isnan(state.ritz()[0]).all() and np.isnan(state.ritz()[2]).all()


@pytest.mark.parametrize("dependent", [0, 1, 2])
def test_orthonormalise_is_a_factorisation(dependent: int, dtype: np.dtype) -> None:
    """block = R Q; rows of Q are orthonormal, or zero for dependent rows."""
    random = np.random.RandomState(2)
    block = random.standard_normal((5, 37))
    block *= np.array([1.0, 1e3, 1e-2, 1.0, 1.0])[:, None]
    if dependent == 1:
        block[3] = block[0] - 2e-3 * block[1]
    if dependent == 2:
        block[1], block[3] = 0, -block[0]
    rows, factor = linalg.orthonormalise(jnp.asarray(block, dtype))
    rows = np.asarray(rows, np.float64)
    zero = {0: [], 1: [3], 2: [1, 3]}[dependent]
    expected = np.eye(5)
    expected[zero, zero] = 0
    np.testing.assert_allclose(rows @ rows.T, expected, atol=100 * eps(dtype))
    np.testing.assert_array_equal(factor, np.tril(factor))
    np.testing.assert_array_equal(factor[:, zero], 0)
    error = np.linalg.norm(factor @ rows - block, axis=1)
    assert (error <= 100 * eps(dtype) * np.linalg.norm(np.abs(factor), axis=1)).all()


def test_orthonormalise_keeps_rows_that_are_nearly_dependent(dtype: np.dtype) -> None:
    """Two rows at an angle whose square is rounding become orthonormal to rounding."""
    random = np.random.RandomState(5)
    first, second = random.standard_normal((2, 41))
    angle = eps(dtype) ** 0.5
    block = np.stack([first, first + angle * second])
    rows, _ = linalg.orthonormalise(jnp.asarray(block, dtype))
    rows = np.asarray(rows, np.float64)
    np.testing.assert_allclose(rows @ rows.T, np.eye(2), atol=100 * eps(dtype))


def test_signs_follow_the_entry_of_largest_magnitude() -> None:
    """It becomes positive; in a tie the first entry decides; only signs change."""
    rows = np.float32([[1, -3, 2], [-1, 2, 0], [2, 1, -2], [-2, 1, 2], [0, 0, 0]])
    expected = np.float32([[-1, 3, -2], [-1, 2, 0], [2, 1, -2], [2, -1, -2], [0, 0, 0]])
    np.testing.assert_array_equal(linalg.fix_signs(jnp.asarray(rows)), expected)
    np.testing.assert_array_equal(linalg.fix_signs(jnp.asarray(-rows)), expected)


def test_power_step_is_the_paper_s_definition(dtype: np.dtype) -> None:
    """v <- P(H v / ||v||), P = Π (1 - u u') in turn, by dense matrices; v is not normalised."""
    matrix = draw_matrix("decaying", dtype)
    random = np.random.RandomState(6)
    found = [jnp.asarray(v, dtype) for v in random.standard_normal((2, ENTRIES))]
    vector = linalg.deflate(found, jnp.asarray(random.standard_normal(ENTRIES), dtype))
    project = np.eye(ENTRIES)
    for other in found:
        unit = np.float64(other) / np.linalg.norm(np.float64(other))
        project = (np.eye(ENTRIES) - np.outer(unit, unit)) @ project
    expected = np.float64(vector)
    for _ in range(4):
        vector = linalg.power_step(lambda v: CountedProduct(matrix)(v[None])[0], found, vector)
        expected = project @ np.float64(matrix) @ expected / np.linalg.norm(expected)
    np.testing.assert_allclose(vector, expected, atol=100 * eps(dtype) * np.linalg.norm(expected))
    assert abs(np.linalg.norm(expected) - 1) > 0.1


def test_norm_of_the_power_iterate_tends_to_the_eigenvalue(dtype: np.dtype) -> None:
    """If deflated against the first eigenvector, to the second eigenvalue."""
    matrix = draw_matrix("decaying", dtype)
    found = [
        jnp.asarray(-7 * draw_rotation()[:, 0], dtype)
    ]  # neither its norm nor its sign matters
    draw = np.random.RandomState(7).standard_normal(ENTRIES)
    vector = linalg.deflate(found, jnp.asarray(draw, dtype))
    for _ in range(120):
        vector = linalg.power_step(lambda v: CountedProduct(matrix)(v[None])[0], found, vector)
    value = np.linalg.norm(np.float64(vector))
    np.testing.assert_allclose(value, SPECTRA["decaying"][1], rtol=1e3 * eps(dtype))
