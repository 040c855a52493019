"""Recipes: an edit written down, and the one function that makes its images.

A recipe says which generator, which samples, which directions with which shifts, and what is done
to the latents before. It is plain JSON, so that it can be kept, sent and read, and `render` makes
the same images of it wherever it is called, to the bit: samples go through the network one at a
time, by one compiled program for all recipes of a generator.

Latents come first: a sample's latent is drawn (or given), mapped, mixed, then drawn to the mean by
the truncation. Weights come second: θ + Σ t_i ξ_i, for the mapping as well.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import params as params_lib
from navigan_jax.array_types import Array, Float, Params
from navigan_jax.directions import Directions
from navigan_jax.editing.edit import apply_edit, combine
from navigan_jax.errors import InputError
from navigan_jax.generators.base import Generator

EASINGS = ("sine", "smooth", "linear")

_MOST_INDEX = 2**16 - 1  # a sample is drawn together with those before it
_MEAN_LATENT = "mapping/w_avg"  # where the parameters keep the mean of w
_SMALLEST_DRAW = 64  # so that neighbouring samples share a compiled draw


def to_tuples(values: Any) -> Any:
    return tuple(map(to_tuples, values)) if isinstance(values, list | tuple) else values


def _require_int(name: str, value: Any, most: int, least: int = 0) -> None:
    if type(value) is not int or not least <= value <= most:
        raise misfit(name, f"a whole number from {least} to {most}", value)


def _require_number(name: str, value: Any) -> None:
    if type(value) not in (int, float) or not math.isfinite(value) or abs(value) > 1e30:
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
            array = np.asarray(self.values, np.float64)
        except (ValueError, TypeError):
            array = np.zeros(())
        if array.ndim != rank or not array.size or not np.isfinite(array).all():
            raise misfit(self.space, f"finite numbers, nested {rank} deep", self.values)

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
class Recipe:
    """An edit of some samples of one generator.

    generator: the digest of its weights. truncation: ψ; 1 leaves the latents as they are. enlarge:
    how many pixels of the written pictures a pixel of an image takes along a side.
    """

    generator: str
    samples: tuple[Sample, ...]
    moves: tuple[Move, ...] = ()
    mixes: tuple[Mix, ...] = ()
    truncation: float = 1.0
    enlarge: int = 1
    video: Video | None = None

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

    def original(self) -> "Recipe":
        """Returns the recipe of the same latents with the weights left as they are."""
        return dataclasses.replace(self, moves=())


# Images --------------------------------------------------------------------------------------


def check(
    recipe: Recipe, generator: Generator, digest: str, directions: Mapping[str, Directions]
) -> None:
    """Checks that `render` can make the recipe's images of these weights and directions.

    digest: of the generator's weights. directions: by their digests.
    Raises: InputError saying what does not belong together.
    """
    if recipe.generator != digest:
        raise InputError(
            f"recipe: expected the generator of weights {recipe.generator}; got {digest}; give the "
            "generator that the recipe was made with"
        )
    for move in recipe.moves:
        _find_edit(move, directions)
        of_weights = directions[move.directions].provenance["digest"]
        if of_weights != digest:
            raise InputError(
                f"recipe: expected directions of the weights {digest}; got {move.file or 'some'} "
                f"of {of_weights}; give those found in this generator"
            )
    sources = [mix.source for mix in recipe.mixes]
    for sample in (*recipe.samples, *sources):
        if isinstance(sample, Given):
            _check_given(sample, generator)
    rows = _latent_shape(generator)[0] if len(_latent_shape(generator)) == 2 else 0
    for mix in recipe.mixes:
        if mix.rows is not None and not all(row < rows for row in mix.rows):
            allowed = f"0 to {rows - 1}" if rows else "null, as its latent has no rows"
            raise misfit(
                "mixes: rows", f"rows of this {generator.architecture}, {allowed}", mix.rows
            )


@functools.lru_cache
def _latent_shape(generator: Generator) -> tuple[int, ...]:
    """Returns the shape of what `synthesize` takes for one sample: [latent] or [rows, w]."""
    params = jax.eval_shape(generator.init, jax.random.key(0))
    z = jax.ShapeDtypeStruct((1, generator.z_dim + generator.label_dim), jnp.float32)
    return jax.eval_shape(generator.map_latent, params, z).shape[1:]


def _check_given(sample: Given, generator: Generator) -> None:
    width = (generator.z_dim + generator.label_dim,)
    expected = width if sample.space == "z" else _latent_shape(generator)
    if np.shape(sample.values) != expected:
        raise misfit(
            sample.space,
            f"numbers of shape {list(expected)} for this {generator.architecture}",
            list(np.shape(sample.values)),
        )


def _find_edit(move: Move, directions: Mapping[str, Directions]) -> Any:
    if move.directions not in directions:
        known = ", ".join(sorted(directions)) or "none"
        raise InputError(
            f"recipe: expected the directions {move.directions} ({move.file or 'no file told'}); "
            f"got {known}; give that file"
        )
    return directions[move.directions].edit(move.index)


def draw_latent(generator: Generator, sample: Drawn) -> Float[np.ndarray, "1 latent"]:
    """Returns z of a drawn sample; the rows of a draw do not depend on how many are drawn."""
    count = max(_SMALLEST_DRAW, 1 << sample.index.bit_length())
    z = generator.sample_latents(jax.random.key(sample.seed), count)
    return np.asarray(z[sample.index : sample.index + 1])


@functools.partial(jax.jit, static_argnames="generator")
def _map_one(params: Params, z: Array, *, generator: Generator) -> Array:
    return generator.map_latent(params, z)


@functools.partial(jax.jit, static_argnames="generator")
def _synthesize_one(params: Params, latent: Array, *, generator: Generator) -> Array:
    return generator.synthesize(params, latent)


def edited_params(recipe: Recipe, params: Params, directions: Mapping[str, Directions]) -> Params:
    """Returns θ + Σ t_i ξ_i; `params` itself where nothing is shifted.

    Raises: InputError for unknown directions.
    """
    moves = [move for move in recipe.moves if move.shift]
    edits = [_find_edit(move, directions) for move in moves]
    total = combine(edits, [move.shift for move in moves])
    return apply_edit(params, total, 1.0) if moves else params


def edited_latents(
    recipe: Recipe, generator: Generator, params: Params
) -> Float[np.ndarray, "samples ..."]:
    """Returns what `synthesize` is to take for each sample, mixed and truncated.

    params: the edited ones, as an edit of the mapping changes the latents.
    """
    latents = []
    for place, sample in enumerate(recipe.samples):
        latent = _latent(sample, generator, params)
        for mix in recipe.mixes:
            if mix.samples is None or place in mix.samples:
                source = _latent(mix.source, generator, params)
                rows = slice(None) if mix.rows is None else list(mix.rows)
                mixed = latent.copy()
                mixed[rows] += np.float32(mix.amount) * (source[rows] - latent[rows])
                latent = mixed
        if recipe.truncation != 1:
            mean = _mean_latent(params)
            latent = mean + np.float32(recipe.truncation) * (latent - mean)
        latents.append(latent)
    return np.stack(latents)


def _latent(sample: Sample, generator: Generator, params: Params) -> np.ndarray:
    if isinstance(sample, Given) and sample.space == "w_plus":
        return np.asarray(sample.values, np.float32)
    if isinstance(sample, Given):
        z = np.asarray([sample.values], np.float32)
    else:
        z = draw_latent(generator, sample)
    return np.asarray(_map_one(params, z, generator=generator))[0]


def _mean_latent(params: Params) -> np.ndarray:
    """Returns the mean of w, or of z (zero) where there is no mapping."""
    flat = params_lib.flatten(params)
    return np.asarray(flat.get(_MEAN_LATENT, 0), np.float32)


def render(
    recipe: Recipe, generator: Generator, params: Params, directions: Mapping[str, Directions]
) -> Float[np.ndarray, "samples height width channels"]:
    """Returns the images of the recipe, nominally in [-1, 1]; equal recipes, equal bits.

    params: θ, the weights of the recipe's generator; on the device, if it is called often.
    directions: by their digests. Nothing is checked here but that the directions are there: call
    `check` first. Compiles once for a generator, whatever the recipe.
    """
    shifted = edited_params(recipe, params, directions)
    latents = edited_latents(recipe, generator, shifted)
    return render_latents(generator, shifted, latents)


def render_latents(
    generator: Generator, params: Params, latents: Float[np.ndarray, "samples ..."]
) -> Float[np.ndarray, "samples height width channels"]:
    """Returns the images of latents as `synthesize` takes them, one sample at a time."""
    images = [_synthesize_one(params, latent[None], generator=generator) for latent in latents]
    return np.concatenate([np.asarray(image) for image in images])


def samples_of(seed: int, count: int) -> tuple[Drawn, ...]:
    """Returns the first samples of a seed."""
    return tuple(Drawn(seed, index) for index in range(count))


def files_of(recipe: Recipe) -> Sequence[str]:
    """Returns the directions files that the recipe names, each once."""
    return list(dict.fromkeys(move.file for move in recipe.moves if move.file))
