"""Scenes of cars: every factor changes what it names and nothing else."""

import jax
import numpy as np
import pytest

from benchmarks.cars import scene
from benchmarks.cars.scene import FACTORS, NAMES, OWNERS

SIDE = 64


def _middle() -> np.ndarray:
    """Returns a scene away from all ends, the wheels as in training."""
    values = [factor.low + 0.4 * (factor.high - factor.low) for factor in FACTORS]
    fixed = [factor.trained for factor in FACTORS]
    return np.array(
        [value if own is None else own for value, own in zip(values, fixed, strict=True)],
        np.float32,
    )


def _with(name: str, value: float) -> np.ndarray:
    factors = _middle()
    factors[NAMES.index(name)] = value
    return factors


@pytest.mark.parametrize("factor", FACTORS, ids=lambda factor: factor.name)
def test_factor_changes_what_it_names_and_nothing_else(factor: scene.Factor) -> None:
    """Only the layers of OWNERS change, and of these only coverage or only colour."""
    what, owners = OWNERS[factor.name]
    here = scene.layers(_middle(), SIDE)
    middle = (factor.low + factor.high) / 2
    there = scene.layers(_with(factor.name, 0.35 * factor.low + 0.65 * middle + 0.02), SIDE)
    for name, (coverage, colour) in here.items():
        is_owner = name in owners
        same_coverage = np.array_equal(coverage, there[name][0])
        same_colour = np.array_equal(colour, there[name][1])
        assert same_coverage == (not (is_owner and what == "coverage")), name
        assert same_colour == (not (is_owner and what == "colour")), name


def test_same_factors_same_bytes() -> None:
    """Alone and in a batch, in one call and in the next."""
    factors = scene.draw(jax.random.key(0), 3, all_vary=True)
    images = np.asarray(scene.render(factors, SIDE))
    np.testing.assert_array_equal(images, np.asarray(scene.render(factors, SIDE)))
    assert images.shape == (3, SIDE, SIDE, 3)
    assert images.min() >= -1
    assert images.max() <= 1


@pytest.mark.parametrize("name", [factor.name for factor in FACTORS if factor.is_circular])
def test_both_ends_of_a_circular_factor_are_the_same(name: str) -> None:
    factor = FACTORS[NAMES.index(name)]
    ends = np.stack([_with(name, factor.low), _with(name, factor.high)])
    low, high = np.asarray(scene.render(ends, SIDE))
    np.testing.assert_allclose(low, high, atol=1e-3)


def test_scene_does_not_depend_on_the_scale() -> None:
    """An image of twice the side, averaged over squares of four, is the image itself up to the
    smoothing of edges over a pixel."""
    factors = scene.draw(jax.random.key(1), 2)
    small = np.asarray(scene.render(factors, SIDE))
    large = np.asarray(scene.render(factors, 2 * SIDE))
    averaged = large.reshape(2, SIDE, 2, SIDE, 2, 3).mean(axis=(2, 4))
    assert np.abs(averaged - small).mean() < 0.01
    assert np.abs(averaged - small[::-1]).mean() > 0.1  # of the other scene


def test_wheels_grow_with_their_radius() -> None:
    """The area of a wheel is π r²; tyres are the lowest of the car at any radius."""
    for radius in (5.0, 8.0):
        coverage = np.asarray(scene.layers(_with("wheel radius", radius), SIDE)["tyres"][0])
        assert coverage.sum() == pytest.approx(2 * np.pi * radius**2, rel=0.01)
        rows = np.nonzero(coverage.max(axis=1) > 0.5)[0]
        assert rows[-1] == 51


def test_latents_give_factors_in_their_ranges_and_wheels_of_one_size() -> None:
    """Each coordinate of z drives one factor, whose values fill its range."""
    z = jax.random.normal(jax.random.key(2), (500, len(scene.TRAINED)))
    factors = np.asarray(scene.from_latents(z))
    for name, column in zip(NAMES, factors.T, strict=True):
        factor = FACTORS[NAMES.index(name)]
        if factor.trained is not None:
            assert np.all(column == np.float32(factor.trained))
            continue
        shares = (column - factor.low) / (factor.high - factor.low)
        assert 0 <= shares.min() < 0.05
        assert 0.95 < shares.max() <= 1
        np.testing.assert_allclose(
            np.quantile(shares, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.08
        )
    correlations = np.corrcoef(factors[:, :-1].T) - np.eye(len(NAMES) - 1)
    assert np.abs(correlations).max() < 0.2


def test_wheel_radius_varies_where_all_factors_do() -> None:
    factors = np.asarray(scene.draw(jax.random.key(3), 100, all_vary=True))
    radii = factors[:, NAMES.index("wheel radius")]
    assert radii.min() < 5 < 8 < radii.max()
