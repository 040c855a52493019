"""Inversion by Adam: the standard projector of StyleGAN2, with its constants.

Source: Karras et al. 2020, appendix D, and the projector of NVIDIA's PyTorch program. Departures:
codes may be of other spaces than w, and a weight may keep them usual.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from navigan_jax.array_types import Array, Float, Key
from navigan_jax.inversion import objective
from navigan_jax.inversion.objective import Problem

_ADAM = optax.scale_by_adam(b1=0.9, b2=0.999)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Steps, and what changes with t = step / steps.

    rate: of learning. It rises over the first `rise` of the steps and falls to 0, as half a cosine,
    over the last `fall`. jitter: of the code, as a share of the deviation of samples; it falls to 0
    as a square over the first `jitter_until`.
    """

    steps: int
    rate: float = 0.1
    rise: float = 0.05
    fall: float = 0.25
    jitter: float = 0.05
    jitter_until: float = 0.75

    def rate_at(self, step: int) -> float:
        """Returns the learning rate of a step."""
        t = step / self.steps
        fall = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - t) / self.fall))
        return self.rate * fall * min(1.0, t / self.rise)

    def jitter_at(self, step: int) -> float:
        """Returns the jitter of a step, as a share of the deviation."""
        return self.jitter * max(0.0, 1 - step / self.steps / self.jitter_until) ** 2


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """What a run depends on from here on.

    code: [1, ...]. noise: {path: map}, those that are fitted. moments: of Adam. value: the distance
    before the last step.
    """

    code: Array
    noise: dict[str, Array]
    moments: Any
    value: Float[Array, ""]


def begin(code: Array, noise: Mapping[str, Array]) -> State:
    """Returns the state before the first step."""
    moving = (code, dict(noise))
    return State(code, dict(noise), _ADAM.init(moving), jnp.full((), jnp.inf))


def draw_noise(like: Mapping[str, Array], key: Key) -> dict[str, Array]:
    """Returns noise maps drawn anew, as the standard projector begins."""
    keys = jax.random.split(key, max(len(like), 1))
    return {
        path: jax.random.normal(each, maps.shape, maps.dtype)
        for each, (path, maps) in zip(keys, like.items(), strict=False)
    }


def run(
    problem: Problem, schedule: Schedule, state: State, key: Key, first_step: int = 0
) -> Iterator[State]:
    """Yields the state after each step from `first_step` on."""
    for step in range(first_step, schedule.steps):
        state = _step(
            problem,
            state,
            jax.random.fold_in(key, step),
            jnp.float32(schedule.rate_at(step)),
            jnp.float32(schedule.jitter_at(step)),
        )
        yield state


@jax.jit
def _step(problem: Problem, state: State, key: Key, rate: Array, jitter: Array) -> State:
    moving = (state.code, state.noise)

    def loss(moving: Any) -> tuple[Array, Array]:
        code, noise = moving
        drawn = jax.random.normal(key, code.shape, code.dtype)
        images = objective.images_of(
            problem, code + jitter * problem.spread.deviation * drawn, noise
        )
        value = objective.distance(problem, images)
        total = value + objective.unusual(problem, code)
        return total + objective.NOISE_WEIGHT * objective.noise_correlation(noise), value

    gradient, value = jax.grad(loss, has_aux=True)(moving)
    updates, moments = _ADAM.update(gradient, state.moments)
    code, noise = jax.tree.map(lambda x, update: x - rate * update, moving, updates)
    return State(code, objective.standardise(noise), moments, value)
