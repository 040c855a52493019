"""The nonlinear latent map of GANLatentDiscovery.

A network of four dense layers maps shifts along K directions to a change of the latent. The map is
not linear in the shift, so it has no directions in our sense, and no task trains it. It exists to
reproduce networks that were trained elsewhere.
"""

import flax.linen as nn
import jax.numpy as jnp

from navigan_jax.array_types import Array, Float
from navigan_jax.discovery.reconstructor import BatchNorm

_LAYERS = 3  # before the last one


class LatentNetwork(nn.Module):
    """Dense layers with batch normalisation and ELU; the output is added to the shifts.

    width: hidden width. Layers are `dense0` to `dense3`, `norm0` to `norm2`. The output
    is as wide as the input; `subspaces.base.Latent` brings it to the latent's width.
    Source: Voynov and Babenko 2020; the sums between layers are from the official program.
    """

    width: int

    @nn.compact
    def __call__(
        self, amounts: Float[Array, "batch directions"], train: bool
    ) -> Float[Array, "batch directions"]:
        """Returns the amounts plus the network's output.

        train: normalise with the statistics of this batch, and update the running statistics.
        """
        x, total = amounts, jnp.zeros((len(amounts), self.width), amounts.dtype)
        for index in range(_LAYERS):
            total += nn.Dense(self.width, name=f"dense{index}")(x)
            x = nn.elu(BatchNorm(False, name=f"norm{index}")(total, train))
        return amounts + nn.Dense(amounts.shape[1], name=f"dense{_LAYERS}")(x)
