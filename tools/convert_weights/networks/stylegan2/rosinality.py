"""StyleGAN2 in the names of rosinality/stylegan2-pytorch, which NaviGAN uses too.

The files do not say the mapping's learning-rate multiplier. The filters are stored times 4.
"""

from collections.abc import Mapping

import numpy as np

from tools.convert_weights.networks.stylegan2.parts import (
    FILTER,
    MOST_BLOCKS,
    MOST_LAYERS,
    Draft,
    Names,
    Settings,
    Target,
    hwc,
    hwio,
    rename,
    single,
    taps_of,
    transposed,
)
from tools.convert_weights.readers.source_map import Found


def draft_rosinality(
    state: Mapping[str, np.ndarray],
    latent_avg: np.ndarray | None,
    name: str,
    *,
    mapping_rate: float,
) -> Draft:
    """Returns what a state dict in these names holds.

    Raises: InputError, which begins with `name`, if that is no StyleGAN2 generator.
    """
    arrays, filters = rename(state, _names(), name)
    if latent_avg is not None:
        arrays["mapping/w_avg"] = Found(latent_avg.reshape(-1))
    return Draft(arrays, Settings(mapping_rate, taps_of(filters, name), clamp=None))


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
