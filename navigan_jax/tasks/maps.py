"""The task `maps`: shows where in the image saved directions act."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import checkpoints, devices
from navigan_jax.config import Config
from navigan_jax.editing import edit
from navigan_jax.evaluation import locality
from navigan_jax.progress import Progress
from navigan_jax.showcase import maps
from navigan_jax.tasks import budget, choosing, inputs, showing
from navigan_jax.tasks.choosing import Choice
from navigan_jax.tasks.settings import NOT_NEGATIVE, SEED, Limits, Settings
from navigan_jax.tasks.workdirs import say_written

_OWN = Settings(
    {
        "seed": int,
        "raw_shift": float,
        "latents.count": int,
        "steps": int,
        "microbatch": int,
        "memory_gib": float,
        "show.seed": int,
        "show.samples": int,
    },
    {
        "seed": SEED,
        "raw_shift": NOT_NEGATIVE,
        "latents.count": Limits(most=10**7, is_open=True),
        "steps": Limits(least=2, most=1000),
        "microbatch": NOT_NEGATIVE,
        "memory_gib": inputs.BUDGET.limits["memory_gib"],
        "show.seed": SEED,
        "show.samples": Limits(most=maps.MAX_SAMPLES, is_open=True),
    },
)
SETTINGS = choosing.CHOICE | inputs.MIXING | _OWN


def run(config: Config, workdir: pathlib.Path) -> None:
    """Writes maps.png and maps.safetensors to the workdir."""
    SETTINGS.check(config)
    choice = choosing.read_choice(config)
    choosing.require_scales(choice.directions, choice.indices, config.raw_shift)
    ends = showing.find_ends(choice.directions, choice.indices, config.raw_shift)
    microbatch = budget.microbatch_of_images(config, choice.problem)
    changes = _measure(config, choice, ends, microbatch)
    areas = np.array([locality.half_area(change) for change in changes])
    metadata = {
        "format": "navigan_jax.maps",
        "format_version": "2",
        "directions": choice.notes.digest,
        "latents": str(config.latents.count),
        "steps": str(config.steps),
        "seed": str(config.seed),
        "synthesis": json.dumps(inputs.synthesis(config).to_json()),
    }
    arrays = {
        "change": changes,
        "half_area": areas,
        "shift": ends,
        "index": np.array(choice.indices),
    }
    checkpoints.write_arrays(workdir / "maps.safetensors", arrays, metadata)
    rows = _rows(config, choice, ends, changes, areas, microbatch)
    layer = ", ".join(layer.path for layer in choice.problem.layers)
    reach = f"t in ±{config.raw_shift:g}" if config.raw_shift else "t from −s to +s of each"
    maps.write_maps(
        workdir / "maps.png",
        rows,
        f"Where directions of {layer} act",
        f"mean squared change over {config.latents.count} latents and {config.steps} shifts, "
        f"{reach}",
    )
    written = {
        "maps.png": "where each direction acts",
        "maps.safetensors": "the maps: change [directions, height, width], half_area, "
        "shift [directions, 2], index",
    }
    say_written(workdir, written)


def _measure(config: Config, choice: Choice, ends: np.ndarray, microbatch: int) -> np.ndarray:
    """Returns the maps of the chosen directions."""
    generator = choice.problem.generator
    key = jax.random.fold_in(jax.random.key(config.seed), 4)
    z = np.asarray(generator.sample_latents(key, config.latents.count))
    z = inputs.mix_latents(config, choice.problem, z)
    edits = [edit.on_device(choice.directions.edit(index)) for index in choice.indices]
    batches = -(-len(z) // microbatch) * len(edits)
    with Progress("maps", batches, unit="batches", is_main=devices.is_main_process()) as progress:
        return locality.change_maps(
            generator,
            choice.problem.params,
            choice.problem.layers,
            z,
            edits,
            showing.spread_all(ends, config.steps),
            microbatch=microbatch,
            on_batch=progress.advance,
        )


def _rows(
    config: Config,
    choice: Choice,
    ends: np.ndarray,
    changes: np.ndarray,
    areas: np.ndarray,
    microbatch: int,
) -> list[maps.MapRow]:
    """Returns the rows of the picture: maps over samples, and the edit of the first sample."""
    generator = choice.problem.generator
    z = jnp.asarray(generator.sample_latents(jax.random.key(config.show.seed), config.show.samples))
    frames = edit.render_shifts(
        generator,
        choice.problem.params,
        choice.problem.layers,
        z,
        [choice.directions.edit(index) for index in choice.indices[: maps.MAX_ROWS]],
        showing.spread_all(ends[: maps.MAX_ROWS], 3),
        microbatch=microbatch,
    )
    return [
        maps.MapRow(
            name=choice.title(index),
            change=changes[number],
            half_area=float(areas[number]),
            samples=frames[number, :, 1],
            triple=frames[number, 0],
            difference=locality.change_map(frames[number, 0, 1], frames[number, 0, [0, 2]]),
        )
        for number, index in enumerate(choice.indices[: maps.MAX_ROWS])
    ]
