"""Scores are 1 at their bound, ignore units, and are large for broken or saturated images."""

import jax
import numpy as np
import pytest

from navigan_jax import testing
from navigan_jax.channels import over
from navigan_jax.editing import plausibility
from navigan_jax.errors import InputError

describe = jax.jit(plausibility.describe)
scores = jax.jit(plausibility.Plausibility.scores)
UNSATURATED = np.zeros((2000, 2, 4, 4))


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


def fit(rows, quantile, saturated=UNSATURATED):
    return plausibility.fit(plausibility.Statistics(rows, saturated), quantile)


def deviate(fitted, rows):
    return np.sum(((rows - np.asarray(fitted.mean)) @ np.asarray(fitted.whitening).T) ** 2, axis=1)


def test_bound_is_a_quantile_of_every_fourth_sample():
    """The other samples give μ and Σ; their mean score is that of a sum of five squares."""
    rows = np.random.RandomState(0).standard_normal((2000, 5)) @ np.diag([1, 2, 3, 4, 5])
    fitted = fit(rows, 0.9)
    found, apart = deviate(fitted, rows), np.arange(2000) % 4 == 3
    testing.assert_close(np.mean(found[apart] <= 1), 0.9, 3e-3)
    testing.assert_close(found[apart].mean(), fitted.usual[0], 1e-5)
    bound = 9.236  # the quantile 0.9 of chi-squared with 5 degrees of freedom
    testing.assert_close(found[~apart].mean(), 5 / bound, 0.08)  # of 500 samples


def test_saturation_bound_is_the_usual_score_and_a_hundredth_of_the_pixels():
    """A pixel counts fully where no sample is saturated, and not at all where every sample is."""
    saturated = UNSATURATED.copy()
    saturated[:, 0, 0, 0] = 1.0
    fitted = fit(np.random.RandomState(0).standard_normal((2000, 5)), 0.9, saturated)
    assert fitted.surprise[0, 0, 0] == fitted.usual[1] == 0
    testing.assert_close(fitted.surprise[0, 1:], np.full((3, 4), 100.0), 1e-5)
    testing.assert_close(fitted.surprise[1], np.full((4, 4), 100.0), 1e-5)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_with_alpha_are_described_over_black_and_over_white(channels):
    """Pixels, three bands of the pyramid and the grid of 8 x 8 fields; and a transparent kind."""
    images = waves(0, 4, channels)
    described = describe(images)
    colours = channels - 1 if channels in (2, 4) else channels
    single = 2 * colours + 2 * colours * 3 + 64
    if colours == channels:
        assert described.whole.shape == (4, single) and described.saturated.shape == (4, 2, 16, 16)
        return
    assert described.whole.shape == (4, 2 * single) and described.saturated.shape == (4, 3, 16, 16)
    for side, background in enumerate((-1.0, 1.0)):
        alone = describe(over(images, background)).whole
        testing.assert_close(described.whole[:, side * single :][:, :single], alone, 1e-4)


def test_score_does_not_depend_on_the_units_of_a_statistic():
    rows = np.random.RandomState(0).standard_normal((200, 5))
    scales = np.array([1, 3, 100, 0.1, 7])
    plain, scaled = fit(rows, 0.5), fit(scales * rows + 2, 0.5)
    testing.assert_close(deviate(scaled, scales * rows + 2), deviate(plain, rows), 1e-3)


def test_broken_images_score_high():
    """Noise, black images and extreme contrast; other waves score low."""
    fitted = plausibility.fit(describe(waves(0, 300)), 0.99)
    assert (np.mean(scores(fitted, waves(1, 300)), axis=0) < 1).all()
    for broken in (waves(1, 300, noise=0.3), 0 * waves(1, 300), np.sign(waves(1, 300))):
        assert np.mean(scores(fitted, broken), axis=0)[0] > 2


@pytest.mark.parametrize("kind", ["black", "white", "transparent"])
def test_a_saturated_spot_scores_high(kind):
    """A spot of 3 of 16 by 16 pixels, 1.2 %, where the generator never saturates."""
    first, images = (waves(seed, 300, 4 if kind == "transparent" else 3) for seed in (0, 1))
    fitted = plausibility.fit(describe(first), 0.99)
    if kind == "transparent":
        images[:, 8:9, 7:10, 3] = -1.0
    else:
        images[:, 8:9, 7:10] = -1.0 if kind == "black" else 1.0
    np.testing.assert_allclose(scores(fitted, images)[:, 1], 100 * 3 / 256, rtol=1e-5)


def test_scores_of_images_with_nan_are_nan():
    fitted = plausibility.fit(describe(waves(0, 300)), 0.99)
    assert np.isnan(scores(fitted, waves(1, 3) * np.nan)).all()


def test_measuring_does_not_depend_on_the_microbatch():
    generator = testing.tiny_generators()["dcgan"]
    params = testing.draw_params(generator, 0)
    z = generator.sample_latents(jax.random.key(0), 7)
    whole, parts = (
        plausibility.measure(generator, params, z, quantile=0.9, microbatch=size)
        for size in (10**9, 3)  # a microbatch larger than the batch is cut to it
    )
    testing.assert_close(parts.mean, whole.mean, 1e-4)
    testing.assert_close(parts.surprise, whole.surprise, 1e-4)
    testing.assert_close(parts.usual, whole.usual, 1e-2)


def test_a_generator_without_finite_images_is_refused():
    generator = testing.tiny_generators()["dcgan"]
    params = jax.tree.map(lambda leaf: leaf * np.nan, testing.draw_params(generator, 0))
    z = generator.sample_latents(jax.random.key(0), 4)
    with pytest.raises(InputError, match="generator: expected finite images; got NaN or infinity"):
        plausibility.measure(generator, params, z, quantile=0.9, microbatch=4)
