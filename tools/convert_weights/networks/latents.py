"""Converts latents that other programs pickled to the .npz file that tasks take.

rosinality's projector writes {image: {"img": ..., "latent": ..., "noise": [...]}}. Encoders of
StyleGAN write one tensor, a list, or {image: array}. If a dict has an entry with a name of latents,
that entry is used and the others are ignored.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

from navigan_jax.checkpoints import atomic_output
from navigan_jax.errors import InputError
from navigan_jax.generators.latents import is_latent_name
from tools.convert_weights.networks.base import Network, Opener, check_output

_PLAIN = "latents"  # a name that says nothing; the axes tell z, w and w_plus apart
_MOST_LISTED = 6


@dataclasses.dataclass(frozen=True)
class _Found:
    """An array that can be latents. name: of the latents. place: the array's path in the file."""

    name: str
    place: str
    array: np.ndarray

    def __str__(self) -> str:
        return f"{self.place or 'an array'} {list(self.array.shape)}"


def find_latents(content: Any, name: str, file: str) -> tuple[str, np.ndarray]:
    """Returns the name of the latents, and the latents [count, ...] in float32.

    content: of the file, plain containers. name: of latents without a name of their own. file: the
    file's name in messages.
    Raises: InputError if the file holds no latents, or arrays of different names or shapes.
    """
    found = list(_walk(content, name if is_latent_name(name) else _PLAIN, "", file))
    if not found:
        raise InputError(
            f"{file}: expected latents, arrays of numbers with one to three axes; got none; see "
            "what the file is with: python -m tools.convert_weights inspect FILE"
        )
    if len({(each.name, each.array.ndim, each.array.shape[-2:]) for each in found}) > 1:
        more = len(found) - _MOST_LISTED
        listed = ", ".join(map(str, found[:_MOST_LISTED])) + (f" and {more} more" * (more > 0))
        raise InputError(
            f"{file}: expected latents of one shape; got {len(found)} arrays: {listed}; save the "
            "latents alone, under a name such as w or latents"
        )
    arrays = [each.array for each in found]
    if len(arrays) == 1:
        return found[0].name, arrays[0]
    is_one_each = arrays[0].ndim == 1 or (arrays[0].ndim == 2 and len(arrays[0]) > 1)
    joined = np.stack(arrays) if is_one_each else np.concatenate(arrays)
    return found[0].name, joined


def _walk(value: Any, name: str, place: str, file: str) -> Iterator[_Found]:
    """Yields the arrays that can be latents."""
    if isinstance(value, np.ndarray):
        # Some programs write z as [count, z, 1, 1], for convolutions.
        axes = value.ndim - 2 * (value.shape[2:] == (1, 1))
        if 1 <= axes <= 3 and (value.dtype.kind in "fiu" or value.dtype == ml_dtypes.bfloat16):
            with np.errstate(over="ignore"):
                yield _Found(name, place, value.astype(np.float32))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _walk(item, name, f"{place}[{index}]", file)
    elif isinstance(value, dict):
        named = [key for key in value if is_latent_name(key)]
        if len(named) > 1:
            raise InputError(
                f"{file}: expected one entry with latents; got {', '.join(named)}; save one of "
                "them alone"
            )
        for key in named or value:
            called = key if named else name
            yield from _walk(value[key], called, f"{place}/{key}" if place else str(key), file)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="latents of a projector or an encoder: .pt, .pkl, .npy or .npz",
    )
    parser.add_argument(
        "--name",
        choices=("z", "w", "w_plus"),
        help="the kind of the latents, if neither SOURCE nor their axes tell z from w",
    )


def _convert(options: argparse.Namespace, open_file: Opener) -> str:
    check_output(options.out, options.source, suffix=".npz")
    foreign = open_file(options.source)
    stem = pathlib.PurePath(options.source).stem.lower()
    found, latents = find_latents(foreign.content, stem, foreign.name)
    with atomic_output(options.out) as temporary:
        np.savez(temporary, allow_pickle=False, **{options.name or found: latents})
    return options.out


NETWORK = Network(
    words="latents of a projector or an encoder, to FILE.npz",
    add_arguments=_add_arguments,
    convert=_convert,
    recognise=lambda _: None,
)
