"""Generators by name: constructors that take the architecture's sizes as keywords."""

from collections.abc import Callable, Mapping

from navigan_jax.generators.base import Generator
from navigan_jax.generators.biggan import biggan, biggan_deep
from navigan_jax.generators.dcgan import dcgan
from navigan_jax.generators.pix2pixhd import pix2pixhd
from navigan_jax.generators.proggan import proggan
from navigan_jax.generators.sngan import sngan
from navigan_jax.generators.stylegan2.network import stylegan2

ARCHITECTURES: Mapping[str, Callable[..., Generator]] = {
    "dcgan": dcgan,
    "stylegan2": stylegan2,
    "sngan": sngan,
    "proggan": proggan,
    "biggan": biggan,
    "biggan_deep": biggan_deep,
    "pix2pixhd": pix2pixhd,
}
