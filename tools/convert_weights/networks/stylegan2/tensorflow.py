"""StyleGAN2 in the names of NVIDIA's TensorFlow programs: stylegan2 and stylegan2-ada.

Kernels are HWIO already. The kernels of upsampling convolutions are stored rotated by 180 degrees,
and the style biases are stored without the 1 that the program adds. Forks for images of any aspect
ratio begin with a size other than 4x4, and some name the blocks after their sides.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tools.convert_weights.networks.stylegan2.parts import (
    MOST_BLOCKS,
    MOST_LAYERS,
    UNUSED,
    Draft,
    Names,
    Settings,
    Target,
    clamp_of,
    hwc,
    number,
    refusal,
    rename,
    require,
    single,
    taps_of,
    turned,
)
from tools.convert_weights.readers.structure import Found, Record

_DEFAULTS: Mapping[str, Any] = {
    "mapping_lrmul": 0.01,
    "resample_kernel": (1, 3, 3, 1),
    "conv_clamp": None,
    "use_noise": True,
    "nonlinearity": "lrelu",
    "mapping_nonlinearity": "lrelu",
    "normalize_latents": True,
    "mapping_func": "G_mapping",
    "synthesis_func": "G_synthesis",
}
_BOX = (1, 1)  # the program's filter if the setting is None
_ALLOWED: Mapping[str, tuple[Any, ...]] = {
    "use_noise": (True, False),
    "nonlinearity": ("lrelu",),
    "mapping_nonlinearity": ("lrelu",),
    "normalize_latents": (True,),
    "mapping_func": ("G_mapping",),
    "synthesis_func": ("G_synthesis", "G_synthesis_stylegan2"),
}
# Sizes that both the settings and the arrays give, by the setting's name.
_SIZES = {"latent_size": "z_dim", "label_size": "label_dim", "num_channels": "image_channels"}
# Settings without effect here: sizes (the arrays show them), and options of training or run time.
_WITHOUT_EFFECT = frozenset(
    (
        *("num_channels", "resolution", "label_size", "latent_size", "dlatent_size"),
        *("mapping_layers", "mapping_fmaps", "label_fmaps"),
        *("fmap_base", "fmap_decay", "fmap_min", "fmap_max", "fmap_const", "architecture"),
        *("dlatent_avg_beta", "w_avg_beta", "style_mixing_prob", "structure"),
        *("fused_modconv", "num_fp16_res", "dtype"),
        *("truncation_psi", "truncation_cutoff", "truncation_psi_val", "truncation_cutoff_val"),
        *("randomize_noise", "impl", "verbose"),
        # Sizes in the settings of forks; `_check_sizes` compares some of them with the arrays.
        *("min_h", "min_w", "init_res", "resolution_h", "resolution_w", "res_log2"),
        *("size", "scale_type"),
    )
)
_CONST = re.compile(r"synthesis/(\d+)x(\d+)/Const/const")


def draft_tensorflow(network: Record, arrays: Mapping[str, np.ndarray], name: str) -> Draft:
    """Returns the draft of a pickled network.

    arrays: by their name in the file.

    Raises: InputError, which begins with `name`, if the network is no StyleGAN2 generator.
    """
    found, _ = rename(arrays, _names(_first_sides(arrays, name)), name)
    given = network.state.get("static_kwargs")
    if not isinstance(given, dict):
        raise refusal(name, "a network without its settings (static_kwargs)")
    # A setting of None stands for the default, but a filter of None is a box.
    chosen = {key: value for key, value in given.items() if value is not None}
    if given.get("resample_kernel", _BOX) is None:
        chosen["resample_kernel"] = _BOX
    for key in chosen.keys() - _WITHOUT_EFFECT:
        if key not in _DEFAULTS:
            raise refusal(name, f"the unknown setting {key}={chosen[key]!r}")
    _check_sizes(chosen, found, name)
    settings = {**_DEFAULTS, **chosen}
    for key, allowed in _ALLOWED.items():
        require(key, settings[key], allowed, name)
    taps = settings["resample_kernel"]
    if not isinstance(taps, list | tuple):
        raise refusal(name, f"the setting resample_kernel={taps!r}")
    filters = {"resample_kernel": np.array([number("resample_kernel", t, name) for t in taps])}
    return Draft(
        found,
        Settings(
            mapping_rate=number("mapping_lrmul", settings["mapping_lrmul"], name),
            resample_taps=taps_of(filters, name),
            clamp=clamp_of(settings["conv_clamp"], name),
            labels="concatenated" if "mapping/LabelConcat/weight" in arrays else "embedded",
        ),
        has_noise=bool(settings["use_noise"]),
        stored={
            ours: given[theirs] for theirs, ours in _SIZES.items() if type(given.get(theirs)) is int
        },
    )


def _first_sides(arrays: Mapping[str, np.ndarray], name: str) -> tuple[int, int]:
    """Returns the two numbers in the name of the first block, which holds the constant."""
    matches = {match: arrays[key] for key in arrays if (match := _CONST.fullmatch(key))}
    if len(matches) != 1:
        raise refusal(name, f"{len(matches)} constants synthesis/4x4/Const/const")
    ((match, constant),) = matches.items()
    sides = int(match[1]), int(match[2])
    # Some forks keep the name 4x4 for every size; the others name the actual sides.
    if sides != (4, 4) and sorted(sides) != sorted(constant.shape[2:]):
        raise refusal(name, f"{match[0]} of shape {list(constant.shape)}")
    return sides


def _check_sizes(settings: Mapping[str, Any], found: Mapping[str, Found], name: str) -> None:
    """Refuses settings of forks that contradict the sizes of the arrays.

    A network that stretches or pads its images to another size computes something else.
    """
    constant = found["synthesis/b4/const"].view
    first = constant.shape[:2]
    blocks = sum(path.endswith("/conv1/kernel") for path in found)
    height, width = (side << (blocks - 1) for side in first)
    wanted = {
        "min_h": first[0],
        "min_w": first[1],
        "init_res": first,
        "resolution_h": height,
        "resolution_w": width,
        "size": (height, width),
    }
    for key in wanted.keys() & settings.keys():
        value = settings[key]
        value = tuple(value) if isinstance(value, list) else value
        if value != wanted[key]:
            raise refusal(
                name, f"the setting {key}={value!r} beside arrays of an image of {height}x{width}"
            )


def _names(first: tuple[int, int]) -> Names:
    names = {
        "lod": Target(UNUSED),
        "dlatent_avg": Target("mapping/w_avg"),
        "mapping/LabelConcat/weight": Target("mapping/embed/kernel"),
        f"synthesis/{first[0]}x{first[1]}/Const/const": Target(
            "synthesis/b4/const", single(1, hwc)
        ),
    }
    dense = {f"Dense{index}": f"fc{index}" for index in range(MOST_LAYERS)}
    for theirs, ours in (dense | {"LabelEmbed": "embed"}).items():
        names[f"mapping/{theirs}/weight"] = Target(f"mapping/{ours}/kernel")
        names[f"mapping/{theirs}/bias"] = Target(f"mapping/{ours}/bias")
    for block in range(MOST_BLOCKS):
        side = 4 << block
        parts = (
            {"Conv0_up": "conv0", "Conv1": "conv1", "Skip": "skip"} if block else {"Conv": "conv1"}
        )
        for theirs, ours in (parts | {"ToRGB": "torgb"}).items():
            sides = "x".join(str(number << block) for number in first)
            prefix, path = f"synthesis/{sides}/{theirs}", f"synthesis/b{side}/{ours}"
            kernel = Target(f"{path}/kernel")
            names[f"{prefix}/weight"] = kernel._replace(turn=turned) if ours == "conv0" else kernel
            names[f"{prefix}/mod_weight"] = Target(f"{path}/affine/kernel")
            names[f"{prefix}/mod_bias"] = Target(f"{path}/affine/bias", added=1)
            names[f"{prefix}/noise_strength"] = Target(f"{path}/noise_strength")
            names[f"{prefix}/bias"] = Target(f"{path}/bias")
        for part in (0, 1) if block else (1,):
            path = f"synthesis/b{side}/conv{part}/noise"
            names[f"synthesis/noise{2 * block - 1 + part}"] = Target(path, single(2))
    return names
