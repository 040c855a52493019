"""The input of all pictures: rendered frames, one record per direction, and the provenance.

Everything here is a plain array or a number; the other files of this package turn it into pictures.
1. Pixels are clamped before they become bytes: a bright pixel never wraps round to a dark one.
2. Images with alpha are shown over a checkerboard, as in image editors, so that no one mistakes
   transparency for a colour. Grey images are shown as RGB.
3. Each record holds the measures of its direction: signed eigenvalue, residual and others.
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, UInt8

from navigan_jax import channels
from navigan_jax.errors import InputError
from navigan_jax.notes import Note, Notes

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_BOARD = (13 / 15, 0.6)  # the two greys: bytes 238 and 204, both unlike white paper
_SQUARES = 16  # of the checkerboard along the shorter side, so that all sizes look alike
_SAME_STEPS = 1e-6  # rounding of float32 shifts, relative to the shift scale
REQUIRED_PROVENANCE = ("layer", "metric", "latents")


@dataclasses.dataclass(frozen=True)
class DirectionRecord:
    """What is known about one direction; NaN stands for a number that was not measured."""

    index: int  # k, the number in the directions file
    measures: Mapping[str, float]  # as `Directions.measures`, e.g. the eigenvalue
    shifts: tuple[float, ...]  # t of each step, in units of ‖ξ‖; ascending, 0 in the middle
    distance: float  # mean perceptual distance to the original at the shifts of equal change
    equal: tuple[float, float] = (math.nan, math.nan)  # |t| of equal change, for t < 0 and t > 0
    plausible: tuple[float, float] = (math.nan, math.nan)  # |t| of the ends of the effective range
    note: Note = dataclasses.field(default_factory=Note)  # name, star, good range, text
    suggestion: str = ""  # a name that gauges propose; shown where the note has none

    @property
    def name(self) -> str:
        """The name from the notes; may be empty."""
        return self.note.name

    @property
    def title(self) -> str:
        """The name, else the proposed name with a question mark, else "direction K"."""
        return self.note.name or self._proposed or f"direction {self.index}"

    @property
    def is_named(self) -> bool:
        """Whether the title is a name or a proposed name."""
        return bool(self.note.name or self.suggestion)

    @property
    def _proposed(self) -> str:
        return f"{self.suggestion} ?" if self.suggestion else ""

    @property
    def ends(self) -> tuple[float, float]:
        """s, the |t| of the outermost shifts, for t < 0 and t > 0."""
        return abs(self.shifts[0]), abs(self.shifts[-1])

    @property
    def fractions(self) -> Float[np.ndarray, "steps"]:
        """The shifts in units of s, the s of their side."""
        shifts = np.asarray(self.shifts)
        return shifts / np.where(shifts < 0, *self.ends)

    def shift_at(self, fraction: float) -> float:
        """Returns the shift t at a fraction of s, the s of that side."""
        low, high = self.ends
        return float(fraction * (low if fraction < 0 else high))


@dataclasses.dataclass(frozen=True, eq=False)
class Showcase:
    """Frames along each direction, in [-1, 1], with the original in the middle.

    provenance: names and values, printed unchanged; layer, metric and latents are required.
    notes: of all directions of the file, shown or not; without a digest pages hide the notes.
    Raises: ValueError if the parts do not match, InputError for non-finite frames.
    """

    frames: Float[np.ndarray, "directions samples steps height width channels"]
    directions: tuple[DirectionRecord, ...]
    provenance: Mapping[str, str]
    notes: Notes = dataclasses.field(default_factory=lambda: Notes(""))

    def __post_init__(self) -> None:
        if self.frames.ndim != 6 or 0 in self.frames.shape:
            raise ValueError(
                "frames: expected [directions, samples, steps, height, width, channels], all "
                f"above 0; got shape {self.frames.shape}"
            )
        count, _, steps, _, _, depth = self.frames.shape
        if depth not in channels.MEANINGS:
            raise ValueError(f"frames: expected {channels.describe()} channels; got {depth}")
        if len(self.directions) != count:
            raise ValueError(f"directions: expected {count} records; got {len(self.directions)}")
        for record in self.directions:
            _check_shifts(record, steps)
            if not np.allclose(
                record.fractions, self.directions[0].fractions, rtol=0, atol=_SAME_STEPS
            ):
                raise ValueError(
                    "shifts: expected the same fractions of s for all directions; "
                    f"got {record.fractions} for direction {record.index} and "
                    f"{self.directions[0].fractions} for direction {self.directions[0].index}"
                )
        missing = [key for key in REQUIRED_PROVENANCE if key not in self.provenance]
        if missing:
            raise ValueError(f"provenance: missing {missing}; got {list(self.provenance)}")
        _require_finite(self.frames)

    def first(self, count: int) -> "Showcase":
        """Returns the showcase of the first `count` directions."""
        return dataclasses.replace(
            self, frames=self.frames[:count], directions=self.directions[:count]
        )

    @property
    def fractions(self) -> Float[np.ndarray, "steps"]:
        """The shifts in units of s; they are the same for all directions."""
        return self.directions[0].fractions


def _check_shifts(record: DirectionRecord, steps: int) -> None:
    shifts = np.asarray(record.shifts)
    if steps < 3 or steps % 2 == 0 or shifts.shape != (steps,):
        raise ValueError(
            "shifts: expected an odd number of steps, 3 at least, and one shift for each; "
            f"got {steps} steps and {len(record.shifts)} shifts for direction {record.index}"
        )
    if not np.isfinite(shifts).all() or not (np.diff(shifts) > 0).all() or shifts[steps // 2] != 0:
        raise ValueError(
            "shifts: expected ascending finite numbers with 0 in the middle; "
            f"got {record.shifts} for direction {record.index}"
        )


def _require_finite(images: np.ndarray) -> None:
    finite = np.isfinite(images)
    if not finite.all():
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise InputError(
            f"images: expected finite pixels; got {np.count_nonzero(~finite)} that are NaN or "
            f"infinite, the first at {first} of {images.shape}; "
            "check the generator's weights, or use a smaller shift"
        )


def to_uint8(images: Float[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Returns pixels in [-1, 1] as bytes: clamped, then rounded to the nearest.

    Raises: TypeError if the pixels are not floats, InputError if one is NaN or infinite.
    """
    if not np.issubdtype(images.dtype, np.floating):
        raise TypeError(f"images: expected floats in [-1, 1]; got {images.dtype}")
    _require_finite(images)
    clamped = np.clip(images.astype(np.float32), -1.0, 1.0)
    return np.floor((clamped + 1.0) * 127.5 + 0.5).astype(np.uint8)


def checkerboard(height: int, width: int) -> Float[np.ndarray, "height width 1"]:
    """Returns the grey image that images with alpha are shown over."""
    side = max(1, round(min(height, width) / _SQUARES))
    rows, columns = np.arange(height) // side, np.arange(width) // side
    is_grey = (rows[:, None] + columns[None]) % 2
    return np.where(is_grey, *reversed(_BOARD)).astype(np.float32)[..., None]


def to_rgb(
    images: Float[np.ndarray, "*batch height width channels"],
) -> UInt8[np.ndarray, "*batch height width 3"]:
    """Returns bytes with three channels: grey repeated, images with alpha over a checkerboard.

    Raises: as `to_uint8`.
    """
    *_, height, width, depth = images.shape
    if channels.has_alpha(depth):
        _require_finite(images)
        clamped = np.clip(images.astype(np.float32), -1.0, 1.0)
        images = channels.over(clamped, checkerboard(height, width))
    pixels = to_uint8(images)
    return np.broadcast_to(pixels, (*pixels.shape[:-1], 3))


def spread_shifts(low: float, high: float, steps: int) -> tuple[float, ...]:
    """Returns shifts from -low to high, evenly spaced on each side of 0.

    low, high: above 0. steps: at least 2; if odd, the middle shift is exactly 0.
    """
    half = (steps - 1) / 2
    places = [step - half for step in range(steps)]
    return tuple((low if place < 0 else high) * place / half for place in places)


def thin_steps(steps: int, limit: int) -> list[int]:
    """Returns at most `limit` of the steps, evenly spread, with both ends and the middle.

    steps, limit: odd, at least 3.
    """
    half = steps // 2
    offsets = np.rint(np.linspace(0, half, min(half, limit // 2) + 1)).astype(int).tolist()
    return [half - offset for offset in reversed(offsets[1:])] + [half + o for o in offsets]


def display_size(height: int, width: int, *, smallest: int, largest: int) -> tuple[int, int]:
    """Returns height and width to show an image at: a whole multiple, or reduced if too large.

    smallest: pixels that the longer side reaches by a whole factor.
    largest: pixels that a longer side above them is reduced to.
    """
    longest = max(height, width)
    if longest > largest:
        return max(1, round(height * largest / longest)), max(1, round(width * largest / longest))
    factor = math.ceil(smallest / longest)
    return height * factor, width * factor


def format_number(value: float, *, signed: bool = False) -> str:
    """Returns the number with three significant digits, "–" for NaN.

    >>> [format_number(v) for v in (0.0, 0.01234, 12.0, 48123.4, -1.5e-7)]
    ['0', '0.0123', '12', '48100', '−1.5×10⁻⁷']
    """
    if math.isnan(value):
        return "–"
    sign = "−" if value < 0 else "+" if signed and value > 0 else ""
    size = abs(value)
    if math.isinf(size):
        return sign + "∞"
    if size == 0 or 1e-3 <= float(f"{size:.2e}") < 1e5:
        return sign + f"{float(f'{size:.2e}'):.10f}".rstrip("0").rstrip(".")
    mantissa, exponent = f"{size:.2e}".split("e")
    power = str(int(exponent)).translate(_SUPERSCRIPTS)
    return f"{sign}{mantissa.rstrip('0').rstrip('.')}×10{power}"


def format_tick(value: float) -> str:
    """Returns a tick label of a logarithmic axis: as `format_number`, but 10⁻⁶, not 1×10⁻⁶.

    >>> [format_tick(v) for v in (0.05, 100.0, 1e-6, 2e6)]
    ['0.05', '100', '10⁻⁶', '2×10⁶']
    """
    return format_number(value).removeprefix("1×")


def describe(provenance: Mapping[str, str]) -> str:
    """Returns the layer, the metric and the number of latents in one line."""
    layer, metric, latents = (provenance[key] for key in REQUIRED_PROVENANCE)
    return f"{layer}  ·  {metric}  ·  {latents} latents"


def describe_ends(ends: tuple[float, float]) -> str:
    """Returns a range around 0 as text; "–" if an end is not finite.

    >>> [describe_ends(ends) for ends in ((1.5, 9.0), (2.0, 2.0), (math.nan, 1.0))]
    ['−1.5 … +9', '±2', '–']
    """
    if not all(map(math.isfinite, ends)):
        return "–"
    low, high = (format_number(end, signed=True) for end in (-ends[0], ends[1]))
    return f"±{high[1:]}" if low[1:] == high[1:] != "" else f"{low} … {high}"


def describe_fractions(fractions: Float[np.ndarray, "steps"]) -> list[str]:
    """Returns the headings of columns: −s, −0.5 s, original, +0.5 s, +s."""
    names = []
    for fraction in fractions:
        number = format_number(round(fraction, 2), signed=True)
        names.append({"+1": "+s", "−1": "−s", "0": "original"}.get(number, f"{number} s"))
    return names
