"""StyleGAN2 generators as three programs write them, with nothing in the files executed.

1. PyTorch files of rosinality/stylegan2-pytorch and of NaviGAN: `g_ema` and, often, `latent_avg`.
   They do not say the mapping's learning-rate multiplier, which is 0.01 unless told otherwise.
2. Pickles of NVIDIA's PyTorch programs, network `G_ema`.
3. Pickles of NVIDIA's TensorFlow programs, network `Gs`. Their doubling convolutions are stored
   turned by 180 degrees, and their style biases without the 1.

Each is renamed to the parameters of `navigan_jax.generators.stylegan2`; their names and shapes give
the architecture, and what they do not show is read from the settings beside them.
"""

import hashlib
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import params as params_lib
from navigan_jax.errors import InputError
from navigan_jax.generators.files import make_generator
from tools.convert_weights import signatures
from tools.convert_weights.nvidia_file import (
    NVIDIA_NAMES,
    is_tf_network,
    network_arrays,
    networks_in,
)
from tools.convert_weights.structure import Record
from tools.convert_weights.torch_file import read_bytes, read_torch_bytes
from tools.convert_weights.unpickle import read_pickle

# Draws of z for an average w that a file lacks, as the rosinality program makes it.
_AVERAGE_DRAWS = 4096

Config = dict[str, Any]
Params = dict[str, Any]
Transform = Callable[[np.ndarray], np.ndarray]
# By foreign name: our path, and what brings the array into our layout.
Names = Mapping[str, tuple[str, Transform]]
# In place of a path: an array that says what the filter is, or nothing of use.
_FILTER, _UNUSED = "", "unused"
# More than any network has; 4 << 12 pixels a side would not fit any memory.
_MOST_LAYERS, _MOST_BLOCKS = 100, 12
_DTYPES = ("float16", "bfloat16", "float32", "float64")


class Settings(NamedTuple):
    """What the arrays do not show; the fields are keywords of the architecture."""

    mapping_rate: float
    resample_taps: tuple[float, ...]
    clamp: float | None
    labels: str = "embedded"


def read_stylegan2(path: str | os.PathLike[str]) -> tuple[Config, Params, dict[str, str]]:
    """Returns (config, params, source) of a file of any of the three kinds.

    Raises: InputError if the file is damaged, hostile or holds no StyleGAN2 generator.
    """
    data, name = read_bytes(path), str(path)
    source = {"file": os.path.basename(name), "sha256": hashlib.sha256(data).hexdigest()}
    if signatures.kind_of(data) != signatures.PICKLE:
        return *from_torch_content(read_torch_bytes(data, name), name), source
    networks = networks_in(read_pickle(data, NVIDIA_NAMES, name=name)[0])
    for network in ("G_ema", "Gs"):
        if network in networks:
            return *from_nvidia(networks[network], name), source | {"network": network}
    raise _refusal(name, "a pickle without G_ema or Gs")


def from_torch_content(content: Any, name: str) -> tuple[Config, Params]:
    """Returns (config, params) of what a PyTorch file holds.

    content: a dict with the state `g_ema` and perhaps `latent_avg`, or a state itself.

    Raises: InputError, which begins with `name`, if that is no StyleGAN2 generator.
    """
    state = content.get("g_ema", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(array, np.ndarray) for key, array in state.items()
    ):
        raise _refusal(name, "no state dict of tensors, alone or as g_ema")
    average = content.get("latent_avg")
    if average is not None and not isinstance(average, np.ndarray):
        raise _refusal(name, "a latent_avg that is no tensor")
    state = {key.removeprefix("module."): array for key, array in state.items()}
    return from_rosinality(state, average, name)


def from_rosinality(
    state: Mapping[str, np.ndarray],
    latent_avg: np.ndarray | None,
    name: str = "stylegan2",
    *,
    mapping_rate: float = 0.01,
) -> tuple[Config, Params]:
    """Returns (config, params) of a generator's state dict in rosinality's names.

    latent_avg: the average w; None: made here, of fixed draws of z. mapping_rate: `lr_mlp` there.

    Raises: InputError, which begins with `name`, if that is no StyleGAN2 generator.
    """
    flat, filters = _rename(state, _rosinality_names(), name)
    settings = Settings(mapping_rate, _taps_of(filters, name), clamp=None)
    if latent_avg is not None:
        return _finish(flat | {"mapping/w_avg": latent_avg.reshape(-1)}, settings, name)
    width = flat.get("mapping/fc0/bias", np.zeros(0)).shape
    config, params = _finish(flat | {"mapping/w_avg": np.zeros(width, np.float32)}, settings, name)
    return config, params_lib.replace(params, "mapping/w_avg", _average_w(config, params))


def from_nvidia(network: Record, name: str = "stylegan2") -> tuple[Config, Params]:
    """Returns (config, params) of a generator as NVIDIA's programs pickle it.

    Raises: InputError, which begins with `name`, if that is no StyleGAN2 generator.
    """
    try:
        arrays = network_arrays(network)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    if any(key.startswith("synthesis.input.") for key in arrays):
        raise _refusal(name, "a StyleGAN3 generator, whose layers are of another kind")
    if any("ToRGB_lod" in key for key in arrays):
        raise _refusal(
            name, "a StyleGAN1 or progressive generator, whose layers are of other kinds"
        )
    convert = _from_tensorflow if is_tf_network(network) else _from_ada
    return convert(network, arrays, name)


def _from_ada(
    network: Record, arrays: Mapping[str, np.ndarray], name: str
) -> tuple[Config, Params]:
    flat, filters = _rename(arrays, _ada_names(), name)
    modules = _modules(network)
    dense, conv, modulated = r"mapping\.fc\d+", r".*\.conv[01]", r".*\.(conv[01]|torgb)"
    for pattern in (dense, conv):
        _require("activation", _common(modules, pattern, "activation", name), ("lrelu",), name)
    use_noise = _common(modules, conv, "use_noise", name)
    _require("use_noise", use_noise, (True, False), name)
    settings = Settings(
        mapping_rate=_number("bias_gain", _common(modules, dense, "bias_gain", name), name),
        resample_taps=_taps_of(filters, name),
        clamp=_clamp(_common(modules, modulated, "conv_clamp", name), name),
    )
    return _finish(flat if use_noise else _without_noise(flat), settings, name)


def _from_tensorflow(
    network: Record, arrays: Mapping[str, np.ndarray], name: str
) -> tuple[Config, Params]:
    flat, _ = _rename(arrays, _tensorflow_names(), name)
    given = network.state.get("static_kwargs")
    if not isinstance(given, dict):
        raise _refusal(name, "a network without its settings (static_kwargs)")
    # A setting of None stands for the default.
    chosen = {key: value for key, value in given.items() if value is not None}
    for key in chosen.keys() - _TENSORFLOW_WITHOUT_EFFECT:
        if key not in _TENSORFLOW_DEFAULTS:
            raise _refusal(name, f"the setting {key}={chosen[key]!r}, which is unknown here")
    settings = {**_TENSORFLOW_DEFAULTS, **chosen}
    for key, allowed in _TENSORFLOW_ALLOWED.items():
        _require(key, settings[key], allowed, name)
    taps = settings["resample_kernel"]
    if not isinstance(taps, list | tuple):
        raise _refusal(name, f"the setting resample_kernel={taps!r}")
    filters = {"resample_kernel": np.array([_number("resample_kernel", t, name) for t in taps])}
    return _finish(
        flat if settings["use_noise"] else _without_noise(flat),
        Settings(
            mapping_rate=_number("mapping_lrmul", settings["mapping_lrmul"], name),
            resample_taps=_taps_of(filters, name),
            clamp=_clamp(settings["conv_clamp"], name),
            labels="concatenated" if "mapping/LabelConcat/weight" in arrays else "embedded",
        ),
        name,
    )


_TENSORFLOW_DEFAULTS: Mapping[str, Any] = {
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
_TENSORFLOW_ALLOWED: Mapping[str, tuple[Any, ...]] = {
    "use_noise": (True, False),
    "nonlinearity": ("lrelu",),
    "mapping_nonlinearity": ("lrelu",),
    "normalize_latents": (True,),
    "mapping_func": ("G_mapping",),
    "synthesis_func": ("G_synthesis", "G_synthesis_stylegan2"),
}
# Sizes, which the arrays show, and what acts only in training or is chosen at run time.
_TENSORFLOW_WITHOUT_EFFECT = frozenset(
    (
        *("num_channels", "resolution", "label_size", "latent_size", "dlatent_size"),
        *("mapping_layers", "mapping_fmaps", "label_fmaps"),
        *("fmap_base", "fmap_decay", "fmap_min", "fmap_max", "architecture"),
        *("dlatent_avg_beta", "style_mixing_prob", "fused_modconv", "num_fp16_res", "dtype"),
        *("truncation_psi", "truncation_cutoff", "truncation_psi_val", "truncation_cutoff_val"),
        "randomize_noise",
    )
)


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _transposed(array: np.ndarray) -> np.ndarray:
    return array.transpose(1, 0)


def _hwc(array: np.ndarray) -> np.ndarray:
    return array.transpose(1, 2, 0)


def _hwio(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 3, 1, 0)


def _turned(array: np.ndarray) -> np.ndarray:
    return array[::-1, ::-1]


def _plus_one(array: np.ndarray) -> np.ndarray:
    return array + 1


def _single(axes: int, transform: Transform) -> Transform:
    """Returns the transform of an array behind so many axes of length 1."""
    return lambda array: transform(array.squeeze(tuple(range(axes))))


def _rosinality_names() -> Names:
    names: dict[str, tuple[str, Transform]] = {
        "input.input": ("synthesis/b4/const", _single(1, _hwc))
    }
    for index in range(_MOST_LAYERS):
        names[f"style.{index + 1}.weight"] = (f"mapping/fc{index}/kernel", _transposed)
        names[f"style.{index + 1}.bias"] = (f"mapping/fc{index}/bias", _same)
    convs = {"conv1": "b4/conv1"}
    images = {"to_rgb1": "b4/torgb"}
    for block in range(1, _MOST_BLOCKS):
        for part in (0, 1):
            convs[f"convs.{2 * block - 2 + part}"] = f"b{4 << block}/conv{part}"
        images[f"to_rgbs.{block - 1}"] = f"b{4 << block}/torgb"
    for index, (theirs, ours) in enumerate(convs.items()):
        path = f"synthesis/{ours}"
        names[f"noises.noise_{index}"] = (f"{path}/noise", _single(2, _same))
        names[f"{theirs}.noise.weight"] = (f"{path}/noise_strength", _single(1, _same))
        names[f"{theirs}.activate.bias"] = (f"{path}/bias", _same)
        names[f"{theirs}.conv.blur.kernel"] = (_FILTER, _same)
    for theirs, ours in images.items():
        names[f"{theirs}.bias"] = (
            f"synthesis/{ours}/bias",
            _single(1, lambda a: a.squeeze((1, 2))),
        )
        names[f"{theirs}.upsample.kernel"] = (_FILTER, _same)
    for theirs, ours in (convs | images).items():
        path = f"synthesis/{ours}"
        names[f"{theirs}.conv.weight"] = (f"{path}/kernel", _single(1, _hwio))
        names[f"{theirs}.conv.modulation.weight"] = (f"{path}/affine/kernel", _transposed)
        names[f"{theirs}.conv.modulation.bias"] = (f"{path}/affine/bias", _same)
    return names


def _ada_names() -> Names:
    names: dict[str, tuple[str, Transform]] = {
        "mapping.w_avg": ("mapping/w_avg", _same),
        "synthesis.b4.const": ("synthesis/b4/const", _hwc),
    }
    for layer in ("embed", *(f"fc{index}" for index in range(_MOST_LAYERS))):
        names[f"mapping.{layer}.weight"] = (f"mapping/{layer}/kernel", _transposed)
        names[f"mapping.{layer}.bias"] = (f"mapping/{layer}/bias", _same)
    for block in range(_MOST_BLOCKS):
        names[f"synthesis.b{4 << block}.resample_filter"] = (_FILTER, _same)
        for part in ("conv0", "conv1", "torgb", "skip"):
            theirs, ours = f"synthesis.b{4 << block}.{part}", f"synthesis/b{4 << block}/{part}"
            names[f"{theirs}.weight"] = (f"{ours}/kernel", _hwio)
            names[f"{theirs}.bias"] = (f"{ours}/bias", _same)
            names[f"{theirs}.affine.weight"] = (f"{ours}/affine/kernel", _transposed)
            names[f"{theirs}.affine.bias"] = (f"{ours}/affine/bias", _same)
            names[f"{theirs}.noise_const"] = (f"{ours}/noise", _same)
            names[f"{theirs}.noise_strength"] = (f"{ours}/noise_strength", _same)
            # conv1 does not resample, and its filter is the default, whatever the others' is.
            names[f"{theirs}.resample_filter"] = (_UNUSED if part == "conv1" else _FILTER, _same)
    return names


def _tensorflow_names() -> Names:
    names: dict[str, tuple[str, Transform]] = {
        "lod": (_UNUSED, _same),
        "dlatent_avg": ("mapping/w_avg", _same),
        "mapping/LabelConcat/weight": ("mapping/embed/kernel", _same),
        "synthesis/4x4/Const/const": ("synthesis/b4/const", _single(1, _hwc)),
    }
    dense = {f"Dense{index}": f"fc{index}" for index in range(_MOST_LAYERS)}
    for theirs, ours in (dense | {"LabelEmbed": "embed"}).items():
        names[f"mapping/{theirs}/weight"] = (f"mapping/{ours}/kernel", _same)
        names[f"mapping/{theirs}/bias"] = (f"mapping/{ours}/bias", _same)
    for block in range(_MOST_BLOCKS):
        side = 4 << block
        parts = (
            {"Conv0_up": "conv0", "Conv1": "conv1", "Skip": "skip"} if block else {"Conv": "conv1"}
        )
        for theirs, ours in (parts | {"ToRGB": "torgb"}).items():
            prefix, path = f"synthesis/{side}x{side}/{theirs}", f"synthesis/b{side}/{ours}"
            names[f"{prefix}/weight"] = (f"{path}/kernel", _turned if ours == "conv0" else _same)
            names[f"{prefix}/mod_weight"] = (f"{path}/affine/kernel", _same)
            names[f"{prefix}/mod_bias"] = (f"{path}/affine/bias", _plus_one)
            names[f"{prefix}/noise_strength"] = (f"{path}/noise_strength", _same)
            names[f"{prefix}/bias"] = (f"{path}/bias", _same)
        for part in (0, 1) if block else (1,):
            path = f"synthesis/b{side}/conv{part}/noise"
            names[f"synthesis/noise{2 * block - 1 + part}"] = (path, _single(2, _same))
    return names


def _rename(
    arrays: Mapping[str, np.ndarray], names: Names, name: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns our arrays by path, and the filters by their foreign names."""
    if unknown := [key for key in arrays if key not in names]:
        raise _refusal(name, f"the arrays {_listed(unknown)}, which are unknown here")
    flat, filters = {}, {}
    for key, array in arrays.items():
        path, transform = names[key]
        if array.dtype.name not in _DTYPES:
            raise _refusal(name, f"{key} of dtype {array.dtype}")
        if path == _FILTER:
            filters[key] = array
        elif path != _UNUSED:
            try:
                flat[path] = transform(array)
            except ValueError as error:
                raise _refusal(name, f"{key} of shape {list(array.shape)}") from error
    return flat, filters


def _taps_of(filters: Mapping[str, np.ndarray], name: str) -> tuple[float, ...]:
    """Returns the taps, of sum 1, whose outer product every filter is but for its sum."""
    found: list[np.ndarray] = []
    for key, array in filters.items():
        total = array.sum(dtype=np.float64)
        if array.ndim not in (1, 2) or not np.isfinite(total) or total == 0:
            raise _refusal(name, f"the filter {key} of shape {list(array.shape)}, sum {total}")
        array = array / total
        taps = array if array.ndim == 1 else array.sum(axis=1)
        if array.ndim == 2 and not np.allclose(array, np.outer(taps, taps), rtol=0, atol=1e-6):
            raise _refusal(name, f"the filter {key}, which is no outer product of one with itself")
        found.append(taps)
    if not found or any(
        taps.shape != found[0].shape or not np.allclose(taps, found[0], rtol=0, atol=1e-6)
        for taps in found
    ):
        raise _refusal(name, f"{len(found)} filters, not all the same")
    return tuple(found[0].tolist())


def _finish(flat: Mapping[str, np.ndarray], settings: Settings, name: str) -> tuple[Config, Params]:
    """Returns (config, params), float32, once every array has the shape that the others imply."""
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite and is refused when written
        params = params_lib.unflatten(
            {path: np.array(array, np.float32, order="C") for path, array in flat.items()}
        )
    config = _config_of(flat, settings, name)
    try:
        generator = make_generator("stylegan2", config)
    except InputError as error:
        raise _refusal(name, f"sizes that do not fit ({error})") from error
    expected = jax.eval_shape(generator.init, jax.random.key(0))
    if differences := params_lib.describe_differences(expected, params):
        raise _refusal(
            name, f"another set of arrays than its own sizes need: {_listed(differences)}"
        )
    return config, params


def _config_of(flat: Mapping[str, np.ndarray], settings: Settings, name: str) -> Config:
    def sizes(pattern: str, axis: int) -> list[int]:
        """The sizes of an axis of the arrays whose paths match, by the number in the path."""
        found = {}
        for path, array in flat.items():
            if match := re.fullmatch(pattern, path):
                if array.ndim <= axis:
                    raise _refusal(name, f"{path} of shape {list(array.shape)}")
                found[int(match[1])] = array.shape[axis]
        if not found:
            raise _refusal(name, f"no array {pattern}")
        return [found[number] for number in sorted(found)]

    images = sizes(r"synthesis/b(\d+)/torgb/bias", 0)
    has_residuals = any(path.endswith("/skip/kernel") for path in flat)
    channels = sizes(r"synthesis/b(\d+)/conv1/bias", 0)
    sums_images = len(images) == len(channels)
    embed = flat.get("mapping/embed/kernel", np.zeros((0, 0)))
    label_dim, label_width = embed.shape if embed.ndim == 2 else (0, 0)
    return {
        "z_dim": sizes(r"mapping/fc(0)/kernel", 0)[0] - label_width,
        "label_dim": label_dim,
        "label_width": label_width,
        "labels": settings.labels,
        "mapping_widths": sizes(r"mapping/fc(\d+)/bias", 0),
        "mapping_rate": settings.mapping_rate,
        "channels": channels,
        "image_channels": images[-1],
        "blocks": "resnet" if has_residuals else "skip" if sums_images else "orig",
        "resample_taps": list(settings.resample_taps),
        "clamp": settings.clamp,
    }


def _average_w(config: Config, params: Params) -> Any:
    generator = make_generator("stylegan2", config)
    z = generator.sample_latents(jax.random.key(0), _AVERAGE_DRAWS)
    average = jax.jit(lambda z: jnp.mean(generator.map_latent(params, z)[:, 0], axis=0))
    return np.asarray(average(z))


def _without_noise(flat: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays with noise of strength 0 for a network that has none."""
    found = dict(flat)
    for path in flat:
        if match := re.fullmatch(r"(synthesis/b(\d+)/conv[01])/kernel", path):
            found[f"{match[1]}/noise_strength"] = np.zeros(())
            found[f"{match[1]}/noise"] = np.zeros((int(match[2]), int(match[2])))
    return found


def _modules(network: Record, prefix: str = "") -> dict[str, Record]:
    """Returns the modules below a network by path; `network_arrays` has checked their states."""
    found: dict[str, Record] = {}
    for key, module in network.state["_modules"].items():
        if isinstance(module, Record):
            found |= {f"{prefix}{key}": module} | _modules(module, f"{prefix}{key}.")
    return found


def _common(modules: Mapping[str, Record], pattern: str, key: str, name: str) -> Any:
    """Returns the attribute that all modules whose path matches have in common."""
    values = [
        module.state.get(key, "nothing")
        for path, module in modules.items()
        if re.fullmatch(pattern, path)
    ]
    plain = all(isinstance(value, str | int | float | np.number | None) for value in values)
    if not plain or not values or any(value != values[0] for value in values):
        raise _refusal(name, f"layers that differ in {key} or lack it")
    return values[0]


def _require(key: str, value: Any, allowed: tuple[Any, ...], name: str) -> None:
    if not any(value is choice or value == choice for choice in allowed):
        raise _refusal(name, f"the setting {key}={value!r} where only {_listed(allowed)} will do")


def _number(key: str, value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise _refusal(name, f"the setting {key}={value!r}")
    if not math.isfinite(value):
        raise _refusal(name, f"the setting {key}={value!r}")
    return float(value)


def _clamp(value: Any, name: str) -> float | None:
    return None if value is None else _number("conv_clamp", value, name)


def _listed(values: Iterable[Any]) -> str:
    texts = [str(value) for value in values]
    return ", ".join(texts[:8]) + (f" and {len(texts) - 8} more" if len(texts) > 8 else "")


def _refusal(name: str, got: str) -> InputError:
    return InputError(
        f"{name}: expected a StyleGAN2 generator; got {got}; allowed: the state dict of "
        "rosinality/stylegan2-pytorch or NaviGAN (g_ema), G_ema of NVIDIA's PyTorch programs, Gs "
        "of its TensorFlow programs (configurations e and f); "
        "see what the file is with: python -m tools.convert_weights inspect FILE"
    )
