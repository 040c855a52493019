"""What holds for every kind of direction matrix in every subspace."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from navigan_jax import testing
from navigan_jax.discovery import matrix as matrix_lib
from navigan_jax.discovery.matrix import direction_matrix
from navigan_jax.errors import InputError
from navigan_jax.subspaces.base import Full, Latent, fixed_basis, require_fit
from navigan_jax.subspaces.svd import singular_values

COUNT = 5
SHAPES = {"a/kernel": (3, 3, 2, 7), "b/kernel": (2, 5)}


def draw(seed, *shape):
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def weights():
    return {path: draw(3, *shape) for path, shape in SHAPES.items()}


def oblique():
    """Vectors of unlike lengths that are not orthogonal, over two layers."""
    return {path: draw(1, 6, *shape) * 3 for path, shape in SHAPES.items()}


SUBSPACES = {
    "svd": lambda: singular_values(weights())[0],
    "fixed": lambda: fixed_basis(oblique()),
    "full": lambda: Full((("b/kernel", (2, 5)),)),
    "latent": lambda: Latent(8),
}


def make(name, kind, count=COUNT):
    matrix = direction_matrix(jax.random.key(4), SUBSPACES[name](), kind=kind, count=count)
    return matrix, matrix.init(jax.random.key(5))


def flat(deltas):
    return jnp.concatenate([delta.reshape(len(delta), -1) for delta in deltas.values()], axis=1)


def all_directions(matrix, parameters):
    return flat(matrix.deltas(parameters, jnp.arange(matrix.count), jnp.ones(matrix.count)))


# Every kind in the hardest subspace, whose basis is oblique, and every subspace.
CASES = [("fixed", kind) for kind in matrix_lib.KINDS] + [
    (name, "projected") for name in SUBSPACES if name != "fixed"
]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_changes_are_linear_in_the_shift_and_as_long_as_it(name, kind):
    """‖deltas‖ = |t|; a linear matrix, which promises nothing, shows that the check can fail."""
    matrix, parameters = make(name, kind)
    shifts = jnp.array([2.0, 6.0, -3.0, 0.0, 70.0])

    @jax.jit
    def compute(matrix, parameters):
        deltas = matrix.deltas(parameters, jnp.array([0, 0, 3, 3, 4]), shifts)
        return deltas, flat(deltas), flat(matrix.subspace.expand(matrix.coefficients(parameters)))

    deltas, rows, directions = (
        np.asarray(x) if i else x for i, x in enumerate(compute(matrix, parameters))
    )
    assert tuple(deltas) == matrix.layers
    for path in set(deltas) & set(SHAPES):
        assert deltas[path].shape == (5, *SHAPES[path])
    testing.assert_close(rows, np.asarray(shifts)[:, None] * directions[[0, 0, 3, 3, 4]], 1e-5)
    off = np.max(np.abs(np.linalg.norm(directions, axis=1) - 1))
    assert off > 0.5 if kind == "linear" else off < 1e-5


@pytest.mark.parametrize("kind", ["identity", "random", "orthonormal"])
def test_orthonormal_kinds_are_orthonormal_where_the_basis_is(kind):
    rows = np.asarray(all_directions(*make("svd", kind)))
    testing.assert_close(rows @ rows.T, np.eye(COUNT), 1e-5, scale=1)


def test_orthonormal_stays_orthonormal_over_a_thousand_steps_of_adam():
    """Towards random targets; a free matrix under the same pull does not."""
    target = jnp.asarray(draw(7, COUNT, 8))
    optimiser = optax.adam(0.05)

    def deviation(kind):
        matrix, parameters = make("latent", kind)

        def loss(parameters):
            return jnp.sum((all_directions(matrix, parameters) - target) ** 2)

        def step(carry, _):
            parameters, state = carry
            updates, state = optimiser.update(jax.grad(loss)(parameters), state)
            return (optax.apply_updates(parameters, updates), state), None

        run = jax.jit(lambda carry: jax.lax.scan(step, carry, None, length=1000)[0])
        trained, _ = run((parameters, optimiser.init(parameters)))
        assert loss(trained) < 0.9 * loss(parameters)
        rows = all_directions(matrix, trained)
        return float(jnp.max(jnp.abs(rows @ rows.T - jnp.eye(COUNT))))

    assert deviation("orthonormal") < 1e-5
    assert deviation("projected") > 0.01


@pytest.mark.parametrize(
    ("name", "kind"), [("fixed", "projected"), ("svd", "linear"), ("latent", "orthonormal")]
)
def test_gradient_equals_finite_differences(name, kind):
    """In float64, along a random direction, of a function that is not quadratic."""
    with testing.x64():
        matrix, parameters = make(name, kind)
        matrix, parameters = jax.tree.map(
            lambda leaf: np.asarray(leaf, np.float64), (matrix, parameters)
        )
        direction = testing.normal_like(1, parameters)

        @jax.jit
        def value_and_gradient(parameters):
            def value(parameters):
                shifts = jnp.array([1.5, -2.0, 0.3])
                return jnp.sum(
                    jnp.sin(flat(matrix.deltas(parameters, jnp.array([0, 3, 3]), shifts)))
                )

            return jax.value_and_grad(value)(parameters)

        def value_at(step):
            moved = jax.tree.map(lambda p, d: p + step * np.asarray(d), parameters, direction)
            return float(value_and_gradient(moved)[0])

        step = 1e-5  # its square, the truncation, and 1e-16 / step, the rounding, are below 1e-9
        difference = (value_at(step) - value_at(-step)) / (2 * step)
        (gradient,) = value_and_gradient(parameters)[1].values()
        (along,) = direction.values()
        slope = float(np.vdot(gradient, along))
        testing.assert_close(slope, difference, 1e-7, scale=float(np.linalg.norm(gradient)))


def test_singular_values_are_those_of_the_flattened_weight():
    """Moving the i-th coefficient moves the i-th singular value alone; layers follow each other."""
    subspace, values = singular_values(weights())
    assert subspace.size == len(values) == 7 + 2
    change = subspace.expand(jnp.eye(9) * 0.25)
    for path, first, count in (("a/kernel", 0, 7), ("b/kernel", 7, 2)):
        weight = weights()[path].reshape(-1, SHAPES[path][-1])
        for index in range(9):
            moved = weight + np.asarray(change[path][index]).reshape(weight.shape)
            expected = np.linalg.svd(weight, compute_uv=False)
            if first <= index < first + count:
                expected[index - first] += 0.25
            testing.assert_close(
                np.linalg.svd(moved, compute_uv=False), np.sort(expected)[::-1], 1e-5
            )


def test_a_step_takes_the_basis_as_an_argument():
    """As a constant of the program it would take its memory twice."""
    matrix, parameters = make("fixed", "projected")
    jitted = jax.jit(lambda matrix, parameters: all_directions(matrix, parameters))
    constants = jax.make_jaxpr(jitted)(matrix, parameters).consts
    assert all(np.size(constant) < 100 for constant in constants)
    assert jax.tree.leaves(matrix)


# --- what is refused


@pytest.mark.parametrize(
    ("kind", "count", "complaint"),
    [
        ("skew", 2, r"matrix: expected a known kind; got 'skew'; allowed: identity, random, "),
        (
            "projected",
            9,
            r"directions: expected 1 to 8, the size of the subspace; got 9; set --con",
        ),
        ("projected", 0, r"directions: expected 1 to 8, .*; got 0"),
    ],
)
def test_a_matrix_that_cannot_be_is_refused(kind, count, complaint):
    with pytest.raises(InputError, match=complaint):
        direction_matrix(jax.random.key(0), Latent(8), kind=kind, count=count)


def test_an_exponential_of_a_huge_matrix_is_refused():
    make_it = functools.partial(direction_matrix, jax.random.key(0), Latent(9000), count=2)
    with pytest.raises(InputError, match=r"expected a subspace of at most 2048 .*; got 9000; set"):
        make_it(kind="orthonormal")
    make_it(kind="projected")


def test_a_basis_of_other_weights_is_refused():
    basis = oblique()
    require_fit(basis, SHAPES, "file")
    with pytest.raises(
        InputError,
        match=r"file: expected directions of b/kernel \[2, 6\]; got directions of a/kernel "
        r"\[3, 3, 2, 7\], b/kernel \[2, 5\]; give a file of directions of these layers, or set",
    ):
        require_fit(basis, {"b/kernel": (2, 6)}, "file")


def test_a_basis_with_a_zero_vector_is_refused():
    basis = {path: rows.copy() for path, rows in oblique().items()}
    for rows in basis.values():
        rows[2] = 0
    with pytest.raises(InputError, match=r"not zero; got zeros at \[2\]; leave these directions"):
        fixed_basis(basis)


@pytest.mark.parametrize("weight", [draw(0, 4), np.full((2, 3), np.nan, np.float32)])
def test_a_weight_without_singular_values_is_refused(weight):
    with pytest.raises(InputError, match=r"norm0/scale: expected finite weights of two or more"):
        singular_values({"norm0/scale": weight})
