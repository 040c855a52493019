"""Dense layers and convolutions with a bias, in the forms that edits need.

An edited layer is computed `by_matmul`, and a sample may have its own change of the weight; see
`nn.layers`.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp

from navigan_jax.array_types import Array, Float
from navigan_jax.nn.layers import (
    Linear,
    add_bias,
    add_change,
    conv,
    conv_by_matmul,
    read_change,
)
from navigan_jax.nn.winograd import conv3x3


def below(names: tuple[str, ...], prefix: str) -> tuple[str, ...]:
    """Returns the names that begin with the prefix, without it: those of one submodule."""
    return tuple(name.removeprefix(prefix) for name in names if name.startswith(prefix))


class Dense(nn.Module):
    """Dense layer; weights `kernel` (in, out) and, unless `use_bias` is False, `bias`."""

    features: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "batch in"]) -> Float[Array, "batch out"]:
        init = nn.initializers.normal(0.02)
        kernel = self.param("kernel", init, (x.shape[-1], self.features))
        y = add_change(x @ kernel, x, read_change(self), shared=jnp.matmul, own=jnp.matmul)
        return add_bias(self, y)


class Conv(nn.Module):
    """Convolution; weights `kernel` (side, side, in, out) and, unless `use_bias` is False, `bias`.

    padding: pixels added at each side: zeros, or the mirrored image if `mirrored`.
    """

    features: int
    side: int
    stride: int = 1
    padding: int = 0
    mirrored: bool = False
    use_bias: bool = True
    by_matmul: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = nn.initializers.normal(0.02)
        kernel = self.param("kernel", init, (self.side, self.side, x.shape[-1], self.features))
        # Zeros around an odd kernel of half its side need no larger copy of the image.
        padded = not self.mirrored and 2 * self.padding + 1 == self.side
        if self.padding and not padded:
            margin = (self.padding, self.padding)
            mode = "reflect" if self.mirrored else "constant"
            x = jnp.pad(x, ((0, 0), margin, margin, (0, 0)), mode)
        shared: Linear
        shared, own = (
            functools.partial(function, padded=padded, stride=self.stride)
            for function in (conv, conv_by_matmul)
        )
        if (self.side, self.stride, padded) == (3, 1, True):
            shared = conv3x3  # its derivatives by the kernel are cheap too
        y = own(x, kernel) if self.by_matmul else shared(x, kernel)
        return add_bias(self, add_change(y, x, read_change(self), shared=shared, own=own))
