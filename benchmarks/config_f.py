"""Writes a StyleGAN2 of configuration f with random weights in each of the three formats.

Sizes, names and containers are those of the original programs: a zip archive with g_ema and
latent_avg, a pickle with G and G_ema, a pickle with G, D and Gs. The discriminator is left out or
empty, because nothing here reads it.
"""

import itertools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from benchmarks.stylegan2 import config_f
from navigan_jax import params as params_lib
from navigan_jax.array_types import Params
from navigan_jax.generators.files import make_generator
from tests.tools import crafting
from tools.convert_weights.readers.structure import Record

_TAPS = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32) / 64


def draw_params(resolution: int) -> Params:
    """Returns random weights; noise and average w are not zero."""
    params = jax.jit(make_generator("stylegan2", config_f(resolution)).init)(jax.random.key(0))
    flat = {path: np.asarray(leaf) for path, leaf in params_lib.flatten(params).items()}
    random = np.random.RandomState(0)
    for path in flat:
        if path.endswith("noise_strength"):
            flat[path] = np.float32(0.1) * np.ones((), np.float32)
    flat["mapping/w_avg"] = 0.1 * random.standard_normal(512).astype(np.float32)
    return params_lib.unflatten(flat)


def write_rosinality(path: pathlib.Path, params: Params) -> None:
    """Writes a file as rosinality's converter does."""
    mapping, synthesis = params["mapping"], params["synthesis"]
    state = {"input.input": synthesis["b4"]["const"].transpose(2, 0, 1)[None]}
    for index in itertools.takewhile(lambda i: f"fc{i}" in mapping, itertools.count()):
        state[f"style.{index + 1}.weight"] = mapping[f"fc{index}"]["kernel"].T
        state[f"style.{index + 1}.bias"] = mapping[f"fc{index}"]["bias"]
    for index, (side, part, layer) in enumerate(_convs(params)):
        name = f"convs.{index - 1}" if index else "conv1"
        state |= _modulated(f"{name}.conv", layer)
        state[f"{name}.noise.weight"] = layer["noise_strength"][None]
        state[f"{name}.activate.bias"] = layer["bias"]
        state[f"noises.noise_{index}"] = layer["noise"][None, None]
        if part == "conv0":
            state[f"{name}.conv.blur.kernel"] = 4 * _TAPS
        if part == "conv1":
            image = synthesis[f"b{side}"]["torgb"]
            name = f"to_rgbs.{side.bit_length() - 4}" if index else "to_rgb1"
            state |= _modulated(f"{name}.conv", image)
            state[f"{name}.bias"] = image["bias"][None, :, None, None]
            if index:
                state[f"{name}.upsample.kernel"] = 4 * _TAPS
    arrays = state | {"latent_avg": mapping["w_avg"]}
    content, memories = crafting.state_dict({k: np.ascontiguousarray(v) for k, v in arrays.items()})
    average = content.pop("latent_avg")
    path.write_bytes(crafting.torch_zip({"g_ema": content, "latent_avg": average}, memories))


def _modulated(name: str, layer: Any) -> dict[str, np.ndarray]:
    return {
        f"{name}.weight": layer["kernel"].transpose(3, 2, 0, 1)[None],
        f"{name}.modulation.weight": layer["affine"]["kernel"].T,
        f"{name}.modulation.bias": layer["affine"]["bias"],
    }


def _convs(params: Params) -> list[tuple[int, str, Any]]:
    """Returns (side, part, weights) of the convolutions in the network's order."""
    blocks = sorted((int(name[1:]), block) for name, block in params["synthesis"].items())
    return [
        (side, part, block[part])
        for side, block in blocks
        for part in ("conv0", "conv1")
        if part in block
    ]


def write_ada(path: pathlib.Path, params: Params) -> None:
    """Writes a snapshot of NVIDIA's PyTorch program, without the discriminator."""
    networks = {name: _module("Generator", {}, {}, _ada_modules(params)) for name in ("G", "G_ema")}
    path.write_bytes(crafting.pickled(networks | {"augment_pipe": None}, 3))


def _ada_modules(params: Params) -> dict[str, Any]:
    dense = {
        name: _module(
            "FullyConnectedLayer",
            {"weight": layer["kernel"].T, "bias": layer["bias"]},
            {},
            activation="lrelu",
            bias_gain=0.01,
        )
        for name, layer in params["mapping"].items()
        if name != "w_avg"
    }
    average = {"w_avg": params["mapping"]["w_avg"]}
    blocks = {}
    for name, block in params["synthesis"].items():
        constant = {"const": block["const"].transpose(2, 0, 1)} if "const" in block else {}
        layers = {part: _ada_layer(block[part], part) for part in block if part != "const"}
        filters = {"resample_filter": _TAPS}
        blocks[name] = _module("SynthesisBlock", constant, filters, layers)
    return {
        "synthesis": _module("SynthesisNetwork", {}, {}, blocks),
        "mapping": _module("MappingNetwork", {}, average, dense),
    }


def _ada_layer(layer: Any, part: str) -> crafting.Call:
    affine = _module(
        "FullyConnectedLayer",
        {"weight": layer["affine"]["kernel"].T, "bias": layer["affine"]["bias"]},
        {},
        activation="linear",
        bias_gain=1.0,
    )
    weights = {"weight": layer["kernel"].transpose(3, 2, 0, 1), "bias": layer["bias"]}
    if part == "torgb":
        return _module("ToRGBLayer", weights, {}, {"affine": affine}, conv_clamp=None)
    return _module(
        "SynthesisLayer",
        weights | {"noise_strength": layer["noise_strength"]},
        {"noise_const": layer["noise"], "resample_filter": _TAPS},
        {"affine": affine},
        activation="lrelu",
        use_noise=True,
        conv_clamp=None,
    )


def _module(
    class_name: str,
    parameters: Mapping[str, np.ndarray],
    buffers: Mapping[str, np.ndarray],
    modules: Mapping[str, Any] | None = None,
    **attributes: Any,
) -> crafting.Call:
    """Returns a module as the program's persistence pickles it."""
    state = attributes | {
        "_parameters": {name: _ada_tensor(array) for name, array in parameters.items()},
        "_buffers": {name: _ada_tensor(array) for name, array in buffers.items()},
        "_modules": dict(modules or {}),
    }
    meta = {"type": "class", "version": 6, "module_src": "", "class_name": class_name}
    reconstruct = crafting.Global("torch_utils.persistence", "_reconstruct_persistent_obj")
    return crafting.Call(reconstruct, (meta | {"state": state},))


def _ada_tensor(array: np.ndarray) -> crafting.Call:
    array = np.asarray(array, order="C")
    memory = crafting.storage("0", array.dtype.name, array.size, legacy=True)
    stream = crafting.torch_stream(memory, {"0": array.reshape(-1)})
    loaded = crafting.Call(crafting.Global("torch.storage", "_load_from_bytes"), (stream,))
    return crafting.tensor(loaded, array.shape, crafting.row_strides(array.shape))


def write_tensorflow(path: pathlib.Path, params: Params) -> None:
    """Writes a snapshot of NVIDIA's TensorFlow program, with an empty discriminator."""
    generator = _tensorflow_network(params)
    networks = {"G": generator, "D": _tensorflow_record({}, {}), "Gs": generator}
    path.write_bytes(crafting.tensorflow_file(networks))


def _tensorflow_record(
    variables: Mapping[str, np.ndarray], components: Mapping[str, Record]
) -> Record:
    state = {
        "version": 4,
        "name": "network",
        "static_kwargs": {},
        "components": dict(components),
        "variables": [(name, np.asarray(array, order="C")) for name, array in variables.items()],
    }
    return Record("dnnlib.tflib.network.Network", (), state)


def _tensorflow_network(params: Params) -> Record:
    mapping, synthesis = params["mapping"], params["synthesis"]
    dense = {
        f"Dense{name[2:]}/{ours}": layer[theirs]
        for name, layer in mapping.items()
        if name != "w_avg"
        for ours, theirs in (("weight", "kernel"), ("bias", "bias"))
    }
    found = {"4x4/Const/const": synthesis["b4"]["const"].transpose(2, 0, 1)[None]}
    for index, (side, part, layer) in enumerate(_convs(params)):
        name = f"{side}x{side}/{'Conv0_up' if part == 'conv0' else 'Conv1' if index else 'Conv'}"
        found |= _tensorflow_layer(name, layer, turned=part == "conv0")
        found[f"{name}/noise_strength"] = layer["noise_strength"]
        found[f"noise{index}"] = layer["noise"][None, None]
        if part == "conv1":
            image = synthesis[f"b{side}"]["torgb"]
            found |= _tensorflow_layer(f"{side}x{side}/ToRGB", image, turned=False)
    components = {
        "mapping": _tensorflow_record(dense, {}),
        "synthesis": _tensorflow_record(found, {}),
    }
    outer = {"lod": np.zeros((), np.float32), "dlatent_avg": mapping["w_avg"]}
    return _tensorflow_record(outer, components)


def _tensorflow_layer(name: str, layer: Any, *, turned: bool) -> dict[str, np.ndarray]:
    kernel = layer["kernel"]
    return {
        f"{name}/weight": kernel[::-1, ::-1] if turned else kernel,
        f"{name}/mod_weight": layer["affine"]["kernel"],
        f"{name}/mod_bias": layer["affine"]["bias"] - 1,
        f"{name}/bias": layer["bias"],
    }


WRITERS: Mapping[str, tuple[str, Callable[[pathlib.Path, Params], None]]] = {
    "rosinality": (".pt", write_rosinality),
    "NVIDIA PyTorch": (".pkl", write_ada),
    "NVIDIA TensorFlow": (".pkl", write_tensorflow),
}
