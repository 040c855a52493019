"""The task `discover`: trains directions with a reconstructor, measures, ranks and shows them."""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import checkpoints, devices
from navigan_jax import config as config_lib
from navigan_jax import params as params_lib
from navigan_jax.array_types import Images, Params
from navigan_jax.config import Config
from navigan_jax.directions import Directions, read_directions, write_directions
from navigan_jax.discovery import ranking
from navigan_jax.discovery.matrix import KINDS, DirectionMatrix, direction_matrix
from navigan_jax.discovery.reconstructor import RECONSTRUCTORS
from navigan_jax.discovery.sampling import DISTRIBUTIONS
from navigan_jax.discovery.step import SPACES, render_pairs
from navigan_jax.editing.edit import shrink
from navigan_jax.editing.plausibility import Plausibility
from navigan_jax.errors import InputError
from navigan_jax.perceptual.base import distance
from navigan_jax.progress import METRICS_FILE, read_metrics
from navigan_jax.showcase import curves, gallery, grid
from navigan_jax.showcase.base import DirectionRecord, Showcase, spread_shifts
from navigan_jax.subspaces.base import LATENT, Full, Latent, Subspace, fixed_basis, require_fit
from navigan_jax.subspaces.svd import singular_values
from navigan_jax.tasks import budget, calibrating, inputs, showing, training, workdirs
from navigan_jax.tasks.inputs import Problem
from navigan_jax.tasks.settings import NOT_NEGATIVE, POSITIVE, SEED, Limits, Settings, wrong_number
from navigan_jax.tasks.workdirs import say

_DIRECTIONS = "directions.safetensors"
_SUBSPACES = ("svd", "hessian", "full", "latent")

_TRAINING = Settings(
    {
        "layer": str | None,
        "directions": int,
        "matrix": str,
        "subspace.name": str,
        "subspace.path": str | None,
        "subspace.size": int,
        "subspace.latent": str,
        "shift.scale": float,
        "shift.least": float,
        "shift.distribution": str,
        "loss.label_weight": float,
        "loss.shift_weight": float,
        "reconstructor.name": str,
        "reconstructor.side": int,
        "reconstructor.synchronised": bool,
        "reconstructor.weights": str | None,
        "optimizer.directions_rate": float,
        "optimizer.reconstructor_rate": float,
        "batch": int,
        "steps": int,
        "max_hours": float,
        "patience": int,
        "least_gain": float,
        "log_steps": int,
        "save_steps": int,
        "image_steps": int,
        "keep": int,
        "held_out.seed": int,
        "held_out.rounds": int,
        "held_out.final_rounds": int,
        "rank.most_cosine": float,
        "rank.most_confused": float,
    },
    {
        "directions": POSITIVE,
        "subspace.size": NOT_NEGATIVE,
        "shift.scale": NOT_NEGATIVE,
        "shift.least": NOT_NEGATIVE,
        "loss.label_weight": NOT_NEGATIVE,
        "loss.shift_weight": NOT_NEGATIVE,
        "reconstructor.side": Limits(most=4096),
        "optimizer.directions_rate": NOT_NEGATIVE,
        "optimizer.reconstructor_rate": NOT_NEGATIVE,
        "batch": Limits(most=10**5, is_open=True),
        "steps": POSITIVE,
        "max_hours": NOT_NEGATIVE,
        "patience": NOT_NEGATIVE,
        "least_gain": NOT_NEGATIVE,
        "log_steps": POSITIVE,
        "save_steps": POSITIVE,
        "image_steps": POSITIVE,
        "keep": POSITIVE,
        "held_out.seed": SEED,
        "held_out.rounds": POSITIVE,
        "held_out.final_rounds": POSITIVE,
        "rank.most_cosine": Limits(most=1, is_open=True),
        "rank.most_confused": Limits(most=1, is_open=True),
    },
    {
        "matrix": KINDS,
        "subspace.name": _SUBSPACES,
        "subspace.latent": SPACES,
        "shift.distribution": tuple(DISTRIBUTIONS),
        "reconstructor.name": tuple(RECONSTRUCTORS),
    },
)
# The scores are always measured: they give the shift scale, or check the one in the config.
_PLAUSIBLE = Settings({}, {"show.plausible_samples": Limits(most=10**6, is_open=True)})
SETTINGS = inputs.COMMON | inputs.PROBLEM | inputs.SYNTHESIS | _TRAINING | showing.SHOW | _PLAUSIBLE

# Keys that end a run: with larger values a finished run goes on.
_LENGTH_KEYS = ("steps", "max_hours", "patience", "least_gain")
# Keys of the final table, which is computed again if they change.
_RANK_KEYS = ("held_out.final_rounds", "rank.")
# Keys that may change between runs in one workdir: they do not affect the training steps.
_FREE_KEYS = (
    "generator",
    "subspace.path",
    "metric.weights",
    "reconstructor.weights",
    "microbatch",
    "compilation_cache",
    "distributed",
    *_LENGTH_KEYS,
    "log_steps",
    "image_steps",
    "keep",
    *_RANK_KEYS,
    "show.seed",
    "show.samples",
    "show.steps",
    "show.change",
    "show.calibration_latents",
    "show.animated",
)


def run(config: Config, workdir: pathlib.Path) -> None:
    """Trains, measures, ranks and shows directions.

    Writes config.json, inputs.json, checkpoints/, metrics.jsonl, files for TensorBoard,
    training.png, table.txt, table.csv, table.json, directions.safetensors, gallery.png,
    gallery.html and animation.gif to the workdir.
    """
    SETTINGS.check(config)
    showing.check(config)
    for key in ("save_steps", "image_steps"):
        if config[key] % config.log_steps:
            raise wrong_number(config, key, f"a multiple of config.log_steps, {config.log_steps}")
    problem = _read_problem(config)
    training.require_room(config, problem.generator)
    subspace, digests = _make_subspace(config, problem)
    start = training.read_reconstructor(config)
    if start is not None:
        digests["reconstructor"] = params_lib.digest(start)
    matrix = direction_matrix(
        training.key_for(config, training.DRAWN),
        subspace,
        kind=config.matrix,
        count=config.directions,
    )
    with contextlib.ExitStack() as held:
        if devices.is_main_process():
            held.enter_context(checkpoints.locked(workdir))
        workdirs.claim(
            workdir,
            inputs.fill_defaults(config),
            {"generator": problem.digest, **digests},
            results=(_DIRECTIONS, training.CHECKPOINTS),
            free_keys=_FREE_KEYS,
        )
        plausible = None
        directions = _read_found(workdir / _DIRECTIONS, config, problem)
        if directions is None:
            plausible = calibrating.measure_plausible(
                config, problem, budget.microbatch_of_images(config, problem)
            )
            directions = _discover(config, workdir, problem, matrix, start, plausible)
        if devices.is_main_process():
            _show(config, workdir, problem, directions, plausible)
        devices.wait_for_all("finished")  # a process that leaves takes the others with it


def _read_found(path: pathlib.Path, config: Config, problem: Problem) -> Directions | None:
    """Returns the directions at `path`, or None if training or ranking still has work to do.

    That is so if the file is missing, or of a shorter training or of another ranking.
    """
    if not path.exists() or training.goes_on(config, path.parent):
        return None
    directions = read_directions(path, digest=problem.digest)
    made = config_lib.from_text(directions.provenance["config"], f"{path}: config")
    changed = config_lib.differences(made, config)
    is_ranked_anew = any(line.startswith(_RANK_KEYS) for line in changed)
    if is_ranked_anew and training.has_checkpoints(path.parent):
        return None
    say(f"{path}: found, {len(directions)} directions")
    return directions


def _read_problem(config: Config) -> Problem:
    is_latent = config.subspace.name == "latent"
    if (config.layer is None) != is_latent:
        raise InputError(
            "config.layer: expected nothing for config.subspace.name=latent, else a layer; "
            f"got {config.layer!r} with config.subspace.name={config.subspace.name}; "
            + ("leave it out" if is_latent else "set it with --config.layer=NAME")
        )
    if not is_latent:
        problem = inputs.read_problem(config)
        inputs.require_different(config, problem.generator)
        return problem
    generator, params, _ = inputs.read_set_generator(config)
    digest = params_lib.digest(params)
    metric = inputs.make_metric(config)
    return Problem(generator, params, digest, (), metric, config.generator)


def _make_subspace(config: Config, problem: Problem) -> tuple[Subspace, dict[str, str]]:
    """Returns the subspace, and the digests of the files behind it."""
    settings, shapes = config.subspace, {layer.path: layer.shape for layer in problem.layers}
    if (settings.path is None) == (settings.name == "hessian"):
        raise InputError(
            "config.subspace.path: expected a file of directions for the subspace hessian, else "
            f"nothing; got {settings.path!r} with config.subspace.name={settings.name}; "
            "make one with configs/hessian.py, or leave the key out"
        )
    if settings.name == "hessian":
        found = read_directions(settings.path, digest=problem.digest)
        require_fit(found.basis, shapes, settings.path)
        if settings.size > len(found):
            raise wrong_number(config, "subspace.size", f"0 to {len(found)}, as the file has")
        count = settings.size or len(found)
        basis = {path: rows[:count] for path, rows in found.basis.items()}
        return fixed_basis(basis), {"subspace": params_lib.digest(basis)}
    if settings.name == "latent":
        generator = problem.generator
        width = generator.space.movable
        if not width:
            raise InputError(
                "config.subspace.name: expected directions of weights, as the latents of this "
                f"{generator.architecture} have none; got 'latent'; set another subspace"
            )
        if settings.latent == "w":
            width = problem.generator.latent_shape[-1]
        return Latent(width), {}
    if settings.name == "full":
        return Full(tuple(shapes.items())), {}
    weights = {path: np.asarray(params_lib.get(problem.params, path)) for path in shapes}
    return singular_values(weights)[0], {}


def _discover(
    config: Config,
    workdir: pathlib.Path,
    problem: Problem,
    matrix: DirectionMatrix,
    start: Mapping[str, Any] | None,
    plausible: Plausibility,
) -> Directions:
    """Trains; writes tables, curves and directions, without shift scales yet.

    start: initial weights of the reconstructor, or None for a random start. plausible:
    out-of-distribution scores of the generator.
    """
    target = problem.layers or config.subspace.latent
    problem = dataclasses.replace(problem, params=params_lib.to_device(problem.params))
    reconstructor = training.network_of(config)
    first = training.first_variables(config, problem.generator, reconstructor, start)
    setup = training.Setup(
        problem,
        target,
        matrix,
        reconstructor,
        training.make_recipe(config, problem, target, matrix, plausible),
    )
    names = ", ".join(layer.path for layer in problem.layers) or f"latent {target}"
    say(
        f"{problem.generator.architecture} {problem.generator.size_text}, {names}; "
        f"{config.subspace.name} of {matrix.subspace.size}, {config.matrix}, {matrix.count} "
        f"directions; {config.reconstructor.name}; {devices.describe()}"
    )
    best = training.train(config, workdir, setup, first)
    say("measuring every direction")
    measure = training.make_measure(setup, rounds=config.held_out.final_rounds)
    table = measure(best.parameters, best.variables, jax.random.key(config.held_out.seed))
    ranked = ranking.rank(
        table, most_cosine=config.rank.most_cosine, most_confused=config.rank.most_confused
    )
    kept = np.array(ranked.kept)
    directions = Directions(
        basis=_expand(matrix, best.parameters, kept),
        measures={"accuracy": table.accuracy[kept], "shift_error": table.shift_error[kept]},
        shift_scales=np.full((len(kept), 2), setup.recipe.shift_scale),
        distances=np.zeros((len(kept), 2)),
        provenance={
            "architecture": problem.generator.architecture,
            "digest": problem.digest,
            "method": f"discovery, {config.subspace.name}, {config.matrix}",
            "metric": config.metric.name,
            "seed": str(config.seed),
            "latents": str(best.steps * config.batch),
            "shift_scale": f"{setup.recipe.shift_scale:.6g}",
            "config": config_lib.to_text(inputs.fill_defaults(config)),
        },
    )
    if devices.is_main_process():
        records = ranking.rows(table, ranked)
        for name, text in (
            ("table.txt", ranking.as_text(records)),
            ("table.csv", ranking.as_csv(records)),
            ("table.json", json.dumps(records, indent=1) + "\n"),
        ):
            checkpoints.write_text(workdir / name, text)
        rows = read_metrics(workdir / METRICS_FILE)
        curves.write_curves(workdir / "training.png", rows, 1 / config.directions)
        write_directions(workdir / _DIRECTIONS, directions)
        say(ranking.as_text(records))
    mean = float(table.accuracy.mean())
    say(
        f"accuracy {mean:.3f} (chance {1 / config.directions:.3f}); "
        f"{len(kept)} of {config.directions} directions kept"
    )
    return directions


def _expand(
    matrix: DirectionMatrix, parameters: Any, chosen: Sequence[int] | np.ndarray
) -> dict[str, np.ndarray]:
    """Returns the chosen directions at unit norm, expanded one at a time to save memory."""
    one = jax.jit(lambda matrix, parameters, k: matrix.unit(parameters, k))
    rows = [one(matrix, parameters, jnp.array([k])) for k in chosen]
    return {path: np.concatenate([np.asarray(row[path]) for row in rows]) for path in matrix.layers}


def _show(
    config: Config,
    workdir: pathlib.Path,
    problem: Problem,
    directions: Directions,
    plausible: Plausibility | None,
) -> None:
    """Calibrates and shows directions of weights; shows directions of the latent at the run's T."""
    if problem.layers:
        microbatch = budget.microbatch_of_images(config, problem)
        directions = calibrating.calibrate_once(
            config,
            problem,
            directions,
            lambda: calibrating.make_calibrator(config, problem, microbatch, plausible),
            workdir / _DIRECTIONS,
        )
        showing.show(config, workdir, problem, directions, name=_DIRECTIONS, microbatch=microbatch)
    else:
        _show_latents(config, workdir, problem, directions)
    say(f"  {workdir / 'training.png'}  loss and accuracy by step")
    say(f"  {workdir / 'table.txt'}  every direction: accuracy, shift error, nearest neighbour")


def _show_latents(
    config: Config, workdir: pathlib.Path, problem: Problem, directions: Directions
) -> None:
    z = problem.generator.sample_latents(jax.random.key(config.show.seed), config.show.samples)
    scale = float(directions.shift_scales.max())
    shifts = spread_shifts(scale, scale, config.show.steps)

    @jax.jit
    def images_at(params: Params, change: jax.Array) -> Images:
        changes = {LATENT: jnp.broadcast_to(change[None], (len(z), len(change)))}
        target = config.subspace.latent
        return render_pairs(problem.generator, params, target, changes, z)[1]

    frames, distances = [], []
    for row in directions.basis[LATENT]:
        steps = [np.asarray(images_at(problem.params, t * row)) for t in shifts]
        whole = np.stack(steps, axis=1)
        distances.append(_distance_at_ends(problem, whole))
        frames.append(shrink(whole, gallery.LARGEST_CELL))  # all frames are in memory at once
    records = tuple(
        DirectionRecord(
            index=index,
            measures={name: float(rows[index]) for name, rows in directions.measures.items()},
            shifts=tuple(map(float, shifts)),
            distance=distance_at_ends,
        )
        for index, distance_at_ends in enumerate(distances)
    )
    provenance = {"layer": f"latent {config.subspace.latent}", **directions.provenance}
    del provenance["config"]
    showcase = Showcase(np.stack(frames), records, provenance)
    grid.write_grid(workdir / "gallery.png", showcase)
    gallery.write_gallery(workdir / "gallery.html", showcase)
    workdirs.say_written(
        workdir,
        {
            _DIRECTIONS: "the directions",
            "gallery.png": "all directions in one picture",
            "gallery.html": "the same with sliders: open it in a browser",
        },
    )


def _distance_at_ends(problem: Problem, frames: np.ndarray) -> float:
    """Returns the mean distance to the original at ±s; frames: [samples, steps, ...]."""
    middle = frames[:, frames.shape[1] // 2]
    ends = np.concatenate([frames[:, 0], frames[:, -1]])
    twice = np.concatenate([middle, middle])
    return float(jnp.mean(distance(problem.metric, jnp.asarray(ends), jnp.asarray(twice))))
