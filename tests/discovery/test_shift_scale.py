"""The shift scale that is found, and scales that are refused, on images whose breaking is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax.discovery import shift_scale
from navigan_jax.editing import plausibility
from navigan_jax.errors import InputError


@functools.cache
def originals():
    """Images of unlike brightness and contrast."""
    random = np.random.RandomState(0)
    contrast = random.uniform(0.2, 0.3, (256, 1, 1, 1))
    return jnp.asarray(contrast * random.standard_normal((256, 8, 8, 3)), jnp.float32)


@functools.cache
def plausible():
    """What is plausible among them."""
    return plausibility.fit(jax.jit(plausibility.describe)(originals()), 0.9)


@functools.cache
def make_judge():
    return shift_scale.make_judge(plausible(), originals()[::8])


def along(change):
    """shift -> images of some samples."""
    return lambda shift: change(originals()[::8], shift)


def brighten(images, shift):
    return images + 0.01 * shift


def test_unchanged_images_are_plausible_and_bright_ones_are_not():
    judge, render = make_judge(), along(brighten)
    unchanged, bright = judge(render(0.0)), judge(render(100.0))
    assert unchanged.score <= 1 < bright.score
    assert unchanged.plausible > 0.8 and bright.plausible == 0
    assert judge(jnp.full((4, 8, 8, 3), 0.1)).flat == 1
    broken = judge(jnp.full((4, 8, 8, 3), jnp.nan))
    assert (broken.broken, broken.score, broken.plausible) == (1, np.inf, 0)
    assert unchanged.flat == unchanged.broken == 0


@pytest.mark.parametrize("first", [1e-2, 7.0, 1e4])
def test_largest_plausible_shift_lies_at_the_edge_of_the_rule(first):
    """Within its precision, wherever the search begins."""
    judge, render = make_judge(), along(brighten)
    found = shift_scale.largest_plausible_shift(render, judge, first=first)
    assert judge(render(found)).score <= 1 < judge(render(1.06 * found)).score


def test_weights_that_do_not_matter_have_no_largest_shift():
    render = along(lambda images, shift: images)
    with pytest.raises(
        InputError, match=r"shift\.scale: expected a largest shift .* choose another"
    ):
        shift_scale.largest_plausible_shift(render, make_judge(), first=1.0)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda images, shift: images * jnp.where(shift > 50, jnp.nan, 1.0), "got NaN or infinity"),
        (lambda images, shift: images / (1 + (shift / 10) ** 2), "got plain grey in 100%"),
        (lambda images, shift: images + 1e-3 * shift**2, "got what this generator never makes"),
    ],
)
def test_a_scale_at_which_images_are_none_is_refused_with_a_better_one(change, complaint):
    judge, render = make_judge(), along(change)
    require = functools.partial(shift_scale.require_images, render, judge, first=1.0)
    pattern = rf"config\.shift\.scale: .*{complaint}.* set --config\.shift\.scale=([\d.]+), or 0"
    with pytest.raises(InputError, match=pattern) as caught:
        require(scale=400.0)
    advice = float(str(caught.value).rpartition("shift.scale=")[2].partition(",")[0])
    assert judge(render(advice)).score <= 1.01  # it is told in three digits
    assert require(scale=advice).plausible > 0.5


def test_every_direction_is_seen_on_both_sides():
    seen = {}
    render = shift_scale.along_directions(
        lambda indices, shifts: seen.update(indices=indices, shifts=shifts),
        directions=3,
        samples=12,
    )
    render(5.0)
    pairs = set(zip(seen["indices"].tolist(), seen["shifts"].tolist(), strict=True))
    assert pairs == {(k, t) for k in range(3) for t in (-5.0, 5.0)}
