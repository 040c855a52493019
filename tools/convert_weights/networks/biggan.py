"""BigGAN generators: G_ema.pth of the author's PyTorch program, and BigGAN-deep of Hugging Face.

The converted weights are those in use: each stored weight divided by its spectral norm. The names
and shapes of the arrays give the sizes. A file of settings beside the network, or named by
--config, gives what they cannot: the epsilon of the norms and, of BigGAN-deep, which blocks double
the side. It is called generator_config.json, and config.json with BigGAN-deep.
Without it the published settings are taken: every second block of BigGAN-deep doubles.

A network of 1000 classes gets the names of ImageNet's classes, in the order of its synsets.
"""

import argparse
import json
import math
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from navigan_jax import assets
from navigan_jax.errors import InputError
from navigan_jax.generators.files import write_generator
from navigan_jax.generators.source_map import Absorber
from tools.convert_weights.networks.base import (
    Network,
    Opener,
    Shapes,
    add_choice,
    add_label_names,
    by_names,
    check_output,
)
from tools.convert_weights.networks.states import CONV, DENSE, Reading, State, convert, form
from tools.convert_weights.readers.structure import Found, Vectors

_EXPECTED = (
    "a BigGAN generator, of ajbrock's program (shared.weight, linear.weight, "
    "blocks.0.0.conv1.weight and so on)"
)
_EXPECTED_DEEP = (
    "a BigGAN-deep generator of Hugging Face (embeddings.weight, generator.gen_z.weight_orig and "
    "so on)"
)
_NAMES = re.compile(r"(?:shared|linear|blocks\.\d+\.\d+(?:\.\w+){0,2}|output_layer\.[02])\.\w+")
_DEEP_NAMES = re.compile(
    r"(?:embeddings|generator\.(?:gen_z|layers\.\d+(?:\.\w+){0,2}|bn|conv_to_rgb))\.\w+"
)
_CONFIGS = {"biggan": "generator_config.json", "biggan_deep": "config.json"}
# Of the published training scripts; the files do not store them.
_EPSILON, _SPECTRAL_EPSILON, _DEEP_EPSILON = 1e-5, 1e-6, 1e-4


def _read(state: State, config: Mapping[str, Any]) -> Reading:
    """Reads the names of ajbrock's program."""
    state.drop(r".*\.sv\d|.*\.accumulation_counter")
    epsilon = _positive(state, config, "SN_eps", _SPECTRAL_EPSILON)
    norms = _positive(state, config, "BN_eps", _EPSILON)
    found: dict[str, Found] = {}

    def normalised(
        path: str, key: str, axes: tuple[int, ...], absorbers: tuple[Absorber, ...] = ()
    ) -> None:
        weight = state.take(f"{key}.weight", axes)
        if f"{key}.u0" in state:
            u, names = state.take(f"{key}.u0", (0, 1)).reshape(-1), (f"{key}.weight", f"{key}.u0")
            _check_vectors(state, key, weight, u)
            vectors = Vectors(names, u, None, epsilon, absorbers)
            found[f"{path}/kernel"] = Found(weight, vectors=vectors)
        else:
            found[f"{path}/kernel"] = Found(weight)

    def bias(path: str, key: str) -> None:
        found[f"{path}/bias"] = Found(state.take(f"{key}.bias"))

    def statistics(path: str, key: str) -> None:
        found[f"{path}/mean"] = Found(state.take(f"{key}.stored_mean")[None])
        found[f"{path}/var"] = Found(state.take_variance(f"{key}.stored_var")[None])

    found["shared/kernel"] = Found(state.take("shared.weight", (0, 1)))
    normalised("linear", "linear", DENSE)
    bias("linear", "linear")
    blocks, attention = 0, []
    while f"blocks.{blocks}.0.conv1.weight" in state:
        key, path = f"blocks.{blocks}.0", f"block{blocks}"
        for norm in ("bn1", "bn2"):
            statistics(f"{path}/{norm}", f"{key}.{norm}")
            for part in ("gain", "bias"):
                normalised(f"{path}/{norm}/{part}", f"{key}.{norm}.{part}", DENSE)
        for conv in ("conv1", "conv2", "conv_sc"):
            absorbers = _absorbed_by_norm(path, key, norms) if conv == "conv1" else ()
            normalised(f"{path}/{conv}", f"{key}.{conv}", CONV, absorbers)
            bias(f"{path}/{conv}", f"{key}.{conv}")
        key, path = f"blocks.{blocks}.1", f"attention{blocks}"
        if f"{key}.gamma" in state:
            attention.append(blocks)
            # A positive factor of g or o is a factor of gamma: pooling lets it through.
            gamma = (Absorber(f"{path}/gamma", f"{key}.gamma", -1),)
            for conv in ("theta", "phi", "g", "o"):
                normalised(
                    f"{path}/{conv}", f"{key}.{conv}", CONV, gamma if conv in ("g", "o") else ()
                )
            found[f"{path}/gamma"] = Found(state.take(f"{key}.gamma", rank=0).reshape(1))
        blocks += 1
    statistics("norm", "output_layer.0")
    found["norm/scale"] = Found(state.take("output_layer.0.gain"))
    found["norm/bias"] = Found(state.take("output_layer.0.bias"))
    # A ReLU stands between this norm and the last convolution; it lets a positive factor through.
    before = tuple(
        Absorber(f"norm/{ours}", f"output_layer.0.{theirs}", -1)
        for ours, theirs in (("scale", "gain"), ("bias", "bias"))
    )
    normalised("image", "output_layer.2", CONV, before)
    bias("image", "output_layer.2")
    return Reading(_sizes(state, found, blocks, attention, norms), found)


def _absorbed_by_norm(path: str, key: str, epsilon: float) -> tuple[Absorber, ...]:
    """Returns what takes a factor of a block's first convolution: its bias, and the norm after."""
    return (
        Absorber(f"{path}/conv1/bias", f"{key}.conv1.bias", 1),
        Absorber(f"{path}/bn2/mean", f"{key}.bn2.stored_mean", 1),
        Absorber(f"{path}/bn2/var", f"{key}.bn2.stored_var", 2, epsilon),
    )


def _sizes(
    state: State,
    found: Mapping[str, Found],
    blocks: int,
    attention: list[int],
    epsilon: float,
) -> dict[str, Any]:
    if not blocks:
        raise state.refusal("no blocks")
    classes, embedding = found["shared/kernel"].view.shape
    first, outputs = found["linear/kernel"].view.shape
    condition, width = found["block0/bn1/gain/kernel"].view.shape
    chunk, side = condition - embedding, math.isqrt(outputs // width)
    if side * side * width != outputs or chunk not in (0, first):
        raise state.refusal(
            f"a first layer {list(found['linear/kernel'].view.shape[::-1])} and a condition of "
            f"{condition} numbers, {embedding} of them of the class, which do not fit"
        )
    widths = [width, *(found[f"block{i}/conv1/kernel"].view.shape[3] for i in range(blocks))]
    return {
        "z_dim": first * len(widths) if chunk else first,
        "label_dim": classes,
        "embedding": embedding,
        "widths": widths,
        "attention": attention,
        "first_side": side,
        "hierarchical": chunk > 0,
        "epsilon": epsilon,
    }


def _check_vectors(state: State, key: str, weight: np.ndarray, *vectors: np.ndarray) -> None:
    """Refuses vectors of a spectral norm that are not as long as the weight's sides."""
    outputs = weight.shape[-1]
    wanted = (outputs, weight.size // outputs)[: len(vectors)]
    if (got := tuple(map(len, vectors))) != wanted:
        raise state.refusal(f"vectors of {got} numbers for the norm of {key}, which needs {wanted}")


def _read_deep(state: State, config: Mapping[str, Any]) -> Reading:
    """Reads the names of Hugging Face."""
    state.drop(r".*\.num_batches_tracked")
    found: dict[str, Found] = {}

    def normalised(path: str, key: str, axes: tuple[int, ...]) -> None:
        u, v = (state.take(f"{key}.weight_{vector}") for vector in "uv")
        weight, names = (
            state.take(f"{key}.weight_orig", axes),
            (f"{key}.weight_orig", f"{key}.weight_u"),
        )
        _check_vectors(state, key, weight, u, v)
        found[f"{path}/kernel"] = Found(weight, vectors=Vectors(names, u, v, 0.0))

    def bias(path: str, key: str) -> None:
        found[f"{path}/bias"] = Found(state.take(f"{key}.bias"))

    def statistics(path: str, key: str) -> None:
        for theirs, ours in (("running_means", "mean"), ("running_vars", "var")):
            found[f"{path}/{ours}"] = Found(state.take(f"{key}.{theirs}", (0, 1)))
        if found[f"{path}/var"].view.min() < 0:
            raise state.refusal(f"{key}.running_vars with negative variances")

    found["embed/kernel"] = Found(state.take("embeddings.weight", DENSE))
    normalised("gen_z", "generator.gen_z", DENSE)
    bias("gen_z", "generator.gen_z")
    count, attention = state.count(r"generator\.layers\.(\d+)\..+"), []
    for index in range(count):
        key, path = f"generator.layers.{index}", f"layer{index}"
        if f"{key}.gamma" in state:
            attention.append(index)
            for conv, theirs in (("theta", ""), ("phi", ""), ("g", ""), ("o", "_conv")):
                normalised(f"{path}/{conv}", f"{key}.snconv1x1_{conv}{theirs}", CONV)
            found[f"{path}/gamma"] = Found(state.take(f"{key}.gamma"))
            continue
        for number in range(4):
            norm, conv = f"bn_{number}", f"conv_{number}"
            statistics(f"{path}/{norm}", f"{key}.{norm}")
            normalised(f"{path}/{norm}/gain", f"{key}.{norm}.scale", DENSE)
            normalised(f"{path}/{norm}/bias", f"{key}.{norm}.offset", DENSE)
            normalised(f"{path}/{conv}", f"{key}.{conv}", CONV)
            bias(f"{path}/{conv}", f"{key}.{conv}")
    statistics("norm", "generator.bn")
    found["norm/scale"] = Found(state.take("generator.bn.weight"))
    found["norm/bias"] = Found(state.take("generator.bn.bias"))
    normalised("image", "generator.conv_to_rgb", CONV)
    bias("image", "generator.conv_to_rgb")
    blocks = [index for index in range(count) if index not in attention]
    classes, embedding = found["embed/kernel"].view.shape
    inputs, outputs = found["gen_z/kernel"].view.shape
    sizes = {
        "z_dim": inputs - embedding,
        "label_dim": classes,
        "embedding": embedding,
        "first_width": outputs // 16,
        "outputs": [found[f"layer{index}/conv_3/kernel"].view.shape[3] for index in blocks],
        "doubles": _doubles(state, config, len(blocks)),
        "attention": attention,
        "entries": len(found["norm/mean"].view),
        "epsilon": _positive(state, config, "eps", _DEEP_EPSILON),
    }
    return Reading(sizes, found)


def _doubles(state: State, config: Mapping[str, Any], blocks: int) -> list[bool]:
    """Returns which blocks double the side: as the config says, or every second one."""
    layers = config.get("layers")
    if layers is None:
        return [bool(index % 2) for index in range(blocks)]
    if not isinstance(layers, list) or not all(isinstance(x, list) and x for x in layers):
        raise state.refusal(f"a config whose layers are no lists: {str(layers)[:60]}")
    if len(layers) != blocks:
        raise state.refusal(f"{blocks} blocks, but a config of {len(layers)} layers")
    return [bool(layer[0]) for layer in layers]


def _positive(state: State, config: Mapping[str, Any], key: str, default: float) -> float:
    """Returns a positive number of the config. Raises: InputError."""
    value = config.get(key, default)
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise state.refusal(f"a config with {key} {str(value)[:40]!r}, which is no positive number")
    return float(value)


def _read_config(place: pathlib.Path, *, is_needed: bool) -> Mapping[str, Any]:
    """Returns the settings in a file; nothing if there is none and none is needed."""
    if not (is_needed or place.is_file()):
        return {}
    try:
        config = json.loads(place.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("no object")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{place}: expected the settings of the generator, a JSON object; got a file that "
            "cannot be read so; give another one with --config FILE, or move it away"
        ) from error
    return config


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="G_ema.pth, or pytorch_model.bin")
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="the settings as JSON; default: generator_config.json beside SOURCE, and of "
        "BigGAN-deep config.json",
    )
    add_label_names(parser, "ImageNet's for 1000 classes, else numbers only")
    add_choice(parser)


def _name_classes(config: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Returns the config with the names of the classes: as given, or those of ImageNet."""
    classes = config["label_dim"]
    if names and len(names) != classes:
        raise InputError(
            f"--label-names: expected {classes} names, one for each class; got {len(names)}; give "
            "a file with all of them"
        )
    if not names and classes == assets.IMAGENET_CLASSES:
        names = assets.imagenet_names()
    return {**config, "label_names": names} if names else config


def _converter(
    architecture: str,
    expected: str,
    name: str,
    anchor: str,
    names: re.Pattern[str],
    read: Callable[[State, Mapping[str, Any]], Reading],
) -> Callable[[argparse.Namespace, Opener], str]:
    def run(options: argparse.Namespace, open_file: Opener) -> str:
        source = pathlib.Path(options.source)
        check_output(options.out, source, *filter(None, [options.config]))
        place = pathlib.Path(options.config or source.parent / _CONFIGS[architecture])
        settings = _read_config(place, is_needed=options.config is not None)
        config, params, origin = convert(
            open_file(source),
            options.network,
            architecture=architecture,
            expected=expected,
            readers={form(name, anchor, names): lambda state: read(state, settings)},
        )
        config = _name_classes(config, options.label_names)
        write_generator(options.out, architecture, config, params, origin)
        return str(options.out)

    return run


_ORIGINAL, _DEEP = "BigGAN generator of ajbrock", "BigGAN-deep generator of Hugging Face"


def _side(shapes: Shapes) -> int | None:
    blocks = {
        match[1]
        for key in shapes
        if (match := re.fullmatch(r"(?:.*[/.])?blocks\.(\d+)\.0\.conv1\.weight", key))
    }
    return 4 << len(blocks) if blocks else None


NETWORK = Network(
    words="BigGAN generator of ajbrock's PyTorch program (G_ema.pth)",
    add_arguments=_add_arguments,
    convert=_converter(
        "biggan", _EXPECTED, "ajbrock", r"blocks\.0\.0\.conv1\.weight", _NAMES, _read
    ),
    recognise=by_names({_ORIGINAL: (r"shared\.weight", r"blocks\.0\.0\.conv1\.weight")}),
    sides={_ORIGINAL: _side},
)
DEEP = Network(
    words="BigGAN-deep generator of Hugging Face (pytorch_model.bin)",
    add_arguments=_add_arguments,
    convert=_converter(
        "biggan_deep",
        _EXPECTED_DEEP,
        "Hugging Face",
        r"generator\.gen_z\.weight_orig",
        _DEEP_NAMES,
        _read_deep,
    ),
    recognise=by_names({_DEEP: (r"generator\.gen_z\.weight_orig",)}),
)
