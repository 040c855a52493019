"""Pools and sizes of the feature networks; their values are compared in test_lpips_golden.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import testing
from navigan_jax.errors import InputError
from navigan_jax.perceptual.backbones import BACKBONES, max_pool


def window_reduction(maps, window, ceil):
    """The same pool by XLA's own reduction."""
    pads = [(0, 0)] * 4
    if ceil:
        pads[1:3] = [(0, (size - window) % 2) for size in maps.shape[1:3]]
    shape, strides = (1, window, window, 1), (1, 2, 2, 1)
    return jax.lax.reduce_window(maps, -jnp.inf, jax.lax.max, shape, strides, pads)


@pytest.mark.parametrize("values", ["normal", "many ties", "rectified"])
@pytest.mark.parametrize("size", [(8, 11), (3, 4)])
@pytest.mark.parametrize(("window", "ceil"), [(2, False), (3, False), (3, True)])
def test_max_pool_equals_the_window_reduction(window, ceil, size, values):
    """Value and reverse mode, with ties: the first maximum in row order gets the whole gradient.

    Forward mode is compared with reverse mode, because XLA's own two modes disagree at ties.
    """
    random = np.random.RandomState(3)
    maps = random.standard_normal((2, *size, 5)).astype(np.float32)
    maps = {"normal": maps, "many ties": np.rint(maps), "rectified": np.maximum(maps, 0)}[values]

    def reverse(pool):
        value, pull_back = jax.vjp(pool, jnp.asarray(maps))
        return value, pull_back(cotangent_like(value))[0]

    def cotangent_like(value):
        return jnp.arange(1.0, 1 + value.size).reshape(value.shape)

    def ours(maps):
        return max_pool(maps, window, ceil=ceil)

    value, gradient = reverse(ours)
    expected = reverse(lambda maps: window_reduction(maps, window, ceil))
    np.testing.assert_array_equal(value, expected[0])
    np.testing.assert_array_equal(gradient, expected[1])
    tangent = testing.normal_like(1, maps)
    forward = jax.jvp(ours, (jnp.asarray(maps),), (tangent,))[1]
    cotangent = cotangent_like(value)
    left, right = jnp.vdot(forward, cotangent), jnp.vdot(tangent, gradient)
    scale = jnp.linalg.norm(forward) * jnp.linalg.norm(cotangent)
    testing.assert_close(left, right, 1e-6, "adjoint", scale=scale)


def test_max_pool_does_not_hide_a_nan():
    """A window that contains a NaN has the maximum NaN."""
    for row, column in np.ndindex(3, 3):
        maps = jnp.zeros((1, 3, 3, 1)).at[0, row, column, 0].set(jnp.nan)
        assert np.isnan(max_pool(maps, 3)).all()


@pytest.mark.parametrize("net", sorted(BACKBONES))
def test_smallest_size_leaves_one_pixel(net):
    """The last tap is then one pixel; for smaller images the message names the size."""
    network = BACKBONES[net]
    metric = testing.random_lpips(net, 0)
    smallest = network.smallest
    images = jax.ShapeDtypeStruct((1, smallest, smallest, 3), jnp.float32)
    taps = jax.eval_shape(metric.taps, images)
    assert taps[-1].shape[1:3] == (1, 1)
    assert [tap.shape[3] for tap in taps] == list(network.channels)
    with pytest.raises(InputError, match=f"sides of {smallest} pixels or more"):
        metric.taps(jnp.zeros((1, smallest - 1, smallest, 3)))
    with pytest.raises((ValueError, TypeError)):  # it could not have been smaller
        jax.eval_shape(
            lambda x: network().apply({"params": metric.params["backbone"]}, x),
            jax.ShapeDtypeStruct((1, smallest - 1, smallest, 3), jnp.float32),
        )
