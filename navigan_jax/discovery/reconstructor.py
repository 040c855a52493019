"""The reconstructor R: predicts direction index and shift from an image and its shifted twin.

ResNet-18 suits all images, LeNet small ones. Both take the two images concatenated along the
channels, original first. The numerics are those of the PyTorch originals:

1. Running statistics of batch normalisation have momentum 0.1; the variance is the unbiased one.
2. Max pooling pads with minus infinity; resizing takes the nearest pixel to the upper left.
3. Fresh weights: He initialisation by outputs for ResNet's convolutions, uniform within
   ±1/√(inputs) for everything else.

On several devices, batch normalisation is synchronised, with the statistics of the whole batch, or
each device uses its own; then the running statistics are the mean over the devices.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from navigan_jax import channels, devices
from navigan_jax.array_types import Array, Float, Images, Key
from navigan_jax.errors import InputError
from navigan_jax.nn import winograd
from navigan_jax.perceptual.backbones import max_pool

Prediction = tuple[Float[Array, "batch directions"], Float[Array, "batch"]]

_MOMENTUM = 0.1  # weight of the new statistics
_EPSILON = 1e-5

_by_inputs = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
_by_outputs = nn.initializers.variance_scaling(2, "fan_out", "normal")


def _bias_of(inputs: int) -> Callable[..., Array]:
    bound = 1 / math.sqrt(inputs)

    def init(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def _mean(x: Array) -> Array:
    """Returns the mean over all axes but the last, axis by axis: shorter sums round less."""
    for _ in range(x.ndim - 1):
        x = jnp.mean(x, axis=0)
    return x


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last.

    Weights `scale` and `bias`; running `mean` and `var` in the collection "batch_stats".
    synchronised: take the statistics over the batches of all devices.
    """

    synchronised: bool

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        if train:
            mean, var, count = self._statistics(x)
            if not self.is_initializing():
                unbiased = var * (count / max(count - 1, 1))
                running_mean.value += _MOMENTUM * (mean - running_mean.value)
                running_var.value += _MOMENTUM * (unbiased - running_var.value)
        else:
            mean, var = running_mean.value, running_var.value
        ones = (1,) * (x.ndim - 1)
        gain = scale * lax.rsqrt(var + _EPSILON)
        return (x - mean.reshape(*ones, -1)) * gain.reshape(*ones, -1) + bias.reshape(*ones, -1)

    def _statistics(self, x: Array) -> tuple[Array, Array, int]:
        """Returns mean and biased variance by channel, and the count of numbers behind them."""
        count = math.prod(x.shape[:-1])
        across = devices.mean_over_devices if self.synchronised else lambda value: value
        mean = across(_mean(x))
        var = across(_mean((x - mean.reshape(*(1,) * (x.ndim - 1), -1)) ** 2))
        return mean, var, count * (devices.mapped_devices() if self.synchronised else 1)


def _conv(
    features: int, side: int, *, stride: int = 1, padding: int = 0, name: str, inputs: int = 0
) -> nn.Conv:
    """Returns a convolution; `inputs` > 0 adds a bias, and PyTorch's default initialisation."""
    return nn.Conv(
        features,
        (side, side),
        strides=(stride, stride),
        padding=((padding, padding), (padding, padding)),
        use_bias=inputs > 0,
        kernel_init=_by_inputs if inputs else _by_outputs,
        bias_init=_bias_of(max(inputs, 1) * side**2),
        conv_general_dilated=winograd.convolve,
        name=name,
    )


def _dense(features: int, inputs: int, name: str) -> nn.Dense:
    return nn.Dense(features, kernel_init=_by_inputs, bias_init=_bias_of(inputs), name=name)


def nearest(images: Images, side: int) -> Images:
    """Returns the images resized to a square, output pixel i taken from floor(i · in / out)."""
    rows, columns = (jnp.arange(side) * size // side for size in images.shape[1:3])
    return images[:, rows][:, :, columns]


class _Block(nn.Module):
    """A basic residual block: two 3x3 convolutions and a shortcut."""

    features: int
    stride: int
    synchronised: bool

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        norm = functools.partial(BatchNorm, self.synchronised)
        y = _conv(self.features, 3, stride=self.stride, padding=1, name="conv1")(x)
        y = nn.relu(norm(name="bn1")(y, train))
        y = _conv(self.features, 3, padding=1, name="conv2")(y)
        y = norm(name="bn2")(y, train)
        if self.stride > 1:
            x = _conv(self.features, 1, stride=self.stride, name="downsample_conv")(x)
            x = norm(name="downsample_bn")(x, train)
        return nn.relu(y + x)


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2016) with two heads on its 512 features.

    directions: number of logits. side: side in pixels to which both images are resized first.
    """

    directions: int
    side: int | None = None
    synchronised: bool = False
    smallest: int = 1

    @nn.compact
    def __call__(self, original: Images, shifted: Images, train: bool) -> Prediction:
        x = _join(self, original, shifted)
        x = _conv(64, 7, stride=2, padding=3, name="conv1")(x)
        x = nn.relu(BatchNorm(self.synchronised, name="bn1")(x, train))
        edge = ((0, 0), (1, 1), (1, 1), (0, 0))
        x = max_pool(jnp.pad(x, edge, constant_values=-jnp.inf), 3)
        for layer, features in enumerate((64, 128, 256, 512), start=1):
            for block in range(2):
                stride = 2 if layer > 1 and block == 0 else 1
                name = f"layer{layer}_{block}"
                x = _Block(features, stride, self.synchronised, name=name)(x, train)
        x = jnp.mean(x, axis=(1, 2))
        logits = _dense(self.directions, 512, "label_head")(x)
        return logits, _dense(1, 512, "shift_head")(x)[:, 0]


class LeNet(nn.Module):
    """LeNet as the official program widens it, with batch normalisation and two heads.

    directions: number of logits. side: side in pixels to which both images are resized first.
    """

    directions: int
    side: int | None = None
    synchronised: bool = False
    smallest: int = 32

    @nn.compact
    def __call__(self, original: Images, shifted: Images, train: bool) -> Prediction:
        norm = functools.partial(BatchNorm, self.synchronised)
        x = _join(self, original, shifted)
        for index, features in enumerate((6, 16, 120)):
            x = max_pool(x, 2) if index else x
            x = _conv(features, 5, name=f"conv{index}", inputs=x.shape[-1])(x)
            x = nn.relu(norm(name=f"bn{index}")(x, train))
        x = jnp.mean(x, axis=(1, 2))

        def head(outputs: int, name: str) -> Array:
            y = norm(name=f"{name}_bn")(_dense(84, 120, f"{name}_hidden")(x), train)
            return _dense(outputs, 84, f"{name}_head")(nn.relu(y))

        return head(self.directions, "label"), head(1, "shift")[:, 0]


Reconstructor = ResNet18 | LeNet

RECONSTRUCTORS: Mapping[str, type[Reconstructor]] = {"resnet18": ResNet18, "lenet": LeNet}


def make_reconstructor(
    name: str, *, directions: int, side: int | None = None, synchronised: bool = False
) -> Reconstructor:
    """Returns the network without its variables.

    side: side in pixels to which images are resized first; None: not resized. synchronised: batch
    statistics over all devices.
    Raises: InputError for an unknown name.
    """
    if name not in RECONSTRUCTORS:
        raise InputError(
            f"reconstructor: expected a known network; got {name!r}; allowed: "
            f"{', '.join(RECONSTRUCTORS)}; set config.reconstructor.name"
        )
    return RECONSTRUCTORS[name](directions=directions, side=side, synchronised=synchronised)


def init_reconstructor(
    key: Key, reconstructor: Reconstructor, images: tuple[int, int, int]
) -> dict[str, Any]:
    """Returns fresh variables: {"params", "batch_stats"}.

    images: (height, width, channels) of one image. Only the channels matter, so the network is
    initialised on the smallest image; a large one could exceed the memory.
    """
    example = jnp.zeros((1, reconstructor.smallest, reconstructor.smallest, images[2]))
    return dict(reconstructor.clone(side=None).init(key, example, example, False))


def feature_bytes(reconstructor: Reconstructor, images: tuple[int, int, int]) -> int:
    """Returns the bytes of all features for one pair of images; training needs these and more.

    images: (height, width, channels) of one image. Only shapes are computed.
    Raises: InputError if the images are too small.
    """

    def features(pair: Images) -> Any:
        arguments = jax.random.key(0), pair, pair, False
        made = reconstructor.init(*arguments, mutable=True, capture_intermediates=True)
        return made["intermediates"]

    found = jax.eval_shape(features, jax.ShapeDtypeStruct((1, *images), jnp.float32))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(found))


def predict(
    reconstructor: Reconstructor,
    variables: Mapping[str, Any],
    original: Images,
    shifted: Images,
    *,
    train: bool,
) -> tuple[Prediction, Any]:
    """Returns ((logits, t̂), running statistics); the statistics change only if `train`.

    train: normalise with the statistics of this batch instead of the running ones.
    """
    mutable = ["batch_stats"] if train else []
    prediction, changed = reconstructor.apply(variables, original, shifted, train, mutable=mutable)
    return prediction, changed.get("batch_stats", variables["batch_stats"])


def _join(network: Reconstructor, original: Images, shifted: Images) -> Array:
    """Returns both images concatenated along the channels, colours premultiplied by alpha.

    Invisible colours of transparent pixels would otherwise tell directions apart.
    """
    x = jnp.concatenate([channels.premultiply(each) for each in (original, shifted)], axis=-1)
    if network.side is not None:
        x = nearest(x, network.side)
    if min(x.shape[1:3]) < network.smallest:
        raise InputError(
            f"reconstructor: expected images of {network.smallest} pixels or more; got "
            f"{x.shape[1]} x {x.shape[2]}; set config.reconstructor.name='resnet18', or a larger "
            "config.reconstructor.side"
        )
    return x
