"""Convolutions of side 3 by Winograd's method, with fewer multiplications than their definition.

Four neighbouring outputs of a correlation with r taps are made of 3 + r products in place of 4 r:
inputs and kernel are taken to 3 + r points, multiplied there, and taken back. Along both axes and
with channels the products are one product of matrices for each pair of points. The plain
convolution takes 36 / 16 in place of 9 multiplications for an output; the transposed one, split
into the four phases of its outputs (two by two, two by one, one by two taps, and one), 81 / 16 in
place of 9 for an input.

XLA on CPU computes the sums that a convolution is defined by. On a GPU cuDNN knows the method, so
there the plain functions of `layers` run.

Source: Lavin and Gray 2016, Fast algorithms for convolutional neural networks. Theirs are the
points 0, ±1, ±2, ∞; with ±√½ and ±√2 powers are smaller, and the error in float32 is half of
theirs: 1e-6 to 2e-6 of the output's deviation.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from navigan_jax.array_types import Array, Float
from navigan_jax.layers import conv, conv_by_matmul, conv_transpose, conv_transpose_by_matmul

# Below, the way to the points and back costs more than it saves, and so does compiling it.
_FEWEST_CHANNELS = 32
_FEWEST_PRODUCTS = 2**27  # tiles * inputs * outputs


@dataclasses.dataclass(frozen=True, eq=False)
class _Axis:
    """The method along one axis: maps of a tile's inputs, of the kernel, and to its outputs."""

    inputs: np.ndarray  # [points, inputs]
    kernel: np.ndarray  # [points, taps]
    outputs: np.ndarray  # [outputs, points]


def _make_axis(points: Sequence[float], taps: int) -> _Axis:
    """Returns the method at the points and at infinity.

    By Cook and Toom: a correlation is the transpose of a product of polynomials, which are known
    by their values at the points and, at infinity, by their highest coefficient.
    """
    finite, count = np.array(points), len(points) + 1
    others = [np.delete(finite, index) for index in range(len(points))]
    tile = count - taps + 1
    inputs, kernel = np.zeros((count, count)), np.zeros((count, taps))
    for index, other in enumerate(others):
        inputs[index, :-1] = np.poly(other)[::-1]
    inputs[-1] = np.poly(finite)[::-1]
    inputs[np.abs(inputs) < 1e-12] = 0
    norms = np.array([np.prod(point - other) for point, other in zip(finite, others, strict=True)])
    kernel[:-1] = finite[:, None] ** np.arange(taps) / norms[:, None]
    kernel[-1, -1] = 1
    outputs = np.zeros((tile, count))
    outputs[:, :-1] = finite[None] ** np.arange(tile)[:, None]
    outputs[-1, -1] = 1
    return _Axis(inputs, kernel, outputs)


_ONE, _ROOT = np.ones((1, 1)), math.sqrt(0.5)
_AXES = {
    1: _Axis(_ONE, _ONE, _ONE),
    2: _make_axis((0.5, -0.5, 1.25, -1.25), 2),
    3: _make_axis((0, _ROOT, -_ROOT, 2 * _ROOT, -2 * _ROOT), 3),
}


def correlate(
    x: Float[Array, "batch height width in"], kernel: Float[Array, "rows columns in out"]
) -> Float[Array, "batch height_out width_out out"]:
    """Returns the correlation where the kernel lies within x; it has 1, 2 or 3 rows and columns."""
    batch, inputs = x.shape[0], x.shape[-1]
    sides = kernel.shape[:2]
    first, second = (_AXES[side] for side in sides)
    height, width = (x.shape[axis + 1] - sides[axis] + 1 for axis in (0, 1))
    rows, columns = -(-height // len(first.outputs)), -(-width // len(second.outputs))
    below, right = rows * len(first.outputs) - height, columns * len(second.outputs) - width
    x = jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0)))
    along_height = _map(first.inputs, _windows(x, 1, rows, first))
    # Kept apart, or XLA computes them again for each of the points along the other axis.
    along_height = lax.optimization_barrier(along_height)
    maps = np.kron(first.kernel, second.kernel)
    at_points = jnp.asarray(maps, kernel.dtype) @ kernel.reshape(maps.shape[1], -1)
    at_points = at_points.reshape(len(first.kernel), len(second.kernel), inputs, -1)
    strips = []
    for part, kernels in zip(along_height, at_points, strict=True):
        at = _map(second.inputs, _windows(part, 2, columns, second))
        products = [array @ matrix for array, matrix in zip(at, kernels, strict=True)]
        strips.append(jnp.stack(_map(second.outputs, products), axis=3))
    tiles = jnp.stack(_map(first.outputs, strips), axis=2)
    whole = tiles.reshape(batch, height + below, width + right, -1)
    return whole[:, :height, :width]


def _windows(x: Array, axis: int, tiles: int, method: _Axis) -> list[Array]:
    """Returns the first, second, ... input of every tile along an axis."""
    tile = len(method.outputs)
    stop = tile * (tiles - 1) + 1
    return [
        lax.slice_in_dim(x, start, start + stop, tile, axis=axis)
        for start in range(len(method.inputs))
    ]


def _map(matrix: np.ndarray, arrays: Sequence[Array]) -> list[Array]:
    """Returns a sum of the arrays for each row of the matrix, without those whose factor is 0."""
    sums = []
    for row in matrix:
        terms = [
            array if factor == 1 else array * float(factor)
            for factor, array in zip(row, arrays, strict=True)
            if factor
        ]
        sums.append(sum(terms[1:], terms[0]))
    return sums


def _same(x: Array, kernel: Array) -> Array:
    return correlate(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), kernel)


# Of outputs of odd and of even number: the first read one pixel, the others two.
_PHASES = ((1, slice(1, 2)), (0, slice(0, None, 2)))


def _doubled(x: Array, kernel: Array) -> Array:
    """The transposed convolution; as a rim is put in front, the phases change places."""
    batch, height, width, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = []
    for top, row_taps in _PHASES:
        columns = []
        for left, column_taps in _PHASES:
            part = padded[:, top : height + 2 - top, left : width + 2 - left]
            phase = correlate(part, kernel[row_taps, column_taps][::-1, ::-1])
            columns.append(jnp.pad(phase, ((0, 0), (top, 1), (left, 1), (0, 0))))
        rows.append(jnp.stack(columns, axis=3))
    whole = jnp.stack(rows, axis=2).reshape(batch, 2 * height + 4, 2 * width + 4, -1)
    return whole[:, :-1, :-1]


def _halved(y: Array, kernel: Array) -> Array:
    """The transpose of `_doubled` by x."""
    parts = []
    for top, row_taps in _PHASES:
        for left, column_taps in _PHASES:
            phase = y[:, 1 + top : y.shape[1] - 1 : 2, 1 + left : y.shape[2] - 1 : 2]
            parts.append(correlate(phase, kernel[row_taps, column_taps].swapaxes(2, 3)))
    return sum(parts[1:], parts[0])


def _plain_doubled(x: Array, kernel: Array) -> Array:
    return conv_transpose(x, kernel, stride=2, padding=-1)


def _plain_halved(y: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(
        y[:, 1:-1, 1:-1],
        kernel.swapaxes(2, 3),
        (2, 2),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def is_worthwhile(x_shape: Sequence[int], kernel_shape: Sequence[int]) -> bool:
    """Whether the method is the faster one on CPU for arrays of these shapes."""
    batch, height, width, _ = x_shape
    tiles = batch * (height // 4) * (width // 4)
    channels = kernel_shape[2:]
    return min(channels) >= _FEWEST_CHANNELS and tiles * math.prod(channels) >= _FEWEST_PRODUCTS


def _make(
    name: str,
    fast: Callable[[Array, Array], Array],
    plain: Callable[[Array, Array], Array],
    *,
    transpose: Callable[[Array, Array], Array],
    by_matmul: Callable[[Array, Array], Array],
) -> Callable[[Array, Array], Array]:
    """Returns a function of (x, kernel), linear in both, that runs the faster way of its platform.

    fast, plain: the ways. transpose: by x, a function of (cotangent, kernel). by_matmul: the way by
    which derivatives by the kernel, and kernels of single samples, are cheap.
    A primitive, because the transpose of the fast way's steps would be scattered additions, and no
    rule for custom derivatives allows jvp, transposition and vmap together.
    """
    primitive = Primitive(name)

    def on_cpu(x: Array, kernel: Array) -> Array:
        if min(x.shape[1:3]) < len(kernel):
            # Where the kernel is larger than the maps, XLA falls back to slow loops.
            return by_matmul(x, kernel)
        return (fast if is_worthwhile(x.shape, kernel.shape) else plain)(x, kernel)

    def transpose_kernel(cotangent: Array, x: Array, kernel: Any) -> Array:
        zero = jnp.zeros(kernel.aval.shape, kernel.aval.dtype)
        return jax.linear_transpose(lambda k: by_matmul(x, k), zero)(cotangent)[0]

    def batch(arguments: Sequence[Array], axes: Sequence[int | None]) -> tuple[Array, int]:
        (x, kernel), (x_axis, kernel_axis) = arguments, axes
        if x_axis is None or kernel_axis is not None:
            return jax.vmap(by_matmul, (x_axis, kernel_axis))(x, kernel), 0
        x = jnp.moveaxis(x, x_axis, 0)
        merged = primitive.bind(x.reshape(-1, *x.shape[2:]), kernel)
        return merged.reshape(*x.shape[:2], *merged.shape[1:]), 0

    primitive.def_impl(jax.jit(primitive.bind))
    primitive.def_abstract_eval(
        lambda x, kernel: x.update(shape=jax.eval_shape(plain, x, kernel).shape)
    )
    ad.defbilinear(
        primitive, lambda cotangent, _, kernel: transpose(cotangent, kernel), transpose_kernel
    )
    batching.primitive_batchers[primitive] = batch
    mlir.register_lowering(primitive, mlir.lower_fun(plain, multiple_results=False))
    mlir.register_lowering(primitive, mlir.lower_fun(on_cpu, multiple_results=False), "cpu")
    return primitive.bind


_Bilinear = Callable[[Array, Array], Array]

_conv3x3: _Bilinear = _make(
    "conv3x3",
    _same,
    conv,
    transpose=lambda cotangent, kernel: _conv3x3(cotangent, kernel[::-1, ::-1].swapaxes(2, 3)),
    by_matmul=conv_by_matmul,
)
_double3x3: _Bilinear = _make(
    "double3x3",
    _doubled,
    _plain_doubled,
    transpose=lambda cotangent, kernel: _halve3x3(cotangent, kernel),
    by_matmul=lambda x, kernel: conv_transpose_by_matmul(x, kernel, stride=2, padding=-1),
)
_halve3x3: _Bilinear = _make(
    "halve3x3",
    _halved,
    _plain_halved,
    transpose=lambda cotangent, kernel: _double3x3(cotangent, kernel),
    by_matmul=_plain_halved,
)


def conv3x3(
    x: Float[Array, "batch height width in"], kernel: Float[Array, "3 3 in out"]
) -> Float[Array, "batch height width out"]:
    """Returns the same as `layers.conv`, on CPU by Winograd's method where that is faster.

    Derivatives by x are such convolutions too, those by the kernel one matrix product.
    """
    return _conv3x3(x, kernel)


def convolve(x: Array, kernel: Array, strides: Any, padding: Any, **options: Any) -> Array:
    """Returns the same as `lax.conv_general_dilated`, by `conv3x3` where that is what is asked.

    For `conv_general_dilated` of Flax's convolutions.
    """
    plain = all(
        dilation in (None, (1, 1))
        for dilation in (options.get("lhs_dilation"), options.get("rhs_dilation"))
    )
    same = tuple(strides) == (1, 1) and list(map(tuple, padding)) == [(1, 1), (1, 1)]
    if plain and same and kernel.shape[:2] == (3, 3) and kernel.shape[2] == x.shape[-1]:
        return conv3x3(x, kernel)
    return lax.conv_general_dilated(x, kernel, strides, padding, **options)


def double3x3(
    x: Float[Array, "batch height width in"], kernel: Float[Array, "3 3 in out"]
) -> Float[Array, "batch height_out width_out out"]:
    """Returns the same as `layers.conv_transpose` of stride 2 and padding -1: H_out = 2H + 3.

    That is the whole transposed convolution and a rim of one zero. On CPU by Winograd's method
    where that is faster; derivatives as for `conv3x3`.
    """
    return _double3x3(x, kernel)
