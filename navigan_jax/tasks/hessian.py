"""The task `hessian`: finds the leading directions of a layer and shows them."""

import contextlib
import math
import pathlib
import time

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
from navigan_jax.errors import InputError
from navigan_jax.subspaces import hessian, products, reduction, runs
from navigan_jax.tasks import budget, calibrating, inputs, showing, workdirs
from navigan_jax.tasks.inputs import Problem
from navigan_jax.tasks.settings import NOT_NEGATIVE, POSITIVE, Limits, Settings, wrong_number
from navigan_jax.tasks.workdirs import say

DIRECTIONS = "directions.safetensors"
STATE = "state.safetensors"

_SOLVER = Settings(
    {
        "directions": int,
        "solver.name": str,
        "solver.product": str,
        "solver.tolerance": float,
        "solver.block_size": int,
        "solver.max_vectors": int,
        "solver.max_products": int,
        "solver.iterations": int,
        "solver.epsilon": float,
        "save_minutes": float,
    },
    {
        "directions": POSITIVE,
        "solver.tolerance": POSITIVE,
        "solver.block_size": Limits(most=512, is_open=True),
        "solver.max_vectors": NOT_NEGATIVE,
        "solver.max_products": POSITIVE,
        "solver.iterations": POSITIVE,
        "solver.epsilon": POSITIVE,
        "save_minutes": NOT_NEGATIVE,
    },
    {"solver.name": ("lanczos", "power"), "solver.product": ("gauss_newton", "exact")},
)
SETTINGS = (
    inputs.COMMON
    | inputs.PROBLEM
    | inputs.LATENTS
    | inputs.SYNTHESIS
    | inputs.MIXING
    | inputs.BUDGET
    | _SOLVER
    | showing.SHOW
)

# Keys that may change between runs in one workdir: they affect the speed or the pictures, not the
# directions. Files are compared by content, not by path.
_FREE_KEYS = (
    "generator",
    "latents.path",
    "metric.weights",
    "microbatch",
    "cache_gib",
    "memory_gib",
    "save_minutes",
    "compilation_cache",
    "distributed",
    "show.",
)


def run(config: Config, workdir: pathlib.Path) -> None:
    """Finds the leading directions of a layer and shows them.

    Writes config.json, inputs.json, directions.safetensors, spectrum.png, gallery.png,
    gallery.html, animation.gif, metrics.jsonl and files for TensorBoard to the workdir.
    """
    SETTINGS.check(config)
    showing.check(config)
    problem = inputs.read_problem(config)
    check(config, problem)
    z = inputs.mix_latents(config, problem, inputs.draw_latents(config, problem.generator))
    with contextlib.ExitStack() as held:
        if devices.is_main_process():
            held.enter_context(checkpoints.locked(workdir))
        directions = find(config, workdir, problem, z)
        if devices.is_main_process():
            microbatch = budget.microbatch_of_images(config, problem)
            directions = calibrating.calibrate_once(
                config,
                problem,
                directions,
                lambda: calibrating.make_calibrator(config, problem, microbatch),
                workdir / DIRECTIONS,
            )
            showing.show(
                config, workdir, problem, directions, name=DIRECTIONS, microbatch=microbatch
            )
            checkpoints.remove_state(workdir / STATE)
        devices.wait_for_all("finished")  # a process that leaves takes the others with it


def check(config: Config, problem: Problem) -> None:
    """Checks solver and latents beyond `SETTINGS`. Raises: InputError."""
    inputs.require_different(config, problem.generator)
    least = config.directions + config.solver.block_size
    if config.solver.name == "lanczos" and config.solver.max_products < least:
        raise wrong_number(config, "solver.max_products", f"{least} or more for the directions")
    spectrum_lib.require_count(config.directions, problem.layers)
    _check_memory_allowed(config, problem)


def find(config: Config, workdir: pathlib.Path, problem: Problem, z: np.ndarray) -> Directions:
    """Returns the directions of a workdir: those found before, or else found now.

    Raises: InputError if the workdir holds results of another config.
    """
    workdirs.claim(
        workdir,
        inputs.fill_defaults(config),
        inputs.digest_inputs(config, problem, z),
        results=(DIRECTIONS, STATE),
        free_keys=_FREE_KEYS,
    )
    path = workdir / DIRECTIONS
    if path.exists():
        directions = read_directions(path, digest=problem.digest)
        _check_found(path, directions, config, problem)
        say(f"{path}: found, {len(directions)} directions")
        return directions
    return _find_directions(config, workdir, problem, z)


def _check_found(
    path: pathlib.Path, directions: Directions, config: Config, problem: Problem
) -> None:
    """Checks that the directions in this workdir have the shapes that the config asks for."""
    wanted = {layer.path: (config.directions, *layer.shape) for layer in problem.layers}
    got = {layer: tuple(rows.shape) for layer, rows in directions.basis.items()}
    if got != wanted:
        raise InputError(
            f"{path}: expected directions of shapes {wanted}; got {got}; the file was changed: "
            "remove it to find them anew"
        )


def _check_memory_allowed(config: Config, problem: Problem) -> None:
    """Checks that `solver.max_vectors` is enough for the directions. Raises: InputError."""
    entries = sum(math.prod(layer.shape) for layer in problem.layers)
    needed = linalg.smallest_max_vectors(config.directions, config.solver.block_size)
    if 0 < config.solver.max_vectors < min(needed, entries):
        raise InputError(
            f"config.solver.max_vectors: expected {needed} or more for {config.directions} "
            f"directions in blocks of {config.solver.block_size}, or 0 to have it chosen; got "
            f"{config.solver.max_vectors}; set it with --config.solver.max_vectors=N"
        )


def _find_directions(
    config: Config, workdir: pathlib.Path, problem: Problem, z: np.ndarray
) -> Directions:
    """Runs the solver and writes the directions, without shift scales yet."""
    began = time.perf_counter()
    microbatch = budget.microbatch_of_spectrum(config, problem, z)
    objective = products.make_objective(
        problem.generator,
        problem.params,
        problem.metric,
        z,
        problem.layers,
        microbatch=microbatch,
        cache_bytes=inputs.cache_bytes(config),
    )
    generator, layers = problem.generator, problem.layers
    names = spectrum_lib.describe_layers(layers)
    say(
        f"{generator.architecture} {generator.size_text}, {names}: {objective.entries} "
        f"weights; {len(z)} latents; {config.metric.name}; {devices.describe()}"
    )
    reduced = reduction.Reduction(objective, None)
    if config.solver.name != "power":  # the paper iterates on the whole layer
        reduced = reduction.reduce_inputs(objective, at_least=config.directions)
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    if config.solver.name == "power":
        spectrum = _solve_by_power_iteration(config, workdir, objective, problem.params, key)
    else:
        spectrum = _solve_by_lanczos(config, workdir, reduced, key)
    if spectrum.lost_step is not None and spectrum.lost_step > 0.5:
        say(
            f"warning: in some iterations {spectrum.lost_step:.0%} of the weights did not change, "
            "as the step is too small for float32; such products are mostly rounding. Raise "
            "config.solver.epsilon or use config.solver.name=lanczos"
        )
    try:
        spectrum_lib.require_usable(spectrum, objective)
    except InputError as error:
        if devices.is_main_process():
            checkpoints.remove_state(workdir / STATE)  # no run can resume from it
        if config.solver.name != "power":
            raise
        raise InputError(
            f"{error}; or change the step of the central differences, {config.solver.epsilon:g}, "
            "with --config.solver.epsilon=N"
        ) from error
    seconds = time.perf_counter() - began
    worst = np.max(spectrum.residuals)
    say(
        f"{len(spectrum.eigenvalues)} pairs, {spectrum.products} products, {seconds:.1f} s, "
        f"largest residual {worst:.2g}"
        + ("" if spectrum.converged else f", above the tolerance {config.solver.tolerance:g}")
    )
    provenance = {
        "architecture": generator.architecture,
        "digest": problem.digest,
        "method": f"hessian, {config.solver.name}",
        "metric": config.metric.name,
        "seed": str(config.seed),
        "latents": str(len(z)),
        "products": str(spectrum.products),
        "microbatch": str(microbatch),
        "config": config_lib.to_text(inputs.fill_defaults(config)),
    }
    directions = spectrum_lib.as_directions(spectrum, layers, reduced, provenance)
    if devices.is_main_process():
        write_directions(workdir / DIRECTIONS, directions)
    return directions


def _solve_by_lanczos(
    config: Config, workdir: pathlib.Path, reduced: reduction.Reduction, key: jax.Array
) -> hessian.Spectrum:
    settings, count, objective = config.solver, config.directions, reduced.objective
    if settings.product == "exact":
        product = products.exact(objective)
    else:
        product = products.gauss_newton(objective, cache_bytes=inputs.cache_bytes(config))
    began = time.perf_counter()
    first_block = linalg.start_lanczos(key, objective.entries, settings.block_size, jnp.float32)
    jax.block_until_ready(product(first_block.candidate))
    say(f"compiled in {time.perf_counter() - began:.1f} s")

    def measure(state: linalg.KrylovState) -> tuple[int, dict[str, float]]:
        found = hessian.converged_pairs(state, count, settings.tolerance)
        in_order = len(found) if found.all() else int(np.argmin(found))
        values, _, residuals = state.ritz()
        relative = hessian.relative_residuals(values, residuals, jnp.float32)[:count]
        numbers = {"found": in_order, "eigenvalue": values[0]}
        if len(relative) == count:
            numbers["residual"] = float(np.max(relative))  # the largest of the wanted pairs
        return in_order, numbers

    # A state is valid only in the coordinates in which it was computed.
    basis = {} if reduced.basis is None else {"basis": reduced.basis}
    problem = params_lib.digest({"entries": np.array(objective.entries), **basis})
    state = runs.load_state(workdir / STATE, linalg.KrylovState, problem)
    if state is not None:
        say(f"resumed after {state.products} products")
    with runs.watch(
        workdir,
        state,
        label="eigenpairs",
        unit="pairs",
        total=count,
        measure=measure,
        save_to=workdir / STATE,
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

    state = runs.load_state(workdir / STATE, hessian.PowerState, "whole layers")
    state = hessian.PowerState() if state is None else state
    if state.products:
        say(f"resumed after {state.products} products")
    with runs.watch(
        workdir,
        state if state.products else None,
        label="power iterations",
        unit="products",
        total=config.directions * settings.iterations,
        measure=measure,
        save_to=workdir / STATE,
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
    product = products.gauss_newton(objective, cache_bytes=inputs.cache_bytes(config))
    return hessian.power_spectrum(product, state, tolerance=settings.tolerance)
