"""One thread that renders: urgent jobs first, and only the newest job of each view.

A view is a place that shows one picture at a time, such as the large image of one browser tab. The
requests of a view carry rising sequence numbers. A newer request replaces a waiting older one, and
a request that arrives after a newer one is not rendered. So dragging a slider builds no queue: each
view waits for one image at most.
"""

import collections
import dataclasses
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any

MOST_WAITING = 1024  # waiting views, beyond which requests are refused
_MOST_KNOWN = 8192  # recently used views whose newest sequence number is remembered
_PATIENT_TURN = 8  # every eighth job is a patient one, so that none starves


class BusyError(Exception):
    """Too many views are waiting."""


@dataclasses.dataclass
class _Job:
    work: Callable[[], Any]
    future: Future[Any]


class Worker:
    """Runs jobs in a thread of its own; the context manager starts and ends the thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._urgent: collections.OrderedDict[Hashable, _Job] = collections.OrderedDict()
        self._patient: collections.OrderedDict[Hashable, _Job] = collections.OrderedDict()
        self._newest: collections.OrderedDict[Hashable, int] = collections.OrderedDict()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="render", daemon=True)

    def __enter__(self) -> "Worker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_closed = True
            for job in (*self._urgent.values(), *self._patient.values()):
                job.future.cancel()
            self._urgent.clear()
            self._patient.clear()
            self._changed.notify()
        self._thread.join()

    def submit(
        self, view: Hashable, sequence: int, work: Callable[[], Any], *, urgent: bool = True
    ) -> "Future[Any]":
        """Returns a future: the result of `work`, or None if a newer request of the view came.

        A request takes the place in the queue of the one that it replaces. Jobs that are not
        `urgent` wait until no urgent one does, or for every eighth turn.
        Raises: BusyError if too many views wait; RuntimeError if the worker has ended.
        """
        future: Future[Any] = Future()
        waiting = self._urgent if urgent else self._patient
        with self._changed:
            if self._is_closed:
                raise RuntimeError("the worker has ended")
            if sequence <= self._newest.get(view, -1):
                future.set_result(None)
                return future
            if view not in waiting and len(waiting) >= MOST_WAITING:
                raise BusyError
            self._newest[view] = sequence
            self._newest.move_to_end(view)
            if len(self._newest) > _MOST_KNOWN:
                self._newest.popitem(last=False)
            replaced = waiting.get(view)
            waiting[view] = _Job(work, future)
            self._changed.notify()
        if replaced is not None and replaced.future.set_running_or_notify_cancel():
            replaced.future.set_result(None)
        return future

    def _next(self, turn: int) -> _Job | None:
        """Waits for the next job and returns it; None once the worker is closed."""
        with self._changed:
            while not (self._urgent or self._patient or self._is_closed):
                self._changed.wait()
            if self._is_closed:
                return None
            patient = self._patient and (not self._urgent or turn % _PATIENT_TURN == 0)
            return (self._patient if patient else self._urgent).popitem(last=False)[1]

    def _run(self) -> None:
        turn = 1
        while (job := self._next(turn)) is not None:
            turn += 1
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                result = job.work()
            except BaseException as error:  # raised again where the future's result is read
                job.future.set_exception(error)
            else:
                job.future.set_result(result)
            del job
