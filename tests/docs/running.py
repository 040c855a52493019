"""Runs commands of the pages in this process, at tiny size."""

import importlib
import json
import math
import pathlib
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from absl import flags

from configs import tiny
from navigan_jax import config as config_lib
from navigan_jax import main
from navigan_jax.directions import Directions, write_directions
from navigan_jax.generators.files import read_generator
from navigan_jax.params import digest
from navigan_jax.tasks import workdirs
from navigan_jax.viewer import server
from tests.docs import world
from tests.docs.reading import ROOT, commands
from tools.convert_weights import __main__ as converters

_MOST_DIRECTIONS = 3  # found; `write_directions_of` makes as many as a page asked for
_SMALL = ("bake", "viewer")  # tasks that have no tiny experiment, as they are small themselves
# The first step of every run compiles; what is left out here is compiled in the tests of the tasks.
_SHRUNK: Mapping[str, Mapping[str, Any]] = {
    "hessian": {"directions": _MOST_DIRECTIONS, "show.plausible_samples": 0},
    "sweep": {"directions": _MOST_DIRECTIONS, "layers": "convs.3", "show.plausible_samples": 0},
    "factors": {"choose": "0-2"},
    "viewer": {"port": 0},
}


class _Begun(Exception):
    """Everything was checked, and the long work would begin."""


def parse(arguments: Sequence[str], patch: pytest.MonkeyPatch) -> tuple[Any, str]:
    """Returns (config, workdir) of arguments, as `main` parses them in a fresh process."""
    for name in list(flags.FLAGS):
        if name.startswith("config."):
            delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()
    patch.setattr(sys, "argv", ["main", *arguments])
    main.parse_flags(sys.argv)
    return flags.FLAGS.config, flags.FLAGS.workdir


def shrink(task: str) -> list[str]:
    """Returns arguments that make a task small: those of the tiny experiments, and fewer."""
    sizes: dict[str, Any] = {}
    if task not in _SMALL:
        small = tiny.get_config(task)
        usual = importlib.import_module(f"configs.{task}").get_config()
        sizes = {
            key: _value(small, key)
            for key in config_lib.list_keys(small)
            if _value(small, key) != _value(usual, key)
        }
    sizes |= _SHRUNK.get(task, {})
    return [f"--config.{key}={value}" for key, value in sizes.items()]


def _value(config: Any, key: str) -> Any:
    for name in key.split("."):
        config = config[name]
    return config


def run_task(arguments: Sequence[str], patch: pytest.MonkeyPatch) -> None:
    """Runs a task as it stands on a page, but small; a server answers once and is stopped."""
    asked, _ = parse(arguments, patch)
    _, workdir = parse([*arguments, *shrink(asked.task)], patch)
    patch.setattr(server, "serve", _serve_once)
    main.main([])
    if asked.task == "hessian":
        write_directions_of(asked, workdir)


def begin_task(arguments: Sequence[str], patch: pytest.MonkeyPatch) -> None:
    """Runs a task as it stands on a page until the long work would begin; makes up its results.

    By then the config is checked, and whatever it names is read.
    """
    asked, _ = parse(arguments, patch)
    asked, workdir = parse([*arguments, *_fit(asked)], patch)

    def begin(*_: Any, **__: Any) -> None:
        raise _Begun

    with pytest.MonkeyPatch.context() as here, pytest.raises(_Begun):
        here.setattr(workdirs, "claim", begin)
        main.main([])
    write_directions_of(asked, workdir)
    row = {"step": asked.get("steps", 0), "held_out_accuracy": 0.5, "held_out_shift_error": 0.5}
    (pathlib.Path(workdir) / "metrics.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")


def _fit(config: Any) -> list[str]:
    """Returns arguments by which a training fits the small generator of the pages."""
    if config.task != "discover":
        return []
    sizes = ["--config.reconstructor.side=32"]  # LeNet needs more than the 16 pixels
    if config.subspace.name == "svd":  # main.6 has no more singular values
        sizes += ["--config.directions=3"]
    return sizes


def write_directions_of(asked: Any, workdir: str) -> None:
    """Writes random directions to a workdir: as many, and of the layer, as a config asks for."""
    generator, params = read_generator(asked.generator)
    (layer,) = generator.find_layers([asked.layer])
    rows = np.random.RandomState(0).standard_normal((asked.directions, math.prod(layer.shape)))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    provenance = dict.fromkeys(("method", "metric", "seed", "latents", "config"), "1")
    provenance |= {"architecture": generator.architecture, "digest": digest(params)}
    directions = Directions(
        basis={layer.path: rows.reshape(-1, *layer.shape).astype(np.float32)},
        measures={name: np.linspace(3, 1, asked.directions) for name in ("eigenvalue", "residual")},
        shift_scales=np.ones((asked.directions, 2)),
        distances=np.ones((asked.directions, 2)),
        provenance=provenance | {"shift_scale": "1"},
    )
    write_directions(pathlib.Path(workdir) / "directions.safetensors", directions)


def _serve_once(application: Any, listening: Any) -> None:
    running = uvicorn.Server(server.make_config(application))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        answer = httpx.get(f"http://127.0.0.1:{listening.getsockname()[1]}/api/state", timeout=60)
        # 401: behind a proxy the page asks for the token that was printed.
        assert answer.status_code in (200, 401), answer.text
    finally:
        running.should_exit = True
        thread.join()


def convert(arguments: Sequence[str]) -> None:
    """Runs a converter as it stands on a page; a smaller net takes the place of LPIPS's."""
    small = [world.NET if argument in ("vgg", "alex") else argument for argument in arguments]
    status = converters.main(small)
    assert status == 0, f"exit status {status}"


def run_module(name: str, arguments: Sequence[str], patch: pytest.MonkeyPatch) -> None:
    """Runs `main` of a module."""
    patch.setattr(sys, "argv", [name, *arguments])
    importlib.import_module(name).main()


def made_by(target: str) -> list[tuple[str, ...]]:
    """Returns the commands of Python that `make` would run for a target.

    Raises: AssertionError if there is no such target.
    """
    shown = subprocess.run(
        ["make", "--dry-run", "--old-file=install", "--old-file=install-dev", "RUN=python", target],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    # What has a file already, as `test -f` of the recipe finds, is not made again.
    found = commands(shown.stdout, pathlib.Path.cwd())
    return [command for command in found if command[0] == "python"]
