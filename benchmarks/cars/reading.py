"""What the experiment measures with: the network of cars, its gauges and distances, and the rules.

Shifts are chosen so that every move changes images equally much: |p| at the ends is `REACH`, where
p is the signed perceptual change of `navigan_jax.evaluation.factors`.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import params as params_lib
from navigan_jax.array_types import Array, Images, Params
from navigan_jax.evaluation.factors import Responses, Start, measure_responses, read_moves
from navigan_jax.evaluation.gauges import Gauges
from navigan_jax.generators.base import EditableLayer, Generator
from navigan_jax.perceptual.base import Distance, squared_norms

LATENTS = 8  # of the readings
SCALE_LATENTS = 4
REACH = 0.4  # |p| at the ends: a distance of 0.16 of that between two images, as in the tasks
STEPS = (-1.0, -0.5, 0.5, 1.0)  # shares of the ends
PURE = 0.6
_PRECISION = 1.2  # factor between the distance at an end and the wanted one
_MOST_STEPS, _LARGEST_STEP = 10, 8.0


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """The network of cars, NLPD and LPIPS, and the gauges. path: a generator file or a name."""

    path: str
    generator: Generator
    params: Params
    metric: Distance
    lpips: Distance
    gauges: Gauges

    def weight(self, layer: EditableLayer) -> np.ndarray:
        """Returns the weight of a layer."""
        return np.asarray(params_lib.get(self.params, layer.path))

    def latents(self, seed: int, count: int, use: int) -> np.ndarray:
        """Returns z of their own for each use."""
        key = jax.random.fold_in(jax.random.key(seed), use)
        return np.asarray(self.generator.sample_latents(key, count))


@dataclasses.dataclass(frozen=True, eq=False)
class Moves:
    """A set of moves of one problem.

    begin: z -> start. images: (start, coefficients [count]) -> images moved by their sum.
    """

    count: int
    begin: Callable[[np.ndarray], Start]
    images: Callable[[Start, Array], Images]

    def single(self, number: int, shift: float) -> Array:
        """Returns the coefficients of one move at t."""
        return jnp.zeros(self.count).at[number].set(shift)


def start_of(metric: Distance, state: object, images: Images) -> Start:
    """Returns a start whose distances are those of the metric."""
    features, steps = _features(metric, images)
    return Start(state, images, features, steps)


@jax.jit
def _features(metric: Distance, images: Images) -> tuple:
    features = metric.features(images)
    steps = jax.tree.map(lambda leaf: leaf[1:] - leaf[:-1], features)
    return features, jnp.sum(squared_norms(steps), axis=0)


@jax.jit
def _distances(metric: Distance, images: Images, original: object) -> Array:
    difference = jax.tree.map(jnp.subtract, metric.features(images), original)
    return jnp.sum(squared_norms(difference), axis=0)


def find_reach(problem: Problem, moves: Moves, amounts: np.ndarray, seed: int) -> np.ndarray:
    """Returns [rows, 2], the |t| at which each row of amounts reaches |p| = `REACH`, both sides."""
    start = moves.begin(problem.latents(seed, SCALE_LATENTS, 10))
    target = REACH**2 * float(np.mean(start.steps))
    ends = np.ones((len(amounts), 2))
    guess = 1.0
    for number, row in enumerate(amounts):
        for side, sign in enumerate((-1.0, 1.0)):
            shift = guess
            for _ in range(_MOST_STEPS):
                images = moves.images(start, jnp.asarray(sign * shift * row, jnp.float32))
                distance = float(_distances(problem.metric, images, start.features).mean())
                ratio = target / distance if distance > 0 else _LARGEST_STEP
                if 1 / _PRECISION < ratio < _PRECISION:
                    break
                # The distance grows about like t².
                shift *= float(np.clip(ratio**0.5, 1 / _LARGEST_STEP, _LARGEST_STEP))
            ends[number, side] = guess = shift
    return ends


def read_responses(
    problem: Problem, moves: Moves, amounts: np.ndarray, ends: np.ndarray, seed: int
) -> Responses:
    """Returns the responses of the factors to each row of amounts."""
    steps = np.array(STEPS)
    shifts = np.where(steps < 0, ends[:, :1], ends[:, 1:]) * steps

    def move(start: Start, number: int, shift: float) -> tuple[Images, Array]:
        images = moves.images(start, jnp.asarray(shift * amounts[number], jnp.float32))
        return images, _distances(problem.metric, images, start.features)

    readings = read_moves(
        moves.begin,
        move,
        problem.gauges.read,
        problem.latents(seed, LATENTS, 11),
        shifts,
        microbatch=LATENTS,
    )
    units = np.array([factor.span for factor in problem.gauges.factors], np.float64)
    circular = [factor.is_circular for factor in problem.gauges.factors]
    return measure_responses(readings, shifts, units, circular)
