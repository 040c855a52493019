"""Pictures of the network of cars: rendered scenes beside generated ones, and the loss curve.

python -m benchmarks.cars.pictures --metrics runs/cars/metrics.jsonl --out benchmarks/cars
"""

import argparse
import json
import pathlib
from typing import Any

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.cars import scene
from navigan_jax.checkpoints import atomic_output
from navigan_jax.generators.files import read_generator
from navigan_jax.showcase import base

COLUMNS, ROWS = 8, 3
ENLARGED = 2
_SEED = 2026  # of latents that training never drew
_INK, _MUTED, _RULE, _ACCENT = "#18181b", "#71717a", "#e4e4e7", "#d95d10"


def draw_sheet(generator: str) -> Image.Image:
    """Returns rows of scenes, each above the row of their generated images."""
    network, params = read_generator(generator)
    z = network.sample_latents(jax.random.key(_SEED), COLUMNS * ROWS)
    real = np.asarray(scene.render(scene.from_latents(z), network.resolution))
    made = np.asarray(jax.jit(network.synthesize)(params, network.map_latent(params, z)))
    lines = []
    for row in range(ROWS):
        chosen = slice(row * COLUMNS, (row + 1) * COLUMNS)
        lines += [np.concatenate(list(base.to_rgb(part[chosen])), axis=1) for part in (real, made)]
        lines.append(np.full((6, lines[0].shape[1], 3), 255, np.uint8))
    whole = np.concatenate(lines[:-1], axis=0)
    return Image.fromarray(whole.repeat(ENLARGED, 0).repeat(ENLARGED, 1))


def draw_curve(rows: list[dict[str, Any]]) -> Figure:
    """Returns the held-out error against the number of training images."""
    figure = Figure(figsize=(6.4, 3.4), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.11, 0.16, 0.86, 0.74))
    images = np.array([row["images"] for row in rows]) / 1000
    axes.plot(images, [row["rmse"] for row in rows], color=_ACCENT)
    axes.set_ylim(0, None)
    axes.set_xlim(0, images[-1])
    axes.set_xlabel("training images, thousands", color=_MUTED)
    axes.set_ylabel("root mean square error", color=_MUTED)
    axes.grid(color=_RULE, linewidth=0.6)
    axes.tick_params(colors=_MUTED, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_title("512 held-out scenes, images in [−1, 1]", fontsize=10, color=_INK, loc="left")
    return figure


def main() -> None:
    """Writes sheet.png and curve.png."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--generator", default="cars", help="a generator file or a name")
    parser.add_argument("--metrics", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.metrics.read_text().splitlines()]
    with atomic_output(options.out / "curve.png") as temporary:
        draw_curve(rows).savefig(temporary, format="png", metadata={"Software": None})
    with atomic_output(options.out / "sheet.png") as temporary:
        draw_sheet(options.generator).save(temporary, format="PNG")
    print(f"wrote curve.png and sheet.png to {options.out}")


if __name__ == "__main__":
    main()
