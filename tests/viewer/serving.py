"""A viewer of a tiny random generator that starts in seconds, in a thread or in a process."""

import contextlib
import dataclasses
import pathlib
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import uvicorn

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.directions import Directions, write_directions
from navigan_jax.evaluation.gauges import Gauges
from navigan_jax.generators.files import make_generator, write_generator
from navigan_jax.viewer import access, proxies, server
from navigan_jax.viewer.studio import Studio
from navigan_jax.viewer.worker import Worker

ROOT = pathlib.Path(__file__).resolve().parents[2]
COUNT = 6  # directions
LAYERS = {
    "dcgan": "conv1/kernel",
    "stylegan2": "synthesis/b8/conv0/kernel",
    "pix2pixhd": "global_up0/kernel",
}


def make_directions(params: Any, layer: str, digest: str) -> Directions:
    """Returns random orthonormal directions of a layer."""
    shape = params_lib.get(params, layer).shape
    drawn = np.random.RandomState(3).standard_normal((int(np.prod(shape)), COUNT))
    basis = np.linalg.qr(drawn)[0].T.reshape(COUNT, *shape).astype(np.float32)
    provenance = dict.fromkeys(("method", "metric", "seed", "latents", "config"), "1")
    return Directions(
        basis={layer: basis},
        measures={
            "eigenvalue": np.linspace(3, 1, COUNT),
            "residual": np.array([1e-4, 3e-4, 2e-4, np.inf, 1e-4, 1e-4]),
        },
        shift_scales=np.linspace(1, 2, COUNT)[:, None] * np.array([1, 1.5]),
        distances=np.ones((COUNT, 2)),
        plausible=np.tile([2.0, 3.0], (COUNT, 1)),
        provenance=provenance | {"architecture": "tiny", "digest": digest},
    )


def make_studio(
    architecture: str, folder: pathlib.Path, image_channels: int = 3, gauges: Gauges | None = None
) -> Studio:
    """Returns a studio of a tiny generator whose directions lie in the folder."""
    config = {**testing.TINY_CONFIGS[architecture], "image_channels": image_channels}
    generator = make_generator(architecture, config)
    params = testing.draw_params(generator, seed=1)
    digest = params_lib.digest(params)
    directions = make_directions(params, LAYERS[architecture], digest)
    path = folder / "directions.safetensors"
    write_directions(path, directions)
    return Studio(generator, params, directions, path, folder / "work", gauges=gauges)


@dataclasses.dataclass
class Served:
    """A viewer that answers at `url` from `start` to `stop`."""

    folder: pathlib.Path
    architecture: str = "stylegan2"
    port: int = 0
    token: str | None = None
    image_channels: int = 3
    address: str | None = None
    gauges: Gauges | None = None

    def __post_init__(self) -> None:
        self.studio = make_studio(self.architecture, self.folder, self.image_channels, self.gauges)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def notes_path(self) -> pathlib.Path:
        return self.folder / "directions.notes.json"

    def start(self) -> None:
        listening = server.listen("127.0.0.1", self.port)
        self.port = listening.getsockname()[1]
        self._worker = Worker()
        self._worker.__enter__()
        proxy = None if self.address is None else proxies.read_address(self.address)
        rule = access.make_access("127.0.0.1", self.port, self.token, proxy)
        start = {"seed": 5, "samples": 3}
        application = server.make_application(self.studio, self._worker, rule, start)
        self._server = uvicorn.Server(server.make_config(application))
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listening]}, daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._server.force_exit = True  # open pages keep their connections
        self._thread.join()
        self._worker.__exit__()


@contextlib.contextmanager
def serving(folder: pathlib.Path, **options: Any) -> Iterator[Served]:
    """Yields a viewer that answers."""
    running = Served(folder, **options)
    running.start()
    try:
        yield running
    finally:
        running.stop()


def write_files(folder: pathlib.Path, others: str = "") -> None:
    """Writes a DCGAN and its directions to the folder.

    others: name of a file for directions of another generator; None: no such file.
    """
    params = testing.draw_params(testing.tiny_generators()["dcgan"], seed=1)
    write_generator(
        folder / "generator.safetensors", "dcgan", testing.TINY_CONFIGS["dcgan"], params, {}
    )
    for name, digest in (("directions", params_lib.digest(params)), (others, "0" * 64)):
        if name:
            found = make_directions(params, LAYERS["dcgan"], digest)
            write_directions(folder / f"{name}.safetensors", found)


class Process:
    """The viewer's command on the files of `write_files`; it has printed its address."""

    def __init__(self, folder: pathlib.Path, port: int = 0, *options: str) -> None:
        command = [
            *(sys.executable, "-m", "navigan_jax.main", "--config=configs/viewer.py"),
            f"--config.generator={folder / 'generator.safetensors'}",
            f"--config.directions={folder / 'directions.safetensors'}",
            *(f"--config.port={port}", f"--workdir={folder / 'work'}", *options),
        ]
        self.notes_path = folder / "directions.notes.json"
        self.running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.running.stdout is not None
        self.said = self.running.stdout.readline()
        found = re.match(r"open http://([\d.]+):(\d+)/", self.said)
        self.port = int(found[2]) if found else 0
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.running.kill()  # SIGKILL: nothing of it runs from here on
        self.running.communicate()
