"""The paper's basis of one weight: the products u_i v_iᵀ of its singular vectors.

A convolution's weight (HWIO) is reshaped to the matrix (side·side·in, out); a dense weight is a
matrix already. A direction changes the singular values: W + u diag(c) vᵀ.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax.array_types import Array, Float
from navigan_jax.errors import InputError
from navigan_jax.nn.layers import Change, Factors, dense_change
from navigan_jax.subspaces.base import Coefficients, Deltas, Subspace


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class SingularValues(Subspace):
    """Changes of the singular values of some layers; coefficients follow the order of the layers.

    u: {path: [*shape without out, r]}. vh: {path: [r, out]}. Both are orthonormal, and r is the
    smaller side of the matrix.
    """

    u: Mapping[str, Array]
    vh: Mapping[str, Array]

    @property
    def size(self) -> int:
        return sum(len(rows) for rows in self.vh.values())

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(self.vh)

    def expand(self, coefficients: Coefficients) -> Deltas:
        factors = self.factor(coefficients)
        return {path: dense_change(change) for path, change in factors.items()}

    def factor(self, coefficients: Coefficients) -> dict[str, Change]:
        changes: dict[str, Change] = {}
        start = 0
        for path, vh in self.vh.items():
            chosen = coefficients[:, start : start + len(vh)]
            changes[path] = Factors(self.u[path], chosen, vh)
            start += len(vh)
        return changes


def singular_values(
    weights: Mapping[str, np.ndarray],
) -> tuple[SingularValues, Float[np.ndarray, "basis"]]:
    """Returns the subspace of those weights, and their singular values, descending in each layer.

    The decomposition is in float64.
    Raises: InputError for a weight that is not finite or has fewer than two axes.
    """
    u, vh, values = {}, {}, []
    for path, weight in weights.items():
        weight = np.asarray(weight)
        if weight.ndim < 2 or not np.isfinite(weight).all():
            raise InputError(
                f"{path}: expected finite weights of two or more axes, as singular values need; "
                f"got shape {list(weight.shape)}; choose another layer with --config.layer=NAME"
            )
        matrix = weight.reshape(-1, weight.shape[-1]).astype(np.float64)
        left, some, right = np.linalg.svd(matrix, full_matrices=False)
        u[path] = jnp.asarray(left.reshape(*weight.shape[:-1], len(some)), jnp.float32)
        vh[path] = jnp.asarray(right, jnp.float32)
        values.append(some)
    return SingularValues(u, vh), np.concatenate(values)
