"""Out-of-distribution scores: how far an image is from the generator's own, by two simple rules.

Statistics. A vector s describes the image: for every channel the mean and the log variance of the
pixels; from 8 pixels on, for every band of the normalised Laplacian pyramid and every channel the
mean and the log mean square of the coefficients; and the brightness on a grid of 8 x 8 fields. An
image with alpha has these numbers twice, over black and over white. Samples of the unchanged
generator give the mean μ and the covariance Σ of s. The score is (s − μ)ᵀ Σ⁻¹ (s − μ). Its bound
is a quantile of the scores of further samples, which μ and Σ are not from.

Saturation. A saturated pixel is black, white or transparent. The rarer saturation is at a place
among the generator's own samples, the more a saturated pixel there counts. The score is the mean
over pixels of −log p for saturated pixels and of 0 for all others; p is the frequency of that kind
of saturation in that field among the generator's own samples. Its bound is the mean score of these
samples plus the score of an image in which 1 % of the pixels are saturated where none ever was.
Saturation has a rule of its own because a black spot in a face is lost among a hundred statistics
of the image: on a DCGAN of faces such spots passed the first rule.

Both scores are in units of their bound. A shift is plausible, which means inside the effective
range, while neither mean score over latents exceeds 1. The mean score of a shift is the mean
increase over the originals of the same latents, plus the usual score of the generator's own
samples. So the result does not depend on whether the originals of these few latents happen to
score high. The rules notice contrast, colour, sharpness, broken textures and saturation; they do
not know whether a face is a face.
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
_RIDGE = 1e-3  # share of the mean variance added to each: keeps Σ⁻¹ finite for few samples
_SMALLEST = 8  # pixels that the pyramid needs
_GRID = 8  # fields along a side, for the brightness
_HELD_OUT = 4  # every fourth sample is for the bound alone
_SATURATED = 0.96  # all channels beyond ±: black or white; alpha below −: transparent
_SATURATION_FIELDS = 16  # along a side
_RAREST = 1e-3  # the frequency assumed for a kind of saturation that no sample has
_FREE_PART = 0.01  # share of the pixels that may be saturated where no sample is


class Statistics(NamedTuple):
    """whole: s. saturated: the share of each field that is saturated, by kind.

    Kinds of saturation: black, white and, in images with alpha, transparent.
    """

    whole: Float[Array, "batch statistics"]
    saturated: Float[Array, "batch kinds rows columns"]


def describe(images: Images) -> Statistics:
    """Returns the numbers that the scores are computed from; see the head of this file."""
    return Statistics(_describe_whole(images), _describe_saturation(images))


def _describe_saturation(images: Images) -> Float[Array, "batch kinds rows columns"]:
    seen = channels.over_black_and_white(images)
    kinds = [jnp.max(seen, axis=3) < -_SATURATED, jnp.min(seen, axis=3) > _SATURATED]
    if channels.has_alpha(images.shape[3]):
        kinds.append(images[..., -1] < -_SATURATED)
    saturated = jnp.stack(kinds, axis=1).astype(images.dtype)
    fields = [min(_SATURATION_FIELDS, side) for side in images.shape[1:3]]
    return jax.image.resize(saturated, (*saturated.shape[:2], *fields), "linear", antialias=True)


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
    """The two scores of one generator, fitted to its own images.

    mean: μ. whitening: W with WᵀW = Σ⁻¹ / bound. surprise: −log p / bound of each kind of
    saturation. usual: the mean scores of the generator's own images.
    """

    mean: Float[Array, "statistics"]
    whitening: Float[Array, "statistics statistics"]
    surprise: Float[Array, "kinds rows columns"]
    usual: Float[Array, "2"]

    def scores(self, images: Images) -> Float[Array, "batch 2"]:
        """Returns both scores of each image, in units of their bounds: statistics, saturation."""
        found = describe(images)
        whole = jnp.sum(((found.whole - self.mean[None]) @ self.whitening.T) ** 2, axis=1)
        saturation = jnp.mean(found.saturated * self.surprise[None], axis=(2, 3)).sum(axis=1)
        # NaN pixels would count as unsaturated.
        return jnp.stack([whole, jnp.where(jnp.isfinite(whole), saturation, jnp.nan)], axis=1)


def fit(samples: Statistics, quantile: float) -> Plausibility:
    """Returns the scores fitted to samples with these statistics.

    quantile: every fourth sample is held out; this quantile of the held-out samples' scores is
      the bound of the first rule; between 0 and 1.
    """
    whole = np.asarray(samples.whole, np.float64)
    held_out = np.arange(len(whole)) % _HELD_OUT == _HELD_OUT - 1
    rows = whole[~held_out]
    mean, size = rows.mean(axis=0), rows.shape[1]
    deviations = np.sqrt(rows.var(axis=0) + _LEAST)
    scaled = (rows - mean) / deviations
    covariance = scaled.T @ scaled / len(rows) + _RIDGE * np.eye(size)
    values, vectors = np.linalg.eigh(covariance)
    whitening = (vectors / np.sqrt(values)).T / deviations
    others = whole[held_out] if held_out.any() else whole
    scores = np.sum(((others - mean) @ whitening.T) ** 2, axis=1)
    bound = max(float(np.quantile(scores, quantile)), _LEAST)
    frequency = np.asarray(samples.saturated, np.float64).mean(axis=0)
    surprise = -np.log(np.clip(frequency, _RAREST, 1.0))
    usual_saturation = float(np.mean(frequency * surprise, axis=(1, 2)).sum())
    saturation_bound = usual_saturation - _FREE_PART * math.log(_RAREST)
    usual = [scores.mean() / bound, usual_saturation / saturation_bound]
    return Plausibility(
        mean=jnp.asarray(mean, jnp.float32),
        whitening=jnp.asarray(whitening / math.sqrt(bound), jnp.float32),
        surprise=jnp.asarray(surprise / saturation_bound, jnp.float32),
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
    """Returns the scores fitted to the generator's own images of these latents.

    Raises: InputError if the images are not finite.
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
