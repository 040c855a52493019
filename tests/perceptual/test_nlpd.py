"""NLPD against its definition, and laws of a model of vision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal

from navigan_jax import testing
from navigan_jax.errors import InputError
from navigan_jax.perceptual import nlpd
from navigan_jax.perceptual.base import distance

METRIC = nlpd.NLPD()
distance_of = jax.jit(distance)
features_of = jax.jit(METRIC.features)

# The kernels as they are published: convolved with the amplitudes, zero outside the image.
CONSTANTS = (0.0248, 0.0185, 0.0179, 0.0191, 0.0220, 0.2782)
KERNELS = (
    [
        [0, 0, 0.1011, 0, 0],
        [0, 0.1493, 0, 0.1460, 0.0072],
        [0, 0, 0.1015, 0, 0],
    ],
    [[0, 0.0757, 0], [0.1986, 0, 0.1846], [0, 0.0837, 0]],
    [[0, 0.0477, 0], [0.2138, 0, 0.2243], [0, 0.0467, 0]],
    [[0.2503, 0, 0.2616]],
    [[0.2598, 0, 0.2552]],
    [[0.2215, 0, 0.0717]],
)


def normalised_pyramid(image, bands):
    """The normalised bands of one grey image in [0, 1], step by step from the paper."""
    kernel = np.outer(*2 * [[0.05, 0.25, 0.4, 0.25, 0.05]])
    results = []
    for band in range(bands):
        coefficients = image
        last = band == bands - 1
        if not last:
            low = scipy.ndimage.correlate(image, kernel, mode="reflect")[::2, ::2]
            padded = np.pad(low, 1, mode="edge")
            spread = np.zeros([2 * side for side in padded.shape])
            spread[::2, ::2] = 4 * padded
            grown = scipy.ndimage.correlate(spread, kernel, mode="constant")
            coefficients = image - grown[2 : 2 + image.shape[0], 2 : 2 + image.shape[1]]
            image = low
        which = 5 if last else band
        amplitude = scipy.signal.convolve2d(np.abs(coefficients), KERNELS[which], mode="same")
        results.append(coefficients / (CONSTANTS[which] + amplitude))
    return results


def photograph(size, seed=0, channels=3):
    """Smooth random images in [-1, 1] with an edge in them."""
    random = np.random.RandomState(seed)
    noise = random.standard_normal((2, *size, channels))
    smooth = scipy.ndimage.gaussian_filter(noise, (0, 2, 2, 0))
    smooth[:, size[0] // 2 :] += 0.2
    return jnp.asarray(np.clip(3 * smooth, -1, 1), jnp.float32)


@pytest.mark.parametrize("size", [(8, 9), (37, 22), (64, 65), (150, 131)])
def test_features_are_the_normalised_pyramid(size):
    """The bands equal the definition, scaled for a mean of squares and a mean over bands."""
    images = photograph(size, channels=1)
    with testing.x64():
        features = features_of(jnp.asarray(images, jnp.float64))
    bands = nlpd.band_count(*size)
    assert len(features) == bands
    for index, image in enumerate((np.asarray(images, np.float64) + 1) / 2):
        for leaf, band in zip(features, normalised_pyramid(image[..., 0], bands), strict=True):
            scaled = np.asarray(leaf)[index, 0] * np.sqrt(bands * band.size)
            testing.assert_close(scaled, band, 1e-10, f"{band.shape}")


@pytest.mark.parametrize(
    ("side", "bands"),
    [(8, 2), (15, 2), (16, 3), (63, 4), (64, 5), (65, 5), (128, 6), (256, 6), (1024, 6)],
)
def test_band_count_follows_the_smaller_side(side, bands):
    """The low-pass band is four to seven pixels wide until six bands are reached."""
    assert nlpd.band_count(side, 2 * side) == nlpd.band_count(side + 1024, side) == bands


def test_32_bit_features_are_accurate():
    """Small coefficients of smooth images keep their digits."""
    images = photograph((48, 64))
    single = features_of(images)
    with testing.x64():
        double = features_of(jnp.asarray(images, jnp.float64))
    for x, y in zip(single, double, strict=True):
        testing.assert_close(x, y, 5e-5)


def test_grey_images_have_the_distance_of_luminance():
    """Three equal channels give the value of the one."""
    one = photograph((24, 32), channels=1)
    three = jnp.repeat(one, 3, axis=-1)
    value = distance_of(METRIC, one, one[::-1])
    testing.assert_close(distance_of(METRIC, three, three[::-1]), value, 1e-5)


def test_a_change_of_colour_alone_counts():
    """Red up and green down at equal luma: the luma planes stay, the distance does not."""
    images = 0.5 * photograph((24, 32))
    edited = images + 0.2 * jnp.array([0.587, -0.299, 0.0])[None, None, None]
    before, after = features_of(images), features_of(edited)
    for x, y in zip(before, after, strict=True):
        testing.assert_close(y[:, 0], x[:, 0], 1e-4, "luma")
    grey = distance_of(METRIC, images, images + 0.02)
    assert np.all(distance_of(METRIC, images, edited) > grey)


def test_distance_grows_with_noise():
    """More noise of the same kind gives a larger distance."""
    images = photograph((32, 32))
    noise = testing.normal_like(1, images)
    values = [distance_of(METRIC, images, images + level * noise) for level in (0.01, 0.03, 0.1)]
    assert np.all(np.diff(values, axis=0) > 0)


def test_texture_masks_noise():
    """The same noise counts less on a strong texture than on a flat image."""
    flat = jnp.zeros((1, 32, 32, 3))
    texture = 0.5 * jnp.sign(testing.normal_like(0, flat))
    noise = 0.05 * testing.normal_like(1, flat)
    on_flat = distance_of(METRIC, flat, flat + noise)
    assert np.all(distance_of(METRIC, texture, texture + noise) < 0.3 * on_flat)


def test_flat_images_leave_only_the_low_pass_band():
    """A constant image has no band-pass coefficients, at the borders either."""
    *band_pass, low_pass = features_of(jnp.full((1, 21, 30, 1), 0.3))
    for leaf in band_pass:
        assert np.max(np.abs(leaf)) < 1e-5 * np.max(np.abs(low_pass))


@pytest.mark.parametrize("shape", [(1, 7, 16, 3), (1, 16, 16, 5), (1, 7, 16, 4), (16, 16, 3)])
def test_unfit_images_are_refused(shape):
    """The message names the allowed channels, the smallest side and the shape."""
    with pytest.raises(InputError, match=r"nlpd: .* 3 \(RGB\) or .* and sides of 8 .*; got shape"):
        METRIC.features(jnp.zeros(shape))
