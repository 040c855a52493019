"""Recipes: an edit as data that can be saved, sent and repeated.

A recipe names the generator, the samples, the directions with their shifts, and the mixing and
truncation of the latents. `editing.recipe_files` writes it as JSON; `editing.rendering` makes its
images.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from navigan_jax.array_types import Array, Float
from navigan_jax.errors import InputError

EASINGS = ("sine", "smooth", "linear")

_MOST_INDEX = 2**16 - 1  # drawing a sample also draws all samples before it


def to_tuples(values: Any) -> Any:
    return tuple(map(to_tuples, values)) if isinstance(values, list | tuple) else values


def _require_int(name: str, value: Any, most: int, least: int = 0) -> None:
    if type(value) is not int or not least <= value <= most:
        raise misfit(name, f"a whole number from {least} to {most}", value)


def _require_number(name: str, value: Any) -> None:
    # A whole number of JSON may be larger than any float, so functions of floats would fail on it.
    if type(value) not in (int, float) or not -1e30 <= value <= 1e30:
        raise misfit(name, "a finite number", value)


def _require_text(name: str, value: Any, *, may_be_empty: bool = False) -> None:
    if not isinstance(value, str) or not (value or may_be_empty) or not value.isprintable():
        raise misfit(name, "one line of text", value)


def misfit(name: str, expected: str, value: Any) -> InputError:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return InputError(f"{name}: expected {expected}; got {shown}; change it in the recipe")


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A sample of a seed: row `index` of `generator.sample_latents(key(seed), ...)`."""

    seed: int
    index: int = 0

    def __post_init__(self) -> None:
        _require_int("seed", self.seed, 2**32 - 1)
        _require_int("index", self.index, _MOST_INDEX)

    def to_json(self) -> dict[str, Any]:
        return {"seed": self.seed, "index": self.index}


@dataclasses.dataclass(frozen=True)
class Given:
    """A latent as numbers.

    space: "z" or "w_plus". values: z in the shape of the generator's latents, such as [latent] with
    the label appended if the generator takes labels, or w_plus as [rows, w]; nested tuples.
    """

    space: str
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if self.space not in ("z", "w_plus"):
            raise misfit("latent", "z or w_plus", self.space)
        ranks = (1, 2, 3) if self.space == "z" else (2,)
        try:
            with np.errstate(over="ignore"):  # an overflow gives infinity, which is refused below
                array = np.asarray(self.values, np.float64).astype(np.float32)
        except (ValueError, TypeError, OverflowError):
            array = np.zeros((), np.float32)
        if array.ndim not in ranks or not array.size or not np.isfinite(array).all():
            depth = " or ".join(map(str, ranks))
            raise misfit(self.space, f"finite numbers of float32, nested {depth} deep", self.values)

    @classmethod
    def of(cls, space: str, array: Float[Array | np.ndarray, "..."]) -> "Given":
        """Returns the array as a latent; float32 values are kept to the bit."""
        return cls(space, to_tuples(np.asarray(array).tolist()))

    def to_json(self) -> dict[str, Any]:
        return {self.space: self.values}


@dataclasses.dataclass(frozen=True)
class Photo:
    """A photograph that was found in the generator: its latent, and its own change of the weights.

    photographs: digest of the inverted photographs; only the digest identifies them. index: of the
    photograph among them. file: their path, relative to the recipe; it only helps people.
    """

    photographs: str
    index: int
    file: str = ""

    def __post_init__(self) -> None:
        _require_text("photographs", self.photographs)
        _require_int("index", self.index, 2**31 - 1)
        _require_text("file", self.file, may_be_empty=True)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


Sample = Drawn | Given | Photo


@dataclasses.dataclass(frozen=True)
class Move:
    """One direction and its shift.

    directions: digest of the directions; only the digest identifies them. index: of the direction
    among them. shift: t, in units of ‖ξ‖. file: path of the directions, relative to the recipe.
    name: the direction's name in the notes. file and name only help people.
    """

    directions: str
    index: int
    shift: float
    file: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        _require_text("directions", self.directions)
        _require_int("index", self.index, 2**31 - 1)
        _require_number("shift", self.shift)
        _require_text("file", self.file, may_be_empty=True)
        _require_text("name", self.name, may_be_empty=True)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Mix:
    """Style mixing: w ← w + amount · (source − w), in the chosen rows of w_plus.

    rows: None means the whole latent. samples: which samples of the recipe are mixed; None: all.
    """

    source: Sample
    rows: tuple[int, ...] | None = None
    amount: float = 1.0
    samples: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _require_number("amount", self.amount)
        for name, places in (("rows", self.rows), ("samples", self.samples)):
            for place in () if places is None else places:
                _require_int(name, place, 2**31 - 1)

    def to_json(self) -> dict[str, Any]:
        rows = None if self.rows is None else list(self.rows)
        samples = None if self.samples is None else list(self.samples)
        return {
            "source": self.source.to_json(),
            "rows": rows,
            "amount": self.amount,
            "samples": samples,
        }


@dataclasses.dataclass(frozen=True)
class Video:
    """A video: all shifts times a factor from `start` to `stop`, and back if `returns`."""

    start: float = -1.0
    stop: float = 1.0
    seconds: float = 4.0
    frames_per_second: int = 25
    easing: str = "sine"
    returns: bool = True

    def __post_init__(self) -> None:
        for name in ("start", "stop", "seconds"):
            _require_number(name, getattr(self, name))
        _require_int("frames_per_second", self.frames_per_second, 60, least=1)
        if not 0.2 <= self.seconds <= 120:
            raise misfit("seconds", "0.2 to 120", self.seconds)
        if self.easing not in EASINGS:
            raise misfit("easing", f"one of {', '.join(EASINGS)}", self.easing)
        if not isinstance(self.returns, bool):
            raise misfit("returns", "true or false", self.returns)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Synthesis:
    """Settings of the generator, named like the keys config.synthesis; None: the default.

    truncation: of drawn latents, before mixing; the truncation of the recipe comes after mixing.
    """

    truncation: float | None = None
    truncation_cutoff: int | None = None
    noise: str | None = None
    noise_seed: int | None = None
    label: str | None = None
    precision: str | None = None

    def __post_init__(self) -> None:
        for name, value in self.to_json().items():
            if name == "truncation":
                _require_number(name, value)
            elif name in ("truncation_cutoff", "noise_seed"):
                _require_int(name, value, 2**32 - 1)
            else:
                _require_text(name, value)

    def to_json(self) -> dict[str, Any]:
        table = dataclasses.asdict(self)
        return {name: value for name, value in table.items() if value is not None}

    def with_changes(self, other: "Synthesis") -> "Synthesis":
        """Returns these settings, replaced by those that `other` sets."""
        return Synthesis(**(self.to_json() | other.to_json()))

    def options(self) -> dict[str, Any]:
        """Returns the settings as keyword arguments of the generator's constructor."""
        return self.to_json()


AS_IT_IS = Synthesis()


@dataclasses.dataclass(frozen=True)
class Recipe:
    """An edit of some samples of one generator.

    generator: the digest of its weights. truncation: ψ; 1 means no truncation. enlarge: integer
    factor by which written pictures are enlarged along each side. synthesis: settings of the
    generator that `render` is called with.
    """

    generator: str
    samples: tuple[Sample, ...]
    moves: tuple[Move, ...] = ()
    mixes: tuple[Mix, ...] = ()
    truncation: float = 1.0
    enlarge: int = 1
    video: Video | None = None
    synthesis: Synthesis = AS_IT_IS

    def __post_init__(self) -> None:
        _require_text("generator", self.generator)
        _require_number("truncation", self.truncation)
        _require_int("enlarge", self.enlarge, 64, least=1)
        if not self.samples:
            raise misfit("samples", "one or more", [])
        places = {place for mix in self.mixes for place in mix.samples or ()}
        if places - set(range(len(self.samples))):
            allowed = f"places in the list of samples, 0 to {len(self.samples) - 1}"
            raise misfit("mixes: samples", allowed, sorted(places))

    def scaled(self, factor: float) -> "Recipe":
        """Returns the recipe with all shifts multiplied by a factor."""
        moves = tuple(dataclasses.replace(m, shift=factor * m.shift) for m in self.moves)
        return dataclasses.replace(self, moves=moves)

    def mixes_of(self, place: int) -> tuple[Mix, ...]:
        """Returns the mixes that apply to sample number `place`."""
        return tuple(mix for mix in self.mixes if mix.samples is None or place in mix.samples)

    def original(self) -> "Recipe":
        """Returns the recipe of the originals: the same latents, no shifts."""
        return dataclasses.replace(self, moves=())


def photographs_of(recipe: Recipe) -> tuple[Photo, ...]:
    """Returns all photographs that the recipe names, those of its mixes too."""
    samples = (*recipe.samples, *(mix.source for mix in recipe.mixes))
    return tuple(sample for sample in samples if isinstance(sample, Photo))


def files_of(recipe: Recipe) -> Sequence[str]:
    """Returns the directions files that the recipe names, each once."""
    return list(dict.fromkeys(move.file for move in recipe.moves if move.file))
