"""pix2pixHD generators: latest_net_G.pth, global or with local enhancers.

The names and shapes of the arrays give the sizes. The file does not tell whether the last input
plane is the edges of instances or a label; opt.txt beside the file does, and without it the plane
is the edges, as in the published networks. Any size of images is possible; the
published one is taken unless another is asked for.
"""

import argparse
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from navigan_jax.errors import InputError
from tools.convert_weights.networks.base import (
    Network,
    Opener,
    add_choice,
    by_names,
    check_output,
)
from tools.convert_weights.networks.states import (
    CONV,
    CONV_TRANSPOSE,
    Reading,
    State,
    convert_file,
    form,
)
from tools.convert_weights.readers.structure import Found

_EXPECTED = (
    "a pix2pixHD generator (model.1.weight, model.4.weight, model.16.conv_block.1.weight and so on)"
)
_NAMES = re.compile(r"model(?:\d+_[12])?\.\d+\.(?:conv_block\.\d+\.)?\w+")
_SETTINGS = "opt.txt"
_SIZES = {False: (512, 1024), True: (1024, 2048)}  # published, without and with an enhancer


def _read(state: State, settings: Mapping[str, Any], size: tuple[int, int] | None) -> Reading:
    # Instance normalisation has no weights; old programs saved its running statistics all the same.
    state.drop(r".*\.(running_mean|running_var|num_batches_tracked)")
    found: dict[str, Found] = {}

    def conv(path: str, key: str, axes: tuple[int, ...] = CONV) -> None:
        found[f"{path}/kernel"] = Found(state.take(f"{key}.weight", axes))
        found[f"{path}/bias"] = Found(state.take(f"{key}.bias"))

    def blocks(path: str, part: str, start: int) -> int:
        count = 0
        while f"{part}.{start + count}.conv_block.1.weight" in state:
            for number, place in ((0, 1), (1, 5)):
                key = f"{part}.{start + count}.conv_block.{place}"
                conv(f"{path}_block{count}/conv{number}", key)
            count += 1
        if not count:
            raise state.refusal(f"no residual block at {part}.{start}")
        return count

    conv("global_conv", "model.1")
    halvings = 0
    while f"model.{4 + 3 * halvings}.weight" in state:
        conv(f"global_down{halvings}", f"model.{4 + 3 * halvings}")
        halvings += 1
    count = blocks("global", "model", 4 + 3 * halvings)
    start = 4 + 3 * halvings + count
    for index in range(halvings):
        conv(f"global_up{index}", f"model.{start + 3 * index}", CONV_TRANSPOSE)
    enhancers: list[int] = []
    last = f"model.{start + 3 * halvings + 1}"
    while f"model{len(enhancers) + 1}_1.1.weight" in state:
        number = len(enhancers) + 1
        conv(f"enhancer{number}_conv", f"model{number}_1.1")
        conv(f"enhancer{number}_down", f"model{number}_1.4")
        enhancers.append(blocks(f"enhancer{number}", f"model{number}_2", 0))
        conv(f"enhancer{number}_up", f"model{number}_2.{enhancers[-1]}", CONV_TRANSPOSE)
        last = f"model{number}_2.{enhancers[-1] + 4}"
    conv("image", last)
    planes = found["global_conv/kernel"].view.shape[2]
    has_instances = _has_instances(state, settings, planes)
    height, width = size or _SIZES[bool(enhancers)]
    config = {
        "labels": planes - int(has_instances),
        "has_instances": has_instances,
        "width_first": found["global_conv/kernel"].view.shape[3],
        "halvings": halvings,
        "blocks": count,
        "enhancer_blocks": enhancers,
        "image_channels": found["image/kernel"].view.shape[3],
        "height": height,
        "width": width,
    }
    return Reading(config, found)


def _has_instances(state: State, settings: Mapping[str, Any], planes: int) -> bool:
    """Returns whether the last plane is that of edges. Raises: InputError for other inputs."""
    labels = int(settings.get("label_nc", planes - 1))
    if labels not in (planes, planes - 1):
        raise state.refusal(
            f"{planes} input planes for {labels} labels: photographs or features are inputs, "
            "which are no label maps"
        )
    return labels == planes - 1


def _read_settings(source: pathlib.Path, named: str | None) -> Mapping[str, Any]:
    """Returns label_nc, if the user's file of settings, or one beside the network, has it."""
    place = pathlib.Path(named) if named else source.parent / _SETTINGS
    if not (named or place.is_file()):
        return {}
    try:
        text = place.read_text(encoding="utf-8")
        if text.lstrip().startswith("{"):
            return {"label_nc": int(json.loads(text)["label_nc"])}
        match = re.search(r"^\s*label_nc\s*:\s*(\d+)", text, re.MULTILINE)
        if match is None:
            raise ValueError("no label_nc")
        return {"label_nc": int(match[1])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{place}: expected the settings of pix2pixHD, opt.txt or JSON, with label_nc; got a "
            "file without it; give another one with --config FILE, or move it away"
        ) from error


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH, such as 512x1024; got {text!r}")
    return int(match[1]), int(match[2])


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="latest_net_G.pth")
    parser.add_argument(
        "--size",
        type=_size,
        metavar="HxW",
        help="height and width of the images; default: 512x1024, or 1024x2048 with an enhancer",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="the settings with label_nc; default: opt.txt beside SOURCE",
    )
    add_choice(parser)


def _convert(options: argparse.Namespace, open_file: Opener) -> str:
    source = pathlib.Path(options.source)
    check_output(options.out, source, *filter(None, [options.config]))
    settings = _read_settings(source, options.config)
    return convert_file(
        open_file(source),
        options.out,
        options.network,
        architecture="pix2pixhd",
        expected=_EXPECTED,
        readers={
            form("pix2pixHD", r"model\.1\.weight", _NAMES, rank=4): lambda state: _read(
                state, settings, options.size
            )
        },
    )


_LOCAL, _GLOBAL = "pix2pixHD generator with enhancers", "pix2pixHD generator, global"


NETWORK = Network(
    words="pix2pixHD generator of label maps (latest_net_G.pth)",
    add_arguments=_add_arguments,
    convert=_convert,
    recognise=by_names(
        {
            _LOCAL: (r"model1_1\.1\.weight", r"model\.1\.weight"),
            _GLOBAL: (r"model\.1\.weight", r"model\.\d+\.conv_block\.1\.weight"),
        }
    ),
)
