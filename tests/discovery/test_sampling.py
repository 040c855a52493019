"""Which directions and shifts are drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax.discovery.sampling import keep_away_from_zero, sample_shifts
from navigan_jax.errors import InputError


def draw(**options):
    settings = {"shift_scale": 6.0, "min_shift": 0.5} | options
    return map(np.asarray, sample_shifts(jax.random.key(0), 20000, 5, **settings))


def test_directions_are_uniform_and_shifts_within_their_bounds():
    """Counts within five deviations of their mean; |t| from min_shift to shift_scale."""
    indices, shifts = draw()
    counts = np.bincount(indices, minlength=5)
    assert len(counts) == 5 and np.max(np.abs(counts - 4000)) < 5 * np.sqrt(20000 * 0.2 * 0.8)
    assert np.min(np.abs(shifts)) == 0.5 and 5.9 < np.max(np.abs(shifts)) <= 6
    assert abs(np.mean(np.abs(shifts) == 0.5) - 0.5 / 6) < 0.01
    assert abs(np.mean(shifts)) < 0.15
    _, normal = draw(distribution="normal", min_shift=0.0)
    assert abs(np.std(normal) - 6) < 0.2


def test_short_shifts_keep_their_sign_and_zero_stays():
    shifts = jnp.array([-3.0, -0.1, 0.0, 0.1, 0.5, 2.0])
    expected = [-3.0, -0.5, 0.0, 0.5, 0.5, 2.0]
    np.testing.assert_array_equal(keep_away_from_zero(shifts, 0.5), np.float32(expected))


def test_unknown_distribution_is_one_message():
    with pytest.raises(InputError, match=r"distribution: .*got 'cauchy'; allowed: uniform, normal"):
        draw(distribution="cauchy")
