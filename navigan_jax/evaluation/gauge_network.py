"""A small convolutional network that reads numbers off images.

Blocks of two by two pixels become channels first, so that the first convolution sees every pixel at
half the cost of full resolution. Two more channels hold the coordinates. The last features keep
their places: a dense layer reads them all, because most factors are about where things are.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from navigan_jax import params as params_lib
from navigan_jax.array_types import Array, Float, Images, Key, Params
from navigan_jax.errors import InputError

SIZES = ("side", "image_channels", "widths", "squeezed", "hidden")

# Limits for damaged or hostile files.
_MOST_STAGES, _LARGEST = 8, 4096


class GaugeNetwork(nn.Module):
    """Convolutions with residuals, and a dense layer on the last features.

    side, image_channels: of the square images that it reads; the side is a multiple of 2^(stages).
    widths: channels of each stage; the first has half the side, each later one half of that.
    squeezed: channels per pixel that the dense layer reads. hidden: width of the dense layer.
    is_circular: for each factor; a circular one has two outputs, cosine and sine of its angle.
    """

    side: int
    image_channels: int
    widths: tuple[int, ...]
    squeezed: int
    hidden: int
    is_circular: tuple[bool, ...]

    @nn.compact
    def __call__(self, images: Images) -> Float[Array, "batch outputs"]:
        batch, half = len(images), self.side // 2
        x = images.reshape(batch, half, 2, half, 2, self.image_channels)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, half, half, -1)
        line = jnp.linspace(-1.0, 1.0, half)
        places = jnp.stack(jnp.meshgrid(line, line), axis=-1)[None]
        x = jnp.concatenate([x, jnp.broadcast_to(places, (batch, half, half, 2))], axis=-1)
        for stage, width in enumerate(self.widths):
            stride = 2 if stage else 1
            x = nn.gelu(nn.Conv(width, (3, 3), (stride, stride), name=f"down{stage}")(x))
            x = x + nn.gelu(nn.Conv(width, (3, 3), name=f"residual{stage}")(x))
        x = nn.Conv(self.squeezed, (1, 1), name="squeeze")(x).reshape(batch, -1)
        x = nn.gelu(nn.Dense(self.hidden, name="hidden")(x))
        return nn.Dense(len(self.is_circular) + sum(self.is_circular), name="readings")(x)


def make_network(
    config: Mapping[str, Any], is_circular: Sequence[bool], params: Params
) -> GaugeNetwork:
    """Returns the network of these sizes, after checking that the weights fit.

    config: the fields of `GaugeNetwork` without `is_circular`.
    Raises: InputError if sizes or weights do not fit, or a weight is not finite.
    """
    values = [x for v in config.values() for x in (v if isinstance(v, list | tuple) else [v])]
    fits = (
        set(config) == set(SIZES)
        and isinstance(config["widths"], list | tuple)
        and 0 < len(config["widths"]) <= _MOST_STAGES
        and all(type(x) is int and 0 < x <= _LARGEST for x in values)
        and config["side"] % 2 ** len(config["widths"]) == 0
    )
    if not fits:
        raise InputError(
            f"gauges: expected the sizes {', '.join(SIZES)}, the side a multiple of "
            f"2^(number of widths); got {str(dict(config))[:300]}; make the file anew"
        )
    network = GaugeNetwork(
        **{**config, "widths": tuple(config["widths"])}, is_circular=tuple(is_circular)
    )
    expected = jax.eval_shape(functools.partial(init, network=network), jax.random.key(0))
    if differences := params_lib.describe_differences(expected, params):
        raise InputError(
            "gauges: expected the weights of this network; got other arrays; make the file "
            "anew:\n  " + "\n  ".join(differences)
        )
    if bad := params_lib.non_finite_paths(params):
        raise InputError(
            f"gauges: expected finite weights; got NaN or infinity in {', '.join(bad)}; "
            "make the file anew"
        )
    return network


def init(key: Key, network: GaugeNetwork) -> Params:
    """Returns fresh weights."""
    images = jnp.zeros((1, network.side, network.side, network.image_channels))
    return network.init(key, images)["params"]


def resized(images: Images, side: int) -> Images:
    """Returns square images of that side; smaller ones are averages over areas of larger ones."""
    batch, height, width, channels = images.shape
    if (height, width) == (side, side):
        return images
    return jax.image.resize(images, (batch, side, side, channels), "linear", antialias=True)


def targets_of(
    shares: Float[Array, "batch factors"], is_circular: tuple[bool, ...]
) -> Float[Array, "batch outputs"]:
    """Returns the outputs for factors at these shares of their ranges.

    Each has mean 0 and variance 1 if the shares are uniform (for a circular one, cosine and sine
    together 2), so that all factors weigh the same in a loss.
    """
    columns = []
    for share, circular in zip(shares.T, is_circular, strict=True):
        if circular:
            angle = 2 * math.pi * share
            columns += [math.sqrt(2) * jnp.cos(angle), math.sqrt(2) * jnp.sin(angle)]
        else:
            columns.append(math.sqrt(12) * (share - 0.5))
    return jnp.stack(columns, axis=1)


def shares_of(
    outputs: Float[Array, "batch outputs"], is_circular: tuple[bool, ...]
) -> Float[Array, "batch factors"]:
    """Returns the shares of the ranges from the outputs: the inverse of `targets_of`.

    A circular factor's share is in [0, 1); another factor's share may lie outside.
    """
    columns, rest = [], list(outputs.T)
    for circular in is_circular:
        if circular:
            cosine, sine = rest.pop(0), rest.pop(0)
            columns.append(jnp.arctan2(sine, cosine) / (2 * math.pi) % 1.0)
        else:
            columns.append(rest.pop(0) / math.sqrt(12) + 0.5)
    return jnp.stack(columns, axis=1)


def read_shares(
    network: GaugeNetwork, params: Params, images: Images
) -> Float[Array, "batch factors"]:
    """Returns the factors of images, as shares of their ranges.

    images: square, of any side; resized to the network's side first.
    """
    outputs = network.apply({"params": params}, resized(images, network.side))
    return shares_of(jnp.asarray(outputs), network.is_circular)
