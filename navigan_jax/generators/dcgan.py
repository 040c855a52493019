"""DCGAN (Radford, Metz, Chintala 2016) as in PyTorch's example.

All layers are 4x4 transposed convolutions without a bias: the first makes 4x4 pixels from z, and
each other one doubles the side. Batch normalisation and ReLU follow each layer but the last, which
ends in tanh. Layer i is `conv{i}` here and `main.{3i}` in checkpoints; `norm{i}` is `main.{3i+1}`.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from navigan_jax.array_types import Array
from navigan_jax.errors import InputError
from navigan_jax.generators.base import EditableLayer, Generator, require_precision
from navigan_jax.generators.latent_space import NormalSpace
from navigan_jax.nn.layers import (
    ConvTranspose,
    FrozenBatchNorm,
    Unfolding,
    shorten,
    widen,
)


class DCGAN(nn.Module):
    """The network; stage i is layer i with its normalisation and activation."""

    widths: tuple[int, ...]  # channels after each layer but the last
    image_channels: int
    precision: str = "float32"
    by_matmul: tuple[str, ...] = ()

    def setup(self) -> None:
        channels = (*self.widths, self.image_channels)
        self.conv = [
            ConvTranspose(
                features=features,
                side=4,
                stride=2 if index else 1,
                padding=1 if index else 0,
                by_matmul=f"conv{index}" in self.by_matmul,
                name=f"conv{index}",
            )
            for index, features in enumerate(channels)
        ]
        self.norm = [FrozenBatchNorm(name=f"norm{index}") for index in range(len(self.widths))]

    def run(self, carry: Any, start: int, stop: int) -> Array:
        if start == 0:
            carry = carry[:, None, None, :]
        for index in range(start, stop):
            x = self.conv[index](jax.tree.map(widen, carry))
            if index == len(self.widths):
                return jnp.tanh(x)
            carry = shorten(nn.relu(self.norm[index](x)), self.precision)
        return carry


def dcgan(
    *, z_dim: int, widths: Sequence[int], image_channels: int, precision: str = "float32"
) -> Generator:
    """Returns the generator; its side is 4 * 2^(number of widths) pixels.

    precision: of the features that go from layer to layer, "float32" or "bfloat16".
    Raises: InputError for sizes that are not positive whole numbers, or an unknown precision.
    """
    require_precision("dcgan", precision)
    sizes = (z_dim, image_channels, *widths)
    if not widths or any(not isinstance(size, int) or size < 1 for size in sizes):
        raise InputError(
            "dcgan: expected positive whole numbers z_dim, widths (one or more), image_channels; "
            f"got {z_dim}, {widths}, {image_channels}; convert the weights anew"
        )
    inputs, outputs = (z_dim, *widths), (*widths, image_channels)
    layers = tuple(
        EditableLayer(
            path=f"conv{index}/kernel",
            shape=(4, 4, inputs[index], outputs[index]),
            resolution=4 * 2**index,
            stage=index,
            original_name=f"main.{3 * index}.weight",
            unfolding=Unfolding.of(4, 2, 1) if index else None,  # z has no pixels yet
        )
        for index in range(len(outputs))
    )
    return Generator(
        architecture="dcgan",
        network=DCGAN(widths=tuple(widths), image_channels=image_channels, precision=precision),
        space=NormalSpace(z_dim),
        resolution=layers[-1].resolution,
        image_channels=image_channels,
        mapping_stages=0,
        stages=len(layers),
        layers=layers,
    )
