"""Shared by all benchmarks: the generator of faces, clocks, and the printing of ratios."""

import argparse
import os
import pathlib
import platform
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from navigan_jax.array_types import Params
from navigan_jax.generators.base import Generator
from navigan_jax.generators.files import read_generator

ROOT = pathlib.Path(__file__).resolve().parents[1]
FACES = ROOT / "runs/weights/faces.safetensors"


def make_parser(text: str) -> argparse.ArgumentParser:
    """Returns the parser of a script; text: its docstring, which is its help."""
    return argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def read_faces() -> tuple[Generator, Params]:
    """Returns the DCGAN of faces that `make demo-faces` converts."""
    if not FACES.exists():
        sys.exit(f"{FACES} is missing: run make demo-faces once")
    return read_generator(FACES)


def say_where() -> None:
    """Prints the devices, the processor and the versions."""
    device = jax.devices()[0]
    kind = platform.processor() or platform.machine()
    print(
        f"# {jax.device_count()} x {device.device_kind} ({kind}, {os.cpu_count()} cores), "
        f"jax {jax.__version__}, python {platform.python_version()}"
    )


def seconds(function: Callable[..., Any], *arguments: Any, repeats: int) -> tuple[float, float]:
    """Returns (median seconds of a call, seconds of the first one, which compiles)."""
    began = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    first = time.perf_counter() - began
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - began)
    return float(np.median(times)) if times else first, first


def processor_seconds() -> float:
    """Returns the seconds of all cores that this process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Stopwatch:
    """Seconds of the clock and of the processor since it was made."""

    def __init__(self) -> None:
        self._clock, self._processor = time.perf_counter(), processor_seconds()

    def read(self) -> np.ndarray:
        """Returns [seconds of the clock, seconds of the processor]."""
        now = (time.perf_counter() - self._clock, processor_seconds() - self._processor)
        return np.array(now)


def peak_bytes() -> int:
    """Returns the peak of this process's resident memory."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def ratio(name: str, value: float) -> None:
    """Prints a line `ratio NAME NUMBER`."""
    print(f"ratio {name} {value:.2f}", flush=True)
