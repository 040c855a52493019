"""Draws of latent spaces: reproducible, within bounds, and truncated to the mean."""

import jax
import numpy as np
import pytest

from navigan_jax import assets
from navigan_jax.errors import InputError
from navigan_jax.generators.latent_space import LatentSpace, NormalSpace, find_label

KEY = jax.random.key(3)
PLAIN = NormalSpace(5)
LABELLED = NormalSpace(5, label_dim=4)
BOUNDED = NormalSpace(5, label_dim=4, bound=0.5, scale=0.4)


@pytest.mark.parametrize("space", [PLAIN, LABELLED, BOUNDED], ids=["plain", "labelled", "bounded"])
@pytest.mark.parametrize("index", [0, 63, 64, 200])
def test_a_sample_does_not_depend_on_how_many_are_drawn(space: LatentSpace, index: int) -> None:
    samples = space.sample(KEY, 256)
    assert samples.shape == (256, *space.shape)
    np.testing.assert_array_equal(space.draw(KEY, index), samples[index : index + 1])


def test_bounded_draws_are_a_normal_law_cut_off_at_the_bound() -> None:
    """Mean and variance of a normal law within ±1 are 0 and 0.2911 (its closed form)."""
    z = np.asarray(NormalSpace(64, bound=1.0, scale=2.0).sample(KEY, 4000))
    assert np.abs(z).max() <= 2.0
    assert z.mean() == pytest.approx(0, abs=0.01)
    assert z.var() == pytest.approx(4 * 0.29112, rel=0.01)


@pytest.mark.parametrize(
    ("text", "index"),
    [("golden retriever", 207), ("Tinca tinca", 0), ("tench, Tinca tinca", 0), ("517", 517)],
)
def test_class_is_found_by_any_of_its_names(text: str, index: int) -> None:
    assert find_label(text, 1000, assets.imagenet_names()) == index


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("crane", r"a name of 2; give its number: 134 \(crane\) or 517 \(crane\)"),
        ("maillot", r"638 \(maillot\) or 639 \(maillot, tank suit\)"),
        ("golden retreiver", "did you mean 'golden retriever'.*and 988 more names"),
        ("1000", "allowed: 0 to 999, or tench"),
    ],
)
def test_unknown_or_ambiguous_class_is_refused(text: str, pattern: str) -> None:
    with pytest.raises(InputError, match=pattern):
        find_label(text, 1000, assets.imagenet_names())


def test_truncation_moves_z_alone() -> None:
    latent = LABELLED.sample(KEY, 3)
    truncated = np.asarray(LABELLED.truncate(latent, 0.5))
    np.testing.assert_array_equal(truncated[:, :5], 0.5 * np.asarray(latent)[:, :5])
    np.testing.assert_array_equal(truncated[:, 5:], latent[:, 5:])
    assert LABELLED.movable == 5
