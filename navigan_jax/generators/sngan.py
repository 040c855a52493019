"""SNGAN's residual generator (Miyato et al. 2018), as NaviGAN and the official program use it.

A dense layer makes the first pixels from z. Each block doubles the side: batch normalisation, ReLU,
nearest upsampling, 3x3 convolution, batch normalisation, ReLU, 3x3 convolution. Beside it runs a
bypass of upsampling and, in most blocks, one convolution. Normalisation, ReLU, a 3x3 convolution
and tanh make the image.

Stage 0 is the dense layer, stage i is block i - 1, and the last stage makes the image. With
classes, each normalisation of a block has a gain and a bias for each class (Dumoulin et al. 2017).
"""

import itertools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from navigan_jax.array_types import Array, Images
from navigan_jax.errors import InputError
from navigan_jax.generators.base import EditableLayer, Generator, require_precision
from navigan_jax.generators.latent_space import NormalSpace
from navigan_jax.nn.affine import Conv, Dense, below
from navigan_jax.nn.layers import FrozenBatchNorm, shorten, widen
from navigan_jax.nn.resampling import double


class _Norm(nn.Module):
    """Batch normalisation; with classes, gain and bias are those of the label."""

    classes: int
    epsilon: float

    @nn.compact
    def __call__(self, x: Images, label: Array | None) -> Images:
        x = FrozenBatchNorm(self.epsilon, affine=not self.classes, name="norm")(x)
        if label is None:
            return x
        gain = Dense(x.shape[-1], use_bias=False, name="gain")(label)
        bias = Dense(x.shape[-1], use_bias=False, name="bias")(label)
        return x * gain[:, None, None] + bias[:, None, None]


class _Block(nn.Module):
    """A residual block, which doubles the side."""

    features: int
    bypass_side: int
    classes: int
    epsilon: float
    by_matmul: tuple[str, ...]

    @nn.compact
    def __call__(self, x: Images, label: Array | None = None) -> Images:
        def conv(name: str, side: int) -> Conv:
            is_edited = name in self.by_matmul
            return Conv(self.features, side, padding=side // 2, by_matmul=is_edited, name=name)

        h = nn.relu(_Norm(self.classes, self.epsilon, name="norm0")(x, label))
        h = conv("conv1", 3)(double(h))
        h = nn.relu(_Norm(self.classes, self.epsilon, name="norm1")(h, label))
        bypass = double(x)
        if self.bypass_side:
            bypass = conv("bypass", self.bypass_side)(bypass)
        return conv("conv2", 3)(h) + bypass


class SNGAN(nn.Module):
    """The network; fields are the keywords of `sngan`."""

    widths: tuple[int, ...]
    first_side: int
    image_channels: int
    bypass_sides: tuple[int, ...]
    epsilon: float
    z_dim: int
    classes: int
    precision: str
    by_matmul: tuple[str, ...] = ()

    def setup(self) -> None:
        self.dense = Dense(self.first_side**2 * self.widths[0])
        self.block = [
            _Block(
                width,
                self.bypass_sides[i],
                self.classes,
                self.epsilon,
                below(self.by_matmul, f"block{i}/"),
                name=f"block{i}",
            )
            for i, width in enumerate(self.widths[1:])
        ]
        self.norm = FrozenBatchNorm(self.epsilon)
        self.image = Conv(self.image_channels, 3, padding=1, by_matmul="image" in self.by_matmul)

    def run(self, carry: Any, start: int, stop: int) -> Any:
        for stage in range(start, stop):
            if stage == 0:
                carry = self._first(carry)
            elif stage <= len(self.block):
                x, *label = carry
                x = self.block[stage - 1](widen(x), *label)
                carry = shorten(x, self.precision), *label
            else:
                return jnp.tanh(self.image(nn.relu(self.norm(widen(carry[0])))))
        return carry

    def _first(self, latent: Array) -> tuple[Array, ...]:
        """Returns the first pixels, and the labels if there are classes."""
        z, label = latent[:, : self.z_dim], latent[:, self.z_dim :]
        # The weights of the file order the outputs by channel, then by pixel.
        x = self.dense(z).reshape(len(z), self.widths[0], self.first_side, self.first_side)
        x = shorten(x.transpose(0, 2, 3, 1), self.precision)
        return (x, label) if self.classes else (x,)


def sngan(
    *,
    z_dim: int,
    widths: Sequence[int],
    image_channels: int,
    bypass_sides: Sequence[int],
    first_side: int = 4,
    epsilon: float = 1e-5,
    label_dim: int = 0,
    label_names: Sequence[str] = (),
    label: int | str | None = None,
    precision: str = "float32",
) -> Generator:
    """Returns the generator; its side is `first_side` doubled once for each width but the first.

    widths: channels of the first pixels and after each block. bypass_sides: side of the kernel in
    each block's bypass, 1 or 3; 0 for a bypass without a kernel. epsilon: of the normalisations.
    label_dim: number of classes, 0 for none. label_names: of the classes; may be empty. label: the
    class of all sampled latents, by name or index; None: a random class for each. precision: of the
    features between stages, "float32" or "bfloat16".

    Raises: InputError for sizes that are not positive whole numbers, or an unknown precision.
    """
    sizes = (z_dim, image_channels, first_side, *widths)
    if len(widths) < 2 or any(type(size) is not int or size < 1 for size in sizes):
        raise InputError(
            "sngan: expected positive whole numbers z_dim, widths (two or more), image_channels, "
            f"first_side; got {z_dim}, {widths}, {image_channels}, {first_side}; convert the "
            "weights anew"
        )
    require_precision("sngan", precision)
    sides_fit = len(bypass_sides) == len(widths) - 1 and set(bypass_sides) <= {0, 1, 3}
    if not sides_fit or not epsilon > 0 or type(label_dim) is not int or label_dim < 0:
        raise InputError(
            "sngan: expected bypass_sides 0, 1 or 3 for each block, a positive epsilon, label_dim "
            f"0 or more; got {bypass_sides!r}, {epsilon!r}, {label_dim!r}; convert the weights anew"
        )
    return Generator(
        architecture="sngan",
        network=SNGAN(
            widths=tuple(widths),
            first_side=first_side,
            image_channels=image_channels,
            bypass_sides=tuple(bypass_sides),
            epsilon=epsilon,
            z_dim=z_dim,
            classes=label_dim,
            precision=precision,
        ),
        space=NormalSpace.of_classes(z_dim, label_dim, label_names, label),
        resolution=first_side << (len(widths) - 1),
        image_channels=image_channels,
        mapping_stages=0,
        stages=len(widths) + 1,
        layers=tuple(_layers(z_dim, widths, image_channels, first_side, bypass_sides, label_dim)),
    )


def _layers(
    z_dim: int,
    widths: Sequence[int],
    image_channels: int,
    first_side: int,
    bypass_sides: Sequence[int],
    classes: int,
) -> list[EditableLayer]:
    """Returns the layers in the order of the stages, with NaviGAN's names."""
    dense = EditableLayer("dense/kernel", (z_dim, first_side**2 * widths[0]), 1, 0, "0.weight")
    found = [dense]
    for block, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        stage, side, theirs = block + 1, first_side << (block + 1), block + 2
        if classes:
            for norm, width in (("norm0", inputs), ("norm1", outputs)):
                for part in ("gain", "bias"):
                    path = f"block{block}/{norm}/{part}/kernel"
                    name = f"{theirs}.{norm}.{part}.weight"
                    found.append(EditableLayer(path, (classes, width), 1, stage, name))
        for name, sides, width in (
            ("conv1", 3, inputs),
            ("conv2", 3, outputs),
            ("bypass", bypass_sides[block], inputs),
        ):
            if not sides:
                continue
            original = (
                f"{theirs}.bypass.1.weight" if name == "bypass" else f"{theirs}.{name}.weight"
            )
            shape = (sides, sides, width, outputs)
            found.append(EditableLayer(f"block{block}/{name}/kernel", shape, side, stage, original))
    last = len(widths)
    shape = (3, 3, widths[-1], image_channels)
    side = first_side << (last - 1)
    found.append(EditableLayer("image/kernel", shape, side, last, f"{last + 3}.weight"))
    return found
