"""The mean squared difference of pixels, a baseline that needs no weights."""

import dataclasses
import math

import jax

from navigan_jax.array_types import Images
from navigan_jax.perceptual.base import Distance, Features


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class L2(Distance):
    """d(a, b) = mean over pixels and channels of (a − b)²; any size, any number of channels."""

    def features(self, images: Images) -> Features:
        return (images / math.sqrt(math.prod(images.shape[1:])),)
