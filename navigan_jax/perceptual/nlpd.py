"""NLPD, the normalised Laplacian pyramid distance: a model of early vision, not a learned network.

Source: Laparra, Ballé, Berardino and Simoncelli 2016, Perceptual image quality assessment using a
normalized Laplacian pyramid. A Laplacian pyramid removes the local mean at every scale; each
coefficient is then divided by a constant plus a weighted sum of the amplitudes around it. Constants
and weights are those that the authors fitted to undistorted photographs and publish with their
software. The borders are theirs too: mirrored when shrinking, repeated when growing, and zero for
amplitudes.

Departures from the paper:
1. The paper averages the root-mean-square differences of the bands. Here the mean squares are
   averaged, which makes the distance a squared norm of features.
2. The paper takes luminance. Here luma and the two colour differences of ITU-R BT.601 pass through
   the same pyramid and are summed, so that a change of colour alone counts. Grey images have no
   colour difference: for them, and for images of one channel, it is the distance of luminance.
3. The paper always takes six bands. Here the smaller side decides: the last, low-pass band is four
   to seven pixels wide until six bands are reached. A smaller image keeps the finest bands, with
   their constants, and the low-pass band.

The amplitude |z| has no derivative at 0. JAX uses 0, the mean of the two one-sided derivatives, so
every derivative is finite. The Hessian of an image's distance to itself contains only first
derivatives of the features, so the choice has no further effect on it.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax.array_types import Array, Float, Images
from navigan_jax.perceptual.base import Distance, Features, features_as_seen, require_images

_FILTER = (0.05, 0.25, 0.4, 0.25, 0.05)  # Burt and Adelson 1983, a = 0.4


class _Gain(NamedTuple):
    """The divisor of a coefficient: constant + Σ weight · |neighbour|."""

    constant: float
    neighbours: tuple[tuple[int, int, float], ...]  # (rows down, columns right, weight)


_BAND_PASS = (  # finest first
    _Gain(
        0.0248,
        ((1, 0, 0.1011), (-1, 0, 0.1015), (0, 1, 0.1493), (0, -1, 0.1460), (0, -2, 0.0072)),
    ),
    _Gain(0.0185, ((1, 0, 0.0757), (-1, 0, 0.0837), (0, 1, 0.1986), (0, -1, 0.1846))),
    _Gain(0.0179, ((1, 0, 0.0477), (-1, 0, 0.0467), (0, 1, 0.2138), (0, -1, 0.2243))),
    _Gain(0.0191, ((0, 1, 0.2503), (0, -1, 0.2616))),
    _Gain(0.0220, ((0, 1, 0.2598), (0, -1, 0.2552))),
)
_LOW_PASS = _Gain(0.2782, ((0, 1, 0.2215), (0, -1, 0.0717)))

_SMALLEST = 8  # one band-pass scale and a low-pass band of four pixels

# Filters are products with small dense matrices, whose transposes are products again: features
# forward and back for images [16, 64, 64, 3] took 1.9 ms on two CPU cores, against 7.1 ms by
# shifting and adding. Full precision: a coefficient is a small difference of large numbers.
_PRECISION = jax.lax.Precision.HIGHEST


@functools.cache
def _shrinking_matrix(size: int) -> np.ndarray:
    """Returns [half, size]: filters, with mirrored borders, and keeps every second position."""
    matrix = np.zeros(((size + 1) // 2, size))
    for row in range(matrix.shape[0]):
        for tap, weight in enumerate(_FILTER, start=2 * row - 2):
            inside = -1 - tap if tap < 0 else min(tap, 2 * size - 1 - tap)
            matrix[row, inside] += weight
    return matrix


@functools.cache
def _growing_matrix(size: int) -> np.ndarray:
    """Returns [size, half]: puts zeros between positions and filters, with repeated borders."""
    half = (size + 1) // 2
    matrix = np.zeros((size, half))
    for row in range(size):
        for tap, weight in enumerate(_FILTER, start=row - 2):
            if tap % 2 == 0:
                matrix[row, min(max(tap // 2, 0), half - 1)] += 2 * weight
    return matrix


Planes = Float[Array, "height batch channels width"]  # both spatial axes outermost: plain products


def _along_both_axes(planes: Planes, rows: np.ndarray, columns: np.ndarray) -> Planes:
    planes = jax.lax.dot_general(
        planes, jnp.asarray(columns, planes.dtype), (((3,), (1,)), ((), ())), precision=_PRECISION
    )
    return jax.lax.dot_general(
        jnp.asarray(rows, planes.dtype), planes, (((1,), (0,)), ((), ())), precision=_PRECISION
    )


def _normalise(planes: Planes, gain: _Gain) -> Planes:
    height, width = planes.shape[0], planes.shape[3]
    amplitudes = jnp.pad(jnp.abs(planes), ((1, 1), (0, 0), (0, 0), (2, 2)))
    divisor: float | Array = gain.constant
    for down, right, weight in gain.neighbours:
        rows, columns = slice(1 + down, 1 + down + height), slice(2 + right, 2 + right + width)
        divisor += weight * amplitudes[rows, :, :, columns]
    return planes / divisor


def _luma_and_colour(images: Images) -> Planes:
    """Returns the planes of images in [-1, 1]: luma in [0, 1], colour differences in ±0.5."""
    channels = [(images[..., i] + 1) / 2 for i in range(images.shape[-1])]
    if len(channels) == 3:
        red, green, blue = channels
        luma = 0.299 * red + 0.587 * green + 0.114 * blue
        channels = [luma, (blue - luma) / 1.772, (red - luma) / 1.402]
    return jnp.stack([jnp.moveaxis(channel, 1, 0) for channel in channels], axis=2)


def band_count(height: int, width: int) -> int:
    """Returns the number of bands in the pyramid of such an image, with the low-pass band."""
    return min(len(_BAND_PASS) + 1, min(height, width).bit_length() - 2)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NLPD(Distance):
    """d(a, b) = mean over bands of the mean over positions of ‖y(a) − y(b)‖² over luma and colour.

    y are the normalised coefficients. The distance needs no weights.
    """

    def features(self, images: Images) -> Features:
        require_images(images, "nlpd", smallest=_SMALLEST)
        return features_as_seen(self._pyramid, images)

    def _pyramid(self, images: Images) -> Features:
        """Returns φ of opaque images."""
        bands = band_count(*images.shape[1:3])
        rest = _luma_and_colour(images)
        leaves = []
        for gain in (*_BAND_PASS[: bands - 1], _LOW_PASS):
            height, width = rest.shape[0], rest.shape[3]
            coefficients = rest
            if gain is not _LOW_PASS:
                rest = _along_both_axes(rest, _shrinking_matrix(height), _shrinking_matrix(width))
                coefficients -= _along_both_axes(
                    rest, _growing_matrix(height), _growing_matrix(width)
                )
            scale = 1 / math.sqrt(bands * height * width)
            leaves.append(jnp.moveaxis(scale * _normalise(coefficients, gain), 0, 2))
        return tuple(leaves)
