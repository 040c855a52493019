"""TASKS = {name: function(config, workdir)}: unpacks configs, wires the rest, writes files.

Configs end here: below, functions take plain arguments. A task is resumed by running it again:
what is finished is read back, what was interrupted goes on from its last saved state.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import pathlib
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import checkpoints, devices, linalg
from navigan_jax import config as config_lib
from navigan_jax import params as params_lib
from navigan_jax import spectrum as spectrum_lib
from navigan_jax.array_types import Params
from navigan_jax.config import Config
from navigan_jax.directions import Directions, read_directions, write_directions
from navigan_jax.editing import calibration, edit
from navigan_jax.errors import InputError
from navigan_jax.generators.base import EditableLayer, Generator
from navigan_jax.generators.files import read_generator
from navigan_jax.perceptual import METRICS
from navigan_jax.perceptual.base import RESIZE_METHODS, AtSize, Distance, distance
from navigan_jax.perceptual.files import read_perceptual
from navigan_jax.progress import Progress
from navigan_jax.showcase import animation, gallery, grid, plots
from navigan_jax.showcase.base import DirectionRecord, Showcase, spread_shifts
from navigan_jax.subspaces import hessian, products, reduction, runs

_DIRECTIONS = "directions.safetensors"
_STATE = "state.safetensors"

HESSIAN_KEYS: config_lib.Keys = {
    "task": str,
    "seed": int,
    "distributed": bool,
    "generator": str,
    "layer": str,
    "directions": int,
    "latents.count": int,
    "latents.path": str | None,
    "metric.name": str,
    "metric.weights": str | None,
    "metric.size": int,
    "metric.resize": str,
    "solver.name": str,
    "solver.product": str,
    "solver.tolerance": float,
    "solver.block_size": int,
    "solver.max_vectors": int,
    "solver.max_products": int,
    "solver.iterations": int,
    "solver.epsilon": float,
    "microbatch": int,
    "cache_gib": float,
    "save_minutes": float,
    "show.seed": int,
    "show.samples": int,
    "show.steps": int,
    "show.change": float,
    "show.calibration_latents": int,
    "show.animated": int,
}

# Keys that change how a run goes or what is drawn of it, but not which directions it finds. What
# the paths lead to is compared by its content.
_FREE_KEYS = (
    "generator",
    "latents.path",
    "metric.weights",
    "microbatch",
    "cache_gib",
    "save_minutes",
    "distributed",
    "show.",
)

# What reading an .npz file raises if it is none, damaged, or lacks the array.
_NO_NPZ = (
    OSError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    MemoryError,
    OverflowError,
    RuntimeError,  # encrypted, or packed in a way that zipfile does not know
    zipfile.BadZipFile,
    zlib.error,
)

_POSITIVE = (
    "directions",
    "latents.count",
    "solver.tolerance",
    "solver.block_size",
    "solver.max_products",
    "solver.iterations",
    "solver.epsilon",
    "microbatch",
    "show.samples",
    "show.steps",
    "show.change",
    "show.calibration_latents",
    "show.animated",
)
_NOT_NEGATIVE = (
    "seed",
    "metric.size",
    "solver.max_vectors",
    "cache_gib",
    "save_minutes",
    "show.seed",
)
# Beyond these no run is meant: seeds have 32 bits, and arrays that large end the process.
_AT_MOST = {
    "seed": 2**32 - 1,
    "show.seed": 2**32 - 1,
    "latents.count": 10**7,
    "metric.size": 4096,
    "show.samples": 1000,
    "show.steps": 1001,
    "show.calibration_latents": 10**5,
    "solver.block_size": 512,
}


def run_hessian(config: Config, workdir: pathlib.Path) -> None:
    """Finds the leading directions of a layer and shows them.

    Writes config.json, inputs.json, directions.safetensors, spectrum.png, gallery.png,
    gallery.html, animation.gif, metrics.jsonl and files for TensorBoard to the workdir.
    """
    config_lib.validate(config, HESSIAN_KEYS)
    _check_hessian_values(config)
    generator, params = read_generator(config.generator)
    layers = generator.find_layers([name.strip() for name in config.layer.split(",")])
    spectrum_lib.require_count(config.directions, layers)
    _check_memory_allowed(config, layers)
    metric = _make_metric(config)
    _check_metric(generator, metric)
    z = _draw_latents(config, generator)
    digest = params_lib.digest(params)
    inputs = _digest_inputs(config, digest, z)
    with contextlib.ExitStack() as held:
        if devices.is_main_process():
            held.enter_context(checkpoints.locked(workdir))
        _run_claimed(config, workdir, generator, params, layers, metric, z, inputs)


def _run_claimed(
    config: Config,
    workdir: pathlib.Path,
    generator: Generator,
    params: Params,
    layers: Sequence[EditableLayer],
    metric: Distance,
    z: np.ndarray,
    inputs: dict[str, str],
) -> None:
    """Finds, calibrates and shows, in a workdir that no other run uses."""
    _claim(workdir, config, inputs)
    digest = inputs["generator"]
    path = workdir / _DIRECTIONS
    if path.exists():
        directions = read_directions(path, digest=digest)
        _check_found(path, directions, config, layers)
        _say(f"{path}: found, {len(directions)} directions")
    else:
        directions = _find_directions(
            config, workdir, generator, params, layers, metric, z, digest=digest
        )
    if devices.is_main_process():
        scaled = _calibrate(config, generator, params, layers, metric, directions)
        if not _is_same(scaled, directions):
            write_directions(path, scaled)
        _show(config, workdir, generator, params, layers, scaled)
        checkpoints.remove_state(workdir / _STATE)
    devices.wait_for_all("finished")  # a process that leaves takes the others with it


def _check_found(
    path: pathlib.Path,
    directions: Directions,
    config: Config,
    layers: Sequence[EditableLayer],
) -> None:
    """Checks that a file of this workdir holds what the config asks for."""
    wanted = {layer.path: (config.directions, *layer.shape) for layer in layers}
    got = {layer: tuple(rows.shape) for layer, rows in directions.basis.items()}
    if got != wanted:
        raise InputError(
            f"{path}: expected directions of shapes {wanted}; got {got}; the file was changed: "
            "remove it to find them anew"
        )


def _check_hessian_values(config: Config) -> None:
    for key in _POSITIVE:
        if not _value(config, key) > 0:
            raise _wrong_number(config, key, "a number above 0")
    for key in _NOT_NEGATIVE:
        if not _value(config, key) >= 0:
            raise _wrong_number(config, key, "0 or a number above it")
    for key, allowed in (
        ("metric.name", tuple(METRICS)),
        ("metric.resize", RESIZE_METHODS),
        ("solver.name", ("lanczos", "power")),
        ("solver.product", ("gauss_newton", "exact")),
    ):
        if _value(config, key) not in allowed:
            raise InputError(
                f"config.{key}: expected one of the names allowed; got {_value(config, key)!r}; "
                f"allowed: {', '.join(allowed)}; set it with --config.{key}={allowed[0]}"
            )
    for key, most in _AT_MOST.items():
        if _value(config, key) > most:
            raise _wrong_number(config, key, f"a number of at most {most}")
    least = config.directions + config.solver.block_size
    if config.solver.name == "lanczos" and config.solver.max_products < least:
        raise _wrong_number(config, "solver.max_products", f"{least} or more for the directions")
    if config.show.steps % 2 == 0 or config.show.steps < 3:
        raise _wrong_number(
            config, "show.steps", "an odd number from 3, as the original is in the middle"
        )


def _wrong_number(config: Config, key: str, expected: str) -> InputError:
    return InputError(
        f"config.{key}: expected {expected}; got {_value(config, key)}; "
        f"set it with --config.{key}=N"
    )


def _value(config: Config, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


def _check_memory_allowed(config: Config, layers: Sequence[EditableLayer]) -> None:
    """Checks that the solver can find that many directions with the vectors it may hold."""
    entries = sum(math.prod(layer.shape) for layer in layers)
    needed = linalg.smallest_max_vectors(config.directions, config.solver.block_size)
    if 0 < config.solver.max_vectors < min(needed, entries):
        raise InputError(
            f"config.solver.max_vectors: expected {needed} or more for {config.directions} "
            f"directions in blocks of {config.solver.block_size}, or 0 to have it chosen; got "
            f"{config.solver.max_vectors}; set it with --config.solver.max_vectors=N"
        )


def _make_metric(config: Config) -> Distance:
    name, weights = config.metric.name, config.metric.weights
    if name == "lpips":
        if weights is None:
            raise InputError(
                "config.metric.weights: expected the weights of lpips; got nothing; make them "
                "with: python -m tools.convert_weights lpips --net vgg --out lpips.safetensors"
            )
        metric = read_perceptual(weights)
    elif weights is not None:
        raise InputError(
            f"config.metric.weights: expected nothing, as {name} takes none; got {weights!r}; "
            "leave the key out, or set --config.metric.name=lpips"
        )
    else:
        metric = METRICS[name]()
    if config.metric.size:
        return AtSize(metric, config.metric.size, config.metric.resize)
    return metric


def _check_metric(generator: Generator, metric: Distance) -> None:
    """Raises the metric's own InputError if images of this generator do not suit it."""
    shape = (1, generator.resolution, generator.resolution, generator.image_channels)
    jax.eval_shape(metric.features, jax.ShapeDtypeStruct(shape, jnp.float32))


def _draw_latents(config: Config, generator: Generator) -> np.ndarray:
    """Returns the z of the run, from the file or from the seed."""
    path, width = config.latents.path, generator.z_dim + generator.label_dim
    if path is None:
        key = jax.random.fold_in(jax.random.key(config.seed), 0)
        return np.asarray(generator.sample_latents(key, config.latents.count))
    try:
        if not pathlib.Path(path).is_file():
            raise FileNotFoundError("no such file")
        with open(path, "rb") as file:
            z = np.load(file, allow_pickle=False)["z"]
        if z.dtype.kind not in "fiu":
            raise TypeError(f"numbers of type {z.dtype}")
        with np.errstate(over="ignore"):
            z = z.astype(np.float32)
    except _NO_NPZ as error:
        raise InputError(
            f"{path}: expected an .npz file with a numeric array z [count, {width}]; "
            f"got {error}; write one with numpy.savez(FILE, z=z)"
        ) from error
    if z.ndim == 4 and z.shape[2:] == (1, 1):  # as some write them for convolutions
        z = z[:, :, 0, 0]
    if z.ndim != 2 or z.shape[1] != width or not len(z):
        raise InputError(
            f"{path}: expected z of shape [count, {width}]; got {list(z.shape)}; give "
            "latents of this generator"
        )
    if not np.isfinite(z).all():
        raise InputError(f"{path}: expected finite z; got NaN or infinity; draw them anew")
    return z[: config.latents.count]


def _digest_inputs(config: Config, digest: str, z: np.ndarray) -> dict[str, str]:
    """Returns the SHA-256 of what the config only names."""
    inputs = {"generator": digest, "latents": params_lib.digest({"z": z})}
    if config.metric.weights is not None:
        with open(config.metric.weights, "rb") as file:
            inputs["metric"] = hashlib.file_digest(file, "sha256").hexdigest()
    return inputs


def _claim(workdir: pathlib.Path, config: Config, inputs: dict[str, str]) -> None:
    """Saves config and inputs in the workdir; checks that results there are of the same ones."""
    config_path, inputs_path = workdir / "config.json", workdir / "inputs.json"
    if (workdir / _DIRECTIONS).exists() or (workdir / _STATE).exists():
        if not config_path.exists() or not inputs_path.exists():
            raise InputError(
                f"{workdir}: expected config.json and inputs.json beside the results there; got "
                "none; choose another --workdir, or remove this one"
            )
        old_config = config_lib.from_text(checkpoints.read_text(config_path))
        old_inputs = config_lib.from_text(checkpoints.read_text(inputs_path)).to_dict()
        changed = [
            line
            for line in config_lib.differences(old_config, config)
            if not line.startswith(_FREE_KEYS)
        ]
        changed += [
            f"{name}: other content, {str(old_inputs.get(name))[:16]} -> {inputs[name][:16]}"
            for name in inputs
            if old_inputs.get(name) != inputs[name]
        ]
        if changed:
            raise InputError(
                f"{workdir}: expected a workdir of this config; got one with results of another:\n"
                + "".join(f"  {line}\n" for line in changed)
                + "choose another --workdir, or remove this one"
            )
    if devices.is_main_process():
        checkpoints.write_text(inputs_path, json.dumps(inputs, indent=2) + "\n")
        checkpoints.write_text(config_path, config_lib.to_text(config))
    devices.wait_for_all("claimed")
    if not config_path.exists():
        raise InputError(
            f"{workdir}: expected a folder that all processes share; got one that this process has "
            "for itself; choose another --workdir"
        )


def _say(text: str) -> None:
    if devices.is_main_process():
        print(text, flush=True)


def _find_directions(
    config: Config,
    workdir: pathlib.Path,
    generator: Generator,
    params: Params,
    layers: Sequence[EditableLayer],
    metric: Distance,
    z: np.ndarray,
    *,
    digest: str,
) -> Directions:
    """Runs the solver and writes what it found, without shift scales yet."""
    began = time.perf_counter()
    objective = products.make_objective(
        generator,
        params,
        metric,
        z,
        layers,
        microbatch=config.microbatch,
        cache_bytes=_cache_bytes(config),
    )
    names = spectrum_lib.describe_layers(layers)
    _say(
        f"{generator.architecture} {generator.resolution} px, {names}: {objective.entries} "
        f"weights; {len(z)} latents; {config.metric.name}; {devices.describe()}"
    )
    reduced = reduction.Reduction(objective, None)
    if config.solver.name != "power":  # the paper's iterates are those of the whole layer
        reduced = reduction.reduce_inputs(objective, at_least=config.directions)
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    if config.solver.name == "power":
        spectrum = _solve_by_power_iteration(config, workdir, objective, params, key)
    else:
        spectrum = _solve_by_lanczos(config, workdir, reduced, key)
    if spectrum.lost_step is not None and spectrum.lost_step > 0.5:
        _say(
            f"warning: in some iterations the step left {spectrum.lost_step:.0%} of the weights as "
            "they were, in float32; such products are mostly rounding. Raise config.solver.epsilon "
            "or use config.solver.name=lanczos"
        )
    try:
        spectrum_lib.require_usable(spectrum, objective)
    except InputError:
        if devices.is_main_process():
            checkpoints.remove_state(workdir / _STATE)  # nobody will go on from it
        raise
    seconds = time.perf_counter() - began
    worst = np.max(spectrum.residuals)
    _say(
        f"{len(spectrum.eigenvalues)} pairs, {spectrum.products} products, {seconds:.1f} s, "
        f"largest residual {worst:.2g}"
        + ("" if spectrum.converged else f", above the tolerance {config.solver.tolerance:g}")
    )
    provenance = {
        "architecture": generator.architecture,
        "digest": digest,
        "method": f"hessian, {config.solver.name}",
        "metric": config.metric.name,
        "seed": str(config.seed),
        "latents": str(len(z)),
        "products": str(spectrum.products),
        "config": config_lib.to_text(config),
    }
    directions = spectrum_lib.as_directions(spectrum, layers, reduced, provenance)
    if devices.is_main_process():
        write_directions(workdir / _DIRECTIONS, directions)
    return directions


def _solve_by_lanczos(
    config: Config, workdir: pathlib.Path, reduced: reduction.Reduction, key: jax.Array
) -> hessian.Spectrum:
    settings, count, objective = config.solver, config.directions, reduced.objective
    if settings.product == "exact":
        product = products.exact(objective)
    else:
        product = products.gauss_newton(objective, cache_bytes=_cache_bytes(config))
    began = time.perf_counter()
    first_block = linalg.start_lanczos(key, objective.entries, settings.block_size, jnp.float32)
    jax.block_until_ready(product(first_block.candidate))
    _say(f"compiled in {time.perf_counter() - began:.1f} s")

    def measure(state: linalg.KrylovState) -> tuple[int, dict[str, float]]:
        found = hessian.converged_pairs(state, count, settings.tolerance)
        in_order = len(found) if found.all() else int(np.argmin(found))
        values, _, residuals = state.ritz()
        relative = hessian.relative_residuals(values, residuals, jnp.float32)[:count]
        numbers = {"found": in_order, "eigenvalue": values[0]}
        if len(relative) == count:
            numbers["residual"] = float(np.max(relative))  # the largest of the wanted pairs
        return in_order, numbers

    # A state is of use only in the coordinates that it was made in.
    basis = {} if reduced.basis is None else {"basis": reduced.basis}
    problem = params_lib.digest({"entries": np.array(objective.entries), **basis})
    state = runs.load_state(workdir / _STATE, linalg.KrylovState, problem)
    if state is not None:
        _say(f"resumed after {state.products} products")
    with runs.watch(
        workdir,
        state,
        label="eigenpairs",
        unit="pairs",
        total=count,
        measure=measure,
        save_to=workdir / _STATE,
        problem=problem,
        save_minutes=config.save_minutes,
    ) as on_state:
        return hessian.lanczos_spectrum(
            key,
            product,
            objective.entries,
            count=count,
            tolerance=settings.tolerance,
            block_size=settings.block_size,
            max_vectors=settings.max_vectors
            or spectrum_lib.default_max_vectors(count, settings.block_size),
            max_products=settings.max_products,
            state=state,
            on_step=on_state,
        )


def _solve_by_power_iteration(
    config: Config,
    workdir: pathlib.Path,
    objective: products.Objective,
    params: Params,
    key: jax.Array,
) -> hessian.Spectrum:
    settings = config.solver
    difference = products.central_difference(objective, epsilon=settings.epsilon)
    weights = {layer.path: params_lib.get(params, layer.path) for layer in objective.layers}

    def measure(state: hessian.PowerState) -> tuple[int, dict[str, float]]:
        vector = state.found[-1] if state.iterate is None else state.iterate
        norm = float(jnp.linalg.norm(vector))
        return state.products, {
            "found": len(state.found),
            "eigenvalue": norm,
            "lost_step": state.lost_step,
        }

    state = runs.load_state(workdir / _STATE, hessian.PowerState, "whole layers")
    state = hessian.PowerState() if state is None else state
    if state.products:
        _say(f"resumed after {state.products} products")
    with runs.watch(
        workdir,
        state if state.products else None,
        label="power iterations",
        unit="products",
        total=config.directions * settings.iterations,
        measure=measure,
        save_to=workdir / _STATE,
        problem="whole layers",
        save_minutes=config.save_minutes,
    ) as on_state:
        steps = hessian.power_steps(
            key,
            lambda vector: difference(vector[None])[0],
            jnp.asarray(products.join(objective.layers, weights)),
            count=config.directions,
            iterations=settings.iterations,
            epsilon=settings.epsilon,
            state=state,
        )
        for state in steps:
            on_state(state)
    product = products.gauss_newton(objective, cache_bytes=_cache_bytes(config))
    return hessian.power_spectrum(product, state, tolerance=settings.tolerance)


def _cache_bytes(config: Config) -> int:
    return int(config.cache_gib * 2**30)


def _calibrate(
    config: Config,
    generator: Generator,
    params: Params,
    layers: Sequence[EditableLayer],
    metric: Distance,
    directions: Directions,
) -> Directions:
    """Returns the directions with the shifts at which images have changed by the wanted amount."""
    key = jax.random.fold_in(jax.random.key(config.seed), 2)
    z = generator.sample_latents(key, 2 * config.show.calibration_latents)

    @jax.jit
    def distance_between_images(params: Params, metric: Distance, z: jax.Array) -> jax.Array:
        images = generator.synthesize(params, generator.map_latent(params, z))
        return jnp.mean(distance(metric, *jnp.split(images, 2)))

    between = float(distance_between_images(params, metric, z))
    if not between > 0:
        raise InputError(
            f"{config.generator}: expected images that differ with the latent; got the same for "
            "all; check the weights"
        )
    target = config.show.change * between
    half = z[: config.show.calibration_latents]
    measure = edit.make_distance(generator, params, layers, metric, half)
    weight_norm = float(
        np.sqrt(sum(np.sum(np.square(params_lib.get(params, x.path))) for x in layers))
    )
    scales = np.zeros((len(directions), 2))
    distances = np.zeros((len(directions), 2))
    with Progress(
        "shift scales", len(directions), unit="directions", is_main=devices.is_main_process()
    ) as progress:
        for index in range(len(directions)):
            eigenvalue = max(float(directions.spectrum[index]), 1e-12)
            first = math.sqrt(2 * target / eigenvalue)
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


def _is_same(scaled: Directions, directions: Directions) -> bool:
    pairs = (scaled.shift_scales, directions.shift_scales), (scaled.distances, directions.distances)
    return all(np.array_equal(new, old) for new, old in pairs)


def _along(
    measure: Callable[[Any, float], float], direction: Any, sign: float
) -> Callable[[float], float]:
    return lambda shift: measure(direction, sign * shift)


def _show(
    config: Config,
    workdir: pathlib.Path,
    generator: Generator,
    params: Params,
    layers: Sequence[EditableLayer],
    directions: Directions,
) -> None:
    """Renders the directions and writes the pictures; ends by naming them."""
    key = jax.random.key(config.show.seed)
    z = generator.sample_latents(key, config.show.samples)
    # One scale for both sides keeps columns comparable: the smaller shift changes enough.
    scales = np.maximum(directions.shift_scales.min(axis=1), 1e-6)
    shifts = np.stack([spread_shifts(scale, config.show.steps) for scale in scales])
    edits = [directions.edit(index) for index in range(len(directions))]
    with Progress(
        "images", len(edits), unit="directions", is_main=devices.is_main_process()
    ) as progress:
        frames = edit.render_shifts(generator, params, layers, z, edits, shifts, progress.advance)
    provenance = {
        "layer": spectrum_lib.describe_layers(layers),
        "metric": directions.provenance["metric"],
        "latents": directions.provenance["latents"],
        "method": directions.provenance["method"],
        "seed": directions.provenance["seed"],
        "weights": directions.provenance["digest"],
    }
    records = tuple(
        DirectionRecord(
            index=index,
            name="",
            eigenvalue=float(directions.spectrum[index]),
            residual=float(directions.residuals[index]),
            shifts=tuple(float(shift) for shift in shifts[index]),
            distance=float(directions.distances[index].mean()),
        )
        for index in range(len(directions))
    )
    showcase = Showcase(frames, records, provenance)
    moving = Showcase(frames[: config.show.animated], records[: config.show.animated], provenance)
    plots.write_spectrum(
        workdir / "spectrum.png", directions.spectrum, directions.residuals, provenance
    )
    grid.write_grid(workdir / "gallery.png", showcase)
    gallery.write_gallery(workdir / "gallery.html", showcase)
    animation.write_animation(workdir / "animation.gif", moving)
    _say("wrote:")
    for name, what in (
        (_DIRECTIONS, "the directions"),
        ("spectrum.png", "eigenvalues"),
        ("gallery.png", "all directions in one picture"),
        ("gallery.html", "the same with sliders: open it in a browser"),
        ("animation.gif", f"the first {len(moving.directions)} directions moving"),
    ):
        _say(f"  {workdir / name}  {what}")


TASKS: dict[str, Callable[[Config, pathlib.Path], None]] = {"hessian": run_hessian}
