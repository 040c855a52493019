"""Which method finds which factor, and who can move the wheels? Weights against latents, on cars.

  python -m tools.convert_weights lpips --net vgg --out runs/weights/lpips.safetensors
  python -m benchmarks.cars.experiment --workdir runs/cars-experiment --seed 0 \
      --lpips runs/weights/lpips.safetensors

Sixteen directions of every convolution by six methods, and sixteen moves of z, w and w_plus by two.
Each set of moves is one file in the workdir, so the same command resumes a stopped run. Run it for
two seeds; `python -m benchmarks.cars.report` makes the tables and pictures of docs/cars.md.
"""

import argparse
import itertools
import json
import pathlib
import time
from typing import Any

import numpy as np

from benchmarks.cars import moves as moves_lib
from benchmarks.cars import reading, wheels
from benchmarks.cars.reading import Moves, Problem
from navigan_jax import checkpoints
from navigan_jax import params as params_lib
from navigan_jax.evaluation.factors import Responses
from navigan_jax.evaluation.gauges import read_gauges
from navigan_jax.generators.base import EditableLayer
from navigan_jax.generators.files import read_generator
from navigan_jax.perceptual import METRICS
from navigan_jax.perceptual.files import read_perceptual
from navigan_jax.progress import Progress

FOLLOWED = 2  # best single moves of each method that are followed along their path
COMBINED = ("spectrum-nlpd", "svd")  # methods whose leading directions are combined
COMBINATIONS = 4  # best combinations that are followed


def convolutions(problem: Problem) -> list[EditableLayer]:
    """Returns the 3 × 3 convolutions, coarse first."""
    return [layer for layer in problem.generator.layers if layer.shape[:2] == (3, 3)]


def folder_of(workdir: pathlib.Path, place: str, method: str) -> pathlib.Path:
    """Returns the folder of a set of moves."""
    return workdir / place.removesuffix("/kernel").replace("/", ".") / method


def make_moves(
    problem: Problem, place: str, method: str, workdir: pathlib.Path, seed: int
) -> Moves:
    """Returns a set of moves, found now or read from its folder."""
    folder = checkpoints.make_folder(folder_of(workdir, place, method))
    path = folder / "basis.npz"
    layers = {layer.path: layer for layer in convolutions(problem)}
    if path.exists():
        with np.load(path) as data:
            basis = data["basis"]
    else:
        began = time.process_time(), time.perf_counter()
        if place in layers:
            basis = moves_lib.find_basis(problem, layers[place], method, folder, seed)
        else:
            basis = moves_lib.find_latent_basis(problem, place, method, seed)
        with checkpoints.atomic_output(path) as temporary:
            np.savez(
                temporary,
                basis=basis,
                processor_seconds=time.process_time() - began[0],
                seconds=time.perf_counter() - began[1],
            )
    if place in layers:
        return moves_lib.weight_moves(problem, layers[place], basis)
    return moves_lib.latent_moves(problem, place, basis)


def measure(
    problem: Problem, place: str, method: str, workdir: pathlib.Path, seed: int
) -> tuple[Moves, np.ndarray, Responses]:
    """Returns a set of moves, their ends and responses; measured once."""
    moves = make_moves(problem, place, method, workdir, seed)
    path = folder_of(workdir, place, method) / "responses.npz"
    if not path.exists():
        rows = np.eye(moves.count)
        ends = reading.find_reach(problem, moves, rows, seed)
        found = reading.read_responses(problem, moves, rows, ends, seed)
        with checkpoints.atomic_output(path) as temporary:
            np.savez(temporary, ends=ends, **vars(found))
    with np.load(path) as data:
        arrays = dict(data)
    return moves, arrays.pop("ends"), Responses(**arrays)


def move_wheels(
    problem: Problem, sets: list[tuple[str, str]], workdir: pathlib.Path, seed: int
) -> list[dict[str, Any]]:
    """Returns the paths of the most promising moves and combinations, measured once."""
    single: dict[str, list[tuple]] = {}
    mixed: dict[str, list[tuple]] = {}
    for place, method in sets:
        moves, ends, responses = measure(problem, place, method, workdir, seed)
        family = method if "/" in place else f"{place}, {method}"
        for number, value in enumerate(wheels.score(responses)):
            amounts = np.eye(moves.count)[number]
            label = f"{place}, {method}, {number}"
            row = (float(value), label, moves, amounts, ends[number])
            single.setdefault(family, []).append(row)
        if method in COMBINED or "/" not in place:
            amounts = wheels.combine(responses, ends)
            reach = reading.find_reach(problem, moves, amounts[None], seed)
            found = reading.read_responses(problem, moves, amounts[None], reach, seed)
            value = float(wheels.score(found)[0])
            row = (value, f"{place}, {method}, combined", moves, amounts, reach[0])
            mixed.setdefault("weights" if "/" in place else "latents", []).append(row)
    chosen = [
        (kind, *row)
        for kind, families, count in (
            ("single", single, FOLLOWED),
            ("combined", mixed, COMBINATIONS),
        )
        for rows in families.values()
        for row in sorted(rows, key=lambda row: -row[0])[:count]
    ]
    paths: list[dict[str, Any]] = []
    with Progress("wheels", len(chosen) + 1, unit="moves", is_main=True) as progress:
        for kind, value, label, moves, amounts, ends in chosen:
            path, images = wheels.follow(problem, moves, label, amounts, ends, seed)
            paths.append({"kind": kind, "score": value, **path.to_json()})
            _keep_images(workdir, len(paths), images)
            progress.advance()
        path, images = wheels.optimise_latents(problem, seed)
        paths.append({"kind": "optimised", "score": 0.0, **path.to_json()})
        _keep_images(workdir, len(paths), images)
        progress.advance()
    return paths


def _keep_images(workdir: pathlib.Path, number: int, images: np.ndarray) -> None:
    """Saves the images of three latents, for pictures."""
    path = checkpoints.make_folder(workdir / "wheels") / f"{number}.npz"
    with checkpoints.atomic_output(path) as temporary:
        np.savez_compressed(temporary, images=images[:, :3].astype(np.float16))


def read_inputs(generator: str, lpips: pathlib.Path) -> Problem:
    """Returns the problem.

    Raises: InputError for a missing or damaged file.
    """
    network, params = read_generator(generator)
    return Problem(
        generator,
        network,
        params_lib.to_device(params),
        METRICS["nlpd"](),
        read_perceptual(lpips),
        read_gauges("cars"),
    )


def main() -> None:
    """Runs the experiment for one seed, or resumes it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--lpips", type=pathlib.Path, required=True, help="weights of lpips")
    parser.add_argument("--generator", default="cars", help="a generator file or a name")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="leaves out what has to be trained")
    options = parser.parse_args()
    began = time.perf_counter()
    problem = read_inputs(options.generator, options.lpips)
    workdir = checkpoints.make_folder(options.workdir / f"seed{options.seed}")
    # Trainings take longest and come last; the hybrid method needs the spectrum of its layer.
    quick = [method for method in moves_lib.METHODS if method not in moves_lib.TRAINED]
    layers = [layer.path for layer in convolutions(problem)]
    sets = [(layer, method) for method in quick for layer in layers]
    sets += itertools.product(moves_lib.SPACES, moves_lib.LATENT_METHODS)
    if not options.quick:
        sets += [(layer, method) for method in moves_lib.TRAINED for layer in layers]
    with Progress("sets of moves", len(sets), unit="sets", is_main=True) as progress:
        for place, method in sets:
            measure(problem, place, method, workdir, options.seed)
            progress.advance()
    path = workdir / "wheels.json"
    if not path.exists() or json.loads(path.read_text())["sets"] != len(sets):
        found = move_wheels(problem, sets, workdir, options.seed)
        text = json.dumps({"sets": len(sets), "paths": found}, indent=1)
        checkpoints.write_text(path, text + "\n")
    print(f"{(time.perf_counter() - began) / 60:.1f} minutes in this call; results in {workdir}")


if __name__ == "__main__":
    main()
