"""Runs that are stopped at random moments, again and again, until they end by themselves.

  python -m tests.stopping SEED STOPS TOUCHES SIGNAL,SIGNAL --config=FILE --workdir=FOLDER ...

runs `navigan_jax.main` with these flags. A moment is a touch of the workdir by Python (a file
opened, renamed or removed, a folder made), or one some milliseconds later, drawn from SEED; a whole
run has about so many TOUCHES. All that is imported is imported once: each run is a fork of this
process.
"""

import itertools
import json
import os
import pathlib
import random
import signal
import struct
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
import orbax.checkpoint as ocp
from tensorboardX.proto import event_pb2

_DELAYS = (0.0, 0.0, 0.001, 0.01)  # seconds from a touch to the signal


class _Stop(NamedTuple):
    """The signal that a run gets `delay` seconds after its `touch`-th touch of its workdir."""

    touch: int
    delay: float
    number: signal.Signals

    @property
    def code(self) -> int:
        """The exit code of a run that was stopped by it."""
        is_kill = self.number == signal.SIGKILL
        return -self.number if is_kill else 128 + self.number


def run_stopped(
    run: Callable[[], None],
    workdir: pathlib.Path,
    *,
    seed: int,
    stops: int,
    touches: int,
    numbers: Sequence[signal.Signals],
) -> int:
    """Stops `run` again and again, then lets it end, and returns its touches in all.

    run: ends as a program does. stops: the most there are. touches: of a whole run. numbers:
    signals, taken in turn. Prints how many stops and touches there were.
    Raises: ValueError if a run ends in another way.
    """
    draws, count, made = random.Random(seed), 0, 0
    while True:
        touch = draws.randint(1, max(2 * touches // (stops + 1), 1))
        stop = _Stop(touch, draws.choice(_DELAYS), numbers[count % len(numbers)])
        is_last = count == stops
        more, code = _fork(run, workdir, None if is_last else stop)
        made += more
        if not code:
            print(f"{count} stops, {made} touches")
            return made
        if is_last or code != stop.code:
            raise ValueError(f"run {count}, to be stopped by {stop}, ended with {code}")
        count += 1


def _fork(run: Callable[[], None], workdir: pathlib.Path, stop: _Stop | None) -> tuple[int, int]:
    """Returns how often a run in a fork touched its workdir, and its exit code."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX warns of forks; it has no device here yet
        process = os.fork()
    if not process:
        _watch(workdir, stop, writer)
        _end_with(run)
    os.close(writer)
    touches = 0
    while read := os.read(reader, 2**16):
        touches += len(read)
    os.close(reader)
    return touches, os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _watch(workdir: pathlib.Path, stop: _Stop | None, writer: int) -> None:
    """Writes a byte for each touch of the workdir from now on, and stops this process at one."""
    touches = itertools.count(1)

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        paths = (str(a) for a in arguments if isinstance(a, str | pathlib.Path))
        if not any(path.startswith(str(workdir)) for path in paths):
            return
        os.write(writer, b".")
        if stop is None or next(touches) != stop.touch:
            return
        if stop.delay:
            threading.Timer(stop.delay, os.kill, (os.getpid(), stop.number)).start()
        else:
            os.kill(os.getpid(), stop.number)

    sys.addaudithook(look)


def _end_with(run: Callable[[], None]) -> NoReturn:
    """Ends this process with the run's exit code."""
    code = 1
    try:
        run()
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    except Exception:
        traceback.print_exc()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):  # one may be late
            signal.signal(number, signal.SIG_IGN)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def compare(ours: pathlib.Path, theirs: pathlib.Path) -> set[str]:
    """Asserts that two workdirs have the same files with the same bytes, and returns their names.

    Of TensorBoard's files, which hold times, what it shows of them is compared; of checkpoints the
    steps, the arrays, and the records without the hours.
    """
    names, others = (
        {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        for folder in (ours, theirs)
    )
    names, others = ({name for name in some if _is_plain(name)} for some in (names, others))
    assert names == others
    for name in names:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    assert events_shown(ours) == events_shown(theirs)
    assert _checkpoints(ours) == _checkpoints(theirs)
    return names


def _is_plain(name: str) -> bool:
    return not name.startswith("checkpoints/") and "events.out" not in name


def events_shown(folder: pathlib.Path) -> dict[tuple[str, int], bytes]:
    """Returns the values that TensorBoard shows, by name and step.

    Those of a file that begins at a step replace what files before it have of that step and later.
    """
    shown: dict[tuple[str, int], bytes] = {}
    files = [read_events(path) for path in folder.glob("events.*")]
    for events in sorted(files, key=lambda events: events[0].wall_time):
        for event in events:
            if event.HasField("session_log"):
                shown = {key: value for key, value in shown.items() if key[1] < event.step}
            for value in event.summary.value:
                shown[value.tag, event.step] = value.SerializeToString()
    return shown


def read_events(path: pathlib.Path) -> list[event_pb2.Event]:
    """Returns what TensorBoard reads: records of length, checksum, event, checksum."""
    data, place, events = path.read_bytes(), 0, []
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        events.append(event_pb2.Event.FromString(data[place + 12 : place + 12 + length]))
        place += 12 + length + 4
    return events


def _checkpoints(workdir: pathlib.Path) -> dict[str, Any]:
    folder = workdir / "checkpoints"
    found: dict[str, Any] = {}
    for step in folder.glob("*"):
        state = ocp.StandardCheckpointer().restore(step / "state")
        record = json.loads((step / "record" / "metadata").read_text(encoding="utf-8"))
        arrays = {name: np.asarray(array).tobytes() for name, array in state.items()}
        found[step.name] = arrays, {**record, "hours": None}
    return found


def as_signals(names: str) -> list[signal.Signals]:
    """Returns signals by their names with commas."""
    return [signal.Signals[name] for name in names.split(",")]


def _main() -> None:
    from navigan_jax import main, tasks

    del tasks  # imported before there are forks
    seed, stops, touches, names, *flags = sys.argv[1:]
    (workdir,) = (flag.partition("=")[2] for flag in flags if flag.startswith("--workdir="))
    sys.argv[1:] = flags
    run_stopped(
        main.run,
        pathlib.Path(workdir),
        seed=int(seed),
        stops=int(stops),
        touches=int(touches),
        numbers=as_signals(names),
    )


if __name__ == "__main__":
    _main()
