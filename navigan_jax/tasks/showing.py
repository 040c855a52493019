"""Renders images along directions and writes the pictures that show them."""

import math
import pathlib
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from navigan_jax import devices, notes, suggestions
from navigan_jax import directions as directions_lib
from navigan_jax.array_types import Array
from navigan_jax.config import Config
from navigan_jax.directions import Directions, Edit
from navigan_jax.editing import edit
from navigan_jax.inverted import Inverted
from navigan_jax.notes import Notes
from navigan_jax.progress import Progress
from navigan_jax.showcase import animation, gallery, grid, plots
from navigan_jax.showcase.base import DirectionRecord, Showcase, spread_shifts
from navigan_jax.tasks import calibrating
from navigan_jax.tasks.inputs import Problem
from navigan_jax.tasks.settings import POSITIVE, SEED, Limits, Settings, wrong_number
from navigan_jax.tasks.workdirs import say_written

# Larger values are mistakes, and arrays of that size end the process.
SAMPLES = Limits(most=1000, is_open=True)
STEPS = Limits(most=1001, is_open=True)

SHOW = calibrating.SETTINGS | Settings(
    {
        "show.seed": int,
        "show.samples": int,
        "show.steps": int,
        "show.animated": int,
    },
    {
        "show.seed": SEED,
        "show.samples": SAMPLES,
        "show.steps": STEPS,
        "show.animated": POSITIVE,
    },
)


def check(config: Config) -> None:
    """Checks what `SHOW` cannot say. Raises: InputError."""
    if config.show.steps % 2 == 0 or config.show.steps < 3:
        raise wrong_number(
            config, "show.steps", "an odd number from 3, as the original is in the middle"
        )


def find_ends(
    directions: Directions, indices: Sequence[int], raw_shift: float
) -> Float[np.ndarray, "chosen 2"]:
    """Returns s of the chosen directions: the |t| at the ends of a picture, for t < 0 and t > 0.

    raw_shift: if it is not 0, s of all directions.
    """
    ends = np.maximum(directions.shown, 1e-6)[list(indices)]
    return np.full_like(ends, raw_shift) if raw_shift else ends


def spread_all(
    ends: Float[np.ndarray, "chosen 2"], steps: int
) -> Float[np.ndarray, "chosen steps"]:
    """Returns the shifts of each direction, from −s to +s; see `spread_shifts`."""
    return np.array([spread_shifts(low, high, steps) for low, high in ends])


def render_showcase(
    problem: Problem,
    directions: Directions,
    noted: Notes,
    suggested: Mapping[int, str],
    *,
    indices: Sequence[int],
    seed: int,
    samples: int,
    steps: int,
    microbatch: int,
    raw_shift: float = 0.0,
    photographs: Inverted | None = None,
) -> Showcase:
    """Returns frames of the directions `indices` from −s to +s, and their facts for the pictures.

    On each side, s is the shift that spends the perceptual budget, or the end of the effective
    range if that is nearer. Large images are reduced to the largest size that pages show.
    suggested: proposed names, by direction. microbatch: samples at once. raw_shift: if it is not
    0, s of all directions. photographs: shown instead of samples.
    """
    z, own = latents_shown(problem, seed, samples, photographs)
    shifts = spread_all(find_ends(directions, indices, raw_shift), steps)
    with Progress(
        "images", len(indices), unit="directions", is_main=devices.is_main_process()
    ) as progress:
        frames = edit.render_shifts(
            problem.generator,
            problem.params,
            problem.layers,
            z,
            [directions.edit(index) for index in indices],
            shifts,
            progress.advance,
            microbatch,
            largest=gallery.LARGEST_CELL,
            own=own,
        )
    records = tuple(
        _record(directions, noted, suggested, index, row, is_raw=bool(raw_shift))
        for index, row in zip(indices, shifts, strict=True)
    )
    known = directions.provenance
    told = ("metric", "latents", "method", "seed", calibrating.NOTED)
    provenance = {
        "layer": ", ".join(layer.path for layer in problem.layers),
        **{key: known[key] for key in told if key in known},
        "weights": known["digest"],
        "directions": noted.digest,
    }
    height, width, _ = problem.generator.image_shape
    if frames.shape[3:5] != (height, width):
        provenance["reduced"] = f"from {width} × {height} pixels"
    return Showcase(frames, records, provenance, noted)


def latents_shown(
    problem: Problem, seed: int, samples: int, photographs: Inverted | None
) -> tuple[Array, list[Edit]]:
    """Returns the latents of the images that are shown, and their own changes of the weights.

    The latents are drawn from the seed, or are those of the first photographs.
    """
    if photographs is None:
        return problem.generator.sample_latents(jax.random.key(seed), samples), []
    count = min(samples, len(photographs))
    own = [photographs.edit(index) for index in range(count)] if photographs.changes else []
    return jnp.asarray(photographs.latents[:count]), own


def _record(
    directions: Directions,
    noted: Notes,
    suggested: Mapping[int, str],
    index: int,
    shifts: np.ndarray,
    *,
    is_raw: bool,
) -> DirectionRecord:
    plausible = directions.plausible
    edges = (math.nan, math.nan) if plausible is None else tuple(map(float, plausible[index]))
    equal = tuple(map(float, directions.shift_scales[index]))
    return DirectionRecord(
        index=index,
        measures={name: float(rows[index]) for name, rows in directions.measures.items()},
        shifts=tuple(float(shift) for shift in shifts),
        distance=math.nan if is_raw else float(directions.distances[index].mean()),
        equal=(equal[0], equal[1]),
        plausible=(edges[0], edges[1]),
        note=noted.get(index),
        suggestion=suggested.get(index, ""),
    )


def show(
    config: Config,
    workdir: pathlib.Path,
    problem: Problem,
    directions: Directions,
    *,
    name: str,
    microbatch: int,
) -> None:
    """Renders the directions, writes the pictures and prints their names.

    name: the directions file in the workdir. microbatch: samples at once.
    """
    path, digest, count = workdir / name, directions_lib.digest(directions), len(directions)
    showcase = render_showcase(
        problem,
        directions,
        notes.read_notes(path, digest=digest, count=count),
        suggestions.read_suggestions(path, digest=digest, count=count),
        indices=range(len(directions)),
        seed=config.show.seed,
        samples=config.show.samples,
        steps=config.show.steps,
        microbatch=microbatch,
    )
    moving = showcase.first(config.show.animated)
    written = {name: "the directions"}
    if "eigenvalue" in directions.measures:
        plots.write_spectrum(
            workdir / "spectrum.png",
            directions.measures["eigenvalue"],
            directions.measures["residual"],
            showcase.provenance,
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
