"""pix2pixHD: images from label maps; its network, its latents, and layouts made from a seed."""

from navigan_jax.generators.pix2pixhd.network import pix2pixhd

__all__ = ["pix2pixhd"]
