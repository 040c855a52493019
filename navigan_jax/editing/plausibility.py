"""How odd an image is among the generator's own: a Mahalanobis distance of simple statistics.

An image is described by numbers s: for every channel the mean of its pixels and the logarithm of
their variance; where the normalised Laplacian pyramid takes the images, for every band of it and
every channel the mean and the logarithm of the mean square of its coefficients; and its brightness
on a grid of 8 x 8 fields. Over samples of the unchanged generator they have a mean μ and a
covariance Σ. The oddity of an image is (s − μ)ᵀ Σ⁻¹ (s − μ), divided by how many numbers s has: 1
on the average over the samples that μ and Σ are from, a little more over others.

A shift is called plausible while the mean oddity over latents does not exceed the bound: a
quantile of the oddities of the generator's own samples, those that μ and Σ are not from. It
notices contrast, colour, sharpness, broken textures and holes; it does not know whether a face is
one. (On a DCGAN of faces the grid made the difference: without it, black holes in faces passed.)
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax.array_types import Array, Float, Images, Params
from navigan_jax.errors import InputError
from navigan_jax.generators.base import Generator
from navigan_jax.perceptual.nlpd import NLPD

_LEAST = 1e-6  # added to variances: a black image has none
_RIDGE = 1e-3  # of the mean variance, added to each: keeps Σ⁻¹ finite for few samples
_SMALLEST = 8  # pixels that the pyramid needs
_GRID = 8  # fields along a side
_HELD_OUT = 4  # every fourth sample is for the bound alone


def statistics(images: Images) -> Float[Array, "batch statistics"]:
    """Returns what the images look like on the whole; see the head of this file."""
    leaves = [jnp.moveaxis(images, 3, 1)]
    if images.shape[3] in (1, 3) and min(images.shape[1:3]) >= _SMALLEST:
        leaves.extend(NLPD().features(images))
    columns = []
    for number, leaf in enumerate(leaves):
        flat = leaf.reshape(*leaf.shape[:2], -1)
        mean = jnp.mean(flat, axis=2)
        spread = jnp.var(flat, axis=2) if number == 0 else jnp.sum(flat**2, axis=2)
        columns += [mean, jnp.log(spread + _LEAST)]
    fields = [min(_GRID, side) for side in images.shape[1:3]]
    shape = (len(images), *fields)
    grid = jax.image.resize(jnp.mean(images, axis=3), shape, "linear", antialias=True)
    return jnp.concatenate([*columns, grid.reshape(len(images), -1)], axis=1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Plausibility:
    """mean: μ. whitening: W with WᵀW = Σ⁻¹ / size. bound: of the oddity of plausible images."""

    mean: Float[Array, "statistics"]
    whitening: Float[Array, "statistics statistics"]
    bound: float = dataclasses.field(metadata={"static": True})

    def oddity(self, images: Images) -> Float[Array, "batch"]:
        """Returns how odd each image is; 1 on the average over the generator's own."""
        difference = statistics(images) - self.mean[None]
        return jnp.sum((difference @ self.whitening.T) ** 2, axis=1)


def fit(rows: Float[np.ndarray, "samples statistics"], quantile: float) -> Plausibility:
    """Returns the plausibility that samples with those statistics define.

    quantile: which of the oddities of every fourth sample, kept apart, is the bound; between 0
      and 1.
    """
    whole = np.asarray(rows, np.float64)
    kept_apart = np.arange(len(whole)) % _HELD_OUT == _HELD_OUT - 1
    rows = whole[~kept_apart]
    mean, size = rows.mean(axis=0), rows.shape[1]
    deviations = np.sqrt(rows.var(axis=0) + _LEAST)
    scaled = (rows - mean) / deviations
    covariance = scaled.T @ scaled / len(rows) + _RIDGE * np.eye(size)
    values, vectors = np.linalg.eigh(covariance)
    whitening = (vectors / np.sqrt(values * size)).T / deviations
    others = whole[kept_apart] if kept_apart.any() else whole
    oddities = np.sum(((others - mean) @ whitening.T) ** 2, axis=1)
    return Plausibility(
        mean=jnp.asarray(mean, jnp.float32),
        whitening=jnp.asarray(whitening, jnp.float32),
        bound=float(np.quantile(oddities, quantile)),
    )


def measure(
    generator: Generator,
    params: Params,
    z: Float[Array | np.ndarray, "samples latent"],
    *,
    quantile: float,
    microbatch: int,
) -> Plausibility:
    """Returns the plausibility of a generator by its own images of those latents.

    Raises: InputError if they are not finite.
    """

    @jax.jit
    def describe(params: Params, z: Array) -> Array:
        return statistics(generator.synthesize(params, generator.map_latent(params, z)))

    z = np.asarray(z)
    whole = np.concatenate([z, np.repeat(z[-1:], -len(z) % microbatch, axis=0)])
    batches = np.split(whole, len(whole) // microbatch)
    rows = np.concatenate([np.asarray(describe(params, batch)) for batch in batches])
    if not np.isfinite(rows).all():
        raise InputError(
            "generator: expected finite images; got NaN or infinity from the unchanged weights; "
            "check them (python -m tools.convert_weights inspect FILE)"
        )
    return fit(rows[: len(z)], quantile)
