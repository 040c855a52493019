"""Converts the directions that the authors' program NaviGAN saves.

1. `eigenvectors_layer{i}_{generator}.pt`: a tensor [K, 1, out, in, side, side], each entry of unit
   norm. Files saved before the program ends are not normalised; their norms are the estimated
   eigenvalues.
2. `checkpoint.pt` of a training: K rows of coefficients beside the weights of the layer. They refer
   to the singular vectors in the same file, or to a basis in another file of form 1.
3. `deformation.pt`: one change of one layer; its norm is the shift to show.

Layer i is `convs[i]` of the program. A direction there changes the stored weight, before all
scaling, as ours do; only the order of the axes differs.
"""

import argparse
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from navigan_jax import params as params_lib
from navigan_jax.array_types import Params
from navigan_jax.directions import Directions, write_directions
from navigan_jax.errors import InputError
from navigan_jax.generators.base import EditableLayer, Generator
from navigan_jax.generators.files import read_generator
from tools.convert_weights.networks.base import (
    Foreign,
    Network,
    Opener,
    Shapes,
    by_names,
    check_output,
)

_NAMED = re.compile(r"eigenvectors_layer(\d{1,2})_.*")
_CONV = re.compile(r"(?:.*\.)?convs\.(\d{1,2})\.conv\.(\w+)")
_COEFFICIENTS = {
    "svd": "direction_to_eigenvalues_delta",
    "basis": "direction_to_basis_coefs",
}
# Entries with a norm this close to 1 count as normalised; rounding in float32 stays below it.
_UNIT_TOLERANCE = 1e-3


def from_foreign(
    foreign: Foreign,
    generator: Generator,
    params: Params,
    *,
    basis: Foreign | None = None,
    layer: str | None = None,
) -> Directions:
    """Returns the directions in a file of any of the three forms.

    generator, params: of the generator that the file was made with. basis: for coefficients in a
    basis, the file with that basis. layer: for a file that gives the layer neither in its content
    nor in its name.

    Raises: InputError if a file has another form or does not fit the generator.
    """
    content, name = foreign.content, foreign.name
    if isinstance(content, np.ndarray):
        found = _find_layer(generator, layer or _layer_in(name), name)
        vectors, method = _kernels(content, found, name), "navigan, eigenvectors"
    elif isinstance(content, dict) and {"layer_ix", "shift"} <= content.keys():
        found = _find_layer(generator, _layer_by(content["layer_ix"], layer), name)
        vectors, method = _kernels(content["shift"], found, name), "navigan, deformation"
    elif isinstance(content, dict) and isinstance(content.get("generator"), dict):
        found, vectors, method = _trained(content["generator"], generator, params, basis, name)
    else:
        raise _refusal(name, "other content, such as latent directions, which change no weights")
    norms = np.linalg.norm(vectors.reshape(len(vectors), -1).astype(np.float64), axis=1)
    if not np.isfinite(norms).all() or not norms.all():
        raise _refusal(name, "directions that are zero or not finite")
    unit = (vectors / norms.reshape(-1, *[1] * (vectors.ndim - 1))).astype(np.float32)
    is_unit = bool(np.all(np.abs(norms - 1) < _UNIT_TOLERANCE))
    measures = {"order": np.arange(len(norms), dtype=np.float64)}
    if method == "navigan, eigenvectors" and not is_unit:
        measures = {"eigenvalue": norms}
    # A saved deformation is shown at its own norm.
    scale = norms if method == "navigan, deformation" else np.zeros(len(norms))
    return Directions(
        basis={found.path: unit},
        measures=measures,
        shift_scales=np.stack([scale, scale], axis=1),
        distances=np.zeros((len(norms), 2)),
        provenance={
            "architecture": generator.architecture,
            "digest": params_lib.digest(params),
            "method": method,
            # NaviGAN's files do not store these.
            **dict.fromkeys(("metric", "seed", "latents", "config"), "unknown"),
            "file": foreign.origin["file"],
        },
    )


def _trained(
    state: Mapping[Any, Any],
    generator: Generator,
    params: Params,
    basis: Foreign | None,
    name: str,
) -> tuple[EditableLayer, np.ndarray, str]:
    """Returns layer, directions [K, *kernel] and method of the checkpoint of a training."""
    matches = {key: _CONV.fullmatch(key) for key in state if isinstance(key, str)}
    edited = {
        match[1]: key
        for key, match in matches.items()
        if match and match[2] in _COEFFICIENTS.values()
    }
    if len(edited) != 1:
        raise _refusal(name, f"a checkpoint with coefficients of {len(edited)} layers")
    ((number, key),) = edited.items()
    layer = _find_layer(generator, f"convs.{number}", name)
    prefix, _, kind = key.rpartition(".")
    parts = {part: state.get(f"{prefix}.{part}") for part in (kind, "weight", "u", "vh")}
    _check_weight(parts["weight"], layer, params, name)
    coefficients = _matrix(parts[kind], None, None, kind, name)
    if kind == _COEFFICIENTS["svd"]:
        side, _, inputs, outputs = layer.shape
        rank = coefficients.shape[1]
        u = _matrix(parts["u"], side * side * inputs, rank, "u", name)
        vh = _matrix(parts["vh"], rank, outputs, "vh", name)
        rows = np.einsum("ir,kr,ro->kio", u, coefficients, vh, optimize=True)
        return layer, rows.reshape(-1, *layer.shape), "navigan, trained singular values"
    if basis is None:
        raise InputError(
            f"{name}: expected a file with the basis of its coefficients; got none; give the basis "
            "file of the training with --basis FILE"
        )
    vectors = _kernels(basis.content, layer, basis.name)
    if len(vectors) != coefficients.shape[1]:
        raise InputError(
            f"{basis.name}: expected {coefficients.shape[1]} vectors, one for each coefficient of "
            f"{name}; got {len(vectors)}; give the basis file of the training"
        )
    rows = np.einsum("kr,r...->k...", coefficients, vectors.astype(np.float64))
    return layer, rows, "navigan, trained in a basis"


def _check_weight(weight: Any, layer: EditableLayer, params: Params, name: str) -> None:
    """Checks that the layer has the same weight in checkpoint and generator."""
    ours = np.asarray(params_lib.get(params, layer.path))
    theirs = _kernels(weight[None] if isinstance(weight, np.ndarray) else None, layer, name)[0]
    if not np.allclose(theirs, ours, rtol=1e-5, atol=1e-5 * np.abs(ours).max()):
        raise InputError(
            f"{name}: expected the generator that it was trained with; got a generator with other "
            f"weights of {layer.path}; convert the right one and give it with --generator FILE"
        )


def _matrix(value: Any, rows: int | None, columns: int | None, what: str, name: str) -> np.ndarray:
    fits = (
        isinstance(value, np.ndarray)
        and value.dtype.kind == "f"
        and value.ndim == 2
        and rows in (None, value.shape[0])
        and columns in (None, value.shape[1])
    )
    if not fits:
        shape = list(value.shape) if isinstance(value, np.ndarray) else "none"
        raise _refusal(name, f"{what} of shape {shape}")
    return value.astype(np.float64)


def _kernels(value: Any, layer: EditableLayer, name: str) -> np.ndarray:
    """Returns [K, side, side, in, out] of a tensor [K, 1, out, in, side, side]."""
    side, _, inputs, outputs = layer.shape
    wanted = (1, outputs, inputs, side, side)
    if not (
        isinstance(value, np.ndarray)
        and value.dtype.kind == "f"
        and value.ndim == 6
        and value.shape[1:] == wanted
        and len(value)
    ):
        got = list(value.shape) if isinstance(value, np.ndarray) else type(value).__name__
        raise _refusal(
            name, f"{got} where {layer.original_name} ({layer.path}) needs [K, {str(wanted)[1:-1]}]"
        )
    return value[:, 0].transpose(0, 3, 4, 2, 1)


def _layer_in(name: str) -> str | None:
    match = _NAMED.fullmatch(pathlib.Path(name).name)
    return f"convs.{match[1]}" if match else None


def _layer_by(number: Any, layer: str | None) -> str | None:
    return layer or (f"convs.{number}" if type(number) is int else None)


def _find_layer(generator: Generator, layer: str | None, name: str) -> EditableLayer:
    if layer is None:
        raise InputError(
            f"{name}: expected a name like eigenvectors_layer3_generator.pt, which gives the "
            "layer; got another name; give the layer, such as --layer convs.3"
        )
    try:
        (found,) = generator.find_layers([layer])
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    if len(found.shape) != 4:
        raise _refusal(name, f"the layer {found.path}, which is no convolution")
    return found


def _refusal(name: str, got: str) -> InputError:
    return InputError(
        f"{name}: expected directions of NaviGAN for this generator; got {got}; allowed: "
        "eigenvectors_layer*.pt, checkpoint.pt of a training in weights, deformation.pt; "
        "see what the file is with: python -m tools.convert_weights inspect FILE"
    )


_OF_TRAININGS = by_names(
    {
        "NaviGAN training checkpoint, SVD directions": (r"conv\.direction_to_eigenvalues_delta",),
        "NaviGAN training checkpoint, directions in a basis": (r"conv\.direction_to_basis_coefs",),
        "NaviGAN latent deformator": (r"log_mat_half",),
    }
)


def _recognise(shapes: Shapes) -> str | None:
    if found := _OF_TRAININGS(shapes):
        return found
    if set(shapes) == {"linear.weight", "linear.bias"}:
        return "NaviGAN latent deformator"
    if set(shapes) == {"shift"} and len(shapes["shift"]) == 6:
        return "NaviGAN deformation, one shift of one layer"
    if set(shapes) == {"array"} and len(shapes["array"]) == 6:
        return "NaviGAN eigenvectors or basis of one layer"
    return None


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="SOURCE", help="eigenvectors_layer*.pt, checkpoint.pt or deformation.pt"
    )
    parser.add_argument(
        "--generator", required=True, metavar="FILE", help="the converted generator"
    )
    parser.add_argument(
        "--basis", metavar="FILE", help="the basis file, for a checkpoint trained in a basis"
    )
    parser.add_argument(
        "--layer",
        metavar="NAME",
        help="the layer, such as convs.3, if the name of the file does not give it",
    )


def _convert(options: argparse.Namespace, open_file: Opener) -> str:
    check_output(options.out, *filter(None, (options.source, options.generator, options.basis)))
    generator, params = read_generator(options.generator)
    directions = from_foreign(
        open_file(options.source),
        generator,
        params,
        basis=None if options.basis is None else open_file(options.basis),
        layer=options.layer,
    )
    write_directions(options.out, directions)
    return options.out


NETWORK = Network(
    words="directions that NaviGAN saved: eigenvectors, a trained checkpoint, a deformation",
    add_arguments=_add_arguments,
    convert=_convert,
    recognise=_recognise,
)
