"""Nonlinear least squares by Gauss-Newton steps in a trust region, without matrices.

A step minimises ‖r + J p‖² over ‖p‖ ≤ radius by conjugate gradients that stop at the border
(Steihaug 1983; Nocedal and Wright 2006, algorithm 7.2). Each of their iterations takes one exact
product with J and one with its transpose. The Jacobian is linearised once a step.

Levenberg-Marquardt in optimistix solves the same damped problems, by a factorisation or by its own
conjugate gradients; a code of 10,000 numbers and a residual of a million rule the first out, and a
state that is saved and resumed to the bit is simplest where the loop is ours.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from navigan_jax.array_types import Array, Float

Residuals = Callable[[Any, Array], tuple[Array, ...]]

_POOR, _GOOD = 0.25, 0.75  # agreement of the model at which the region shrinks or grows
_LEAST = 1e-4  # agreement at which a step is taken
_TRIES = 8  # regions that are tried at one point


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """A point, the radius around it, the sum of squares there, and the products so far."""

    point: Array
    radius: float
    value: float
    products: int
    is_stuck: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Solver:
    """Compiled parts for one function of residuals; `make_solver` makes it."""

    linearise: Callable[[Any, Array], tuple[Array, Any]]
    product: Callable[[Any, Array], Array]
    value: Callable[[Any, Array], Float[Array, ""]]

    def begin(self, problem: Any, point: Array, radius: float) -> State:
        """Returns the state at a first point."""
        return State(point, radius, float(self.value(problem, point)), 0)

    def run(
        self, problem: Any, state: State, *, steps: int, iterations: int, accuracy: float = 0.1
    ) -> Iterator[State]:
        """Yields the state after each step; ends early where no step makes the sum smaller.

        iterations: most of conjugate gradients in a step. accuracy: relative residual at which
        these stop.
        """
        for _ in range(steps):
            if state.is_stuck:
                return
            state = self._step(problem, state, iterations, accuracy)
            yield state

    def _step(self, problem: Any, state: State, iterations: int, accuracy: float) -> State:
        gradient, jacobian = self.linearise(problem, state.point)
        radius, products = state.radius, state.products
        for _ in range(_TRIES):
            step, count, at_border = self._inner(jacobian, gradient, radius, iterations, accuracy)
            products += count + 1
            predicted = -2 * _dot(gradient, step) - _dot(step, self.product(jacobian, step))
            value = float(self.value(problem, state.point + step))
            agreement = (state.value - value) / predicted if predicted > 0 else -1.0
            length = _dot(step, step) ** 0.5
            if not agreement >= _POOR:
                radius = 0.25 * min(radius, length)
            elif agreement > _GOOD and at_border:
                radius *= 2
            if agreement > _LEAST:
                return State(state.point + step, radius, value, products)
            if length == 0:
                break
        return dataclasses.replace(state, radius=radius, products=products, is_stuck=True)

    def _inner(
        self, jacobian: Any, gradient: Array, radius: float, iterations: int, accuracy: float
    ) -> tuple[Array, int, bool]:
        """Returns the step, the number of products, and whether the step ends at the border."""
        step, rest = jnp.zeros_like(gradient), -gradient
        direction, square = rest, _dot(rest, rest)
        end = accuracy**2 * square
        for count in range(1, iterations + 1):
            along = self.product(jacobian, direction)
            curvature = _dot(direction, along)
            if not square > 0 or not curvature > 0:
                return step, count, False
            length = square / curvature
            ahead = step + length * direction
            if _dot(ahead, ahead) >= radius**2:
                return step + _to_border(step, direction, radius) * direction, count, True
            step, rest = ahead, rest - length * along
            before, square = square, _dot(rest, rest)
            if square <= end:
                return step, count, False
            direction = rest + (square / before) * direction
        return step, iterations, False


def make_solver(residuals: Residuals) -> Solver:
    """Returns the solver of Σ residuals(problem, point)²."""

    @jax.jit
    def linearise(problem: Any, point: Array) -> tuple[Array, Any]:
        found, jacobian = jax.linearize(lambda x: residuals(problem, x), point)
        (gradient,) = jax.linear_transpose(jacobian, point)(found)
        return gradient, jacobian

    @jax.jit
    def product(jacobian: Any, vector: Array) -> Array:
        (result,) = jax.linear_transpose(jacobian, vector)(jacobian(vector))
        return result

    @jax.jit
    def value(problem: Any, point: Array) -> Array:
        return _squares(residuals(problem, point))

    return Solver(linearise, product, value)


def _squares(leaves: tuple[Array, ...]) -> Array:
    return jnp.sum(jnp.stack([jnp.sum(leaf**2) for leaf in leaves]))


def _dot(a: Array, b: Array) -> float:
    return float(jnp.vdot(a, b, precision="highest"))


def _to_border(step: Array, direction: Array, radius: float) -> float:
    """Returns t > 0 with ‖step + t · direction‖ = radius."""
    a, b, c = _dot(direction, direction), _dot(step, direction), _dot(step, step) - radius**2
    return (-b + max(b * b - a * c, 0.0) ** 0.5) / a
