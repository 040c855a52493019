"""Edits and directions as values, and the file format of directions.

An edit is a change ξ of the weights of some layers. A direction is an edit of unit Frobenius norm,
taken over all its layers together, with its measures. A shifted generator is G_{θ+tξ}.
"""

import dataclasses
import json
import math
import os
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from navigan_jax import checkpoints
from navigan_jax import params as params_lib
from navigan_jax.array_types import Array, Params
from navigan_jax.errors import InputError

_REQUIRED = ("architecture", "digest", "method", "metric", "seed", "latents", "config")

_UNIT_TOLERANCE = 1e-3  # of a direction's norm; rounding of long float32 sums is a tenth of this

# The arrays beside the basis: {name: shape for one direction}.
_TABLES = {"shift_scales": (2,), "distances": (2,)}
_OPTIONAL_TABLES = {"plausible": (2,)}
_MEASURE, _BASIS = "measures/", "basis/"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Edit:
    """A change of weights: {layer path: δ, shaped like that weight}."""

    deltas: dict[str, Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Directions:
    """Directions of one generator, best first.

    basis: {layer path: [directions, *shape of the weight]}; unit norm over all layers together.
    measures: {name: [directions]}, numbers from the method; the first measure ranks the directions.
      A spectrum has "eigenvalue", of the metric's Hessian, and "residual", ||Hξ - λξ|| / |λ|.
    shift_scales: [directions, 2], the |t| that spends the perceptual budget, for negative and
      positive t. distances: [directions, 2], the mean distance of the images there.
    plausible: [directions, 2], the |t| at which the effective range ends; None if not measured.
    provenance: architecture, digest (of the weights), method, metric, seed, latents, config.
    """

    basis: Mapping[str, np.ndarray]
    measures: Mapping[str, np.ndarray]
    shift_scales: np.ndarray
    distances: np.ndarray
    provenance: Mapping[str, str]
    plausible: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.shift_scales)

    @property
    def shown(self) -> np.ndarray:
        """[directions, 2], the |t| to which pictures go: shift scale or end of the effective range.

        The smaller of the two counts. A direction that is not calibrated has 0.
        """
        if self.plausible is None:
            return self.shift_scales
        return np.minimum(self.shift_scales, self.plausible)

    @property
    def layers(self) -> tuple[str, ...]:
        """The paths of the edited weights."""
        return tuple(self.basis)

    def edit(self, index: int) -> Edit:
        """Returns direction `index` as an edit of unit norm.

        Raises: InputError if there is no such direction.
        """
        if not 0 <= index < len(self):
            raise InputError(
                f"direction: expected a number from 0 to {len(self) - 1}; got {index}; choose one "
                "that the directions file has"
            )
        return Edit({path: rows[index] for path, rows in self.basis.items()})


def digest(directions: Directions) -> str:
    """Returns the SHA-256 (hex) of the basis; shift scales and measures do not count."""
    return params_lib.digest(directions.basis)


def write_directions(path: str | os.PathLike[str], directions: Directions) -> None:
    """Writes the directions as one safetensors file, atomically.

    Raises: ValueError if the provenance is not complete; InputError as `atomic_output`.
    """
    missing = [key for key in _REQUIRED if key not in directions.provenance]
    if missing:
        raise ValueError(f"directions: the provenance lacks {missing}")
    arrays = {_BASIS + layer: rows for layer, rows in directions.basis.items()}
    arrays |= {_MEASURE + name: values for name, values in directions.measures.items()}
    arrays |= {name: getattr(directions, name) for name in _TABLES}
    optional = {name: getattr(directions, name) for name in _OPTIONAL_TABLES}
    arrays |= {name: values for name, values in optional.items() if values is not None}
    metadata = {
        "format": "navigan_jax.directions",
        "format_version": "1",
        "layers": json.dumps(list(directions.layers)),
        "measures": json.dumps(list(directions.measures)),
        "provenance": json.dumps(dict(directions.provenance)),
    }
    checkpoints.write_arrays(path, arrays, metadata)


def read_directions(path: str | os.PathLike[str], *, digest: str | None) -> Directions:
    """Returns the directions of a file.

    digest: of the weights for which the directions are used (`params.digest`); None accepts any.
    Raises: InputError if the file is damaged or of another kind, or if the digests differ.
    """
    arrays, metadata = checkpoints.read_arrays(path)
    checkpoints.require_format(path, metadata, "directions")
    layers = checkpoints.read_json(path, metadata, "layers", list)
    measures = checkpoints.read_json(path, metadata, "measures", list)
    provenance = checkpoints.read_json(path, metadata, "provenance")
    _check(path, layers, measures, arrays, provenance)
    if digest not in (None, provenance["digest"]):
        raise InputError(
            f"{path}: expected directions of the weights {digest}; got directions of "
            f"{provenance['digest']}; give the generator in which they were found; tasks that show "
            "directions accept other weights with --config.any_weights=True (in Python: "
            "digest=None)"
        )
    return Directions(
        basis={layer: arrays[_BASIS + layer] for layer in layers},
        measures={name: arrays[_MEASURE + name] for name in measures},
        provenance=provenance,
        plausible=arrays.get("plausible"),
        **{name: arrays[name] for name in _TABLES},
    )


def read_fitting(
    path: str | os.PathLike[str], params: Params, *, digest: str, any_weights: bool
) -> Directions:
    """Returns the directions of a file for these weights, and checks that the layers' sizes agree.

    digest: of the weights. any_weights: also accept directions found in other weights. The result
      then has this digest, and its provenance has the original digest under "found_in".
    Raises: as `read_directions` and `require_fit`.
    """
    directions = read_directions(path, digest=None if any_weights else digest)
    require_fit(path, directions, params)
    found_in = directions.provenance["digest"]
    if found_in == digest:
        return directions
    provenance = {**directions.provenance, "digest": digest, "found_in": found_in}
    return dataclasses.replace(directions, provenance=provenance)


def require_fit(path: str | os.PathLike[str], directions: Directions, params: Params) -> None:
    """Checks that the directions of the file at `path` have the shapes of the weights.

    Raises: InputError.
    """
    shapes = {layer: np.shape(leaf) for layer, leaf in params_lib.flatten(params).items()}
    for layer, rows in directions.basis.items():
        if shapes.get(layer) != rows.shape[1:]:
            raise InputError(
                f"{path}: expected directions for weights of these sizes; got {layer} of shape "
                f"{list(rows.shape[1:])}, but the generator has "
                f"{list(shapes.get(layer, ())) or 'no such layer'}; give directions that were "
                "found in this generator"
            )


def _check(
    path: str | os.PathLike[str],
    layers: Sequence[Any],
    measures: Sequence[Any],
    arrays: Mapping[str, np.ndarray],
    provenance: Mapping[str, Any],
) -> None:
    """Checks that nothing is missing, and that all arrays have valid types, shapes and values."""
    for what, names in (("layers", layers), ("measures", measures)):
        if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise _damaged(path, f"different names under {what}", f"{reprlib.repr(names)}")
    if not all(isinstance(value, str) for value in provenance.values()):
        raise _damaged(path, "texts under provenance", reprlib.repr(provenance))
    shapes = {f"{_MEASURE}{name}": () for name in measures} | _TABLES
    shapes |= {name: shape for name, shape in _OPTIONAL_TABLES.items() if name in arrays}
    names = [*shapes, *(f"{_BASIS}{layer}" for layer in layers)]
    missing = [name for name in names if name not in arrays]
    missing += [key for key in _REQUIRED if key not in provenance]
    missing += [what for what, of in (("layers", layers), ("measures", measures)) if not of]
    if missing:
        wanted = "layers, measures, arrays and provenance"
        raise _damaged(path, wanted, f"none of {', '.join(missing)}")
    count = arrays[names[0]].size
    for name in names:
        array, rest = arrays[name], shapes.get(name)
        if not np.issubdtype(array.dtype, np.floating):
            raise _damaged(path, f"fractions (floating point) in {name}", str(array.dtype))
        if count == 0 or array.shape[:1] != (count,) or rest not in (None, array.shape[1:]):
            wanted = f"{name} of {count or 'some'} directions, as many as measured"
            raise _damaged(path, wanted, f"shape {list(array.shape)}")
        # A residual is infinite where the eigenvalue is zero; no other number may be infinite.
        may_be_infinite = name == f"{_MEASURE}residual"
        if np.isnan(array).any() or (not may_be_infinite and np.isinf(array).any()):
            raise _damaged(path, "finite numbers", f"NaN or infinity in {name}")
        is_table = name in _TABLES or name in _OPTIONAL_TABLES
        if (is_table or may_be_infinite) and (array < 0).any():
            raise _damaged(path, f"{name} of 0 or more", f"{float(array.min()):g}")
    for index in range(count):
        rows = [arrays[f"{_BASIS}{layer}"][index].astype(np.float64) for layer in layers]
        length = math.sqrt(sum(float(np.vdot(row, row)) for row in rows))
        if abs(length - 1) > _UNIT_TOLERANCE:
            raise _damaged(path, "directions of norm 1", f"direction {index} of norm {length:.3g}")


def _damaged(path: str | os.PathLike[str], expected: str, got: str) -> InputError:
    return InputError(f"{path}: expected {expected}; got {got}; the file is damaged: make it anew")
