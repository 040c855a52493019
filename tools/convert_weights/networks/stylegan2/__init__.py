"""Converts StyleGAN2 generators of three programs; declares the command `stylegan2`."""

import re

from tools.convert_weights.networks.base import Network, Shapes, by_names
from tools.convert_weights.networks.stylegan2 import command

_ROSINALITY = "StyleGAN2, rosinality"
_NVIDIA, _TENSORFLOW = "StyleGAN2, NVIDIA PyTorch", "StyleGAN2, NVIDIA TensorFlow"
_NAMES = {
    "StyleGAN3, NVIDIA PyTorch": (r"synthesis\.input\.freqs",),
    _NVIDIA: (r"synthesis\.b4\.const", r"mapping\.fc0\.weight"),
    "StyleGAN1 or ProgGAN, NVIDIA TensorFlow": (r"ToRGB_lod0/weight",),
    _TENSORFLOW: (r"\d+x\d+/Const/const", r"mapping/Dense0/weight"),
    _ROSINALITY: (r"input\.input", r"convs\.0\.conv\.weight", r"style\.1\.weight"),
}
# The number in such an array's name is the side of its layer's output, in pixels.
_SIDE = re.compile(r"synthesis\.b(\d+)\.|(\d+)x\d+/")
_NOISE = re.compile(r"(?:.*[/.])?noises\.noise_\d+")


def _side_of_blocks(shapes: Shapes) -> int | None:
    found = [match for name in shapes if (match := _SIDE.search(name))]
    return max((int(match[1] or match[2]) for match in found), default=None)


def _side_of_noise(shapes: Shapes) -> int | None:
    noises = [shapes[name] for name in shapes if _NOISE.fullmatch(name)]
    return max((shape[-1] for shape in noises if shape), default=None)


NETWORK = Network(
    words="StyleGAN2 generator of rosinality, NaviGAN or NVIDIA",
    add_arguments=command.add_arguments,
    convert=command.convert,
    recognise=by_names(_NAMES),
    sides={
        _ROSINALITY: _side_of_noise,
        _NVIDIA: _side_of_blocks,
        _TENSORFLOW: _side_of_blocks,
    },
)
