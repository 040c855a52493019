"""Reads a directions file, its generator, and the choice of directions to use."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

from navigan_jax import directions as directions_lib
from navigan_jax import notes, suggestions
from navigan_jax import params as params_lib
from navigan_jax.config import Config
from navigan_jax.directions import Directions, read_fitting
from navigan_jax.errors import InputError
from navigan_jax.notes import Notes
from navigan_jax.perceptual import METRICS
from navigan_jax.tasks import inputs
from navigan_jax.tasks.inputs import Problem
from navigan_jax.tasks.settings import Settings

CHOICE = inputs.SYNTHESIS | Settings(
    {
        "task": str,
        "compilation_cache": bool,
        "distributed": bool,
        "generator": str,
        "directions": str,
        "any_weights": bool,
        "choose": str,
    }
)

_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """The directions of a file, the chosen ones, and the generator that they edit.

    problem: the generator and the layers; its distance is L2 and is not used. suggested: names that
    gauges propose, by direction.
    """

    problem: Problem
    directions: Directions
    notes: Notes
    suggested: Mapping[int, str]
    indices: tuple[int, ...]

    def title(self, index: int) -> str:
        """Returns the name from the notes, else the proposed one, else "direction INDEX"."""
        proposed = f"{self.suggested[index]} ?" if index in self.suggested else ""
        return self.notes.get(index).name or proposed or f"direction {index}"


def read_choice(config: Config) -> Choice:
    """Returns the choice that the keys of `CHOICE` describe.

    Raises: InputError for files that are damaged or do not belong together, and for a choice that
      names no direction of the file.
    """
    generator, params, _ = inputs.read_set_generator(config)
    digest = params_lib.digest(params)
    directions = read_fitting(
        config.directions, params, digest=digest, any_weights=config.any_weights
    )
    layers = generator.find_layers(directions.layers)
    problem = Problem(generator, params, digest, layers, METRICS["l2"](), config.generator)
    found, count = directions_lib.digest(directions), len(directions)
    noted = notes.read_notes(config.directions, digest=found, count=count)
    suggested = suggestions.read_suggestions(config.directions, digest=found, count=count)
    indices = choose(config.choose, count, noted)
    return Choice(problem, directions, noted, suggested, indices)


def choose(words: str, count: int, noted: Notes) -> tuple[int, ...]:
    """Returns the indices for "all", "starred", or numbers such as "0,3,8-11".

    Raises: InputError if no direction is chosen, or an index is out of range.
    """
    words = words.strip()
    if words == "all":
        return tuple(range(count))
    if words == "starred":
        chosen = tuple(index for index, note in noted.by_index.items() if note.starred)
        if not chosen:
            raise InputError(
                "config.choose: expected starred directions; got none; star some in the gallery "
                "or in the viewer, or set --config.choose=all"
            )
        return chosen
    found: list[int] = []
    for part in words.split(","):
        match = _RANGE.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if not first <= last < count:
            raise InputError(
                f"config.choose: expected numbers of directions from 0 to {count - 1}; got "
                f"{part!r}; allowed: all, starred, or numbers and ranges like 0,3,8-11; set it "
                "with --config.choose=0,3"
            )
        found += range(first, last + 1)
    return tuple(dict.fromkeys(found))


def require_scales(directions: Directions, indices: Sequence[int], raw_shift: float) -> None:
    """Checks that the directions have shift scales, or that a raw shift is given.

    Raises: InputError.
    """
    if not raw_shift and not directions.shown[list(indices)].any():
        raise InputError(
            "config.raw_shift: expected a shift t to show, as these directions were not "
            "calibrated; got 0; set it with --config.raw_shift=N, in units of ‖ξ‖"
        )
