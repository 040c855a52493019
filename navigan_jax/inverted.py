"""Photographs as a generator makes them: latents, and changes of its weights, and their file.

The image of photograph i is G_{θ+Δ_i}(latent_i). Δ_i changes noise maps, if these were fitted too,
and weights, if the generator was tuned. It is an edit like any other, so directions found for θ
act on θ + Δ_i.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence

import numpy as np

from navigan_jax import checkpoints
from navigan_jax import params as params_lib
from navigan_jax.array_types import Params
from navigan_jax.directions import Edit
from navigan_jax.errors import InputError

SPACES = ("z", "w_plus")
_REQUIRED = ("architecture", "digest", "method", "metric")
_CHANGE, _MEASURE = "changes/", "measures/"


@dataclasses.dataclass(frozen=True, eq=False)
class Inverted:
    """Photographs found in one generator.

    names: paths of the photographs. sha256: of their files. space: "z" or "w_plus"; latents:
    [count, *latent]. changes: {path of a weight or a noise map: [count, *its shape]}, Δ; may be
    empty. corners: [count, 4, 2], the place in the photograph that each image shows; see
    `inversion.placing`. measures: {name: [count]}. provenance: architecture, digest (of θ), method,
    metric and more.
    """

    names: Sequence[str]
    sha256: Sequence[str]
    space: str
    latents: np.ndarray
    changes: Mapping[str, np.ndarray]
    corners: np.ndarray
    measures: Mapping[str, np.ndarray]
    provenance: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.latents)

    def edit(self, index: int) -> Edit:
        """Returns Δ of photograph `index`, to be applied with shift 1."""
        return Edit({path: rows[index] for path, rows in self.changes.items()})


def digest(inverted: Inverted) -> str:
    """Returns the SHA-256 (hex) of latents and changes."""
    return params_lib.digest({"latents": inverted.latents, **inverted.changes})


def join(parts: Sequence[Inverted]) -> Inverted:
    """Returns all photographs of several values of one run, in order."""
    first = parts[0]
    return dataclasses.replace(
        first,
        names=[name for part in parts for name in part.names],
        sha256=[text for part in parts for text in part.sha256],
        latents=np.concatenate([part.latents for part in parts]),
        changes={k: np.concatenate([p.changes[k] for p in parts]) for k in first.changes},
        corners=np.concatenate([part.corners for part in parts]),
        measures={k: np.concatenate([p.measures[k] for p in parts]) for k in first.measures},
    )


def write_inverted(path: str | os.PathLike[str], inverted: Inverted) -> None:
    """Writes the photographs as one safetensors file, atomically.

    Raises: ValueError if the provenance is not complete; InputError as `atomic_output`.
    """
    missing = [key for key in _REQUIRED if key not in inverted.provenance]
    if missing:
        raise ValueError(f"inverted: the provenance lacks {missing}")
    arrays = {"latents": inverted.latents, "corners": inverted.corners}
    arrays |= {_CHANGE + name: rows for name, rows in inverted.changes.items()}
    arrays |= {_MEASURE + name: rows for name, rows in inverted.measures.items()}
    metadata = {
        "format": "navigan_jax.inverted",
        "format_version": "1",
        "space": inverted.space,
        "names": json.dumps(list(inverted.names)),
        "sha256": json.dumps(list(inverted.sha256)),
        "provenance": json.dumps(dict(inverted.provenance)),
    }
    checkpoints.write_arrays(path, arrays, metadata)


def read_inverted(path: str | os.PathLike[str], *, digest: str | None) -> Inverted:
    """Returns the photographs of a file.

    digest: of the weights in which they are used (`params.digest`); None accepts any.
    Raises: InputError if the file is damaged or of another kind, or if the digests differ.
    """
    arrays, metadata = checkpoints.read_arrays(path)
    checkpoints.require_format(path, metadata, "inverted")
    names = checkpoints.read_json(path, metadata, "names", list)
    digests = checkpoints.read_json(path, metadata, "sha256", list)
    provenance = checkpoints.read_json(path, metadata, "provenance")
    missing = [name for name in ("latents", "corners") if name not in arrays]
    missing += [key for key in _REQUIRED if not isinstance(provenance.get(key), str)]
    if missing or metadata.get("space") not in SPACES:
        what = ", ".join(missing) or f"the space {metadata.get('space')!r}"
        raise _damaged(path, "latents, corners, a space and provenance", f"none of {what}")
    count = len(names)
    texts = [*names, *digests]
    if not count or len(digests) != count or not all(isinstance(text, str) for text in texts):
        raise _damaged(path, "a name and a digest of each photograph", f"{count} names")
    for name, array in arrays.items():
        if array.shape[:1] != (count,) or not np.issubdtype(array.dtype, np.floating):
            got = f"{array.dtype} {list(array.shape)}"
            raise _damaged(path, f"{name} of {count} photographs", got)
        if not name.startswith(_MEASURE) and not np.isfinite(array).all():
            raise _damaged(path, "finite numbers", f"NaN or infinity in {name}")
    if arrays["corners"].shape[1:] != (4, 2):
        raise _damaged(path, "four corners of each place", f"{arrays['corners'].shape[1:]}")
    if digest not in (None, provenance["digest"]):
        raise InputError(
            f"{path}: expected photographs found in the weights {digest}; got photographs found "
            f"in {provenance['digest']}; give the generator in which they were found"
        )
    return Inverted(
        names=names,
        sha256=digests,
        space=metadata["space"],
        latents=arrays["latents"],
        changes=_below(arrays, _CHANGE),
        corners=arrays["corners"],
        measures=_below(arrays, _MEASURE),
        provenance=provenance,
    )


def read_fitting(
    path: str | os.PathLike[str],
    params: Params,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    digest: str | None,
) -> Inverted:
    """Returns the photographs of a file, and checks that they fit the generator with these weights.

    shapes: of a latent by its space. digest: of the weights; None accepts any of these sizes.
    Raises: as `read_inverted` and `require_fit`.
    """
    inverted = read_inverted(path, digest=digest)
    require_fit(path, inverted, params, shapes)
    return inverted


def require_fit(
    path: str | os.PathLike[str],
    inverted: Inverted,
    params: Params,
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """Checks that latents and changes have the shapes of a generator. Raises: InputError.

    shapes: of a latent by its space.
    """
    known = {name: np.shape(leaf) for name, leaf in params_lib.flatten(params).items()}
    expected = {"latents": shapes.get(inverted.space)} | {
        name: known.get(name) for name in inverted.changes
    }
    got = {"latents": inverted.latents} | dict(inverted.changes)
    for name, array in got.items():
        if array.shape[1:] != expected[name]:
            raise InputError(
                f"{path}: expected photographs for a generator of these sizes; got {name} of shape "
                f"{list(array.shape[1:])}, but the generator has {expected[name] or 'none'}; give "
                "the generator in which they were found"
            )


def _below(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _damaged(path: str | os.PathLike[str], expected: str, got: str) -> InputError:
    return InputError(f"{path}: expected {expected}; got {got}; the file is damaged: make it anew")
