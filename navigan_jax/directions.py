"""Edits and directions as values, and the file that keeps them.

An edit is a change ξ of the weights of some layers; a direction is an edit of unit Frobenius norm
(over all its layers together) with what is known about it. A shifted generator is G_{θ+tξ}.
"""

import dataclasses
import json
import os
from collections.abc import Mapping

import jax
import numpy as np

from navigan_jax import checkpoints
from navigan_jax.array_types import Array
from navigan_jax.errors import InputError

_REQUIRED = ("architecture", "digest", "method", "metric", "seed", "latents", "config")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Edit:
    """A change of weights: {layer path: δ, shaped like that weight}."""

    deltas: dict[str, Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Directions:
    """Directions of one generator, best first.

    basis: {layer path: [directions, *shape of the weight]}; orthonormal over all layers together.
    spectrum: eigenvalues of the metric's Hessian. residuals: ||Hξ - λξ|| / |λ|.
    shift_scales: [directions, 2], the |t| at which the images have changed by the target, for
    negative and positive t. distances: [directions, 2], the mean distance there.
    provenance: architecture, digest (of the weights), method, metric, seed, latents, config.
    """

    basis: Mapping[str, np.ndarray]
    spectrum: np.ndarray
    residuals: np.ndarray
    shift_scales: np.ndarray
    distances: np.ndarray
    provenance: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.spectrum)

    @property
    def layers(self) -> tuple[str, ...]:
        """The paths of the edited weights."""
        return tuple(self.basis)

    def edit(self, index: int) -> Edit:
        """Returns direction `index` as an edit of unit norm.

        Raises: InputError if there is no such direction.
        """
        if not 0 <= index < len(self):
            raise InputError(f"direction: expected a number from 0 to {len(self) - 1}; got {index}")
        return Edit({path: rows[index] for path, rows in self.basis.items()})


def write_directions(path: str | os.PathLike[str], directions: Directions) -> None:
    """Writes the directions as one safetensors file, atomically.

    Raises: ValueError if the provenance is not complete; InputError as `atomic_output`.
    """
    missing = [key for key in _REQUIRED if key not in directions.provenance]
    if missing:
        raise ValueError(f"directions: the provenance lacks {missing}")
    arrays = {f"basis/{layer}": rows for layer, rows in directions.basis.items()}
    for name in ("spectrum", "residuals", "shift_scales", "distances"):
        arrays[name] = getattr(directions, name)
    metadata = {
        "format": "navigan_jax.directions",
        "format_version": "1",
        "layers": json.dumps(list(directions.layers)),
        "provenance": json.dumps(dict(directions.provenance)),
    }
    checkpoints.write_arrays(path, arrays, metadata)


def read_directions(
    path: str | os.PathLike[str], *, digest: str | None, any_generator: bool = False
) -> Directions:
    """Returns the directions of a file.

    digest: of the weights they are to be used with (`params.digest`); None does not check.
    any_generator: take them although they were found in other weights.
    Raises: InputError if the file is damaged or of another kind, or the digests differ.
    """
    arrays, metadata = checkpoints.read_arrays(path)
    checkpoints.require_format(path, metadata, "directions")
    layers = checkpoints.read_json(path, metadata, "layers")
    provenance = checkpoints.read_json(path, metadata, "provenance")
    names = [f"basis/{layer}" for layer in layers]
    names += ["spectrum", "residuals", "shift_scales", "distances"]
    missing = [name for name in names if name not in arrays]
    missing += [key for key in _REQUIRED if key not in provenance]
    if missing:
        raise InputError(f"{path}: the file lacks {', '.join(missing)}; make it anew")
    counts = {name: len(arrays[name]) for name in names}
    if len(set(counts.values())) != 1:
        raise InputError(f"{path}: expected one number of directions; got {counts}; make it anew")
    if bad := [name for name in names if not _is_usable(name, arrays[name])]:
        raise InputError(f"{path}: {', '.join(bad)} hold NaN; the file is damaged: make it anew")
    if digest is not None and provenance["digest"] != digest and not any_generator:
        raise InputError(
            f"{path}: these directions were found in other weights: expected a generator of digest "
            f"{provenance['digest'][:16]}…; got {digest[:16]}…; give the generator they belong to "
            "(or any_generator=True to try them anyway)"
        )
    return Directions(
        basis={layer: arrays[f"basis/{layer}"] for layer in layers},
        spectrum=arrays["spectrum"],
        residuals=arrays["residuals"],
        shift_scales=arrays["shift_scales"],
        distances=arrays["distances"],
        provenance=provenance,
    )


def _is_usable(name: str, array: np.ndarray) -> bool:
    # A residual is infinite where the eigenvalue is zero; nothing else may be.
    return not np.isnan(array).any() if name == "residuals" else bool(np.isfinite(array).all())
