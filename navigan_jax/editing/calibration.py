"""Shift scales: how far each side of a direction goes for one perceptual budget, and at most.

One search along a side of a direction finds both, as each evaluation measures the distance to the
original and the out-of-distribution score:

scale       the |t| that spends the perceptual budget: E_z d(G_θ(z), G_{θ+tξ}(z)) is the target.
plausible   the end of the effective range: the |t| at which the mean out-of-distribution score
            of the images reaches its bound (see `editing.plausibility`).
"""

import dataclasses
import math
from collections.abc import Callable, Generator
from typing import TypeVar

_PRECISION = 0.02  # relative, of the distance
_JUMP = 1e-3  # a bracket of log t this narrow holds no crossing: the distance jumps there
_STEPS = (2.0, 16.0)  # least and greatest factor on t in one step, until there is a bracket
_NEAR = 1.02  # least factor of the first steps, which follow power laws to the target itself
_GUIDED = 2  # number of these first steps
# Exponent of t assumed for the distance until two evaluations show it: 2 for small shifts, less for
# visible changes (1.3 to 2 on a DCGAN of faces).
_POWER = 1.6
_MOST_EVALUATIONS = 40
_STRIDE = 1.5  # greatest factor on t in one step of the search for the end of the effective range
# The search evaluates at this factor beyond the end that it expects: one evaluation outside
# narrows the bracket more than two inside.
_BEYOND = 1.1
_SLIGHT = 0.15  # share of the way from usual score to bound; below it, the growth is unclear
_NEAREST, WIDEST = 1 / 16, 4.0  # of the scale: the search for the end stays between these

# A search yields a shift t > 0 and is sent the answer: the distance, or the distance and the score.
Answer = TypeVar("Answer")


@dataclasses.dataclass(frozen=True)
class Scale:
    """shift: |t|. distance: E_z d at that shift. reached: whether the distance is the target."""

    shift: float
    distance: float
    reached: bool


@dataclasses.dataclass(frozen=True)
class Side:
    """scale: the shift of the target. plausible: the |t| at which the effective range ends.

    The search for that end stops at `WIDEST` times the scale; the range may then be wider.
    """

    scale: Scale
    plausible: float


def find_scale(
    distance_at: Callable[[float], float], *, target: float, first: float, largest: float
) -> Scale:
    """Returns a shift t > 0 at which distance_at(t) is the target within 2 %.

    The first step assumes a distance that grows like t^1.6; the second follows the power law
    through both points. If neither meets the target, the search opens a bracket. It narrows the
    bracket alternately by the chord in log t and log distance, which is exact for power laws, and
    by bisection. A distance that is not finite counts as too large.
    first: the shift to begin with, sqrt(2 target / λ) for a direction of eigenvalue λ. largest:
    the greatest shift allowed. If no shift meets the target, the result is the largest shift tried
    whose change is too small, or 0, with `reached` False.
    Cost: 2 to 6 evaluations from a good start.
    """
    search = _search_scale(target=target, first=first, largest=largest)
    return _answer(search, distance_at)


def find_side(
    look: Callable[[float], tuple[float, float]],
    *,
    target: float,
    first: float,
    largest: float,
    bound: float,
    usual: float,
) -> Side:
    """Returns the scale of one side of a direction, and where its effective range ends.

    look: t > 0 -> (distance, score). target, first, largest: as for `find_scale`. bound: of the
    score; infinite: no bound. A score that is not finite lies outside. usual: the score at t = 0;
    near the end of the range, score − usual is taken for a power of t.
    Cost: that of `find_scale` and 1 to 3 more evaluations, seldom up to 12.
    """
    search = _search_side(target=target, first=first, largest=largest, bound=bound, usual=usual)
    return _answer(search, look)


Found = TypeVar("Found")


def _answer(search: Generator[float, Answer, Found], look: Callable[[float], Answer]) -> Found:
    """Runs a search whose questions `look` answers; returns its result."""
    try:
        shift = next(search)
        while True:
            shift = search.send(look(shift))
    except StopIteration as stop:
        return stop.value


def _search_side(
    *, target: float, first: float, largest: float, bound: float, usual: float
) -> Generator[float, tuple[float, float], Side]:
    """Searches for the scale, then outwards or inwards for the end of the effective range."""
    seen: dict[float, float] = {}  # share of the way from the usual score to the bound, by shift
    search = _search_scale(target=target, first=first, largest=largest)
    shift = next(search)
    while True:
        distance, score = yield shift
        seen[shift] = _share(score, usual, bound)
        try:
            shift = search.send(distance)
        except StopIteration as stop:
            scale = stop.value
            break
    if not scale.shift:
        return Side(scale, 0.0)
    farthest = min(WIDEST * scale.shift, largest)
    if math.isinf(bound):
        return Side(scale, farthest)
    while True:
        edge = min((t for t in seen if seen[t] > 1), default=math.inf)
        # The original counts as plausible.
        inside = max((t for t in seen if t < edge), default=0.0)
        share = seen.get(inside, 0.0)
        if math.isinf(edge):
            if inside >= farthest:
                return Side(scale, farthest)
            growth = _BEYOND / math.sqrt(max(share, _SLIGHT))  # the score grows like t² at first
            shift = min(inside * min(growth, _STRIDE), farthest)
        else:
            meets = _crossing(inside, share, edge, seen[edge])
            if inside > edge / (_STRIDE * 1.01) or edge <= _NEAREST * scale.shift:
                return Side(scale, meets)
            shift = min(max(meets / _BEYOND, edge / _STRIDE), edge / _BEYOND)
        _, score = yield shift
        seen[shift] = _share(score, usual, bound)


def _share(score: float, usual: float, bound: float) -> float:
    """Returns the score as a share of the way from the usual one to the bound; inf if unknown."""
    if not score <= bound:
        return max((score - usual) / (bound - usual), 1.01) if usual < bound <= score else math.inf
    return max(score - usual, 0.0) / (bound - usual) if usual < bound else 0.0


def _crossing(low: float, inside: float, high: float, outside: float) -> float:
    """Returns the shift between `low` and `high` at which the share is 1.

    The share is taken for a power of t, or for linear in t if it is slight at `low`.
    """
    if low <= 0 or math.isinf(outside):
        return low
    if inside < _SLIGHT:
        return low + (high - low) * (1 - inside) / (outside - inside)
    return low * (high / low) ** (math.log(inside) / math.log(inside / outside))


def _search_scale(*, target: float, first: float, largest: float) -> Generator[float, float, Scale]:
    best = Scale(0.0, 0.0, False)
    # log t and log(distance / target): the largest shift of too small a change, the smallest of
    # too large a change.
    low, low_height = -math.inf, -math.inf
    high, high_height = math.inf, math.inf
    end = math.log(largest)
    position = min(math.log(first), end)
    halve, power, before = False, _POWER, (math.nan, math.nan)
    for number in range(_MOST_EVALUATIONS):
        shift = min(math.exp(position), largest)
        distance = yield shift
        height = _log(distance / target)
        if abs(height) <= _PRECISION:
            return Scale(shift, distance, True)
        if height < 0:
            best = Scale(shift, distance, False)
            low, low_height = position, height
        else:
            high, high_height = position, height
        if low == end or high - low < _JUMP:
            break
        if number:
            power = (height - before[1]) / (position - before[0])
        before = position, height
        least = _NEAR if number < _GUIDED else _STEPS[0]
        if math.isinf(high):
            position = min(low + _step(low_height, power, least), end)
        elif math.isinf(low):
            position = high - _step(high_height, power, least)
        elif halve or math.isinf(high_height - low_height):
            position, halve = (low + high) / 2, False
        else:
            part = low_height / (low_height - high_height)
            position, halve = low + part * (high - low), True
    return best


def _log(ratio: float) -> float:
    if not math.isfinite(ratio):
        return math.inf
    return math.log(ratio) if ratio > 0 else -math.inf


def _step(height: float, power: float, least: float) -> float:
    """Returns the step in log t to the target, for a distance that grows like t^power."""
    power = power if 0.5 <= power <= 8 else 2.0  # any other value, NaN included, is an accident
    return min(max(abs(height) / power, math.log(least)), math.log(_STEPS[1]))
