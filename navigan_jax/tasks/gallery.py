"""The task `gallery`: shows saved directions as a page, a contact sheet, a figure and a video."""

import dataclasses
import pathlib

import numpy as np

from navigan_jax import inverted as inverted_lib
from navigan_jax.config import Config
from navigan_jax.directions import Edit
from navigan_jax.editing import edit
from navigan_jax.editing.recipe import EASINGS
from navigan_jax.generators.base import Generator
from navigan_jax.generators.latents import spaces_of
from navigan_jax.inverted import Inverted
from navigan_jax.showcase import base, figure, grid, video
from navigan_jax.showcase import gallery as page
from navigan_jax.showcase.base import Showcase
from navigan_jax.tasks import budget, choosing, inputs, showing
from navigan_jax.tasks.choosing import Choice
from navigan_jax.tasks.settings import NOT_NEGATIVE, SEED, Limits, Settings
from navigan_jax.tasks.workdirs import say_written

PATH = Settings(
    {
        "video.seconds": float,
        "video.frames_per_second": int,
        "video.easing": str,
    },
    {
        "video.seconds": Limits(least=0.2, most=120),
        "video.frames_per_second": Limits(least=1, most=60),
    },
    {"video.easing": EASINGS},
)
SETTINGS = (
    choosing.CHOICE
    | PATH
    | Settings(
        {
            "raw_shift": float,
            "show.photographs": str | None,
            "show.seed": int,
            "show.samples": int,
            "show.steps": int,
            "figure.directions": int,
            "video.directions": int,
            "video.samples": int,
        },
        {
            "raw_shift": NOT_NEGATIVE,
            "show.seed": SEED,
            "show.samples": showing.SAMPLES,
            "show.steps": showing.STEPS,
            "figure.directions": Limits(most=32),
            "video.directions": Limits(most=12),
            "video.samples": Limits(most=16, is_open=True),
        },
    )
)


def run(config: Config, workdir: pathlib.Path) -> None:
    """Writes gallery.html, gallery.png, figure.pdf, video.mp4 and video.gif to the workdir."""
    SETTINGS.check(config)
    showing.check(config)
    choice = choosing.read_choice(config)
    photographs = _read_photographs(config, choice)
    choosing.require_scales(choice.directions, choice.indices, config.raw_shift)
    showcase = showing.render_showcase(
        choice.problem,
        choice.directions,
        choice.notes,
        choice.suggested,
        indices=choice.indices,
        seed=config.show.seed,
        samples=config.show.samples,
        steps=config.show.steps,
        microbatch=budget.images_at_once(choice.problem.generator),
        raw_shift=config.raw_shift,
        photographs=photographs,
    )
    made = {name: str(value) for name, value in inputs.synthesis(config).to_json().items()}
    showcase = dataclasses.replace(showcase, provenance={**showcase.provenance, **made})
    page.write_gallery(workdir / "gallery.html", showcase)
    size = (workdir / "gallery.html").stat().st_size / 1e6
    grid.write_grid(workdir / "gallery.png", showcase)
    written = {
        "gallery.html": f"the directions with sliders, {size:.1f} MB: open it in a browser",
        "gallery.png": "the same as one picture",
    }
    if config.figure.directions:
        _write_figure(
            config, workdir, choice, showcase.first(config.figure.directions), photographs
        )
        written["figure.pdf"] = "the first directions as a figure for a paper"
    if config.video.directions:
        _write_videos(config, workdir, choice, showcase.first(config.video.directions), photographs)
        written |= {"video.mp4": "the first directions moving", "video.gif": "the same"}
    say_written(workdir, written)


def _read_photographs(config: Config, choice: Choice) -> Inverted | None:
    """Returns the photographs that are shown instead of samples, if any."""
    path, problem = config.show.photographs, choice.problem
    if path is None:
        return None
    digest = None if config.any_weights else problem.digest
    shapes = spaces_of(problem.generator).shapes
    return inverted_lib.read_fitting(path, problem.params, shapes, digest=digest)


def _write_figure(
    config: Config,
    workdir: pathlib.Path,
    choice: Choice,
    small: Showcase,
    photographs: Inverted | None,
) -> None:
    """Writes the figure at full size; renders its images again if those of the page are reduced."""
    problem, whole = choice.problem, small
    if small.frames.shape[3:5] != problem.generator.image_shape[:2]:
        count = min(config.show.samples, figure.MAX_SAMPLES)
        z, own = showing.latents_shown(problem, config.show.seed, count, photographs)
        records = tuple(
            dataclasses.replace(record, shifts=(record.shifts[0], 0.0, record.shifts[-1]))
            for record in small.directions
        )
        frames = edit.render_shifts(
            problem.generator,
            problem.params,
            problem.layers,
            z,
            [choice.directions.edit(record.index) for record in records],
            np.array([record.shifts for record in records]),
            microbatch=budget.images_at_once(problem.generator),
            own=own,
        )
        whole = dataclasses.replace(small, frames=frames, directions=records)
    figure.write_figure(workdir / "figure.pdf", whole)


def _write_videos(
    config: Config,
    workdir: pathlib.Path,
    choice: Choice,
    showcase: Showcase,
    photographs: Inverted | None,
) -> None:
    """Renders the directions at the shifts of the video, and writes the videos."""
    frames = round(config.video.seconds * config.video.frames_per_second)
    factors, order = video.plan_path(
        -1.0, 1.0, frames=frames, easing=config.video.easing, returns=True
    )
    generator: Generator = choice.problem.generator
    count, seed = config.video.samples, config.show.seed
    z, own = showing.latents_shown(choice.problem, seed, count, photographs)
    edits: list[Edit] = [choice.directions.edit(record.index) for record in showcase.directions]
    shifts = np.array([list(map(record.shift_at, factors)) for record in showcase.directions])
    images = edit.render_shifts(
        generator,
        choice.problem.params,
        choice.problem.layers,
        z,
        edits,
        shifts,
        microbatch=budget.images_at_once(generator),
        largest=2 * video.LARGEST_CELL,
        own=own,
    )
    strips = [
        video.Strip(
            record.title,
            np.swapaxes(rows, 0, 1),
            [f"t = {base.format_number(t, signed=True)}" for t in row],
        )
        for record, row, rows in zip(showcase.directions, shifts, images, strict=True)
    ]
    for suffix in video.SUFFIXES:
        video.write_video(
            workdir / f"video{suffix}",
            strips,
            factors,
            order,
            frames_per_second=config.video.frames_per_second,
            source=base.describe(showcase.provenance),
        )
