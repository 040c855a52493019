"""StyleGAN2 (Karras et al. 2020) in all forms in which its weights are published.

A mapping network makes w of z, and of a label where there is one; each layer of the synthesis
takes its style from its own row of w_plus. A latent z of a generator with labels ends with the
label: zeros and a one. Style mixing is putting together rows of two w_plus.

Departures from the official programs:
1. A modulated convolution scales its input by the style and its output by the demodulation, around
   one convolution for the whole batch; kernels of single samples are never made.
2. Demodulation adds its 1e-8 to the squares of the scaled kernel, as the TensorFlow program does;
   NVIDIA's PyTorch program adds it to those of the stored one, which differs by less than rounding.
3. Noise is constant or absent unless a key is given for fresh noise.
4. Truncation acts for any factor, also above 1; the rosinality program ignores those.
"""

import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from navigan_jax.array_types import Array, Float, Images
from navigan_jax.errors import InputError
from navigan_jax.generators.base import EditableLayer, Generator, find_label
from navigan_jax.generators.ops import rim_of, smooth, smooth_part, upsample
from navigan_jax.generators.pixels import (
    View,
    Window,
    crop,
    mask_outside,
    plan,
    take,
    upsample_windows,
)
from navigan_jax.layers import (
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
from navigan_jax.winograd import conv3x3, double3x3

BLOCKS = ("skip", "resnet", "orig")
LABELS = ("embedded", "concatenated")
NOISES = ("constant", "random", "none")

_EPSILON = 1e-8  # in all norms
_SLOPE = 0.2  # of the leaky ReLU
_ACTIVATION_GAIN = math.sqrt(2)  # keeps the variance
_RESIDUAL_GAIN = math.sqrt(0.5)  # of both parts of a sum, to keep its variance


class Step(NamedTuple):
    """A stage of the synthesis.

    block: its number, counted from 4x4 pixels. part: the layer's name there. row: of w_plus.
    """

    block: int
    part: str
    row: int


def _steps(count: int, blocks: str) -> tuple[Step, ...]:
    """Returns the stages of a synthesis of so many blocks, each of twice the side."""
    steps = []
    for block in range(count):
        if block and blocks == "resnet":
            steps.append(Step(block, "skip", 2 * block - 1))
        if block:
            steps.append(Step(block, "conv0", 2 * block - 1))
        steps.append(Step(block, "conv1", 2 * block))
        if blocks == "skip" or block == count - 1:
            steps.append(Step(block, "torgb", 2 * block + 1))
    return tuple(steps)


class State(NamedTuple):
    """What goes from stage to stage: latents, features, the image so far, the other summand."""

    w_plus: Float[Array, "batch rows w"]
    x: Images
    image: Images | None = None
    residual: Images | None = None


def _to_windows(state: State, view: View) -> State:
    """Returns the windows of a whole state that the view names; without what it does not need."""

    def part(images: Images | None, window: Window | None) -> Any:
        return None if images is None or window is None else take(images, window)

    return State(
        state.w_plus,
        part(state.x, view.x),
        part(state.image, view.image),
        part(state.residual, view.residual),
    )


Views = tuple[View, View]  # before and after a stage


def _activate(x: Array, gain: float = 1.0, clamp: float | None = None) -> Array:
    x = nn.leaky_relu(x, _SLOPE) * (_ACTIVATION_GAIN * gain)
    return x if clamp is None else jnp.clip(x, -clamp * gain, clamp * gain)


def _normalise(x: Float[Array, "batch features"]) -> Float[Array, "batch features"]:
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
    """Returns x convolved with a kernel that each sample's style scales, input by input.

    x may hold several windows of each sample, one after another. convolve: linear in both
    arguments. The kernel has the equalised scale 1/√(in·side²). If
    `demodulate`, each sample's scaled kernel is divided by its norm, output by output.
    change: of the kernel, sample by sample; it comes before the style. own: the same map as
    `convolve` as a matrix product, for samples with kernels of their own.
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
        added = dense_change(change)  # of which the norms are needed in any case
        y = add_change(y, styled, added, shared=convolve, own=own or convolve)
        # (W + Δ)² - W², so that the unchanged part is the same program as without a change.
        more = jnp.sum(added * (2 * kernel[None] + added), axis=(1, 2))
        squares += jnp.einsum("bi,bio->bo", style**2, more)
    factors = gain * lax.rsqrt(gain**2 * squares + _EPSILON)
    return y * jnp.repeat(factors, windows, axis=0)[:, None, None]


class Dense(nn.Module):
    """Dense layer of equalised learning rate; weights `kernel` (in, out) and `bias`.

    rate: factor of kernel and bias in use; they are stored divided by it.
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
    """The bare matrix `kernel` that the first TensorFlow program applies to labels."""

    features: int

    @nn.compact
    def __call__(self, labels: Float[Array, "batch label"]) -> Float[Array, "batch out"]:
        shape = (labels.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(1), shape)
        change = read_change(self)
        return add_change(labels @ kernel, labels, change, shared=jnp.matmul, own=jnp.matmul)


class Mapping(nn.Module):
    """From z, and a label after it, to w_plus; stage i is layer i."""

    widths: tuple[int, ...]
    rows: int
    rate: float
    z_dim: int
    label_width: int
    labels: str
    truncation: float
    truncated_rows: int

    def setup(self) -> None:
        self.fc = [
            Dense(width, self.rate, name=f"fc{index}") for index, width in enumerate(self.widths)
        ]
        if self.label_width:
            embedding = Dense if self.labels == "embedded" else Embedding
            self.embed = embedding(self.label_width)
        self.w_avg = self.param("w_avg", nn.initializers.zeros, self.widths[-1:])

    def __call__(self, x: Array, index: int) -> Array:
        if index == 0:
            x = self._join(x)
        x = _activate(self.fc[index](x))
        return self._broadcast(x) if index == len(self.widths) - 1 else x

    def _join(self, latent: Float[Array, "batch latent"]) -> Float[Array, "batch features"]:
        if not self.label_width:
            return _normalise(latent)
        z, label = latent[:, : self.z_dim], self.embed(latent[:, self.z_dim :])
        if self.labels == "embedded":
            return jnp.concatenate([_normalise(z), _normalise(label)], axis=1)
        return _normalise(jnp.concatenate([z, label], axis=1))

    def _broadcast(self, w: Float[Array, "batch w"]) -> Float[Array, "batch rows w"]:
        w_plus = jnp.repeat(w[:, None], self.rows, axis=1)
        if self.truncation == 1:
            return w_plus
        near = self.w_avg[None, None] + self.truncation * (w_plus - self.w_avg[None, None])
        return jnp.concatenate(
            [near[:, : self.truncated_rows], w_plus[:, self.truncated_rows :]], axis=1
        )


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
        """Returns the features; view: the windows that x has and those wanted, if not whole."""
        inputs = x.shape[-1]
        style = Dense(inputs, first_bias=1.0, name="affine")(w)
        shape = (3, 3, inputs, self.features)
        kernel = self.param("kernel", nn.initializers.normal(1), shape)
        convolve, own = self._map(self.by_matmul, view), self._map(True, view)
        change = read_change(self)
        x = modulated(x, kernel, style, convolve, demodulate=True, change=change, own=own)
        x = self._add_noise(x, None if view is None else view[1])
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return _activate(x + bias[None, None, None], self.gain, self.clamp)

    def _map(self, by_matmul: bool, view: tuple[Window, Window] | None) -> Linear:
        if not self.up:
            if view is None:
                return conv_by_matmul if by_matmul else conv3x3
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
            # The layers of a network differ in their size or in `up`.
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
        # With three outputs it is cheaper to scale a kernel for each sample than its input.
        gain = 1 / math.sqrt(inputs)
        kernels = kernel[0, 0][None] * (gain * style)[:, :, None]
        per_sample = x.reshape(len(w), -1, inputs)  # it may be in windows
        y = jnp.einsum("bpi,bio->bpo", per_sample, kernels).reshape(*x.shape[:-1], -1)
        change = read_change(self)
        if change is not None:
            styled = x * (gain * style)[:, None, None]
            y = add_change(y, styled, change, shared=conv_by_matmul, own=conv_by_matmul)
        x = y
        x += self.param("bias", nn.initializers.zeros, (self.features,))[None, None, None]
        return x if self.clamp is None else jnp.clip(x, -self.clamp, self.clamp)


class Skip(nn.Module):
    """The way around a residual block: a plain 1x1 convolution, then twice the side."""

    features: int
    taps: tuple[float, ...]

    @nn.compact
    def __call__(self, x: Images, view: tuple[Window, Window] | None = None) -> Images:
        inputs = x.shape[-1]
        shape = (1, 1, inputs, self.features)
        kernel = self.param("kernel", nn.initializers.normal(1), shape)
        change, product = read_change(self), conv_by_matmul
        x = add_change(product(x, kernel), x, change, shared=product, own=product)
        x = x * (_RESIDUAL_GAIN / math.sqrt(inputs))
        return upsample(x, self.taps) if view is None else upsample_windows(x, *view, self.taps)


class Block(nn.Module):
    """The layers of one resolution; a call runs the `part` of that name."""

    features: int
    size: tuple[int, int]  # height and width
    image_channels: int
    parts: tuple[str, ...]
    taps: tuple[float, ...]
    clamp: float | None
    noise: str
    noise_seed: int
    by_matmul: tuple[str, ...]  # parts

    def setup(self) -> None:
        if "conv0" in self.parts:
            self.conv0 = self._styled_conv("conv0", 1.0)
        else:
            shape = (*self.size, self.features)
            self.const = self.param("const", nn.initializers.normal(1), shape)
        if "skip" in self.parts:
            self.skip = Skip(self.features, self.taps)
        self.conv1 = self._styled_conv("conv1", _RESIDUAL_GAIN if "skip" in self.parts else 1.0)
        if "torgb" in self.parts:
            self.torgb = ToRGB(self.image_channels, self.clamp)

    def _styled_conv(self, part: str, gain: float) -> StyledConv:
        return StyledConv(
            features=self.features,
            size=self.size,
            up=part == "conv0",
            taps=self.taps,
            gain=gain,
            clamp=self.clamp,
            noise=self.noise,
            noise_seed=self.noise_seed,
            by_matmul=part in self.by_matmul,
        )

    def start(self, w_plus: Float[Array, "batch rows w"]) -> State:
        """Returns the state before the first block, whose features are the same for all samples."""
        return State(w_plus, jnp.broadcast_to(self.const[None], (len(w_plus), *self.const.shape)))

    def __call__(self, state: State, part: str, row: int, views: Views | None) -> State:
        """Runs a part, on windows if `views` says which there are and which are wanted."""
        if views is not None:
            return self._on_windows(state, part, state.w_plus[:, row], *views)
        w = state.w_plus[:, row]
        if part == "skip":
            return state._replace(residual=self.skip(state.x))
        if part == "conv0":
            return state._replace(x=self.conv0(state.x, w))
        if part == "conv1":
            x = self.conv1(state.x, w)
            if state.residual is not None:
                x += state.residual
            return state._replace(x=x, residual=None)
        image = self.torgb(state.x, w)
        if state.image is not None:
            image += upsample(state.image, self.taps)
        return state._replace(image=image)

    def _on_windows(self, state: State, part: str, w: Array, before: View, after: View) -> State:
        """The same; what lies outside of the image is zero after every part, as it is there."""
        inside = functools.partial(mask_outside, size=self.size)
        if part == "torgb":
            image = self.torgb(crop(state.x, before.x, after.image), w)
            if state.image is not None:
                image += upsample_windows(state.image, before.image, after.image, self.taps)
            x = state.x if after.x is None else crop(state.x, before.x, after.x)
            return state._replace(x=x, image=inside(image, after.image))
        if part == "conv1":
            x = self.conv1(state.x, w, (before.x, after.x))
            if state.residual is not None:
                x += state.residual
            return state._replace(x=inside(x, after.x), residual=None)
        if part == "conv0":
            return state._replace(x=inside(self.conv0(state.x, w, (before.x, after.x)), after.x))
        residual = self.skip(state.x, (before.x, after.residual))
        return state._replace(x=crop(state.x, before.x, after.x), residual=residual)


class Synthesis(nn.Module):
    """From w_plus to the image; a call runs one step."""

    channels: tuple[int, ...]  # of the blocks
    first_size: tuple[int, int]
    image_channels: int
    blocks: str
    taps: tuple[float, ...]
    clamp: float | None
    noise: str
    noise_seed: int
    by_matmul: tuple[str, ...]  # like b8/conv0
    stride: int

    def setup(self) -> None:
        steps = _steps(len(self.channels), self.blocks)
        self.block = [
            Block(
                features=features,
                size=(self.first_size[0] << index, self.first_size[1] << index),
                image_channels=self.image_channels,
                parts=tuple(step.part for step in steps if step.block == index),
                taps=self.taps,
                clamp=self.clamp,
                noise=self.noise,
                noise_seed=self.noise_seed,
                by_matmul=tuple(
                    part for part in ("conv0", "conv1") if f"b{4 << index}/{part}" in self.by_matmul
                ),
                name=f"b{4 << index}",
            )
            for index, features in enumerate(self.channels)
        ]

    def __call__(self, carry: Array | State, start: int, stop: int) -> State | Images:
        """Runs steps `start` to `stop` - 1; the last one of all returns images."""
        steps = _steps(len(self.channels), self.blocks)
        views = plan([step[:2] for step in steps], self.blocks, self.taps, self.stride)
        state: Any = carry if isinstance(carry, State) else self.block[0].start(carry)
        whole = True
        for number in range(start, stop):
            if whole and number in views:
                state, whole = _to_windows(state, views[number][0]), False
            step = steps[number]
            state = self.block[step.block](state, step.part, step.row, views.get(number))
        if stop < len(steps):
            return state
        if whole:
            return state.image[:, :: self.stride, :: self.stride]
        height, width = ((first << steps[-1].block) // self.stride for first in self.first_size)
        return state.image.reshape(len(state.w_plus), height, width, self.image_channels)


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
    truncated_rows: int | None = None,
    label: int | str | None = None,
) -> Generator:
    """Returns the generator; its sides are those of its first features, times 2 for each further
    one of the channels.

    label_dim: number of classes, 0 for none. label_width: of what the mapping makes of a label
      before its first layer. labels: how; "embedded": a dense layer, normalised apart from z;
      "concatenated": a bare matrix, normalised together with z, as in the first TensorFlow program.
    mapping_widths: outputs of the mapping's layers; the last is the size of w. mapping_rate: their
      learning-rate multiplier.
    channels: at 4x4 pixels, 8x8 and so on. blocks: "skip" sums images of all resolutions, "resnet"
      features, "orig" nothing. first_size: height and width of the constant features.
    resample_taps: of the filter along one axis, of any sum. clamp: bound of activations, if any.
    noise: "constant": the one stored with the weights; "random": another one, of noise_seed, in
      its place; "none". For noise that differs between samples give `synthesize` a key.
    truncation: factor of w - w_avg; 1 leaves w as it is. truncated_rows: only the first so many
      rows of w_plus are drawn to the average; None: all.
    label_names: of the classes, in order; may be empty. label: the class of all latents that are
      drawn, by name or index; None: a random one for each.

    Raises: InputError for sizes that are no positive whole numbers or unknown words.
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
    if truncated_rows is None:
        truncated_rows = rows
    _check(
        "truncated_rows",
        truncated_rows,
        f"a whole number from 0 to {rows}, or None",
        isinstance(truncated_rows, int) and 0 <= truncated_rows <= rows,
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
    mapping_layers = _mapping_layers(z_dim, label_dim, label_width, mapping_widths)
    synthesis_layers = _synthesis_layers(mapping_widths, channels, image_channels, blocks)
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
            truncated_rows=truncated_rows,
        ),
        z_dim=z_dim,
        label_dim=label_dim,
        label_names=tuple(label_names),
        label=find_label(label, label_dim, label_names),
        resolution=first_size[0] << (len(channels) - 1),
        width=first_size[1] << (len(channels) - 1),
        image_channels=image_channels,
        mapping_stages=len(mapping_widths),
        stages=len(mapping_widths) + len(_steps(len(channels), blocks)),
        layers=mapping_layers + synthesis_layers,
    )


def _mapping_layers(
    z_dim: int, label_dim: int, label_width: int, widths: tuple[int, ...]
) -> tuple[EditableLayer, ...]:
    inputs = (z_dim + label_width, *widths)
    layers = [
        EditableLayer(
            path=f"mapping/fc{index}/kernel",
            shape=shape,
            resolution=1,
            stage=index,
            original_name=f"style.{index + 1}",
            aliases=(f"style.{index + 1}.weight", f"mapping.fc{index}", f"mapping/Dense{index}"),
        )
        for index, shape in enumerate(zip(inputs, widths, strict=False))
    ]
    if label_dim:
        shape = (label_dim, label_width)
        layers.insert(0, EditableLayer("mapping/embed/kernel", shape, 1, 0, "mapping.embed"))
    return tuple(layers)


def _synthesis_layers(
    mapping_widths: tuple[int, ...], channels: tuple[int, ...], image_channels: int, blocks: str
) -> tuple[EditableLayer, ...]:
    layers = []
    for stage, (block, part, _) in enumerate(_steps(len(channels), blocks), len(mapping_widths)):
        resolution, name = 4 << block, _original_name(block, part)
        inputs = channels[block - 1 if part in ("skip", "conv0") else block]
        outputs = image_channels if part == "torgb" else channels[block]
        side = 3 if part in ("conv0", "conv1") else 1
        path = f"synthesis/b{resolution}/{part}"
        layers.append(
            EditableLayer(
                path=f"{path}/kernel",
                shape=(side, side, inputs, outputs),
                resolution=resolution,
                stage=stage,
                original_name=name,
                aliases=(f"{name}.conv.weight", *_nvidia_names(block, part)),
                # NaviGAN numbers the layers `convs`, which are those of 8x8 pixels and more.
                number=2 * block - 2 + int(part[-1]) if block and part.startswith("conv") else None,
            )
        )
        if part != "skip":
            layers.append(
                EditableLayer(
                    path=f"{path}/affine/kernel",
                    shape=(mapping_widths[-1], inputs),
                    resolution=resolution,
                    stage=stage,
                    original_name=f"{name}.modulation",
                    aliases=(
                        f"{name}.conv.modulation.weight",
                        f"{path}/affine",
                        *(f"{alias}.affine" for alias in _nvidia_names(block, part)[:2]),
                    ),
                )
            )
    return tuple(layers)


def _nvidia_names(block: int, part: str) -> tuple[str, ...]:
    """Returns what NVIDIA's PyTorch and TensorFlow programs call a layer."""
    side = 4 << block
    tensorflow = {
        "conv0": "Conv0_up",
        "conv1": "Conv1" if block else "Conv",
        "torgb": "ToRGB",
        "skip": "Skip",
    }[part]
    return f"b{side}.{part}", f"synthesis.b{side}.{part}", f"{side}x{side}/{tensorflow}"


def _original_name(block: int, part: str) -> str:
    """Returns what NaviGAN and the rosinality program call a layer; `skip` is NVIDIA's alone."""
    if block == 0:
        return {"conv1": "conv1", "torgb": "to_rgb1"}[part]
    return {
        "skip": f"b{4 << block}.skip",
        "conv0": f"convs.{2 * block - 2}",
        "conv1": f"convs.{2 * block - 1}",
        "torgb": f"to_rgbs.{block - 1}",
    }[part]


def _is_size(value: object) -> bool:
    return isinstance(value, int) and value > 0


def _check(name: str, value: object, expected: str, holds: bool) -> None:
    if not holds:
        raise InputError(
            f"stylegan2: {name}: expected {expected}; got {value!r}; "
            "correct it where the generator is described"
        )
