"""Both BigGANs: the one of its author's PyTorch program, and BigGAN-deep of Hugging Face."""

from navigan_jax.generators.biggan.deep import biggan_deep
from navigan_jax.generators.biggan.original import biggan

__all__ = ["biggan", "biggan_deep"]
