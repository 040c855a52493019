"""Distances by name; "lpips" takes weights, the others need none."""

from collections.abc import Callable

from navigan_jax.perceptual import l2, lpips, nlpd
from navigan_jax.perceptual.base import Distance

METRICS: dict[str, Callable[..., Distance]] = {
    "nlpd": nlpd.NLPD,
    "l2": l2.L2,
    "lpips": lpips.create,
}
