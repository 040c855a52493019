"""Draws docs/discovery-comparison.png from the metrics of four runs; see docs/discovery-results.md.

  python -m docs.discovery_curves runs/compare

Run it from the root of the repository.
"""

import argparse
import json
import pathlib

from matplotlib.figure import Figure

from navigan_jax.directions import read_directions

RUNS = {
    "hybrid": "hybrid, trained",
    "spectrum": "spectrum, not trained",
    "svd": "singular values, trained",
    "random": "random, not trained",
}
COLOURS = ("#d95d10", "#18181b", "#2563eb", "#a1a1aa")
CHANCE = 1 / 16


def read_curves(folder: pathlib.Path) -> list[tuple[int, float, float]]:
    """Returns (step, accuracy, shift error as a share of T) of the held-out stream."""
    directions = read_directions(folder / "directions.safetensors", digest=None)
    scale = float(directions.provenance["shift_scale"])
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [
        (row["step"], row["held_out_accuracy"], row["held_out_shift_error"] / scale)
        for row in rows
        if "held_out_accuracy" in row
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    figure = Figure(figsize=(10, 3.8), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    for (name, label), colour in zip(RUNS.items(), COLOURS, strict=True):
        steps, accuracies, errors = zip(*read_curves(folder / name), strict=True)
        left.plot(steps, accuracies, "o-", color=colour, label=label)
        right.plot(steps, errors, "o-", color=colour, label=label)
    left.axhline(CHANCE, color="#71717a", linestyle=":", label="chance")
    left.set(title="held-out accuracy", xlabel="step", ylim=(0, 1))
    right.set(title="held-out mean |t̂ − t| / T", xlabel="step", ylim=(0, None))
    left.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e4e4e7")
    figure.savefig("docs/discovery-comparison.png")


if __name__ == "__main__":
    main()
