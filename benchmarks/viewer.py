"""The viewer under load: one person who drags, then 20 at once for a minute, all on loopback.

  python -m benchmarks.viewer        (2 minutes)

The server is the task's own process; 16 random directions of the faces' second layer stand in for
found ones, as every direction costs the same. A client sends a drag's next shift when the image of
the last one has come, as the page does; no image is asked for twice, so none comes from a cache.
"""

import asyncio
import contextlib
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import httpx
import numpy as np

from benchmarks import common
from navigan_jax import params as params_lib
from navigan_jax.directions import Directions, write_directions

LAYER = "conv1/kernel"
COUNT = 16
CLIENTS = 20
ALONE, WARM_UP, TOGETHER = 10.0, 20.0, 60.0  # seconds
WANTED = 0.150  # seconds from a shift to its image, for one person


def write_random_directions(path: pathlib.Path) -> None:
    """Writes random directions of unit norm."""
    _, params = common.read_faces()
    shape = params_lib.get(params, LAYER).shape
    basis = np.random.RandomState(0).standard_normal((COUNT, *shape)).astype(np.float32)
    basis /= np.sqrt(np.square(basis).sum(axis=(1, 2, 3, 4), keepdims=True))
    provenance = dict.fromkeys(("method", "metric", "seed", "latents", "config"), "none")
    provenance |= {"architecture": "dcgan", "digest": params_lib.digest(params)}
    zeros, ones = np.zeros(COUNT), np.ones((COUNT, 2))
    write_directions(
        path, Directions({LAYER: basis}, {"eigenvalue": zeros}, ones, ones, provenance)
    )


@contextlib.contextmanager
def served(folder: pathlib.Path) -> Iterator[tuple[str, int]]:
    """Yields address and process of a viewer."""
    write_random_directions(folder / "directions.safetensors")
    command = [
        *(sys.executable, "-m", "navigan_jax.main", "--config=configs/viewer.py"),
        *("--config.port=0", f"--workdir={folder / 'work'}"),
        f"--config.generator={common.FACES}",
        f"--config.directions={folder / 'directions.safetensors'}",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            found = re.match(r"open (http://\S+)/", process.stdout.readline())
            assert found is not None
            yield found[1], process.pid
        finally:
            process.terminate()
            process.communicate()


def resident_bytes(process: int) -> int:
    """Returns the memory that a process has now."""
    status = pathlib.Path(f"/proc/{process}/status").read_text(encoding="ascii")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return 1024 * int(found[1])


async def drag(url: str, name: str, duration: float) -> tuple[list[float], int]:
    """Drags for so long; returns the seconds of each image and the number of failures."""
    draw = random.Random(name)
    times, failures, sequence = [], 0, 0
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        end = time.perf_counter() + duration
        while (began := time.perf_counter()) < end:
            sequence += 1
            moves = [{"index": draw.randrange(COUNT), "shift": draw.uniform(-20, 20)}]
            view = {"sample": {"seed": 0, "index": draw.randrange(8)}, "moves": moves}
            body = {"client": name, "sequence": sequence, "view": view}
            answer = await http.post("/api/image", json=body)
            ok = answer.status_code == 200 and answer.content.startswith(b"\x89PNG")
            failures += not ok
            times.append(time.perf_counter() - began)
    return times, failures


async def drag_together(url: str, name: str, clients: int, duration: float) -> list[float]:
    """Returns the seconds of all images; ends the program if one failed."""
    runs = [drag(url, f"{name}{number}", duration) for number in range(clients)]
    results = await asyncio.gather(*runs)
    if failures := sum(failed for _, failed in results):
        sys.exit(f"{failures} requests failed")
    times = [each for times, _ in results for each in times]
    middle, late = np.quantile(times, (0.5, 0.95))
    print(
        f"{clients} at once, {duration:.0f} s: {len(times)} images, no failure; "
        f"median {1e3 * middle:.0f} ms, 95 % within {1e3 * late:.0f} ms",
        flush=True,
    )
    return times


def main() -> None:
    common.say_where()
    with tempfile.TemporaryDirectory() as folder, served(pathlib.Path(folder)) as (url, process):
        asyncio.run(drag(url, "compile", 1.0))
        alone = asyncio.run(drag_together(url, "alone", 1, ALONE))
        asyncio.run(drag_together(url, "warm-up", CLIENTS, WARM_UP))
        before = resident_bytes(process)
        asyncio.run(drag_together(url, "load", CLIENTS, TOGETHER))
        after = resident_bytes(process)
        print(f"memory {before / 1e6:.0f} MB before the minute, {after / 1e6:.0f} MB after it")
    common.ratio("viewer_wanted_over_median_of_one", WANTED / float(np.median(alone)))
    common.ratio("viewer_memory_after_over_before", after / before)


if __name__ == "__main__":
    main()
