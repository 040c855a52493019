"""StyleGAN2 in the names of NVIDIA's PyTorch programs: stylegan2-ada-pytorch and stylegan3.

A pickled network stores all of its settings. A bare state dict stores arrays only, so two settings
come from options of the command: the mapping's learning-rate multiplier, the bound of activations.
"""

from collections.abc import Mapping

import numpy as np

from tools.convert_weights.networks.stylegan2.parts import (
    FILTER,
    MOST_BLOCKS,
    MOST_LAYERS,
    UNUSED,
    Draft,
    Names,
    Settings,
    Target,
    clamp_of,
    common_setting,
    hwc,
    hwio,
    number,
    rename,
    require,
    taps_of,
    transposed,
)
from tools.convert_weights.readers.structure import Record


def draft_ada(modules: Mapping[str, Record], arrays: Mapping[str, np.ndarray], name: str) -> Draft:
    """Returns the draft of a pickled network.

    modules: the pickled submodules by path, with their settings. arrays: by their name in the file.

    Raises: InputError, which begins with `name`, if the network is no StyleGAN2 generator.
    """
    found, filters = rename(arrays, NAMES, name)
    dense, conv, modulated = r"mapping\.fc\d+", r".*\.conv[01]", r".*\.(conv[01]|torgb)"
    for pattern in (dense, conv):
        activation = common_setting(modules, pattern, "activation", name)
        require("activation", activation, ("lrelu",), name)
    use_noise = common_setting(modules, conv, "use_noise", name)
    require("use_noise", use_noise, (True, False), name)
    settings = Settings(
        mapping_rate=number("bias_gain", common_setting(modules, dense, "bias_gain", name), name),
        resample_taps=taps_of(filters, name),
        clamp=clamp_of(common_setting(modules, modulated, "conv_clamp", name), name),
    )
    return Draft(found, settings, has_noise=bool(use_noise), stored=_stored_sizes(modules))


def draft_ada_state(
    state: Mapping[str, np.ndarray], name: str, *, mapping_rate: float, clamp: float | None
) -> Draft:
    """Returns the draft of a bare state dict.

    mapping_rate, clamp: the settings that a state dict does not store.

    Raises: InputError, which begins with `name`, if it is no StyleGAN2 generator.
    """
    found, filters = rename(state, NAMES, name)
    has_noise = any(path.endswith("/noise_strength") for path in found)
    return Draft(found, Settings(mapping_rate, taps_of(filters, name), clamp), has_noise)


def _stored_sizes(modules: Mapping[str, Record]) -> dict[str, int]:
    """Returns the sizes that the mapping and the synthesis store as attributes."""
    keys = {
        "z_dim": ("mapping", "z_dim"),
        "label_dim": ("mapping", "c_dim"),
        "image_channels": ("synthesis", "img_channels"),
    }
    found = {
        ours: modules[part].state.get(theirs)
        for ours, (part, theirs) in keys.items()
        if part in modules
    }
    return {key: value for key, value in found.items() if isinstance(value, int)}


def _names() -> Names:
    names = {
        "mapping.w_avg": Target("mapping/w_avg"),
        "synthesis.b4.const": Target("synthesis/b4/const", hwc),
    }
    for layer in ("embed", *(f"fc{index}" for index in range(MOST_LAYERS))):
        names[f"mapping.{layer}.weight"] = Target(f"mapping/{layer}/kernel", transposed)
        names[f"mapping.{layer}.bias"] = Target(f"mapping/{layer}/bias")
    for block in range(MOST_BLOCKS):
        names[f"synthesis.b{4 << block}.resample_filter"] = Target(FILTER)
        for part in ("conv0", "conv1", "torgb", "skip"):
            theirs, ours = f"synthesis.b{4 << block}.{part}", f"synthesis/b{4 << block}/{part}"
            names[f"{theirs}.weight"] = Target(f"{ours}/kernel", hwio)
            names[f"{theirs}.bias"] = Target(f"{ours}/bias")
            names[f"{theirs}.affine.weight"] = Target(f"{ours}/affine/kernel", transposed)
            names[f"{theirs}.affine.bias"] = Target(f"{ours}/affine/bias")
            names[f"{theirs}.noise_const"] = Target(f"{ours}/noise")
            names[f"{theirs}.noise_strength"] = Target(f"{ours}/noise_strength")
            # conv1 does not resample; its filter always has the default value and has no effect.
            names[f"{theirs}.resample_filter"] = Target(UNUSED if part == "conv1" else FILTER)
    return names


# Our place for each array, by its name in the file.
NAMES: Names = _names()
