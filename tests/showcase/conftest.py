"""Showcases of smooth random images; the axes of each have different sizes."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from navigan_jax.notes import Note
from navigan_jax.showcase import base

PROVENANCE = {
    "layer": "conv2/kernel",
    "metric": "lpips",
    "latents": "512",
    "method": "Lanczos",
    "seed": "0",
    "weights digest": "3f9a0c1b",
}


def _smooth_images(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Returns different images in [-1, 1], made of one wave per channel."""
    *leading, height, width, channels = shape
    random = np.random.default_rng(seed)
    frequency = random.uniform(0.5, 3.0, (2, *leading, 1, 1, channels))
    phase = random.uniform(0, 2 * np.pi, (*leading, 1, 1, channels))
    rows = np.linspace(0, 1, height).reshape(-1, 1, 1)
    columns = np.linspace(0, 1, width).reshape(1, -1, 1)
    return np.sin(frequency[0] * rows + frequency[1] * columns + phase).astype(np.float32)


@pytest.fixture
def make_showcase() -> Callable[..., base.Showcase]:
    """Returns a function from sizes, names and provenance to a showcase."""

    def make(
        directions: int = 2,
        samples: int = 3,
        steps: int = 5,
        height: int = 10,
        width: int = 14,
        channels: int = 3,
        *,
        names: Mapping[int, str] | None = None,
        eigenvalue: float | None = None,
        provenance: Mapping[str, str] | None = None,
    ) -> base.Showcase:
        records = tuple(
            base.DirectionRecord(
                index=k,
                note=Note((names or {}).get(k, "")),
                measures={
                    "eigenvalue": 2.0 * 0.7**k if eigenvalue is None else eigenvalue,
                    "residual": 1e-3,
                },
                shifts=base.spread_shifts(2.0 * 1.2**k, 3.0 * 1.2**k, steps),
                distance=0.1,
            )
            for k in range(directions)
        )
        frames = _smooth_images((directions, samples, steps, height, width, channels), seed=0)
        return base.Showcase(frames, records, {**PROVENANCE, **(provenance or {})})

    return make
