"""The training loop: steps are queued on the device, metrics fetched once per window of steps."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

Step = Callable[[Any], tuple[Any, dict[str, Any]]]


class Window(NamedTuple):
    """The outcome of consecutive steps.

    step: number of steps done in all. state: state after the last step; donated to the next window.
    metrics: means over the window's steps. is_finite: whether all metrics of all steps were finite.
    """

    step: int
    state: Any
    metrics: dict[str, float]
    is_finite: bool


def windows(step: Step, state: Any, *, done: int, total: int, every: int) -> Iterator[Window]:
    """Yields a window after each multiple of `every` steps, and after the last step.

    done: number of steps behind `state`. The host queues the steps of a window and waits for the
    device once, at the end of the window, where it fetches all metrics.
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
    """Whether none of the last `patience` values exceeds the best earlier one by `least_gain`.

    patience: 0 means never.
    """
    if not patience or len(history) <= patience:
        return False
    return max(history[-patience:]) < max(history[:-patience]) + least_gain
