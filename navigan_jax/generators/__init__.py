"""Generators by name: constructors that take the architecture's sizes as keywords."""

from navigan_jax.generators.dcgan import dcgan
from navigan_jax.generators.stylegan2 import stylegan2

ARCHITECTURES = {"dcgan": dcgan, "stylegan2": stylegan2}
