"""Layers of StyleGAN2: dense layers, and convolutions whose kernels a style scales."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from navigan_jax.array_types import Array, Float, Images
from navigan_jax.nn.layers import (
    Change,
    Linear,
    add_change,
    conv,
    conv_by_matmul,
    conv_transpose,
    conv_transpose_by_matmul,
    dense_change,
    read_change,
)
from navigan_jax.nn.pixels import Window, take, upsample_windows
from navigan_jax.nn.resampling import rim_of, smooth, smooth_part, upsample
from navigan_jax.nn.winograd import conv3x3, double3x3

RESIDUAL_GAIN = math.sqrt(0.5)  # of both parts of a sum, to keep its variance
_EPSILON = 1e-8  # in all norms
_SLOPE = 0.2  # of the leaky ReLU
_ACTIVATION_GAIN = math.sqrt(2)  # keeps the variance


def activate(x: Array, gain: float = 1.0, clamp: float | None = None) -> Array:
    """Returns the leaky ReLU times √2 · gain, clipped to ± clamp · gain if there is a clamp."""
    x = nn.leaky_relu(x, _SLOPE) * (_ACTIVATION_GAIN * gain)
    return x if clamp is None else jnp.clip(x, -clamp * gain, clamp * gain)


def normalise(x: Float[Array, "batch features"]) -> Float[Array, "batch features"]:
    """Returns each row divided by the root mean square of its entries."""
    return x * lax.rsqrt(jnp.mean(x**2, axis=1, keepdims=True) + _EPSILON)


def modulated(
    x: Images,
    kernel: Float[Array, "side side in out"],
    style: Float[Array, "batch in"],
    convolve: Linear,
    *,
    demodulate: bool,
    change: Change | None = None,
    own: Linear | None = None,
) -> Images:
    """Returns x convolved with a kernel whose input channels each sample's style scales.

    x may hold several windows of each sample, one after another. convolve: linear in both
    arguments. The kernel has the equalised scale 1/√(in·side²). If `demodulate`, each sample's
    scaled kernel is divided by its norm, for each output channel.
    change: added to each sample's kernel before the style scales it. own: the map of `convolve` as
    a matrix product, for samples with their own kernels.
    Source: Karras et al. 2020, equations 1 and 3.
    """
    gain = 1 / math.sqrt(math.prod(kernel.shape[:-1]))
    windows = len(x) // len(style)
    styled = x * jnp.repeat(style, windows, axis=0)[:, None, None]
    y = convolve(styled, kernel)
    if not demodulate:
        return gain * add_change(y, styled, change, shared=convolve, own=own or convolve)
    squares = style**2 @ jnp.sum(kernel**2, axis=(0, 1))
    if change is not None:
        added = dense_change(change)  # its norms are needed in any case
        y = add_change(y, styled, added, shared=convolve, own=own or convolve)
        # (W + Δ)² - W², so that the unchanged part is computed as without a change.
        more = jnp.sum(added * (2 * kernel[None] + added), axis=(1, 2))
        squares += jnp.einsum("bi,bio->bo", style**2, more)
    factors = gain * lax.rsqrt(gain**2 * squares + _EPSILON)
    return y * jnp.repeat(factors, windows, axis=0)[:, None, None]


class Dense(nn.Module):
    """Dense layer of equalised learning rate; weights `kernel` (in, out) and `bias`.

    rate: factor of kernel and bias when they are used; the stored weights are divided by it.
    """

    features: int
    rate: float = 1.0
    first_bias: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "batch in"]) -> Float[Array, "batch out"]:
        inputs = x.shape[-1]
        shape = (inputs, self.features)
        kernel = self.param("kernel", nn.initializers.normal(1 / self.rate), shape)
        bias = self.param("bias", nn.initializers.constant(self.first_bias), shape[1:])
        x = x * (self.rate / math.sqrt(inputs))
        y = add_change(x @ kernel, x, read_change(self), shared=jnp.matmul, own=jnp.matmul)
        return y + (bias * self.rate)[None]


class Embedding(nn.Module):
    """A matrix `kernel` without scale or bias, as the first TensorFlow program has for labels."""

    features: int

    @nn.compact
    def __call__(self, labels: Float[Array, "batch label"]) -> Float[Array, "batch out"]:
        shape = (labels.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(1), shape)
        change = read_change(self)
        return add_change(labels @ kernel, labels, change, shared=jnp.matmul, own=jnp.matmul)


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, noise, bias and activation; `up` doubles the side."""

    features: int
    size: tuple[int, int]  # height and width of the output
    up: bool
    taps: tuple[float, ...]
    gain: float
    clamp: float | None
    noise: str
    noise_seed: int
    by_matmul: bool

    @nn.compact
    def __call__(
        self, x: Images, w: Float[Array, "batch w"], view: tuple[Window, Window] | None = None
    ) -> Images:
        """Returns the features; view: the windows of x and the wanted ones, None for whole maps."""
        inputs = x.shape[-1]
        style = Dense(inputs, first_bias=1.0, name="affine")(w)
        shape = (3, 3, inputs, self.features)
        kernel = self.param("kernel", nn.initializers.normal(1), shape)
        convolve, own = self._map(self.by_matmul, view), self._map(True, view)
        change = read_change(self)
        x = modulated(x, kernel, style, convolve, demodulate=True, change=change, own=own)
        x = self._add_noise(x, None if view is None else view[1])
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return activate(x + bias[None, None, None], self.gain, self.clamp)

    def _map(self, by_matmul: bool, view: tuple[Window, Window] | None) -> Linear:
        if not self.up:
            if view is None:
                return conv3x3  # its derivatives by the kernel are cheap too
            by_matmul = by_matmul or view[1].size == 1
            return functools.partial(conv_by_matmul if by_matmul else conv, padded=False)
        double = conv_transpose_by_matmul if by_matmul else conv_transpose
        taps, rim = self.taps, rim_of(self.taps)
        if view is not None:
            first, size = view[1].first - rim - 2 * view[0].first, view[1].size
            return lambda x, kernel: smooth_part(
                double(x, kernel, stride=2, padding=0), taps, first, (size, size)
            )
        if rim == 1 and not by_matmul:
            return lambda x, kernel: smooth(double3x3(x, kernel), taps, rim)
        return lambda x, kernel: smooth(double(x, kernel, stride=2, padding=-rim), taps, rim)

    def _add_noise(self, x: Images, window: Window | None) -> Images:
        strength = self.param("noise_strength", nn.initializers.zeros, ())
        noise = self.param("noise", nn.initializers.normal(1), self.size)[None, ..., None]
        if self.noise == "none":
            return x
        if self.has_rng("noise"):
            noise = jax.random.normal(self.make_rng("noise"), (*x.shape[:3], 1), x.dtype)
        elif self.noise == "random":
            # Size and `up` together identify a layer of a network.
            layer = 2 * self.size[0] + int(self.up)
            key = jax.random.fold_in(jax.random.key(self.noise_seed), layer)
            noise = jax.random.normal(key, noise.shape, x.dtype)
        if window is None:
            return x + strength * noise
        noise = take(noise, window)
        return x + strength * jnp.tile(noise, (len(x) // len(noise), 1, 1, 1))


class ToRGB(nn.Module):
    """Modulated 1x1 convolution without demodulation, and a bias."""

    features: int
    clamp: float | None

    @nn.compact
    def __call__(self, x: Images, w: Float[Array, "batch w"]) -> Images:
        inputs = x.shape[-1]
        style = Dense(inputs, first_bias=1.0, name="affine")(w)
        shape = (1, 1, inputs, self.features)
        kernel = self.param("kernel", nn.initializers.normal(1), shape)
        # With three outputs it is cheaper to scale each sample's kernel than its input.
        gain = 1 / math.sqrt(inputs)
        kernels = kernel[0, 0][None] * (gain * style)[:, :, None]
        per_sample = x.reshape(len(w), -1, inputs)  # x may consist of windows
        y = jnp.einsum("bpi,bio->bpo", per_sample, kernels).reshape(*x.shape[:-1], -1)
        change = read_change(self)
        if change is not None:
            styled = x * (gain * style)[:, None, None]
            y = add_change(y, styled, change, shared=conv_by_matmul, own=conv_by_matmul)
        x = y
        x += self.param("bias", nn.initializers.zeros, (self.features,))[None, None, None]
        return x if self.clamp is None else jnp.clip(x, -self.clamp, self.clamp)


class Skip(nn.Module):
    """The shortcut around a residual block: a plain 1x1 convolution, then upsampling by 2."""

    features: int
    taps: tuple[float, ...]

    @nn.compact
    def __call__(self, x: Images, view: tuple[Window, Window] | None = None) -> Images:
        inputs = x.shape[-1]
        shape = (1, 1, inputs, self.features)
        kernel = self.param("kernel", nn.initializers.normal(1), shape)
        change, product = read_change(self), conv_by_matmul
        x = add_change(product(x, kernel), x, change, shared=product, own=product)
        x = x * (RESIDUAL_GAIN / math.sqrt(inputs))
        return upsample(x, self.taps) if view is None else upsample_windows(x, *view, self.taps)
