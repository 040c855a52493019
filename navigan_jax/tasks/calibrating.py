"""Calibration in tasks: shifts that spend one perceptual budget, and the effective range."""

import dataclasses
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import devices
from navigan_jax import params as params_lib
from navigan_jax.array_types import Params
from navigan_jax.config import Config
from navigan_jax.directions import Directions, Edit, write_directions
from navigan_jax.editing import calibration, edit, plausibility
from navigan_jax.errors import InputError
from navigan_jax.perceptual.base import squared_norms
from navigan_jax.progress import Progress
from navigan_jax.tasks.inputs import Problem
from navigan_jax.tasks.settings import POSITIVE, Limits, Settings

NOTED = "calibration"  # the name in the provenance of directions of what they are calibrated to

SETTINGS = Settings(
    {
        "show.change": float,
        "show.calibration_latents": int,
        "show.plausible_samples": int,
        "show.plausible_quantile": float,
    },
    {
        "show.change": POSITIVE,
        "show.calibration_latents": Limits(most=10**5, is_open=True),
        "show.plausible_samples": Limits(most=10**6),
        "show.plausible_quantile": Limits(most=1, is_open=True),
    },
)


@dataclasses.dataclass(frozen=True, eq=False)
class Calibrator:
    """The measure that calibrates the directions of a generator, in any layer.

    name: a description for the provenance. microbatch: images rendered at once. z: latents. target:
    the perceptual budget, as a distance. plausible: the out-of-distribution score, or None if the
    config turns it off.
    """

    name: str
    microbatch: int
    z: np.ndarray
    target: float
    plausible: plausibility.Plausibility | None


def measure_plausible(
    config: Config, problem: Problem, microbatch: int
) -> plausibility.Plausibility:
    """Returns the out-of-distribution score, fitted to the generator's own images.

    Raises: InputError if these images are not finite.
    """
    key = jax.random.fold_in(jax.random.key(config.seed), 5)
    return plausibility.measure(
        problem.generator,
        problem.params,
        problem.generator.sample_latents(key, config.show.plausible_samples),
        quantile=config.show.plausible_quantile,
        microbatch=microbatch,
    )


def make_calibrator(
    config: Config,
    problem: Problem,
    microbatch: int,
    plausible: plausibility.Plausibility | None = None,
) -> Calibrator:
    """Returns the calibrator of a generator and its distance.

    microbatch: images rendered at once, here and by the calibrator. plausible: the score of this
    generator, if it was fitted before.
    Raises: InputError if all images of the generator are equal, or not finite.
    """
    generator, params, metric = problem.generator, problem.params, problem.metric
    key = jax.random.fold_in(jax.random.key(config.seed), 2)
    z = generator.sample_latents(key, 2 * config.show.calibration_latents)

    @jax.jit
    def features(params: Params, metric: Any, z: jax.Array) -> Any:
        return metric.features(generator.synthesize(params, generator.map_latent(params, z)))

    parts = [
        features(params, metric, z[start : start + microbatch])
        for start in range(0, len(z), microbatch)
    ]
    whole = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
    halves = (jax.tree.map(lambda leaf, h=h: jnp.split(leaf, 2)[h], whole) for h in (0, 1))
    difference = jax.tree.map(jnp.subtract, *halves)
    between = float(jnp.mean(jnp.sum(squared_norms(difference), axis=0)))
    if not between > 0:
        raise InputError(
            f"{problem.source}: expected images that differ with the latent; got the same for "
            "all; check the weights, and that config.synthesis.truncation, if set, is not near 0"
        )
    if plausible is None and config.show.plausible_samples:
        plausible = measure_plausible(config, problem, microbatch)
    half = np.asarray(z[: config.show.calibration_latents])
    return Calibrator(
        describe_calibration(config), microbatch, half, config.show.change * between, plausible
    )


def describe_calibration(config: Config) -> str:
    """Returns a description of the calibration, the same for all layers."""
    show = config.show
    words = (
        f"distance {show.change:g} of that between two random images, in the mean over "
        f"{show.calibration_latents} latents"
    )
    if show.plausible_samples:
        words += f"; plausible: quantile {show.plausible_quantile:g} of {show.plausible_samples}"
    return words


def calibrate_once(
    config: Config,
    problem: Problem,
    directions: Directions,
    calibrator: Callable[[], Calibrator],
    path: pathlib.Path,
) -> Directions:
    """Returns directions that are calibrated as the config says.

    Directions with another calibration are calibrated anew and written to `path`. Only then is
    `calibrator` called.
    """
    if directions.provenance.get(NOTED) == describe_calibration(config):
        return directions
    directions = calibrate(problem, directions, calibrator())
    write_directions(path, directions)
    return directions


def calibrate(problem: Problem, directions: Directions, calibrator: Calibrator) -> Directions:
    """Returns the directions with the shifts that spend the perceptual budget."""
    plausible = calibrator.plausible
    look = edit.make_look(
        problem.generator,
        problem.params,
        problem.layers,
        problem.metric,
        jnp.asarray(calibrator.z),
        plausible,
        calibrator.microbatch,
    )
    weights = [params_lib.get(problem.params, layer.path) for layer in problem.layers]
    weight_norm = math.sqrt(sum(float(np.sum(np.square(weight))) for weight in weights))
    scales, distances, edges = (np.zeros((len(directions), 2)) for _ in range(3))
    with Progress(
        "shift scales", len(directions), unit="directions", is_main=devices.is_main_process()
    ) as progress:
        # The out-of-distribution score of the unchanged images.
        usual = look(edit.on_device(directions.edit(0)), 0.0)[1]
        ratio = 1.0  # last direction's scale / its guess; about the same for the next direction
        for index in range(len(directions)):
            direction = edit.on_device(directions.edit(index))
            guess = _first_guess(directions, index, calibrator.target, weight_norm)
            first = ratio * guess
            for side, sign in enumerate((-1.0, 1.0)):
                found = calibration.find_side(
                    _along(look, direction, sign),
                    target=calibrator.target,
                    first=first,
                    largest=max(10 * weight_norm, first),
                    bound=math.inf if plausible is None else 1.0,
                    usual=usual,
                )
                scales[index, side] = found.scale.shift
                distances[index, side] = found.scale.distance
                edges[index, side] = found.plausible
                first = found.scale.shift or first  # the other side has a similar scale
            ratio = scales[index, 0] / guess if scales[index, 0] else ratio
            progress.advance(1, scale=scales[index].max())
    return dataclasses.replace(
        directions,
        shift_scales=scales,
        distances=distances,
        plausible=None if plausible is None else edges,
        provenance={**directions.provenance, NOTED: calibrator.name},
    )


def _along(
    look: Callable[[Edit, float], tuple[float, float]], direction: Edit, sign: float
) -> Callable[[float], tuple[float, float]]:
    return lambda shift: look(direction, sign * shift)


def _first_guess(directions: Directions, index: int, target: float, weight_norm: float) -> float:
    """Returns t with t²λ/2 = target; without eigenvalues, a hundredth of the weights' norm."""
    eigenvalues = directions.measures.get("eigenvalue")
    if eigenvalues is None:
        return weight_norm / 100
    return math.sqrt(2 * target / max(float(eigenvalues[index]), 1e-12))
