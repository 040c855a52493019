"""Of each view only the newest request runs, in every order of arrival; queues stay short."""

import threading
from collections.abc import Iterator

import pytest

from navigan_jax.viewer import worker as worker_lib
from navigan_jax.viewer.worker import BusyError, Worker


class Gate:
    """A job that blocks the worker until it is opened."""

    def __init__(self, worker: Worker) -> None:
        self.began, self._open = threading.Event(), threading.Event()
        self.future = worker.submit("gate", 1, self._wait)
        assert self.began.wait(10)

    def _wait(self) -> str:
        self.began.set()
        assert self._open.wait(10)
        return "gate"

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker() as running:
        yield running


def test_of_a_view_only_the_newest_waiting_request_runs(worker: Worker) -> None:
    gate = Gate(worker)
    ran: list[int] = []
    futures = [worker.submit("a", n, lambda n=n: ran.append(n) or n) for n in range(50)]
    gate.open()
    assert [future.result(10) for future in futures] == [None] * 49 + [49]
    assert ran == [49]


def test_request_that_comes_after_a_newer_one_is_not_run(worker: Worker) -> None:
    gate = Gate(worker)
    newer = worker.submit("a", 7, lambda: "newer")
    late = [worker.submit("a", n, lambda: "late") for n in (6, 7, 0)]
    assert [future.result(0) for future in late] == [None, None, None]  # at once
    gate.open()
    assert newer.result(10) == "newer"
    assert worker.submit("a", 5, lambda: "late").result(0) is None
    assert worker.submit("b", 5, lambda: "another view").result(10) == "another view"


def test_replaced_request_keeps_its_place(worker: Worker) -> None:
    """A view with many requests is served as often as a view with one."""
    gate = Gate(worker)
    order: list[str] = []
    worker.submit("a", 1, lambda: order.append("a1"))
    last = worker.submit("b", 1, lambda: order.append("b1"))
    worker.submit("a", 2, lambda: order.append("a2"))
    gate.open()
    last.result(10)
    assert order == ["a2", "b1"]


def test_urgent_goes_first_but_patient_does_not_starve(worker: Worker) -> None:
    gate = Gate(worker)
    order: list[str] = []
    ends = [worker.submit(("p", n), 1, lambda: order.append("p"), urgent=False) for n in range(2)]
    ends += [worker.submit(("u", n), 1, lambda: order.append("u")) for n in range(20)]
    gate.open()
    for end in ends:
        end.result(10)
    places = [place for place, kind in enumerate(order) if kind == "p"]
    assert places[0] >= 5 and places[1] < 19


def test_exception_reaches_its_future_and_the_worker_continues(worker: Worker) -> None:
    broken = worker.submit("a", 1, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        broken.result(10)
    assert worker.submit("a", 2, lambda: "on").result(10) == "on"


def test_cancelled_request_is_left_out(worker: Worker) -> None:
    gate = Gate(worker)
    cancelled = worker.submit("a", 1, lambda: "never")
    assert cancelled.cancel()
    gate.open()
    assert worker.submit("b", 1, lambda: "on").result(10) == "on"


def test_number_of_waiting_views_is_bounded(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_lib, "MOST_WAITING", 2)
    gate = Gate(worker)
    kept = [worker.submit(name, 1, lambda: "kept") for name in "ab"]
    with pytest.raises(BusyError):
        worker.submit("c", 1, lambda: "refused")
    newer = worker.submit("a", 2, lambda: "newer")  # takes a place that is taken already
    gate.open()
    assert [future.result(10) for future in (*kept, newer)] == [None, "kept", "newer"]
    assert worker.submit("c", 1, lambda: "not forgotten as newer").result(10)


def test_end_cancels_waiting_jobs() -> None:
    with Worker() as worker:
        gate = Gate(worker)
        waiting = worker.submit("a", 1, lambda: "never")
        threading.Timer(0.05, gate.open).start()
    assert waiting.cancelled() and gate.future.result(0) == "gate"
    with pytest.raises(RuntimeError, match="ended"):
        worker.submit("a", 2, lambda: "never")
