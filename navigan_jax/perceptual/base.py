"""Distances between images that are squared norms of differences of features.

Every distance has the form d(a, b) = Σ_leaves ‖φ(a) − φ(b)‖². At a = b the residual is zero, so the
Hessian of d by b is exactly 2 JᵀJ, where J is the Jacobian of φ. A product with the Hessian is one
product with J and one with its transpose, without second derivatives.

Images with alpha are composited over black and over white (see `channels`), and their distance is
the mean of the two. So a distance sees colour and alpha, ignores the colour of transparent pixels,
and keeps its form. For opaque images it is the distance of their colours.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import channels
from navigan_jax.array_types import Array, Float, Images
from navigan_jax.errors import InputError

Features: TypeAlias = tuple[Float[Array, "batch ..."], ...]

RESIZE_METHODS = ("nearest", "antialiased")


class Distance(abc.ABC):
    """An immutable pytree whose leaves are weights, so that they reach `jit` as arguments."""

    @abc.abstractmethod
    def features(self, images: Images) -> Features:
        """Returns φ of images in [-1, 1], with or without alpha.

        Each leaf starts with the batch axis.
        """

    def stride(self, side: int) -> int:
        """Returns s such that only every s-th row and column of images of that side matters.

        The features of these pixels alone are those of the images.
        """
        return 1


def features_as_seen(features: Callable[[Images], Features], images: Images) -> Features:
    """Returns φ of images with or without alpha, given φ of opaque images as `features`.

    With alpha, the leaves are those over black and then those over white, scaled so that the
    distance is the mean of the two. Both go through `features` as one batch.
    """
    count = images.shape[-1]
    if not channels.has_alpha(count):
        return features(images)
    backgrounds = (channels.BLACK, channels.WHITE)
    leaves = features(jnp.concatenate([channels.over(images, one) for one in backgrounds]))
    scaled = [leaf * len(backgrounds) ** -0.5 for leaf in leaves]
    batch = len(images)
    return (*(leaf[:batch] for leaf in scaled), *(leaf[batch:] for leaf in scaled))


def squared_norms(features: Features) -> Float[Array, "leaves batch"]:
    """Returns the squared norm of each leaf for each sample."""
    return jnp.stack([jnp.sum(leaf**2, axis=range(1, leaf.ndim)) for leaf in features])


def distance_per_layer(metric: Distance, a: Images, b: Images) -> Float[Array, "leaves batch"]:
    """Returns the contribution of each leaf of the features to the distance.

    Raises: ValueError if the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"distance: expected images of one shape; got {a.shape} and {b.shape}")
    differences = [x - y for x, y in zip(metric.features(a), metric.features(b), strict=True)]
    return squared_norms(tuple(differences))


def distance(metric: Distance, a: Images, b: Images) -> Float[Array, "batch"]:
    """Returns d(a, b) of each pair of images in [-1, 1].

    Raises: as `distance_per_layer`.
    """
    return jnp.sum(distance_per_layer(metric, a, b), axis=0)


def signed(images: Images) -> Images:
    """Returns images in [0, 1] mapped to [-1, 1]."""
    return 2 * images - 1


def require_images(images: Images, metric: str, *, smallest: int) -> None:
    """Checks the number of axes, the dtype, the channels and the size.

    metric: its name, for the message.
    Raises: InputError if the shape does not fit; TypeError if the dtype is not floating-point.
    """
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"{metric}: expected floating-point images in [-1, 1]; got {images.dtype}")
    is_known = images.ndim == 4 and images.shape[3] in channels.MEANINGS
    if not is_known or min(images.shape[1:3]) < smallest:
        raise InputError(
            f"{metric}: expected images [batch, height, width, channels] of {channels.describe()} "
            f"channels and sides of {smallest} pixels or more; got shape {tuple(images.shape)}; "
            "choose another metric, or resize the images (metric size) if they are too small"
        )


def _pick_nearest(images: Images, axis: int, size: int) -> Images:
    old = images.shape[axis]
    if old % size == 0:  # a strided slice: its transpose is a padding, far cheaper than a scatter
        return jax.lax.slice_in_dim(images, 0, old, old // size, axis)
    return jnp.take(
        images,
        np.arange(size) * old // size,
        axis=axis,
        mode="clip",
        indices_are_sorted=True,
        unique_indices=size <= old,
    )


def resize(images: Images, size: int, method: str) -> Images:
    """Returns images of size × size; the same array if they already have that size.

    method: "nearest" takes index floor(i · old / new), which is PyTorch's rule and not that of
        `jax.image.resize`; "antialiased" is bilinear, and averages when it shrinks images.
    Raises: InputError for another method or a size below 1.
    """
    if method not in RESIZE_METHODS or size < 1:
        raise InputError(
            f"metric size: expected a side of at least 1 pixel and a known method; got {size} and "
            f"{method!r}; allowed methods: {', '.join(RESIZE_METHODS)}"
        )
    batch, height, width, count = images.shape
    if (height, width) == (size, size):
        return images
    if method == "nearest":
        return _pick_nearest(_pick_nearest(images, 1, size), 2, size)
    return jax.image.resize(images, (batch, size, size, count), "linear", antialias=True)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AtSize(Distance):
    """A distance of the images resized to `size` × `size`, as the paper does (64, nearest).

    Images with alpha are composited before they are resized: no colour of a transparent pixel
    spreads.
    """

    metric: Distance
    size: int = dataclasses.field(metadata={"static": True})
    method: str = dataclasses.field(metadata={"static": True})

    def features(self, images: Images) -> Features:
        return features_as_seen(
            lambda seen: self.metric.features(resize(seen, self.size, self.method)), images
        )

    def stride(self, side: int) -> int:
        """As in `Distance`: nearest interpolation skips pixels if `size` divides the side."""
        if self.method == "nearest" and side % self.size == 0:
            return side // self.size
        return 1
