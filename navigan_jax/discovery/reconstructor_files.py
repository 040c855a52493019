"""Files of pretrained weights for a reconstructor: all of ResNet-18 but its two heads.

The weights are for RGB images. For other images the first convolution is adapted, so that it gives
the output of RGB images of the same look: for grey images its weights are summed over the three
colours, and its weights for an alpha channel are zero.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from navigan_jax import channels, checkpoints
from navigan_jax import params as params_lib
from navigan_jax.discovery.reconstructor import ResNet18, init_reconstructor
from navigan_jax.errors import InputError

_HEADS = ("params/label_head/", "params/shift_head/")
_ADVICE = (
    "make it anew from torchvision's file, which is downloaded: "
    "python -m tools.convert_weights resnet18 --out FILE.safetensors"
)
_PHOTOGRAPH = (64, 64, 3)  # the size has no effect on the weights
_FIRST = "params/conv1/kernel"


def write_start(
    path: str | os.PathLike[str], variables: Mapping[str, Any], source: Mapping[str, Any]
) -> None:
    """Writes {"params", "batch_stats"} of a ResNet-18 for RGB images, without its heads.

    source: origin of the weights; stored in the file as JSON.
    Raises: InputError if a weight is missing, unknown, of another shape or not finite, or if the
      file cannot be written.
    """
    network = ResNet18(directions=1)
    wanted = jax.eval_shape(
        lambda key: init_reconstructor(key, network, _PHOTOGRAPH), jax.random.key(0)
    )
    flat = params_lib.flatten(variables)
    _require_fit(flat, params_lib.flatten(wanted), os.fspath(path))
    metadata = {
        "format": "navigan_jax.reconstructor",
        "format_version": "1",
        "kind": "resnet18",
        "digest": params_lib.digest(variables),
        "source": json.dumps(dict(source)),
    }
    checkpoints.write_arrays(path, flat, metadata)


def read_start(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the variables that `write_start` wrote.

    Raises: InputError if the file is missing, changed, damaged or of another kind.
    """
    arrays, metadata = checkpoints.read_arrays(path)
    checkpoints.require_format(path, metadata, "reconstructor")
    variables = params_lib.unflatten(arrays)
    expected, got = metadata.get("digest"), params_lib.digest(variables)
    if got != expected:
        raise InputError(
            f"{path}: expected weights of digest {expected}; got {got}; the file was changed or "
            f"damaged: {_ADVICE}"
        )
    return variables


def start_with(
    variables: Mapping[str, Any], start: Mapping[str, Any], path: str | os.PathLike[str]
) -> dict[str, Any]:
    """Returns the variables with all but the heads taken from `start`, adapted to the images.

    path: file of `start`, for error messages.
    Raises: InputError if `start` is of another network.
    """
    own, others = params_lib.flatten(variables), dict(params_lib.flatten(start))
    if _FIRST in own and _FIRST in others:
        others[_FIRST] = _adapt(np.asarray(others[_FIRST]), own[_FIRST].shape[2] // 2)
    _require_fit(others, own, os.fspath(path))
    return params_lib.unflatten(own | others)


def _adapt(kernel: np.ndarray, count: int) -> np.ndarray:
    """Returns a kernel HWIO for pairs of images of `count` channels, from one for RGB images."""
    if kernel.ndim != 4 or kernel.shape[2] != 6:
        return kernel  # of another network: `_require_fit` refuses it
    halves = []
    for half in np.split(kernel, 2, axis=2):
        colour = half if count > 2 else half.sum(axis=2, keepdims=True)
        alpha = np.zeros_like(half[:, :, : int(channels.has_alpha(count))])
        halves.append(np.concatenate([colour, alpha], axis=2))
    return np.concatenate(halves, axis=2)


def _require_fit(got: Mapping[str, Any], own: Mapping[str, Any], path: str) -> None:
    wanted = {name: leaf.shape for name, leaf in own.items() if not name.startswith(_HEADS)}
    for name in sorted(wanted.keys() | got.keys()):
        expected = _shape_text(wanted.get(name))
        found = _shape_text(got[name].shape if name in got else None)
        if found != expected:
            raise InputError(
                f"{path}: expected the weights of a ResNet-18 for these images, {name} {expected}; "
                f"got {found}; {_ADVICE}"
            )
        array = np.asarray(got[name])
        if not np.isfinite(array).all():
            raise InputError(
                f"{path}: expected finite weights; got NaN or infinity in {name}; {_ADVICE}"
            )
        if array.dtype != np.float32:
            raise InputError(
                f"{path}: expected weights of float32; got {name} of {array.dtype}; {_ADVICE}"
            )
        if name.endswith("/var") and array.min() < 0:
            raise InputError(
                f"{path}: expected variances of 0 or more; got {array.min():g} in {name}; {_ADVICE}"
            )


def _shape_text(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else str(list(shape))
