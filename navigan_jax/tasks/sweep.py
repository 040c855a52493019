"""The task `sweep`: the spectra of many layers in one run, and one page to compare them.

Every layer has a folder of its own in the workdir, which is a workdir of the task `hessian` with
the same settings: it resumes by itself, and that task can go on with it. What does not depend on
the layer is made once: weights on the device, latents, the distance between random images (which
sets the shift scales) and what is plausible. What comes before a layer is run again for each: on a
DCGAN of faces that is less than a hundredth of the time that its directions take.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from navigan_jax import checkpoints, devices, notes
from navigan_jax import config as config_lib
from navigan_jax import directions as directions_lib
from navigan_jax import params as params_lib
from navigan_jax.config import Config
from navigan_jax.directions import Directions
from navigan_jax.editing import edit
from navigan_jax.errors import InputError, NoEffectError
from navigan_jax.evaluation import locality
from navigan_jax.generators.base import EditableLayer, Generator
from navigan_jax.showcase import layers_page
from navigan_jax.showcase.layers_page import LayerRecord
from navigan_jax.tasks import budget, calibrating, hessian, inputs, showing
from navigan_jax.tasks.calibrating import Calibrator
from navigan_jax.tasks.inputs import Problem
from navigan_jax.tasks.settings import Limits, Settings
from navigan_jax.tasks.workdirs import say, say_written

# Keys of this task; the others are those of `hessian`, without `layer`.
_OWN = Settings(
    {
        "layers": str,
        "page.directions": int,
        "page.samples": int,
        "page.map_latents": int,
        "page.map_steps": int,
    },
    {
        "page.directions": Limits(most=64, is_open=True),
        "page.samples": Limits(most=16, is_open=True),
        "page.map_latents": Limits(most=10**6, is_open=True),
        "page.map_steps": Limits(least=2, most=1000),
    },
)


_SHARED = {key: kind for key, kind in hessian.SETTINGS.kinds.items() if key != "layer"}
SETTINGS = dataclasses.replace(hessian.SETTINGS, kinds=_SHARED) | _OWN


def run(config: Config, workdir: pathlib.Path) -> None:
    """Writes a folder for each layer, and layers.html, to the workdir."""
    SETTINGS.check(config)
    showing.check(config)
    generator, params, _ = inputs.read_set_generator(config)
    layers = choose_layers(generator, config.layers)
    metric = inputs.make_metric(config)
    digest, params = params_lib.digest(params), params_lib.to_device(params)
    problems = [
        Problem(generator, params, digest, (layer,), metric, config.generator) for layer in layers
    ]
    single = [_config_of(config, layer) for layer in layers]
    for one, problem in zip(single, problems, strict=True):
        hessian.check(one, problem)
    z = inputs.mix_latents(config, problems[0], inputs.draw_latents(config, generator))
    if not devices.is_main_process():
        raise InputError(
            "config.distributed: expected one process; got several; sweep layers in one process, "
            "or run configs/hessian.py for each"
        )
    with checkpoints.locked(workdir):
        # Rendering needs most memory in the last layer.
        microbatch = budget.microbatch_of_images(config, problems[-1])
        calibrator = functools.cache(
            lambda: calibrating.make_calibrator(config, problems[0], microbatch)
        )
        records, idle = [], []
        for number, (one, problem) in enumerate(zip(single, problems, strict=True)):
            path = problem.layers[0].path
            say(f"layer {number + 1} of {len(layers)}: {path}")
            folder = checkpoints.make_folder(workdir / folder_name(path))
            try:
                directions = _find(one, folder, problem, z, calibrator)
            except NoEffectError:
                say(f"  left out: no image changes with {path}")
                idle.append(path)
                continue
            records.append(_record(config, folder, problem, directions, microbatch))
            # Written after every layer, so that the page is useful during a long run.
            layers_page.write_page(
                workdir / "layers.html",
                f"{generator.architecture} {generator.size_text}",
                records,
                _provenance(config, digest, len(z), idle),
            )
    if not records:
        raise InputError(
            f"config.layers: expected layers with which images change; got {', '.join(idle)}; "
            "choose others with --config.layers=NAME,NAME"
        )
    say_written(
        workdir,
        {"layers.html": "all layers on one page: open it in a browser"}
        | {
            f"{folder_name(layer.path)}/{hessian.DIRECTIONS}": f"directions of {layer.path}"
            for layer in layers
            if layer.path not in idle
        },
    )


def choose_layers(generator: Generator, words: str) -> tuple[EditableLayer, ...]:
    """Returns the layers for "all", "convolutions", or names separated by commas.

    Raises: InputError for a name that the generator does not know.
    """
    if words == "all":
        return generator.layers
    if words == "convolutions":
        return tuple(layer for layer in generator.layers if len(layer.shape) == 4)
    return generator.find_layers([name.strip() for name in words.split(",")])


def folder_name(path: str) -> str:
    """Returns the name of a layer's folder.

    >>> folder_name("synthesis/b8/conv0/kernel")
    'synthesis.b8.conv0'
    """
    return path.removesuffix("/kernel").replace("/", ".")


def _config_of(config: Config, layer: EditableLayer) -> Config:
    """Returns the config of the task `hessian` that finds the directions of one layer."""
    kept = {key: value for key, value in config.to_dict().items() if key not in ("layers", "page")}
    return config_lib.freeze(Config({**kept, "task": "hessian", "layer": layer.path}))


def _find(
    config: Config,
    folder: pathlib.Path,
    problem: Problem,
    z: np.ndarray,
    calibrator: Callable[[], Calibrator],
) -> Directions:
    """Returns the calibrated directions of a layer, found and measured once."""
    directions = hessian.find(config, folder, problem, z)
    path = folder / hessian.DIRECTIONS
    directions = calibrating.calibrate_once(config, problem, directions, calibrator, path)
    checkpoints.remove_state(folder / hessian.STATE)
    return directions


def _record(
    config: Config,
    folder: pathlib.Path,
    problem: Problem,
    directions: Directions,
    microbatch: int,
) -> LayerRecord:
    """Returns the page's record of a layer, with the names from its notes."""
    noted = notes.read_notes(
        folder / hessian.DIRECTIONS,
        digest=directions_lib.digest(directions),
        count=len(directions),
    )
    generator, layer = problem.generator, problem.layers[0]
    shown = min(config.page.directions, len(directions))
    ends = showing.find_ends(directions, range(len(directions)), raw_shift=0.0)
    edits = [edit.on_device(directions.edit(index)) for index in range(shown)]
    key = jax.random.fold_in(jax.random.key(config.seed), 4)
    changes = locality.change_maps(
        generator,
        problem.params,
        problem.layers,
        np.asarray(generator.sample_latents(key, config.page.map_latents)),
        edits,
        showing.spread_all(ends[:shown], config.page.map_steps),
        microbatch=microbatch,
    )
    frames = edit.render_shifts(
        generator,
        problem.params,
        problem.layers,
        generator.sample_latents(jax.random.key(config.show.seed), config.page.samples),
        edits,
        showing.spread_all(ends[:shown], 3),
        microbatch=microbatch,
    )
    norm = float(np.linalg.norm(np.asarray(params_lib.get(problem.params, layer.path))))
    return LayerRecord(
        path=layer.path,
        original_name=layer.original_name,
        resolution=layer.resolution,
        weights=math.prod(layer.shape),
        eigenvalues=directions.measures["eigenvalue"],
        share=float(np.median(ends)) / norm,
        half_areas=np.array([locality.half_area(change) for change in changes]),
        ends=ends[:shown],
        frames=frames,
        changes=changes,
        names=[noted.get(index).name or f"direction {index}" for index in range(shown)],
    )


def _provenance(config: Config, digest: str, latents: int, idle: Sequence[str]) -> dict[str, str]:
    without = {"layers without effect": ", ".join(idle)} if idle else {}
    return without | {
        "metric": config.metric.name,
        "latents": str(latents),
        "directions": str(config.directions),
        "seed": str(config.seed),
        "weights": digest,
    }
