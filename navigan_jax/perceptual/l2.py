"""The mean squared difference of pixels, a baseline that needs no weights."""

import dataclasses
import math

import jax

from navigan_jax import channels
from navigan_jax.array_types import Images
from navigan_jax.perceptual.base import Distance, Features


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class L2(Distance):
    """d(a, b) = mean over pixels and channels of (a − b)²; any size.

    With alpha, the channels are those over black and those over white.
    """

    def features(self, images: Images) -> Features:
        seen = channels.over_black_and_white(images)
        return (seen / math.sqrt(math.prod(seen.shape[1:])),)
