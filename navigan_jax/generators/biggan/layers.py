"""Layers of both BigGANs: normalisation by a condition, and attention.

Weights are those in use: the converter has divided them by their spectral norms.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from navigan_jax.array_types import Array, Float, Images
from navigan_jax.nn.affine import Conv, Dense

IMAGE_CHANNELS = 3


def between(table: Float[Array, "entries channels"], truncation: float) -> Float[Array, "channels"]:
    """Returns the statistics that BigGAN-deep uses for a truncation from 0 to 1.

    The entries belong to evenly spaced truncations. The published program gives the two neighbours
    each other's weights, and rounding makes it take a neighbour for some truncations of the grid;
    both are reproduced, as the published samples were made so.
    """
    if len(table) == 1:
        return table[0]
    part, first = math.modf(truncation / (1.0 / (len(table) - 1)))
    index = int(first)
    if part == 0:
        return table[index]
    return table[index] * part + table[index + 1] * (1 - part)


class Norm(nn.Module):
    """Batch normalisation in evaluation mode; `mean` and `var` are [entries, channels].

    With a condition, gain and bias are dense layers `gain` and `bias` of it, the gain plus 1;
    without one they are the vectors `scale` and `bias`. entries: 1, or the number of truncations
    that have their own statistics.
    """

    epsilon: float
    entries: int = 1
    truncation: float = 1.0

    @nn.compact
    def __call__(
        self, x: Images, condition: Float[Array, "batch condition"] | None = None
    ) -> Images:
        channels = x.shape[-1]
        shape = (self.entries, channels)
        mean = between(self.param("mean", nn.initializers.zeros, shape), self.truncation)
        var = between(self.param("var", nn.initializers.ones, shape), self.truncation)
        if condition is not None:
            gain = 1 + Dense(channels, use_bias=False, name="gain")(condition)
            bias = Dense(channels, use_bias=False, name="bias")(condition)
        else:
            gain = self.param("scale", nn.initializers.ones, (channels,))[None]
            bias = self.param("bias", nn.initializers.zeros, (channels,))[None]
        factor = gain * jax.lax.rsqrt(var + self.epsilon)[None]
        return x * factor[:, None, None] + (bias - mean[None] * factor)[:, None, None]


class Attention(nn.Module):
    """Self-attention over pixels, added to its input times `gamma` (Zhang et al. 2019)."""

    by_matmul: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, x: Images) -> Images:
        batch, height, width, channels = x.shape

        def conv(name: str, features: int) -> Conv:
            is_edited = name in self.by_matmul
            return Conv(features, 1, use_bias=False, by_matmul=is_edited, name=name)

        def pooled(name: str, features: int) -> Array:
            y = nn.max_pool(conv(name, features)(x), (2, 2), (2, 2))
            return y.reshape(batch, -1, features)

        theta = conv("theta", channels // 8)(x).reshape(batch, height * width, -1)
        phi, g = pooled("phi", channels // 8), pooled("g", channels // 2)
        weights = jax.nn.softmax(jnp.einsum("bpc,bqc->bpq", theta, phi), axis=-1)
        y = jnp.einsum("bpq,bqc->bpc", weights, g).reshape(batch, height, width, -1)
        gamma = self.param("gamma", nn.initializers.zeros, (1,))
        return x + gamma[None, None, None] * conv("o", channels)(y)
