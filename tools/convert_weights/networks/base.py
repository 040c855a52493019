"""What a network declares: its command, how it is told in a file, how it is converted."""

import argparse
import dataclasses
import functools
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from navigan_jax import checkpoints
from navigan_jax.errors import InputError
from tools.convert_weights.readers.modules import Contents, name_values
from tools.convert_weights.readers.structure import Found

Shapes = Mapping[str, tuple[int, ...]]

_SUFFIX = ".safetensors"


@dataclasses.dataclass(frozen=True)
class Foreign:
    """A file of another program that was read; what kind of file it was no longer matters.

    name: what messages call it. content: nested plain containers, arrays and inert records.
    origin: of a converted file's metadata, file name and SHA-256. map_of: returns the map of the
    places in the file of the arrays, given the network that was converted and the arrays by our
    path of all networks that are alike, by their labels.
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
    """Opens a file; of a wheel, the member whose name matches the pattern."""

    def __call__(self, path: str | os.PathLike[str], member: str = ...) -> Foreign: ...


class Network(NamedTuple):
    """A kind of network, or of file, and the command that converts it.

    words: what it is, for the help. add_arguments: adds those of the command but for --out.
    convert: converts as the user said and writes the file; returns its path, or None if it has
    reported itself. recognise: returns the name of the architecture that has arrays of such names
    and shapes, or None. sides: for such a name, what returns the side of the images, if known.
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
        help="which network of the file, by the name that it has there, such as g_ema, G or "
        "state_dict.decoder; default: the average of training, else the only one that fits",
    )


def check_output(out: str, *sources: str | os.PathLike[str], suffix: str = _SUFFIX) -> None:
    """Checks before all work that the file to be written is no source and has the right name.

    Raises: InputError.
    """
    if not out.endswith(suffix):
        raise InputError(f"--out: expected a name that ends in {suffix}; got {out!r}; rename it")
    for source in sources:
        if checkpoints.is_same_file(out, source):
            raise InputError(f"--out: expected another file than the source; got {out!r} for both")


def by_names(architectures: Mapping[str, tuple[str, ...]]) -> Callable[[Shapes], str | None]:
    """Returns what recognises the first architecture of which every pattern matches the end of
    some array's name."""

    def recognise(shapes: Shapes) -> str | None:
        for architecture, patterns in architectures.items():
            ends = [re.compile(rf"(?:.*[/.])?{pattern}") for pattern in patterns]
            if all(any(end.fullmatch(name) for name in shapes) for end in ends):
                return architecture
        return None

    return recognise
