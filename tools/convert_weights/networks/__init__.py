"""The kinds of networks that can be converted, by the name of their command.

To add one, write a file or a folder that declares a NETWORK, and add a line here.
"""

from collections.abc import Mapping

from tools.convert_weights.networks import (
    biggan,
    dcgan,
    latents,
    lpips,
    navigan,
    pix2pixhd,
    proggan,
    resnet,
    sngan,
    stylegan2,
)
from tools.convert_weights.networks.base import Network

# `inspect` tries them in this order, so special cases come before general ones.
NETWORKS: Mapping[str, Network] = {
    "navigan": navigan.NETWORK,
    "sngan": sngan.NETWORK,
    "proggan": proggan.NETWORK,
    "biggan": biggan.NETWORK,
    "biggan-deep": biggan.DEEP,
    "pix2pixhd": pix2pixhd.NETWORK,
    "stylegan2": stylegan2.NETWORK,
    "dcgan": dcgan.NETWORK,
    "lpips": lpips.NETWORK,
    "resnet18": resnet.NETWORK,
    "latents": latents.NETWORK,
}
