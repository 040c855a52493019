"""Label maps as latents: label and instance number of each pixel, as whole numbers in float32."""

import dataclasses

import jax
import jax.numpy as jnp

from navigan_jax.array_types import Array, Float, Key
from navigan_jax.errors import InputError
from navigan_jax.generators.pix2pixhd.layouts import draw_layout


@dataclasses.dataclass(frozen=True)
class LabelMaps:
    """The latents of pix2pixHD. labels: their number. has_instances: whether edges are seen.

    A latent is [height, width, 2]: labels 0 to labels - 1, then instance numbers. Without
    instances it is [height, width, 1]. Random latents are made-up street layouts.
    """

    height: int
    width: int
    labels: int
    has_instances: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one latent."""
        return self.height, self.width, 1 + int(self.has_instances)

    @property
    def movable(self) -> int:
        """No entry: a label map has no directions."""
        return 0

    def sample(self, key: Key, count: int) -> Float[Array, "count height width kinds"]:
        """Returns `count` layouts; one of them does not depend on how many are drawn."""
        return jax.lax.map(lambda index: self._layout(key, index), jnp.arange(count))

    def draw(self, key: Key, index: int) -> Float[Array, "1 height width kinds"]:
        """Returns layout `index` of `sample`."""
        return self._layout(key, jnp.asarray(index))[None]

    def truncate(self, latent: Float[Array, "..."], factor: float) -> Float[Array, "..."]:
        """Returns the latent for factor 1. Raises: InputError, as label maps have no mean."""
        if factor == 1:
            return latent
        raise InputError(
            f"truncation: expected 1, as a label map has no mean; got {factor}; leave it out"
        )

    def _layout(self, key: Key, index: Array) -> Array:
        drawn = draw_layout(jax.random.fold_in(key, index), self.height, self.width)
        labels = jnp.minimum(drawn[..., :1], self.labels - 1)
        return jnp.concatenate([labels, drawn[..., 1:]], axis=-1)[..., : self.shape[-1]]
