"""The FIR filters against their definition as matrices."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from navigan_jax import testing
from navigan_jax.nn.resampling import rim_of, smooth, upsample


def dense(length, taps, factor, before, after):
    """Returns the matrix of zero insertion, padding and convolution along one axis."""
    kernel = 2 * np.array(taps) / np.sum(taps)
    columns = []
    for index in range(length):
        inserted = np.zeros(length * factor)
        inserted[index * factor] = 1
        padded = np.pad(inserted, (before, max(after, 0)))
        padded = padded[: len(padded) + min(after, 0)]
        columns.append(np.convolve(padded, kernel, mode="valid"))
    return np.stack(columns, axis=1)


def along_both(rows, columns, images):
    return np.einsum("ih,jw,bhwc->bijc", rows, columns, images)


TAPS = st.lists(st.integers(1, 9).map(float), min_size=2, max_size=6)


@settings(max_examples=8, deadline=None)
@given(TAPS, st.integers(1, 3), st.integers(0, 100))
def test_filters_equal_dense_matrices(taps, height, seed):
    """In 64 bits, both filters are the padded convolution that the official programs define.

    An asymmetric filter distinguishes a convolution from a correlation.
    """
    width = 4
    images = np.random.RandomState(seed).standard_normal((2, height, width, 3))
    count = len(taps)
    before, after = (count + 1) // 2, (count - 2) // 2
    double = [dense(length, taps, 2, before, after) for length in (height, width)]
    odd = np.random.RandomState(seed).standard_normal((2, 2 * height + 1, 2 * width + 1, 3))
    before, after = (count - 1) // 2, (count - 2) // 2
    single = [dense(2 * length + 1, taps, 1, before, after) for length in (height, width)]
    rim = rim_of(taps)
    rimmed = np.pad(odd, ((0, 0), (rim, rim), (rim, rim), (0, 0)))
    with testing.x64():
        doubled, smoothed = upsample(images, taps), smooth(rimmed, taps, rim)
        wider = smooth(np.pad(rimmed, ((0, 0), (1, 1), (1, 1), (0, 0))), taps, rim + 1)
        doubled, smoothed, wider = jax.device_get((doubled, smoothed, wider))
    np.testing.assert_array_equal(wider, smoothed)
    assert doubled.shape == smoothed.shape == (2, 2 * height, 2 * width, 3)
    testing.assert_close(doubled, along_both(*double, images), 1e-12, "upsample")
    testing.assert_close(smoothed, along_both(*single, odd), 1e-12, "smooth")


def test_transposed_filter_equals_dense_matrices():
    """Derivatives use the transposes: filtering and halving, in 64 bits."""
    taps = (1, 2, 3, 5)
    images = np.random.RandomState(0).standard_normal((2, 6, 8, 3))
    double = [dense(length, taps, 2, 2, 1) for length in (3, 4)]
    with testing.x64():
        shape = jax.ShapeDtypeStruct((2, 3, 4, 3), np.float64)
        halve = jax.linear_transpose(lambda x: upsample(x, taps), shape)
        halved = jax.device_get(jax.jit(halve)(images))[0]
    testing.assert_close(halved, along_both(*(matrix.T for matrix in double), images), 1e-12)


def test_turned_filter_is_another_one():
    """Control: the test distinguishes the filter from the reversed one."""
    images = np.random.RandomState(0).standard_normal((1, 4, 4, 1))
    with pytest.raises(AssertionError, match="relative error"):
        testing.assert_close(upsample(images, (1, 2, 3, 5)), upsample(images, (5, 3, 2, 1)), 1e-2)


def test_constant_image_darkens_at_its_rim():
    """With the default filter: 1 inside, 3/4 at an edge, 9/16 in a corner."""
    image = np.asarray(jax.jit(lambda x: upsample(x, (1, 3, 3, 1)))(np.ones((1, 3, 3, 1))))[
        0, ..., 0
    ]
    np.testing.assert_allclose(image[1:-1, 1:-1], 1)
    np.testing.assert_allclose(image[0, 1:-1], 0.75)
    np.testing.assert_allclose(image[[0, 0, -1, -1], [0, -1, 0, -1]], 0.5625)
