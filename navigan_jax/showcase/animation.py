"""`directions.gif` and `directions.webp`: the first directions side by side, moving.

The shift follows one period of t = s·sin(φ) and repeats. Every frame is a rendered step, never a
blend of two. A step is shown while the sine is nearest to it, so the motion slows down towards −s
and +s. The files are bounded: at most `MAX_TILES` directions of `MAX_SAMPLES` samples, and smaller
images until the file fits `MAX_BYTES`.
"""

import io
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from navigan_jax.checkpoints import atomic_output
from navigan_jax.showcase import base
from navigan_jax.showcase.grid import ACCENT, font, resize, shorten

MAX_TILES = 8
MAX_SAMPLES = 4
MAX_STEPS = 25
MAX_BYTES = 8_000_000
SECONDS = 3.2  # one period

_CELLS = (96, 64, 48, 32)  # longer side of an image, pixels
_WEBP_QUALITY = 82
_THINNED = 4  # the palette is chosen from every fourth pixel of every fourth row
_PAPER, _INK, _MUTED, _RULE = (255, 255, 255), (24, 24, 27), (113, 113, 122), (212, 212, 216)
_MARGIN, _GAP, _CAPTION, _FOOT = 16, 2, 60, 12
_NARROWEST = 112  # pixels of a tile: room for a name


def plan_path(fractions: Float[np.ndarray, "steps"]) -> tuple[list[int], list[int]]:
    """Returns the steps of one period, from the original on, and the milliseconds of each.

    A step is shown while s·sin(φ) is nearer to it than to its neighbours. The times are whole
    hundredths of a second, which is the unit of GIF.
    """
    steps = len(fractions)
    middle = steps // 2
    rising = list(range(middle, steps - 1))
    falling = list(range(steps - 1, 0, -1))
    order = rising + falling + list(range(middle))
    # Phase of the borders between neighbouring steps, -π/2 and π/2 at the ends.
    borders = np.arcsin(np.clip((fractions[1:] + fractions[:-1]) / 2, -1, 1))
    phases = np.concatenate([[-math.pi / 2], borders, [math.pi / 2]])
    spent = np.diff(phases)
    spent[[0, -1]] *= 2  # a turning point is shown once, before and after the turn
    ticks = np.maximum(2, np.rint(spent / (2 * math.pi) * SECONDS * 100)).astype(int)
    return order, [int(ticks[step]) * 10 for step in order]


def draw_frames(showcase: base.Showcase, cell: int) -> tuple[list[Image.Image], list[int]]:
    """Returns the pictures and the duration of each in milliseconds.

    cell: the longer side of an image in pixels.
    """
    count, samples, steps, height, width, _ = showcase.frames.shape
    columns = base.thin_steps(steps, MAX_STEPS)
    fractions = showcase.fractions[columns]
    tiles, samples = min(count, MAX_TILES), min(samples, MAX_SAMPLES)
    high, wide = base.display_size(height, width, smallest=cell, largest=cell)
    pixels = base.to_rgb(showcase.frames[:tiles, :samples][:, :, columns])
    across = 2 if samples == 4 else samples  # images in a row of a tile
    down = math.ceil(samples / across)
    tile_width = max(_NARROWEST, across * (wide + _GAP) - _GAP)
    tile_height = down * (high + _GAP) - _GAP + _CAPTION
    per_row = math.ceil(tiles / math.ceil(tiles / 4))  # rows of equal length where possible
    rows = math.ceil(tiles / per_row)
    size = (
        per_row * (tile_width + _MARGIN) + _MARGIN,
        rows * (tile_height + _MARGIN) + _MARGIN + _FOOT,
    )
    order, durations = plan_path(fractions)
    pictures = []
    for step in order:
        picture = Image.new("RGB", size, _PAPER)
        draw = ImageDraw.Draw(picture)
        for k in range(tiles):
            left = _MARGIN + (k % per_row) * (tile_width + _MARGIN)
            top = _MARGIN + (k // per_row) * (tile_height + _MARGIN)
            for m in range(samples):
                corner = (left + m % across * (wide + _GAP), top + m // across * (high + _GAP))
                picture.paste(resize(pixels[k, m, step], high, wide), corner)
            bottom = top + tile_height - _CAPTION
            _draw_caption(draw, showcase.directions[k], fractions[step], left, bottom, tile_width)
        source = shorten(base.describe(showcase.provenance), size[0] - 2 * _MARGIN, font(11))
        draw.text((_MARGIN, size[1] - _MARGIN), source, _MUTED, font(11), anchor="ls")
        pictures.append(picture)
    return pictures, durations


def _draw_caption(
    draw: ImageDraw.ImageDraw,
    record: base.DirectionRecord,
    fraction: float,
    left: int,
    top: int,
    width: int,
) -> None:
    """Draws a scale from −s to +s that marks the current shift, and the direction's name."""
    y, middle, reach = top + 10, left + width / 2, width / 2 - 4
    draw.line((left, y, left + width - 1, y), fill=_RULE, width=2)
    draw.line((middle, y - 3, middle, y + 4), fill=_MUTED)
    x = middle + fraction * reach
    draw.line((middle, y, x, y), fill=ACCENT, width=2)
    draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=ACCENT)
    name, number = font(13, bold=True), font(11)
    label = shorten(record.title, width, name)
    shift = f"t = {base.format_number(record.shift_at(fraction), signed=True)}"
    draw.text((left, top + 34), label, _INK, name, anchor="ls")
    draw.text((left, top + 51), shift, _MUTED, number, anchor="ls")


def encode_gif(
    pictures: Sequence[Image.Image], durations: Sequence[int], order: Sequence[int] | None = None
) -> bytes:
    """Returns a GIF; one palette for all pictures and no dithering keep colours from flickering.

    order: which picture each frame shows; None: one after the other. durations: of the frames, in
    milliseconds.
    """
    width, height = pictures[0].size
    montage = Image.new("RGB", (width // _THINNED, height // _THINNED * len(pictures)))
    for i, picture in enumerate(pictures):
        thin = picture.resize((width // _THINNED, height // _THINNED), Image.Resampling.NEAREST)
        montage.paste(thin, (0, i * thin.height))
    palette = montage.quantize(256, Image.Quantize.MEDIANCUT, kmeans=1)
    colours = np.array(palette.getpalette()).reshape(-1, 3)
    colours[colours.sum(axis=1).argmax()] = _PAPER  # the average of near-whites is off-white
    palette.putpalette(colours.ravel().tolist())
    indexed = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    indexed = indexed if order is None else [indexed[step] for step in order]
    return _encode(indexed, format="GIF", duration=list(durations), loop=0, disposal=1)


def _encode_webp(pictures: Sequence[Image.Image], durations: Sequence[int]) -> bytes:
    return _encode(
        pictures, format="WEBP", duration=list(durations), loop=0, quality=_WEBP_QUALITY, method=4
    )


def _encode(pictures: Sequence[Image.Image], **settings: Any) -> bytes:
    buffer = io.BytesIO()
    pictures[0].save(buffer, save_all=True, append_images=pictures[1:], **settings)
    return buffer.getvalue()


_ENCODERS = {".gif": encode_gif, ".webp": _encode_webp}


def write_animation(path: str | os.PathLike[str], showcase: base.Showcase) -> None:
    """Writes the animation in the format of the suffix, `.gif` or `.webp`.

    Raises: ValueError for another suffix; InputError if the file cannot be written.
    """
    suffix = pathlib.Path(path).suffix
    if suffix not in _ENCODERS:
        raise ValueError(f"animation: expected one of {sorted(_ENCODERS)}; got {suffix!r}")
    for cell in _CELLS:
        data = _ENCODERS[suffix](*draw_frames(showcase, cell))
        if len(data) <= MAX_BYTES:
            break  # the smallest always fits: 8·4·32² pixels of images, 48 times, 12 bits: 2.4 MB
    with atomic_output(path) as temporary:
        temporary.write_bytes(data)
