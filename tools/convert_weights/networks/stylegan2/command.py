"""The command `stylegan2`: converts a file, an official network by name, or all official ones."""

import argparse
import dataclasses
import difflib
import math
import os
import pathlib

from navigan_jax.checkpoints import make_folder
from navigan_jax.errors import InputError
from navigan_jax.generators.files import write_generator
from tools.convert_weights.download import NoConnection
from tools.convert_weights.known_networks import KNOWN_NETWORKS, fetch_network
from tools.convert_weights.networks.base import Opener, add_choice, add_label_names, check_output
from tools.convert_weights.networks.stylegan2.parts import AVERAGE_DRAWS, MAPPING_RATE
from tools.convert_weights.networks.stylegan2.reading import Options, from_foreign

_MOST_DRAWS = 1_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds all arguments of the command but --out."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "source",
        metavar="SOURCE",
        nargs="?",
        help="file of rosinality, NaviGAN or NVIDIA (.pt or .pkl), or the name of an official "
        f"network: {', '.join(KNOWN_NETWORKS)}",
    )
    source.add_argument(
        "--all-known",
        action="store_true",
        help="convert every official network, about 19 GB; --out is a folder; files already in it "
        "are kept",
    )
    add_choice(parser)
    parser.add_argument(
        "--mapping-rate",
        type=_positive,
        metavar="RATE",
        help="learning-rate multiplier of the mapping, for a state dict, which does not store it; "
        f"default: {MAPPING_RATE}, as in all official programs",
    )
    parser.add_argument(
        "--clamp",
        type=_positive,
        metavar="BOUND",
        help="bound of activations (conv_clamp), for a state dict of NVIDIA's PyTorch programs, "
        "which does not store it; default: none; the training program of NVIDIA sets 256",
    )
    parser.add_argument(
        "--draws",
        type=_count,
        metavar="N",
        help="number of draws of z (seed 0) to estimate the average w from, for a file without "
        f"one; default: {AVERAGE_DRAWS}",
    )
    add_label_names(parser, "classes have numbers only")


def _positive(text: str) -> float:
    """Returns the finite number above 0 that the text spells."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0; got {text!r}")
    return value


def _count(text: str) -> int:
    """Returns the whole number that the text spells, from 1 to the limit."""
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_DRAWS:
        raise argparse.ArgumentTypeError(
            f"expected a whole number from 1 to {_MOST_DRAWS}; got {text!r}"
        )
    return int(text)


def options_of(arguments: argparse.Namespace) -> Options:
    """Returns the options of one conversion."""
    names = [field.name for field in dataclasses.fields(Options)]
    return Options(**{name: getattr(arguments, name) for name in names})


def convert(arguments: argparse.Namespace, open_file: Opener) -> str | None:
    """Runs the command; returns as `base.Network.convert`.

    Raises: InputError.
    """
    options = options_of(arguments)
    if not arguments.all_known:
        check_output(arguments.out, arguments.source)
        convert_one(arguments.source, arguments.out, options, open_file)
        return arguments.out
    if options != Options():
        raise InputError(
            "--all-known: expected no other option than --out; got an option for a single file; "
            "leave it out, or convert that network by its name"
        )
    convert_all(arguments.out, open_file)
    return None


def convert_one(source: str, out: str, options: Options, open_file: Opener) -> None:
    """Converts the file `source`, or the official network of that name if no such file exists.

    Raises: InputError as `from_foreign`, or if the network cannot be downloaded.
    """
    if not os.path.exists(source):
        if source in KNOWN_NETWORKS:
            source = str(fetch_network(source))
        elif not os.path.splitext(source)[1]:
            near = difflib.get_close_matches(source, KNOWN_NETWORKS, n=3)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise InputError(
                f"{source}: expected a file or an official network; got neither; {hint}"
                f"allowed: {', '.join(KNOWN_NETWORKS)}"
            )
    config, params, origin = from_foreign(open_file(source), options)
    write_generator(out, "stylegan2", config, params, origin)


def convert_all(folder: str, open_file: Opener) -> None:
    """Converts every official network to NAME.safetensors in the folder; keeps existing files.

    Prints one line per network. A network that fails does not stop the others; a missing network
    connection does.

    Raises: InputError if the connection is missing, or at the end, with each failure and its cause.
    """
    target = make_folder(folder)
    failures: list[str] = []
    for index, name in enumerate(KNOWN_NETWORKS, 1):
        out = pathlib.Path(target) / f"{name}.safetensors"
        label = f"{index} of {len(KNOWN_NETWORKS)}  {name}"
        if out.exists():
            print(f"{label}: already there")
            continue
        try:
            convert_one(name, str(out), Options(), open_file)
        except NoConnection as error:
            raise InputError(
                f"--all-known: expected a network connection; got none at {label}; {error}; "
                "run the command again to continue from there"
            ) from error
        except InputError as error:
            failures.append(str(error))
            print(f"{label}: failed")
        else:
            print(f"{label}: {out}")
    if failures:
        raise InputError(
            f"--all-known: expected {len(KNOWN_NETWORKS)} networks; got "
            f"{len(KNOWN_NETWORKS) - len(failures)}; run the command again for the others:\n  "
            + "\n  ".join(failures)
        )
