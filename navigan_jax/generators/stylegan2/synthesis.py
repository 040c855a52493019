"""The synthesis network of StyleGAN2: from the w of each layer to the image, stage by stage.

If not every pixel of the image is wanted, the last stages run on windows (nn.pixels).
Features pass between stages in the chosen precision. Each stage computes in float32, because the
transforms of Winograd's method would amplify the error of bfloat16; the image is float32 too.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from navigan_jax.array_types import Array, Float, Images
from navigan_jax.generators.stylegan2.layers import RESIDUAL_GAIN, Skip, StyledConv, ToRGB
from navigan_jax.generators.stylegan2.stages import synthesis_steps
from navigan_jax.nn.layers import shorten, widen
from navigan_jax.nn.pixels import (
    View,
    Window,
    crop,
    mask_outside,
    plan,
    take,
    upsample_windows,
)
from navigan_jax.nn.resampling import upsample


class State(NamedTuple):
    """What passes between stages: latents, features, the image so far, the residual."""

    w_plus: Float[Array, "batch rows w"]
    x: Images
    image: Images | None = None
    residual: Images | None = None

    def map_features(self, function: Callable[[Images], Images]) -> "State":
        """Returns the state with `function` applied to the features and the residual."""
        residual = None if self.residual is None else function(self.residual)
        return self._replace(x=function(self.x), residual=residual)


def _to_windows(state: State, view: View) -> State:
    """Returns the windows that the view names, cut from a whole state; None where it has none."""

    def part(images: Images | None, window: Window | None) -> Any:
        return None if images is None or window is None else take(images, window)

    return State(
        state.w_plus,
        part(state.x, view.x),
        part(state.image, view.image),
        part(state.residual, view.residual),
    )


Views = tuple[View, View]  # before and after a stage


class Block(nn.Module):
    """The layers of one resolution; a call runs one of the `parts`."""

    features: int
    size: tuple[int, int]  # height and width
    image_channels: int
    parts: tuple[str, ...]
    taps: tuple[float, ...]
    clamp: float | None
    noise: str
    noise_seed: int
    by_matmul: tuple[str, ...]  # parts
    precision: str

    def setup(self) -> None:
        if "conv0" in self.parts:
            self.conv0 = self._styled_conv("conv0", 1.0)
        else:
            shape = (*self.size, self.features)
            self.const = self.param("const", nn.initializers.normal(1), shape)
        if "skip" in self.parts:
            self.skip = Skip(self.features, self.taps)
        self.conv1 = self._styled_conv("conv1", RESIDUAL_GAIN if "skip" in self.parts else 1.0)
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
        const = shorten(self.const, self.precision)
        return State(w_plus, jnp.broadcast_to(const[None], (len(w_plus), *const.shape)))

    def __call__(self, state: State, part: str, row: int, views: Views | None) -> State:
        """Runs a part: on whole maps, or on windows if `views` gives those before and after it."""
        state, w = state.map_features(widen), state.w_plus[:, row]
        if views is None:
            state = self._on_whole(state, part, w)
        else:
            state = self._on_windows(state, part, w, *views)
        return state.map_features(functools.partial(shorten, precision=self.precision))

    def _on_whole(self, state: State, part: str, w: Array) -> State:
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
        """Runs a part on windows, and sets pixels outside the image to zero, like a padding."""
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
    by_matmul: tuple[str, ...]  # e.g. b8/conv0
    stride: int
    precision: str

    def setup(self) -> None:
        steps = synthesis_steps(len(self.channels), self.blocks)
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
                precision=self.precision,
                name=f"b{4 << index}",
            )
            for index, features in enumerate(self.channels)
        ]

    def __call__(self, carry: Array | State, start: int, stop: int) -> State | Images:
        """Runs steps `start` to `stop` - 1; the network's last step returns images."""
        steps = synthesis_steps(len(self.channels), self.blocks)
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
