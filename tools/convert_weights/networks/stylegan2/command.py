"""The command `stylegan2`: one file, one official network by name, or all of these."""

import argparse
import dataclasses
import difflib
import json
import math
import os
import pathlib

from navigan_jax import faults
from navigan_jax.checkpoints import make_folder
from navigan_jax.errors import InputError
from navigan_jax.generators.files import write_generator
from tools.convert_weights.download import NoConnection
from tools.convert_weights.known_networks import KNOWN_NETWORKS, fetch_network
from tools.convert_weights.networks.base import Opener, add_choice, check_output
from tools.convert_weights.networks.stylegan2.parts import AVERAGE_DRAWS, MAPPING_RATE
from tools.convert_weights.networks.stylegan2.reading import Options, from_foreign

_MOST_DRAWS = 1_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command, but for the output."""
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
        help="every official network, some 19 GB; --out is then a folder; those in it are kept",
    )
    add_choice(parser)
    parser.add_argument(
        "--mapping-rate",
        type=_positive,
        default=MAPPING_RATE,
        metavar="RATE",
        help="learning-rate multiplier of the mapping where the file, a state dict, does not say "
        "it; default: %(default)s, as in all official programs",
    )
    parser.add_argument(
        "--clamp",
        type=_positive,
        metavar="BOUND",
        help="bound of activations (conv_clamp) where the file, a state dict of NVIDIA's program, "
        "does not say it; default: none; its training program sets 256",
    )
    parser.add_argument(
        "--draws",
        type=_count,
        default=AVERAGE_DRAWS,
        metavar="N",
        help="draws of z (seed 0) for an average w that the file lacks; default: %(default)s",
    )
    parser.add_argument(
        "--label-names",
        type=_names,
        default=(),
        metavar="FILE",
        help="names of the classes, in order: a text with one a line, a JSON list, or a JSON "
        "object with a list label_names; without it classes have numbers only",
    )


def _positive(text: str) -> float:
    """Returns a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0; got {text!r}")
    return value


def _count(text: str) -> int:
    """Returns a whole number from 1 on."""
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_DRAWS:
        raise argparse.ArgumentTypeError(
            f"expected a whole number from 1 to {_MOST_DRAWS}; got {text!r}"
        )
    return int(text)


def _names(path: str) -> tuple[str, ...]:
    """Returns the names in a file."""
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


def options_of(arguments: argparse.Namespace) -> Options:
    """Returns what the user said of the file."""
    names = [field.name for field in dataclasses.fields(Options)]
    return Options(**{name: getattr(arguments, name) for name in names})


def convert(arguments: argparse.Namespace, open_file: Opener) -> str | None:
    """Converts as the user said; see `base.Network`.

    Raises: InputError.
    """
    options = options_of(arguments)
    if not arguments.all_known:
        check_output(arguments.out, arguments.source)
        convert_one(arguments.source, arguments.out, options, open_file)
        return arguments.out
    if options != Options():
        raise InputError(
            "--all-known: expected no other option than --out; got one that is of a single "
            "file; leave it out, or convert that network by its name"
        )
    convert_all(arguments.out, open_file)
    return None


def convert_one(source: str, out: str, options: Options, open_file: Opener) -> None:
    """Converts a file or, where there is no such file, the official network of that name.

    Raises: InputError as `from_foreign`, or if the network cannot be had.
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
    """Converts every official network into a file of its name in the folder; keeps what is there.

    A line is printed for each. Without a connection nothing more is tried; a single network that
    fails keeps none of the others back.

    Raises: InputError at the end, naming each network that failed and why.
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
                "run the command again to go on from there"
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
