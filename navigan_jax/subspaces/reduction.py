"""An exact reduction: weights that no latent can feel are left out of the problem.

A convolution multiplies its input's channel vectors, one for each pixel of each sample. If there
are fewer of these than channels, or they span less, the weights matter only on their span: with
Q an orthonormal basis of it, x = (x Q) Q', so the layer on input x Q with the kernel Q'W gives the
same images, the Hessian vanishes off the span, and its nonzero eigenpairs are those of the smaller
problem. Q' is an isometry there, so norms, residuals and eigenvalues carry over as they are.
16 latents at a layer of 4x4 pixels and 512 channels leave half of the weights.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import devices
from navigan_jax import params as params_lib
from navigan_jax.array_types import Array, Block, Float
from navigan_jax.subspaces import products

_RANK_TOLERANCE = 1e-6  # of the largest singular value: below is float32 rounding of the input


@dataclasses.dataclass(frozen=True)
class Reduction:
    """objective: the smaller problem. basis: Q, [channels, rank]; None if nothing was left out."""

    objective: products.Objective
    basis: Float[Array, "channels rank"] | None

    def expand(self, block: Block) -> Block:
        """Returns vectors of the smaller problem as vectors of weights of the whole layer."""
        if self.basis is None:
            return block
        (layer,) = self.objective.layers
        rows = products.split([layer], block)[layer.path]
        whole = jnp.einsum("...ro,ir->...io", rows, self.basis, precision=jax.lax.Precision.HIGHEST)
        return whole.reshape(block.shape[0], -1)


def reduce_inputs(objective: products.Objective, *, at_least: int) -> Reduction:
    """Returns the objective on the span of the edited layer's inputs, where that is smaller.

    at_least: the number of weights that have to remain, as so many directions are looked for.
    It is left as it is if fewer remain, for several layers, for a layer that does not read the
    carry directly, where the carry is not kept, and where several processes each hold a part of
    the inputs.
    """
    unchanged = Reduction(objective, None)
    layer = objective.layers[0]
    if (
        len(objective.layers) > 1
        or not layer.reads_carry
        or not objective.starts_at_layers
        or not devices.is_single_process()
    ):
        return unchanged
    batches = objective.shards.batches
    channels = layer.shape[-2]
    if sum(math.prod(batch.shape[:-1]) for batch in batches) >= channels:
        return unchanged
    inputs = np.concatenate([np.asarray(batch).reshape(-1, channels) for batch in batches])
    _, values, rows = np.linalg.svd(inputs.astype(np.float64), full_matrices=False)
    rank = max(int(np.sum(values > _RANK_TOLERANCE * values[0])), 1)
    shape = (*layer.shape[:-2], rank, layer.shape[-1])
    if math.prod(shape) < at_least:
        return unchanged
    basis = jnp.asarray(rows[:rank].T, inputs.dtype)

    def project(shared: tuple[Array, ...], batch: Array) -> Array:
        return jnp.matmul(batch, shared[0], precision=jax.lax.Precision.HIGHEST)

    shards = devices.map_microbatches(project, devices.replicate((basis,)), objective.shards)
    params, metric = objective.shared
    kernel = params_lib.get(params, layer.path)  # [devices, *shape]
    smaller = jnp.einsum("...io,ir->...ro", kernel, basis, precision=jax.lax.Precision.HIGHEST)
    replaced = params_lib.unflatten({**params_lib.flatten(params), layer.path: smaller})
    return Reduction(
        dataclasses.replace(
            objective,
            layers=(dataclasses.replace(layer, shape=shape),),
            shared=(replaced, metric),
            shards=shards,
        ),
        basis,
    )
