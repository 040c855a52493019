"""A training whose steps cost nothing, to be stopped at random: see `tests.stopping`.

  python -m tests.tasks.cheap_training SEED STOPS SIGNAL,SIGNAL FOLDER

trains in FOLDER/whole to the end, and in FOLDER/stopped with stops.
"""

import dataclasses
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs import discover
from navigan_jax import checkpoints, main
from navigan_jax import config as config_lib
from navigan_jax.discovery import ranking
from navigan_jax.discovery.matrix import direction_matrix
from navigan_jax.discovery.step import Recipe
from navigan_jax.subspaces.base import Latent
from navigan_jax.tasks import training
from navigan_jax.tasks.inputs import Problem
from tests import stopping


def make_setup() -> tuple[training.Setup, Any]:
    """Returns what is trained, of three directions, and first variables of a reconstructor."""
    recipe = Recipe(batch=4, directions=3, shift_scale=1.0, min_shift=0.1)
    matrix = direction_matrix(jax.random.key(0), Latent(3), kind="linear", count=3)
    problem = Problem(None, None, "", (), None, "")  # type: ignore[arg-type]
    setup = training.Setup(problem, "z", matrix, None, recipe)  # type: ignore[arg-type]
    return setup, {"params": {"w": jnp.zeros(2)}, "batch_stats": {"m": jnp.zeros(2)}}


def make_cheap_step(*_: Any) -> Any:
    """Returns a step that moves the directions, by NumPy; its loss is its number."""

    def step(state: Any) -> tuple[Any, dict[str, Any]]:
        number = np.asarray(state.step) + 1
        matrix = np.asarray(state.directions["matrix"]) % 1
        moved = {"matrix": jnp.asarray(3.9 * matrix * (1 - matrix))}  # another one at every step
        loss = np.float32(number.ravel()[0])
        state = dataclasses.replace(state, step=jnp.asarray(number), directions=moved)
        return state, {"loss": loss, "accuracy": loss, "shift_error": loss}

    return step


def make_cheap_measure(*_: Any, **__: Any) -> Any:
    """Returns what gives one of three accuracies, by the bits of the directions."""

    def measure(parameters: Any, variables: Any, key: Any) -> ranking.Table:
        level = int(1e4 * np.abs(parameters["matrix"]).sum()) % 3
        confusion = np.diag([1, 2, 3]) * level + 1
        return ranking.Table(confusion, np.ones(3), np.eye(3))

    return measure


def train(workdir: pathlib.Path) -> None:
    """Trains in a workdir and writes the best state to best.txt."""
    config = discover.get_config()
    changes = {"steps": 24, "log_steps": 1, "save_steps": 2, "image_steps": 1000, "keep": 2}
    config.update_from_flattened_dict(changes)
    setup, first = make_setup()
    training.make_step, training.make_measure = make_cheap_step, make_cheap_measure
    best = training.train(config_lib.freeze(config), workdir, setup, first)
    text = f"{best.steps} {best.parameters['matrix'].tobytes().hex()}"
    checkpoints.write_text(workdir / "best.txt", text)


def _main() -> None:
    seed, stops, names, folder = sys.argv[1:]
    # With the signals and exit codes of `navigan_jax.main`.
    main.main = lambda _: train(checkpoints.make_folder(workdir))
    touches = 0
    for name, most in (("whole", 0), ("stopped", int(stops))):
        workdir = pathlib.Path(folder) / name
        sys.argv[1:] = ["--config=configs/discover.py", f"--workdir={workdir}"]
        touches = stopping.run_stopped(
            main.run,
            workdir,
            seed=int(seed),
            stops=most,
            touches=touches,
            numbers=stopping.as_signals(names),
        )


if __name__ == "__main__":
    _main()
