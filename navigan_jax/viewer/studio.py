"""The viewer without HTTP: images and recipes of views, and the notes.

A view is what a page shows: one sample, the shifts of some directions, and the rows of w_plus mixed
in from another sample. A view becomes a recipe whose image `editing.rendering` makes, so an
exported recipe gives the same bits as the page showed.
"""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from navigan_jax import channels, notes, suggestions
from navigan_jax import directions as directions_lib
from navigan_jax import params as params_lib
from navigan_jax.array_types import Params
from navigan_jax.directions import Directions, Edit
from navigan_jax.editing import recipe_files, rendering
from navigan_jax.editing.kept import Kept
from navigan_jax.editing.recipe import (
    AS_IT_IS,
    Drawn,
    Given,
    Mix,
    Move,
    Photo,
    Recipe,
    Sample,
    Synthesis,
)
from navigan_jax.errors import InputError
from navigan_jax.evaluation.gauges import Gauges, change_of
from navigan_jax.generators.base import Generator
from navigan_jax.generators.latents import spaces_of
from navigan_jax.generators.pix2pixhd import layouts
from navigan_jax.generators.pix2pixhd.label_maps import LabelMaps
from navigan_jax.showcase import pictures
from navigan_jax.viewer.own_latents import OwnLatents
from navigan_jax.viewer.own_photographs import OwnPhotographs, is_photographs

MOST_MOVES = 64  # directions shifted at once
SMALL = 128  # longer side of a preview, pixels
_PICTURE_BYTES = 24 * 2**20
_READING_BYTES = 2**18  # of gauges
_CARRY_BYTES = 256 * 2**20  # of cached inputs of shifted layers, so that a drag is fast


@dataclasses.dataclass(frozen=True)
class View:
    """key: a short text; equal keys, equal images. recipe: with one sample."""

    key: str
    recipe: Recipe


class Studio:
    """One generator, its directions and their notes. `render` and `png` belong to one thread.

    path: of the directions file; the notes file lies beside it. folder: for uploaded latents.
    synthesis: the settings of `generator`, for recipes.
    """

    def __init__(
        self,
        generator: Generator,
        params: Params,
        directions: Directions,
        path: str | os.PathLike[str],
        folder: pathlib.Path,
        synthesis: Synthesis = AS_IT_IS,
        gauges: Gauges | None = None,
    ) -> None:
        self.generator = generator
        self.digest = params_lib.digest(params)
        self.directions = directions
        self.directions_digest = directions_lib.digest(directions)
        self.path = pathlib.Path(path)
        self.synthesis = synthesis
        self.gauges = gauges
        self.params = params_lib.to_device(params)
        self._pictures: Kept[bytes] = Kept(_PICTURE_BYTES, len)
        self._readings: Kept[np.ndarray] = Kept(_READING_BYTES, lambda array: array.nbytes)
        self._carries = rendering.keep_carries(_CARRY_BYTES)
        self._lock = threading.Lock()
        spaces = spaces_of(generator)
        self.rows = spaces.rows  # of w_plus; 0 if the latent has no rows
        self.latent_shape = spaces.shapes["w_plus" if spaces.rows else "z"]
        maps = generator.space if isinstance(generator.space, LabelMaps) else None
        self.own = OwnLatents(folder / "latents", spaces, maps)
        self.photographs = OwnPhotographs(folder / "photographs", spaces, params, self.digest)
        self._notes = self._read_notes()
        self._suggested = suggestions.read_suggestions(
            self.path, digest=self.directions_digest, count=len(directions)
        )

    def describe(self) -> dict[str, Any]:
        """Returns what a page needs before it requests images, as JSON data."""
        provenance = self.directions.provenance
        keys = ("architecture", "method", "metric", "latents", "seed")
        chosen, count = self.synthesis.to_json(), len(self.directions)
        height, width, _ = self.generator.image_shape
        return {
            "generator": {
                "digest": self.digest,
                "size": self.generator.size_text,
                "aspect": width / height,
                "has_label_maps": isinstance(self.generator.space, LabelMaps),
                "alpha": channels.has_alpha(self.generator.image_channels),
                "rows": self.rows,
                "latent": "w_plus" if self.rows else "z",
                "shape": list(self.latent_shape),
            },
            "directions": {
                "file": self.path.name,
                "digest": self.directions_digest,
                "layers": list(self.directions.layers),
                "facts": {key: str(provenance[key]) for key in keys if key in provenance}
                | {"synthesis": ", ".join(f"{key} {value}" for key, value in chosen.items())},
                "ends": [[-low, high] for low, high in map(self._ends, range(count))],
                "plausible": self._plausible(),
                "suggested": [self._suggested.get(index, "") for index in range(count)],
                "measures": [
                    {"name": name, "values": [_known(value) for value in values]}
                    for name, values in self.directions.measures.items()
                ],
            },
            "gauges": None if self.gauges is None else _of_gauges(self.gauges),
            "most_moves": MOST_MOVES,
        }

    def _plausible(self) -> list[list[float]] | None:
        """Returns the effective range of each direction, [lowest, highest] t; None if unknown."""
        if self.directions.plausible is None:
            return None
        return [[-float(low), float(high)] for low, high in self.directions.plausible]

    def _ends(self, index: int) -> tuple[float, float]:
        """Returns s of each side, the |t| that pictures go to; 1 if it is unknown."""
        low, high = (float(t) if t > 1e-6 else 1.0 for t in self.directions.shown[index])
        return low, high

    def add_own(self, data: bytes, file: str) -> dict[str, Any]:
        """Saves latents or photographs that a user opened; returns what the page needs, as JSON.

        Raises: InputError if the file holds none of this generator.
        """
        if is_photographs(data):
            name, found = self.photographs.add(data, file)
            count = len(found)
            told = f"{file}: {count} photograph{'s' * (count != 1)}, as {found.space}"
            told += ", with their own weights" if found.changes else ""
            return {"own": name, "space": found.space, "count": count, "told": told}
        name, latents = self.own.add(data, file)
        count = len(latents.values)
        return {"own": name, "space": latents.space, "count": count, "told": latents.told}

    # Views and images ------------------------------------------------------------------------

    def view(self, data: Any) -> View:
        """Parses the view that a page describes in JSON.

        Raises: InputError that names the wrong entry.
        """
        table = _table("view", data, {"sample", "moves", "mix"}, {"sample"})
        moves = table.get("moves", [])
        if not isinstance(moves, list) or len(moves) > MOST_MOVES:
            raise _misfit("moves", f"a list of at most {MOST_MOVES}", moves)
        recipe = Recipe(
            generator=self.digest,
            samples=(self._sample(table["sample"]),),
            moves=tuple(self._move(move) for move in moves),
            mixes=() if table.get("mix") is None else (self._mix(table["mix"]),),
            synthesis=self.synthesis,
        )
        if len({move.index for move in recipe.moves}) < len(recipe.moves):
            raise _misfit("moves", "each direction once", [move.index for move in recipe.moves])
        rendering.check(
            recipe, self.generator, self.digest, self._by_digest, self.photographs.by_digest
        )
        return View(json.dumps(table, sort_keys=True), recipe)

    @property
    def _by_digest(self) -> Mapping[str, Directions]:
        return {self.directions_digest: self.directions}

    def _move(self, data: Any) -> Move:
        table = _table("move", data, {"index", "shift"}, {"index", "shift"})
        return Move(self.directions_digest, table["index"], table["shift"], file=self.path.name)

    def _mix(self, data: Any) -> Mix:
        table = _table("mix", data, {"source", "rows", "amount"}, {"source", "rows"})
        if not isinstance(table["rows"], list):
            raise _misfit("rows", "a list of whole numbers", table["rows"])
        source = self._sample(table["source"])
        return Mix(source, tuple(table["rows"]), amount=table.get("amount", 1.0))

    def _sample(self, data: Any) -> Sample:
        table = _table("sample", data, {"seed", "index", "own"}, set())
        if "own" not in table:
            if "seed" not in table:
                raise _misfit("sample", "a seed, or the name of own latents", data)
            return Drawn(table["seed"], table.get("index", 0))
        if "seed" in table:
            raise _misfit("sample", "a seed or own latents, not both", data)
        index = table.get("index", 0)
        if (digest := self.photographs.find(table["own"])) is not None:
            return Photo(digest, index, file="inverted.safetensors")
        latents = self.own.find(table["own"])
        if type(index) is not int or not 0 <= index < len(latents.values):
            raise _misfit("index", f"a whole number from 0 to {len(latents.values) - 1}", index)
        return Given.of(latents.space, latents.values[index])

    def render(self, recipe: Recipe) -> np.ndarray:
        """Returns the image [height, width, channels] of a recipe of one sample."""
        images = rendering.render(
            recipe,
            self.generator,
            self.params,
            self._by_digest,
            self._carries,
            self.photographs.by_digest,
        )
        return images[0]

    def own_edits(self, recipe: Recipe) -> list[Edit]:
        """Returns the changes of the weights that belong to the recipe's photograph, if any."""
        held = self.photographs.by_digest
        photos = [sample for sample in recipe.samples if isinstance(sample, Photo)]
        return [held[photo.photographs].edit(photo.index) for photo in photos]

    def png(self, view: View, *, small: bool = False) -> bytes:
        """Returns the image as PNG, at most `SMALL` pixels wide and high if `small`."""
        png = self._pictures.find((view.key, small))
        if png is None:
            png = pictures.encode_png(self.render(view.recipe), longest=SMALL if small else None)
            self._pictures.keep((view.key, small), png)
        return png

    def label_map_png(self, view: View) -> bytes:
        """Returns the label map of the view's sample as PNG, in the colours of its labels.

        Raises: InputError if the generator's latents are no label maps.
        """
        if not isinstance(self.generator.space, LabelMaps):
            raise InputError("label map: expected a generator whose latents are label maps")
        (sample,) = view.recipe.samples
        if isinstance(sample, Given):
            latent = np.asarray(sample.values, np.float32)
        elif isinstance(sample, Drawn):
            latent = rendering.draw_latent(self.generator, sample)[0]
        else:
            raise InputError("label map: expected a sample of label maps; got a photograph")
        return pictures.encode_png(layouts.colour(latent[..., 0]) / np.float32(127.5) - 1)

    def read_gauges(self, view: View) -> dict[str, Any]:
        """Returns the factors of the edited image and of the original, and the changes.

        values, original: in the factors' own units. changes: in units of their ranges; circular
        factors go the shorter way round.
        Raises: InputError if there are no gauges, or they fail.
        """
        if self.gauges is None:
            raise InputError("gauges: expected a viewer with gauges; set them with --config.gauges")
        original = dataclasses.replace(view.recipe, moves=())
        before, after = (self._read(recipe) for recipe in (original, view.recipe))
        changes = change_of(self.gauges.factors, before, after)
        return {
            "values": after.tolist(),
            "original": before.tolist(),
            "changes": changes.tolist(),
        }

    def _read(self, recipe: Recipe) -> np.ndarray:
        assert self.gauges is not None
        key = recipe_files.to_text(recipe)
        found = self._readings.find(key)
        if found is None:
            found = self.gauges.read(self.render(recipe)[None])[0]
            self._readings.keep(key, found)
        return found

    def recipe_text(self, recipe: Recipe) -> str:
        """Returns a recipe as JSON, with the names of its directions from the notes."""
        moves = tuple(
            dataclasses.replace(move, name=self._notes.get(move.index).name)
            for move in recipe.moves
        )
        return recipe_files.to_text(dataclasses.replace(recipe, moves=moves))

    # Notes -----------------------------------------------------------------------------------

    def _read_notes(self) -> notes.Notes:
        count = len(self.directions)
        return notes.read_notes(self.path, digest=self.directions_digest, count=count)

    def notes(self) -> dict[str, Any]:
        """Reads the notes from the disk; returns them with a mark that changes when they do."""
        with self._lock:
            self._notes = self._read_notes()
            return self._notes_to_json()

    def change_note(self, index: Any, change: Any) -> dict[str, Any]:
        """Changes some fields of a direction's note and writes the notes to the disk.

        Raises: InputError for an invalid index or change, or if the file cannot be written.
        """
        fields = {field.name for field in dataclasses.fields(notes.Note)}
        table = _table("change", change, fields, set())
        if type(index) is not int or not 0 <= index < len(self.directions):
            raise _misfit("index", f"a direction from 0 to {len(self.directions) - 1}", index)
        if isinstance(table.get("good_range"), list):
            table["good_range"] = tuple(table["good_range"])
        with self._lock:
            current = self._read_notes()
            note = dataclasses.replace(current.get(index), **table)
            self._notes = current.with_note(index, note)
            notes.write_notes(self.path, self._notes)
            return self._notes_to_json()

    @property
    def notes_mark(self) -> str:
        """A short text that changes when the notes do."""
        return _mark(self._notes)

    def name_of(self, index: int) -> str:
        """Returns the direction's name from the notes, or "direction INDEX"."""
        return self._notes.get(index).name or f"direction {index}"

    def _notes_to_json(self) -> dict[str, Any]:
        return {
            "mark": _mark(self._notes),
            "notes": {str(index): note.to_json() for index, note in self._notes.by_index.items()},
        }


def _of_gauges(gauges: Gauges) -> dict[str, Any]:
    return {
        "source": gauges.source,
        "factors": [dataclasses.asdict(factor) for factor in gauges.factors],
    }


def _mark(kept: notes.Notes) -> str:
    text = json.dumps({str(index): note.to_json() for index, note in kept.by_index.items()})
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _misfit(name: str, expected: str, value: Any) -> InputError:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return InputError(f"{name}: expected {expected}; got {shown}")


def _table(name: str, data: Any, allowed: set[str], needed: set[str]) -> dict[str, Any]:
    """Checks the keys of a JSON object; returns a copy of it."""
    if not isinstance(data, dict):
        raise _misfit(name, f"a JSON object with the keys {', '.join(sorted(allowed))}", data)
    if unknown := sorted(data.keys() - allowed):
        raise _misfit(name, f"only the keys {', '.join(sorted(allowed))}", unknown[0])
    if missing := sorted(needed - data.keys()):
        raise _misfit(name, f"the key {missing[0]}", sorted(data))
    return dict(data)
