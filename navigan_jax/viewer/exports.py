"""Files that a view is exported as."""

import asyncio
import dataclasses
import itertools
from typing import Any

from navigan_jax.errors import InputError
from navigan_jax.viewer.studio import Studio, View
from navigan_jax.viewer.worker import Worker


@dataclasses.dataclass(frozen=True)
class Kind:
    """label, title: of its button. file: the name of what is saved."""

    label: str
    file: str
    media_type: str
    title: str


KINDS = {
    "png": Kind("PNG", "edit.png", "image/png", "The edited image"),
    "recipe": Kind("Recipe", "recipe.json", "application/json", "JSON that configs/edit.py runs"),
}


@dataclasses.dataclass(frozen=True)
class Made:
    """A file that was made."""

    data: bytes
    file: str
    media_type: str


def describe_kinds() -> list[dict[str, str]]:
    """Returns what a page has to know of the kinds of files."""
    return [
        {"kind": name, "label": kind.label, "file": kind.file, "title": kind.title}
        for name, kind in KINDS.items()
    ]


class Exporter:
    """Makes files of views, their images in the worker, between those that people wait for."""

    def __init__(self, studio: Studio, worker: Worker) -> None:
        self._studio = studio
        self._worker = worker
        self._numbers = itertools.count()

    async def make(self, kind: str, view: View) -> Made:
        """Returns the file of a view.

        Raises: InputError for an unknown kind.
        """
        if kind not in KINDS:
            raise InputError(f"kind: expected one of {', '.join(KINDS)}; got {kind!r}")
        if kind == "recipe":
            data = self._studio.recipe_text(view.recipe).encode()
        else:
            place = "export", next(self._numbers)
            work: Any = self._worker.submit(place, 0, lambda: self._studio.png(view))
            data = await asyncio.wrap_future(work)
        return Made(data, KINDS[kind].file, KINDS[kind].media_type)
