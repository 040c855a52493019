"""The heat map of directions × factors: which direction changes which factor, and how purely.

A cell is the mean response of a factor, as a share of the largest response of its direction. Blue
falls with t, red grows. The bar at the right is the purity; proposed names are beside their rows.
"""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from navigan_jax.checkpoints import atomic_output

MAX_ROWS = 96
SUFFIXES = (".png", ".pdf")

_INK, _MUTED, _RULE, _ACCENT = "#18181b", "#71717a", "#e4e4e7", "#d95d10"
_ROW, _COLUMN = 0.24, 0.34  # inches
_LEFT, _RIGHT, _TOP, _BOTTOM = 2.6, 1.9, 2.0, 0.75  # inches


def draw_heat_map(
    labels: Sequence[str],
    factors: Sequence[str],
    response: Float[np.ndarray, "directions factors"],
    purity: Float[np.ndarray, "directions"],
    *,
    title: str,
    subtitle: str,
    threshold: float,
) -> Figure:
    """Returns the figure of the first `MAX_ROWS` directions.

    labels: of the rows. response: mean response, signed. threshold: the purity from which a name is
    proposed, drawn as a line.
    Raises: ValueError if the shapes do not fit.
    """
    if response.shape != (len(labels), len(factors)) or purity.shape != (len(labels),):
        raise ValueError(
            f"heat map: expected [{len(labels)}, {len(factors)}] responses and {len(labels)} "
            f"purities; got shapes {response.shape} and {purity.shape}"
        )
    labels, response, purity = labels[:MAX_ROWS], response[:MAX_ROWS], purity[:MAX_ROWS]
    rows, columns = response.shape
    wide, high = columns * _COLUMN, rows * _ROW
    size = (_LEFT + wide + _RIGHT, _TOP + high + _BOTTOM)
    figure = Figure(figsize=size, dpi=150, facecolor="white")
    FigureCanvasAgg(figure)

    def place(left: float, width: float) -> tuple[float, float, float, float]:
        return left / size[0], _BOTTOM / size[1], width / size[0], high / size[1]

    axes = figure.add_axes(place(_LEFT, wide))
    largest = np.abs(response).max(axis=1, keepdims=True)
    share = np.divide(response, largest, out=np.zeros_like(response), where=largest > 0)
    axes.imshow(share, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(columns), factors, rotation=60, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(rows), labels)
    axes.xaxis.tick_top()
    axes.set_xticks(np.arange(columns - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(rows - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.2)
    axes.tick_params(which="both", length=0, labelsize=8.5, colors=_INK)
    axes.spines[:].set_visible(False)
    bars = figure.add_axes(place(_LEFT + wide + 0.2, _RIGHT - 0.5), sharey=axes)
    colours = [_ACCENT if value >= threshold else _RULE for value in purity]
    bars.barh(range(rows), purity, color=colours, height=0.62)
    bars.axvline(threshold, color=_MUTED, linewidth=0.8, linestyle=":")
    for row, value in enumerate(purity):
        bars.text(0.03, row, f"{value:.2f}", va="center", fontsize=7.5, color=_INK)
    bars.set_xlim(0, 1)
    bars.set_xticks([])
    bars.tick_params(which="both", length=0, labelleft=False)
    bars.spines[:].set_visible(False)
    bars.set_title("purity", fontsize=8.5, color=_INK, pad=8)
    inch = 1 / size[1]
    figure.text(0.3 / size[0], 1 - 0.42 * inch, title, color=_INK, fontsize=14, fontweight="bold")
    figure.text(
        0.3 / size[0], 1 - 0.66 * inch, subtitle, color=_MUTED, fontsize=9, parse_math=False
    )
    figure.text(
        0.3 / size[0],
        0.3 * inch,
        "colour: response of the factor, as a share of the direction's largest; red grows with t, "
        "blue falls",
        color=_MUTED,
        fontsize=8,
    )
    return figure


def write_heat_map(path: str | os.PathLike[str], figure: Figure) -> None:
    """Writes the figure as PNG or PDF, after the suffix.

    Raises: InputError if the file cannot be written.
    """
    suffix = pathlib.Path(path).suffix
    nameless = {"Software": None} if suffix == ".png" else {"Creator": None, "CreationDate": None}
    with atomic_output(path) as temporary:
        figure.savefig(temporary, format=suffix[1:], metadata=nameless)
