"""TASKS = {name: function(config, workdir)}: unpacks configs, wires the rest, writes files.

Configs end here: below, functions take plain arguments. A task is resumed by running it again:
what is finished is read back, what was interrupted goes on from its last saved state.
"""

import dataclasses
import hashlib
import pathlib
import time
import zipfile
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
from navigan_jax.progress import Progress, open_metrics
from navigan_jax.showcase import animation, gallery, grid, plots
from navigan_jax.showcase.base import DirectionRecord, Showcase, spread_shifts
from navigan_jax.subspaces import hessian, products, reduction

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

# Keys that change how a run goes or what is drawn of it, but not which directions it finds.
_FREE_KEYS = ("cache_gib", "save_minutes", "distributed", "show.")

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


def run_hessian(config: Config, workdir: pathlib.Path) -> None:
    """Finds the leading directions of a layer and shows them.

    Writes config.json, directions.safetensors, spectrum.png, gallery.png, gallery.html,
    animation.gif and metrics.jsonl to the workdir.
    """
    config_lib.validate(config, HESSIAN_KEYS)
    _check_hessian_values(config)
    generator, params = read_generator(config.generator)
    layers = generator.find_layers([name.strip() for name in config.layer.split(",")])
    metric = _make_metric(config)
    _check_metric(generator, metric)
    z = _draw_latents(config, generator)
    digest = params_lib.digest(params)
    _claim(workdir, config, digest)

    path = workdir / "directions.safetensors"
    if path.exists():
        directions = read_directions(path, digest=digest)
        _say(f"{path}: found, {len(directions)} directions")
    else:
        directions = _find_directions(
            config, workdir, generator, params, layers, metric, z, digest=digest
        )
    if devices.is_main_process():
        scaled = _calibrate(config, generator, params, layers, metric, directions)
        write_directions(path, scaled)
        _show(config, workdir, generator, params, layers, scaled)
        checkpoints.remove_state(workdir / "state")


def _check_hessian_values(config: Config) -> None:
    for key in _POSITIVE:
        if not _value(config, key) > 0:
            raise InputError(
                f"config.{key}: expected a number above 0; got {_value(config, key)}; "
                f"set it with --config.{key}=N"
            )
    for key, allowed in (
        ("metric.name", tuple(METRICS)),
        ("metric.resize", RESIZE_METHODS),
        ("solver.name", ("lanczos", "power")),
        ("solver.product", ("gauss_newton", "exact")),
    ):
        if _value(config, key) not in allowed:
            raise InputError(
                f"config.{key}: got {_value(config, key)!r}; allowed: {', '.join(allowed)}"
            )
    if config.show.steps % 2 == 0:
        raise InputError(
            f"config.show.steps: expected an odd number, the original is in the middle; got "
            f"{config.show.steps}"
        )


def _value(config: Config, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


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
        raise InputError(f"config.metric.weights: {name} takes no weights; leave the key out")
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
    path = config.latents.path
    if path is None:
        key = jax.random.fold_in(jax.random.key(config.seed), 0)
        return np.asarray(generator.sample_latents(key, config.latents.count))
    try:
        with np.load(path, allow_pickle=False) as file:
            z = np.asarray(file["z"], np.float32)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: expected an .npz file with a numeric array z [count, {generator.z_dim}]; "
            f"got {error}; write one with numpy.savez(FILE, z=z)"
        ) from error
    z = z.reshape(len(z), -1) if z.ndim > 1 else z
    if z.ndim != 2 or z.shape[1] != generator.z_dim or not len(z):
        raise InputError(
            f"{path}: expected z of shape [count, {generator.z_dim}]; got {list(z.shape)}"
        )
    if not np.isfinite(z).all():
        raise InputError(f"{path}: expected finite z; got NaN or infinity; draw them anew")
    return z[: config.latents.count]


def _claim(workdir: pathlib.Path, config: Config, digest: str) -> None:
    """Saves the config in the workdir, or checks that the one there makes the same directions."""
    path = workdir / "config.json"
    lock = workdir / "weights.sha256"
    if path.exists():
        changed = [
            line
            for line in config_lib.differences(config_lib.from_text(path.read_text()), config)
            if not line.startswith(_FREE_KEYS)
        ]
        if lock.exists() and lock.read_text().strip() != digest:
            changed.append(f"weights: {lock.read_text().strip()[:16]}… -> {digest[:16]}…")
        if changed:
            raise InputError(
                f"{workdir}: holds a run of another config:\n  "
                + "\n  ".join(changed)
                + "\nchoose another --workdir, or remove this one"
            )
    if devices.is_main_process():
        checkpoints.write_text(lock, digest + "\n")
        checkpoints.write_text(path, config_lib.to_text(config))


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
    cache = int(config.cache_gib * 2**30)
    began = time.perf_counter()
    objective = products.make_objective(
        generator, params, metric, z, layers, microbatch=config.microbatch, cache_bytes=cache
    )
    spectrum_lib.require_count(config.directions, objective)
    names = spectrum_lib.describe_layers(layers)
    _say(
        f"{generator.architecture} {generator.resolution} px, {names}: {objective.entries} "
        f"weights; {len(z)} latents; {config.metric.name}; {devices.describe()}"
    )
    reduced = reduction.Reduction(objective, None)
    if config.solver.name != "power":  # the paper's iterates are those of the whole layer
        reduced = reduction.reduce_inputs(objective)
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    saver = _StateSaver(workdir / "state", config, digest)
    solve = {"lanczos": _solve_lanczos, "power": _solve_power}[config.solver.name]
    spectrum = solve(config, workdir, reduced.objective, params, key, saver, cache)
    spectrum_lib.require_usable(spectrum, objective)
    seconds = time.perf_counter() - began
    worst = np.max(spectrum.residuals)
    _say(
        f"{len(spectrum.eigenvalues)} pairs, {spectrum.products} products, {seconds:.1f} s, "
        f"largest residual {worst:.2g}"
        + ("" if spectrum.converged else f", above the tolerance {config.solver.tolerance:g}")
    )
    if spectrum.lost_step is not None and spectrum.lost_step > 0.5:
        _say(
            f"warning: in some iterations the step left {spectrum.lost_step:.0%} of the weights as "
            "they were, in float32; such products are mostly rounding. Raise config.solver.epsilon "
            "or use config.solver.name=lanczos"
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
        write_directions(workdir / "directions.safetensors", directions)
    return directions


class _StateSaver:
    """Saves a solver's state every so many minutes, and when the run is interrupted."""

    def __init__(self, path: pathlib.Path, config: Config, digest: str) -> None:
        self._path = path
        self._seconds = 60 * config.save_minutes
        # The directions depend on nothing else; two processes read the same text.
        text = digest + config_lib.to_text(config)
        kept = [line for line in text.splitlines() if "minutes" not in line and "gib" not in line]
        fingerprint = hashlib.sha256("\n".join(kept).encode()).digest()
        self._fingerprint = np.frombuffer(fingerprint, np.uint8)
        self._last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """Returns the arrays that `save` got, or None."""
        stored = checkpoints.read_state(self._path)
        if stored is None or not np.array_equal(stored["fingerprint"], self._fingerprint):
            return None
        return stored["solver"]

    def save(self, arrays: dict[str, Any], *, now: bool = False) -> None:
        """Saves if it is time, or `now`."""
        if now or time.monotonic() - self._last >= self._seconds:
            if devices.is_main_process():
                state = {"fingerprint": self._fingerprint, "solver": arrays}
                checkpoints.write_state(self._path, state)
            self._last = time.monotonic()


def _solve_lanczos(
    config: Config,
    workdir: pathlib.Path,
    objective: products.Objective,
    params: Params,
    key: jax.Array,
    saver: _StateSaver,
    cache: int,
) -> hessian.Spectrum:
    del params
    settings = config.solver
    needed = linalg.smallest_max_vectors(config.directions, settings.block_size)
    max_vectors = settings.max_vectors or spectrum_lib.default_max_vectors(
        config.directions, settings.block_size
    )
    if max_vectors < needed:
        raise InputError(
            f"config.solver.max_vectors: expected {needed} or more for {config.directions} "
            f"directions in blocks of {settings.block_size}; got {max_vectors}; 0 chooses"
        )
    if settings.product == "exact":
        product = products.exact(objective)
    else:
        product = products.gauss_newton(objective, cache_bytes=cache)
    stored = saver.load()
    state = None if stored is None else _krylov_state(stored)
    began = time.perf_counter()
    first_block = linalg.start_lanczos(key, objective.entries, settings.block_size, jnp.float32)
    jax.block_until_ready(product(first_block.candidate))
    _say(f"compiled in {time.perf_counter() - began:.1f} s")
    done = 0 if state is None else _count_found(config, state)
    first = 0 if state is None else state.products
    latest = state
    with (
        open_metrics(workdir, first_step=first, is_main=devices.is_main_process()) as metrics,
        Progress(
            "eigenpairs",
            config.directions,
            unit="pairs",
            is_main=devices.is_main_process(),
            done=done,
        ) as progress,
    ):

        def on_step(state: linalg.KrylovState) -> None:
            nonlocal done, latest
            latest = state
            values, _, residuals = state.ritz()
            relative = hessian.relative_residuals(values, residuals)[: config.directions]
            found = _count_found(config, state)
            worst = float(relative.max()) if len(relative) == config.directions else np.inf
            progress.advance(found - done, residual=worst, products=state.products)
            done = found
            metrics.write(
                state.products,
                {"found": found, "largest_residual": worst, "largest_eigenvalue": values[0]},
            )
            saver.save(_krylov_arrays(state))

        try:
            return hessian.lanczos_spectrum(
                key,
                product,
                objective.entries,
                count=config.directions,
                tolerance=settings.tolerance,
                block_size=settings.block_size,
                max_vectors=max_vectors,
                max_products=settings.max_products,
                state=state,
                on_step=on_step,
            )
        except KeyboardInterrupt:
            if latest is not None:
                saver.save(_krylov_arrays(latest), now=True)
            raise


def _count_found(config: Config, state: linalg.KrylovState) -> int:
    found = hessian.converged_pairs(state, config.directions, config.solver.tolerance)
    return int(np.argmin(found)) if not found.all() else len(found)


def _krylov_arrays(state: linalg.KrylovState) -> dict[str, Any]:
    return {
        "basis": {f"{i:04}": np.asarray(block) for i, block in enumerate(state.basis)},
        "projected": state.projected,
        "candidate": np.asarray(state.candidate),
        "coupling": state.coupling,
        "counts": np.array([state.products, state.restarts]),
    }


def _krylov_state(arrays: dict[str, Any]) -> linalg.KrylovState:
    names = sorted(arrays["basis"])
    return linalg.KrylovState(
        basis=tuple(jnp.asarray(arrays["basis"][name]) for name in names),
        projected=np.asarray(arrays["projected"]),
        candidate=jnp.asarray(arrays["candidate"]),
        coupling=np.asarray(arrays["coupling"]),
        products=int(arrays["counts"][0]),
        restarts=int(arrays["counts"][1]),
    )


def _solve_power(
    config: Config,
    workdir: pathlib.Path,
    objective: products.Objective,
    params: Params,
    key: jax.Array,
    saver: _StateSaver,
    cache: int,
) -> hessian.Spectrum:
    settings = config.solver
    difference = products.central_difference(objective, epsilon=settings.epsilon)
    weights = jnp.asarray(
        products.join(
            objective.layers,
            {layer.path: params_lib.get(params, layer.path) for layer in objective.layers},
        )
    )
    stored = saver.load()
    state = hessian.PowerState((), None, 0) if stored is None else _power_state(stored)
    total = config.directions * settings.iterations
    done = len(state.found) * settings.iterations + state.number
    with (
        open_metrics(workdir, first_step=done, is_main=devices.is_main_process()) as metrics,
        Progress(
            "power iterations",
            total,
            unit="products",
            is_main=devices.is_main_process(),
            done=done,
        ) as progress,
    ):
        try:
            for step in hessian.power_steps(
                key,
                lambda vector: difference(vector[None])[0],
                weights,
                count=config.directions,
                iterations=settings.iterations,
                epsilon=settings.epsilon,
                state=state,
            ):
                state = step
                iterate = state.iterate if state.iterate is not None else state.found[-1]
                norm = float(jnp.linalg.norm(iterate))
                progress.advance(1, found=len(state.found), eigenvalue=norm)
                done += 1
                metrics.write(done - 1, {"eigenvalue": norm, "lost_step": state.lost_step})
                saver.save(_power_arrays(state))
                if not np.isfinite(norm) or norm == 0:
                    value = np.full(config.directions, np.nan if norm else 0.0)
                    return hessian.Spectrum(iterate[None], value, value, done, False)
        except KeyboardInterrupt:
            saver.save(_power_arrays(state), now=True)
            raise
    return hessian.power_spectrum(
        products.gauss_newton(objective, cache_bytes=cache),
        state,
        iterations=settings.iterations,
        tolerance=settings.tolerance,
    )


def _power_arrays(state: hessian.PowerState) -> dict[str, Any]:
    vectors = [*state.found, *([] if state.iterate is None else [state.iterate])]
    return {
        "vectors": {f"{i:04}": np.asarray(vector) for i, vector in enumerate(vectors)},
        "counts": np.array([len(state.found), state.number]),
        "lost_step": np.array(state.lost_step),
    }


def _power_state(arrays: dict[str, Any]) -> hessian.PowerState:
    vectors = [jnp.asarray(arrays["vectors"][name]) for name in sorted(arrays["vectors"])]
    count, number = (int(value) for value in arrays["counts"])
    return hessian.PowerState(
        found=tuple(vectors[:count]),
        iterate=vectors[count] if len(vectors) > count else None,
        number=number,
        lost_step=float(arrays["lost_step"]),
    )


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
    images = jax.jit(
        lambda params, z: generator.synthesize(params, generator.map_latent(params, z))
    )
    first, second = jnp.split(images(params, z), 2)
    between = float(jnp.mean(distance(metric, first, second)))
    if not between > 0:
        raise InputError("generator: all its images are alike; check the weights")
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
            for side, sign in enumerate((-1.0, 1.0)):
                found = calibration.find_scale(
                    _along(measure, directions.edit(index), sign),
                    target=target,
                    first=float(np.sqrt(2 * target / eigenvalue)),
                    largest=10 * weight_norm,
                )
                scales[index, side], distances[index, side] = found.shift, found.distance
            progress.advance(1, scale=scales[index].max())
    return dataclasses.replace(directions, shift_scales=scales, distances=distances)


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
        "layer": ", ".join(layer.path for layer in layers),
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
        ("directions.safetensors", "the directions"),
        ("spectrum.png", "eigenvalues"),
        ("gallery.png", "all directions in one picture"),
        ("gallery.html", "the same with sliders: open it in a browser"),
        ("animation.gif", f"the first {len(moving.directions)} directions moving"),
    ):
        _say(f"  {workdir / name}  {what}")


TASKS: dict[str, Callable[[Config, pathlib.Path], None]] = {"hessian": run_hessian}
