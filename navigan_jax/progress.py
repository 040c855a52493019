"""Progress of a run: bars in a terminal, metrics for TensorBoard and other programs.

Only the main process of a run reports. Without a terminal there are no bars: each stage prints one
line at its start and one at its end, so logs of batch jobs stay short.
"""

import contextlib
import json
import math
import os
import pathlib
import socket
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TextIO

import numpy as np
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c
from tqdm import tqdm

from navigan_jax.checkpoints import atomic_output, make_folder
from navigan_jax.errors import InputError

METRICS_FILE = "metrics.jsonl"
_RESERVED = ("step", "non_finite")


class Progress:
    """One stage of a run, as a `with` block: shows rate, time left and the latest numbers.

    label: the stage, e.g. "Lanczos". unit: what is counted, in the plural, e.g. "products".
    done: the count that an earlier run reached.
    """

    def __init__(
        self,
        label: str,
        total: int,
        *,
        unit: str,
        is_main: bool,
        done: int = 0,
        stream: TextIO | None = None,
    ) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._start, self._done, self._is_main = done, done, is_main
        self._stream = sys.stderr if stream is None else stream
        self._fields: dict[str, str] = {}
        self._bar: tqdm | None = None

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        if self._is_main and self._stream.isatty():
            self._bar = tqdm(
                desc=self._label,
                total=self._total,
                initial=self._done,
                unit=f" {self._unit}",
                file=self._stream,
                dynamic_ncols=True,
            )
        elif self._is_main:
            resumed = f", {self._done} of them done" if self._done else ""
            self._print(f"{self._total} {self._unit}{resumed}")
        return self

    def advance(self, count: int = 1, **fields: float) -> None:
        """Adds `count`; the fields, e.g. residual=1e-3, are shown until the next call."""
        self._done += count
        self._fields = {name: f"{float(value):.3g}" for name, value in fields.items()}
        if self._bar is not None:
            self._bar.set_postfix(self._fields, refresh=False)
            self._bar.update(count)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._is_main:
            seconds = time.perf_counter() - self._began
            count = self._done - self._start
            rate = f" ({count / max(seconds, 1e-9):.3g} per second)" if count else ""
            fields = "".join(f", {name} {value}" for name, value in self._fields.items())
            verb = "done" if kind is None else "stopped"
            self._print(
                f"{verb}: {self._done} of {self._total} {self._unit} in {seconds:.1f} s{rate}"
                f"{fields}"
            )

    def _print(self, text: str) -> None:
        print(f"{self._label}: {text}", file=self._stream, flush=True)


def encode_metrics(step: int, values: Mapping[str, Any]) -> str:
    """Returns one line of JSON; None and non-finite numbers become null.

    Non-finite numbers are also listed under "non_finite".

    >>> encode_metrics(3, {"residual": 0.5, "loss": math.nan})
    '{"step": 3, "residual": 0.5, "loss": null, "non_finite": {"loss": "nan"}}'

    Raises: ValueError if a name is reserved.
    """
    clashes = [name for name in values if name in _RESERVED]
    if clashes:
        raise ValueError(f"metrics: the names {_RESERVED} are reserved; got {clashes}")
    row: dict[str, Any] = {"step": step}
    non_finite: dict[str, str] = {}
    for name, value in values.items():
        number = None if value is None else float(value)
        if number is not None and not math.isfinite(number):
            non_finite[name] = str(number)
            number = None
        row[name] = number
    if non_finite:
        row["non_finite"] = non_finite
    return json.dumps(row, allow_nan=False)


def read_metrics(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Yields the lines of a metrics file as tables; skips a last line that was cut off.

    Raises: InputError if another line is damaged.
    """
    *lines, _ = pathlib.Path(path).read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            yield row
        elif number < len(lines):
            raise InputError(
                f"{path}: expected an object with a step on line {number}; got {line[:80]!r}; "
                "the file is damaged: move it away to start anew"
            )


@contextlib.contextmanager
def _explaining_errors(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path}: could not be written ({error.strerror}); free some space"
        ) from error


class _EventFile:
    """A file of TensorBoard's events; `write` hands each event to the system before it returns.

    tensorboardX writes from a thread, so a killed run loses events from before the step at which it
    resumes. purge_step: TensorBoard ignores events of this step and later ones in earlier files.
    """

    def __init__(self, folder: pathlib.Path, *, purge_step: int) -> None:
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / name
        self._file = self._path.open("ab", buffering=0)
        self.write(Event(file_version="brain.Event:2"))
        self.write(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))

    def write(self, event: Event) -> None:
        """Writes one record: its length, its bytes, and a checksum of each.

        Raises: InputError if the disk is full.
        """
        event.wall_time = time.time()
        data = event.SerializeToString()
        size = struct.pack("<Q", len(data))
        sums = (struct.pack("<I", masked_crc32c(part)) for part in (size, data))
        with _explaining_errors(self._path):
            self._file.write(b"".join((size, next(sums), data, next(sums))))

    def close(self) -> None:
        self._file.close()


class MetricWriter:
    """Writes the numbers of each step to `metrics.jsonl` and to TensorBoard files beside it.

    first_step: the first step that this run writes. An earlier run's lines before this step are
    kept; its later lines are dropped, because this run repeats them. 0 starts an empty file.
    Raises: InputError if the folder cannot be written to, or the kept lines are damaged.
    """

    def __init__(self, folder: str | os.PathLike[str], *, first_step: int) -> None:
        path = make_folder(folder) / METRICS_FILE
        kept: list[str] = []
        if first_step > 0 and path.exists():
            kept = [json.dumps(row) for row in read_metrics(path) if row["step"] < first_step]
        with atomic_output(path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self._path = path
        self._lines = path.open("a", encoding="utf-8")
        self._events = _EventFile(path.parent, purge_step=first_step)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes the values of a step, and hands them to the system before it returns.

        values: numbers by name; None for an unknown value. TensorBoard gets the finite ones.
        Raises: ValueError as `encode_metrics`; InputError if the disk is full.
        """
        line = encode_metrics(step, values)
        with _explaining_errors(self._path):
            self._lines.write(line + "\n")
            self._lines.flush()
        for name, value in json.loads(line).items():
            if name not in _RESERVED and value is not None:
                self._events.write(Event(step=step, summary=summary.scalar(name, value)))

    def write_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Shows a picture in TensorBoard; image: bytes [height, width, channels]."""
        picture = summary.image(name, image, dataformats="HWC")
        self._events.write(Event(step=step, summary=picture))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._lines.close()
        self._events.close()


class NullMetricWriter:
    """Writes nothing: for all processes but the main one."""

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Does nothing."""

    def write_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def open_metrics(
    folder: str | os.PathLike[str], *, first_step: int, is_main: bool
) -> MetricWriter | NullMetricWriter:
    """Returns the writer for this process, to use in a `with` block.

    Raises: as `MetricWriter`.
    """
    return MetricWriter(folder, first_step=first_step) if is_main else NullMetricWriter()
