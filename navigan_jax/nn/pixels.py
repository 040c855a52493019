"""The pixels that each layer needs if only every `stride`-th pixel of an image is wanted.

Each wanted pixel depends on a window of pixels of an earlier layer. Going back through the layers,
the windows grow, and every doubling of the resolution halves the distance between wanted pixels. So
windows are cheaper in the last layers, and the whole image is cheaper in earlier ones. Windows pass
through the network as a batch: all windows of the first sample, row by row, then those of the
second. Pixels outside the image count as zero.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from navigan_jax.array_types import Images


@dataclasses.dataclass(frozen=True)
class Window:
    """The pixels at offsets `first` to `last` from each wanted pixel, along both axes.

    stride: the distance between wanted pixels at this resolution.
    """

    first: int
    last: int
    stride: int

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    def joined(self, other: "Window | None") -> "Window":
        """Returns the smallest window that contains both."""
        if other is None:
            return self
        first, last = min(self.first, other.first), max(self.last, other.last)
        return Window(first, last, self.stride)

    def grown(self, by: int) -> "Window":
        """Returns the window that a plain convolution of side 2 · by + 1 reads."""
        return Window(self.first - by, self.last + by, self.stride)

    def before_upsample(self, taps: Sequence[float]) -> "Window":
        """Returns the window that `resampling.upsample` reads, at half the resolution."""
        first = self.first - (len(taps) + 1) // 2
        last = first + self.size + len(taps) - 2
        return Window(-(-first // 2), last // 2, self.stride // 2)

    def before_doubling(self, taps: Sequence[float]) -> "Window":
        """Returns the window that a transposed convolution of side 3 and `smooth` read."""
        first = self.first - (len(taps) - 1) // 2
        last = first + self.size + len(taps) - 2
        return Window(-(-(first - 2) // 2), last // 2, self.stride // 2)


@dataclasses.dataclass(frozen=True)
class View:
    """Windows of the features, the image so far and the residual; None if not needed."""

    x: Any = None
    image: Any = None
    residual: Any = None


def plan(
    steps: Sequence[tuple[int, str]], blocks: str, taps: Sequence[float], stride: int
) -> dict[int, tuple[View, View]]:
    """Returns {stage: (before, after)} for the last stages, which windows make cheaper.

    steps: block and part of each stage. Windows make a stage cheaper if those of all its
    intermediate results are smaller than the distance between wanted pixels.
    """
    views: dict[int, tuple[View, View]] = {}
    after = View(image=Window(0, 0, stride))
    for number in reversed(range(len(steps))):
        block, part = steps[number]
        x, image, residual = after.x, after.image, after.residual
        largest = x.size if x else 1
        if part == "torgb" and image:
            x = image.joined(x)
            largest = x.size
            image = image.before_upsample(taps) if blocks == "skip" and block else None
        elif part == "conv1" and x:
            residual = x if blocks == "resnet" and block else None
            x = x.grown(1)
        elif part == "conv0" and x:
            largest = x.size + len(taps) - 1
            x = x.before_doubling(taps)
        elif residual:
            x = residual.before_upsample(taps).joined(x)
            residual = None
        here = Window(0, 0, stride) if after.x is None else after.x
        if largest >= here.stride or here.stride % 2:
            break
        before = View(x, image, residual)
        views[number] = (before, after)
        after = before
    return views


def take(images: Images, window: Window) -> Images:
    """Returns the windows of whole images as a batch, [batch * windows, size, size, channels]."""
    for axis in (1, 3):  # rows, then columns, which are axis 3 once the rows are split
        length = images.shape[axis]
        count = length // window.stride
        edges = [(0, 0)] * images.ndim
        reach = window.stride * (count - 1) + window.last + 1
        edges[axis] = (max(-window.first, 0), max(reach - length, 0))
        padded = jnp.pad(images, edges)
        begin = window.first + edges[axis][0]
        extent = window.stride * (count - 1) + 1
        parts = [
            lax.slice_in_dim(padded, start, start + extent, window.stride, axis)
            for start in range(begin, begin + window.size)
        ]
        images = jnp.stack(parts, axis=axis + 1)
    batch, rows, size, columns, _, channels = images.shape
    return images.transpose(0, 1, 3, 2, 4, 5).reshape(batch * rows * columns, size, size, channels)


def crop(images: Images, window: Window, part: Window) -> Images:
    """Returns the smaller window `part` of each window."""
    start, stop = part.first - window.first, part.last - window.first + 1
    return images[:, start:stop, start:stop]


def mask_outside(images: Images, window: Window, size: tuple[int, int]) -> Images:
    """Returns the windows with zeros at pixels outside an image of that size."""
    rows, columns = (_inside(window, length) for length in size)
    if rows.all() and columns.all():
        return images
    both = rows[:, None, :, None] & columns[None, :, None, :]
    both = both.reshape(-1, window.size, window.size, 1)
    return images * np.tile(both, (len(images) // len(both), 1, 1, 1)).astype(images.dtype)


def _inside(window: Window, length: int) -> np.ndarray:
    """Returns whether each pixel of each window along an axis is inside the image."""
    places = np.arange(length // window.stride)[:, None] * window.stride
    places = places + np.arange(window.first, window.last + 1)[None]
    return (places >= 0) & (places < length)


def upsample_windows(
    images: Images, before: Window, after: Window, taps: Sequence[float]
) -> Images:
    """Returns the windows `after` of an upsampled image from the image's windows `before`."""
    factors = [2 / sum(taps) * tap for tap in reversed(taps)]
    matrix = np.zeros((after.size, before.size))
    for row in range(after.size):
        for index, factor in enumerate(factors):
            place = after.first + row - (len(taps) + 1) // 2 + index
            if place % 2 == 0:
                matrix[row, place // 2 - before.first] += factor
    weights = jnp.asarray(matrix, images.dtype)
    return jnp.einsum("ij,kl,bjlc->bikc", weights, weights, images)
