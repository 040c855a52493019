"""`gallery.png`: all directions on one sheet, with a row of images for each sample.

The shift runs from −s on the left to +s on the right; each side of each direction has its own s.
The original is framed in the middle. Small images are enlarged by a whole factor with repeated
pixels. The sheet is bounded: large images are reduced, many steps are thinned out, and past
`MAX_HEIGHT` first samples and then directions are left out. The foot of the sheet states this.
"""

import dataclasses
import functools
import math
import os
import pathlib

import matplotlib
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from navigan_jax import channels
from navigan_jax.checkpoints import atomic_output
from navigan_jax.showcase import base

MAX_HEIGHT = 10_000  # pixels; image viewers and browsers still show this height
MAX_SAMPLES = 4
MAX_STEPS = 11
SMALLEST_CELL = 96  # pixels; images of 64 become 128
LARGEST_CELL = 128

_PAPER, _INK, _MUTED, _RULE = (255, 255, 255), (24, 24, 27), (113, 113, 122), (228, 228, 231)
ACCENT = (217, 93, 16)
_MARGIN = 32
_LABEL = 196
_GAP = 2  # between images
_MIDDLE = 10  # around the original
_GROUP = 22  # between directions
_HEAD = 116
_FOOT = 56
_FRAME = 3
_LABEL_HEIGHT = 100
_SYMBOLS = {"eigenvalue": "λ"}  # other measures are labelled by their names
_NARROWEST = 880  # pixels of a sheet: room for the line at its foot


@functools.cache
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Returns the typeface of all pictures; it comes with matplotlib and has Greek letters."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(pathlib.Path(matplotlib.get_data_path(), "fonts/ttf", name), size)


def shorten(text: str, width: float, typeface: ImageFont.FreeTypeFont) -> str:
    """Returns the text, cut to the width with an ellipsis if it is too long."""
    text = " ".join(text.split())
    if typeface.getlength(text) <= width:
        return text
    while text and typeface.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def resize(image: UInt8[np.ndarray, "height width 3"], height: int, width: int) -> Image.Image:
    """Returns the image resized: enlarged by repeating pixels, reduced by a Lanczos filter."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    enlarged = height >= image.shape[0]
    return picture.resize(
        (width, height), Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS
    )


@dataclasses.dataclass(frozen=True)
class Layout:
    """Positions on a sheet, in pixels."""

    shown: int  # number of directions
    rows: int  # samples of each direction
    columns: tuple[int, ...]  # the steps that are shown
    cell_height: int
    cell_width: int

    @property
    def middle(self) -> int:
        """The column of the original."""
        return len(self.columns) // 2

    @property
    def group_height(self) -> int:
        """The distance from one direction to the next."""
        return max(self.rows * (self.cell_height + _GAP), _LABEL_HEIGHT) + _GROUP

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the sheet."""
        right = self.left(len(self.columns) - 1) + self.cell_width
        return max(_NARROWEST, right + _MARGIN), self.top(self.shown, 0) + _FOOT

    def left(self, column: int) -> int:
        """The left edge of a column; the original has wider gaps on both sides."""
        apart = _MIDDLE * ((column >= self.middle) + (column > self.middle))
        return _MARGIN + _LABEL + column * (self.cell_width + _GAP) + apart

    def top(self, direction: int, row: int) -> int:
        """The upper edge of a sample's row."""
        return _HEAD + direction * self.group_height + row * (self.cell_height + _GAP)


def plan_sheet(shape: tuple[int, ...]) -> Layout:
    """Returns the layout for frames of this shape; too many samples, then directions, are cut."""
    count, samples, steps, height, width, _ = shape
    columns = tuple(base.thin_steps(steps, MAX_STEPS))
    cell = base.display_size(height, width, smallest=SMALLEST_CELL, largest=LARGEST_CELL)
    layout = Layout(count, min(samples, MAX_SAMPLES), columns, *cell)
    while layout.size[1] > MAX_HEIGHT and layout.rows > 1:
        layout = dataclasses.replace(layout, rows=layout.rows - 1)
    while layout.size[1] > MAX_HEIGHT:
        layout = dataclasses.replace(layout, shown=layout.shown - 1)
    return layout


def draw_grid(showcase: base.Showcase) -> Image.Image:
    """Returns the sheet; see the head of this file."""
    layout = plan_sheet(showcase.frames.shape)
    sheet = Image.new("RGB", layout.size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    _draw_head(draw, showcase, layout)
    for i in range(layout.shown):
        _draw_label(draw, showcase.directions[i], layout.top(i, 0))
        pixels = base.to_rgb(showcase.frames[i, : layout.rows][:, list(layout.columns)])
        for row, column in np.ndindex(pixels.shape[:2]):
            cell = resize(pixels[row, column], layout.cell_height, layout.cell_width)
            sheet.paste(cell, (layout.left(column), layout.top(i, row)))
        _draw_frame(draw, layout, i)
    _draw_foot(draw, showcase, layout)
    return sheet


def _draw_head(draw: ImageDraw.ImageDraw, showcase: base.Showcase, layout: Layout) -> None:
    room = layout.size[0] - 2 * _MARGIN
    source, heading = showcase.provenance, font(22, bold=True)
    title = shorten(f"Directions of {source['layer']}", room, heading)
    draw.text((_MARGIN, 28), title, _INK, heading)
    count = len(showcase.directions)
    plural = "" if count == 1 else "s"
    subtitle = f"{count} direction{plural} · {source['metric']} · {source['latents']} latents"
    draw.text((_MARGIN, 60), shorten(subtitle, room, font(14)), _MUTED, font(14))
    names = base.describe_fractions(showcase.fractions[list(layout.columns)])
    for column, name in enumerate(names):
        is_original = column == layout.middle
        draw.text(
            (layout.left(column) + layout.cell_width / 2, _HEAD - 12),
            name,
            fill=ACCENT if is_original else _MUTED,
            font=font(13, bold=is_original),
            anchor="ms",
        )


def _draw_frame(draw: ImageDraw.ImageDraw, layout: Layout, direction: int) -> None:
    """Frames the originals of a direction, at a distance of a pixel."""
    reach = _FRAME + 1
    left, top = layout.left(layout.middle), layout.top(direction, 0)
    right = left + layout.cell_width - 1
    bottom = layout.top(direction, layout.rows - 1) + layout.cell_height - 1
    box = (left - reach, top - reach, right + reach, bottom + reach)
    draw.rectangle(box, outline=ACCENT, width=_FRAME)


def _draw_foot(draw: ImageDraw.ImageDraw, showcase: base.Showcase, layout: Layout) -> None:
    count, samples, steps = showcase.frames.shape[:3]
    kept = [
        (layout.shown, count, "directions"),
        (layout.rows, samples, "samples"),
        (len(layout.columns), steps, "shifts"),
    ]
    notes = [f"{shown} of {all_} {what}" for shown, all_, what in kept if shown < all_]
    note = f"Shown here: {', '.join(notes)}.  " if notes else ""
    key = "s: |t| of equal change, at distance d, or the end of the effective range if nearer."
    if "eigenvalue" in showcase.directions[0].measures:
        key = f"λ: eigenvalue.  {key}"
    if channels.has_alpha(showcase.frames.shape[-1]):
        key = f"{key}  Checkered: transparent."
    place = (_MARGIN, layout.size[1] - _FOOT + 8)
    draw.text(place, note + key, _MUTED, font(13))


def _draw_label(draw: ImageDraw.ImageDraw, record: base.DirectionRecord, top: int) -> None:
    draw.line((_MARGIN, top - 1, _MARGIN + _LABEL - 24, top - 1), fill=_RULE)
    heading = font(16, bold=True)
    title = record.title
    draw.text((_MARGIN, top + 8), shorten(title, _LABEL - 20, heading), _INK, heading)
    first, value = next(iter(record.measures.items()))
    lines = [
        f"{_SYMBOLS.get(first, first)} = {base.format_number(value)}",
        f"s = {base.describe_ends(record.ends)}",
    ]
    if not math.isnan(record.distance):
        lines.append(f"d = {base.format_number(record.distance)}")
    if record.is_named:
        lines.insert(0, f"direction {record.index}")
    for i, line in enumerate(lines):
        draw.text((_MARGIN, top + 32 + 17 * i), line, _MUTED, font(13))


def write_grid(path: str | os.PathLike[str], showcase: base.Showcase) -> None:
    """Writes the sheet as PNG.

    Raises: InputError if the file cannot be written.
    """
    sheet = draw_grid(showcase)
    with atomic_output(path) as temporary:
        sheet.save(temporary, format="PNG")
