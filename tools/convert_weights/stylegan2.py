"""StyleGAN2 generators as three programs write them, with nothing in the files executed.

1. PyTorch files of rosinality/stylegan2-pytorch and of NaviGAN: `g_ema` and, often, `latent_avg`.
   They do not say the mapping's learning-rate multiplier, which is 0.01 there.
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
from collections.abc import Callable, Mapping
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
_ROSINALITY_RATE = 0.01

Config = dict[str, Any]
Params = dict[str, Any]
Transform = Callable[[np.ndarray], np.ndarray]
# How a foreign name and array become ours: pattern of the whole name, our path, our layout.
Rule = tuple[str, Callable[[re.Match[str]], str], Transform]


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
    state: Mapping[str, np.ndarray], latent_avg: np.ndarray | None, name: str = "stylegan2"
) -> tuple[Config, Params]:
    """Returns (config, params) of a generator's state dict in rosinality's names.

    latent_avg: the average w; None: made here, of fixed draws of z.

    Raises: InputError, which begins with `name`, if that is no StyleGAN2 generator.
    """
    flat, rest = _rename(state, _ROSINALITY_RULES, name)
    filters = {key: array for key, array in rest.items() if _ROSINALITY_FILTER.fullmatch(key)}
    _require_known(rest.keys() - filters.keys(), name)
    settings = Settings(_ROSINALITY_RATE, _taps_of(filters, name), None)
    if latent_avg is not None:
        flat["mapping/w_avg"] = latent_avg.reshape(-1)
        return _finish(flat, settings, name)
    bias = [path for path in flat if re.fullmatch(r"mapping/fc\d+/bias", path)]
    if not bias:
        raise _refusal(name, "no mapping network")
    flat["mapping/w_avg"] = np.zeros_like(flat[f"mapping/fc{len(bias) - 1}/bias"])
    config, params = _finish(flat, settings, name)
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
        raise _refusal(name, "a StyleGAN3 generator, whose layers are others")
    convert = _from_tensorflow if is_tf_network(network) else _from_ada
    return convert(network, arrays, name)


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _flat(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1)


def _scalar(array: np.ndarray) -> np.ndarray:
    return array.reshape(())


def _transposed(array: np.ndarray) -> np.ndarray:
    return array.transpose(1, 0)


def _pixels(array: np.ndarray) -> np.ndarray:
    """From [1, 1, row, column]."""
    return array.squeeze((0, 1))


def _hwc(array: np.ndarray) -> np.ndarray:
    return array.transpose(1, 2, 0)


def _hwio(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 3, 1, 0)


def _turned(array: np.ndarray) -> np.ndarray:
    return array[::-1, ::-1]


def _first(transform: Transform) -> Transform:
    """Returns the transform of an array without its first axis, which has length 1."""
    return lambda array: transform(array.squeeze(0))


def _path(prefix: str, layer: Callable[..., str], part: str) -> Callable[[re.Match[str]], str]:
    """Returns the path of a part of the layer that a match's groups name."""
    return lambda match: f"{prefix}/{layer(*match.groups())}/{part}"


def _rosinality_layer(name: str) -> str:
    """Returns our layer: from 8x8 on, each block has two convolutions and one to_rgbs."""
    if name in ("conv1", "to_rgb1"):
        return f"b4/{'conv1' if name == 'conv1' else 'torgb'}"
    kind, index = name.split(".")
    if kind == "to_rgbs":
        return f"b{8 << int(index)}/torgb"
    return f"b{8 << int(index) // 2}/conv{int(index) % 2}"


def _noise_layer(index: str) -> str:
    """Returns the layer of a numbered noise: the 4x4 one, then two a block."""
    return _rosinality_layer("conv1" if index == "0" else f"convs.{int(index) - 1}")


# Two digits: 8 << 99 is no resolution, but the number stays small.
_STYLED = r"(conv1|convs\.\d{1,2})"
_RGB = r"(to_rgb1|to_rgbs\.\d{1,2})"
_MODULATED = rf"({_STYLED[1:-1]}|{_RGB[1:-1]})"
_ROSINALITY_FILTER = re.compile(r"(convs\.\d{1,2}\.conv\.blur|to_rgbs\.\d{1,2}\.upsample)\.kernel")


def _fc(number: str) -> str:
    return f"fc{int(number) - 1}"


_ROSINALITY_RULES: tuple[Rule, ...] = (
    (r"style\.(\d{1,3})\.weight", _path("mapping", _fc, "kernel"), _transposed),
    (r"style\.(\d{1,3})\.bias", _path("mapping", _fc, "bias"), _same),
    (r"input\.input", lambda _: "synthesis/b4/const", _first(_hwc)),
    (r"noises\.noise_(\d{1,2})", _path("synthesis", _noise_layer, "noise"), _pixels),
    (
        rf"{_MODULATED}\.conv\.weight",
        _path("synthesis", _rosinality_layer, "kernel"),
        _first(_hwio),
    ),
)
