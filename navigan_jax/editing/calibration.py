"""Shift scales at which directions change the image by a like amount."""

import dataclasses
import math
from collections.abc import Callable

_PRECISION = 0.02  # of the distance
_JUMP = 1e-3  # brackets this narrow, as a part of t, hold no crossing: the distance jumps there
_STEPS = (2.0, 16.0)  # by what factors t is changed, least and most, until there is a bracket
_MOST_EVALUATIONS = 40


@dataclasses.dataclass(frozen=True)
class Scale:
    """shift: |t|. distance: E_z d there. reached: whether that is the target."""

    shift: float
    distance: float
    reached: bool


def find_scale(
    distance_at: Callable[[float], float], *, target: float, first: float, largest: float
) -> Scale:
    """Returns a shift t > 0 at which distance_at(t) is the target within 2 %.

    A bracket is opened from `first`, as far as a distance that grows like t² asks for, and then
    narrowed in turn by the chord in log t and log distance, on which every power law lies, and by
    halving it. What is not finite counts as too much.
    first: where to begin, sqrt(2 target / λ) for a direction of eigenvalue λ. largest: no shift
    goes beyond. Where the target is not met, the largest shift tried with too small a change, or
    else 0, is returned with `reached` False.
    Cost: 2 to 6 evaluations from a good start.
    """
    best = Scale(0.0, 0.0, False)
    # log t and log(distance / target) where the change is too small, and where it is too large.
    low, low_height = -math.inf, -math.inf
    high, high_height = math.inf, math.inf
    end = math.log(largest)
    position = min(math.log(first), end)
    halve = False
    for _ in range(_MOST_EVALUATIONS):
        shift = min(math.exp(position), largest)
        distance = distance_at(shift)
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
        if math.isinf(high):
            position = min(low + _step(low_height), end)
        elif math.isinf(low):
            position = high - _step(high_height)
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


def _step(height: float) -> float:
    """Returns by how much log t has to change where the distance grows like t²."""
    least, most = (math.log(factor) for factor in _STEPS)
    return min(max(abs(height) / 2, least), most)
