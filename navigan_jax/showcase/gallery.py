"""`gallery.html`: one self-contained page with a card and a slider for each direction.

The frames of a direction are one JPEG sheet (samples down, steps across) inside the page; the
script copies cells of the sheet to a canvas. Colours are stored at full resolution: at 64 pixels,
halving it costs more than a lower quality does. The page's content security policy admits only its
own script and style, by their digests, and no network, so no text in it can run or load anything.

A card that first scrolls into view moves to both ends once, so that its change is seen at a glance,
and then rests at the end with the larger change. If the system asks for reduced motion, it rests
there from the start.

The file stays under `MAX_BYTES`: first the quality is lowered, then steps are left out, then images
are reduced. The foot of the page states the choice.
"""

import base64
import dataclasses
import hashlib
import html
import importlib.resources
import io
import json
import math
import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from navigan_jax import channels
from navigan_jax.checkpoints import write_text
from navigan_jax.errors import InputError
from navigan_jax.notes import notes_to_json
from navigan_jax.showcase import base

MAX_BYTES = 15_000_000
MAX_DECODED_PIXELS = 80_000_000  # of all sheets; a browser needs 4 bytes for each
LARGEST_CELL = 256
_SMALLEST_CELL = 32
_QUALITIES = (90, 80, 65)
_SAME = 1e-6  # relative rounding error of the ends of shifts
_LONGEST_SHEET = 65_500  # pixels, the limit of JPEG

# A placeholder in a template: {{name}}.
MARK = re.compile(r"\{\{(\w+)\}\}")


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How the frames are stored."""

    height: int
    width: int
    columns: tuple[int, ...]  # the steps that are stored
    quality: int


def list_encodings(shape: tuple[int, ...]) -> Iterator[Encoding]:
    """Yields the possible encodings of frames of this shape, best first."""
    count, samples, steps, height, width, _ = shape
    longest = min(max(height, width), LARGEST_CELL)
    while True:
        size = base.display_size(height, width, smallest=1, largest=longest)
        limit = steps
        while True:
            columns = tuple(base.thin_steps(steps, limit))
            cells = samples * len(columns)
            fits = max(samples * size[0], len(columns) * size[1]) <= _LONGEST_SHEET
            if fits and count * cells * math.prod(size) <= MAX_DECODED_PIXELS:
                yield from (Encoding(*size, columns, quality) for quality in _QUALITIES)
            if limit <= 5:
                break
            limit = limit // 4 * 2 + 1
        if longest <= _SMALLEST_CELL:
            break
        longest = max(longest // 2, _SMALLEST_CELL)


def encode_sheet(
    frames: Float[np.ndarray, "samples steps height width channels"], encoding: Encoding
) -> bytes:
    """Returns the frames of a direction, samples by steps, as one JPEG sheet."""
    pixels = base.to_rgb(frames[:, list(encoding.columns)])
    samples, steps, height, width, _ = pixels.shape
    sheet = Image.fromarray(
        pixels.transpose(0, 2, 1, 3, 4).reshape(samples * height, steps * width, 3)
    )
    size = (steps * encoding.width, samples * encoding.height)
    if sheet.size != size:
        sheet = sheet.resize(size, Image.Resampling.BOX)  # a box filter never mixes two cells
    buffer = io.BytesIO()
    sheet.save(buffer, format="JPEG", quality=encoding.quality, subsampling=0)
    return buffer.getvalue()


def _encode_all(showcase: base.Showcase, encoding: Encoding) -> list[str] | None:
    """Returns the sheets in base64, or None if they are too large together."""
    sheets: list[str] = []
    total = 0
    for frames in showcase.frames:
        sheets.append(base64.b64encode(encode_sheet(frames, encoding)).decode("ascii"))
        total += len(sheets[-1])
        if total > MAX_BYTES:
            return None
    return sheets


def strongest_end(frames: Float[np.ndarray, "samples steps height width channels"]) -> int:
    """Returns 0 if the images differ more from the original at −s, 1 if at +s."""
    low, middle, high = (
        base.to_rgb(frames[:, step]).astype(np.int16)
        for step in (0, frames.shape[1] // 2, frames.shape[1] - 1)
    )
    return int(np.abs(high - middle).sum() >= np.abs(low - middle).sum())


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _data(showcase: base.Showcase, encoding: Encoding, sheets: list[str]) -> dict[str, Any]:
    """Returns the data of the page's script; numbers come twice, as values and as texts."""
    columns = list(encoding.columns)
    fractions = showcase.fractions[columns]
    return {
        "height": encoding.height,
        "width": encoding.width,
        "samples": showcase.frames.shape[1],
        "fractions": [round(float(fraction), 6) for fraction in fractions],
        "fractionNames": base.describe_fractions(fractions),
        "measures": list(showcase.directions[0].measures),
        "notes": {"digest": showcase.notes.digest, "file": notes_to_json(showcase.notes)},
        "directions": [
            {
                "index": record.index,
                "suggestion": record.suggestion,
                **{name: _known(value) for name, value in record.measures.items()},
                "scale": max(record.ends),
                "strongest": strongest_end(frames) * (len(columns) - 1),
                "texts": {
                    **{k: base.format_number(value) for k, value in record.measures.items()},
                    "scale": base.describe_ends(record.ends),
                    "equal": base.describe_ends(record.equal),
                    "distance": base.format_number(record.distance),
                    "plausible": base.describe_ends(record.plausible),
                },
                "plausible": [
                    _known(edge / end)
                    for edge, end in zip(record.plausible, record.ends, strict=True)
                ],
                "allShifts": [record.shifts[column] for column in columns],
                "shifts": [
                    base.format_number(record.shifts[column], signed=True) for column in columns
                ],
                "sheet": sheet,
            }
            for record, frames, sheet in zip(
                showcase.directions, showcase.frames, sheets, strict=True
            )
        ],
    }


def _note(showcase: base.Showcase, encoding: Encoding, sheets: list[str]) -> str:
    """Returns the line about the stored pictures: size, quality, and what was reduced."""
    _, _, steps, height, width, depth = showcase.frames.shape
    size = sum(len(sheet) for sheet in sheets) / 1e6
    note = (
        f"{encoding.width} × {encoding.height} pixels each, JPEG quality {encoding.quality}, "
        f"{size:.1f} MB in all"
    )
    reduced = ["a checkerboard shows transparency"] if channels.has_alpha(depth) else []
    if (encoding.height, encoding.width) != (height, width):
        reduced.append(f"reduced from {width} × {height} pixels")
    if len(encoding.columns) != steps:
        reduced.append(f"{len(encoding.columns)} of {steps} shifts kept")
    return "; ".join([note, *reduced])


def digest_of_text(text: str) -> str:
    """Returns the digest of a style or script, as a content security policy writes it."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _json(data: dict[str, Any]) -> str:
    """Returns JSON that is safe inside a script element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def part(name: str) -> str:
    """Returns the text of a file of this package, a part of a page."""
    return (importlib.resources.files(__package__) / name).read_text(encoding="utf-8")


def _how_far(showcase: base.Showcase) -> tuple[str, str]:
    """Returns two clauses of the help, each "" if it does not hold.

    The first: sliders reach beyond the effective range. The second: s is the smaller of equal
    change and the end of the effective range.
    """
    ends, equal, plausible = (
        np.array([getattr(record, name) for record in showcase.directions])
        for name in ("ends", "equal", "plausible")
    )
    is_beyond = (ends > plausible * (1 + _SAME)).any()
    is_smaller = np.allclose(ends, np.fmin(equal, plausible), rtol=_SAME, atol=0)
    return (
        "; the pale ends of a slider lie outside it" if is_beyond else "",
        ": to equal change, or to the end of the effective range if that comes first"
        if is_smaller
        else "",
    )


def _page(showcase: base.Showcase, encoding: Encoding, sheets: list[str]) -> str:
    style, script = part("gallery.css"), part("gallery_notes.js") + part("gallery.js")
    count, samples = len(sheets), showcase.frames.shape[1]
    facts = dict(showcase.provenance) | {"pictures": _note(showcase, encoding, sheets)}
    pale, smaller = _how_far(showcase)
    values = {
        "style": style,
        "script": script,
        "style_digest": digest_of_text(style),
        "script_digest": digest_of_text(script),
        "layer": html.escape(showcase.provenance["layer"]),
        "metric": html.escape(showcase.provenance["metric"]),
        "latents": html.escape(showcase.provenance["latents"]),
        "count": f"{count} direction{'' if count == 1 else 's'}",
        "samples": f"{samples} sample{'' if samples == 1 else 's'}",
        "pale": pale,
        "smaller": smaller,
        "last_step": str(len(encoding.columns) - 1),
        "data": _json(_data(showcase, encoding, sheets)),
        "provenance": "\n".join(
            f"<div><dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd></div>"
            for key, value in facts.items()
        ),
    }
    return MARK.sub(lambda mark: values[mark[1]], part("gallery.html"))


def build_gallery(showcase: base.Showcase) -> str:
    """Returns the page; equal input gives equal text.

    Raises: InputError if the page is too large in every encoding.
    """
    for encoding in list_encodings(showcase.frames.shape):
        sheets = _encode_all(showcase, encoding)
        if sheets is not None:
            page = _page(showcase, encoding, sheets)
            if len(page.encode()) <= MAX_BYTES:
                return page
    count, samples = showcase.frames.shape[:2]
    raise InputError(
        f"gallery: expected to fit {MAX_BYTES / 1e6:g} MB; got {count} directions of {samples} "
        "samples, too many at the lowest quality; show fewer directions or samples"
    )


def write_gallery(path: str | os.PathLike[str], showcase: base.Showcase) -> None:
    """Writes the page.

    Raises: as `build_gallery`; InputError if the file cannot be written.
    """
    write_text(path, build_gallery(showcase))
