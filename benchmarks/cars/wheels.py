"""How far can the wheel radius go, which no training image varies, at equal image quality?

The quality of an image is its distance to the nearest scene with all factors free (`fitting`), and
the radius is that of this scene. So a move that only blurs the wheels scores badly.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.cars import fitting, scene
from benchmarks.cars.reading import REACH, Moves, Problem
from navigan_jax.array_types import Array, Params
from navigan_jax.evaluation.factors import Responses

RADIUS = scene.NAMES.index("wheel radius")
LATENTS = 8
SHARES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)  # of the ends, both ways
QUALITY = 1.25  # the largest error that counts as equal, in units of that of unedited images
LOOSE = 2.0  # images that have lost sharpness, and still show a car
_RIDGE = 0.1  # of the largest singular value
_OPTIMISED = (0.7, 0.85, 1.15, 1.3)  # wanted radius, in units of the trained one
_OPTIMISE_STEPS = 100
_OPTIMISE_RATE = 0.05


@dataclasses.dataclass(frozen=True)
class Path:
    """Mean radius and error along a move.

    shifts: t, as shares of the ends, or the wanted radius as a share of the trained one; that of
    the original images first. radius: in 64ths of the side. error: root mean square
    distance to the nearest scene, images in [-1, 1].
    """

    label: str
    shifts: tuple[float, ...]
    radius: tuple[float, ...]
    error: tuple[float, ...]

    def reach(self, quality: float = QUALITY) -> tuple[float, float]:
        """Returns the lowest and highest change of the radius, as shares of it.

        quality: the largest error that counts, in units of the error of unedited images.
        """
        base, limit = self.radius[0], quality * self.error[0]
        good = [r / base - 1 for r, e in zip(self.radius, self.error, strict=True) if e <= limit]
        return min(good), max(good)

    def to_json(self) -> dict[str, Any]:
        """Returns the path as plain data."""
        return dataclasses.asdict(self)


def combine(responses: Responses, ends: np.ndarray) -> np.ndarray:
    """Returns amounts of the moves whose sum changes the radius and little else.

    The amounts solve a least-squares problem on the gauge's responses, with a ridge.
    """
    effects = responses.mean.T * REACH  # [factors, moves], of each move at its end
    target = np.zeros(len(effects))
    target[RADIUS] = 1
    ridge = _RIDGE * np.linalg.norm(effects, 2)
    gram = effects.T @ effects + ridge**2 * np.eye(effects.shape[1])
    return np.linalg.solve(gram, effects.T @ target) * ends.mean(axis=1)


def score(responses: Responses) -> np.ndarray:
    """Returns how strongly and purely each move changes the radius: |response| × its purity."""
    power = responses.size**2
    share = power[:, RADIUS] / np.maximum(power.sum(axis=1), 1e-12)
    return np.abs(responses.mean[:, RADIUS]) * share


def follow(
    problem: Problem, moves: Moves, label: str, amounts: np.ndarray, ends: np.ndarray, seed: int
) -> tuple[Path, np.ndarray]:
    """Returns the path of a move and its images [steps, latents, ...], the originals first.

    ends: the |t| of equal change, for t < 0 and t > 0.
    """
    start = moves.begin(problem.latents(seed, LATENTS, 12))
    shares = (0.0, *(-share for share in SHARES), *SHARES)
    images = []
    for share in shares:
        shift = share * (ends[0] if share < 0 else ends[1])
        images.append(np.asarray(moves.images(start, jnp.asarray(shift * amounts, jnp.float32))))
    return _path(problem, label, shares, np.stack(images)), np.stack(images)


def _path(problem: Problem, label: str, shifts: tuple[float, ...], images: np.ndarray) -> Path:
    flat = images.reshape(-1, *images.shape[2:])
    factors, errors = fitting.nearest_scenes(flat, problem.gauges.read(flat))
    radius = factors[:, RADIUS].reshape(images.shape[:2]).mean(axis=1)
    error = errors.reshape(images.shape[:2]).mean(axis=1)
    return Path(label, shifts, tuple(map(float, radius)), tuple(map(float, error)))


def optimise_latents(problem: Problem, seed: int) -> tuple[Path, np.ndarray]:
    """Returns what w_plus can do at most: each is fitted to its scene with another radius."""
    generator = problem.generator
    z = problem.latents(seed, LATENTS, 12)
    latents = generator.map_latent(problem.params, jnp.asarray(z))
    original = np.asarray(generator.synthesize(problem.params, latents))
    factors, _ = fitting.nearest_scenes(original, problem.gauges.read(original))
    optimizer = optax.adam(optax.cosine_decay_schedule(_OPTIMISE_RATE, _OPTIMISE_STEPS))

    @jax.jit
    def fit(params: Params, latents: Array, targets: Array) -> Array:
        def loss(latents: Array) -> Array:
            return jnp.mean((generator.synthesize(params, latents) - targets) ** 2)

        def step(state: tuple[Array, optax.OptState], _: None) -> tuple:
            updates, moments = optimizer.update(jax.grad(loss)(state[0]), state[1])
            return (state[0] + updates, moments), None

        begin = (latents, optimizer.init(latents))
        (found, _), _ = jax.lax.scan(step, begin, None, length=_OPTIMISE_STEPS)
        return generator.synthesize(params, found)

    images = [original]
    for share in _OPTIMISED:
        wanted = factors.copy()
        wanted[:, RADIUS] *= share
        targets = scene.render(jnp.asarray(wanted), generator.resolution)
        images.append(np.asarray(fit(problem.params, latents, targets)))
    whole = np.stack(images)
    return _path(problem, "w_plus, optimised for each image", (1.0, *_OPTIMISED), whole), whole
