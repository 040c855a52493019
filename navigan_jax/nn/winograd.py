"""Convolutions of side 3 by Winograd's method, which needs fewer multiplications.

Four neighbouring outputs of a correlation with r taps need 3 + r products instead of 4 r: inputs
and kernel are transformed to their values at 3 + r points, multiplied there, and transformed back.
With two axes and channels, this is one matrix product for each pair of points. The plain
convolution takes 36 / 16 multiplications per output instead of 9. The transposed one is split into
the four phases of its outputs (2x2, 2x1, 1x2 and 1x1 taps); it takes 81 / 16 multiplications per
input instead of 9.

XLA on CPU computes a convolution by its definition. On a GPU cuDNN has Winograd's method, so the
plain functions of `nn.layers` run there.

Source: Lavin and Gray 2016, Fast algorithms for convolutional neural networks. They use the points
0, ±1, ±2, ∞. With ±√½ and ±√2 instead, powers are smaller, and the float32 error is half as large:
1e-6 to 2e-6 of the output's standard deviation.
"""

import dataclasses
import functools
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
from navigan_jax.nn.layers import conv, conv_by_matmul, conv_transpose, conv_transpose_by_matmul

# Below these sizes, the transforms and compiling them cost more than they save.
_FEWEST_CHANNELS = 32
_FEWEST_PRODUCTS = 2**26  # tiles * inputs * outputs
_SMALL_MAP = 4  # the largest side, in pixels, at which `convolve` makes a matrix product


@dataclasses.dataclass(frozen=True, eq=False)
class _Axis:
    """The transforms along one axis: of a tile's inputs, of the kernel, and to the outputs."""

    inputs: np.ndarray  # [points, inputs]
    kernel: np.ndarray  # [points, taps]
    outputs: np.ndarray  # [outputs, points]


_Bilinear = Callable[[Array, Array], Array]


def _make_axis(points: Sequence[float], taps: int) -> _Axis:
    """Returns the transforms for the given points and infinity.

    The construction is Cook and Toom's: a correlation is the transpose of a product of polynomials,
    and their values at the points, with the highest coefficient at infinity, determine them.
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
    """Returns the correlation without padding; the kernel has 1, 2 or 3 rows and columns."""
    batch, inputs = x.shape[0], x.shape[-1]
    sides = kernel.shape[:2]
    first, second = (_AXES[side] for side in sides)
    height, width = (x.shape[axis + 1] - sides[axis] + 1 for axis in (0, 1))
    rows, columns = -(-height // len(first.outputs)), -(-width // len(second.outputs))
    below, right = rows * len(first.outputs) - height, columns * len(second.outputs) - width
    x = jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0)))
    along_height = _map(first.inputs, _windows(x, 1, rows, first))
    # Without the barrier XLA computes them again for each point along the other axis.
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


def correlate_kernel(
    x: Float[Array, "batch height width in"], y: Float[Array, "batch height_out width_out out"]
) -> Float[Array, "3 3 in out"]:
    """Returns the transpose of `correlate` by its kernel, for side 3: Σ x[p + k] y[p]'.

    It takes the same number of matrix products, of the same sizes.
    """
    method = _AXES[3]
    tile = len(method.outputs)
    height, width = y.shape[1:3]
    rows, columns = -(-height // tile), -(-width // tile)
    edges = ((0, 0), (0, rows * tile - height), (0, columns * tile - width), (0, 0))
    x, y = jnp.pad(x, edges), jnp.pad(y, edges)
    x_strips = _map(method.inputs, _windows(x, 1, rows, method))
    y_strips = _map(method.outputs.T, [y[:, start::tile] for start in range(tile)])
    x_strips, y_strips = lax.optimization_barrier((x_strips, y_strips))
    at_points = [
        left.reshape(-1, left.shape[-1]).T @ right.reshape(-1, right.shape[-1])
        for x_strip, y_strip in zip(x_strips, y_strips, strict=True)
        for left, right in zip(
            _map(method.inputs, _windows(x_strip, 2, columns, method)),
            _map(method.outputs.T, [y_strip[:, :, start::tile] for start in range(tile)]),
            strict=True,
        )
    ]
    maps = jnp.asarray(np.kron(method.kernel, method.kernel).T, x.dtype)
    kernel = maps @ jnp.stack(at_points).reshape(len(at_points), -1)
    return kernel.reshape(3, 3, x.shape[-1], y.shape[-1])


def _windows(x: Array, axis: int, tiles: int, method: _Axis) -> list[Array]:
    """Returns the first, second, ... input of every tile along an axis."""
    tile = len(method.outputs)
    stop = tile * (tiles - 1) + 1
    return [
        lax.slice_in_dim(x, start, start + stop, tile, axis=axis)
        for start in range(len(method.inputs))
    ]


def _map(matrix: np.ndarray, arrays: Sequence[Array]) -> list[Array]:
    """Returns the matrix times the list of arrays; terms with a factor of 0 are left out."""
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


# The phases of outputs with odd and with even index: the odd read one pixel, the even two.
_PHASES = ((1, slice(1, 2)), (0, slice(0, None, 2)))


def _doubled(x: Array, kernel: Array) -> Array:
    """Returns the transposed convolution with a rim of one zero, which swaps the phases."""
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
    """Returns the transpose of `_doubled` by x."""
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
    """Returns whether Winograd's method is faster on CPU for arrays of these shapes."""
    batch, height, width, _ = x_shape
    tiles = batch * (height // 4) * (width // 4)
    channels = kernel_shape[2:]
    return min(channels) >= _FEWEST_CHANNELS and tiles * math.prod(channels) >= _FEWEST_PRODUCTS


def _make(
    name: str,
    fast: _Bilinear,
    plain: _Bilinear,
    *,
    kernel_shape: Callable[[Any, Any], Sequence[int]] = lambda _, kernel: kernel.shape,
    by_first: _Bilinear,
    by_second: Callable[[Array, Array, Any], Array],
    merge: tuple[tuple[int, int], tuple[int, int]],
    both: _Bilinear,
) -> _Bilinear:
    """Returns a bilinear function that runs the faster implementation on each platform.

    fast, plain: the two implementations. kernel_shape: function of the arguments, for
    `is_worthwhile`. by_first, by_second: the transposes by each argument, as functions of the
    cotangent and the other argument; `by_second` also gets the shape of the argument it replaces.
    merge: for each argument, the axis into which its batch can be merged, and the axis of the
    result that then holds the batch. both: the implementation for a batch of both arguments, by
    matrix products where possible.

    The function is a primitive, because the transpose of the fast implementation would consist of
    scatter-additions, and no rule for custom derivatives allows jvp, transposition and vmap
    together.
    """
    primitive = Primitive(name)

    def on_cpu(first: Array, second: Array) -> Array:
        shape = kernel_shape(first, second)
        if min(first.shape[1:3]) < shape[0]:
            # If the kernel is larger than the maps, XLA falls back to slow loops.
            return both(first, second)
        return (fast if is_worthwhile(first.shape, shape) else plain)(first, second)

    def batch(arguments: Sequence[Array], axes: Sequence[int | None]) -> tuple[Array, int]:
        if None not in axes:
            return jax.vmap(both, axes)(*arguments), 0
        ((number, batched),) = [(n, axis) for n, axis in enumerate(axes) if axis is not None]
        axis, found = merge[number]
        merged = list(arguments)
        moved = jnp.moveaxis(arguments[number], batched, axis)
        merged[number] = _reshape(moved, axis, 2, -1)
        return _reshape(primitive.bind(*merged), found, 1, moved.shape[axis], -1), found

    primitive.def_impl(jax.jit(primitive.bind))
    primitive.def_abstract_eval(
        lambda first, second: first.update(shape=jax.eval_shape(plain, first, second).shape)
    )
    ad.defbilinear(
        primitive,
        lambda cotangent, _, second: by_first(cotangent, second),
        lambda cotangent, first, second: by_second(cotangent, first, second.aval),
    )
    batching.primitive_batchers[primitive] = batch
    mlir.register_lowering(primitive, mlir.lower_fun(plain, multiple_results=False))
    mlir.register_lowering(primitive, mlir.lower_fun(on_cpu, multiple_results=False), "cpu")
    return primitive.bind


def _reshape(array: Array, start: int, count: int, *sizes: int) -> Array:
    """Returns the array with `sizes` in place of `count` axes from `start` on."""
    return array.reshape(*array.shape[:start], *sizes, *array.shape[start + count :])


def _by_kernel(function: _Bilinear) -> Callable[[Array, Array, Any], Array]:
    """Returns the transpose by the kernel of a function of (x, kernel)."""

    def transpose(cotangent: Array, x: Array, kernel: Any) -> Array:
        zero = jnp.zeros(kernel.shape, kernel.dtype)
        return jax.linear_transpose(lambda k: function(x, k), zero)(cotangent)[0]

    return transpose


def _weigh_by_matmul(x: Array, y: Array) -> Array:
    shape = (3, 3, x.shape[-1], y.shape[-1])
    return _by_kernel(conv_by_matmul)(y, x, jax.ShapeDtypeStruct(shape, x.dtype))


_conv3x3: _Bilinear = _make(
    "conv3x3",
    _same,
    conv,
    by_first=lambda cotangent, kernel: _conv3x3(cotangent, kernel[::-1, ::-1].swapaxes(2, 3)),
    by_second=lambda cotangent, x, _: _weigh3x3(x, cotangent),
    merge=((0, 0), (3, 3)),
    both=conv_by_matmul,
)
# The transpose of `conv3x3` by the kernel, as a function of x and the cotangent.
_weigh3x3: _Bilinear = _make(
    "weigh3x3",
    lambda x, y: correlate_kernel(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), y),
    _weigh_by_matmul,
    kernel_shape=lambda x, y: (3, 3, x.shape[-1], y.shape[-1]),
    by_first=lambda cotangent, y: _conv3x3(y, cotangent[::-1, ::-1].swapaxes(2, 3)),
    by_second=lambda cotangent, x, _: _conv3x3(x, cotangent),
    merge=((3, 2), (3, 3)),
    both=_weigh_by_matmul,
)
_double_by_matmul = functools.partial(conv_transpose_by_matmul, stride=2, padding=-1)
_double3x3: _Bilinear = _make(
    "double3x3",
    _doubled,
    _plain_doubled,
    by_first=lambda cotangent, kernel: _halve3x3(cotangent, kernel),
    by_second=_by_kernel(_double_by_matmul),
    merge=((0, 0), (3, 3)),
    both=_double_by_matmul,
)
_halve3x3: _Bilinear = _make(
    "halve3x3",
    _halved,
    _plain_halved,
    by_first=lambda cotangent, kernel: _double3x3(cotangent, kernel),
    by_second=_by_kernel(_plain_halved),
    merge=((0, 0), (2, 3)),
    both=_plain_halved,
)


def conv3x3(
    x: Float[Array, "batch height width in"], kernel: Float[Array, "3 3 in out"]
) -> Float[Array, "batch height width out"]:
    """Returns the same as `layers.conv`, on CPU by Winograd's method if that is faster.

    Derivatives by x are such convolutions too. Derivatives by the kernel use Winograd's method too
    or are one matrix product.
    """
    return _conv3x3(x, kernel)


def convolve(x: Array, kernel: Array, strides: Any, padding: Any, **options: Any) -> Array:
    """Returns the same as `lax.conv_general_dilated`, for small maps by a matrix product.

    Pass it as `conv_general_dilated` to Flax's convolutions. On small maps XLA on CPU is slow to
    compute a convolution of side 3, or its derivative by the kernel.
    """
    dilations = (options.get("lhs_dilation"), options.get("rhs_dilation"))
    same = tuple(strides) == (1, 1) and list(map(tuple, padding)) == [(1, 1), (1, 1)]
    plain = same and all(dilation in (None, (1, 1)) for dilation in dilations)
    small = min(x.shape[1:3]) <= _SMALL_MAP
    if small and plain and kernel.shape[:3] == (3, 3, x.shape[-1]):
        return conv_by_matmul(x, kernel)
    return lax.conv_general_dilated(x, kernel, strides, padding, **options)


def double3x3(
    x: Float[Array, "batch height width in"], kernel: Float[Array, "3 3 in out"]
) -> Float[Array, "batch height_out width_out out"]:
    """Returns the same as `layers.conv_transpose` of stride 2 and padding -1: H_out = 2H + 3.

    This is the whole transposed convolution and a rim of one zero. On CPU it uses Winograd's method
    if that is faster. Derivatives by the kernel are a matrix product.
    """
    return _double3x3(x, kernel)
