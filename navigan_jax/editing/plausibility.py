"""How odd an image is among the generator's own, by two rules of simple statistics.

As a whole: an image is described by numbers s: for every channel the mean of its pixels and the
logarithm of their variance; from 8 pixels on, for every band of the normalised Laplacian pyramid
and every channel the mean and the logarithm of the mean square of its coefficients; and the
brightness on a grid of 8 x 8 fields. An image with alpha has these numbers twice, over black and
over white. Over samples of the unchanged generator they have a mean μ
and a covariance Σ. The oddity is (s − μ)ᵀ Σ⁻¹ (s − μ); its bound is a quantile of the oddities of
the generator's own samples, those that μ and Σ are not from.

Holes: pixels that are black, white or transparent are as surprising as they are rare at their
place. The oddity is the mean over pixels of −log p for those, 0 for all others, p their frequency
in the field among the generator's own samples. Its bound is the mean over these samples and the
surprise of 1 % of the pixels where there were never any. It has a rule of its own because a black
spot in a face is lost among a hundred numbers of the image as a whole; on a DCGAN of faces these
passed by the first rule alone.

Both are told in units of their bound. A shift is called plausible while neither exceeds 1 in the
mean over latents. That mean is taken of what the shift adds to the oddity of the same latent's
original, and the usual oddity of the generator's own samples is added to it: whether the few
latents that one looks at make odd images themselves does not matter. The rules notice contrast,
colour, sharpness, broken textures and holes; they do not know whether a face is one.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import channels
from navigan_jax.array_types import Array, Float, Images, Params
from navigan_jax.errors import InputError
from navigan_jax.generators.base import Generator
from navigan_jax.perceptual.nlpd import NLPD

_LEAST = 1e-6  # added to variances: a black image has none
_RIDGE = 1e-3  # of the mean variance, added to each: keeps Σ⁻¹ finite for few samples
_SMALLEST = 8  # pixels that the pyramid needs
_GRID = 8  # fields along a side
_HELD_OUT = 4  # every fourth sample is for the bound alone
_EXTREME = 0.96  # all channels beyond ±: black or white; alpha below −: transparent
_HOLE_FIELDS = 16  # along a side
_RAREST = 1e-3  # frequency of what was never seen
_FREE_PART = 0.01  # of the pixels, may be holes where there were never any


class Statistics(NamedTuple):
    """whole: what the images look like. holes: the parts of each field that are holes, by kind.

    Kinds of holes: black, white and, in images with alpha, transparent.
    """

    whole: Float[Array, "batch statistics"]
    holes: Float[Array, "batch kinds rows columns"]


def describe(images: Images) -> Statistics:
    """Returns what oddities are computed from; see the head of this file."""
    return Statistics(_describe_whole(images), _describe_holes(images))


def _describe_holes(images: Images) -> Float[Array, "batch kinds rows columns"]:
    seen = channels.over_black_and_white(images)
    kinds = [jnp.max(seen, axis=3) < -_EXTREME, jnp.min(seen, axis=3) > _EXTREME]
    if channels.has_alpha(images.shape[3]):
        kinds.append(images[..., -1] < -_EXTREME)
    extreme = jnp.stack(kinds, axis=1).astype(images.dtype)
    fields = [min(_HOLE_FIELDS, side) for side in images.shape[1:3]]
    return jax.image.resize(extreme, (*extreme.shape[:2], *fields), "linear", antialias=True)


def _describe_whole(images: Images) -> Float[Array, "batch statistics"]:
    if not channels.has_alpha(images.shape[3]):
        return _describe_opaque(images)
    seen = [channels.over(images, background) for background in (channels.BLACK, channels.WHITE)]
    return jnp.concatenate([_describe_opaque(each) for each in seen], axis=1)


def _describe_opaque(images: Images) -> Float[Array, "batch statistics"]:
    leaves = [jnp.moveaxis(images, 3, 1)]
    if min(images.shape[1:3]) >= _SMALLEST:
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
    """What is plausible, by the generator's own images.

    mean: μ. whitening: W with WᵀW = Σ⁻¹ / bound. surprise: −log p / bound of each kind of hole.
    usual: the mean oddities of the generator's own images.
    """

    mean: Float[Array, "statistics"]
    whitening: Float[Array, "statistics statistics"]
    surprise: Float[Array, "kinds rows columns"]
    usual: Float[Array, "2"]

    def oddities(self, images: Images) -> Float[Array, "batch 2"]:
        """Returns how odd each image is by each rule, in units of the bound of plausible ones."""
        found = describe(images)
        whole = jnp.sum(((found.whole - self.mean[None]) @ self.whitening.T) ** 2, axis=1)
        holes = jnp.mean(found.holes * self.surprise[None], axis=(2, 3)).sum(axis=1)
        # Pixels that are no numbers are neither black nor white.
        return jnp.stack([whole, jnp.where(jnp.isfinite(whole), holes, jnp.nan)], axis=1)


def fit(samples: Statistics, quantile: float) -> Plausibility:
    """Returns the plausibility that samples with those statistics define.

    quantile: which of the oddities of every fourth sample, kept apart, is the bound of the image as
      a whole; between 0 and 1.
    """
    whole = np.asarray(samples.whole, np.float64)
    kept_apart = np.arange(len(whole)) % _HELD_OUT == _HELD_OUT - 1
    rows = whole[~kept_apart]
    mean, size = rows.mean(axis=0), rows.shape[1]
    deviations = np.sqrt(rows.var(axis=0) + _LEAST)
    scaled = (rows - mean) / deviations
    covariance = scaled.T @ scaled / len(rows) + _RIDGE * np.eye(size)
    values, vectors = np.linalg.eigh(covariance)
    whitening = (vectors / np.sqrt(values)).T / deviations
    others = whole[kept_apart] if kept_apart.any() else whole
    oddities = np.sum(((others - mean) @ whitening.T) ** 2, axis=1)
    bound = max(float(np.quantile(oddities, quantile)), _LEAST)
    holes = np.asarray(samples.holes, np.float64).mean(axis=0)
    surprise = -np.log(np.clip(holes, _RAREST, 1.0))
    usual_holes = float(np.mean(holes * surprise, axis=(1, 2)).sum())
    bound_of_holes = usual_holes - _FREE_PART * math.log(_RAREST)
    usual = [oddities.mean() / bound, usual_holes / bound_of_holes]
    return Plausibility(
        mean=jnp.asarray(mean, jnp.float32),
        whitening=jnp.asarray(whitening / math.sqrt(bound), jnp.float32),
        surprise=jnp.asarray(surprise / bound_of_holes, jnp.float32),
        usual=jnp.asarray(usual, jnp.float32),
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
    def describe_own(params: Params, z: Array) -> Statistics:
        return describe(generator.synthesize(params, generator.map_latent(params, z)))

    z = np.asarray(z)
    microbatch = min(microbatch, len(z))
    whole = np.concatenate([z, np.repeat(z[-1:], -len(z) % microbatch, axis=0)])
    batches = np.split(whole, len(whole) // microbatch)
    parts = [jax.device_get(describe_own(params, batch)) for batch in batches]
    samples = jax.tree.map(lambda *rows: np.concatenate(rows)[: len(z)], *parts)
    if not np.isfinite(samples.whole).all():
        raise InputError(
            "generator: expected finite images; got NaN or infinity from the unchanged weights; "
            "check them (python -m tools.convert_weights inspect FILE)"
        )
    return fit(samples, quantile)
