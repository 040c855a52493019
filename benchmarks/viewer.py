"""The viewer: the cost of an image during a drag, by layer, and the server under load.

  python -m benchmarks.viewer        (3 minutes)

The first part runs in this process. It drags a direction of each layer of the faces, and of three
layers of a StyleGAN2 of 64 px (random weights, config-f's channels). It compares one compiled
program from z to the image with `rendering.render`, which keeps the input of the edited layer. Both
add t·ξ to the weights.

The second part starts the server and lets one client drag, then 20 clients at once for a minute, on
loopback. 16 random directions of the faces' second layer are used, as every direction costs the
same. As the page does, a client sends the next shift when the last image has come. No image is
requested twice, so none comes from a cache.
"""

if not __package__:
    import as_module  # noqa: F401

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
import jax
import numpy as np

from benchmarks import common
from benchmarks.stylegan2 import config_f
from navigan_jax import params as params_lib
from navigan_jax.array_types import Params
from navigan_jax.directions import Directions, write_directions
from navigan_jax.editing import rendering
from navigan_jax.editing.edit import apply_edit
from navigan_jax.editing.recipe import Drawn, Move, Recipe
from navigan_jax.generators.base import EditableLayer, Generator
from navigan_jax.generators.files import make_generator

LAYER = "conv1/kernel"
COUNT = 16
CLIENTS = 20
ALONE, WARM_UP, TOGETHER = 10.0, 20.0, 60.0  # seconds
WANTED = 0.150  # seconds from a shift to its image, for one person


def random_directions(params: Params, layer: str, count: int) -> Directions:
    """Returns random directions of unit norm."""
    shape = params_lib.get(params, layer).shape
    basis = np.random.RandomState(0).standard_normal((count, *shape)).astype(np.float32)
    basis /= np.sqrt(np.square(basis).sum(axis=tuple(range(1, basis.ndim)), keepdims=True))
    provenance = dict.fromkeys(("method", "metric", "seed", "latents", "config"), "none")
    provenance |= {"architecture": "dcgan", "digest": params_lib.digest(params)}
    zeros, ones = np.zeros(count), np.ones((count, 2))
    return Directions({layer: basis}, {"eigenvalue": zeros}, ones, ones, provenance)


def compare_drag(
    name: str, generator: Generator, params: Params, layer: EditableLayer, *, count: int
) -> None:
    """Prints the cost of each of `count` images of a drag, both ways in turn."""
    known = {"d": random_directions(params, layer.path, 1)}
    params = params_lib.to_device(params)
    kept = rendering.keep_carries(2**28)

    @jax.jit
    def whole(params: Params, z: jax.Array) -> jax.Array:
        return generator.synthesize(params, generator.map_latent(params, z))

    def from_z(shift: float) -> np.ndarray:
        edited = apply_edit(params, known["d"].edit(0), shift)
        return np.asarray(whole(edited, rendering.draw_latent(generator, Drawn(0))))[0]

    def from_layer(shift: float) -> np.ndarray:
        recipe = Recipe("g", (Drawn(0),), (Move("d", 0, shift),))
        return rendering.render(recipe, generator, params, known, kept)[0]

    times = np.zeros((count, 2))
    for number in range(-2, count):  # two to compile
        for side, image_at in enumerate((from_z, from_layer)):
            watch = common.Stopwatch()
            image_at(0.1 * number)
            times[number, side] = watch.read()[1]
    before, after = np.median(times, axis=0)
    print(f"{name} {layer.path}: {1e3 * before:.1f} ms an image from z, {1e3 * after:.1f} ms kept")
    common.ratio(f"viewer_drag_{name}_{layer.path.replace('/', '_')}", before / after)


def compare_drags() -> None:
    generator, params = common.read_faces()
    for layer in generator.layers[1:]:
        compare_drag("faces", generator, params, layer, count=30)
    generator = make_generator("stylegan2", config_f(64))
    params = jax.device_get(jax.jit(generator.init)(jax.random.key(0)))
    for layer in generator.find_layers(["b8.conv0", "b16.conv1", "b64.conv1"]):
        compare_drag("stylegan2", generator, params, layer, count=5)


@contextlib.contextmanager
def served(folder: pathlib.Path) -> Iterator[tuple[str, int]]:
    """Yields the address and the process of a viewer."""
    _, params = common.read_faces()
    directions = random_directions(params, LAYER, COUNT)
    write_directions(folder / "directions.safetensors", directions)
    command = [
        *(sys.executable, "-m", "navigan_jax.main", "--config=configs/viewer.py"),
        *("--config.port=0", f"--workdir={folder / 'work'}"),
        f"--config.generator={common.FACES}",
        f"--config.directions={folder / 'directions.safetensors'}",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=common.ROOT) as process:
        assert process.stdout is not None
        try:
            found = re.match(r"open (http://\S+)/", process.stdout.readline())
            assert found is not None
            yield found[1], process.pid
        finally:
            process.terminate()
            process.communicate()


def resident_bytes(process: int) -> int:
    """Returns the resident memory of a process."""
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
    common.make_parser(__doc__).parse_args()
    common.say_where()
    compare_drags()
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
