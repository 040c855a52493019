"""The declaration of a network: its command, how to recognise it, how to convert it."""

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from navigan_jax import checkpoints, faults
from navigan_jax.errors import InputError
from tools.convert_weights.readers.modules import Contents, name_values
from tools.convert_weights.readers.structure import Found

Shapes = Mapping[str, tuple[int, ...]]

_SUFFIX = ".safetensors"


@dataclasses.dataclass(frozen=True)
class Foreign:
    """The content of a foreign file, independent of the file's format.

    name: the file's name in messages. content: nested plain containers, arrays and inert records.
    origin: file name and SHA-256, for the metadata of the converted file. map_of: maps the label of
    the converted network, and the arrays by our path of each network with its shapes, to their
    places in the file.
    """

    name: str
    content: Any
    origin: Mapping[str, str]
    map_of: Callable[[str, Mapping[str, Mapping[str, Found]]], Mapping[str, Any]]

    @functools.cached_property
    def contents(self) -> Contents:
        """All values by name."""
        return name_values(self.content)


class Opener(Protocol):
    """Opens a file; of a wheel or source archive, the member whose name matches the pattern."""

    def __call__(self, path: str | os.PathLike[str], member: str = ...) -> Foreign: ...


class Network(NamedTuple):
    """A kind of network, or of file, and the command that converts it.

    words: a description for the help. add_arguments: adds the arguments of the command except
    --out. convert: runs the command and writes the file; returns the file's path, or None if it has
    printed its own report. recognise: returns the name of the architecture with arrays of these
    names and shapes, or None. sides: functions from shapes to the side of the images in pixels, by
    the name of the architecture.
    """

    words: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    convert: Callable[[argparse.Namespace, Opener], str | None]
    recognise: Callable[[Shapes], str | None]
    sides: Mapping[str, Callable[[Shapes], int | None]] = {}


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Adds the option that chooses among several networks of a file."""
    parser.add_argument(
        "--network",
        metavar="NAME",
        help="the network to convert, by its name in the file, such as g_ema, G or "
        "state_dict.decoder; default: the average of training, else the only one that fits",
    )


def add_label_names(parser: argparse.ArgumentParser, otherwise: str) -> None:
    """Adds the option for the names of the classes; `otherwise`: the default in words."""
    parser.add_argument(
        "--label-names",
        type=_names,
        default=(),
        metavar="FILE",
        help="names of the classes, in order: a text file with one name per line, a JSON list, or "
        f"a JSON object with a list label_names; default: {otherwise}",
    )


def _names(path: str) -> tuple[str, ...]:
    """Returns the class names in a file."""
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
        content = json.loads(text) if text.lstrip()[:1] in ("[", "{") else text.splitlines()
        names = content.get("label_names") if isinstance(content, dict) else content
    except (OSError, ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(
            f"expected a file of names; got {faults.in_words(error)}"
        ) from error
    if not isinstance(names, list) or any(not isinstance(name, str) for name in names):
        raise argparse.ArgumentTypeError(f"expected names in {path}; got none")
    return tuple(name.strip() for name in names if name.strip())


def check_output(out: str, *sources: str | os.PathLike[str], suffix: str = _SUFFIX) -> None:
    """Checks before all work that the output has the right suffix and is none of the sources.

    Raises: InputError.
    """
    if not out.endswith(suffix):
        raise InputError(f"--out: expected a name that ends in {suffix}; got {out!r}; rename it")
    for source in sources:
        if checkpoints.is_same_file(out, source):
            raise InputError(f"--out: expected another file than the source; got {out!r} for both")


def by_names(architectures: Mapping[str, tuple[str, ...]]) -> Callable[[Shapes], str | None]:
    """Returns a `recognise` for these architectures, name to patterns.

    An architecture is recognised if each of its patterns matches the end of some array's name; the
    first such architecture is returned.
    """

    def recognise(shapes: Shapes) -> str | None:
        for architecture, patterns in architectures.items():
            ends = [re.compile(rf"(?:.*[/.])?{pattern}") for pattern in patterns]
            if all(any(end.fullmatch(name) for name in shapes) for end in ends):
                return architecture
        return None

    return recognise
