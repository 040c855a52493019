"""ResNet-18 of torchvision, a classifier of photographs, as the start of a reconstructor.

Its first convolution reads three channels and the reconstructor's six, those of two images: the
kernel is repeated and halved, so that two equal images give what one of them gave. The classifier
on top is left out; the heads that take its place start at random.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from navigan_jax import params as params_lib
from navigan_jax.errors import InputError
from tools.convert_weights.download import RESNET18

_KEY = re.compile(r"(?:(layer[1-4])\.([01])\.)?(conv\d|bn\d|downsample\.[01])\.(\w+)")
_SKIPPED = ("fc.weight", "fc.bias")
_LEAVES = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}
_PARTS = {"downsample.0": "downsample_conv", "downsample.1": "downsample_bn"}


def path_of(key: str) -> str | None:
    """Returns the path below {"params", "batch_stats"} of a weight of torchvision, or None."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    layer, block, part, leaf = match.groups()
    part = _PARTS.get(part, part)
    where = f"{layer}_{block}/{part}" if layer else part
    if "conv" in part:
        return f"params/{where}/kernel" if leaf == "weight" else None
    if leaf not in _LEAVES:
        return None
    collection, name = _LEAVES[leaf]
    return f"{collection}/{where}/{name}"


def double_inputs(kernel: np.ndarray) -> np.ndarray:
    """Returns a kernel HWIO for two inputs side by side: the same for each, halved."""
    return np.concatenate([kernel, kernel], axis=2) / 2


def from_state_dict(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns {"params", "batch_stats"} of the reconstructor without its heads, in float32.

    state: torchvision's names, kernels OIHW.
    Raises: InputError if a name is not one of ResNet-18.
    """
    flat: dict[str, np.ndarray] = {}
    for key, array in state.items():
        if key in _SKIPPED or key.endswith("num_batches_tracked"):
            continue
        path = path_of(key)
        if path is None:
            raise InputError(
                f"resnet18: expected the weights of torchvision's ResNet-18; got {key!r}; give "
                f"{RESNET18}, or no file, to have it downloaded"
            )
        array = np.asarray(array, np.float32)
        flat[path] = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
    first = "params/conv1/kernel"
    if first in flat:
        flat[first] = double_inputs(flat[first])
    return params_lib.unflatten({path: np.ascontiguousarray(flat[path]) for path in flat})
