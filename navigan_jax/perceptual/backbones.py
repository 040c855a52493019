"""The feature networks of LPIPS: VGG16, AlexNet and SqueezeNet 1.1 up to their last tap.

A network returns its taps, the ReLU outputs that LPIPS compares. Layers are numbered in order of
use (conv0, conv1, ..., fire0, ...); paddings are explicit. Products use JAX's default precision: on
accelerators that round float32 inputs, raise it with `jax.default_matmul_precision`.
"""

from collections.abc import Sequence
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from navigan_jax.array_types import Array, Float, Images
from navigan_jax.nn import winograd

Maps = Float[Array, "batch height width channels"]
Taps = tuple[Maps, ...]


def max_pool(maps: Maps, window: int, *, ceil: bool = False) -> Maps:
    """Returns the maximum of windows of `window` × `window` at stride 2, without padding.

    The pool is a chain of selections between strided slices, one axis after the other, because
    XLA's own window reduction is slow to differentiate on a CPU: for maps [8, 64, 64, 64] and
    windows of 2, reverse mode took 21 ms on two cores, against 0.6 ms. Ties go to the first
    position of the window in row order and NaNs win, as in XLA's reduction.

    ceil: keep a last window that the border cuts off, instead of dropping it.
    """
    for axis in (2, 1):
        size = maps.shape[axis]
        count = (size - window + ceil) // 2 + 1
        missing = max(2 * (count - 1) + window - size, 0)
        if missing:
            widths = [(0, missing if i == axis else 0, 0) for i in range(maps.ndim)]
            maps = jax.lax.pad(maps, jnp.array(-jnp.inf, maps.dtype), widths)
        best, *others = (
            jax.lax.slice_in_dim(maps, start, start + 2 * count - 1, 2, axis)
            for start in range(window)
        )
        for other in others:
            best = jnp.where((other > best) | jnp.isnan(other), other, best)
        maps = best
    return maps


def _conv(features: int, kernel: int, *, stride: int = 1, padding: int = 0, name: str) -> nn.Conv:
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=((padding, padding), (padding, padding)),
        conv_general_dilated=winograd.convolve,
        name=name,
    )


class VGG16(nn.Module):
    """Source: Simonyan and Zisserman 2015, configuration D; each block ends with a tap."""

    blocks: ClassVar[Sequence[Sequence[int]]] = (
        (64, 64),
        (128, 128),
        (256, 256, 256),
        (512, 512, 512),
        (512, 512, 512),
    )
    channels: ClassVar[Sequence[int]] = (64, 128, 256, 512, 512)
    smallest: ClassVar[int] = 16  # four halvings leave one pixel

    @nn.compact
    def __call__(self, images: Images) -> Taps:
        taps: list[Maps] = []
        maps, index = images, 0
        for block in self.blocks:
            if taps:
                maps = max_pool(maps, 2)
            for width in block:
                maps = nn.relu(_conv(width, 3, padding=1, name=f"conv{index}")(maps))
                index += 1
            taps.append(maps)
        return tuple(taps)


class AlexNet(nn.Module):
    """Source: Krizhevsky 2014 (one tower); every convolution is a tap."""

    channels: ClassVar[Sequence[int]] = (64, 192, 384, 256, 256)
    smallest: ClassVar[int] = 31  # 31 → 7 → 3 → 1 through convolution and pools

    @nn.compact
    def __call__(self, images: Images) -> Taps:
        maps = nn.relu(_conv(64, 11, stride=4, padding=2, name="conv0")(images))
        taps = [maps]
        maps = nn.relu(_conv(192, 5, padding=2, name="conv1")(max_pool(maps, 3)))
        taps.append(maps)
        maps = max_pool(maps, 3)
        for index, width in ((2, 384), (3, 256), (4, 256)):
            maps = nn.relu(_conv(width, 3, padding=1, name=f"conv{index}")(maps))
            taps.append(maps)
        return tuple(taps)


class Fire(nn.Module):
    """Squeezes to few channels, then expands by a 1 × 1 and a 3 × 3 convolution side by side."""

    squeezed: int
    expanded: int

    @nn.compact
    def __call__(self, maps: Maps) -> Maps:
        maps = nn.relu(_conv(self.squeezed, 1, name="squeeze")(maps))
        pointwise = nn.relu(_conv(self.expanded, 1, name="expand1x1")(maps))
        spatial = nn.relu(_conv(self.expanded, 3, padding=1, name="expand3x3")(maps))
        return jnp.concatenate([pointwise, spatial], axis=-1)


class SqueezeNet(nn.Module):
    """Source: Iandola et al. 2016, release 1.1; pools keep the window that the border cuts off.

    There is a tap before each pool and after each of the last four Fire modules.
    """

    channels: ClassVar[Sequence[int]] = (64, 128, 256, 384, 384, 512, 512)
    smallest: ClassVar[int] = 17  # 17 → 8 → 4 → 2 → 1 through convolution and pools

    @nn.compact
    def __call__(self, images: Images) -> Taps:
        maps = nn.relu(_conv(64, 3, stride=2, name="conv0")(images))
        taps = [maps]
        for index, (squeezed, expanded) in ((0, (16, 64)), (2, (32, 128))):
            maps = max_pool(maps, 3, ceil=True)
            maps = Fire(squeezed, expanded, name=f"fire{index}")(maps)
            maps = Fire(squeezed, expanded, name=f"fire{index + 1}")(maps)
            taps.append(maps)
        maps = max_pool(maps, 3, ceil=True)
        for index, (squeezed, expanded) in enumerate(
            ((48, 192), (48, 192), (64, 256), (64, 256)), start=4
        ):
            maps = Fire(squeezed, expanded, name=f"fire{index}")(maps)
            taps.append(maps)
        return tuple(taps)


BACKBONES = {"vgg": VGG16, "alex": AlexNet, "squeeze": SqueezeNet}
