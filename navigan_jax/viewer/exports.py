"""Exports: makes files of views, such as pictures, videos, recipes and baked checkpoints."""

import asyncio
import dataclasses
import functools
import itertools
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool

from navigan_jax.editing.bake import bake, original_name
from navigan_jax.editing.edit import shrink
from navigan_jax.editing.recipe import Recipe, Video
from navigan_jax.errors import InputError
from navigan_jax.generators.source_map import SourceMap
from navigan_jax.showcase import base, video
from navigan_jax.viewer.studio import Studio, View
from navigan_jax.viewer.worker import Worker

_LARGEST_FRAME = 256  # pixels of a side: a video shows no more, and larger frames fill the memory
_VIDEO = Video(seconds=3.0, frames_per_second=20)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of file. label, title: text and tooltip of its button. file: name of the download."""

    label: str
    file: str
    media_type: str
    title: str


@dataclasses.dataclass(frozen=True)
class Source:
    """The checkpoint that the generator was converted from."""

    path: pathlib.Path
    source_map: SourceMap


def list_kinds(source: Source | None) -> dict[str, Kind]:
    """Returns the kinds of files that can be made, by name."""
    moving = "A video from the opposite shifts to these shifts and back"
    recipe = "A JSON file that repeats this edit: --config=configs/edit.py"
    kinds = {
        "png": Kind("PNG", "edit.png", "image/png", "The edited image"),
        "gif": Kind("GIF", "edit.gif", "image/gif", moving),
        "mp4": Kind("MP4", "edit.mp4", "video/mp4", moving),
        "recipe": Kind("Recipe", "recipe.json", "application/json", recipe),
    }
    if source is not None:
        original = original_name(source.path, source.source_map)
        title = f"A copy of {original} with this edit in its weights"
        name = f"edited-{original}"
        kinds["checkpoint"] = Kind("Checkpoint", name, "application/octet-stream", title)
    return kinds


@dataclasses.dataclass(frozen=True)
class Made:
    """A file that was made. data: its bytes, or the path of a temporary file."""

    kind: Kind
    data: bytes | pathlib.Path


class Exporter:
    """Makes files of views; the worker renders their images between the requests of pages.

    source: the checkpoint to bake into; None: no checkpoints are exported.
    """

    def __init__(self, studio: Studio, worker: Worker, source: Source | None) -> None:
        self._studio = studio
        self._worker = worker
        self._source = source
        self._numbers = itertools.count()
        self._turn = asyncio.Semaphore(1)  # one export at a time, as frames and copies are large
        self.kinds: Mapping[str, Kind] = list_kinds(source)

    async def make(self, name: str, view: View) -> Made:
        """Returns the file of a view.

        Raises: InputError for an unknown kind, or for a video or checkpoint without any shift.
        """
        if name not in self.kinds:
            raise InputError(f"kind: expected one of {', '.join(self.kinds)}; got {name!r}")
        if name == "recipe":
            return Made(self.kinds[name], self._studio.recipe_text(view.recipe).encode())
        place = "export", next(self._numbers)
        if name == "png":
            work = self._worker.submit(place, 0, functools.partial(self._studio.png, view))
            return Made(self.kinds[name], await asyncio.wrap_future(work))
        if not any(move.shift for move in view.recipe.moves):
            raise InputError(
                f"{name}: expected at least one shifted direction; got none; shift one first"
            )
        async with self._turn:
            if name == "checkpoint":
                return Made(self.kinds[name], await run_in_threadpool(self._bake, view.recipe))
            return Made(self.kinds[name], await self._animate(place, f".{name}", view.recipe))

    async def _animate(self, place: Any, suffix: str, recipe: Recipe) -> bytes:
        frames = round(_VIDEO.seconds * _VIDEO.frames_per_second)
        factors, order = video.plan_path(
            _VIDEO.start, _VIDEO.stop, frames=frames, easing=_VIDEO.easing, returns=_VIDEO.returns
        )
        images = []
        for number, factor in enumerate(factors):
            work = functools.partial(self._frame, recipe.scaled(float(factor)))
            images.append(await asyncio.wrap_future(self._worker.submit(place, number, work)))
        captions = video.describe_factors(factors)
        names = [self._studio.name_of(move.index) for move in recipe.moves if move.shift]
        strip = video.Strip(" + ".join(names), np.stack(images)[:, None], captions)
        shifts = [
            f"{self._studio.name_of(move.index)}: t = {base.format_number(move.shift)}"
            for move in recipe.moves
        ]

        def write() -> bytes:
            with tempfile.TemporaryDirectory() as folder:
                path = pathlib.Path(folder) / f"edit{suffix}"
                video.write_video(
                    path,
                    [strip],
                    factors,
                    order,
                    frames_per_second=_VIDEO.frames_per_second,
                    source="   ".join(shifts),
                )
                return path.read_bytes()

        return await run_in_threadpool(write)

    def _frame(self, recipe: Recipe) -> np.ndarray:
        """Returns the image of a recipe, reduced to `_LARGEST_FRAME`."""
        return shrink(self._studio.render(recipe), _LARGEST_FRAME)

    def _bake(self, recipe: Recipe) -> pathlib.Path:
        """Returns the path of a baked copy; the caller removes the file once it is sent."""
        assert self._source is not None
        edits = [(self._studio.directions.edit(move.index), move.shift) for move in recipe.moves]
        edits += [(own, 1.0) for own in self._studio.own_edits(recipe)]
        with tempfile.NamedTemporaryFile(suffix=self._source.path.suffix, delete=False) as file:
            out = pathlib.Path(file.name)
        try:
            bake(self._source.path, out, self._source.source_map, self._studio.params, edits)
        except BaseException:
            out.unlink(missing_ok=True)
            raise
        return out
