"""Inversion by L-BFGS on the metric, from a code that is already near.

No jitter and no schedule: each step goes along the quasi-Newton direction, as far as makes the
objective smaller (Nocedal and Wright 2006, algorithms 7.4 and 3.1). The direction comes from
optax; the search along it is a loop on the host, because convolutions inside a compiled loop are
slow on CPU.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from navigan_jax.array_types import Array, Float
from navigan_jax.inversion import objective
from navigan_jax.inversion.objective import Problem

_MEMORY = 100  # pairs; a code is small, so they cost little
_ENOUGH = 1e-4  # decrease, as a share of what the slope promises (Armijo)
_SHORTER, _SHORTEST = 0.5, 1e-4

_LBFGS = optax.scale_by_lbfgs(memory_size=_MEMORY)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """What a run depends on from here on.

    code: [1, ...]. gradient: of the objective there, whose value is `total`; `value` is its part
    that is the distance. memory: of L-BFGS. evaluations: gradients so far. is_stuck: whether no
    step makes the objective smaller.
    """

    code: Array
    gradient: Array
    total: Float[Array, ""]
    value: Float[Array, ""]
    memory: Any
    evaluations: Array
    is_stuck: Array

    @property
    def noise(self) -> dict[str, Array]:
        """The noise maps that are fitted: none."""
        return {}


def begin(problem: Problem, code: Array) -> State:
    """Returns the state at a first code."""
    total, value, gradient = _evaluate(problem, code)
    memory = _LBFGS.init(code)
    return State(code, gradient, total, value, memory, jnp.asarray(1), jnp.asarray(False))


def run(problem: Problem, evaluations: int, state: State) -> Iterator[State]:
    """Yields the state after each step, until it has so many evaluations or is stuck."""
    while int(state.evaluations) < evaluations and not bool(state.is_stuck):
        state = _step(problem, state, evaluations - int(state.evaluations))
        yield state


def _step(problem: Problem, state: State, most: int) -> State:
    """Returns the state after a step of at most so many evaluations."""
    direction, memory, slope = _direction(state)
    if not float(slope) < 0:
        fresh = _LBFGS.init(state.code)
        direction, memory, slope = _direction(dataclasses.replace(state, memory=fresh))
    length, count, before = 1.0, 0, float(state.total)
    while length >= _SHORTEST and count < most:
        code = state.code + jnp.float32(length) * direction
        total, value, gradient = _evaluate(problem, code)
        count += 1
        if float(total) <= before + _ENOUGH * length * float(slope):
            done = state.evaluations + count
            return State(code, gradient, total, value, memory, done, state.is_stuck)
        length *= _SHORTER
    done, is_stuck = state.evaluations + count, jnp.asarray(length < _SHORTEST)
    return dataclasses.replace(state, evaluations=done, is_stuck=is_stuck)


@jax.jit
def _evaluate(problem: Problem, code: Array) -> tuple[Array, Array, Array]:
    """Returns the objective, the distance, and the gradient of the objective."""

    def loss(code: Array) -> tuple[Array, Array]:
        value = objective.distance(problem, objective.images_of(problem, code, {}))
        return value + objective.unusual(problem, code), value

    (total, value), gradient = jax.value_and_grad(loss, has_aux=True)(code)
    return total, value, gradient


@jax.jit
def _direction(state: State) -> tuple[Array, Any, Float[Array, ""]]:
    """Returns the direction, the memory with the last pair, and the slope along the direction."""
    ahead, memory = _LBFGS.update(state.gradient, state.memory, state.code)
    return -ahead, memory, -jnp.vdot(state.gradient, ahead, precision="highest")
