"""Runs of a solver: a progress bar, metrics, and a saved state from which a run resumes.

A solver yields immutable states, and a state holds everything on which the rest of the run depends.
So one function of the state can watch any solver.
"""

import contextlib
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from navigan_jax import checkpoints, devices
from navigan_jax.errors import InputError
from navigan_jax.progress import Progress, open_metrics


class State(Protocol):
    """The state of a solver. products: number of products with single vectors."""

    @property
    def products(self) -> int: ...

    def to_arrays(self) -> dict[str, Any]: ...

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> Self: ...


AnyState = TypeVar("AnyState", bound=State)


def load_state(path: pathlib.Path, kind: type[AnyState], problem: str) -> AnyState | None:
    """Returns the state that an earlier run saved for the same problem, or None.

    Raises: InputError if the saved state is damaged or of another kind.
    """
    stored = checkpoints.read_state(path)
    if stored is None:
        return None
    try:
        same = bytes(stored["problem"]).decode() == problem
        return kind.from_arrays(stored["solver"]) if same else None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: expected a state of this solver; got something else; "
            "delete that file to start anew"
        ) from error


def _save_state(path: pathlib.Path, state: State, problem: str) -> None:
    name = np.frombuffer(problem.encode(), np.uint8)
    checkpoints.write_state(path, {"problem": name, "solver": state.to_arrays()})


@contextlib.contextmanager
def watch(
    workdir: str | os.PathLike[str],
    state: AnyState | None,
    *,
    label: str,
    unit: str,
    total: int,
    measure: Callable[[AnyState], tuple[int, Mapping[str, float]]],
    save_to: pathlib.Path,
    problem: str,
    save_minutes: float,
) -> Iterator[Callable[[AnyState], None]]:
    """Yields a function to call with each new state; the main process shows and saves the state.

    state: where the run resumes; None for a new run. measure: state -> (how many of the `total`
    are done, numbers to show and record). problem: as for `load_state`. save_minutes: the time
    between saves; an interrupted run also saves its latest state.
    """
    is_main = devices.is_main_process()
    latest = state
    done = 0 if state is None else measure(state)[0]
    first = 0 if state is None else state.products + 1
    saved_at = time.monotonic()

    with (
        open_metrics(workdir, first_step=first, is_main=is_main) as metrics,
        Progress(label, total, unit=unit, is_main=is_main, done=done) as progress,
    ):

        def on_state(state: AnyState) -> None:
            nonlocal latest, done, saved_at
            now_done, numbers = measure(state)
            metrics.write(state.products, numbers)
            latest = state  # only now: a run that resumes from it writes the next line
            progress.advance(now_done - done, **numbers)
            done = now_done
            if is_main and time.monotonic() - saved_at >= 60 * save_minutes:
                _save_state(save_to, state, problem)
                saved_at = time.monotonic()

        try:
            yield on_state
        except KeyboardInterrupt:
            if is_main and latest is not None:
                _save_state(save_to, latest, problem)
            raise
