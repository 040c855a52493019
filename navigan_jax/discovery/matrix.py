"""Direction matrices: which combinations of a subspace's basis are the directions.

Row k of a coefficient matrix [K, R] holds the coordinates of direction k. The kind says how the
matrix is parametrised:

identity     the basis itself; not trained
random       random orthonormal rows; not trained
linear       a free matrix
projected    a free matrix whose rows are scaled to directions of unit norm (official code, weights)
orthonormal  K columns of the exponential of a skew-symmetric matrix (GANLatentDiscovery)

All kinds but `linear` give directions of unit norm, so that |t| is the norm of the change.

Departures from the official code: 1. weights and latents have the same kinds; 2. norms are computed
from the coefficients and the basis' inner products, not from the change of each sample; 3. the
skew-symmetric matrix has the size R of the subspace, so that K < R directions are not confined to
the first K basis elements.
"""

import dataclasses
from collections.abc import Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp

from navigan_jax.array_types import Array, Float, Int, Key
from navigan_jax.errors import InputError
from navigan_jax.nn.layers import Change
from navigan_jax.subspaces.base import Deltas, Subspace

Parameters: TypeAlias = dict[str, Array]

KINDS = ("identity", "random", "linear", "projected", "orthonormal")

# The exponential of a dense matrix costs 10 or more products; larger sides are too slow in a step.
_LARGEST_SKEW = 2048


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class DirectionMatrix:
    """K directions in a subspace; a pytree, so that a compiled step can take it as an argument.

    subspace, drawn: not trained; drawn is the matrix of `random`, else None. kind: one of `KINDS`.
    count: K.
    """

    subspace: Subspace
    kind: str = dataclasses.field(metadata={"static": True})
    count: int = dataclasses.field(metadata={"static": True})
    drawn: Float[Array, "directions basis"] | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """The layer paths that the directions change, or (LATENT,)."""
        return self.subspace.layers

    def init(self, key: Key) -> Parameters:
        """Returns fresh trained parameters: {} for `identity` and `random`."""
        if self.kind in ("linear", "projected"):
            return {"matrix": jax.random.normal(key, (self.count, self.subspace.size))}
        if self.kind == "orthonormal":
            size = (self.subspace.size, self.subspace.size)
            return {"skew_half": jax.random.normal(key, size)}
        return {}

    def coefficients(self, parameters: Parameters) -> Float[Array, "directions basis"]:
        """Returns the coefficient matrix; its directions have unit norm, unless `linear`."""
        rows = self._rows(parameters)
        return rows if self.kind == "linear" else self._to_unit(rows)

    def deltas(
        self,
        parameters: Parameters,
        indices: Int[Array, "batch"],
        shifts: Float[Array, "batch"],
    ) -> Deltas:
        """Returns t_b ξ_{k_b}: {layer path: [batch, *shape]}, or {"latent": [batch, width]}.

        Linear in the shifts, unless the parameters hold a bias (see `mix`).
        """
        return self.mix(parameters, self._amounts(indices, shifts))

    def changes(
        self,
        parameters: Parameters,
        indices: Int[Array, "batch"],
        shifts: Float[Array, "batch"],
    ) -> Mapping[str, Change]:
        """Returns the same changes as `deltas`, factored where the subspace allows it."""
        return self.subspace.factor(self._combine(parameters, self._amounts(indices, shifts)))

    def mix(self, parameters: Parameters, amounts: Float[Array, "batch directions"]) -> Deltas:
        """Returns Σ_k a_k ξ_k for each row of amounts, in the form of `deltas`.

        With a bias b, as in the authors' latent matrices, the coordinates are a C + b; `projected`
        scales them to the norm of a.
        """
        return self.subspace.expand(self._combine(parameters, amounts))

    def unit(self, parameters: Parameters, indices: Int[Array, "n"]) -> Deltas:
        """Returns the directions with these indices, at unit norm for every kind."""
        return self.subspace.expand(self._to_unit(self._rows(parameters)[indices]))

    def cosines(self, parameters: Parameters) -> Float[Array, "directions directions"]:
        """Returns the cosines between all directions."""
        return self.subspace.inner_products(self._to_unit(self._rows(parameters)))

    def _amounts(
        self, indices: Int[Array, "batch"], shifts: Float[Array, "batch"]
    ) -> Float[Array, "batch directions"]:
        return shifts[:, None] * jax.nn.one_hot(indices, self.count, dtype=shifts.dtype)

    def _combine(
        self, parameters: Parameters, amounts: Float[Array, "batch directions"]
    ) -> Float[Array, "batch basis"]:
        if "bias" not in parameters:
            return _matmul(amounts, self.coefficients(parameters))
        mixed = _matmul(amounts, self._rows(parameters)) + parameters["bias"][None]
        if self.kind == "linear":
            return mixed
        return jnp.linalg.norm(amounts, axis=1, keepdims=True) * self._to_unit(mixed)

    def _rows(self, parameters: Parameters) -> Float[Array, "directions basis"]:
        if self.kind == "orthonormal":
            half = parameters["skew_half"]
            return jax.scipy.linalg.expm(half - half.T).T[: self.count]
        if self.kind == "identity":
            return jnp.eye(self.count, self.subspace.size)
        return parameters["matrix"] if self.drawn is None else self.drawn

    def _to_unit(self, rows: Float[Array, "n basis"]) -> Float[Array, "n basis"]:
        # The bound is that of torch.nn.functional.normalize.
        return rows / jnp.maximum(self.subspace.norms(rows), 1e-12)[:, None]


def _matmul(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def direction_matrix(key: Key, subspace: Subspace, *, kind: str, count: int) -> DirectionMatrix:
    """Returns K = `count` directions in the subspace.

    key: draws the rows of `random`; other kinds ignore it.
    Raises: InputError for an unknown kind, more directions than the subspace has dimensions, or a
      subspace too large for an exponential.
    """
    if kind not in KINDS:
        raise InputError(
            f"matrix: expected a known kind; got {kind!r}; allowed: {', '.join(KINDS)}; "
            "set --config.matrix=projected"
        )
    size = subspace.size
    if not 1 <= count <= size:
        raise InputError(
            f"directions: expected 1 to {size}, the size of the subspace; got {count}; set "
            "--config.directions=N, or choose a larger subspace"
        )
    if kind == "orthonormal" and size > _LARGEST_SKEW:
        raise InputError(
            f"matrix: expected a subspace of at most {_LARGEST_SKEW} dimensions for orthonormal "
            f"directions, which need the exponential of a matrix of that side; got {size}; set "
            "--config.matrix=projected, or choose a smaller subspace"
        )
    drawn = None
    if kind == "random":
        drawn = jnp.linalg.qr(jax.random.normal(key, (size, count)))[0].T
    return DirectionMatrix(subspace, kind, count, drawn)
