"""An exact reduction: weights that no latent can feel are left out of the problem.

Each output pixel of a transposed convolution is a row of inputs times the weights of its phase
(`layers.Unfolding`). If a phase has fewer rows than a row has entries, or they span less, its
weights matter only on the span: with Q an orthonormal basis of it, x = (x Q) Q', so rows x Q with
the weights Q'W give the same images, the Hessian vanishes off the span, and its nonzero eigenpairs
are those of the smaller problem. Q' is an isometry there, so norms, residuals and eigenvalues carry
over as they are. 16 latents at a layer that makes 8x8 pixels of 512 channels leave an eighth of the
weights, 64 latents a half.
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

_RANK_TOLERANCE = 1e-6  # of the largest singular value: below is float32 rounding of the input


@dataclasses.dataclass(frozen=True)
class Reduction:
    """objective: the smaller problem. basis: Q of each phase; None if nothing was left out.

    layer: the edited layer of the whole problem, if something was left out.
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
    """Returns the objective on the span of the edited layer's inputs, where that is smaller.

    at_least: the number of weights that have to remain, as so many directions are looked for.
    It is left as it is if fewer remain, for several layers, for a layer that cannot be unfolded,
    where its inputs are not kept, and where several processes each hold a part of them.
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
        return unchanged  # the products will tell
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
    """Returns orthonormal columns [..., entries, rank] whose span holds each set of `rows`.

    The rank is that of the set that spans most. By the Gram matrix, as there are few rows; its
    smallest eigenvectors have lost digits, which a second orthonormalisation brings back.
    """
    squares, vectors = np.linalg.eigh(rows @ np.swapaxes(rows, -1, -2))
    felt = squares > _RANK_TOLERANCE**2 * squares[..., -1:]
    rank = max(int(np.sum(felt, axis=-1).max()), 1)
    columns = np.swapaxes(rows, -1, -2) @ vectors[..., -rank:]
    smallest = max(_RANK_TOLERANCE**2 * squares.max(), np.finfo(np.float64).tiny)
    columns /= np.sqrt(np.maximum(squares[..., None, -rank:], smallest))
    return np.linalg.qr(columns)[0]
