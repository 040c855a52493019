"""Converts the weights of LPIPS, a distance of images; declares the command `lpips`."""

import argparse
import re

from navigan_jax.perceptual.files import write_perceptual
from navigan_jax.perceptual.lpips import VERSIONS
from tools.convert_weights.download import BACKBONES
from tools.convert_weights.networks.base import (
    Network,
    Opener,
    Shapes,
    add_choice,
    by_names,
    check_output,
)
from tools.convert_weights.networks.lpips.sources import collect, net_of
from tools.convert_weights.networks.lpips.weights import from_state_dicts

_NETS = {
    "vgg": "torchvision vgg16",
    "alex": "torchvision alexnet",
    "squeeze": "torchvision squeezenet1_1",
}
_WRAPPER = re.compile(r".*[/.](?=(?:features|net\.slice\d+)\.\d+\.)")
_LINEAR = r"lins?\.?0\.model\.[01]\.weight"
_OF_LPIPS = by_names(
    {
        "LPIPS module, backbone and linear weights": (_LINEAR, r"net\.slice1\.0\.weight"),
        "LPIPS linear weights": (_LINEAR,),
    }
)


def _recognise(shapes: Shapes) -> str | None:
    net = net_of(_WRAPPER.sub("", name) for name in shapes)
    return _OF_LPIPS(shapes) or (None if net is None else _NETS[net])


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="SOURCE",
        nargs="?",
        help="torchvision file of the network, or a saved LPIPS module; default: downloaded",
    )
    parser.add_argument("--net", required=True, choices=sorted(BACKBONES))
    parser.add_argument("--version", choices=sorted(VERSIONS), default="0.1")
    linear = parser.add_mutually_exclusive_group()
    linear.add_argument(
        "--linear",
        metavar="FILE",
        help="file with linear weights, or the wheel of lpips; default: the linear weights in "
        "SOURCE if it is a saved LPIPS module, else downloaded",
    )
    linear.add_argument(
        "--no-linear", action="store_true", help="no linear weights: plain sums over channels"
    )
    add_choice(parser)


def _convert(options: argparse.Namespace, open_file: Opener) -> str:
    check_output(options.out, *filter(None, (options.source, options.linear)))
    sources = collect(
        options.net,
        options.version,
        open_file,
        source=options.source,
        linear_source=options.linear,
        with_linear=not options.no_linear,
        network=options.network,
    )
    config, params = from_state_dicts(
        options.net, sources.backbone, sources.linear, options.version
    )
    write_perceptual(options.out, "lpips", config, params, sources.origin)
    return options.out


NETWORK = Network(
    words="LPIPS distance: network and linear weights",
    add_arguments=_add_arguments,
    convert=_convert,
    recognise=_recognise,
)
