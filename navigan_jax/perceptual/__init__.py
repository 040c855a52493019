"""Distances by name; "lpips" takes weights, the others need none."""

from navigan_jax.perceptual import l2, lpips, nlpd

METRICS = {"nlpd": nlpd.NLPD, "l2": l2.L2, "lpips": lpips.create}
