"""StyleGAN2 in the names of rosinality/stylegan2-pytorch, which NaviGAN uses too.

A state dict does not store the mapping's learning-rate multiplier; a pickled module does. The
filters are stored times 4. In this program z, w and all layers between have one size, and there are
no labels: a first layer with more inputs belongs to another network.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tools.convert_weights.networks.stylegan2.parts import (
    FILTER,
    MOST_BLOCKS,
    MOST_LAYERS,
    Draft,
    Names,
    Settings,
    Target,
    average_of,
    common_setting,
    hwc,
    hwio,
    number,
    refusal,
    rename,
    require,
    single,
    taps_of,
    transposed,
)
from tools.convert_weights.readers.structure import Found, Record

_DENSE = r"style\.[1-9]\d*"
# Settings of a pickled network's modules, with their allowed values: this program has no others.
_SETTINGS: tuple[tuple[str, str, tuple[Any, ...]], ...] = (
    (_DENSE, "activation", ("fused_lrelu", True)),
    (r".*\.activate", "negative_slope", (0.2,)),
    (r".*\.activate", "scale", (2**0.5,)),
    (r"(conv1|convs\.\d+)\.conv", "demodulate", (True,)),
    (r"to_rgb.*\.conv", "demodulate", (False,)),
)
_NO_MODULES: Mapping[str, Record] = {}


def draft_rosinality(
    state: Mapping[str, np.ndarray],
    latent_avg: np.ndarray | None,
    name: str,
    *,
    mapping_rate: float,
    modules: Mapping[str, Record] = _NO_MODULES,
) -> Draft:
    """Returns the draft of a state dict in these names.

    latent_avg: the average w, as one row or one row per layer. modules: the submodules of a pickled
    network, by path; their learning-rate multiplier takes precedence over `mapping_rate`.

    Raises: InputError, which begins with `name`, if the state dict is no StyleGAN2 generator.
    """
    arrays, filters = rename(state, NAMES, name)
    _check_mapping(arrays, name)
    if latent_avg is not None:
        arrays["mapping/w_avg"] = Found(average_of(latent_avg, name))
    for pattern, key, allowed in _SETTINGS:
        if (value := _setting(modules, pattern, key, name)) is not None:
            require(key, value, allowed, name)
    if (rate := mapping_rate_of(modules, name)) is not None:
        mapping_rate = rate
    return Draft(arrays, Settings(mapping_rate, taps_of(filters, name), clamp=None))


def mapping_rate_of(modules: Mapping[str, Record], name: str) -> float | None:
    """Returns the mapping's learning-rate multiplier, or None if the modules do not store it.

    Raises: InputError, which begins with `name`, if the modules store different ones.
    """
    rate = _setting(modules, _DENSE, "lr_mul", name)
    return None if rate is None else number("lr_mul", rate, name)


def _setting(modules: Mapping[str, Record], pattern: str, key: str, name: str) -> Any:
    """Returns the common setting of all modules whose path matches; None if no module stores it."""
    if any(re.fullmatch(pattern, path) and key in modules[path].state for path in modules):
        return common_setting(modules, pattern, key, name)
    return None


def _check_mapping(arrays: Mapping[str, Found], name: str) -> None:
    """Refuses a mapping whose layers differ in size: it has labels, or a z of another size."""
    kernels = [
        found.view
        for path, found in arrays.items()
        if path.startswith("mapping/") and found.view.ndim == 2
    ]
    if not kernels:
        return  # `finish` lists all missing arrays
    inputs, width = kernels[0].shape[0], kernels[-1].shape[1]
    if inputs != width:
        raise refusal(
            name,
            f"style.1.weight with {inputs} inputs where w has {width}: a network with labels or a "
            "z of another size, which this program does not have; convert the original file that "
            "it was made from",
        )
    if len({size for kernel in kernels for size in kernel.shape}) > 1:
        raise refusal(name, "layers style.N of different sizes, which this program does not have")


def _names() -> Names:
    names = {"input.input": Target("synthesis/b4/const", single(1, hwc))}
    for index in range(MOST_LAYERS):
        names[f"style.{index + 1}.weight"] = Target(f"mapping/fc{index}/kernel", transposed)
        names[f"style.{index + 1}.bias"] = Target(f"mapping/fc{index}/bias")
    convs = {"conv1": "b4/conv1"}
    images = {"to_rgb1": "b4/torgb"}
    for block in range(1, MOST_BLOCKS):
        for part in (0, 1):
            convs[f"convs.{2 * block - 2 + part}"] = f"b{4 << block}/conv{part}"
        images[f"to_rgbs.{block - 1}"] = f"b{4 << block}/torgb"
    for index, (theirs, ours) in enumerate(convs.items()):
        path = f"synthesis/{ours}"
        names[f"noises.noise_{index}"] = Target(f"{path}/noise", single(2))
        names[f"{theirs}.noise.weight"] = Target(f"{path}/noise_strength", single(1))
        names[f"{theirs}.activate.bias"] = Target(f"{path}/bias")
        names[f"{theirs}.conv.blur.kernel"] = Target(FILTER)
    for theirs, ours in images.items():
        bias = single(1, lambda array: array.squeeze((1, 2)))
        names[f"{theirs}.bias"] = Target(f"synthesis/{ours}/bias", bias)
        names[f"{theirs}.upsample.kernel"] = Target(FILTER)
    for theirs, ours in (convs | images).items():
        path = f"synthesis/{ours}"
        names[f"{theirs}.conv.weight"] = Target(f"{path}/kernel", single(1, hwio))
        names[f"{theirs}.conv.modulation.weight"] = Target(f"{path}/affine/kernel", transposed)
        names[f"{theirs}.conv.modulation.bias"] = Target(f"{path}/affine/bias")
    return names


# Our place for each array, by its name in the file.
NAMES: Names = _names()
