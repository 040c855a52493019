"""An exact reduction: leaves out the weights that have no effect for the given latents.

Each output pixel of a transposed convolution is a row x of inputs times the weights W of its phase
(`layers.Unfolding`). If the rows of a phase span fewer dimensions than a row has entries, W matters
only on their span. Let Q be an orthonormal basis of the span. Then x = (x Q) Q', so rows x Q with
the weights Q'W give the same images. The Hessian vanishes off the span, and its nonzero eigenpairs
are those of the smaller problem. Q' is an isometry on the span, so norms, residuals and eigenvalues
do not change. At a layer that makes 8x8 pixels from 512 channels, 16 latents leave an eighth of the
weights, and 64 latents a half.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import devices
from navigan_jax import params as params_lib
from navigan_jax.array_types import Array, Block, Float
from navigan_jax.generators.base import EditableLayer
from navigan_jax.nn.layers import Windows, widen
from navigan_jax.subspaces import products

_HIGHEST = jax.lax.Precision.HIGHEST

_RANK_TOLERANCE = 1e-6  # of the largest singular value; smaller ones are float32 rounding


@dataclasses.dataclass(frozen=True)
class Reduction:
    """A smaller problem with the same images.

    objective: the smaller problem. basis: Q of each phase; None if nothing is left out.
    layer: the edited layer of the whole problem, if something is left out.
    """

    objective: products.Objective
    basis: Float[Array, "stride stride entries rank"] | None
    layer: EditableLayer | None = None

    def expand(self, block: Block) -> Block:
        """Returns vectors of the smaller problem as vectors of weights of the whole layer."""
        if self.basis is None or self.layer is None or self.layer.unfolding is None:
            return block
        (smaller,) = self.objective.layers
        rows = products.split([smaller], block)[smaller.path]
        phases = jnp.matmul(self.basis[None], rows, precision=_HIGHEST)
        return self.layer.unfolding.kernel(phases).reshape(len(block), -1)


def reduce_inputs(objective: products.Objective, *, at_least: int) -> Reduction:
    """Returns the objective on the span of the edited layer's inputs, if that is smaller.

    at_least: the number of weights that must remain, which is the number of wanted directions.
    The objective is unchanged if fewer weights would remain, for several layers, for a layer
    without an unfolding, if the layer's inputs are not kept, and if several processes each hold a
    part of them.
    """
    unchanged = Reduction(objective, None)
    layer = objective.layers[0]
    unfolding = layer.unfolding
    if (
        len(objective.layers) > 1
        or unfolding is None
        or not objective.starts_at_layers
        or not devices.is_single_process()
    ):
        return unchanged
    batches = objective.shards.batches
    shapes = [jax.eval_shape(unfolding.windows, batch[0]).values.shape for batch in batches]
    stride, entries = unfolding.stride, shapes[0][-1]
    if sum(len(b) * math.prod(s[2:-1]) for b, s in zip(batches, shapes, strict=True)) >= entries:
        return unchanged
    unfold = jax.jit(lambda batch: unfolding.windows(batch.reshape(-1, *batch.shape[2:])).values)
    windows = [np.asarray(unfold(batch), np.float64) for batch in batches]
    rows = np.concatenate([w.reshape(stride, stride, -1, entries) for w in windows], axis=2)
    if not np.isfinite(rows).all():
        return unchanged  # the products are not finite either, and their check reports it
    basis_PxPxExR = _span(rows)
    shape = (*basis_PxPxExR.shape[:2], basis_PxPxExR.shape[3], layer.shape[-1])
    if math.prod(shape) < at_least:
        return unchanged
    kernel = params_lib.get(objective.shared[0], layer.path)  # [devices, *shape]
    basis = jnp.asarray(basis_PxPxExR, kernel.dtype)

    def project(shared: tuple[Array, ...], batch: Array) -> Windows:
        values = unfolding.windows(widen(batch)).values
        return Windows(jnp.einsum("pqbhwe,pqer->pqbhwr", values, shared[0], precision=_HIGHEST))

    shards = devices.map_microbatches(project, devices.replicate((basis,)), objective.shards)
    params, metric = objective.shared
    phases = unfolding.phases(kernel)
    smaller = jnp.einsum("dpqeo,pqer->dpqro", phases, basis, precision=_HIGHEST)
    replaced = params_lib.unflatten({**params_lib.flatten(params), layer.path: smaller})
    return Reduction(
        dataclasses.replace(
            objective,
            layers=(dataclasses.replace(layer, shape=shape, unfolding=None),),
            shared=(replaced, metric),
            shards=shards,
        ),
        basis,
        layer,
    )


def _span(rows: np.ndarray) -> np.ndarray:
    """Returns orthonormal columns [..., entries, rank] whose span contains each set of `rows`.

    The rank is the largest of all sets. The method is the eigenvectors of the Gram matrix, because
    there are few rows. The smallest ones lose digits; a second orthonormalisation restores them.
    """
    squares, vectors = np.linalg.eigh(rows @ np.swapaxes(rows, -1, -2))
    felt = squares > _RANK_TOLERANCE**2 * squares[..., -1:]
    rank = max(int(np.sum(felt, axis=-1).max()), 1)
    columns = np.swapaxes(rows, -1, -2) @ vectors[..., -rank:]
    smallest = max(_RANK_TOLERANCE**2 * squares.max(), np.finfo(np.float64).tiny)
    columns /= np.sqrt(np.maximum(squares[..., None, -rank:], smallest))
    return np.linalg.qr(columns)[0]
