"""Linen layers used by more than one generator, and the maps they are made of.

A layer whose weight is being edited is computed `by_matmul`: its input does not move, so it is
linear in the weight, and written as one matrix product both directions of its derivative are
matrix products too. XLA turns the weight derivative of a convolution into a convolution whose
window is the whole image, which on CPU is 25 to 90 times slower (benchmarks/products.py).
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from navigan_jax.array_types import Array, Float


def conv_transpose(
    x: Float[Array, "batch height width in"],
    kernel: Float[Array, "side side in out"],
    *,
    stride: int,
    padding: int,
) -> Float[Array, "batch height_out width_out out"]:
    """Returns the transposed convolution; H_out = (H - 1) * stride - 2 * padding + side.

    The kernel is in the orientation of PyTorch's ConvTranspose2d, axes moved to HWIO.
    """
    side = kernel.shape[0]
    pad = side - 1 - padding
    return lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1],
        window_strides=(1, 1),
        padding=((pad, pad), (pad, pad)),
        lhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def conv_transpose_by_matmul(
    x: Float[Array, "batch height width in"],
    kernel: Float[Array, "side side in out"],
    *,
    stride: int,
    padding: int,
) -> Float[Array, "batch height_out width_out out"]:
    """Returns the same as `conv_transpose`: each pixel times the kernel, then overlap and add.

    The kernel falls into tiles as wide as the stride, the last ones filled up with zeros; tiles of
    equal position lie next to each other without a gap.
    """
    side = kernel.shape[0]
    stripes = -(-side // stride)
    batch, height, width, _ = x.shape
    out = kernel.shape[-1]
    patches = jnp.einsum("bhwi,klio->bhwklo", x, kernel)
    spare = (0, stripes * stride - side)
    patches = jnp.pad(patches, ((0, 0), (0, 0), (0, 0), spare, spare, (0, 0)))
    tiles = patches.reshape(batch, height, width, stripes, stride, stripes, stride, out)
    full_height, full_width = (height - 1 + stripes) * stride, (width - 1 + stripes) * stride
    total = jnp.zeros((batch, full_height, full_width, out), x.dtype)
    for row in range(stripes):
        for column in range(stripes):
            tile = tiles[:, :, :, row, :, column].transpose(0, 1, 3, 2, 4, 5)
            tile = tile.reshape(batch, height * stride, width * stride, out)
            top, left = row * stride, column * stride
            bottom = full_height - height * stride - top
            right = full_width - width * stride - left
            total += jnp.pad(tile, ((0, 0), (top, bottom), (left, right), (0, 0)))
    bottom, right = full_height - spare[1] - padding, full_width - spare[1] - padding
    return total[:, padding:bottom, padding:right]


def conv(
    x: Float[Array, "batch height width in"], kernel: Float[Array, "side side in out"]
) -> Float[Array, "batch height width out"]:
    """Returns the correlation with a kernel of odd side; what lies outside counts as zero."""
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def conv_by_matmul(
    x: Float[Array, "batch height width in"], kernel: Float[Array, "side side in out"]
) -> Float[Array, "batch height width out"]:
    """Returns the same as `conv`: the window around each pixel times the kernel."""
    side, _, inputs, out = kernel.shape
    height, width = x.shape[1:3]
    margin = (side // 2, side // 2)
    padded = jnp.pad(x, ((0, 0), margin, margin, (0, 0)))
    windows = jnp.concatenate(
        [
            padded[:, row : row + height, column : column + width]
            for row in range(side)
            for column in range(side)
        ],
        axis=-1,
    )
    return windows @ kernel.reshape(side * side * inputs, out)


class ConvTranspose(nn.Module):
    """Transposed convolution without a bias; weight `kernel` (side, side, in, out)."""

    features: int
    side: int
    stride: int
    padding: int
    by_matmul: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.side, self.side, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(0.02), shape)
        apply = conv_transpose_by_matmul if self.by_matmul else conv_transpose
        return apply(x, kernel, stride=self.stride, padding=self.padding)


class FrozenBatchNorm(nn.Module):
    """Batch normalisation in evaluation mode: its statistics are parameters like the others."""

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.param("mean", nn.initializers.zeros, shape)
        var = self.param("var", nn.initializers.ones, shape)
        gain = scale * lax.rsqrt(var + self.epsilon)
        return x * gain[None, None, None] + (bias - mean * gain)[None, None, None]
