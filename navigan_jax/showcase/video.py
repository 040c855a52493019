"""Videos (MP4, GIF) of edits along a path of shifts: a row for each edit, a tile for each sample.

A frame shows every row at the same point of the path, with its name and its current shift. A path
that returns shows the same frames on the way back. Every tile is a rendered image, enlarged by a
whole factor or reduced; no frame is interpolated.
"""

import dataclasses
import math
import os
import pathlib
import subprocess
from collections.abc import Iterator, Sequence

import imageio_ffmpeg
import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from navigan_jax.checkpoints import atomic_output
from navigan_jax.errors import InputError
from navigan_jax.showcase import base
from navigan_jax.showcase.animation import encode_gif
from navigan_jax.showcase.grid import ACCENT, font, resize, shorten

SUFFIXES = (".mp4", ".gif")
MAX_GIF_BYTES = 8_000_000
LARGEST_GIF_CELL = 128  # pixels: a GIF with larger tiles is slow to make and to load
LARGEST_SIDE = 1920  # pixels of a frame

LARGEST_CELL = 192  # longer side of a tile

_CELLS = (LARGEST_CELL, 128, 96, 64, 48, 32)
_PAPER, _INK, _MUTED, _RULE = (255, 255, 255), (24, 24, 27), (113, 113, 122), (212, 212, 216)
_MARGIN, _GAP, _HEAD, _BETWEEN, _FOOT = 20, 4, 34, 18, 30
_NARROWEST = 380  # pixels of a frame: room for a name and a scale
_CONSTANT_QUALITY = "17"  # rate factor of x264: no visible artefact in faces of 64 pixels


def ease(times: Float[np.ndarray, "frames"], easing: str) -> Float[np.ndarray, "frames"]:
    """Returns the progress along a path at each time; both go from 0 to 1.

    easing: "linear"; "sine" starts and ends slowly; "smooth" starts and ends more slowly.
    """
    if easing == "linear":
        return times
    if easing == "sine":
        return (1 - np.cos(math.pi * times)) / 2
    if easing == "smooth":
        return times**3 * (10 + times * (6 * times - 15))
    raise ValueError(f"easing: expected linear, sine or smooth; got {easing!r}")


def plan_path(
    start: float, stop: float, *, frames: int, easing: str, returns: bool
) -> tuple[Float[np.ndarray, "steps"], list[int]]:
    """Returns the factors of the shifts to render, and the index of the factor of each frame.

    frames: of the whole path. returns: the path goes back through the same factors. If the path
    crosses 0, then 0 is one of the factors, so that the original is shown.
    """
    steps = max(2, frames // 2 + 1 if returns else frames)
    factors = start + (stop - start) * ease(np.linspace(0, 1, steps), easing)
    if start * stop < 0:
        factors[np.argmin(np.abs(factors))] = 0.0
    order = list(range(steps))
    return factors, order + order[-2:0:-1] if returns else order


def describe_factors(factors: Float[np.ndarray, "steps"]) -> list[str]:
    """Returns the captions of an edit that is scaled by these factors.

    >>> describe_factors(np.array([-0.5, 0.0, 1.0]))
    ['−50%', 'original', '100%']
    """
    shares = (round(100 * float(factor)) for factor in factors)
    return [f"{base.format_number(share)}%" if share else "original" for share in shares]


@dataclasses.dataclass(frozen=True, eq=False)
class Strip:
    """One row of a video. images: in [-1, 1]. captions: one for each step."""

    name: str
    images: Float[np.ndarray, "steps samples height width channels"]
    captions: Sequence[str]


def draw_frames(
    strips: Sequence[Strip], factors: Float[np.ndarray, "steps"], source: str, *, cell: int
) -> Iterator[Image.Image]:
    """Yields a picture for each step; its sides are even numbers, as H.264 requires.

    cell: the longer side of a tile in pixels. source: a line for the foot.
    """
    _, samples, height, width, _ = strips[0].images.shape
    high, wide = _tile(height, width, cell)
    room = max(_NARROWEST, samples * (wide + _GAP) - _GAP)
    row = _HEAD + high + _BETWEEN
    size = (room + 2 * _MARGIN, len(strips) * row + _MARGIN + _FOOT)
    size = (size[0] + size[0] % 2, size[1] + size[1] % 2)
    pixels = [base.to_rgb(strip.images) for strip in strips]
    largest = max(abs(float(factors.min())), abs(float(factors.max())))
    left = _MARGIN + (room - samples * (wide + _GAP) + _GAP) // 2
    for step, factor in enumerate(factors):
        picture = Image.new("RGB", size, _PAPER)
        draw = ImageDraw.Draw(picture)
        for number, strip in enumerate(strips):
            top = _MARGIN + number * row
            _draw_head(draw, strip, step, float(factor) / largest, top, room)
            for sample in range(samples):
                tile = resize(pixels[number][step, sample], high, wide)
                picture.paste(tile, (left + sample * (wide + _GAP), top + _HEAD))
        foot = shorten(source, room, font(11))
        draw.text((_MARGIN, size[1] - 14), foot, _MUTED, font(11), anchor="ls")
        yield picture


def _tile(height: int, width: int, cell: int) -> tuple[int, int]:
    """Returns the size of a tile: the largest whole multiple of the image in the cell, or less."""
    factor = cell // max(height, width)
    if factor:
        return height * factor, width * factor
    return base.display_size(height, width, smallest=1, largest=cell)


def _draw_head(
    draw: ImageDraw.ImageDraw, strip: Strip, step: int, place: float, top: int, room: int
) -> None:
    """Draws the name on the left, and on the right a scale that marks the current shift."""
    reach = min(70, room // 5)
    middle, y = _MARGIN + room - reach - 4, top + 12
    typeface, small = font(15, bold=True), font(12)
    caption = strip.captions[step]
    stop = middle - reach - 12
    edge = stop - small.getlength(caption)
    # The widest caption decides, so that the name is cut alike at every step.
    widest = max(small.getlength(one) for one in strip.captions)
    name = shorten(strip.name, stop - widest - _MARGIN - 8, typeface)
    draw.text((_MARGIN, top + 18), name, _INK, typeface, anchor="ls")
    draw.text((edge, top + 17), caption, _MUTED, small, anchor="ls")
    draw.line((middle - reach, y, middle + reach, y), fill=_RULE, width=3)
    draw.line((middle, y - 4, middle, y + 4), fill=_MUTED)
    x = middle + place * reach
    draw.line((middle, y, x, y), fill=ACCENT, width=3)
    draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=ACCENT)


def _fitting_cells(strips: Sequence[Strip]) -> list[int]:
    """Returns the tile sizes with which a frame is not too large, largest first."""
    samples = strips[0].images.shape[1]
    fitting = [
        cell
        for cell in _CELLS
        if samples * (cell + _GAP) + 2 * _MARGIN <= LARGEST_SIDE
        and len(strips) * (cell + _HEAD + _BETWEEN) + _FOOT <= LARGEST_SIDE
    ]
    return fitting or [_CELLS[-1]]


def write_video(
    path: str | os.PathLike[str],
    strips: Sequence[Strip],
    factors: Float[np.ndarray, "steps"],
    order: Sequence[int],
    *,
    frames_per_second: int,
    source: str = "",
) -> None:
    """Writes the video in the format of the suffix, `.mp4` (H.264) or `.gif`.

    order: the step that each frame shows. In a GIF, times are whole hundredths of a second, and
    tiles shrink until the file fits `MAX_GIF_BYTES`.
    Raises: ValueError for another suffix; InputError if the file cannot be written.
    """
    suffix = pathlib.Path(path).suffix
    if suffix not in SUFFIXES:
        raise ValueError(f"video: expected one of {', '.join(SUFFIXES)}; got {suffix!r}")
    cells = _fitting_cells(strips)
    if suffix == ".mp4":
        pictures = list(draw_frames(strips, factors, source, cell=cells[0]))
        with atomic_output(path) as temporary:
            _encode_mp4(temporary, [pictures[step] for step in order], frames_per_second)
        return
    duration = 10 * max(2, round(100 / frames_per_second))
    for cell in [cell for cell in cells if cell <= LARGEST_GIF_CELL]:
        pictures = list(draw_frames(strips, factors, source, cell=cell))
        data = encode_gif(pictures, [duration] * len(order), order)
        if len(data) <= MAX_GIF_BYTES:
            break
    with atomic_output(path) as temporary:
        temporary.write_bytes(data)


def _encode_mp4(
    path: pathlib.Path, pictures: Sequence[Image.Image], frames_per_second: int
) -> None:
    """Writes H.264 with colours at half resolution (yuv420p), which all players show.

    The ffmpeg of imageio-ffmpeg is started here and not through that package, which forks: a fork
    of a process that runs JAX may hang.
    """
    width, height = pictures[0].size
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
    command += ["-r", str(frames_per_second), "-i", "-", "-an"]
    command += ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", _CONSTANT_QUALITY]
    command += ["-movflags", "+faststart", "-f", "mp4", str(path)]
    data = b"".join(picture.tobytes() for picture in pictures)
    result = subprocess.run(command, input=data, capture_output=True, check=False)
    if result.returncode:
        reason = result.stderr.decode(errors="replace").strip()[-200:]
        raise InputError(
            f"{path.parent}: expected to write a video; got {reason!r} from ffmpeg; check the "
            "disk, or write a .gif"
        )
