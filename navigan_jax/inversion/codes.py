"""Codes: the numbers that an inversion moves, and the latent that they stand for.

space     code of one photograph             latent
w         [w]                                w_plus, every row the same
w_plus    [rows, w]                          w_plus
z         [movable entries of the latent]    z with its class, mapped if there is a mapping

Samples give the mean and the spread of codes. In whitened units, u = (code − mean) A⁻¹, samples
have unit variance along every axis; ‖u‖² tells how unusual a code is.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax.array_types import Array, Float, Key, Params
from navigan_jax.errors import InputError
from navigan_jax.generators.base import Generator

SPACES = ("w", "w_plus", "z")
_SAMPLES = 10_000  # as in the standard projector
_AT_ONCE = 1000
_FLOOR = 0.1  # of the standard deviations, as a share of the largest


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Spread:
    """Mean [size] and spread of samples.

    axes: [size, size]; u @ axes has their covariance, but for a floor that lets codes leave it.
    inverse: of axes. deviation: the root mean square distance of a sample from the mean.
    """

    mean: Float[Array, "size"]
    axes: Float[Array, "size size"]
    inverse: Float[Array, "size size"]
    deviation: Float[Array, ""]

    def whiten(self, code: Float[Array, "... size"]) -> Float[Array, "... size"]:
        """Returns u of a code."""
        mean = jnp.broadcast_to(self.mean, code.shape)
        return jnp.matmul(code - mean, self.inverse, precision="highest")

    def colour(self, u: Float[Array, "... size"]) -> Float[Array, "... size"]:
        """Returns the code of u."""
        mean = jnp.broadcast_to(self.mean, u.shape)
        return mean + jnp.matmul(u, self.axes, precision="highest")


def require_space(generator: Generator, space: str) -> None:
    """Checks that the generator has codes of this space. Raises: InputError."""
    allowed = SPACES if generator.mapping_stages else ("z",)
    if not generator.space.movable:
        raise InputError(
            f"inversion: expected a generator whose latents can be moved; got a "
            f"{generator.architecture}, whose latents are pictures; give these to it as they are"
        )
    if space not in allowed:
        raise InputError(
            f"config.space: expected a space of this {generator.architecture}; got {space!r}; "
            f"allowed: {', '.join(allowed)}; set it with --config.space={allowed[0]}"
        )


def code_shape(generator: Generator, space: str) -> tuple[int, ...]:
    """Returns the shape of one code."""
    if space == "z":
        return (generator.space.movable,)
    return generator.latent_shape if space == "w_plus" else generator.latent_shape[1:]


@functools.partial(jax.jit, static_argnames=("generator", "space"))
def to_latent(
    params: Params, code: Array, rest: Array, *, generator: Generator, space: str
) -> Array:
    """Returns the input of `synthesize` for codes [batch, ...].

    rest: [batch, entries], of z after the movable ones.
    """
    if space == "w_plus":
        return code
    if space == "w":
        return jnp.repeat(code[:, None], generator.latent_shape[0], axis=1)
    return generator.map_latent(params, jnp.concatenate([code, rest], axis=1))


@functools.partial(jax.jit, static_argnames=("generator", "space"))
def code_of(params: Params, z: Array, *, generator: Generator, space: str) -> Array:
    """Returns the codes of sampled latents."""
    if space == "z":
        return z[:, : generator.space.movable]
    w_plus = generator.map_latent(params, z)
    return w_plus if space == "w_plus" else w_plus[:, 0]


def measure_spread(generator: Generator, params: Params, space: str, key: Key) -> Spread:
    """Returns the spread of 10,000 samples of w, or of z, whatever the rows of w_plus are."""
    z = generator.sample_latents(key, _SAMPLES)
    kind = "z" if space == "z" else "w"
    parts = [
        np.asarray(code_of(params, z[i : i + _AT_ONCE], generator=generator, space=kind))
        for i in range(0, _SAMPLES, _AT_ONCE)
    ]
    samples = np.concatenate(parts).astype(np.float64)
    mean = samples.mean(axis=0)
    centred = samples - mean
    variances, vectors = np.linalg.eigh(centred.T @ centred / _SAMPLES)
    deviations = np.sqrt(np.maximum(variances, 0))
    deviations = np.maximum(deviations, _FLOOR * deviations.max())
    if not deviations.max() > 0:
        raise InputError(
            "inversion: expected latents that differ; got the same for all samples; check "
            "config.synthesis.truncation"
        )
    axes = (vectors * deviations).T
    inverse = vectors / deviations
    deviation = np.sqrt((centred**2).sum(axis=1).mean())
    return Spread(*(jnp.asarray(each, jnp.float32) for each in (mean, axes, inverse, deviation)))


def mean_code(spread: Spread, shape: tuple[int, ...]) -> Float[Array, "1 ..."]:
    """Returns the mean as the code of one photograph."""
    return jnp.broadcast_to(spread.mean, (1, *shape))
