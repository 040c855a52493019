"""The laws of every distance, and resizing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import channels, testing
from navigan_jax.errors import InputError
from navigan_jax.perceptual import METRICS
from navigan_jax.perceptual.base import (
    RESIZE_METHODS,
    AtSize,
    distance,
    distance_per_layer,
    resize,
    signed,
    squared_norms,
)

# Name: how to make the metric, and the height and width (unlike, and as small as may be).
CASES = {
    "l2": (METRICS["l2"], (5, 7)),
    "nlpd": (METRICS["nlpd"], (19, 13)),
    "lpips": (lambda: testing.random_lpips("vgg", 0), (16, 19)),
    "nlpd at 11": (lambda: AtSize(METRICS["nlpd"](), 11, "nearest"), (17, 23)),
    "l2 at 6, antialiased": (lambda: AtSize(METRICS["l2"](), 6, "antialiased"), (13, 9)),
}


def pair(size, batch=3, dtype=np.float32):
    random = np.random.RandomState(5)
    return [jnp.asarray(random.uniform(-1, 1, (batch, *size, 3)), dtype) for _ in range(2)]


@pytest.fixture(scope="module", params=sorted(CASES))
def case(request):
    make, size = CASES[request.param]
    return make(), size


def test_distance_is_the_squared_norm_of_the_difference_of_features(case):
    """It is also non-negative, symmetric, 0 for equal images, and the sum over its layers."""
    metric, size = case
    a, b = pair(size)
    features_of = jax.jit(lambda metric, images: metric.features(images))
    x, y = features_of(metric, a), features_of(metric, b)
    assert all(len(leaf) == len(a) for leaf in x)
    by_hand = sum(
        np.sum(np.square(np.asarray(p) - q), axis=tuple(range(1, p.ndim)))
        for p, q in zip(x, y, strict=True)
    )
    layers_of = jax.jit(distance_per_layer)
    value = np.asarray(layers_of(metric, a, b)).sum(axis=0)
    testing.assert_close(value, by_hand, 1e-5, "by hand")
    testing.assert_close(layers_of(metric, b, a).sum(axis=0), value, 1e-5, "swapped")
    assert np.all(np.asarray(layers_of(metric, a, b)) >= 0)
    assert np.all(value > 0)
    testing.assert_close(
        layers_of(metric, a, a), np.zeros((len(x), len(a))), 1e-10, "equal", scale=value.min()
    )


def test_distance_of_a_pair_does_not_depend_on_its_batch(case):
    """A pair has the same distance alone and in a batch."""
    metric, size = case
    a, b = pair(size)
    value_of = jax.jit(distance)
    alone = [value_of(metric, a[i : i + 1], b[i : i + 1])[0] for i in range(len(a))]
    testing.assert_close(value_of(metric, a, b), alone, 1e-5, "batch")


def test_weights_are_arguments_and_options_are_static(case):
    """Leaves are arrays, the structure is hashable, and other weights cause no new trace."""
    metric, size = case
    leaves, structure = jax.tree.flatten(metric)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    hash(structure)
    counter = testing.TraceCounter(distance)
    jitted = jax.jit(counter)
    a, b = pair(size)
    first = jitted(metric, a, b)
    other = jitted(jax.tree.map(lambda leaf: leaf * 1.5, metric), b, a)
    assert counter.traces == 1
    assert first.shape == other.shape


def test_features_keep_the_number_type(case):
    """float64 in, float64 out, although weights are float32; the networks refuse integers."""
    metric, size = case
    for dtype in (np.float32, np.float64):
        with testing.x64():
            images = jax.ShapeDtypeStruct((2, *size, 3), dtype)
            shapes = jax.eval_shape(metric.features, images)
        assert {leaf.dtype for leaf in shapes} == {np.dtype(dtype)}


def test_jvp_and_vjp_of_features_are_adjoint(case):
    """<Jv, w> = <v, Jᵀw>."""
    metric, size = case
    images, _ = pair(size, batch=2)
    v = testing.normal_like(1, images)

    @jax.jit
    def products(metric, images, v):
        features, jv = jax.jvp(metric.features, (images,), (v,))
        w = tuple(jnp.cos(leaf) * leaf.size**-0.5 for leaf in features)
        return jv, w, jax.vjp(metric.features, images)[1](w)[0]

    jv, w, jtw = products(metric, images, v)
    left = sum(jnp.vdot(x, y) for x, y in zip(jv, w, strict=True))
    scale = np.sqrt(sum(squared_norms(jv).sum(axis=1))) * np.sqrt(sum(squared_norms(w).sum(axis=1)))
    testing.assert_close(left, jnp.vdot(v, jtw), 1e-5, "adjoint", scale=scale)


def test_hessian_at_equal_images_is_gauss_newton(case):
    """Forward over reverse gives 2 JᵀJ v at equal images, and is symmetric there."""
    metric, size = case
    with testing.x64():
        a, _ = pair(size, batch=1, dtype=np.float64)
        u, v = testing.normal_like(2, a), testing.normal_like(3, a)

        @jax.jit
        def products(metric, a, v):
            def total(b):
                return jnp.sum(distance(metric, a, b))

            exact = jax.jvp(jax.grad(total), (a,), (v,))[1]
            jv, pull_back = jax.jvp(metric.features, (a,), (v,))[1], jax.vjp(metric.features, a)[1]
            return exact, 2 * pull_back(jv)[0]

        exact, gauss_newton = products(metric, a, v)
        testing.assert_close(exact, gauss_newton, 1e-10, "Hessian")
        swapped, _ = products(metric, a, u)
        scale = jnp.linalg.norm(exact) * jnp.linalg.norm(u)
        testing.assert_close(jnp.vdot(u, exact), jnp.vdot(v, swapped), 1e-12, "sym", scale=scale)
        assert jnp.vdot(v, exact) > 0


def test_derivatives_are_finite_on_flat_images(case):
    """No mode gives a NaN on constant images, where |z| and the norms are 0."""
    metric, size = case
    flat = jnp.full((1, *size, 3), -1.0)
    v = testing.normal_like(4, flat)

    @jax.jit
    def products(metric, flat, v):
        def total(b):
            return jnp.sum(distance(metric, flat, b))

        forward = jax.jvp(metric.features, (flat,), (v,))[1]
        return forward, *jax.jvp(jax.grad(total), (flat + 0.1 * v,), (v,))

    for leaf in jax.tree.leaves(products(metric, flat, v)):
        assert np.isfinite(leaf).all()


def test_distance_refuses_images_of_two_shapes():
    """Broadcasting would hide a mistake."""
    a = jnp.zeros((2, 8, 8, 3))
    with pytest.raises(ValueError, match=r"images of one shape; got \(2, 8, 8, 3\) and \(1, 8"):
        distance(METRICS["l2"](), a, a[:1])


def test_integer_images_are_refused():
    """Bytes are not images in [-1, 1]."""
    with pytest.raises(TypeError, match=r"floating-point images in .* got uint8"):
        METRICS["nlpd"]().features(jnp.zeros((1, 16, 16, 3), jnp.uint8))


def test_l2_is_the_mean_squared_difference():
    """A hand-made pair: one of twelve numbers differs by 3."""
    a = jnp.zeros((1, 2, 2, 3))
    np.testing.assert_allclose(distance(METRICS["l2"](), a, a.at[0, 1, 0, 1].set(3.0)), 0.75)


def test_distance_with_alpha_is_the_mean_over_black_and_white(case):
    """It sees colour and alpha, but no colour of a transparent pixel."""
    check_alpha(*case, 4)


def test_distance_of_grey_and_alpha_is_that_of_the_greys():
    check_alpha(METRICS["nlpd"](), (19, 13), 2)


def check_alpha(metric, size, count):
    a, b = (np.asarray(images)[..., [0, 1, 2, 0]][..., -count:] for images in pair(size))
    a[:, : size[0] // 2, :, -1] = -1.0
    same, seen = a.copy(), {}
    same[:, : size[0] // 2, :, :-1] = 0.7  # transparent there
    value_of = jax.jit(distance)
    value = value_of(metric, a, b)
    for background in (channels.BLACK, channels.WHITE):
        seen[background] = [channels.over(images, background) for images in (a, b)]
    over = [value_of(metric, *images) for images in seen.values()]
    testing.assert_close(value, (over[0] + over[1]) / 2, 1e-5, "mean")
    testing.assert_close(value_of(metric, same, b), value, 1e-6, "transparent")
    testing.assert_close(value_of(metric, a, same), np.zeros(len(a)), 1e-9, scale=value.min())
    for channel in (0, count - 1):  # a colour, the alpha
        changed = b.copy()
        changed[..., channel] *= 0.9
        assert np.all(value_of(metric, b, changed) > 1e-6 * value)


def test_hessian_with_alpha_is_gauss_newton():
    """At equal images with alpha, forward over reverse gives 2 JᵀJ v."""
    metric = AtSize(METRICS["nlpd"](), 9, "antialiased")
    with testing.x64():
        a = jnp.asarray(np.random.RandomState(0).uniform(-1, 1, (1, 13, 11, 4)))
        v = testing.normal_like(3, a)

        @jax.jit
        def products(a, v):
            exact = jax.jvp(jax.grad(lambda b: jnp.sum(distance(metric, a, b))), (a,), (v,))[1]
            jv, pull_back = jax.jvp(metric.features, (a,), (v,))[1], jax.vjp(metric.features, a)[1]
            return exact, 2 * pull_back(jv)[0]

        exact, gauss_newton = products(a, v)
        testing.assert_close(exact, gauss_newton, 1e-10)
        assert np.linalg.norm(exact[..., :3]) > 0 and np.linalg.norm(exact[..., 3]) > 0


def test_signed_maps_the_unit_range():
    """0, 1/2 and 1 become -1, 0 and 1."""
    np.testing.assert_array_equal(signed(jnp.array([0.0, 0.5, 1.0])), [-1.0, 0.0, 1.0])


@pytest.mark.parametrize("old", [(12, 18), (7, 11), (4, 3)])
def test_nearest_resize_takes_the_floor_of_the_scaled_index(old):
    """Output i holds input floor(i · old / new); the gradient counts how often a pixel is used."""
    size = 6
    images = testing.normal_like(0, jax.ShapeDtypeStruct((2, *old, 3), jnp.float32))
    rows, columns = ([i * side // size for i in range(size)] for side in old)
    expected = np.asarray(images)[:, rows][:, :, columns]
    np.testing.assert_array_equal(resize(images, size, "nearest"), expected)
    others = jax.image.resize(images, expected.shape, "nearest")
    assert np.any(others != expected), "JAX's own rule should take other pixels"
    used = np.zeros((2, *old, 3))
    np.add.at(used, (slice(None), *np.ix_(rows, columns)), 1)
    gradient = jax.grad(lambda x: jnp.sum(resize(x, size, "nearest")))(images)
    np.testing.assert_array_equal(gradient, used)


@pytest.mark.parametrize("method", RESIZE_METHODS)
def test_resize_to_the_same_size_is_the_identity(method):
    """It returns the same array."""
    images = jnp.ones((1, 6, 6, 3))
    assert resize(images, 6, method) is images


def test_antialiased_resize_averages():
    """A chequerboard shrinks to grey, where nearest picks one colour."""
    board = jnp.asarray(np.indices((12, 12)).sum(axis=0) % 2, jnp.float32)[None, :, :, None]
    testing.assert_close(resize(board, 6, "antialiased"), jnp.full((1, 6, 6, 1), 0.5), 0.05)
    np.testing.assert_array_equal(resize(board, 6, "nearest"), 0.0)


@pytest.mark.parametrize(("size", "method"), [(6, "cubic"), (0, "nearest")])
def test_resize_names_what_is_allowed(size, method):
    """For an unknown method and for a size below 1."""
    with pytest.raises(InputError, match="allowed methods: nearest, antialiased"):
        resize(jnp.zeros((1, 4, 4, 3)), size, method)


@pytest.mark.parametrize(
    ("method", "size", "stride"), [("nearest", 8, 3), ("nearest", 7, 1), ("antialiased", 8, 1)]
)
def test_pixels_that_a_distance_reads_are_told(method, size, stride):
    """Those pixels alone give the same features; without a size that divides, all are read."""
    metric = AtSize(METRICS["l2"](), size, method)
    images = np.random.RandomState(0).standard_normal((2, 24, 24, 3)).astype(np.float32)
    assert metric.stride(24) == stride
    assert METRICS["l2"]().stride(24) == 1
    for got, want in zip(
        metric.features(images[:, ::stride, ::stride]), metric.features(images), strict=True
    ):
        testing.assert_close(got, want, 1e-6)
