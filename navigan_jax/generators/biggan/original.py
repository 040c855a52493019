"""BigGAN (Brock, Donahue, Simonyan 2019), as its author's PyTorch program writes it.

z is split in equal parts. A dense layer makes the first pixels from the first part; block i is
conditioned on the shared embedding of the class followed by part i + 1. A block doubles the side:
normalisation, ReLU, nearest upsampling, 3x3 convolution, normalisation, ReLU, 3x3 convolution;
beside it run upsampling and a 1x1 convolution. Attention follows one block or several. Without a
hierarchy, all parts are the whole z and a block sees the class alone.

Stage 0 embeds the class, stage 1 makes the first pixels, then come blocks and attentions, and the
last stage makes the image.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from navigan_jax.array_types import Array, Float, Images
from navigan_jax.errors import InputError
from navigan_jax.generators.base import EditableLayer, Generator, require_precision
from navigan_jax.generators.biggan.layers import IMAGE_CHANNELS, Attention, Norm
from navigan_jax.generators.latent_space import NormalSpace
from navigan_jax.nn.affine import Conv, Dense, below
from navigan_jax.nn.layers import shorten, widen
from navigan_jax.nn.resampling import double

# The program hands its setting to the norms of the blocks, and this to the last norm.
_LAST_EPSILON = 1e-5


class _Block(nn.Module):
    features: int
    epsilon: float
    by_matmul: tuple[str, ...]

    @nn.compact
    def __call__(self, x: Images, condition: Float[Array, "batch condition"]) -> Images:
        def conv(name: str, side: int) -> Conv:
            is_edited = name in self.by_matmul
            return Conv(self.features, side, padding=side // 2, by_matmul=is_edited, name=name)

        h = nn.relu(Norm(self.epsilon, name="bn1")(x, condition))
        h = conv("conv1", 3)(double(h))
        h = nn.relu(Norm(self.epsilon, name="bn2")(h, condition))
        return conv("conv2", 3)(h) + conv("conv_sc", 1)(double(x))


class BigGAN(nn.Module):
    """The network; fields are the keywords of `biggan`.

    steps: after the first two stages: ("block", i) and ("attention", i), in the order of the file.
    """

    z_dim: int
    widths: tuple[int, ...]
    first_side: int
    embedding: int
    steps: tuple[tuple[str, int], ...]
    hierarchical: bool
    epsilon: float
    precision: str
    by_matmul: tuple[str, ...] = ()

    def setup(self) -> None:
        self.shared = Dense(self.embedding, use_bias=False)
        self.linear = Dense(self.first_side**2 * self.widths[0])
        self.part = [self._make(kind, number) for kind, number in self.steps]
        self.norm = Norm(_LAST_EPSILON)
        is_edited = "image" in self.by_matmul
        self.image = Conv(IMAGE_CHANNELS, 3, padding=1, by_matmul=is_edited)

    def _make(self, kind: str, number: int) -> nn.Module:
        name = f"{kind}{number}"
        by_matmul = below(self.by_matmul, f"{name}/")
        if kind == "attention":
            return Attention(by_matmul, name=name)
        return _Block(self.widths[number + 1], self.epsilon, by_matmul, name=name)

    def run(self, carry: Any, start: int, stop: int) -> Any:
        for stage in range(start, stop):
            if stage == 0:
                carry = carry[:, : self.z_dim], self.shared(carry[:, self.z_dim :])
                continue
            *features, z, y = carry
            if stage == 1:
                x = self._first(z)
            elif stage - 2 < len(self.steps):
                x = self._step(stage - 2, widen(features[0]), z, y)
            else:
                x = nn.relu(self.norm(widen(features[0])))
                return jnp.tanh(self.image(x))
            carry = shorten(x, self.precision), z, y
        return carry

    def _chunk(self, z: Array, index: int) -> Array:
        """Returns part `index` of z; without a hierarchy, part 0 is all, and the rest is empty."""
        if not self.hierarchical:
            return z if index == 0 else z[:, :0]
        size = self.z_dim // len(self.widths)
        return z[:, index * size : (index + 1) * size]

    def _first(self, z: Array) -> Images:
        side = self.first_side
        x = self.linear(self._chunk(z, 0))
        # The weights of the file order the outputs by channel, then by pixel.
        return x.reshape(len(z), -1, side, side).transpose(0, 2, 3, 1)

    def _step(self, index: int, x: Images, z: Array, y: Array) -> Images:
        kind, number = self.steps[index]
        if kind == "attention":
            return self.part[index](x)
        condition = jnp.concatenate([y, self._chunk(z, number + 1)], axis=1)
        return self.part[index](x, condition)


def biggan(
    *,
    z_dim: int,
    label_dim: int,
    embedding: int,
    widths: Sequence[int],
    attention: Sequence[int],
    first_side: int = 4,
    hierarchical: bool = True,
    epsilon: float = 1e-5,
    label_names: Sequence[str] = (),
    label: int | str | None = None,
    truncation: float = 1.0,
    precision: str = "float32",
) -> Generator:
    """Returns the generator; its side is `first_side` doubled once for each width but the first.

    z_dim: with a hierarchy, a multiple of the number of widths. label_dim: number of classes.
    embedding: size of the embedded class. widths: channels of the first pixels and after each
    block. attention: the blocks that attention follows. hierarchical: whether each block has its
    own part of z. epsilon: of the normalisations in blocks; that of the last one is fixed.
    label_names: of the classes; may be empty. label: the class of all sampled latents, by name or
    index; None: a random class for each. truncation: the largest entry of a sampled z,
    as larger ones are drawn anew; 1: none are, as in NaviGAN's program, and z is normal.
    precision: of the features between stages, "float32" or "bfloat16".

    Raises: InputError for sizes that do not fit.
    """
    blocks = len(widths) - 1
    sizes = (z_dim, label_dim, embedding, first_side, *widths)
    fits = (
        blocks > 0
        and all(type(size) is int and size > 0 for size in sizes)
        and list(attention) == sorted(set(attention) & set(range(blocks)))
        and (not hierarchical or z_dim % len(widths) == 0)
        and epsilon > 0
    )
    if not fits:
        raise InputError(
            "biggan: expected positive whole numbers z_dim (in a hierarchy, a multiple of the "
            "number of widths), label_dim, embedding, widths (two or more), and blocks with "
            f"attention; got {z_dim}, {label_dim}, {embedding}, {widths}, {attention}; convert the "
            "weights anew"
        )
    require_precision("biggan", precision)
    if not 0 < truncation < math.inf:
        raise InputError(
            "biggan: truncation: expected a number above 0, the largest entry of z, or 1 for a z "
            f"without a bound; got {truncation!r}; correct it where it was set"
        )
    steps = [
        step
        for block in range(blocks)
        for step in (("block", block), *([("attention", block)] if block in attention else []))
    ]
    chunk = z_dim // len(widths) if hierarchical else 0
    return Generator(
        architecture="biggan",
        network=BigGAN(
            z_dim=z_dim,
            widths=tuple(widths),
            first_side=first_side,
            embedding=embedding,
            steps=tuple(steps),
            hierarchical=hierarchical,
            epsilon=epsilon,
            precision=precision,
        ),
        space=NormalSpace.of_classes(
            z_dim,
            label_dim,
            label_names,
            label,
            bound=None if truncation == 1 else truncation,
        ),
        resolution=first_side << blocks,
        image_channels=IMAGE_CHANNELS,
        mapping_stages=0,
        stages=len(steps) + 3,
        layers=tuple(
            _layers(label_dim, embedding, chunk or z_dim, chunk, widths, steps, first_side)
        ),
    )


def _layers(
    classes: int,
    embedding: int,
    first: int,
    chunk: int,
    widths: Sequence[int],
    steps: Sequence[tuple[str, int]],
    first_side: int,
) -> list[EditableLayer]:
    """Returns the layers in the order of the stages. first: inputs of the first dense layer."""
    found = [
        EditableLayer("shared/kernel", (classes, embedding), 1, 0, "shared.weight"),
        EditableLayer("linear/kernel", (first, first_side**2 * widths[0]), 1, 1, "linear.weight"),
    ]
    for stage, (kind, block) in enumerate(steps, start=2):
        inputs, outputs, side = widths[block], widths[block + 1], first_side << (block + 1)
        shapes: dict[str, tuple[int, ...]] = {}
        if kind == "attention":
            features = {"theta": outputs // 8, "phi": outputs // 8, "g": outputs // 2}
            shapes = {name: (1, 1, outputs, size) for name, size in features.items()}
            shapes["o"] = (1, 1, outputs // 2, outputs)
        else:
            for norm, width in (("bn1", inputs), ("bn2", outputs)):
                for part in ("gain", "bias"):
                    path = f"block{block}/{norm}/{part}/kernel"
                    name = f"blocks.{block}.0.{norm}.{part}.weight"
                    sizes = (embedding + chunk, width)
                    found.append(EditableLayer(path, sizes, 1, stage, name))
            shapes["conv1"] = (3, 3, inputs, outputs)
            shapes["conv2"] = (3, 3, outputs, outputs)
            shapes["conv_sc"] = (1, 1, inputs, outputs)
        for name, shape in shapes.items():
            original = f"blocks.{block}.{int(kind == 'attention')}.{name}.weight"
            found.append(
                EditableLayer(f"{kind}{block}/{name}/kernel", shape, side, stage, original)
            )
    shape, side = (3, 3, widths[-1], IMAGE_CHANNELS), first_side << (len(widths) - 1)
    found.append(
        EditableLayer("image/kernel", shape, side, len(steps) + 2, "output_layer.2.weight")
    )
    return found
