"""The loop of training: steps without waiting for the device, numbers every so many of them."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

Step = Callable[[Any], tuple[Any, dict[str, Any]]]


class Window(NamedTuple):
    """What some steps came to.

    step: how many were made in all. state: after the last one; used up when the next window
    begins. metrics: their means over the window's steps. is_finite: whether none was NaN or
    infinite in any step.
    """

    step: int
    state: Any
    metrics: dict[str, float]
    is_finite: bool


def windows(step: Step, state: Any, *, done: int, total: int, every: int) -> Iterator[Window]:
    """Yields after each multiple of `every` steps, and after the last one.

    done: how many steps the state has behind it. The steps of a window are only queued: the host
    waits for the device once, at its end, where it fetches all metrics at a time.
    """
    while done < total:
        count = min(every - done % every, total - done)
        queued = []
        for _ in range(count):
            state, metrics = step(state)
            queued.append(metrics)
        done += count
        fetched = jax.device_get(queued)
        rows = {name: np.array([row[name] for row in fetched], np.float64) for name in fetched[0]}
        means = {name: float(np.mean(values)) for name, values in rows.items()}
        is_finite = all(np.isfinite(values).all() for values in rows.values())
        yield Window(done, state, means, is_finite)


def has_stalled(history: list[float], *, patience: int, least_gain: float) -> bool:
    """Whether the last `patience` values are all no `least_gain` above the best one before them.

    patience 0: never.
    """
    if not patience or len(history) <= patience:
        return False
    return max(history[-patience:]) < max(history[:-patience]) + least_gain
