"""DCGAN (Radford, Metz, Chintala 2016) as its PyTorch example writes it.

Transposed convolutions 4x4 without a bias: the first makes 4x4 pixels of z, each other doubles
the side. Batch normalisation and ReLU between them, tanh at the end. Layer i is `conv{i}` here
and `main.{3i}` in the checkpoints; `norm{i}` is `main.{3i+1}`.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from navigan_jax.array_types import Array
from navigan_jax.errors import InputError
from navigan_jax.generators.base import EditableLayer, Generator
from navigan_jax.layers import ConvTranspose, FrozenBatchNorm, Unfolding


class DCGAN(nn.Module):
    """The network; stage i is layer i with what follows it."""

    widths: tuple[int, ...]  # channels after each layer but the last
    image_channels: int
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
            carry = self.conv[index](carry)
            last = index == len(self.widths)
            carry = jnp.tanh(carry) if last else nn.relu(self.norm[index](carry))
        return carry


def dcgan(*, z_dim: int, widths: Sequence[int], image_channels: int) -> Generator:
    """Returns the generator; its side is 4 * 2^(number of widths) pixels.

    Raises: InputError for sizes that are no positive whole numbers.
    """
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
        network=DCGAN(widths=tuple(widths), image_channels=image_channels),
        z_dim=z_dim,
        resolution=layers[-1].resolution,
        image_channels=image_channels,
        mapping_stages=0,
        stages=len(layers),
        layers=layers,
    )
