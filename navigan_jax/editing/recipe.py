"""Recipes: an edit written down.

A recipe says which generator, which samples, which directions with which shifts, and what is done
to the latents before. It is plain JSON, so that it can be kept, sent and read; `editing.rendering`
makes its images.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from navigan_jax.array_types import Array, Float
from navigan_jax.errors import InputError

EASINGS = ("sine", "smooth", "linear")

_MOST_INDEX = 2**16 - 1  # a sample is drawn together with those before it


def to_tuples(values: Any) -> Any:
    return tuple(map(to_tuples, values)) if isinstance(values, list | tuple) else values


def _require_int(name: str, value: Any, most: int, least: int = 0) -> None:
    if type(value) is not int or not least <= value <= most:
        raise misfit(name, f"a whole number from {least} to {most}", value)


def _require_number(name: str, value: Any) -> None:
    # A whole number of JSON may be larger than any float; so no function of floats sees it.
    if type(value) not in (int, float) or not -1e30 <= value <= 1e30:
        raise misfit(name, "a finite number", value)


def _require_text(name: str, value: Any, *, may_be_empty: bool = False) -> None:
    if not isinstance(value, str) or not (value or may_be_empty) or not value.isprintable():
        raise misfit(name, "a text of one line", value)


def misfit(name: str, expected: str, value: Any) -> InputError:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return InputError(f"{name}: expected {expected}; got {shown}; change it in the recipe")


@dataclasses.dataclass(frozen=True)
class Drawn:
    """The sample that row `index` of `generator.sample_latents(key(seed), ...)` is."""

    seed: int
    index: int = 0

    def __post_init__(self) -> None:
        _require_int("seed", self.seed, 2**32 - 1)
        _require_int("index", self.index, _MOST_INDEX)

    def to_json(self) -> dict[str, Any]:
        return {"seed": self.seed, "index": self.index}


@dataclasses.dataclass(frozen=True)
class Given:
    """A latent as numbers: z, with its label where there are labels, or w_plus with all its rows.

    space: "z" or "w_plus". values: [latent] or [rows, w], as nested tuples.
    """

    space: str
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if self.space not in ("z", "w_plus"):
            raise misfit("latent", "z or w_plus", self.space)
        rank = 1 if self.space == "z" else 2
        try:
            with np.errstate(over="ignore"):  # what is infinite then is refused
                array = np.asarray(self.values, np.float64).astype(np.float32)
        except (ValueError, TypeError, OverflowError):
            array = np.zeros((), np.float32)
        if array.ndim != rank or not array.size or not np.isfinite(array).all():
            raise misfit(self.space, f"finite numbers of float32, nested {rank} deep", self.values)

    @classmethod
    def of(cls, space: str, array: Float[Array | np.ndarray, "..."]) -> "Given":
        """Returns the latent in that array; every bit of a float32 is kept."""
        return cls(space, to_tuples(np.asarray(array).tolist()))

    def to_json(self) -> dict[str, Any]:
        return {self.space: self.values}


Sample = Drawn | Given


@dataclasses.dataclass(frozen=True)
class Move:
    """Direction `index` of the directions with that digest, by t = `shift`, in units of ‖ξ‖.

    file: where the directions lie, seen from the recipe; name: what people call it. Both are for
    finding it; the digest decides.
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
    """Takes rows of w_plus from another sample: w ← w + amount · (source − w) in those rows.

    rows: None takes the whole latent. samples: which samples of the recipe; None means all.
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
    """All shifts times a factor that goes from `start` to `stop` (and back, if `returns`)."""

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
    """How the generator is set, by the keys `synthesis` of the configs; None: as it is without.

    truncation: of drawn latents, before mixing; that of the recipe comes after it.
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
        """Returns these settings, those that `other` makes in their place."""
        return Synthesis(**(self.to_json() | other.to_json()))

    def options(self) -> dict[str, Any]:
        """Returns the options that make a generator so: keywords of its constructor."""
        return self.to_json()


AS_IT_IS = Synthesis()


@dataclasses.dataclass(frozen=True)
class Recipe:
    """An edit of some samples of one generator.

    generator: the digest of its weights. truncation: ψ; 1 leaves the latents as they are. enlarge:
    how many pixels of the written pictures a pixel of an image takes along a side. synthesis: how
    the generator that `render` gets has to be made.
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
        """Returns the recipe with all shifts times that factor."""
        moves = tuple(dataclasses.replace(m, shift=factor * m.shift) for m in self.moves)
        return dataclasses.replace(self, moves=moves)

    def mixes_of(self, place: int) -> tuple[Mix, ...]:
        """Returns the mixes of the sample at that place."""
        return tuple(mix for mix in self.mixes if mix.samples is None or place in mix.samples)

    def original(self) -> "Recipe":
        """Returns the recipe of the same latents with the weights left as they are."""
        return dataclasses.replace(self, moves=())


def files_of(recipe: Recipe) -> Sequence[str]:
    """Returns the directions files that the recipe names, each once."""
    return list(dict.fromkeys(move.file for move in recipe.moves if move.file))
