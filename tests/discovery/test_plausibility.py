"""The shift scale that is found, and scales that are refused, on images whose breaking is known."""

import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax.discovery import plausibility
from navigan_jax.errors import InputError
from navigan_jax.perceptual.l2 import L2


def originals():
    """Images of unlike brightness and contrast."""
    random = np.random.RandomState(0)
    contrast = random.uniform(0.2, 0.3, (64, 1, 1, 1))
    return jnp.asarray(contrast * random.standard_normal((64, 8, 8, 3)), jnp.float32)


def judge_and_render(change):
    images = originals()
    return plausibility.make_judge(L2(), images), lambda shift: change(images, shift)


def brighten(images, shift):
    return images + 0.01 * shift


def test_unchanged_images_are_plausible_and_bright_ones_are_not():
    judge, render = judge_and_render(brighten)
    assert judge(render(0.0)).plausible > 0.9
    assert judge(render(100.0)).plausible == 0
    assert judge(jnp.full((4, 8, 8, 3), 0.1)).flat == 1
    assert judge(jnp.full((4, 8, 8, 3), jnp.nan)).broken == 1
    assert judge(render(0.0)).flat == judge(render(0.0)).broken == 0


@pytest.mark.parametrize("first", [1e-2, 7.0, 1e4])
def test_largest_plausible_shift_lies_at_the_edge_of_the_rule(first):
    """Within its precision, wherever the search begins."""
    judge, render = judge_and_render(brighten)
    found = plausibility.largest_plausible_shift(render, judge, first=first)
    assert judge(render(found)).plausible >= 0.9 > judge(render(1.06 * found)).plausible


def test_weights_that_do_not_matter_have_no_largest_shift():
    judge, render = judge_and_render(lambda images, shift: images)
    with pytest.raises(
        InputError, match=r"shift\.scale: expected a largest shift .* choose another"
    ):
        plausibility.largest_plausible_shift(render, judge, first=1.0)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda images, shift: images * jnp.where(shift > 50, jnp.nan, 1.0), "got NaN or infinity"),
        (lambda images, shift: images / (1 + (shift / 10) ** 2), "got plain grey in 100%"),
    ],
)
def test_a_scale_at_which_images_are_none_is_refused_with_a_better_one(change, complaint):
    judge, render = judge_and_render(change)
    pattern = rf"config\.shift\.scale: .*{complaint}.* set --config\.shift\.scale=([\d.]+), or 0"
    with pytest.raises(InputError, match=pattern) as caught:
        plausibility.require_images(render, judge, scale=400.0, first=1.0)
    advice = float(str(caught.value).rpartition("shift.scale=")[2].partition(",")[0])
    assert judge(render(advice)).plausible > 0.85
    assert plausibility.require_images(render, judge, scale=advice, first=1.0).plausible > 0.85


def test_a_generator_without_finite_images_is_refused():
    with pytest.raises(InputError, match="generator: expected finite images; got NaN or infinity"):
        plausibility.make_judge(L2(), originals().at[3, 0, 0, 0].set(jnp.nan))


def test_every_direction_is_seen_on_both_sides():
    seen = {}
    render = plausibility.along_directions(
        lambda indices, shifts: seen.update(indices=indices, shifts=shifts),
        directions=3,
        samples=12,
    )
    render(5.0)
    pairs = set(zip(seen["indices"].tolist(), seen["shifts"].tolist(), strict=True))
    assert pairs == {(k, t) for k in range(3) for t in (-5.0, 5.0)}
