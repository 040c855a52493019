"""Subspaces: the changes of a generator among which directions are searched for.

A subspace maps coefficients to changes of weights or of the latent. It is an immutable pytree whose
leaves are its basis, so the basis reaches a compiled step as an argument. The changes of a batch
are one matrix product of the coefficients and the basis; the basis is never copied per sample.
"""

import abc
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax.array_types import Array, Float
from navigan_jax.errors import InputError
from navigan_jax.nn.layers import Change

Coefficients: TypeAlias = Float[Array, "batch basis"]
Deltas: TypeAlias = dict[str, Array]  # {layer path: [batch, *shape of the weight]}

LATENT = "latent"  # the key of changes of the latent, instead of a layer's path


class Subspace(abc.ABC):
    """Changes of weights as linear combinations of `size` basis elements.

    layers: the paths of the weights that change; (`LATENT`,) if the latent changes.
    """

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """The number R of basis elements."""

    @property
    @abc.abstractmethod
    def layers(self) -> tuple[str, ...]:
        """The keys of the deltas."""

    @abc.abstractmethod
    def expand(self, coefficients: Coefficients) -> Deltas:
        """Returns Σ_j c_j basis_j for each row of coefficients."""

    def factor(self, coefficients: Coefficients) -> Mapping[str, Change]:
        """Returns the changes of `expand`, as factors where that avoids a weight per sample."""
        return self.expand(coefficients)

    def inner_products(self, coefficients: Coefficients) -> Float[Array, "batch batch"]:
        """Returns ⟨ξ_i, ξ_j⟩ of the rows' changes ξ, over all layers together.

        This implementation is for an orthonormal basis; it uses only the coefficients.
        """
        return _matmul(coefficients, coefficients.T)

    def norms(self, coefficients: Coefficients) -> Float[Array, "batch"]:
        """Returns the Frobenius norms, for an orthonormal basis; the gradient at zero is zero."""
        return _safe_sqrt(jnp.sum(coefficients**2, axis=1))


def _matmul(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _safe_sqrt(squares: Array) -> Array:
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), 0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class FixedBasis(Subspace):
    """Given vectors of weights, e.g. the leading eigenvectors of a Hessian: the hybrid method.

    basis: {path: [R, *shape]}. gram: [R, R], the vectors' inner products over all layers together.
    With it, the norm of a combination costs R² operations instead of one per weight.
    """

    basis: Mapping[str, Array]
    gram: Float[Array, "basis basis"]

    @property
    def size(self) -> int:
        return len(self.gram)

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(self.basis)

    def expand(self, coefficients: Coefficients) -> Deltas:
        return {
            path: jnp.tensordot(coefficients, rows, axes=1, precision=jax.lax.Precision.HIGHEST)
            for path, rows in self.basis.items()
        }

    def inner_products(self, coefficients: Coefficients) -> Float[Array, "batch batch"]:
        return _matmul(_matmul(coefficients, self.gram), coefficients.T)

    def norms(self, coefficients: Coefficients) -> Float[Array, "batch"]:
        return _safe_sqrt(jnp.sum(_matmul(coefficients, self.gram) * coefficients, axis=1))


def fixed_basis(basis: Mapping[str, np.ndarray]) -> FixedBasis:
    """Returns the subspace spanned by the rows, each taken over all layers together.

    basis: {path: [R, *shape]}, as in a file of directions.
    Raises: InputError if a row is zero.
    """
    gram = sum(_gram(np.asarray(rows)) for rows in basis.values())
    if zero := np.flatnonzero(np.diag(gram) == 0).tolist():
        raise InputError(
            f"subspace: expected basis vectors that are not zero; got zeros at {zero}; leave these "
            "directions out of the file"
        )
    arrays = {path: jnp.asarray(rows, jnp.float32) for path, rows in basis.items()}
    return FixedBasis(arrays, jnp.asarray(gram, jnp.float32))


def _gram(rows: np.ndarray) -> np.ndarray:
    flat = rows.reshape(len(rows), -1)
    # In pieces, because a float64 copy of the whole basis would take twice its memory.
    pieces = np.array_split(flat, max(1, flat.shape[1] // 2**20), axis=1)
    doubles = (piece.astype(np.float64) for piece in pieces)
    return np.sum([piece @ piece.T for piece in doubles], axis=0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Full(Subspace):
    """All weights of some layers; the coefficients are the weights, in the order of `shapes`."""

    shapes: tuple[tuple[str, tuple[int, ...]], ...] = dataclasses.field(metadata={"static": True})

    @property
    def size(self) -> int:
        return sum(math.prod(shape) for _, shape in self.shapes)

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(path for path, _ in self.shapes)

    def expand(self, coefficients: Coefficients) -> Deltas:
        deltas, start = {}, 0
        for path, shape in self.shapes:
            stop = start + math.prod(shape)
            deltas[path] = coefficients[:, start:stop].reshape(-1, *shape)
            start = stop
        return deltas


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Latent(Subspace):
    """Changes of the latent itself, z or w, as in GANLatentDiscovery, for comparison.

    If there are fewer coefficients than `width`, they are the first entries of the change and the
    rest is zero. Coefficients beyond `width` are dropped (latent_deformator.py there does both).
    """

    width: int = dataclasses.field(metadata={"static": True})

    @property
    def size(self) -> int:
        return self.width

    @property
    def layers(self) -> tuple[str, ...]:
        return (LATENT,)

    def expand(self, coefficients: Coefficients) -> Deltas:
        spare = max(0, self.width - coefficients.shape[1])
        return {LATENT: jnp.pad(coefficients, ((0, 0), (0, spare)))[:, : self.width]}


def require_fit(
    basis: Mapping[str, np.ndarray], shapes: Mapping[str, Sequence[int]], source: str
) -> None:
    """Checks that the basis has the layers and shapes of the run.

    shapes: {path: shape} of the layers of the run. source: begins the message.
    Raises: InputError that names both sides.
    """
    got = {path: tuple(rows.shape[1:]) for path, rows in basis.items()}
    wanted = {path: tuple(shape) for path, shape in shapes.items()}
    if got != wanted:
        raise InputError(
            f"{source}: expected directions of {_describe(wanted)}; got directions of "
            f"{_describe(got)}; give a file of directions of these layers, or set --config.layer "
            "to the layers of the file"
        )


def _describe(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{path} {list(shape)}" for path, shape in shapes.items()) or "no layer"
