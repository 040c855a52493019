"""Convolutions against their definition, and their two implementations against each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import testing
from navigan_jax.nn.layers import (
    ConvTranspose,
    FrozenBatchNorm,
    Unfolding,
    conv,
    conv_by_matmul,
    conv_transpose,
    conv_transpose_by_matmul,
    conv_transpose_of_windows,
)

INPUTS, OUTPUTS = 3, 2

# (side, stride, padding, height, width): the two of DCGAN, that of StyleGAN2, sides and strides
# that do not divide each other, a stride larger than the side, a single pixel.
TRANSPOSED = [
    (4, 1, 0, 1, 1),
    (4, 2, 1, 3, 5),
    (3, 2, 0, 4, 3),
    (5, 3, 2, 2, 4),
    (3, 1, 1, 5, 4),
    (2, 3, 0, 3, 2),
    (1, 1, 0, 2, 3),
    (7, 4, 3, 3, 2),
]
EXTRA = [(3, 2, 1, 3, 2), (4, 3, 2, 2, 3)]
PLAIN = [(1, 3, 4, 1), (3, 5, 4, 1), (5, 4, 7, 1), (5, 2, 1, 1), (3, 5, 4, 2), (5, 7, 4, 3)]


def transposed_by_definition(x, kernel, stride, padding, extra=0):
    """Each pixel adds its multiple of the kernel; padding cuts the rim off, less at the end."""
    batch, height, width, _ = x.shape
    side, _, _, outputs = kernel.shape
    size = ((length - 1) * stride + side + extra for length in (height, width))
    full = np.zeros((batch, *size, outputs))
    for row, column in np.ndindex(height, width):
        rows = slice(row * stride, row * stride + side)
        columns = slice(column * stride, column * stride + side)
        full[:, rows, columns] += np.einsum("bi,klio->bklo", x[:, row, column], kernel)
    return full[:, padding : full.shape[1] - padding, padding : full.shape[2] - padding]


def correlated_by_definition(x, kernel, stride=1):
    """Each stride-th pixel is the sum over its window; pixels outside the image are zero."""
    side = kernel.shape[0]
    rim = side // 2
    padded = np.pad(x, ((0, 0), (rim, rim), (rim, rim), (0, 0)))
    out = np.zeros((*x.shape[:3], kernel.shape[3]))
    for row, column in np.ndindex(*x.shape[1:3]):
        window = padded[:, row : row + side, column : column + side]
        out[:, row, column] = np.einsum("bkli,klio->bo", window, kernel)
    return out[:, ::stride, ::stride]


def _cases():
    """Returns {name: (convolution, by matrix product, definition, shape of x, side)}."""
    cases = {}
    for index, (side, stride, padding, height, width) in enumerate((*TRANSPOSED, *EXTRA)):
        options = {"stride": stride, "padding": padding, "extra": int(index >= len(TRANSPOSED))}
        cases[f"transposed-{side}-{stride}-{padding}-{options['extra']}"] = (
            lambda x, k, options=options: conv_transpose(x, k, **options),
            lambda x, k, options=options: conv_transpose_by_matmul(x, k, **options),
            lambda x, k, options=options: transposed_by_definition(x, k, **options),
            (2, height, width, INPUTS),
            side,
        )
    for side, height, width, stride in PLAIN:
        functions = (
            functools.partial(function, stride=stride)
            for function in (conv, conv_by_matmul, correlated_by_definition)
        )
        cases[f"plain-{side}-{stride}-{width}"] = (*functions, (2, height, width, INPUTS), side)
    return cases


CASES = _cases()


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def draw(shape, side, dtype=np.float64):
    random = np.random.RandomState(0)
    x, kernel = random.standard_normal(shape), random.standard_normal((side, side, INPUTS, OUTPUTS))
    return jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)


def test_value_is_that_of_the_definition(case):
    """Both implementations, with H_out = (H - 1) stride - 2 padding + side if transposed."""
    convolve, by_matmul, definition, shape, side = case
    with testing.x64():
        x, kernel = draw(shape, side)
        expected = definition(np.asarray(x), np.asarray(kernel))
        for function in (convolve, by_matmul):
            testing.assert_close(jax.jit(function)(x, kernel), expected, 1e-13)
    x, kernel = draw(shape, side, np.float32)
    for function in (convolve, by_matmul):
        assert jax.eval_shape(function, x, kernel).dtype == np.float32


def test_turned_kernel_is_another_one():
    """Control: the definition distinguishes the kernel from the one turned by 180 degrees."""
    x, kernel = draw((2, 3, 5, INPUTS), 4, np.float32)
    expected = transposed_by_definition(np.asarray(x), np.asarray(kernel), 2, 1)
    with pytest.raises(AssertionError, match="relative error"):
        testing.assert_close(
            conv_transpose(x, kernel[::-1, ::-1], stride=2, padding=1), expected, 0.1
        )


def test_derivatives_agree_and_are_adjoint(case):
    """Both implementations have the same JVP and VJP in input and kernel; <Jv, w> = <v, J'w>."""
    convolve, by_matmul, _, shape, side = case
    with testing.x64():
        primals = draw(shape, side)
        tangents = testing.normal_like(1, primals)

        def derivatives(function, primals, tangents):
            y, jv = jax.jvp(function, primals, tangents)
            w = jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
            return jv, w, jax.vjp(function, *primals)[1](w)

        results = [
            jax.jit(derivatives, static_argnums=0)(function, primals, tangents)
            for function in (convolve, by_matmul)
        ]
    for jv, w, pulled in results:
        scale = np.linalg.norm(jv) * np.linalg.norm(w)
        back = sum(np.vdot(t, p) for t, p in zip(tangents, pulled, strict=True))
        testing.assert_close(np.vdot(jv, w), back, 1e-13, "adjoint", scale=scale)
    (jv, _, pulled), (other_jv, _, other_pulled) = results
    testing.assert_close(other_jv, jv, 1e-13, "JVP")
    for got, expected in zip(other_pulled, pulled, strict=True):
        testing.assert_close(got, expected, 1e-13, "VJP")


def test_matrix_product_is_one():
    """The matrix-product form contains no convolution, forwards or backwards."""
    x, kernel = draw((2, 4, 5, INPUTS), 3, np.float32)

    def primitives(function):
        jaxpr = jax.make_jaxpr(lambda k: jax.vjp(lambda k: function(x, k), k)[1](function(x, k)))
        return str(jaxpr(kernel))

    for convolve, by_matmul in (
        (conv, conv_by_matmul),
        (
            lambda x, k: conv_transpose(x, k, stride=2, padding=1),
            lambda x, k: conv_transpose_by_matmul(x, k, stride=2, padding=1),
        ),
    ):
        assert "conv_general_dilated" in primitives(convolve)
        assert "conv_general_dilated" not in primitives(by_matmul)


# Of each kind: DCGAN's two, a stride of one, strides of three and four, more padding than taps.
EVEN = [(4, 2, 1, 3, 5), (4, 1, 0, 1, 1), (3, 1, 1, 5, 4), (6, 3, 3, 3, 4), (4, 4, 2, 3, 2)]


@pytest.mark.parametrize(("side", "stride", "padding", "height", "width"), EVEN)
def test_unfolded_convolution_is_that_of_the_definition(side, stride, padding, height, width):
    """It is windows times phases; `kernel` inverts `phases`, which reorders the entries."""
    unfolding = Unfolding.of(side, stride, padding)
    with testing.x64():
        x, kernel = draw((2, height, width, INPUTS), side)
        phases = unfolding.phases(kernel)
        got = conv_transpose_of_windows(unfolding.windows(x), phases)
        expected = transposed_by_definition(np.asarray(x), np.asarray(kernel), stride, padding)
        testing.assert_close(got, expected, 1e-13)
        np.testing.assert_array_equal(np.sort(phases.ravel()), np.sort(kernel.ravel()))
        np.testing.assert_array_equal(unfolding.kernel(phases), kernel)
        several = jnp.stack([kernel, 2 * kernel])
        np.testing.assert_array_equal(unfolding.phases(several)[1], 2 * phases)
        np.testing.assert_array_equal(unfolding.kernel(unfolding.phases(several)), several)


@pytest.mark.parametrize(("side", "stride", "padding"), [(3, 2, 0), (5, 3, 2), (4, 4, 1)])
def test_kernel_that_falls_into_unequal_phases_is_not_unfolded(side, stride, padding):
    """Some phases would read more weights than others, or the image would end within a phase."""
    assert Unfolding.of(side, stride, padding) is None


@pytest.mark.parametrize("by_matmul", [False, True])
def test_layer_applies_its_kernel(by_matmul):
    """The module's one weight is `kernel`, (side, side, in, out)."""
    layer = ConvTranspose(features=OUTPUTS, side=4, stride=2, padding=1, by_matmul=by_matmul)
    x, kernel = draw((2, 3, 5, INPUTS), 4, np.float32)
    params = layer.init(jax.random.key(0), x)["params"]
    assert jax.tree.map(jnp.shape, params) == {"kernel": kernel.shape}
    got = layer.apply({"params": {"kernel": kernel}}, x)
    testing.assert_close(got, transposed_by_definition(x, np.asarray(kernel), 2, 1), 1e-6)


def test_layer_applies_the_phases_of_its_kernel_to_windows():
    """For an unfolded input; the weight is smaller if the windows are reduced."""
    layer, unfolding = ConvTranspose(OUTPUTS, side=4, stride=2, padding=1), Unfolding.of(4, 2, 1)
    x, kernel = draw((2, 3, 5, INPUTS), 4, np.float32)
    windows = unfolding.windows(x)
    got = layer.apply({"params": {"kernel": unfolding.phases(kernel)}}, windows)
    testing.assert_close(got, layer.apply({"params": {"kernel": kernel}}, x), 1e-6)
    shape = layer.init(jax.random.key(0), windows)["params"]["kernel"].shape
    assert shape == (2, 2, 4 * INPUTS, OUTPUTS)


def test_batch_norm_in_evaluation_mode_is_its_definition():
    """(x - mean) / √(var + ε) · scale + bias, channel by channel; mean 0, variance 1 at first."""
    with testing.x64():
        x, _ = draw((2, 3, 5, INPUTS), 1)
        layer = FrozenBatchNorm()
        shapes = {name: jnp.ones(INPUTS) for name in ("scale", "bias", "mean", "var")}
        params = testing.normal_like(3, shapes)
        params["var"] = params["var"] ** 2 * 1e-4  # small, so that ε shows
        scale, bias, mean, var = (np.asarray(params[name]) for name in shapes)
        expected = (np.asarray(x) - mean) / np.sqrt(var + 1e-5) * scale + bias
        testing.assert_close(layer.apply({"params": params}, x), expected, 1e-13)
        fresh = layer.init(jax.random.key(0), x)
        assert fresh["params"].keys() == shapes.keys()
        testing.assert_close(layer.apply(fresh, x), np.asarray(x) / np.sqrt(1 + 1e-5), 1e-13)
