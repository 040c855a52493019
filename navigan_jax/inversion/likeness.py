"""How like two images are: mean square error, PSNR, and SSIM."""

import math

import jax.numpy as jnp
import numpy as np

from navigan_jax.array_types import Array, Float, Images

_WINDOW, _DEVIATION = 11, 1.5  # of SSIM, in pixels
_K1, _K2 = 0.01, 0.03
_RANGE = 2.0  # of pixels in [-1, 1]


def mean_square(a: Images, b: Images) -> float:
    """Returns the mean square difference of images in [-1, 1]."""
    return float(np.mean((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2))


def psnr(a: Images, b: Images) -> float:
    """Returns the peak signal-to-noise ratio in decibels; infinite for equal images."""
    error = mean_square(a, b)
    return 10 * math.log10(_RANGE**2 / error) if error > 0 else math.inf


def ssim(a: Images, b: Images) -> float:
    """Returns the mean structural similarity of images [batch, height, width, channels].

    Windows lie inside the images; channels are averaged. A side must be 11 pixels or more.
    Source: Wang et al. 2004, with its Gaussian window and constants.
    """
    x, y = (jnp.asarray(each, jnp.float32) for each in (a, b))
    rows, columns = (jnp.asarray(_smoother(side)) for side in x.shape[1:3])

    def smooth(maps: Array) -> Array:
        return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, maps, precision="highest")

    mean_x, mean_y = smooth(x), smooth(y)
    var_x, var_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    both = smooth(x * y) - mean_x * mean_y
    c1, c2 = (_K1 * _RANGE) ** 2, (_K2 * _RANGE) ** 2
    top = (2 * mean_x * mean_y + c1) * (2 * both + c2)
    return float(jnp.mean(top / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))))


def _smoother(side: int) -> Float[np.ndarray, "inside side"]:
    """Returns the matrix that averages with a Gaussian window at each place inside a line."""
    taps = np.exp(-0.5 * ((np.arange(_WINDOW) - _WINDOW // 2) / _DEVIATION) ** 2)
    taps /= taps.sum()
    matrix = np.zeros((side - _WINDOW + 1, side), np.float32)
    for row in range(len(matrix)):
        matrix[row, row : row + _WINDOW] = taps
    return matrix
