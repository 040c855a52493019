"""Weights of perceptual distances as files: safetensors, with kind, options, digest and source."""

import json
import os
from collections.abc import Mapping
from typing import Any

from navigan_jax import checkpoints
from navigan_jax import params as params_lib
from navigan_jax.array_types import Params
from navigan_jax.errors import InputError
from navigan_jax.perceptual import lpips
from navigan_jax.perceptual.base import Distance

KINDS = {"lpips": lpips.create}
OPTIONS = {"lpips": {"net", "version", "linear"}}


def _make(kind: str, config: Mapping[str, Any], params: Params) -> Distance:
    if kind not in KINDS:
        raise InputError(
            f"perceptual weights: expected a known kind; got {kind!r}; allowed: {', '.join(KINDS)}"
        )
    if not isinstance(config, Mapping) or set(config) != OPTIONS[kind]:
        raise InputError(
            f"perceptual weights: expected the options {', '.join(sorted(OPTIONS[kind]))}; got "
            f"{config}; convert the weights anew with tools/convert_weights"
        )
    return KINDS[kind](params, **config)


def write_perceptual(
    path: str | os.PathLike[str],
    kind: str,
    config: Mapping[str, Any],
    params: Params,
    source: Mapping[str, Any],
) -> None:
    """Writes the weights of a distance, after its constructor has checked them.

    source: where the weights come from; stored in the file as JSON.
    Raises: InputError if weights and options do not fit, or the file cannot be written.
    """
    _make(kind, config, params)
    metadata = {
        "format": "navigan_jax.perceptual",
        "format_version": "1",
        "kind": kind,
        "config": json.dumps(dict(config)),
        "digest": params_lib.digest(params),
        "source": json.dumps(dict(source)),
    }
    checkpoints.write_arrays(path, params_lib.flatten(params), metadata)


def read_perceptual(path: str | os.PathLike[str]) -> Distance:
    """Returns the distance whose weights `write_perceptual` wrote.

    Raises: InputError if the file is missing, damaged, of another format or kind, or if its
        weights do not fit its options.
    """
    if not os.path.exists(path):
        raise InputError(
            f"{path}: expected the weights of a distance; got nothing; make them with: "
            f"python -m tools.convert_weights lpips --net vgg --out {path}"
        )
    arrays, metadata = checkpoints.read_arrays(path)
    checkpoints.require_format(path, metadata, "perceptual")
    config = checkpoints.read_json(path, metadata, "config")
    params = params_lib.unflatten(arrays)
    expected, got = metadata.get("digest"), params_lib.digest(params)
    if got != expected:
        raise InputError(
            f"{path}: expected weights of digest {expected}; got {got}; the file was changed or "
            "damaged: convert the weights anew with tools/convert_weights"
        )
    try:
        return _make(metadata.get("kind", "no kind"), config, params)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
