"""ProgGAN generators: ptrblck's .pth, and the official pickle of TensorFlow.

The official layers at a doubled side store the kernel of a transposed convolution, whose four
shifted copies are summed; that equals nearest upsampling and a convolution with the flipped kernel.
The official weights are scaled when they are used; the scales follow from the shapes.
"""

import argparse
import math
import re

import numpy as np

from tools.convert_weights.networks.base import (
    Network,
    Opener,
    Shapes,
    add_choice,
    by_names,
    check_output,
)
from tools.convert_weights.networks.states import CONV, Reading, State, convert_file, form
from tools.convert_weights.readers.structure import Found

_EXPECTED = (
    "a ProgGAN generator, of the PyTorch port (features.0.conv.weight, features.0.wscale.scale and "
    "so on) or of the official program (4x4/Dense/weight and so on)"
)
_TORCH = re.compile(r"(?:features\.\d+|output)\.(?:conv\.weight|wscale\.(?:scale|b))")
_TENSORFLOW = re.compile(
    r"(?:\d+x\d+/(?:Dense|Conv|Conv0_up|Conv0|Conv1)|ToRGB_lod\d+)/(?:weight|bias)"
)
_GAIN = math.sqrt(2)


def _read_torch(state: State) -> Reading:
    count = state.count(r"features\.(\d+)\.conv\.weight")
    if count % 2:
        raise state.refusal(f"{count} layers, not two for each side")
    views: dict[str, np.ndarray] = {}

    def layer(path: str, key: str) -> None:
        views[f"{path}/conv/kernel"] = state.take(f"{key}.conv.weight", CONV)
        views[f"{path}/scale"] = state.take(f"{key}.wscale.scale")
        views[f"{path}/bias"] = state.take(f"{key}.wscale.b")

    for index in range(count):
        layer(f"layer{index}", f"features.{index}")
    layer("image", "output")
    return _reading(views, {})


def _read_tensorflow(state: State) -> Reading:
    state.drop(r"lod|ToRGB_lod[1-9]\d*/\w+")  # images of smaller sides, which training showed
    views: dict[str, np.ndarray] = {}
    scales: dict[str, np.ndarray] = {}

    def layer(path: str, key: str, kernel: np.ndarray, fan_in: int, gain: float) -> None:
        views[f"{path}/conv/kernel"] = kernel
        views[f"{path}/bias"] = state.take(f"{key}/bias")
        scales[f"{path}/scale"] = np.array([gain / math.sqrt(fan_in)], np.float32)

    z_dim, outputs = state.shape("4x4/Dense/weight", 2)
    width = state.shape("4x4/Conv/weight", 4)[2]
    if outputs != 16 * width:
        raise state.refusal(f"a dense layer of {outputs} outputs before {width} channels")
    # Our first layer is a convolution of one pixel with a rim of zeros, which reads in reverse.
    dense = state.take("4x4/Dense/weight", (0, 1)).reshape(z_dim, width, 4, 4)
    layer("layer0", "4x4/Dense", dense[..., ::-1, ::-1].transpose(2, 3, 0, 1), z_dim, _GAIN / 4)
    index, side = 1, 4
    conv = state.take("4x4/Conv/weight", (0, 1, 2, 3))
    layer("layer1", "4x4/Conv", conv, 9 * conv.shape[2], _GAIN)
    while f"{2 * side}x{2 * side}/Conv1/weight" in state:
        index, side = index + 2, 2 * side
        block = f"{side}x{side}"
        if f"{block}/Conv0_up/weight" in state:
            kernel = state.take(f"{block}/Conv0_up/weight", (0, 1, 3, 2))[::-1, ::-1]
            layer(f"layer{index - 1}", f"{block}/Conv0_up", kernel, 9 * kernel.shape[2], _GAIN)
        else:
            kernel = state.take(f"{block}/Conv0/weight", (0, 1, 2, 3))
            layer(f"layer{index - 1}", f"{block}/Conv0", kernel, 9 * kernel.shape[2], _GAIN)
        kernel = state.take(f"{block}/Conv1/weight", (0, 1, 2, 3))
        layer(f"layer{index}", f"{block}/Conv1", kernel, 9 * kernel.shape[2], _GAIN)
    kernel = state.take("ToRGB_lod0/weight", (0, 1, 2, 3))
    layer("image", "ToRGB_lod0", kernel, kernel.shape[2], 1.0)
    return _reading(views, scales)


def _reading(views: dict[str, np.ndarray], computed: dict[str, np.ndarray]) -> Reading:
    layers = sum(path.startswith("layer") and path.endswith("/kernel") for path in views)
    config = {
        "z_dim": views["layer0/conv/kernel"].shape[2],
        "widths": [views[f"layer{index}/conv/kernel"].shape[3] for index in range(0, layers, 2)],
        "image_channels": views["image/conv/kernel"].shape[3],
    }
    return Reading(config, {path: Found(view) for path, view in views.items()}, computed)


_READERS = {
    form("PyTorch", r"features\.0\.wscale\.scale", _TORCH): _read_torch,
    form("TensorFlow", r"4x4/Dense/weight", _TENSORFLOW, rank=2): _read_tensorflow,
}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="SOURCE", help="ptrblck's .pth, or the official .pkl of TensorFlow"
    )
    add_choice(parser)


def _convert(options: argparse.Namespace, open_file: Opener) -> str:
    check_output(options.out, options.source)
    return convert_file(
        open_file(options.source),
        options.out,
        options.network,
        architecture="proggan",
        expected=_EXPECTED,
        readers=_READERS,
    )


_PORT, _OFFICIAL = "ProgGAN generator of PyTorch", "ProgGAN generator of TensorFlow"


def _side(shapes: Shapes) -> int | None:
    sides = [
        4 << (int(match[1]) // 2)
        for key in shapes
        if (match := re.fullmatch(r"(?:.*[/.])?features\.(\d+)\.conv\.weight", key))
    ]
    sides += [
        int(match[1])
        for key in shapes
        if (match := re.fullmatch(r"(?:.*[/.])?(\d+)x\1/Conv1/weight", key))
    ]
    return max(sides, default=None)


NETWORK = Network(
    words="ProgGAN generator of PyTorch (ptrblck's .pth) or of the official program (.pkl)",
    add_arguments=_add_arguments,
    convert=_convert,
    recognise=by_names(
        {
            _PORT: (r"features\.0\.conv\.weight", r"features\.0\.wscale\.scale"),
            _OFFICIAL: (r"4x4/Dense/weight", r"4x4/Conv/weight", r"ToRGB_lod0/weight"),
        }
    ),
    sides={_PORT: _side, _OFFICIAL: _side},
)
