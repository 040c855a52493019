"""Generators by name: constructors that take the architecture's sizes as keywords."""

from navigan_jax.generators.dcgan import dcgan

ARCHITECTURES = {"dcgan": dcgan}
