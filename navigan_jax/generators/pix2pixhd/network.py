"""pix2pixHD (Wang et al. 2018): images from label maps, by a global generator and enhancers.

The input is one plane for each label, and one of edges: pixels whose instance number differs from
that of a neighbour. The global generator has a 7x7 convolution, convolutions that halve the side,
residual blocks, transposed convolutions that double it, and a 7x7 convolution with tanh. With
enhancers it works on the input at a lower side (mean of 3x3 pixels), without its last convolution;
each enhancer adds features of the input at twice the side, and doubles again. All convolutions are
followed by instance normalisation and ReLU; borders are mirrored where the side stays.

Each convolution is a stage, but those of a residual block are one, and so are the first two of an
enhancer. Stages before the last enhancer hand on the latent too.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax.array_types import Array, Float, Images
from navigan_jax.errors import InputError
from navigan_jax.generators.base import EditableLayer, Generator, require_precision
from navigan_jax.generators.pix2pixhd.label_maps import LabelMaps
from navigan_jax.nn.affine import Conv, below
from navigan_jax.nn.layers import ConvTranspose, shorten, widen

_EPSILON = 1e-5


def _normalise(x: Images) -> Images:
    """Returns each channel of each image with mean 0 and variance 1."""
    mean = jnp.mean(x, axis=(1, 2), keepdims=True)
    var = jnp.mean((x - mean) ** 2, axis=(1, 2), keepdims=True)
    return (x - mean) * jax.lax.rsqrt(var + _EPSILON)


def find_edges(instances: Float[Array, "batch height width"]) -> Float[Array, "batch height width"]:
    """Returns 1 where the instance number differs from that of one of the 4 neighbours, else 0."""
    found = jnp.zeros(instances.shape, bool)
    for axis in (1, 2):
        differs = jnp.diff(instances, axis=axis) != 0
        for before in (True, False):
            padding = [(0, 0)] * 3
            padding[axis] = (1, 0) if before else (0, 1)
            found = found | jnp.pad(differs, padding)
    return found.astype(jnp.float32)


def halve(planes: Images) -> Images:
    """Returns the mean of 3x3 pixels around every second one; pixels outside do not count."""
    _, height, width, _ = planes.shape
    padded = jnp.pad(planes, ((0, 0), (1, 1), (1, 1), (0, 0)))
    # A sum of slices: XLA on CPU takes ten times as long for a window reduction.
    total = sum(
        padded[:, row : row + height : 2, column : column + width : 2]
        for row in range(3)
        for column in range(3)
    )
    rows, columns = (
        np.minimum(np.arange(0, size, 2) + 2, size) - np.maximum(np.arange(0, size, 2) - 1, 0)
        for size in (height, width)
    )
    counts = jnp.asarray(rows[:, None] * columns[None], planes.dtype)
    return total / counts[None, :, :, None]


class _Block(nn.Module):
    by_matmul: tuple[str, ...]

    @nn.compact
    def __call__(self, x: Images) -> Images:
        def conv(name: str) -> Conv:
            is_edited = name in self.by_matmul
            return Conv(x.shape[-1], 3, padding=1, mirrored=True, by_matmul=is_edited, name=name)

        y = nn.relu(_normalise(conv("conv0")(x)))
        return x + _normalise(conv("conv1")(y))


class Pix2PixHD(nn.Module):
    """The network; fields are the keywords of `pix2pixhd`.

    steps: (name of the submodule, kind, features) of each stage; see `_steps`.
    """

    labels: int
    has_instances: bool
    steps: tuple[tuple[str, str, int], ...]
    precision: str
    by_matmul: tuple[str, ...] = ()

    def setup(self) -> None:
        layers: dict[str, nn.Module] = {}
        for name, kind, features in self.steps:
            if kind == "block":
                layers[name] = _Block(below(self.by_matmul, f"{name}/"), name=name)
            elif kind == "enhance":
                layers[f"{name}_conv"] = self._conv(f"{name}_conv", "first", features)
                layers[f"{name}_down"] = self._conv(f"{name}_down", "down", 2 * features)
            else:
                layers[name] = self._conv(name, kind, features)
        self.layers = layers

    def _conv(self, name: str, kind: str, features: int) -> nn.Module:
        is_edited = name in self.by_matmul
        if kind == "down":
            return Conv(features, 3, stride=2, padding=1, by_matmul=is_edited, name=name)
        if kind == "up":
            return ConvTranspose(
                features, 3, 2, 1, extra=1, use_bias=True, by_matmul=is_edited, name=name
            )
        return Conv(features, 7, padding=3, mirrored=True, by_matmul=is_edited, name=name)

    def run(self, carry: Any, start: int, stop: int) -> Any:
        enhancers = [i for i, (_, kind, _) in enumerate(self.steps) if kind == "enhance"]
        for stage in range(start, stop):
            name, kind, _ = self.steps[stage]
            if stage == 0:
                x, latent = self._planes(carry, len(enhancers)), carry
            else:
                x, *rest = carry if isinstance(carry, tuple) else (carry,)
                x, latent = widen(x), rest[0] if rest else None
            if kind == "image":
                return jnp.tanh(self.layers[name](x))
            if kind == "block":
                x = self.layers[name](x)
            elif kind == "enhance":
                later = sum(stage < place for place in enhancers)
                y = self._planes(latent, later)
                y = nn.relu(_normalise(self.layers[f"{name}_conv"](y)))
                x = x + nn.relu(_normalise(self.layers[f"{name}_down"](y)))
            else:
                x = nn.relu(_normalise(self.layers[name](x)))
            x = shorten(x, self.precision)
            carry = (x, latent) if any(stage < place for place in enhancers) else x
        return carry

    def _planes(self, latent: Any, halvings: int) -> Images:
        """Returns the planes of labels and edges, halved; other latents are such planes already."""
        planes = latent
        if latent.shape[-1] == 1 + int(self.has_instances):
            planes = jax.nn.one_hot(latent[..., 0].astype(jnp.int32), self.labels)
            if self.has_instances:
                edges = find_edges(latent[..., 1])[..., None]
                planes = jnp.concatenate([planes, edges], axis=-1)
        for _ in range(halvings):
            planes = halve(planes)
        return planes


def pix2pixhd(
    *,
    labels: int,
    has_instances: bool,
    width_first: int,
    halvings: int,
    blocks: int,
    enhancer_blocks: Sequence[int] = (),
    image_channels: int = 3,
    height: int,
    width: int,
    precision: str = "float32",
) -> Generator:
    """Returns the generator for images of that size.

    labels: number of labels. has_instances: whether edges between instances are an input.
    width_first: channels of the global generator's first convolution; each halving doubles them.
    blocks: residual blocks of the global generator. enhancer_blocks: of each enhancer, the coarsest
    first. precision: of the features between stages, "float32" or "bfloat16".

    Raises: InputError for sizes that do not fit.
    """
    enhancers = len(enhancer_blocks)
    sizes = (labels, width_first, halvings, blocks, image_channels, height, width, *enhancer_blocks)
    factor = 2 ** (halvings + enhancers) if type(halvings) is int and 0 < halvings < 16 else 1
    fits = all(type(size) is int and size > 0 for size in sizes) and width_first % 2**enhancers == 0
    if not fits or height % factor or width % factor or min(height, width) < 4 * factor:
        raise InputError(
            "pix2pixhd: expected positive whole numbers, and a height and width that are multiples "
            f"of 2^(halvings + enhancers) and at least four times that; got labels {labels}, "
            f"width_first {width_first}, halvings {halvings}, blocks {blocks}, enhancer_blocks "
            f"{list(enhancer_blocks)}, image_channels {image_channels}, {height}x{width} pixels; "
            "convert the weights anew, with another --size"
        )
    require_precision("pix2pixhd", precision)
    steps = tuple(_steps(width_first, halvings, blocks, enhancer_blocks, image_channels))
    return Generator(
        architecture="pix2pixhd",
        network=Pix2PixHD(
            labels=labels, has_instances=has_instances, steps=steps, precision=precision
        ),
        space=LabelMaps(height, width, labels, has_instances),
        resolution=height,
        width=width,
        image_channels=image_channels,
        mapping_stages=0,
        stages=len(steps),
        layers=tuple(_layers(steps, labels + int(has_instances), height >> enhancers)),
    )


def _steps(
    first: int, halvings: int, blocks: int, enhancer_blocks: Sequence[int], image_channels: int
) -> list[tuple[str, str, int]]:
    """Returns (name, kind, features) of each stage, in order."""
    steps = [("global_conv", "first", first)]
    steps += [(f"global_down{i}", "down", first << (i + 1)) for i in range(halvings)]
    steps += [(f"global_block{i}", "block", first << halvings) for i in range(blocks)]
    steps += [(f"global_up{i}", "up", first << (halvings - 1 - i)) for i in range(halvings)]
    for number, count in enumerate(enhancer_blocks, start=1):
        features = first >> number
        steps.append((f"enhancer{number}", "enhance", features))
        steps += [(f"enhancer{number}_block{i}", "block", 2 * features) for i in range(count)]
        steps.append((f"enhancer{number}_up", "up", features))
    return [*steps, ("image", "image", image_channels)]


def _layers(steps: Sequence[tuple[str, str, int]], planes: int, side: int) -> list[EditableLayer]:
    """Returns the layers in the order of the stages, with the authors' names.

    side: height of the images that the global generator makes.
    """
    found: list[EditableLayer] = []
    inputs, part, index = planes, "model", 1  # index: of the next convolution in a part
    for stage, (name, kind, features) in enumerate(steps):
        if kind == "enhance":
            number = name.removeprefix("enhancer")
            layers = [
                (f"{name}_conv", (7, 7, planes, features), f"model{number}_1.1", 2 * side),
                (f"{name}_down", (3, 3, features, 2 * features), f"model{number}_1.4", side),
            ]
            inputs, part, index = 2 * features, f"model{number}_2", 0
        elif kind == "block":
            shape = (3, 3, features, features)
            layers = [
                (f"{name}/conv{conv}", shape, f"{part}.{index}.conv_block.{1 + 4 * conv}", side)
                for conv in range(2)
            ]
            index += 1
        else:
            side = {"down": side // 2, "up": 2 * side}.get(kind, side)
            kernel = 7 if kind in ("first", "image") else 3
            place = index + (kind == "image")  # its mirrored border is a module of its own
            layers = [(name, (kernel, kernel, inputs, features), f"{part}.{place}", side)]
            inputs, index = features, index + 3
        found += [
            EditableLayer(f"{path}/kernel", shape, pixels, stage, f"{original}.weight")
            for path, shape, original, pixels in layers
        ]
    return found
