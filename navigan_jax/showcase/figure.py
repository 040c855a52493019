"""`figure.pdf`, a figure for a paper: for each direction, rows of samples at −s, original, +s.

The figure is as wide as the text of a two-column page. Its serif font is embedded, and its images
keep their resolution. LaTeX needs only `\\includegraphics[width=\\textwidth]{figure.pdf}`.
"""

import math
import os
from typing import Any

import numpy as np
from jaxtyping import UInt8
from matplotlib import rc_context
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure

from navigan_jax.checkpoints import atomic_output
from navigan_jax.showcase import base

WIDTH = 6.875  # inches: the text of a two-column page of most conferences
MAX_SAMPLES = 4

_PER_ROW = 4  # directions side by side
_GAP = 0.03  # between images, as a share of an image's width
_APART = 0.14  # between directions, inches
_HEAD = 0.34  # inches above the images of a direction, for its name and the signs
_SETTINGS: Any = {"font.family": "STIXGeneral", "mathtext.fontset": "stix", "pdf.fonttype": 42}


def draw_figure(showcase: base.Showcase) -> Figure:
    """Returns the figure; see the head of this file."""
    count, samples, steps, height, width, _ = showcase.frames.shape
    samples, columns = min(samples, MAX_SAMPLES), [0, steps // 2, steps - 1]
    per_row = min(count, _PER_ROW)
    rows = math.ceil(count / per_row)
    block = (WIDTH - (per_row - 1) * _APART) / per_row
    tall = block * _aspect(samples, len(columns), height, width)
    total = rows * (tall + _HEAD) + (rows - 1) * _APART
    figure = Figure(figsize=(WIDTH, total), facecolor="white")
    FigureCanvasPdf(figure)
    for number, record in enumerate(showcase.directions):
        row, place = divmod(number, per_row)
        left = place * (block + _APART)
        top = total - row * (tall + _HEAD + _APART)
        box = (left / WIDTH, (top - _HEAD - tall) / total, block / WIDTH, tall / total)
        axes = figure.add_axes(box)
        axes.set_axis_off()
        pixels = base.to_rgb(showcase.frames[number, :samples][:, columns])
        axes.imshow(_tile(pixels), interpolation="none", aspect="auto")
        name = record.title
        middle = (left + block / 2) / WIDTH
        figure.text(middle, (top - 0.12) / total, name, fontsize=9, ha="center", parse_math=False)
        for column, sign in enumerate(("−", "original", "+")):
            x = (left + block * (column + 0.5) / len(columns)) / WIDTH
            figure.text(x, (top - _HEAD + 0.04) / total, sign, fontsize=7.5, ha="center")
    return figure


def _aspect(rows: int, columns: int, height: int, width: int) -> float:
    gap = round(_GAP * width)
    return (rows * (height + gap) - gap) / (columns * (width + gap) - gap)


def _tile(
    pixels: UInt8[np.ndarray, "rows columns height width 3"],
) -> UInt8[np.ndarray, "tall wide 3"]:
    """Returns all images as one picture, with white gaps."""
    rows, columns, height, width, _ = pixels.shape
    gap = round(_GAP * width)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for row, column in np.ndindex(rows, columns):
        top, left = row * (height + gap), column * (width + gap)
        sheet[top : top + height, left : left + width] = pixels[row, column]
    return sheet


def write_figure(path: str | os.PathLike[str], showcase: base.Showcase) -> None:
    """Writes the figure as PDF; equal input gives equal bytes.

    Raises: InputError if the file cannot be written.
    """
    with rc_context(_SETTINGS):
        figure = draw_figure(showcase)
        with atomic_output(path) as temporary:
            figure.savefig(temporary, format="pdf", metadata={"CreationDate": None})
