"""ProgGAN (Karras et al. 2018), as ptrblck's port and the official program have it.

Two layers at each side, from 4x4 on; the first of a side doubles the features before (nearest
upsampling), and the first of all makes 4x4 pixels from z. Each layer is a convolution with a scale
and a bias, then a leaky ReLU of slope 0.2. Its input is divided by the root mean square of the
channels of each pixel; the official program does this at the end of the layer before, which is the
same. A 1x1 convolution makes the image, without tanh.

Stage i is layer i; the last stage makes the image.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from navigan_jax.array_types import Array
from navigan_jax.errors import InputError
from navigan_jax.generators.base import EditableLayer, Generator, require_precision
from navigan_jax.generators.latent_space import NormalSpace
from navigan_jax.nn.affine import Conv
from navigan_jax.nn.layers import shorten, widen
from navigan_jax.nn.resampling import double

_EPSILON = 1e-8
_SLOPE = 0.2


def _normalise(x: Array) -> Array:
    """Returns each pixel divided by the root mean square of its channels."""
    return x * lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + _EPSILON)


class _Layer(nn.Module):
    """A convolution, times a scale, plus a bias; weights `conv/kernel`, `scale` and `bias`."""

    features: int
    side: int
    padding: int
    by_matmul: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv = Conv(
            self.features,
            self.side,
            padding=self.padding,
            use_bias=False,
            by_matmul=self.by_matmul,
            name="conv",
        )
        scale = self.param("scale", nn.initializers.ones, (1,))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return conv(x) * scale[None, None, None] + bias[None, None, None]


class ProgGAN(nn.Module):
    """The network; fields are the keywords of `proggan`."""

    widths: tuple[int, ...]
    image_channels: int
    precision: str
    by_matmul: tuple[str, ...] = ()

    def setup(self) -> None:
        self.layer = [
            _Layer(
                self.widths[index // 2],
                side=3 if index else 4,
                padding=1 if index else 3,
                by_matmul=f"layer{index}/conv" in self.by_matmul,
                name=f"layer{index}",
            )
            for index in range(2 * len(self.widths))
        ]
        is_edited = "image/conv" in self.by_matmul
        self.image = _Layer(self.image_channels, side=1, padding=0, by_matmul=is_edited)

    def run(self, carry: Any, start: int, stop: int) -> Any:
        if start == 0:
            carry = carry[:, None, None, :]
        for index in range(start, stop):
            x = _normalise(widen(carry))
            if index == len(self.layer):
                return self.image(x)
            if index and index % 2 == 0:
                x = double(x)
            x = nn.leaky_relu(self.layer[index](x), _SLOPE)
            carry = shorten(x, self.precision)
        return carry


def proggan(
    *, z_dim: int, widths: Sequence[int], image_channels: int, precision: str = "float32"
) -> Generator:
    """Returns the generator; its side is 4 * 2^(number of widths - 1) pixels.

    widths: channels at 4x4, 8x8 pixels and so on. precision: of the features between layers,
    "float32" or "bfloat16".
    Raises: InputError for sizes that are not positive whole numbers, or an unknown precision.
    """
    sizes = (z_dim, image_channels, *widths)
    if not widths or any(type(size) is not int or size < 1 for size in sizes):
        raise InputError(
            "proggan: expected positive whole numbers z_dim, widths (one or more), image_channels; "
            f"got {z_dim}, {widths}, {image_channels}; convert the weights anew"
        )
    require_precision("proggan", precision)
    outputs = [width for width in widths for _ in range(2)]
    layers = [
        EditableLayer(
            path=f"layer{index}/conv/kernel",
            shape=(*((3, 3) if index else (4, 4)), inputs, features),
            resolution=4 << (index // 2),
            stage=index,
            original_name=f"features.{index}.conv.weight",
            aliases=(f"features.{index}", f"layer{index}"),
        )
        for index, (inputs, features) in enumerate(zip([z_dim, *outputs], outputs, strict=False))
    ]
    resolution = 4 << (len(widths) - 1)
    shape = (1, 1, widths[-1], image_channels)
    layers.append(
        EditableLayer("image/conv/kernel", shape, resolution, len(outputs), "output.conv.weight")
    )
    return Generator(
        architecture="proggan",
        network=ProgGAN(tuple(widths), image_channels, precision),
        space=NormalSpace(z_dim),
        resolution=resolution,
        image_channels=image_channels,
        mapping_stages=0,
        stages=len(outputs) + 1,
        layers=tuple(layers),
    )
