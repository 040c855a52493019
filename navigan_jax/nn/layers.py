"""Flax layers that several networks use, and the linear maps in them.

A layer whose weight is edited is computed `by_matmul`. Its input is fixed, so the layer is linear
in the weight; as one matrix product, its forward and reverse derivatives are matrix products too.
XLA would turn the weight derivative of a convolution into a convolution whose window is the whole
image, which is 25 to 90 times slower on CPU (benchmarks/products.py).

If each sample has its own change of a weight, the layer reads the change from the collection
"changes". The output is that of the unchanged weight, computed by one convolution for the whole
batch, plus that of the change. If the change is given as factors, no kernel is made per sample.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from navigan_jax.array_types import Array, Float


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Factors:
    """A change of a weight for each sample b: left · diag(scale_b) · right.

    left: shaped like the weight, with R instead of the outputs. right: [R, outputs].
    """

    left: Float[Array, "*inputs factors"]
    scale: Float[Array, "batch factors"]
    right: Float[Array, "factors out"]


Change: TypeAlias = Float[Array, "batch *weight"] | Factors
PRECISIONS = ("float32", "bfloat16")  # of the features between layers
_MOST_ENTRIES = 2**27  # of windows: 512 MiB
Linear: TypeAlias = Callable[[Array, Array], Array]  # of an input and a kernel, linear in both


def shorten(x: Array, precision: str) -> Array:
    """Returns x in the precision of the features between layers: unchanged, or bfloat16 (8 bits).

    The rounding is explicit, because XLA may remove a conversion to bfloat16 and back. The same
    layer would then give different numbers in different programs.
    """
    if precision == "float32":
        return x
    return lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7).astype(jnp.bfloat16)


def widen(x: Array) -> Array:
    """Returns a bfloat16 x as float32, in which layers compute; any other x unchanged."""
    return x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x


def dense_change(change: Change) -> Float[Array, "batch *weight"]:
    """Returns each sample's change as an array that can be added to the weight."""
    if not isinstance(change, Factors):
        return change
    # Scale the smaller factor: a sample then needs only [R, out], and `left` is read once.
    scaled = change.scale[:, :, None] * change.right[None]
    return jnp.einsum("...r,bro->b...o", change.left, scaled, precision=lax.Precision.HIGHEST)


def add_change(y: Array, x: Array, change: Change | None, *, shared: Linear, own: Linear) -> Array:
    """Returns y plus each sample's own change applied to x.

    shared, own: two forms of the layer's linear map. `shared` is called with one kernel for the
    whole batch; `own`, a matrix product, is called with one kernel for each sample.
    """
    if change is None:
        return y
    if isinstance(change, Factors):
        scale = change.scale.reshape(len(x), *[1] * (x.ndim - 2), -1)
        return y + (shared(x, change.left) * scale) @ change.right
    return y + jax.vmap(lambda row, kernel: own(row[None], kernel)[0])(x, change)


def read_change(layer: nn.Module) -> Change | None:
    """Returns the change of the layer's `kernel`, or None."""
    return layer.get_variable("changes", "kernel")


def conv_transpose(
    x: Float[Array, "batch height width in"],
    kernel: Float[Array, "side side in out"],
    *,
    stride: int,
    padding: int,
    extra: int = 0,
) -> Float[Array, "batch height_out width_out out"]:
    """Returns the transposed convolution; H_out = (H - 1) * stride - 2 * padding + side + extra.

    padding: pixels to cut off at each side; a negative number adds a rim of zeros. extra: more
    pixels at the bottom and at the right, as PyTorch's output_padding.
    The kernel has the orientation of PyTorch's ConvTranspose2d, with axes moved to HWIO.
    """
    side = kernel.shape[0]
    pad = side - 1 - padding
    return lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1],
        window_strides=(1, 1),
        padding=((pad, pad + extra), (pad, pad + extra)),
        lhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def conv_transpose_by_matmul(
    x: Float[Array, "batch height width in"],
    kernel: Float[Array, "side side in out"],
    *,
    stride: int,
    padding: int,
    extra: int = 0,
) -> Float[Array, "batch height_out width_out out"]:
    """Returns the same as `conv_transpose`: each pixel times the kernel, then overlap and add.

    The kernel is cut into tiles as wide as the stride; the last tiles are padded with zeros. The
    tiles of one position, from all pixels, are adjacent in the output.
    """
    side = kernel.shape[0]
    stripes = -(-side // stride)
    batch, height, width, _ = x.shape
    out = kernel.shape[-1]
    patches = jnp.einsum("bhwi,klio->bhwklo", x, kernel)
    spare = (0, stripes * stride - side)
    patches = jnp.pad(patches, ((0, 0), (0, 0), (0, 0), spare, spare, (0, 0)))
    tiles = patches.reshape(batch, height, width, stripes, stride, stripes, stride, out)
    full_height, full_width = (height - 1 + stripes) * stride, (width - 1 + stripes) * stride
    total = jnp.zeros((batch, full_height, full_width, out), x.dtype)
    for row in range(stripes):
        for column in range(stripes):
            tile = tiles[:, :, :, row, :, column].transpose(0, 1, 3, 2, 4, 5)
            tile = tile.reshape(batch, height * stride, width * stride, out)
            top, left = row * stride, column * stride
            bottom = full_height - height * stride - top
            right = full_width - width * stride - left
            total += jnp.pad(tile, ((0, 0), (top, bottom), (left, right), (0, 0)))
    edges = (-padding, extra - padding - spare[1], 0)
    return lax.pad(total, jnp.zeros((), x.dtype), ((0, 0, 0), edges, edges, (0, 0, 0)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Windows:
    """The unfolded input of a transposed convolution: each row holds what one output pixel reads.

    Output pixels of one phase (their row and column modulo the stride) use the same weights;
    values[phase row, phase column, batch, row, column] are their inputs.
    """

    values: Float[Array, "stride stride batch height width entries"]


@dataclasses.dataclass(frozen=True)
class Unfolding:
    """The phases of a transposed convolution with such a kernel; made by `of`."""

    side: int
    stride: int
    padding: int

    @classmethod
    def of(cls, side: int, stride: int, padding: int) -> "Unfolding | None":
        """Returns the unfolding, or None if the phases have unequal shares of the kernel."""
        even = side % stride == 0 and 2 * padding % stride == 0
        return cls(side, stride, padding) if even else None

    def windows(self, x: Float[Array, "batch height width in"]) -> Windows:
        """Returns the rows of each phase; their entries have the order of `phases`."""
        taps, height, width = self.side // self.stride, *self._pixels(x)
        padded = jnp.pad(x, ((0, 0), (taps, taps), (taps, taps), (0, 0)))

        def read(phase: int, size: int) -> list[slice]:
            first = taps + (phase + self.padding) // self.stride
            return [slice(first - tap, first - tap + size) for tap in range(taps)]

        values = [
            [
                jnp.concatenate(
                    [
                        padded[:, rows, columns]
                        for rows in read(down, height)
                        for columns in read(right, width)
                    ],
                    axis=-1,
                )
                for right in range(self.stride)
            ]
            for down in range(self.stride)
        ]
        return Windows(jnp.stack([jnp.stack(row) for row in values]))

    def _pixels(self, x: Array) -> tuple[int, int]:
        """Returns the height and the width of a phase in output pixels."""
        height, width = x.shape[1:3]
        more = (self.side - 2 * self.padding) // self.stride - 1
        return height + more, width + more

    def phases(
        self, kernel: Float[Array, "*lead side side in out"]
    ) -> Float[Array, "*lead stride stride entries out"]:
        """Returns the kernel's entries ordered by phase."""
        *lead, _, _, inputs, out = kernel.shape
        axis, taps = len(lead), self.side // self.stride
        parts = kernel.reshape(*lead, taps, self.stride, taps, self.stride, inputs, out)
        parts = jnp.moveaxis(parts, (axis + 1, axis + 3), (axis, axis + 1))
        # The first phase reads every stride-th row of the kernel, starting at the padding.
        parts = jnp.roll(parts, (-self.padding, -self.padding), (axis, axis + 1))
        return parts.reshape(*lead, self.stride, self.stride, taps**2 * inputs, out)

    def kernel(
        self, phases: Float[Array, "*lead stride stride entries out"]
    ) -> Float[Array, "*lead side side in out"]:
        """Returns the kernel from the result of `phases`."""
        *lead, stride, _, entries, out = phases.shape
        axis, taps = len(lead), self.side // self.stride
        parts = phases.reshape(*lead, stride, stride, taps, taps, entries // taps**2, out)
        parts = jnp.roll(parts, (self.padding, self.padding), (axis, axis + 1))
        parts = jnp.moveaxis(parts, (axis, axis + 1), (axis + 1, axis + 3))
        return parts.reshape(*lead, self.side, self.side, entries // taps**2, out)


def conv_transpose_of_windows(
    windows: Windows, phases: Float[Array, "stride stride entries out"]
) -> Float[Array, "batch height_out width_out out"]:
    """Returns the transposed convolution of the unfolded input: one matrix product per phase."""
    stride, _, batch, height, width, entries = windows.values.shape
    # Plain matrix products: with all axes in one einsum, XLA on CPU takes twice the time.
    rows = windows.values.reshape(stride**2, -1, entries)
    pixels = jnp.matmul(rows, phases.reshape(stride**2, entries, -1))
    pixels = pixels.reshape(stride, stride, batch, height, width, -1)
    image = pixels.transpose(2, 3, 0, 4, 1, 5)
    return image.reshape(batch, height * stride, width * stride, phases.shape[-1])


def conv(
    x: Float[Array, "batch height width in"],
    kernel: Float[Array, "side side in out"],
    *,
    padded: bool = True,
    stride: int = 1,
) -> Float[Array, "batch height_out width_out out"]:
    """Returns the correlation with a kernel.

    padded: pixels outside count as zero, for a kernel of odd side; otherwise the result is side - 1
    pixels smaller. stride: every stride-th row and column is kept, starting with the first.
    """
    margin = (kernel.shape[0] // 2, kernel.shape[0] // 2) if padded else (0, 0)
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        (margin, margin),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def conv_by_matmul(
    x: Float[Array, "batch height width in"],
    kernel: Float[Array, "side side in out"],
    *,
    padded: bool = True,
    stride: int = 1,
) -> Float[Array, "batch height_out width_out out"]:
    """Returns the same as `conv`: the window around each pixel times the kernel.

    Where the windows of all pixels would take too much memory, a product for each entry of the
    window is summed instead.
    """
    side, _, inputs, out = kernel.shape
    margin = (side // 2, side // 2) if padded else (0, 0)
    height, width = (length + 2 * margin[0] - side + 1 for length in x.shape[1:3])
    surrounded = jnp.pad(x, ((0, 0), margin, margin, (0, 0)))
    parts = [
        surrounded[:, row : row + height : stride, column : column + width : stride]
        for row in range(side)
        for column in range(side)
    ]
    rows = kernel.reshape(side * side, inputs, out)
    if side * side * parts[0].size > _MOST_ENTRIES:
        products = [part @ rows[index] for index, part in enumerate(parts)]
        return functools.reduce(jnp.add, products)
    return jnp.concatenate(parts, axis=-1) @ rows.reshape(side * side * inputs, out)


def add_bias(layer: Any, y: Array) -> Array:
    """Returns y plus the layer's bias, if it has one."""
    if not layer.use_bias:
        return y
    bias = layer.param("bias", nn.initializers.zeros, (layer.features,))
    return y + bias.reshape(*[1] * (y.ndim - 1), -1)


class ConvTranspose(nn.Module):
    """Transposed convolution; weights `kernel` (side, side, in, out) and, if asked for, `bias`.

    For an unfolded input (`Windows`) the weight is (stride, stride, entries, out).
    """

    features: int
    side: int
    stride: int
    padding: int
    extra: int = 0
    use_bias: bool = False
    by_matmul: bool = False

    @nn.compact
    def __call__(self, x: Array | Windows) -> Array:
        init = nn.initializers.normal(0.02)
        if isinstance(x, Windows):
            shape = (self.stride, self.stride, x.values.shape[-1], self.features)
            phases = self.param("kernel", init, shape)
            return add_bias(self, conv_transpose_of_windows(x, phases))
        kernel = self.param("kernel", init, (self.side, self.side, x.shape[-1], self.features))
        shared, own = (
            functools.partial(function, stride=self.stride, padding=self.padding, extra=self.extra)
            for function in (conv_transpose, conv_transpose_by_matmul)
        )
        y = own(x, kernel) if self.by_matmul else shared(x, kernel)
        return add_bias(self, add_change(y, x, read_change(self), shared=shared, own=own))


class FrozenBatchNorm(nn.Module):
    """Batch normalisation in evaluation mode; its statistics are ordinary parameters.

    affine: whether it has parameters `scale` and `bias` beside `mean` and `var`.
    """

    epsilon: float = 1e-5
    affine: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (x.shape[-1],)
        mean = self.param("mean", nn.initializers.zeros, shape)
        var = self.param("var", nn.initializers.ones, shape)
        gain = lax.rsqrt(var + self.epsilon)
        bias = jnp.zeros_like(mean)
        if self.affine:
            gain = gain * self.param("scale", nn.initializers.ones, shape)
            bias = self.param("bias", nn.initializers.zeros, shape)
        return x * gain[None, None, None] + (bias - mean * gain)[None, None, None]
