"""The command `latents`: makes an .npz of latents that other programs pickled."""

import argparse
import pathlib
from typing import Any

import numpy as np

from navigan_jax.checkpoints import atomic_output
from navigan_jax.errors import InputError
from tools.convert_weights.networks.latents import find_latents
from tools.convert_weights.readers import signatures
from tools.convert_weights.readers.archive import Archive
from tools.convert_weights.readers.npy_objects import read_any_npy
from tools.convert_weights.readers.npz import is_npz
from tools.convert_weights.readers.nvidia_file import NVIDIA_NAMES
from tools.convert_weights.readers.torch_file import read_bytes, read_torch_bytes
from tools.convert_weights.readers.unpickle import read_pickle

NAMES = ("z", "w", "w_plus")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="latents of a projector or an encoder: .pt, .pkl, .npy or .npz",
    )
    parser.add_argument(
        "--name",
        choices=NAMES,
        help="what the latents are, where neither SOURCE nor their axes tell z from w",
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="to write, FILE.npz")


def convert(source: str, out: str, name: str | None) -> str:
    """Writes the latents of a file as .npz; returns words for what was written.

    Raises: InputError if the file cannot be read or holds no latents.
    """
    if not out.endswith(".npz"):
        raise InputError(f"--out: expected a name that ends in .npz; got {out!r}; rename it")
    stem = pathlib.PurePath(source).stem.lower()
    found, latents, count = find_latents(_read(source), stem, source)
    called = name or found
    with atomic_output(out) as temporary:
        np.savez(temporary, allow_pickle=False, **{called: latents})
    arrays = f"{count} array{'s' * (count != 1)}"
    return f"written\n{out}: {called!r} {list(latents.shape)}, from {arrays} of {source}"


def _read(source: str) -> Any:
    """Returns what a file holds, as plain containers with arrays; nothing of it is executed."""
    data = read_bytes(source)
    kind = signatures.kind_of(data)
    if kind == signatures.PICKLE:
        return read_pickle(data, NVIDIA_NAMES, name=source)[0]
    if kind == signatures.NPY:
        return read_any_npy(data, source)
    if kind == signatures.ZIP and is_npz(archive := Archive(data, source)):
        return {
            member.removesuffix(".npy"): read_any_npy(archive.read(member), f"{source}: {member}")
            for member in archive.names
        }
    return read_torch_bytes(data, source)
