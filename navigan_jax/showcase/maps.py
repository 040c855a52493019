"""`maps.png`: where directions act, one row for each direction.

From left to right: the map of change, averaged over latents and shifts, from black (no change) to
pale yellow (the largest change of this direction, stated beside it); the map laid over samples; one
sample at −s, the original and +s; the map of change of that sample.
"""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import colormaps
from PIL import Image, ImageDraw

from navigan_jax.checkpoints import atomic_output
from navigan_jax.showcase import base
from navigan_jax.showcase.grid import font, resize, shorten

MAX_ROWS = 64
MAX_SAMPLES = 4

_CELL = 128  # pixels
_PAPER, _INK, _MUTED, _RULE = (255, 255, 255), (24, 24, 27), (113, 113, 122), (228, 228, 231)
_MARGIN, _LABEL, _GAP, _APART, _GROUP, _HEAD, _FOOT = 32, 196, 2, 22, 20, 112, 44
_COLOURS = "inferno"


@dataclasses.dataclass(frozen=True, eq=False)
class MapRow:
    """The content of one row.

    change: mean squared change of each pixel, pixels from 0 to 1. half_area: the share of pixels
    that holds half of the change. samples: originals. triple: one sample at −s, original, +s.
    difference: mean squared change of that sample. Images are in [-1, 1].
    """

    name: str
    change: Float[np.ndarray, "height width"]
    half_area: float
    samples: Float[np.ndarray, "samples height width channels"]
    triple: Float[np.ndarray, "3 height width channels"]
    difference: Float[np.ndarray, "height width"]


def colour(values: Float[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width 3"]:
    """Returns a map in colours, as bytes; the largest value is the brightest."""
    largest = float(values.max())
    share = values / largest if largest > 0 else np.zeros_like(values)
    # The root, so that brightness is proportional to the change, not to its square.
    return colormaps[_COLOURS](np.sqrt(share), bytes=True)[..., :3]


def overlay(
    image: Float[np.ndarray, "height width channels"], values: Float[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """Returns the image in grey, tinted by the map: the more change, the less of the image."""
    grey = base.to_rgb(image).astype(np.float64).mean(axis=2, keepdims=True)
    largest = float(values.max())
    share = np.sqrt(values / largest if largest > 0 else np.zeros_like(values))[..., None]
    tint = colour(values).astype(np.float64)
    return np.rint((1 - 0.75 * share) * grey + 0.75 * share * tint).astype(np.uint8)


def draw_maps(rows: Sequence[MapRow], title: str, subtitle: str) -> Image.Image:
    """Returns the sheet; see the head of this file."""
    rows = rows[:MAX_ROWS]
    samples = min(len(rows[0].samples), MAX_SAMPLES)
    columns = 1 + samples + 4
    lefts = [_MARGIN + _LABEL]
    for column in range(1, columns):
        apart = _APART if column in (1, 1 + samples) else _GAP
        lefts.append(lefts[-1] + _CELL + apart)
    size = (lefts[-1] + _CELL + _MARGIN, _HEAD + len(rows) * (_CELL + _GROUP) + _FOOT)
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    room = size[0] - 2 * _MARGIN
    draw.text((_MARGIN, 24), shorten(title, room, font(22, bold=True)), _INK, font(22, bold=True))
    draw.text((_MARGIN, 56), shorten(subtitle, room, font(14)), _MUTED, font(14))
    names = {0: "mean", 1: "over samples"}
    names |= {1 + samples + i: name for i, name in enumerate(("−s", "original", "+s", "change"))}
    for column, name in names.items():
        place = (lefts[column] + (0 if column == 1 else _CELL / 2), _HEAD - 10)
        draw.text(place, name, _MUTED, font(13), anchor="ls" if column == 1 else "ms")
    for number, row in enumerate(rows):
        top = _HEAD + number * (_CELL + _GROUP)
        _draw_label(draw, row, top)
        cells = [
            colour(row.change),
            *(overlay(image, row.change) for image in row.samples[:samples]),
            *base.to_rgb(row.triple),
            colour(row.difference),
        ]
        for left, cell in zip(lefts, cells, strict=True):
            sheet.paste(_fit(cell), (left, top))
    key = (
        "Change: root of the mean squared change, in % of the range of pixel values. "
        "Each map is brightest where its change is largest."
    )
    draw.text((_MARGIN, size[1] - _FOOT + 6), shorten(key, room, font(13)), _MUTED, font(13))
    return sheet


def _fit(cell: UInt8[np.ndarray, "height width 3"]) -> Image.Image:
    longest = max(cell.shape[:2])
    return resize(cell, cell.shape[0] * _CELL // longest, cell.shape[1] * _CELL // longest)


def _draw_label(draw: ImageDraw.ImageDraw, row: MapRow, top: int) -> None:
    draw.line((_MARGIN, top - 1, _MARGIN + _LABEL - 24, top - 1), fill=_RULE)
    heading = font(16, bold=True)
    draw.text((_MARGIN, top + 8), shorten(row.name, _LABEL - 20, heading), _INK, heading)
    lines = [
        f"mean change {_percent(row.change.mean())}",
        f"largest {_percent(row.change.max())}",
        "half of the change",
        f"on {row.half_area:.0%} of the pixels",
    ]
    for number, line in enumerate(lines):
        draw.text((_MARGIN, top + 34 + 17 * number), line, _MUTED, font(13))


def _percent(change: float) -> str:
    """Returns the root of a mean squared change in % of the range of pixels."""
    return f"{base.format_number(100 * float(np.sqrt(change)))}%"


def write_maps(
    path: str | os.PathLike[str], rows: Sequence[MapRow], title: str, subtitle: str
) -> None:
    """Writes the sheet as PNG.

    Raises: InputError if the file cannot be written.
    """
    sheet = draw_maps(rows, title, subtitle)
    with atomic_output(path) as temporary:
        sheet.save(temporary, format="PNG")
