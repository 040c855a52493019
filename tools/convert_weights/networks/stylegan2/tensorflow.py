"""StyleGAN2 in the names of NVIDIA's TensorFlow programs: stylegan2 and stylegan2-ada.

Kernels are HWIO already. Those of the doubling convolutions are stored turned by 180 degrees, and
the biases of styles without their 1.
"""

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
from tools.convert_weights.readers.structure import Record

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
_BOX = (1, 1)  # what the program takes where it is given no filter
_ALLOWED: Mapping[str, tuple[Any, ...]] = {
    "use_noise": (True, False),
    "nonlinearity": ("lrelu",),
    "mapping_nonlinearity": ("lrelu",),
    "normalize_latents": (True,),
    "mapping_func": ("G_mapping",),
    "synthesis_func": ("G_synthesis", "G_synthesis_stylegan2"),
}
# Sizes, which the arrays show, and what acts only in training or is chosen at run time.
_WITHOUT_EFFECT = frozenset(
    (
        *("num_channels", "resolution", "label_size", "latent_size", "dlatent_size"),
        *("mapping_layers", "mapping_fmaps", "label_fmaps"),
        *("fmap_base", "fmap_decay", "fmap_min", "fmap_max", "fmap_const", "architecture"),
        *("dlatent_avg_beta", "w_avg_beta", "style_mixing_prob", "structure"),
        *("fused_modconv", "num_fp16_res", "dtype"),
        *("truncation_psi", "truncation_cutoff", "truncation_psi_val", "truncation_cutoff_val"),
        "randomize_noise",
    )
)


def draft_tensorflow(network: Record, arrays: Mapping[str, np.ndarray], name: str) -> Draft:
    """Returns what a network with these arrays holds.

    Raises: InputError, which begins with `name`, if that is no StyleGAN2 generator.
    """
    found, _ = rename(arrays, _names(), name)
    given = network.state.get("static_kwargs")
    if not isinstance(given, dict):
        raise refusal(name, "a network without its settings (static_kwargs)")
    # A setting of None stands for the default, but a filter of None is a box.
    chosen = {key: value for key, value in given.items() if value is not None}
    if given.get("resample_kernel", _BOX) is None:
        chosen["resample_kernel"] = _BOX
    for key in chosen.keys() - _WITHOUT_EFFECT:
        if key not in _DEFAULTS:
            raise refusal(name, f"the setting {key}={chosen[key]!r}, which is unknown here")
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
    )


def _names() -> Names:
    names = {
        "lod": Target(UNUSED),
        "dlatent_avg": Target("mapping/w_avg"),
        "mapping/LabelConcat/weight": Target("mapping/embed/kernel"),
        "synthesis/4x4/Const/const": Target("synthesis/b4/const", single(1, hwc)),
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
            prefix, path = f"synthesis/{side}x{side}/{theirs}", f"synthesis/b{side}/{ours}"
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
