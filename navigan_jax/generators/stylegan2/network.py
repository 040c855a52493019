"""StyleGAN2 (Karras et al. 2020) in all forms in which its weights are published.

A mapping network computes w from z, and from the label in a generator with labels. Each layer of
the synthesis takes its style from its own row of w_plus. In a generator with labels, a latent is z
followed by a one-hot label. Style mixing combines rows of two w_plus.

Departures from the official programs:
1. A modulated convolution scales its input by the style and its output by the demodulation, around
   one convolution for the whole batch; kernels of single samples are never made.
2. Demodulation adds its 1e-8 to the squares of the scaled kernel, as the TensorFlow program does.
   NVIDIA's PyTorch program adds it to the squares of the stored kernel; the difference is less than
   rounding.
3. Noise is constant or absent unless a key is given for fresh noise.
4. Truncation works with any factor; the rosinality program ignores factors above 1.
"""

import math
from typing import Any

import flax.linen as nn

from navigan_jax.errors import InputError
from navigan_jax.generators.base import Generator
from navigan_jax.generators.latent_space import NormalSpace
from navigan_jax.generators.stylegan2.mapping import Mapping
from navigan_jax.generators.stylegan2.stages import (
    mapping_layers,
    synthesis_layers,
    synthesis_steps,
)
from navigan_jax.generators.stylegan2.synthesis import Synthesis
from navigan_jax.nn.layers import PRECISIONS

BLOCKS = ("skip", "resnet", "orig")
LABELS = ("embedded", "concatenated")
NOISES = ("constant", "random", "none")


class StyleGAN2(nn.Module):
    """The network; fields are the keywords of `stylegan2`."""

    z_dim: int
    label_width: int
    labels: str
    mapping_widths: tuple[int, ...]
    mapping_rate: float
    channels: tuple[int, ...]
    first_size: tuple[int, int]
    image_channels: int
    blocks: str
    resample_taps: tuple[float, ...]
    clamp: float | None
    noise: str
    noise_seed: int
    truncation: float
    truncated_rows: int
    precision: str
    by_matmul: tuple[str, ...] = ()
    stride: int = 1

    def setup(self) -> None:
        self.mapping = Mapping(
            widths=self.mapping_widths,
            rows=2 * len(self.channels),
            rate=self.mapping_rate,
            z_dim=self.z_dim,
            label_width=self.label_width,
            labels=self.labels,
            truncation=self.truncation,
            truncated_rows=self.truncated_rows,
        )
        self.synthesis = Synthesis(
            channels=self.channels,
            first_size=self.first_size,
            image_channels=self.image_channels,
            blocks=self.blocks,
            taps=self.resample_taps,
            clamp=self.clamp,
            noise=self.noise,
            noise_seed=self.noise_seed,
            by_matmul=tuple(path.removeprefix("synthesis/") for path in self.by_matmul),
            stride=self.stride,
            precision=self.precision,
        )

    def run(self, carry: Any, start: int, stop: int) -> Any:
        layers = len(self.mapping_widths)
        for index in range(start, min(stop, layers)):
            carry = self.mapping(carry, index)
        if stop > layers:
            carry = self.synthesis(carry, max(start - layers, 0), stop - layers)
        return carry


def stylegan2(
    *,
    z_dim: int,
    label_dim: int,
    label_width: int,
    labels: str,
    mapping_widths: tuple[int, ...],
    mapping_rate: float,
    channels: tuple[int, ...],
    image_channels: int,
    blocks: str,
    resample_taps: tuple[float, ...],
    clamp: float | None,
    first_size: tuple[int, int] = (4, 4),
    label_names: tuple[str, ...] = (),
    noise: str = "constant",
    noise_seed: int = 0,
    truncation: float = 1.0,
    truncation_cutoff: int | None = None,
    label: int | str | None = None,
    precision: str = "float32",
) -> Generator:
    """Returns the generator; its sides are `first_size` times 2^(number of channels - 1).

    label_dim: number of classes, 0 for none. label_width: size of the embedded label, the input of
      the mapping's first layer beside z. labels: how a label is embedded; "embedded": by a dense
      layer, normalised separately from z; "concatenated": by a matrix, normalised together with z,
      as in the first TensorFlow program.
    mapping_widths: outputs of the mapping's layers; the last is the size of w. mapping_rate: their
      learning-rate multiplier.
    channels: at 4x4 pixels, 8x8 and so on. blocks: "skip" sums the images of all resolutions,
      "resnet" sums features, "orig" sums nothing. first_size: height and width of the constant.
    resample_taps: the filter along one axis, with any sum. clamp: bound of activations, if any.
    noise: "constant": stored with the weights; "random": drawn from noise_seed instead; "none". For
      noise that differs between samples, give `synthesize` a key.
    truncation: factor of w - w_avg; 1 leaves w unchanged. truncation_cutoff: the number of first
      rows of w_plus that are truncated; None: all.
    label_names: of the classes, in order; may be empty. label: the class of all sampled latents, by
      name or index; None: a random class for each.
    precision: of the features between layers, "float32" or "bfloat16". Weights, the computation
      inside a layer, the mapping and the image are always float32. With bfloat16, the kept input of
      the edited layers takes half the memory. Images of config-f at 256 pixels (random weights) and
      the gradient of a layer differ from float32 by 3e-3 of their standard deviation, root mean
      square; the cosine of both is 1 - 5e-6. A smaller change of an image is lost in the rounding,
      unless it is averaged over many pixels or computed as a derivative.

    Raises: InputError for sizes that are not positive whole numbers, or unknown words.
    """
    rows = 2 * len(channels)
    sizes: dict[str, tuple[int, ...]] = {
        "z_dim": (z_dim,),
        "image_channels": (image_channels,),
        "mapping_widths": mapping_widths,
        "channels": channels,
    }
    for name, values in sizes.items():
        are_sizes = len(values) > 0 and all(map(_is_size, values))
        _check(name, values, "one or more positive whole numbers", are_sizes)
    _check(
        "label_dim, label_width",
        (label_dim, label_width),
        "two positive whole numbers, or 0 and 0 without labels",
        (label_dim, label_width) == (0, 0) or (_is_size(label_dim) and _is_size(label_width)),
    )
    _check("labels", labels, f"one of {', '.join(LABELS)}", labels in LABELS)
    _check("blocks", blocks, f"one of {', '.join(BLOCKS)}", blocks in BLOCKS)
    _check("precision", precision, f"one of {', '.join(PRECISIONS)}", precision in PRECISIONS)
    _check("noise", noise, f"one of {', '.join(NOISES)}", noise in NOISES)
    _check(
        "resample_taps",
        resample_taps,
        "two or more numbers whose sum is not 0",
        len(resample_taps) > 1 and sum(resample_taps) != 0,
    )
    _check("mapping_rate", mapping_rate, "a positive number", mapping_rate > 0)
    _check("clamp", clamp, "a positive number or None", clamp is None or clamp > 0)
    _check("truncation", truncation, "a finite number", math.isfinite(truncation))
    cutoff = rows if truncation_cutoff is None else truncation_cutoff
    _check(
        "truncation_cutoff",
        truncation_cutoff,
        f"a whole number from 0 to {rows}, or None",
        isinstance(cutoff, int) and 0 <= cutoff <= rows,
    )
    _check(
        "first_size",
        first_size,
        "two positive whole numbers",
        len(first_size) == 2 and all(map(_is_size, first_size)),
    )
    _check("noise_seed", noise_seed, "a seed", type(noise_seed) is int and 0 <= noise_seed < 2**32)
    _check(
        "label_names",
        label_names,
        f"{label_dim} different names, or none",
        not label_names or len(set(label_names)) == len(label_names) == label_dim,
    )
    return Generator(
        architecture="stylegan2",
        network=StyleGAN2(
            z_dim=z_dim,
            label_width=label_width,
            labels=labels,
            mapping_widths=tuple(mapping_widths),
            mapping_rate=mapping_rate,
            channels=tuple(channels),
            first_size=(first_size[0], first_size[1]),
            image_channels=image_channels,
            blocks=blocks,
            resample_taps=tuple(resample_taps),
            clamp=clamp,
            noise=noise,
            noise_seed=noise_seed,
            truncation=truncation,
            truncated_rows=cutoff,
            precision=precision,
        ),
        space=NormalSpace.of_classes(z_dim, label_dim, label_names, label),
        resolution=first_size[0] << (len(channels) - 1),
        width=first_size[1] << (len(channels) - 1),
        image_channels=image_channels,
        mapping_stages=len(mapping_widths),
        stages=len(mapping_widths) + len(synthesis_steps(len(channels), blocks)),
        layers=(
            *mapping_layers(z_dim, label_dim, label_width, mapping_widths),
            *synthesis_layers(mapping_widths, channels, image_channels, blocks),
        ),
    )


def _is_size(value: object) -> bool:
    return isinstance(value, int) and value > 0


def _check(name: str, value: object, expected: str, holds: bool) -> None:
    if not holds:
        raise InputError(
            f"stylegan2: {name}: expected {expected}; got {value!r}; correct it where it was set"
        )
