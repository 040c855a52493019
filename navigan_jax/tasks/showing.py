"""Directions made visible: shift scales at which the images change alike, then the pictures."""

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
from navigan_jax.directions import Directions
from navigan_jax.editing import calibration, edit
from navigan_jax.errors import InputError
from navigan_jax.perceptual.base import distance
from navigan_jax.progress import Progress
from navigan_jax.showcase import animation, gallery, grid, plots
from navigan_jax.showcase.base import DirectionRecord, Showcase, spread_shifts
from navigan_jax.tasks.inputs import Problem
from navigan_jax.tasks.settings import POSITIVE, SEED, Limits, Settings, wrong_number
from navigan_jax.tasks.workdirs import say_written

SHOW = Settings(
    {
        "show.seed": int,
        "show.samples": int,
        "show.steps": int,
        "show.change": float,
        "show.calibration_latents": int,
        "show.animated": int,
    },
    {
        "show.seed": SEED,
        # Beyond these no run is meant, and arrays that large end the process.
        "show.samples": Limits(most=1000, is_open=True),
        "show.steps": Limits(most=1001, is_open=True),
        "show.change": POSITIVE,
        "show.calibration_latents": Limits(most=10**5, is_open=True),
        "show.animated": POSITIVE,
    },
)


def check(config: Config) -> None:
    """Checks what `SHOW` cannot say. Raises: InputError."""
    if config.show.steps % 2 == 0 or config.show.steps < 3:
        raise wrong_number(
            config, "show.steps", "an odd number from 3, as the original is in the middle"
        )


def calibrate(config: Config, problem: Problem, directions: Directions) -> Directions:
    """Returns the directions with the shifts at which images have changed by the wanted amount.

    Raises: InputError if all images of the generator are the same.
    """
    generator, params, metric = problem.generator, problem.params, problem.metric
    key = jax.random.fold_in(jax.random.key(config.seed), 2)
    z = generator.sample_latents(key, 2 * config.show.calibration_latents)

    @jax.jit
    def distance_between_images(params: Params, metric: Any, z: jax.Array) -> jax.Array:
        images = generator.synthesize(params, generator.map_latent(params, z))
        return jnp.mean(distance(metric, *jnp.split(images, 2)))

    between = float(distance_between_images(params, metric, z))
    if not between > 0:
        raise InputError(
            f"{problem.source}: expected images that differ with the latent; got the same for "
            "all; check the weights"
        )
    target = config.show.change * between
    half = z[: config.show.calibration_latents]
    measure = edit.make_distance(generator, params, problem.layers, metric, half)
    weights = [params_lib.get(params, layer.path) for layer in problem.layers]
    weight_norm = math.sqrt(sum(float(np.sum(np.square(weight))) for weight in weights))
    scales = np.zeros((len(directions), 2))
    distances = np.zeros((len(directions), 2))
    with Progress(
        "shift scales", len(directions), unit="directions", is_main=devices.is_main_process()
    ) as progress:
        for index in range(len(directions)):
            first = _first_guess(directions, index, target, weight_norm)
            for side, sign in enumerate((-1.0, 1.0)):
                found = calibration.find_scale(
                    _along(measure, directions.edit(index), sign),
                    target=target,
                    first=first,
                    largest=max(10 * weight_norm, first),
                )
                scales[index, side], distances[index, side] = found.shift, found.distance
            progress.advance(1, scale=scales[index].max())
    return dataclasses.replace(directions, shift_scales=scales, distances=distances)


def _first_guess(directions: Directions, index: int, target: float, weight_norm: float) -> float:
    """Returns the shift t of distance t²λ/2 = target, or without eigenvalues some small one."""
    eigenvalues = directions.measures.get("eigenvalue")
    if eigenvalues is None:
        return weight_norm / 100
    return math.sqrt(2 * target / max(float(eigenvalues[index]), 1e-12))


def _along(
    measure: Callable[[Any, float], float], direction: Any, sign: float
) -> Callable[[float], float]:
    return lambda shift: measure(direction, sign * shift)


def is_same_calibration(scaled: Directions, directions: Directions) -> bool:
    """Whether two calibrations of the same directions came to the same numbers."""
    pairs = (scaled.shift_scales, directions.shift_scales), (scaled.distances, directions.distances)
    return all(np.array_equal(new, old) for new, old in pairs)


def show(
    config: Config, workdir: pathlib.Path, problem: Problem, directions: Directions, *, name: str
) -> None:
    """Renders the directions and writes the pictures; ends by naming them.

    name: of the directions' own file in the workdir.
    """
    key = jax.random.key(config.show.seed)
    z = problem.generator.sample_latents(key, config.show.samples)
    # One scale for both sides keeps columns comparable: the smaller shift changes enough.
    scales = np.maximum(directions.shift_scales.min(axis=1), 1e-6)
    shifts = np.stack([spread_shifts(scale, config.show.steps) for scale in scales])
    edits = [directions.edit(index) for index in range(len(directions))]
    with Progress(
        "images", len(edits), unit="directions", is_main=devices.is_main_process()
    ) as progress:
        frames = edit.render_shifts(
            problem.generator,
            problem.params,
            problem.layers,
            z,
            edits,
            shifts,
            progress.advance,
        )
    shown = ("metric", "latents", "method", "seed")
    provenance = {
        "layer": ", ".join(layer.path for layer in problem.layers),
        **{key: directions.provenance[key] for key in shown},
        "weights": directions.provenance["digest"],
    }
    records = tuple(
        DirectionRecord(
            index=index,
            name="",
            measures={name: float(rows[index]) for name, rows in directions.measures.items()},
            shifts=tuple(float(shift) for shift in shifts[index]),
            distance=float(directions.distances[index].mean()),
        )
        for index in range(len(directions))
    )
    showcase = Showcase(frames, records, provenance)
    moving = Showcase(frames[: config.show.animated], records[: config.show.animated], provenance)
    written = {name: "the directions"}
    if "eigenvalue" in directions.measures:
        plots.write_spectrum(
            workdir / "spectrum.png",
            directions.measures["eigenvalue"],
            directions.measures["residual"],
            provenance,
        )
        written["spectrum.png"] = "eigenvalues"
    grid.write_grid(workdir / "gallery.png", showcase)
    gallery.write_gallery(workdir / "gallery.html", showcase)
    animation.write_animation(workdir / "animation.gif", moving)
    written |= {
        "gallery.png": "all directions in one picture",
        "gallery.html": "the same with sliders: open it in a browser",
        "animation.gif": f"the first {len(moving.directions)} directions moving",
    }
    say_written(workdir, written)
