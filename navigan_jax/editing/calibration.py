"""Shift scales at which directions change the image by a like amount."""

import dataclasses
import math
from collections.abc import Callable

from scipy import optimize

_GROWTH = 2.0  # how far a bracket is opened at a time
_PRECISION = 0.01  # of log t; the distance grows like t² or slower, so within 2 % of the target


@dataclasses.dataclass(frozen=True)
class Scale:
    """shift: |t|. distance: E_z d there. reached: whether that is the target."""

    shift: float
    distance: float
    reached: bool


def find_scale(
    distance_at: Callable[[float], float], *, target: float, first: float, largest: float
) -> Scale:
    """Returns the shift t > 0 at which distance_at(t) is the target, by a safeguarded search.

    A bracket is opened from `first` by factors of 2, then Brent's method finds the crossing in
    log t. first: where to begin, sqrt(2 target / λ) for a direction of eigenvalue λ. largest: no
    shift goes beyond. Where the target is not reached below it, or the distance stops being
    finite, the farthest finite shift that was tried is returned with `reached` False.
    Cost: about 6 evaluations from a good start.
    """
    seen: dict[float, float] = {}

    def height(log_shift: float) -> float:
        shift = math.exp(log_shift)
        seen[shift] = distance_at(shift)
        return math.log(max(seen[shift], 1e-300) / target) if math.isfinite(seen[shift]) else 1e3

    low = high = math.log(min(first, largest))
    here = height(low)
    while here > 0 and low > math.log(first) - 40:
        high, low = low, low - math.log(_GROWTH)
        here = height(low)
    if here > 0:  # even the least shift is too much, or nothing is finite
        return Scale(0.0, 0.0, False)
    if high == low:
        while (above := height(high)) < 0 and high < math.log(largest):
            low, high = high, min(high + math.log(_GROWTH), math.log(largest))
        if above < 0:
            return Scale(math.exp(high), seen[math.exp(high)], False)
    root = optimize.brentq(height, low, high, xtol=_PRECISION, rtol=1e-12)
    shift = math.exp(root)
    if shift not in seen:
        height(root)
    reached = abs(seen[shift] - target) <= 0.1 * target
    finite = {t: d for t, d in seen.items() if math.isfinite(d)}
    return Scale(shift, seen[shift], True) if reached else _farthest(finite, shift)


def _farthest(finite: dict[float, float], below: float) -> Scale:
    shift = max((t for t in finite if t <= below), default=min(finite, default=0.0))
    return Scale(shift, finite.get(shift, 0.0), False)
