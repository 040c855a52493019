"""Oddity is 1 on the average over one's own images, blind to units, and large for broken images."""

import jax
import numpy as np
import pytest

from navigan_jax import testing
from navigan_jax.editing import plausibility
from navigan_jax.errors import InputError

statistics = jax.jit(plausibility.statistics)
oddity = jax.jit(plausibility.Plausibility.oddity)


def waves(seed, count, channels=3, noise=0.0):
    """Smooth images of random contrast and colour, and noise on top."""
    random = np.random.RandomState(seed)
    rows = np.linspace(0, 1, 16)
    phase = random.uniform(0, 6, (count, 1, 1, channels))
    contrast = random.uniform(0.3, 0.6, (count, 1, 1, channels))
    images = contrast * np.sin(
        phase + 6 * rows[None, :, None, None] + 3 * rows[None, None, :, None]
    )
    return (images + noise * random.standard_normal(images.shape)).astype(np.float32)


def test_oddity_is_one_on_the_average_and_the_bound_a_quantile():
    """Of samples that μ and Σ are from, and of every fourth one, which is kept apart."""
    rows = np.random.RandomState(0).standard_normal((2000, 5)) @ np.diag([1, 2, 3, 4, 5])
    fitted = plausibility.fit(rows, 0.9)
    deviations = (rows - np.asarray(fitted.mean)) @ np.asarray(fitted.whitening).T
    oddities = np.sum(deviations**2, axis=1)
    apart = np.arange(2000) % 4 == 3
    testing.assert_close(oddities[~apart].mean(), 1.0, 2e-3)  # the ridge draws it below 1
    testing.assert_close(np.mean(oddities[apart] <= fitted.bound), 0.9, 3e-3)


@pytest.mark.parametrize("channels", [2, 3])
def test_two_channels_are_described_without_the_pyramid(channels):
    """It takes one or three; pixels and the grid of 8 x 8 fields are described all the same."""
    pyramid = 2 * channels * 3 if channels == 3 else 0
    assert statistics(waves(0, 4, channels)).shape == (4, 2 * channels + pyramid + 64)


def test_oddity_does_not_depend_on_the_units_of_a_statistic():
    rows = np.random.RandomState(0).standard_normal((200, 5))
    scales = np.array([1, 3, 100, 0.1, 7])
    plain, scaled = plausibility.fit(rows, 0.5), plausibility.fit(scales * rows + 2, 0.5)
    assert abs(plain.bound - scaled.bound) < 1e-3 * plain.bound


def test_broken_images_are_odd():
    """Noise, black, and contrast beyond all; other waves are not."""
    fitted = plausibility.fit(np.asarray(statistics(waves(0, 300))), 0.99)
    assert np.mean(oddity(fitted, waves(1, 300))) < fitted.bound
    for broken in (waves(1, 300, noise=0.3), 0 * waves(1, 300), np.sign(waves(1, 300))):
        assert np.mean(oddity(fitted, broken)) > 2 * fitted.bound


def test_measuring_does_not_depend_on_the_microbatch():
    generator = testing.tiny_generators()["dcgan"]
    params = testing.draw_params(generator, 0)
    z = generator.sample_latents(jax.random.key(0), 7)
    whole, parts = (
        plausibility.measure(generator, params, z, quantile=0.9, microbatch=size) for size in (7, 3)
    )
    testing.assert_close(parts.mean, whole.mean, 1e-4)
    assert abs(parts.bound - whole.bound) <= 1e-2 * whole.bound


def test_a_generator_without_finite_images_is_refused():
    generator = testing.tiny_generators()["dcgan"]
    params = jax.tree.map(lambda leaf: leaf * np.nan, testing.draw_params(generator, 0))
    z = generator.sample_latents(jax.random.key(0), 4)
    with pytest.raises(InputError, match="generator: expected finite images; got NaN or infinity"):
        plausibility.measure(generator, params, z, quantile=0.9, microbatch=4)
