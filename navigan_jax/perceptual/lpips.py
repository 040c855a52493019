"""LPIPS, the learned distance of network features (Zhang et al. 2018), as a squared norm.

Departures from the original program:
1. The distance is written as ‖φ(a) − φ(b)‖² with φ_l = √(w_c / (H_l W_l)) · f / (‖f‖ + 1e-10). This
   needs linear weights w_c ≥ 0, as in all published files.
2. The norm over channels has a guarded root, so that derivatives of every mode and order are
   finite where all channels vanish; a plain root gives NaN in forward mode.
3. Both versions treat grey images as RGB images of three equal channels. The original program does
   so, by broadcasting, only in version 0.1.
"""

import dataclasses
import functools
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import params as params_lib
from navigan_jax.array_types import Array, Float, Images, Params
from navigan_jax.errors import InputError
from navigan_jax.perceptual.backbones import BACKBONES, Taps
from navigan_jax.perceptual.base import Distance, Features, features_as_seen, require_images

VERSIONS = ("0.1", "0.0")

# Mean and deviation of ImageNet's RGB in [-1, 1]; float32, as the original program stores them.
_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)

_EPSILON = 1e-10  # added to the norm, outside the root


def _channel_norm(maps: Float[Array, "... channels"]) -> Float[Array, "... 1"]:
    squares = jnp.sum(maps**2, axis=-1, keepdims=True)
    alive = squares > 0
    return jnp.where(alive, jnp.sqrt(jnp.where(alive, squares, 1)), 0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LPIPS(Distance):
    """LPIPS with its weights; made by `create`, which checks them.

    params: "backbone" (of a network in BACKBONES) and, unless left out, "linear" (one per tap).
    version: "0.1", or "0.0", which has no scaling layer before the network.
    """

    params: Params
    net: str = dataclasses.field(metadata={"static": True})
    version: str = dataclasses.field(metadata={"static": True})

    def taps(self, images: Images) -> Taps:
        """Returns the feature maps that are compared, before normalisation.

        images: grey or RGB, without alpha.
        Raises: InputError if they are too small for the network.
        """
        self._require(images)
        images = jnp.broadcast_to(images, (*images.shape[:3], 3))
        if self.version == "0.1":
            shift, scale = jnp.asarray(_SHIFT, images.dtype), jnp.asarray(_SCALE, images.dtype)
            images = (images - shift[None, None, None]) / scale[None, None, None]
        taps: Any = BACKBONES[self.net]().apply({"params": self.params["backbone"]}, images)
        return taps

    def normalise(self, taps: Taps) -> Features:
        """Returns the features φ from the taps."""
        return tuple(
            self._weight(index, maps) * (maps / (_channel_norm(maps) + _EPSILON))
            for index, maps in enumerate(taps)
        )

    def features(self, images: Images) -> Features:
        self._require(images)
        return features_as_seen(lambda seen: self.normalise(self.taps(seen)), images)

    def _require(self, images: Images) -> None:
        require_images(images, f"lpips {self.net}", smallest=BACKBONES[self.net]().smallest)

    def _weight(self, index: int, maps: Float[Array, "..."]) -> Float[Array, "#channels"]:
        per_pixel = 1 / (maps.shape[1] * maps.shape[2])
        linear = self.params.get("linear")
        weights = jnp.ones(1, maps.dtype) if linear is None else linear[str(index)]
        return jnp.sqrt(weights.astype(maps.dtype) * per_pixel)[None, None, None]


Map: TypeAlias = Float[Array, "batch height width"]


def layer_maps(a: Features, b: Features, height: int, width: int) -> tuple[Map, ...]:
    """Returns each layer's distance at every pixel, upsampled bilinearly to height × width.

    a, b: LPIPS features. The mean of a map before upsampling is its layer's share of the distance.
    """
    maps = []
    for x, y in zip(a, b, strict=True):
        squares = jnp.sum((x - y) ** 2, axis=-1) * (x.shape[1] * x.shape[2])
        shape = (x.shape[0], height, width)
        maps.append(jax.image.resize(squares, shape, "linear", antialias=False))
    return tuple(maps)


def distance_map(metric: LPIPS, a: Images, b: Images) -> Map:
    """Returns the distance at every pixel of the images: LPIPS in its spatial mode."""
    maps = layer_maps(metric.features(a), metric.features(b), *a.shape[1:3])
    return jnp.sum(jnp.stack(maps), axis=0)


@functools.lru_cache
def expected_params(net: str, linear: bool) -> dict[str, Any]:
    """Returns the tree of shapes that `create` takes; traced once. Read only."""
    network = BACKBONES[net]()
    images = jax.ShapeDtypeStruct((1, network.smallest, network.smallest, 3), jnp.float32)
    tree = {"backbone": jax.eval_shape(network.init, jax.random.key(0), images)["params"]}
    if linear:
        tree["linear"] = {
            str(index): jax.ShapeDtypeStruct((channels,), jnp.float32)
            for index, channels in enumerate(network.channels)
        }
    return tree


def create(params: Params, *, net: str, version: str, linear: bool) -> LPIPS:
    """Returns the distance with these weights.

    params: "backbone" as the network in BACKBONES names them, kernels HWIO; "linear" maps "0",
        "1", ... to weights [channels] if `linear`, and is absent otherwise.
    Raises: InputError if an option is unknown or a weight is missing, unexpected, misshapen, not
        finite or (linear weights) negative.
    """
    if net not in BACKBONES or version not in VERSIONS:
        raise InputError(
            f"lpips: expected a known net and version; got {net!r} and {version!r}; allowed nets: "
            f"{', '.join(BACKBONES)}; allowed versions: {', '.join(VERSIONS)}"
        )
    advice = "use the weights of this net, converted with tools/convert_weights"
    differences = params_lib.describe_differences(expected_params(net, linear), params)
    if differences:
        raise InputError(
            f"lpips {net}: expected its weights with{'' if linear else 'out'} linear weights; got "
            f"{'; '.join(differences)}; {advice}"
        )
    if bad := params_lib.non_finite_paths(params):
        raise InputError(
            f"lpips {net}: expected finite weights; got NaN or infinity in {', '.join(bad)}; "
            f"{advice}"
        )
    negative = [i for i, w in params.get("linear", {}).items() if np.min(np.asarray(w)) < 0]
    if negative:
        raise InputError(
            f"lpips {net}: expected linear weights of at least 0, because a distance cannot be "
            f"negative; got negative weights for layers {', '.join(negative)}; {advice}"
        )
    return LPIPS(params_lib.to_device(params), net=net, version=version)
