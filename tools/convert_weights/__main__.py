"""Converts weight files of other projects, or describes a file.

python -m tools.convert_weights dcgan SOURCE --out FILE.safetensors
python -m tools.convert_weights stylegan2 SOURCE --out FILE.safetensors
python -m tools.convert_weights stylegan2 --all-known --out DIR
python -m tools.convert_weights biggan SOURCE --out FILE.safetensors
python -m tools.convert_weights biggan-deep SOURCE --out FILE.safetensors
python -m tools.convert_weights pix2pixhd SOURCE --out FILE.safetensors
python -m tools.convert_weights proggan SOURCE --out FILE.safetensors
python -m tools.convert_weights sngan SOURCE --out FILE.safetensors
python -m tools.convert_weights navigan SOURCE --generator FILE --out FILE.safetensors
python -m tools.convert_weights lpips [SOURCE] --net NET --version VERSION --out FILE.safetensors
python -m tools.convert_weights resnet18 [SOURCE] --out FILE.safetensors
python -m tools.convert_weights latents SOURCE --out FILE.npz
python -m tools.convert_weights inspect FILE
"""

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn, TextIO

from navigan_jax import environment

if __name__ == "__main__":  # JAX reads its variables when it is imported, which is below
    environment.set_aside()

from navigan_jax import assets
from navigan_jax.assets import finding
from navigan_jax.errors import InputError
from tools.convert_weights.foreign import read_foreign
from tools.convert_weights.inspect_file import describe_file
from tools.convert_weights.networks import NETWORKS

_INSPECT = "inspect"
_UNREADABLE = 3
_KINDS = (*NETWORKS, _INSPECT)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; {self.format_usage().strip()}")


def _run(options: argparse.Namespace) -> int:
    if options.kind == _INSPECT:
        is_name = options.source in assets.GENERATORS
        path = finding.find_generator(options.source) if is_name else options.source
        description = describe_file(path)
        _say(description.text)
        return 0 if description.is_read else _UNREADABLE
    out = NETWORKS[options.kind].convert(options, read_foreign)
    if out is not None:
        _say(f"written\n{describe_file(out).text}")
    return 0


def _say(text: str, file: TextIO | None = None) -> None:
    """Prints lines; replaces control characters, which foreign names may contain, by '?'."""
    lines = ("".join(c if c.isprintable() else "?" for c in line) for line in text.split("\n"))
    print("\n".join(lines), file=file or sys.stdout)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m tools.convert_weights",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    for kind, network in NETWORKS.items():
        command = kinds.add_parser(kind, help=network.words, description=network.words)
        network.add_arguments(command)
        command.add_argument(
            "--out",
            required=True,
            metavar="FILE",
            help="output file, FILE.safetensors, or FILE.npz for latents",
        )
    words = (
        "describe a file without executing anything in it; exit status 0 if it can be read, "
        f"{_UNREADABLE} if it is damaged, hostile or of an unknown format"
    )
    command = kinds.add_parser(_INSPECT, help=words, description=words)
    command.add_argument("source", metavar="FILE")
    first = arguments[0] if arguments else ""
    if first and not first.startswith("-") and first not in _KINDS:
        near = difflib.get_close_matches(first, _KINDS)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise InputError(f"KIND: got {first!r}; allowed: {', '.join(_KINDS)}{hint}")
    options = parser.parse_args(arguments)
    for name, value in vars(options).items():
        if isinstance(value, str):  # shells do not expand the ~ of --out=~/FILE
            setattr(options, name, os.path.expanduser(value))
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status.

    0: success. 2: a user's mistake. 3: `inspect` finds the file damaged, hostile or of an unknown
    format. 130: Ctrl-C.
    """
    try:
        options = _parse(sys.argv[1:] if arguments is None else arguments)
        return _run(options)
    except InputError as error:
        _say(f"error: {error}", sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        _say("interrupted; files are written whole or not at all", sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
