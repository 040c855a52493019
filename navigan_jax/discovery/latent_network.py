"""The bent map of latents that GANLatentDiscovery has beside its linear ones.

Shifts along K directions go through a network of four dense layers to a change of the latent: what
it does with 2t is not twice what it does with t, so it has no directions, and no task trains it.
It is here to give the same numbers as weights that were trained elsewhere.
"""

import flax.linen as nn
import jax.numpy as jnp

from navigan_jax.array_types import Array, Float
from navigan_jax.discovery.reconstructor import BatchNorm

_LAYERS = 3  # before the last one


class LatentNetwork(nn.Module):
    """Dense layers with batch normalisation and ELU around what they add to the amounts.

    width: of the hidden layers. Layers are `dense0` to `dense3`, `norm0` to `norm2`. The output,
    as wide as the input, is brought to the latent's width by `subspaces.base.Latent`.
    Source: Voynov and Babenko 2020; the sums between layers are the official program's.
    """

    width: int

    @nn.compact
    def __call__(
        self, amounts: Float[Array, "batch directions"], train: bool
    ) -> Float[Array, "batch directions"]:
        """Returns the amounts plus what the network makes of them.

        train: normalise by the statistics of this batch, which also moves the running ones.
        """
        x, total = amounts, jnp.zeros((len(amounts), self.width), amounts.dtype)
        for index in range(_LAYERS):
            total += nn.Dense(self.width, name=f"dense{index}")(x)
            x = nn.elu(BatchNorm(False, name=f"norm{index}")(total, train))
        return amounts + nn.Dense(amounts.shape[1], name=f"dense{_LAYERS}")(x)
