"""The mapping network of StyleGAN2: from z, with or without a label, to the w of each layer."""

import flax.linen as nn
import jax.numpy as jnp

from navigan_jax.array_types import Array, Float
from navigan_jax.generators.stylegan2.layers import Dense, Embedding, activate, normalise


class Mapping(nn.Module):
    """From z, followed by a label if there are labels, to w_plus; stage i is layer i."""

    widths: tuple[int, ...]
    rows: int
    rate: float
    z_dim: int
    label_width: int
    labels: str
    truncation: float
    truncated_rows: int

    def setup(self) -> None:
        self.fc = [
            Dense(width, self.rate, name=f"fc{index}") for index, width in enumerate(self.widths)
        ]
        if self.label_width:
            embedding = Dense if self.labels == "embedded" else Embedding
            self.embed = embedding(self.label_width)
        self.w_avg = self.param("w_avg", nn.initializers.zeros, self.widths[-1:])

    def __call__(self, x: Array, index: int) -> Array:
        if index == 0:
            x = self._join(x)
        x = activate(self.fc[index](x))
        return self._broadcast(x) if index == len(self.widths) - 1 else x

    def _join(self, latent: Float[Array, "batch latent"]) -> Float[Array, "batch features"]:
        if not self.label_width:
            return normalise(latent)
        z, label = latent[:, : self.z_dim], self.embed(latent[:, self.z_dim :])
        if self.labels == "embedded":
            return jnp.concatenate([normalise(z), normalise(label)], axis=1)
        return normalise(jnp.concatenate([z, label], axis=1))

    def _broadcast(self, w: Float[Array, "batch w"]) -> Float[Array, "batch rows w"]:
        w_plus = jnp.repeat(w[:, None], self.rows, axis=1)
        if self.truncation == 1:
            return w_plus
        near = self.w_avg[None, None] + self.truncation * (w_plus - self.w_avg[None, None])
        return jnp.concatenate(
            [near[:, : self.truncated_rows], w_plus[:, self.truncated_rows :]], axis=1
        )
