"""FIR filters that double the side of images, by zero insertion and convolution as in StyleGAN2.

A filter is given by its taps along one axis. It acts along both axes with gain 2 each, which makes
up for the inserted zeros. Each phase of the output is a sum of shifted images, so nothing is
multiplied by an inserted zero, and the map and its transpose are elementwise.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from navigan_jax.array_types import Array, Images


def upsample(images: Images, taps: Sequence[float]) -> Images:
    """Returns the images at twice their side: a zero after each pixel, then the filter.

    Pixels outside count as zero, so a constant image gets darker at its border.
    """
    padding = ((len(taps) + 1) // 2, (len(taps) - 2) // 2)
    return _filter(_filter(images, taps, 1, 2, padding), taps, 2, 2, padding)


def double(images: Images) -> Images:
    """Returns the images at twice their side: each pixel four times (nearest upsampling)."""
    batch, height, width, channels = images.shape
    pixels = jnp.broadcast_to(images[:, :, None, :, None], (batch, height, 2, width, 2, channels))
    return pixels.reshape(batch, 2 * height, 2 * width, channels)


def smooth(images: Images, taps: Sequence[float], rim: int) -> Images:
    """Returns the filtered images, one pixel smaller than `images` without their rim.

    images: the result of a transposed convolution of side 3, stride 2 and padding -rim, which has
      inserted the zeros and has one pixel too many. rim: width of the border of zeros, at least
      `rim_of(taps)`, so that no padding is needed here and the sums below are simple loops.
    """
    size = (images.shape[1] - 2 * rim - 1, images.shape[2] - 2 * rim - 1)
    return smooth_part(images, taps, rim - rim_of(taps), size)


def smooth_part(images: Images, taps: Sequence[float], first: int, size: tuple[int, int]) -> Images:
    """Returns `size` pixels of the filtered images; the first one reads pixels from `first` on."""
    for axis, length in zip((1, 2), size, strict=True):
        shifted = [
            lax.slice_in_dim(images, start, start + length, axis=axis)
            for start in range(first, first + len(taps))
        ]
        # A convolution applies the taps in reverse order.
        images = _weighted_sum(shifted, [2 / sum(taps) * tap for tap in reversed(taps)])
    return images


def rim_of(taps: Sequence[float]) -> int:
    """Returns the smallest rim for `smooth`."""
    return (len(taps) - 1) // 2


def _weighted_sum(arrays: Sequence[Array], factors: Sequence[float]) -> Array:
    terms = [factor * array for factor, array in zip(factors, arrays, strict=True)]
    return sum(terms[1:], terms[0])


def _filter(
    images: Images, taps: Sequence[float], axis: int, factor: int, padding: tuple[int, int]
) -> Images:
    """Inserts factor - 1 zeros after each pixel, pads with zeros and convolves, along one axis."""
    length = images.shape[axis]
    size = length * factor + sum(padding) - len(taps) + 1
    count = -(-size // factor)
    margin = len(taps) // factor + 1
    edges = [(0, 0)] * images.ndim
    edges[axis] = (margin, margin)
    padded = jnp.pad(images, edges)
    phases = []
    for phase in range(factor):
        # For a tap whose division has no remainder, pixel factor * m + phase reads pixel m + shift;
        # other taps read inserted zeros. A convolution applies the taps in reverse order.
        shifts = [divmod(phase + i - padding[0], factor) for i in range(len(taps))]
        phases.append(
            sum(
                (2 / sum(taps) * tap)
                * lax.slice_in_dim(padded, margin + shift, margin + shift + count, axis=axis)
                for (shift, rest), tap in zip(shifts, reversed(taps), strict=True)
                if not rest
            )
        )
    shape = (*images.shape[:axis], count * factor, *images.shape[axis + 1 :])
    joined = jnp.stack(phases, axis=axis + 1).reshape(shape)
    return lax.slice_in_dim(joined, 0, size, axis=axis)
