"""The gauges of cars read renders that they have not seen, the wheel radius in its whole range."""

import jax
import numpy as np
import pytest

from benchmarks.cars import scene, train_gauges
from navigan_jax.evaluation.gauges import read_gauges


@pytest.fixture(scope="module")
def gauges():
    return read_gauges("cars")


def test_factors_are_those_of_the_scenes(gauges):
    assert gauges.names == scene.NAMES
    for ours, theirs in zip(gauges.factors, scene.FACTORS, strict=True):
        assert (ours.low, ours.high, ours.is_circular) == (
            theirs.low,
            theirs.high,
            theirs.is_circular,
        )


def test_each_factor_is_read_off_new_renders(gauges):
    """R² above 0.97 on 256 renders; readings of another render are far below."""
    factors = scene.draw(jax.random.key(77), 256, all_vary=True)
    read = gauges.read(scene.render(factors))
    truth, found = (np.asarray(train_gauges.shares_of_ranges(values)) for values in (factors, read))
    scores = train_gauges.r_squared(truth, found)
    assert min(scores.values()) > 0.97, scores
    shuffled = train_gauges.r_squared(truth, np.roll(found, 1, axis=0))
    assert max(shuffled.values()) < 0.5


def test_wheel_radius_is_read_where_no_training_image_of_the_generator_has_been(gauges):
    factors = np.array(scene.draw(jax.random.key(5), 41, all_vary=False))
    radius = np.linspace(4.5, 8.5, len(factors))
    factors[:, scene.NAMES.index("wheel radius")] = radius
    read = gauges.read(scene.render(factors))[:, gauges.names.index("wheel radius")]
    assert np.abs(read - radius).max() < 0.35


def test_images_of_another_side_are_read_too(gauges):
    """Scenes of 128 px, brought to 64, tell the same within a few percent of the ranges."""
    factors = scene.draw(jax.random.key(6), 32, all_vary=True)
    read = gauges.read(scene.render(factors, 128))
    truth, found = (np.asarray(train_gauges.shares_of_ranges(values)) for values in (factors, read))
    assert min(train_gauges.r_squared(truth, found).values()) > 0.9
