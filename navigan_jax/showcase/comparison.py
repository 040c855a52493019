"""`comparison.png`: each photograph beside what a generator makes of it, and the difference."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from navigan_jax.array_types import Float
from navigan_jax.checkpoints import atomic_output
from navigan_jax.showcase import base, grid

_PAPER, _INK, _MUTED = (255, 255, 255), (24, 24, 27), (113, 113, 122)
_MARGIN, _GAP, _HEAD = 24, 6, 34
_SMALLEST, _LARGEST = 128, 256  # pixels of a cell's longer side
_MOST_ROWS = 40


class Row(NamedTuple):
    """One photograph: its part that is shown, and (title, image) of the images beside it.

    The first image is the reconstruction.
    """

    label: str
    photograph: Float[np.ndarray, "height width channels"]
    images: tuple[tuple[str, Float[np.ndarray, "height width channels"]], ...]


def write_comparison(path: str | os.PathLike[str], rows: Sequence[Row]) -> None:
    """Writes the picture: photograph, reconstruction, absolute difference, and other images.

    All rows have the same titles. The sheet ends after 40 photographs, and says so.
    Raises: InputError as `atomic_output`.
    """
    shown = rows[:_MOST_ROWS]
    titles = ["photograph", "reconstruction", "difference", *(t for t, _ in rows[0].images[1:])]
    height, width = rows[0].photograph.shape[:2]
    scale = max(1, -(-_SMALLEST // max(height, width)))
    shrink = min(1.0, _LARGEST / max(height, width))
    tall, wide = round(height * scale * shrink), round(width * scale * shrink)
    line = 22  # for the name below each row
    size = (
        2 * _MARGIN + len(titles) * (wide + _GAP) - _GAP,
        2 * _MARGIN + _HEAD + len(shown) * (tall + line + _GAP) + (line if shown != rows else 0),
    )
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        text = grid.shorten(title, wide, grid.font(13, bold=True))
        at = (_MARGIN + column * (wide + _GAP), _MARGIN)
        pen.text(at, text, font=grid.font(13, bold=True), fill=_INK)
    for number, row in enumerate(shown):
        top = _MARGIN + _HEAD + number * (tall + line + _GAP)
        for column, cell in enumerate(_cells(row)):
            picture = grid.resize(cell, tall, wide)
            sheet.paste(picture, (_MARGIN + column * (wide + _GAP), top))
        name = grid.shorten(row.label, size[0] - 2 * _MARGIN, grid.font(12))
        pen.text((_MARGIN, top + tall + 4), name, font=grid.font(12), fill=_MUTED)
    if len(rows) > len(shown):
        text = f"and {len(rows) - len(shown)} more photographs"
        pen.text((_MARGIN, size[1] - _MARGIN - line), text, font=grid.font(12), fill=_MUTED)
    with atomic_output(path) as temporary:
        sheet.save(temporary, format="PNG")


def _cells(row: Row) -> list[np.ndarray]:
    """Returns the cells of a row as bytes."""
    photograph = base.to_rgb(row.photograph)
    images = [base.to_rgb(image) for _, image in row.images]
    difference = np.abs(photograph.astype(np.int16) - images[0].astype(np.int16)).astype(np.uint8)
    return [photograph, images[0], difference, *images[1:]]
