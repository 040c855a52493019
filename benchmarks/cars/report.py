"""Makes tables and pictures of the experiment.

  python -m benchmarks.cars.report WORKDIR [--out DIR]

Reads what `benchmarks.cars.experiment` saved, for every seed in the workdir.
"""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.cars import scene, wheels
from benchmarks.cars.reading import PURE
from navigan_jax.checkpoints import atomic_output
from navigan_jax.directions import read_directions
from navigan_jax.evaluation.factors import Responses
from navigan_jax.showcase import base

_CONSISTENT = 0.5
_INK, _MUTED, _RULE = "#18181b", "#71717a", "#e4e4e7"
_WEIGHTS, _LATENTS = "#d95d10", "#2563eb"
_CELL = 128  # pixels of an image in the strip


@dataclasses.dataclass(frozen=True)
class Row:
    """One set of moves: the factors that pure moves change, and what finding them took."""

    place: str
    method: str
    seed: int
    covered: frozenset[str]
    pure: int
    purity: float
    seconds: float

    @property
    def duplicates(self) -> int:
        """Pure moves whose factor another one changes already."""
        return self.pure - len(self.covered)


def read_rows(folder: pathlib.Path, seed: int) -> list[Row]:
    """Returns the sets of one seed."""
    rows = []
    for path in sorted(folder.glob("*/*/responses.npz")):
        with np.load(path) as data:
            arrays = dict(data)
        arrays.pop("ends")
        found = Responses(**arrays)
        with np.load(path.parent / "basis.npz") as data:
            seconds = float(data["processor_seconds"])
        is_pure = (found.purity >= PURE) & (found.consistency >= _CONSISTENT)
        covered = frozenset(scene.NAMES[number] for number in found.largest[is_pure])
        rows.append(
            Row(
                place=path.parent.parent.name,
                method=path.parent.name,
                seed=seed,
                covered=covered,
                pure=int(is_pure.sum()),
                purity=float(found.purity.mean()),
                seconds=seconds,
            )
        )
    return rows


def _is_latent(place: str) -> bool:
    return "." not in place


def summarise(rows: Sequence[Row]) -> str:
    """Returns a Markdown table: one line for each method, over all layers, mean over seeds."""
    lines = [
        "| moves | sets | factors covered, all layers | best layer | mean purity | "
        "duplicates a set | processor seconds a set |",
        "|---|---|---|---|---|---|---|",
    ]
    families = dict.fromkeys(
        (row.place if _is_latent(row.place) else "weights", row.method) for row in rows
    )
    for family, method in sorted(families, key=lambda key: (key[0] != "weights", key)):
        own = [
            row
            for row in rows
            if row.method == method
            and (row.place if _is_latent(row.place) else "weights") == family
        ]
        seeds = sorted({row.seed for row in own})
        unions = [
            len(frozenset().union(*(row.covered for row in own if row.seed == seed)))
            for seed in seeds
        ]
        best = max(own, key=lambda row: (len(row.covered), row.purity))
        lines.append(
            f"| {family}, {method} | {len(own) // len(seeds)} | {_many(unions)} | "
            f"{best.place if family == 'weights' else ''} ({len(best.covered)}) | "
            f"{np.mean([row.purity for row in own]):.2f} | "
            f"{np.mean([row.duplicates for row in own]):.1f} | "
            f"{np.mean([row.seconds for row in own]):.1f} |"
        )
    return "\n".join(lines)


def by_layer(rows: Sequence[Row]) -> str:
    """Returns a Markdown table of layers × methods: factors covered (mean purity)."""
    weights = [row for row in rows if not _is_latent(row.place)]
    methods = sorted({row.method for row in weights})
    places = sorted({row.place for row in weights}, key=_order)
    lines = ["| layer | " + " | ".join(methods) + " |", "|---" * (len(methods) + 1) + "|"]
    for place in places:
        cells = []
        for method in methods:
            own = [row for row in weights if (row.place, row.method) == (place, method)]
            covered = _many([len(row.covered) for row in own])
            cells.append(f"{covered} ({np.mean([row.purity for row in own]):.2f})" if own else "–")
        lines.append(f"| {place.removeprefix('synthesis.')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def spectra(folder: pathlib.Path) -> str:
    """Returns a Markdown table of the spectra: seconds and largest residual, of each layer."""
    lines = ["| layer | distance | processor seconds | largest residual |", "|---|---|---|---|"]
    files = sorted(
        folder.glob("*/spectrum-*/directions.safetensors"),
        key=lambda path: (_order(path.parent.parent.name), path.parent.name),
    )
    for path in files:
        found = read_directions(path, digest=None)
        with np.load(path.parent / "basis.npz") as data:
            seconds = float(data["processor_seconds"])
        lines.append(
            f"| {path.parent.parent.name.removeprefix('synthesis.')} | "
            f"{path.parent.name.removeprefix('spectrum-')} | {seconds:.1f} | "
            f"{found.measures['residual'].max():.1e} |"
        )
    return "\n".join(lines)


def _order(place: str) -> tuple[int, str]:
    block, layer = place.split(".")[1:3]
    return int(block[1:]), layer


def _many(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def read_paths(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the paths of moves of the wheels, with their numbers."""
    found = json.loads((folder / "wheels.json").read_text())["paths"]
    return [{**row, "number": number + 1} for number, row in enumerate(found)]


def path_of(row: dict[str, Any]) -> wheels.Path:
    """Returns the path of a saved row."""
    shifts, radius, error = (tuple(row[name]) for name in ("shifts", "radius", "error"))
    return wheels.Path(row["label"], shifts, radius, error)


def wheel_table(rows: Sequence[dict[str, Any]], seed: int) -> str:
    """Returns a Markdown table of the moves, the widest range first."""
    lines = [
        f"| move | kind | radius, error up to × {wheels.QUALITY:g} | up to × {wheels.LOOSE:g} | "
        "seed |",
        "|---|---|---|---|---|",
    ]
    spans = {row["number"]: path_of(row).reach() for row in rows}
    for row in sorted(rows, key=lambda row: spans[row["number"]][0] - spans[row["number"]][1]):
        equal, loose = (
            " … ".join(f"{100 * end:+.0f} %" for end in path_of(row).reach(limit))
            for limit in (wheels.QUALITY, wheels.LOOSE)
        )
        lines.append(f"| {row['label']} | {row['kind']} | {equal} | {loose} | {seed} |")
    return "\n".join(lines)


def draw_paths(rows: Sequence[dict[str, Any]]) -> Figure:
    """Returns the figure: change of the radius against the error of the image, one line a move."""
    figure = Figure(figsize=(7.5, 4.6), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.1, 0.13, 0.86, 0.72))
    for row in rows:
        path = path_of(row)
        order = np.argsort(path.shifts)
        radius = 100 * (np.array(path.radius) / path.radius[0] - 1)[order]
        error = (np.array(path.error) / path.error[0])[order]
        is_weights = row["label"].startswith("synthesis")
        colour = _WEIGHTS if is_weights else _LATENTS
        style = {"single": "-", "combined": "--"}.get(row["kind"], ":")
        axes.plot(radius, error, style, color=colour, linewidth=1, alpha=0.75)
    axes.axhline(wheels.QUALITY, color=_MUTED, linewidth=0.8)
    axes.text(
        axes.get_xlim()[1],
        wheels.QUALITY,
        "equal quality ",
        ha="right",
        va="bottom",
        fontsize=8,
        color=_MUTED,
    )
    axes.set_ylim(0.8, 3)
    axes.set_xlabel("change of the wheel radius, %", color=_MUTED)
    axes.set_ylabel("distance to the nearest scene,\nin units of unedited images", color=_MUTED)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_MUTED, length=0)
    axes.grid(color=_RULE, linewidth=0.6)
    figure.text(0.1, 0.93, "Who can move the wheels?", fontsize=13, fontweight="bold", color=_INK)
    figure.text(
        0.1,
        0.885,
        "orange: weights, blue: latents; solid: one move, dashed: a combination, "
        "dotted: optimised for each image",
        fontsize=8.5,
        color=_MUTED,
    )
    return figure


def draw_strip(folder: pathlib.Path, row: dict[str, Any]) -> Image.Image:
    """Returns the images of one move: a row for each latent, t from left to right."""
    with np.load(folder / "wheels" / f"{row['number']}.npz") as data:
        images = data["images"].astype(np.float32)
    order = np.argsort(row["shifts"])
    pixels = base.to_rgb(np.clip(images[order], -1, 1)).swapaxes(0, 1)
    whole = np.concatenate([np.concatenate(list(line), axis=1) for line in pixels], axis=0)
    factor = _CELL // pixels.shape[2]
    return Image.fromarray(whole.repeat(factor, 0).repeat(factor, 1))


def best_of(rows: Sequence[dict[str, Any]], *, is_weights: bool) -> dict[str, Any]:
    """Returns the row with the widest range of radii at equal quality."""

    def span(row: dict[str, Any]) -> float:
        low, high = path_of(row).reach()
        return high - low

    own = [row for row in rows if row["label"].startswith("synthesis") == is_weights]
    return max(own, key=span)


def main() -> None:
    """Prints the tables and writes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, help="folder of the pictures; default: WORKDIR")
    options = parser.parse_args()
    out = options.out or options.workdir
    folders = sorted(options.workdir.glob("seed*"))
    rows = [row for folder in folders for row in read_rows(folder, int(folder.name[4:]))]
    print(summarise(rows), by_layer(rows), spectra(folders[0]), sep="\n\n")
    for folder in folders:
        if not (folder / "wheels.json").exists():
            continue
        paths = read_paths(folder)
        print("\n" + wheel_table(paths, int(folder.name[4:])))
        with atomic_output(out / f"wheels_{folder.name}.png") as temporary:
            draw_paths(paths).savefig(temporary, format="png", metadata={"Software": None})
        for name, is_weights in (("weights", True), ("latents", False)):
            strip = draw_strip(folder, best_of(paths, is_weights=is_weights))
            with atomic_output(out / f"wheels_{folder.name}_{name}.png") as temporary:
                strip.save(temporary, format="PNG")


if __name__ == "__main__":
    main()
