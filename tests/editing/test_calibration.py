"""The shift at which a distance reaches a target, on functions whose answer is known."""

import math

import numpy as np
import pytest

from navigan_jax.editing.calibration import WIDEST, find_scale, find_side

LARGEST = 1e4


class Counted:
    """A function that remembers where it was evaluated."""

    def __init__(self, function):
        self.function = function
        self.shifts = []

    def __call__(self, shift):
        self.shifts.append(shift)
        return self.function(shift)


# Functions that meet 1, and how often they may be evaluated from t = 1.
MEETING = {
    "quadratic": (lambda t: t**2 / 9, 3),
    "quadratic, far too small": (lambda t: 1e-7 * t**2, 6),
    "quadratic, far too large": (lambda t: 1e9 * t**2, 6),
    "quadratic, a little too small": (lambda t: 0.9 * t**2, 4),
    "quadratic, a little too large": (lambda t: 1.1 * t**2, 4),
    "linear": (lambda t: 0.3 * t, 5),
    "saturating above": (lambda t: 3 * -math.expm1(-(t**2) / 50), 6),
    "saturating barely above": (lambda t: 1.05 * -math.expm1(-(t**2) / 50), 8),
    "very steep power": (lambda t: (t / 3) ** 100, 5),
    "exponential": (lambda t: math.exp(min(200 * (t - 2.5), 700)), 12),
    "quadratic, then quartic": (lambda t: 0.02 * t**2 + 0.5 * t**4, 5),
    "rounded to float32": (lambda t: float(np.float32(1e-3) * np.float32(t) ** 2), 5),
    "zero at first": (lambda t: max(t - 7, 0) ** 2, 10),
    "not monotone": (lambda t: t**2 / 9 * (1 + 0.9 * math.sin(5 * t)), 20),
    "falling beyond": (lambda t: 5 * t**2 * math.exp(-t), 20),
}


@pytest.mark.parametrize("name", MEETING)
@pytest.mark.parametrize("target", [1.0, 1e-9])
def test_target_is_met(name, target):
    """Within 2 %, at a positive shift not beyond the largest, in few evaluations."""
    function, most = MEETING[name]
    counted = Counted(lambda t: target * function(t))
    scale = find_scale(counted, target=target, first=1.0, largest=LARGEST)
    assert scale.reached
    assert scale.distance == target * function(scale.shift)
    assert abs(scale.distance - target) <= 0.0203 * target
    assert 0 < scale.shift <= LARGEST
    assert len(counted.shifts) <= most
    assert all(0 < shift <= LARGEST for shift in counted.shifts)


def test_start_that_meets_the_target_is_kept():
    """One evaluation."""
    counted = Counted(lambda t: 1.01 * t**2)
    scale = find_scale(counted, target=4.0, first=2.0, largest=LARGEST)
    assert (scale.shift, scale.reached) == (2.0, True)
    assert counted.shifts == [2.0]


@pytest.mark.parametrize("ceiling", [0.0, 0.5, 0.97])
def test_function_that_stays_below_is_taken_to_the_largest_shift(ceiling):
    """The distance there is told, and that it is not the target."""
    counted = Counted(lambda t: ceiling * -math.expm1(-(t**2)))
    scale = find_scale(counted, target=1.0, first=1.0, largest=LARGEST)
    assert not scale.reached
    np.testing.assert_allclose(scale.shift, LARGEST, rtol=1e-12)
    assert scale.shift <= LARGEST
    assert scale.distance == ceiling
    assert len(counted.shifts) <= 16


def test_start_beyond_the_largest_shift_begins_there():
    """No shift goes beyond, reached or not."""
    counted = Counted(lambda t: t**2)
    assert find_scale(counted, target=1.0, first=1e6, largest=5.0).reached
    assert max(counted.shifts) <= 5
    below = find_scale(lambda t: t**2 / 100, target=1.0, first=1e6, largest=5.0)
    assert not below.reached
    np.testing.assert_allclose([below.shift, below.distance], [5, 0.25], rtol=1e-12)


@pytest.mark.parametrize("beyond", [math.nan, math.inf])
@pytest.mark.parametrize("edge", [1e-3, 0.7, 2.5])
def test_shift_stays_where_the_distance_is_finite(beyond, edge):
    """Beyond an edge nothing is finite: the farthest finite shift is taken, within 0.1 %."""
    counted = Counted(lambda t: 0.01 * t**2 if t < edge else beyond)
    scale = find_scale(counted, target=1.0, first=1.0, largest=LARGEST)
    assert not scale.reached
    assert 0.998 * edge < scale.shift < edge
    assert scale.distance == 0.01 * scale.shift**2
    assert scale.shift == max(shift for shift in counted.shifts if shift < edge)


def test_target_before_the_edge_is_met():
    """The first step goes beyond the edge."""
    scale = find_scale(
        lambda t: t**2 if t < 1.5 else math.nan, target=1.0, first=40.0, largest=LARGEST
    )
    assert scale.reached


@pytest.mark.parametrize(
    ("before", "after"), [(0.5, 100.0), (0.97, 1e300), (1e-300, 1.1), (0.0, 1.1), (0.9, math.inf)]
)
def test_jump_over_the_target_is_located(before, after):
    """The result is the last shift before the jump."""
    scale = find_scale(
        lambda t: before if t < 7.77 else after, target=1.0, first=1.0, largest=LARGEST
    )
    assert not scale.reached
    assert scale.distance == before
    assert 0.998 * 7.77 < scale.shift < 7.77


@pytest.mark.parametrize("value", [math.nan, math.inf, 5.0])
def test_nothing_small_enough_gives_a_shift_of_zero(value):
    """The search stops after 40 evaluations."""
    counted = Counted(lambda t: value)
    scale = find_scale(counted, target=1.0, first=1.0, largest=LARGEST)
    assert (scale.shift, scale.distance, scale.reached) == (0.0, 0.0, False)
    assert len(counted.shifts) <= 40


# Scores by t, and the t at which they reach the bound 2. The distance is t², the target 9: s = 3.
EDGES = {
    "outside the scale": (lambda t: 1 + t**2 / 25, 5.0),
    "inside the scale": (lambda t: 1 + t**2 / 2, math.sqrt(2)),
    "never": (lambda t: 1.5, WIDEST * 3.0),
    "always": (lambda t: 3.0 if t else 1.0, 0.0),
    "a wall": (lambda t: 1.0 if t < 4 else math.nan, 4.0),
    "back again": (lambda t: 3.0 if 4 < t < 7 else 1.0, 4.0),
}


@pytest.mark.parametrize("name", EDGES)
def test_side_has_scale_and_edge(name):
    """The edge is within a stride of the true one, after few more evaluations than the scale."""
    score, edge = EDGES[name]
    counted = Counted(lambda t: (t**2, score(t)))
    side = find_side(counted, target=9.0, first=2.0, largest=LARGEST, bound=2.0, usual=1.0)
    alone = Counted(lambda t: t**2)
    assert side.scale == find_scale(alone, target=9.0, first=2.0, largest=LARGEST)
    assert counted.shifts[: len(alone.shifts)] == alone.shifts
    assert len(counted.shifts) <= len(alone.shifts) + 8
    if edge:
        assert edge / 1.52 <= side.plausible <= 1.52 * edge
    else:
        assert side.plausible == 0
    if name.endswith("the scale"):
        assert abs(side.plausible - edge) <= 0.1 * edge


def test_side_of_a_direction_that_does_nothing_has_no_range():
    side = find_side(
        lambda t: (5.0, 1.0), target=1.0, first=1.0, largest=LARGEST, bound=2.0, usual=1.0
    )
    assert (side.scale.shift, side.plausible) == (0.0, 0.0)


def test_side_without_a_bound_costs_no_more_than_its_scale():
    counted = Counted(lambda t: (t**2, 0.0))
    side = find_side(counted, target=9.0, first=3.0, largest=LARGEST, bound=math.inf, usual=0.0)
    assert len(counted.shifts) == 1
    np.testing.assert_allclose(side.plausible, WIDEST * 3.0, rtol=1e-12)


def test_edge_is_exact_if_score_minus_usual_is_a_power_of_t():
    """One evaluation inside and one outside suffice; with a wrong usual score it is not exact."""
    look = Counted(lambda t: (t**2, 1.3 + 0.02 * t**2.5))
    edge = (0.35 / 0.02) ** 0.4  # where the score is 1.65
    side = find_side(look, target=6.25, first=2.5, largest=LARGEST, bound=1.65, usual=1.3)
    np.testing.assert_allclose(side.plausible, edge, rtol=1e-6)
    assert len(look.shifts) == 2
    other = find_side(look, target=6.25, first=2.5, largest=LARGEST, bound=1.65, usual=0.0)
    assert abs(other.plausible - edge) > 1e-4 * edge
