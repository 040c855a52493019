"""BigGAN-deep (Brock, Donahue, Simonyan 2019), as Hugging Face distributes it.

The condition is z followed by the embedded class. A dense layer makes the first pixels from it, and
each normalisation has its gain and bias from it. A block has four convolutions: 1x1 to a quarter of
the channels, two of 3x3, and 1x1; some blocks double the side before the second. The shortcut keeps
the first channels. Attention stands between two blocks. The first three channels of the last
convolution are the image.

The statistics of normalisation are stored for several truncations; see `layers.between`.
Stage 0 embeds the class, stage 1 makes the first pixels, then come blocks and attention, and the
last stage makes the image.
"""

import itertools
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

_FIRST_SIDE = 4
_BOUND = 2.0  # z is drawn within two standard deviations


class _Block(nn.Module):
    outputs: int
    doubles: bool
    epsilon: float
    entries: int
    truncation: float
    by_matmul: tuple[str, ...]

    @nn.compact
    def __call__(self, x: Images, condition: Float[Array, "batch condition"]) -> Images:
        middle = x.shape[-1] // 4

        def normed(index: int, y: Images) -> Images:
            norm = Norm(
                self.epsilon, entries=self.entries, truncation=self.truncation, name=f"bn_{index}"
            )
            return nn.relu(norm(y, condition))

        def conv(index: int, features: int, side: int) -> Conv:
            name = f"conv_{index}"
            is_edited = name in self.by_matmul
            return Conv(features, side, padding=side // 2, by_matmul=is_edited, name=name)

        y = conv(0, middle, 1)(normed(0, x))
        y = normed(1, y)
        y = conv(1, middle, 3)(double(y) if self.doubles else y)
        y = conv(2, middle, 3)(normed(2, y))
        y = conv(3, self.outputs, 1)(normed(3, y))
        x = x[..., : self.outputs]
        return y + (double(x) if self.doubles else x)


class BigGANDeep(nn.Module):
    """The network; fields are the keywords of `biggan_deep`.

    steps: after the first two stages, the file's layers: None for attention, or (outputs, doubles)
    of a block.
    """

    z_dim: int
    first_width: int
    embedding: int
    steps: tuple[tuple[int, bool] | None, ...]
    epsilon: float
    entries: int
    truncation: float
    precision: str
    by_matmul: tuple[str, ...] = ()

    def setup(self) -> None:
        self.embed = Dense(self.embedding, use_bias=False)
        self.gen_z = Dense(_FIRST_SIDE**2 * self.first_width)
        self.layer = [self._make(i, step) for i, step in enumerate(self.steps)]
        self.norm = Norm(self.epsilon, entries=self.entries, truncation=self.truncation)
        width = next(step[0] for step in reversed(self.steps) if step is not None)
        self.image = Conv(width, 3, padding=1, by_matmul="image" in self.by_matmul)

    def _make(self, index: int, step: tuple[int, bool] | None) -> nn.Module:
        name = f"layer{index}"
        by_matmul = below(self.by_matmul, f"{name}/")
        if step is None:
            return Attention(by_matmul, name=name)
        return _Block(*step, self.epsilon, self.entries, self.truncation, by_matmul, name=name)

    def run(self, carry: Any, start: int, stop: int) -> Any:
        for stage in range(start, stop):
            if stage == 0:
                z, label = carry[:, : self.z_dim], carry[:, self.z_dim :]
                carry = (jnp.concatenate([z, self.embed(label)], axis=1),)
                continue
            *features, condition = carry
            if stage == 1:
                x = self.gen_z(condition)
                x = x.reshape(len(x), _FIRST_SIDE, _FIRST_SIDE, self.first_width)
            elif stage - 2 < len(self.steps):
                x = self._step(stage - 2, widen(features[0]), condition)
            else:
                x = self.image(nn.relu(self.norm(widen(features[0]))))
                return jnp.tanh(x[..., :IMAGE_CHANNELS])
            carry = shorten(x, self.precision), condition
        return carry

    def _step(self, index: int, x: Images, condition: Array) -> Images:
        arguments = (x,) if self.steps[index] is None else (x, condition)
        return self.layer[index](*arguments)


def biggan_deep(
    *,
    z_dim: int,
    label_dim: int,
    embedding: int,
    first_width: int,
    outputs: Sequence[int],
    doubles: Sequence[bool],
    attention: Sequence[int],
    entries: int = 51,
    epsilon: float = 1e-4,
    label_names: Sequence[str] = (),
    label: int | str | None = None,
    truncation: float = 1.0,
    precision: str = "float32",
) -> Generator:
    """Returns the generator; its side is 4 doubled once for each block that doubles.

    label_dim: number of classes. embedding: size of the embedded class. first_width: channels of
    the first pixels. outputs, doubles: channels after each block, and whether it doubles the side.
    attention: the places of attention among the layers of the file. entries: the number of
    truncations that have statistics. epsilon: of the normalisations.
    label_names, label, precision: as in `biggan`. truncation: from 0 to 1, the factor of the
    sampled z, which lies within two standard deviations; it also chooses the statistics.

    Raises: InputError for sizes that do not fit.
    """
    sizes = (z_dim, label_dim, embedding, first_width, entries, *outputs)
    count = len(outputs) + len(attention)
    widths = [first_width, *outputs]
    fits = (
        len(outputs) > 0
        and len(outputs) == len(doubles)
        and all(type(size) is int and size > 0 for size in sizes)
        and all(width % 4 == 0 for width in widths[:-1])
        and all(after <= before for before, after in itertools.pairwise(widths))
        and list(attention) == sorted(set(attention) & set(range(count)))
        and epsilon > 0
    )
    if not fits:
        raise InputError(
            "biggan_deep: expected positive whole numbers z_dim, label_dim, embedding, "
            "first_width, entries, outputs that do not grow, doubles for each of them, and places "
            f"of attention; got {z_dim}, {label_dim}, {embedding}, {first_width}, {entries}, "
            f"{outputs}, {doubles}, {attention}; convert the weights anew"
        )
    require_precision("biggan_deep", precision)
    if not 0 <= truncation <= 1:
        raise InputError(
            "biggan_deep: truncation: expected a number from 0 to 1, for which there are "
            f"statistics; got {truncation!r}; correct it where it was set"
        )
    blocks = iter(zip(outputs, map(bool, doubles), strict=True))
    steps = tuple(None if place in attention else next(blocks) for place in range(count))
    return Generator(
        architecture="biggan_deep",
        network=BigGANDeep(
            z_dim=z_dim,
            first_width=first_width,
            embedding=embedding,
            steps=steps,
            epsilon=epsilon,
            entries=entries,
            truncation=truncation,
            precision=precision,
        ),
        space=NormalSpace.of_classes(
            z_dim,
            label_dim,
            label_names,
            label,
            bound=_BOUND,
            scale=truncation,
        ),
        resolution=_FIRST_SIDE << sum(map(bool, doubles)),
        image_channels=IMAGE_CHANNELS,
        mapping_stages=0,
        stages=count + 3,
        layers=tuple(_layers(z_dim, label_dim, embedding, first_width, steps)),
    )


def _layers(
    z_dim: int,
    classes: int,
    embedding: int,
    first_width: int,
    steps: Sequence[tuple[int, bool] | None],
) -> list[EditableLayer]:
    """Returns the layers in the order of the stages, with the names of Hugging Face."""
    condition, width, side = z_dim + embedding, first_width, _FIRST_SIDE
    shape: tuple[int, ...] = (condition, _FIRST_SIDE**2 * first_width)
    found: list[EditableLayer] = [
        EditableLayer("embed/kernel", (classes, embedding), 1, 0, "embeddings.weight"),
        EditableLayer("gen_z/kernel", shape, 1, 1, "generator.gen_z.weight"),
    ]
    for index, step in enumerate(steps):
        stage, theirs = index + 2, f"generator.layers.{index}"
        if step is None:
            names = ("theta", "phi", "g", "o")
            shapes = (
                (width, width // 8),
                (width, width // 8),
                (width, width // 2),
                (width // 2, width),
            )
            for name, sizes in zip(names, shapes, strict=True):
                original = f"{theirs}.snconv1x1_{'o_conv' if name == 'o' else name}.weight"
                path = f"layer{index}/{name}/kernel"
                found.append(EditableLayer(path, (1, 1, *sizes), side, stage, original))
            continue
        outputs, doubles = step
        middle = width // 4
        after = 2 * side if doubles else side
        inputs = (width, middle, middle, middle)
        for norm, size in enumerate(inputs):
            for part, name in (("gain", "scale"), ("bias", "offset")):
                path, original = f"layer{index}/bn_{norm}/{part}/kernel", f"bn_{norm}.{name}.weight"
                found.append(
                    EditableLayer(path, (condition, size), 1, stage, f"{theirs}.{original}")
                )
        kernels = ((1, middle, side), (3, middle, after), (3, middle, after), (1, outputs, after))
        for conv, (size, features, pixels) in enumerate(kernels):
            path, shape = f"layer{index}/conv_{conv}/kernel", (size, size, inputs[conv], features)
            original = f"{theirs}.conv_{conv}.weight"
            found.append(EditableLayer(path, shape, pixels, stage, original))
        width, side = outputs, after
    shape = (3, 3, width, width)
    last = len(steps) + 2
    found.append(EditableLayer("image/kernel", shape, side, last, "generator.conv_to_rgb.weight"))
    return found
