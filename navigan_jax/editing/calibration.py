"""Shift scales at which directions change the image by a like amount, and how far they may go.

One search along a side of a direction answers both questions, as every image that it looks at
tells its distance to the original and how odd it is among the generator's own images:

scale       the |t| at which E_z d(G_θ(z), G_{θ+tξ}(z)) is the target.
plausible   the |t| at which the mean oddity of the images leaves the bound: a stated quantile of
            the oddities of the generator's own samples (see `editing.plausibility`).
"""

import dataclasses
import math
from collections.abc import Callable, Generator
from typing import TypeVar

_PRECISION = 0.02  # of the distance
_JUMP = 1e-3  # brackets this narrow, as a part of t, hold no crossing: the distance jumps there
_STEPS = (2.0, 16.0)  # by what factors t is changed, least and most, until there is a bracket
_NEAR = 1.02  # the least factor of the first moves, which power laws guide to the target itself
_GUIDED = 2  # moves
_POWER = 1.6  # of t, that a distance grows like until two evaluations say better: 2 at first, less
# where images have changed as much as one wants to see (1.3 to 2 on a DCGAN of faces)
_MOST_EVALUATIONS = 40
_STRIDE = 1.5  # most by what factor t is changed in search of the edge of what is plausible
_BEYOND = (
    1.1  # how far behind the edge that is expected one looks: a look there is worth two before
)
_SLIGHT = 0.15  # of the way from the usual oddity to the bound: below, it says little about growth
_NEAREST, WIDEST = 1 / 16, 4.0  # of the scale: between these the edge is looked for

# What a search asks for, t > 0, and gets: the distance there, or the distance and the oddity.
Answer = TypeVar("Answer")


@dataclasses.dataclass(frozen=True)
class Scale:
    """shift: |t|. distance: E_z d there. reached: whether that is the target."""

    shift: float
    distance: float
    reached: bool


@dataclasses.dataclass(frozen=True)
class Side:
    """scale: where the target is met. plausible: the |t| up to which images stay plausible.

    The search for the latter ends at `WIDEST` times the scale: such a range may be wider.
    """

    scale: Scale
    plausible: float


def find_scale(
    distance_at: Callable[[float], float], *, target: float, first: float, largest: float
) -> Scale:
    """Returns a shift t > 0 at which distance_at(t) is the target within 2 %.

    The first move goes where a distance that grows like t^1.6 would meet the target, the second
    along the power law through both points. If that is not it, a bracket is opened, and then
    narrowed in turn by the chord in log t and log distance, on which every power law lies, and by
    halving it. What is not finite counts as too much.
    first: where to begin, sqrt(2 target / λ) for a direction of eigenvalue λ. largest: no shift
    goes beyond. Where the target is not met, the largest shift tried with too small a change, or
    else 0, is returned with `reached` False.
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
    """Returns the scale of one side of a direction, and how far it stays plausible.

    look: t > 0 -> (distance, oddity). target, first, largest: as for `find_scale`. bound: of the
    oddity, infinite if it does not matter; what is not finite lies outside. usual: the oddity at
    t = 0, above which the oddity is taken for a power of t near the edge.
    Cost: that of `find_scale` and 1 to 3 evaluations more, seldom up to 12.
    """
    search = _search_side(target=target, first=first, largest=largest, bound=bound, usual=usual)
    return _answer(search, look)


Found = TypeVar("Found")


def _answer(search: Generator[float, Answer, Found], look: Callable[[float], Answer]) -> Found:
    """Returns what a search found by asking `look`."""
    try:
        shift = next(search)
        while True:
            shift = search.send(look(shift))
    except StopIteration as stop:
        return stop.value


def _search_side(
    *, target: float, first: float, largest: float, bound: float, usual: float
) -> Generator[float, tuple[float, float], Side]:
    """Searches for the scale; goes on from there, outwards or inwards, to the plausible edge."""
    seen: dict[float, float] = {}  # share of the way from the usual oddity to the bound, by shift
    search = _search_scale(target=target, first=first, largest=largest)
    shift = next(search)
    while True:
        distance, oddity = yield shift
        seen[shift] = _share(oddity, usual, bound)
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
            growth = _BEYOND / math.sqrt(max(share, _SLIGHT))  # the oddity grows like t² at first
            shift = min(inside * min(growth, _STRIDE), farthest)
        else:
            meets = _crossing(inside, share, edge, seen[edge])
            if inside > edge / (_STRIDE * 1.01) or edge <= _NEAREST * scale.shift:
                return Side(scale, meets)
            shift = min(max(meets / _BEYOND, edge / _STRIDE), edge / _BEYOND)
        _, oddity = yield shift
        seen[shift] = _share(oddity, usual, bound)


def _share(oddity: float, usual: float, bound: float) -> float:
    """Returns which share of the way from the usual oddity to the bound that is; inf if unknown."""
    if not oddity <= bound:
        return (
            max((oddity - usual) / (bound - usual), 1.01) if usual < bound <= oddity else math.inf
        )
    return max(oddity - usual, 0.0) / (bound - usual) if usual < bound else 0.0


def _crossing(low: float, inside: float, high: float, outside: float) -> float:
    """Returns where the share, a power of t between two shifts, is 1.

    Where it hardly grows before the first of them it is taken for linear.
    """
    if low <= 0 or math.isinf(outside):
        return low
    if inside < _SLIGHT:
        return low + (high - low) * (1 - inside) / (outside - inside)
    return low * (high / low) ** (math.log(inside) / math.log(inside / outside))


def _search_scale(*, target: float, first: float, largest: float) -> Generator[float, float, Scale]:
    best = Scale(0.0, 0.0, False)
    # log t and log(distance / target) where the change is too small, and where it is too large.
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
    """Returns by how much log t has to change where the distance grows like t to that power."""
    power = power if 0.5 <= power <= 8 else 2.0  # others, and NaN, are no law to follow
    return min(max(abs(height) / power, math.log(least)), math.log(_STEPS[1]))
