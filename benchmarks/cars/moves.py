"""Moves of cars to compare: directions of a convolution by six methods, and of latents by two.

Each set comes as `reading.Moves`.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cars.reading import Moves, Problem, start_of
from configs import discover
from navigan_jax import checkpoints, linalg, tasks
from navigan_jax import config as config_lib
from navigan_jax.array_types import Array, Images, Params
from navigan_jax.directions import Edit, read_directions, write_directions
from navigan_jax.editing.edit import apply_edit
from navigan_jax.evaluation.factors import Start
from navigan_jax.generators.base import EditableLayer
from navigan_jax.perceptual.base import Distance
from navigan_jax.spectrum import find_directions
from navigan_jax.subspaces import hessian
from navigan_jax.subspaces.svd import singular_values

COUNT = 16  # moves in a set
METHODS = ("svd", "random", "spectrum-nlpd", "spectrum-lpips", "hybrid", "trained")
TRAINED = ("hybrid", "trained")
SPACES = ("z", "w", "w_plus")
LATENT_METHODS = ("components", "hessian")
SPECTRUM_LATENTS = {"spectrum-nlpd": 32, "spectrum-lpips": 16}
HESSIAN_LATENTS = 16
TRAINING_STEPS = 80


# Weights -------------------------------------------------------------------------------------


def weight_moves(problem: Problem, layer: EditableLayer, basis: np.ndarray) -> Moves:
    """Returns moves of a layer's weight; basis: [count, *shape], unit rows."""
    layers = (layer,)
    rows = jnp.asarray(basis)

    @jax.jit
    def prefix(params: Params, z: Array) -> tuple:
        carry = problem.generator.prefix(params, z, layers)
        return carry, problem.generator.suffix(params, carry, layers)

    @jax.jit
    def images(params: Params, rows: Array, carry: object, amounts: Array) -> Images:
        edit = Edit({layer.path: jnp.tensordot(amounts, rows, 1)})
        return problem.generator.suffix(apply_edit(params, edit, jnp.float32(1)), carry, layers)

    def begin(z: np.ndarray) -> Start:
        return start_of(problem.metric, *prefix(problem.params, z))

    return Moves(
        len(basis),
        begin,
        lambda start, amounts: images(problem.params, rows, start.state, amounts),
    )


def find_basis(
    problem: Problem, layer: EditableLayer, method: str, folder: pathlib.Path, seed: int
) -> np.ndarray:
    """Returns `COUNT` directions of a layer by a method, [COUNT, *shape], best first."""
    if method == "svd":
        subspace, _ = singular_values({layer.path: problem.weight(layer)})
        return np.asarray(subspace.expand(jnp.eye(subspace.size)[:COUNT])[layer.path])
    if method == "random":
        random = np.random.RandomState(seed)
        rows = random.standard_normal((COUNT, *layer.shape)).astype(np.float32)
        return rows / np.sqrt((rows**2).sum(axis=tuple(range(1, rows.ndim)), keepdims=True))
    if method in SPECTRUM_LATENTS:
        metric = problem.lpips if method == "spectrum-lpips" else problem.metric
        key = jax.random.fold_in(jax.random.key(seed), 0)
        found = find_directions(
            problem.generator,
            problem.params,
            metric,
            problem.generator.sample_latents(key, SPECTRUM_LATENTS[method]),
            layers=[layer.path],
            count=COUNT,
            seed=seed,
        )
        path = folder / "directions.safetensors"
        write_directions(path, found)
        return found.basis[layer.path]
    return _train(problem, layer, method, folder, seed)


def _train(
    problem: Problem, layer: EditableLayer, method: str, folder: pathlib.Path, seed: int
) -> np.ndarray:
    """Trains directions among singular values, or (hybrid) among the spectrum's."""
    config = discover.get_config()
    changes: dict[str, object] = {
        "seed": seed,
        "generator": str(problem.path),
        "layer": layer.path,
        "directions": COUNT,
        "shift.least": 0.2,
        "loss.shift_weight": 0.5,
        "optimizer.directions_rate": 0.01,
        "optimizer.reconstructor_rate": 1e-3,
        "batch": 16,
        "microbatch": 16,
        "steps": TRAINING_STEPS,
        "log_steps": TRAINING_STEPS // 4,
        "save_steps": TRAINING_STEPS,
        "image_steps": 10 * TRAINING_STEPS,
        "held_out.rounds": 2,
        "held_out.final_rounds": 4,
        "show.samples": 1,
        "show.steps": 3,
        "show.calibration_latents": 8,
        "show.plausible_samples": 256,
        "show.animated": 1,
    }
    if method == "hybrid":
        spectrum = folder.parent / "spectrum-nlpd" / "directions.safetensors"
        changes |= {"subspace.name": "hessian", "subspace.path": str(spectrum)}
    config.update_from_flattened_dict(changes)
    tasks.TASKS["discover"](config_lib.freeze(config), checkpoints.make_folder(folder / "run"))
    found = read_directions(folder / "run" / "directions.safetensors", digest=None)
    return found.basis[layer.path][:COUNT]


# Latents -------------------------------------------------------------------------------------


def latent_moves(problem: Problem, space: str, basis: np.ndarray) -> Moves:
    """Returns moves of a latent; basis: [count, *shape of the latent], unit rows."""
    rows = jnp.asarray(basis)

    @jax.jit
    def place(params: Params, z: Array) -> Array:
        return z if space == "z" else problem.generator.map_latent(params, z)

    @jax.jit
    def images(params: Params, rows: Array, latent: Array, amounts: Array) -> Images:
        return _render(problem, space, params, latent + jnp.tensordot(amounts, rows, 1)[None])

    def begin(z: np.ndarray) -> Start:
        latent = place(problem.params, z)
        original = images(problem.params, rows, latent, jnp.zeros(len(rows)))
        return start_of(problem.metric, latent, original)

    return Moves(
        len(basis),
        begin,
        lambda start, amounts: images(problem.params, rows, start.state, amounts),
    )


def _render(problem: Problem, space: str, params: Params, latent: Array) -> Images:
    if space == "z":
        latent = problem.generator.map_latent(params, latent)
    return problem.generator.synthesize(params, latent)


def find_latent_basis(problem: Problem, space: str, method: str, seed: int) -> np.ndarray:
    """Returns `COUNT` directions of a latent space: principal components, or Hessian.

    z is white, so its components are its own axes, each of which stands for one factor.
    w moves all rows of w_plus alike.
    """
    generator, params = problem.generator, problem.params
    key = jax.random.fold_in(jax.random.key(seed), 1)
    if space == "z" and method == "components":
        return np.eye(generator.space.movable, dtype=np.float32)[:COUNT]
    rows = np.asarray(generator.map_latent(params, generator.sample_latents(key, 4096)))
    shape = rows.shape[1:]
    if method == "components":
        if space == "w":
            _, _, found = np.linalg.svd(rows[:, 0] - rows[:, 0].mean(axis=0), full_matrices=False)
            whole = np.repeat(found[:COUNT, None], shape[0], axis=1)
        else:
            # The rows of w_plus are equal for sampled images, so its components repeat those of w.
            # What w_plus adds is to move some rows alone: components of w in blocks of rows.
            _, _, found = np.linalg.svd(rows[:, 0] - rows[:, 0].mean(axis=0), full_matrices=False)
            whole = _in_blocks(found, shape)
    else:
        whole = _latent_hessian(problem, space, shape, seed)
    norms = np.sqrt((whole**2).sum(axis=tuple(range(1, whole.ndim)), keepdims=True))
    return (whole / norms).astype(np.float32)


def _in_blocks(components: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the leading components in coarse, middle and fine rows of w_plus, in turn."""
    count = shape[0]
    blocks = np.array_split(np.arange(count), 3)
    moves = []
    for number in range(COUNT):
        move = np.zeros(shape)
        move[blocks[number % 3]] = components[number // 3]
        moves.append(move)
    return np.stack(moves)


def _latent_hessian(problem: Problem, space: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Returns leading eigenvectors of E 2 JᵀJ of the features by one move of all latents."""
    generator, params = problem.generator, problem.params
    key = jax.random.fold_in(jax.random.key(seed), 2)
    z = generator.sample_latents(key, HESSIAN_LATENTS)
    latents = z if space == "z" else generator.map_latent(params, z)
    sizes = {"z": (generator.space.movable,), "w": shape[1:], "w_plus": shape}
    size = sizes[space]

    def features(params: Params, metric: Distance, latents: Array, move: Array) -> object:
        return metric.features(_render(problem, space, params, latents + move[None]))

    @jax.jit
    def product(params: Params, metric: Distance, latents: Array, block: Array) -> Array:
        at = functools.partial(features, params, metric, latents)
        _, forward = jax.linearize(at, jnp.zeros(size))
        backward = jax.linear_transpose(forward, jnp.zeros(size))

        def one(row: Array) -> Array:
            (found,) = backward(forward(row.reshape(size)))
            return 2 * found.ravel() / len(latents)

        return jax.lax.map(one, block)

    entries = int(np.prod(size))
    spectrum = hessian.lanczos_spectrum(
        jax.random.key(seed),
        lambda block: product(params, problem.metric, latents, block),
        entries,
        count=min(COUNT, entries),
        tolerance=1e-2,
        block_size=2,
        max_vectors=160,
        max_products=400,
    )
    vectors = np.asarray(linalg.fix_signs(spectrum.vectors)).reshape(-1, *size)
    if space == "w":
        return np.repeat(vectors[:, None], shape[0], axis=1)
    return vectors
