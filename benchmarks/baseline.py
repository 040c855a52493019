"""The baseline of the comparisons: the paper's method, written plainly in JAX.

As in the official code, every evaluation computes G(z) and G_{θ+δ}(z) from z and takes their mean
distance over a batch. The derivative is `jax.grad` by the weight, and a Hessian product takes two
gradients. Convolutions are XLA's. Prefixes, matrix products and Gauss-Newton products are not used.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from navigan_jax import params as params_lib
from navigan_jax.array_types import Array, Params
from navigan_jax.generators.base import Generator
from navigan_jax.perceptual.base import Distance, distance


def plain_gradient_of_batch(
    generator: Generator, metric: Distance, path: str
) -> Callable[[Array, Params, Array], Array]:
    """Returns (δ, params, z) -> gradient by δ of the mean distance over the latents z."""

    def mean_distance(delta: Array, params: Params, z: Array) -> Array:
        original = generator.synthesize(params, generator.map_latent(params, z))
        moved = params_lib.add(params, path, delta)
        shifted = generator.synthesize(moved, generator.map_latent(moved, z))
        return jnp.mean(distance(metric, original, shifted))

    return jax.grad(mean_distance)


def plain_gradient(
    generator: Generator, params: Params, metric: Distance, batches: Sequence[Array], path: str
) -> Callable[[Array], Array]:
    """Returns δ -> gradient of the mean distance over all the batches, compiled."""
    one = jax.jit(plain_gradient_of_batch(generator, metric, path))
    shape = params_lib.get(params, path).shape

    def gradient(vector: Array) -> Array:
        delta = vector.reshape(shape)
        parts = [one(delta, params, z) for z in batches]
        return sum(parts[1:], parts[0]).reshape(-1) / len(batches)

    return gradient


def plain_central_difference(
    gradient: Callable[[Array], Array], epsilon: float
) -> Callable[[Array], Array]:
    """Returns v -> (g(εv) - g(-εv)) / 2ε, the paper's equation 4."""
    return lambda vector: (gradient(epsilon * vector) - gradient(-epsilon * vector)) / (2 * epsilon)
