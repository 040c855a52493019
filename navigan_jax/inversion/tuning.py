"""Pivotal tuning: weights move a little, so that the generator shows this photograph at its code.

The result is an edit Δ of the convolutions and style layers of the synthesis, of full or of low
rank. Source: Roich et al. 2021, Pivotal Tuning for Latent-based Editing of Real Images, with the
numbers of its program. Departures: biases stay, so that Δ is an edit like any direction; images are
compared at 256 px or less.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from navigan_jax import params as params_lib
from navigan_jax.array_types import Array, Float, Images, Key, Params
from navigan_jax.generators.base import Generator
from navigan_jax.inversion import objective
from navigan_jax.inversion.objective import Problem
from navigan_jax.perceptual.base import squared_norms

_ADAM = optax.scale_by_adam(b1=0.9, b2=0.999)
_TRUNCATION, _DISTANCE = 0.5, 30.0  # of the samples at which locality is asked


@dataclasses.dataclass(frozen=True)
class Settings:
    """How weights are tuned.

    steps: at most. rate: of Adam. until: distance at which tuning ends. locality: weight of the
    change of other images; 0: none. rank: of the change of each weight; 0: full.
    """

    steps: int = 350
    rate: float = 3e-4
    until: float = 0.06
    locality: float = 0.0
    rank: int = 0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """factors: what makes up Δ, see `change_of`. moments: of Adam. value: the last distance."""

    factors: dict[str, Any]
    moments: Any
    value: Float[Array, ""]


def tuned_paths(generator: Generator) -> tuple[str, ...]:
    """Returns the paths of the weights that are tuned: all editable ones behind the mapping."""
    return tuple(x.path for x in generator.layers if x.stage >= generator.mapping_stages)


def begin(generator: Generator, params: Params, rank: int, key: Key) -> State:
    """Returns the state before the first step, in which Δ is 0."""
    factors: dict[str, Any] = {}
    for number, path in enumerate(tuned_paths(generator)):
        shape = params_lib.get(params, path).shape
        inputs, outputs = int(jnp.prod(jnp.array(shape[:-1]))), shape[-1]
        if 0 < rank < min(inputs, outputs):
            left = jax.random.normal(jax.random.fold_in(key, number), (inputs, rank))
            factors[path] = {"left": left / rank**0.5, "right": jnp.zeros((rank, outputs))}
        else:
            factors[path] = {"whole": jnp.zeros(shape)}
    return State(factors, _ADAM.init(factors), jnp.full((), jnp.inf))


def change_of(params: Params, factors: Mapping[str, Any]) -> dict[str, Array]:
    """Returns Δ by path: a whole array, or the product of two thin ones."""
    return {
        path: parts["whole"]
        if "whole" in parts
        else (parts["left"] @ parts["right"]).reshape(params_lib.get(params, path).shape)
        for path, parts in factors.items()
    }


def run(
    problem: Problem,
    latent: Array,
    noise: Mapping[str, Array],
    settings: Settings,
    state: State,
    key: Key,
    first_step: int = 0,
) -> Iterator[State]:
    """Yields the state after each step from `first_step` on; its value is of the step before."""
    shown = dataclasses.replace(problem, params=objective.with_noise(problem.params, noise))
    for step in range(first_step, settings.steps):
        state = _step(
            shown,
            latent,
            state,
            jax.random.fold_in(key, step),
            jnp.float32(settings.rate),
            jnp.float32(settings.locality),
            is_local=settings.locality > 0,
        )
        yield state


@functools.partial(jax.jit, static_argnames="is_local", donate_argnums=2)
def _step(
    problem: Problem,
    latent: Array,
    state: State,
    key: Key,
    rate: Array,
    locality: Array,
    *,
    is_local: bool,
) -> State:
    generator, params = problem.generator, problem.params

    def loss(factors: Mapping[str, Any]) -> tuple[Array, Array]:
        tuned = params
        for path, delta in change_of(params, factors).items():
            tuned = params_lib.add(tuned, path, delta)
        images = generator.synthesize(tuned, latent)
        value = objective.distance(problem, images)
        total = jnp.mean((images - problem.image) ** 2) + value
        if is_local:
            other = _near(problem, latent, key)
            before = generator.synthesize(params, other)
            after = generator.synthesize(tuned, other)
            total += locality * _apart(problem, after, before)
        return total, value

    gradient, value = jax.grad(loss, has_aux=True)(state.factors)
    updates, moments = _ADAM.update(gradient, state.moments)
    factors = jax.tree.map(lambda x, update: x - rate * update, state.factors, updates)
    return State(factors, moments, value)


def _near(problem: Problem, latent: Array, key: Key) -> Array:
    """Returns a latent at a fixed distance from the pivot, towards a truncated sample."""
    generator = problem.generator
    sample = generator.map_latent(problem.params, generator.sample_latents(key, 1))
    if generator.mapping_stages:
        mean = jnp.broadcast_to(problem.spread.mean, sample.shape)
        sample = mean + _TRUNCATION * (sample - mean)
    else:
        sample = generator.space.truncate(sample, _TRUNCATION)
    towards = sample - latent
    length = jnp.sqrt(jnp.sum(towards**2))
    return latent + _DISTANCE * towards / jnp.maximum(length, 1e-8)


def _apart(problem: Problem, a: Images, b: Images) -> Array:
    """Returns mean square difference and distance of two images, summed."""
    features = [problem.metric.features(objective.average_down(each)) for each in (a, b)]
    difference = jax.tree.map(jnp.subtract, *features)
    return jnp.mean((a - b) ** 2) + jnp.sum(squared_norms(difference))
