"""Winograd's method against plain convolutions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import testing
from navigan_jax.nn import winograd
from navigan_jax.nn.layers import conv, conv_by_matmul, conv_transpose
from navigan_jax.nn.winograd import conv3x3, double3x3

PAIRS = {
    "conv3x3": (conv3x3, conv),
    "double3x3": (double3x3, lambda x, k: conv_transpose(x, k, stride=2, padding=-1)),
}


def draw(shape, seed, dtype=np.float32):
    return np.random.RandomState(seed).standard_normal(shape).astype(dtype)


@pytest.fixture
def _always(monkeypatch):
    """Makes tiny arrays use Winograd's method too."""
    monkeypatch.setattr(winograd, "is_worthwhile", lambda *shapes: True)


always = pytest.mark.usefixtures("_always")


@always
@pytest.mark.parametrize("name", PAIRS)
def test_fast_way_and_its_derivatives_equal_the_plain_one(name):
    """In 64 bits, for sides that tiles do not divide: values, and JVP and VJP by both arguments."""
    fast, plain = PAIRS[name]
    x, kernel = draw((2, 5, 7, 3), 0, np.float64), draw((3, 3, 3, 2), 1, np.float64)
    tangents = draw(x.shape, 2, np.float64), draw(kernel.shape, 3, np.float64)

    def everything(function, *arguments):
        value, tangent = jax.jvp(function, arguments[:2], arguments[2:4])

        _, pull_back = jax.vjp(function, *arguments[:2])
        return value, tangent, pull_back(arguments[4])

    with testing.x64():
        cotangent = draw(plain(x, kernel).shape, 4, np.float64)
        run = jax.jit(everything, static_argnums=0)
        actual = jax.device_get(run(fast, x, kernel, *tangents, cotangent))
        desired = jax.device_get(run(plain, x, kernel, *tangents, cotangent))
        turned = plain(x, kernel[::-1])
    for got, want in zip(jax.tree.leaves(actual), jax.tree.leaves(desired), strict=True):
        testing.assert_close(got, want, 1e-12)
    with pytest.raises(AssertionError, match="relative error"):
        testing.assert_close(actual[0], turned, 1e-2)


@pytest.mark.parametrize("name", PAIRS)
def test_derivatives_of_derivatives_equal_the_plain_one_s(name):
    """The rules do not depend on the implementation; these small arrays use the plain one."""

    def twice(function, x, kernel, y):
        def pull_back(*arguments):
            return jax.vjp(function, *arguments[:2])[1](arguments[2])

        back, tangent = jax.jvp(pull_back, (x, kernel, y), (2 * x, kernel**2, y**2))
        return tangent, jax.vjp(pull_back, x, kernel, y)[1](back)

    fast, plain = PAIRS[name]
    x, kernel = draw((2, 3, 4, 3), 0), draw((3, 3, 3, 2), 1)
    y = draw(plain(x, kernel).shape, 2)
    got, want = (jax.jit(functools.partial(twice, f))(x, kernel, y) for f in (fast, plain))
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        testing.assert_close(one, other, 1e-5)


@always
@pytest.mark.parametrize("name", PAIRS)
def test_batches_of_vectors_equal_a_loop(name):
    """vmap over x, over the kernel and over both; also for the derivative by the kernel."""
    fast, plain = PAIRS[name]
    x, kernel = draw((3, 2, 4, 6, 3), 0), draw((3, 3, 3, 3, 2), 1)
    for axes, arguments in {
        (0, None): (x, kernel[0]),
        (None, 0): (x[0], kernel),
        (0, 0): (x, kernel),
    }.items():
        actual = jax.jit(jax.vmap(fast, axes))(*arguments)
        pairs = [
            plain(*(a if axis is None else a[i] for a, axis in zip(arguments, axes, strict=True)))
            for i in range(3)
        ]
        testing.assert_close(actual, np.stack(pairs), 1e-5, str(axes))

    def weigh(function, x, y):
        return jax.vjp(lambda k: function(x, k), kernel[0])[1](y)[0]

    y = draw((3, *plain(x[0], kernel[0]).shape), 2)
    for axes, arguments in {(0, None): (x, y[0]), (None, 0): (x[0], y), (0, 0): (x, y)}.items():
        got, want = (
            jax.jit(jax.vmap(functools.partial(weigh, each), axes))(*arguments)
            for each in (fast, plain)
        )
        testing.assert_close(got, want, 1e-5, str(axes))


def test_error_in_float32_is_that_of_the_docstring():
    """With many channels, the error is a few times that of the plain sum, against 64 bits."""
    x, kernel = draw((1, 8, 8, 256), 0), draw((3, 3, 256, 32), 1)
    with testing.x64():
        exact = np.asarray(conv(jnp.asarray(x, np.float64), jnp.asarray(kernel, np.float64)))
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    error = np.asarray(jax.jit(winograd.correlate)(padded, kernel)) - exact
    assert np.sqrt(np.mean(error**2)) < 3e-6 * np.std(exact)
    assert np.max(np.abs(error)) < 2e-5 * np.std(exact)


def test_error_of_the_kernel_s_derivative_is_like_that():
    """The derivative sums over all pixels; its error is measured against 64 bits."""
    x, y = draw((2, 16, 16, 32), 0), draw((2, 14, 14, 32), 1)
    with testing.x64():
        exact = np.asarray(winograd.correlate_kernel(np.float64(x), np.float64(y)))
    error = np.asarray(jax.jit(winograd.correlate_kernel)(x, y)) - exact
    assert np.max(np.abs(error)) < 2e-5 * np.std(exact)


def test_fast_way_is_taken_where_it_is_worthwhile():
    """At 64x64 pixels and above in config-f; not at 4x4, nor for few channels."""
    assert winograd.is_worthwhile((4, 64, 64, 512), (3, 3, 512, 512))
    assert winograd.is_worthwhile((1, 64, 64, 512), (3, 3, 512, 512))
    assert winograd.is_worthwhile((4, 256, 256, 128), (3, 3, 128, 128))
    assert not winograd.is_worthwhile((4, 4, 4, 512), (3, 3, 512, 512))
    assert not winograd.is_worthwhile((4, 1024, 1024, 16), (3, 3, 16, 16))
    shapes = [(4, 64, 64, 512), (3, 3, 512, 512)]
    arguments = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    products = jax.jit(conv3x3).lower(*arguments).as_text().count("dot_general")
    assert products == 1 + 6**2  # one for the kernel


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 9), (5, 7)])
@pytest.mark.parametrize("options", [{}, {"strides": (2, 2)}, {"padding": ((2, 1), (1, 1))}])
def test_convolve_is_the_general_convolution(monkeypatch, size, options):
    """Small maps use a matrix product, but only for plain convolutions of side 3."""
    calls = []
    monkeypatch.setattr(
        winograd, "conv_by_matmul", lambda *given: calls.append(given) or conv_by_matmul(*given)
    )
    x, kernel = draw((2, *size, 3), 0), draw((3, 3, 3, 2), 1)
    arguments = {"strides": (1, 1), "padding": ((1, 1), (1, 1))} | options
    layout = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    actual = winograd.convolve(x, kernel, **arguments, **layout)
    desired = jax.lax.conv_general_dilated(x, kernel, *arguments.values(), **layout)
    testing.assert_close(actual, desired, 1e-6)
    assert len(calls) == (options == {} and min(size) < 5)
