"""Converts weight files of other projects, or says what a file is.

python -m tools.convert_weights dcgan SOURCE --out FILE.safetensors
python -m tools.convert_weights stylegan2 SOURCE --out FILE.safetensors
python -m tools.convert_weights stylegan2 --all-known --out DIR
python -m tools.convert_weights navigan SOURCE --generator FILE --out FILE.safetensors
python -m tools.convert_weights lpips [SOURCE] --net NET --version VERSION --out FILE.safetensors
python -m tools.convert_weights resnet18 [SOURCE] --out FILE.safetensors
python -m tools.convert_weights inspect FILE
"""

import argparse
import difflib
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn, TextIO

from navigan_jax.directions import write_directions
from navigan_jax.discovery.reconstructor_files import write_start
from navigan_jax.errors import InputError
from navigan_jax.generators.files import read_generator, write_generator
from navigan_jax.perceptual.files import write_perceptual
from navigan_jax.perceptual.lpips import VERSIONS
from tools.convert_weights import stylegan2_command
from tools.convert_weights.download import BACKBONES, RESNET18, fetch, fetch_faces_wheel
from tools.convert_weights.inspect_file import describe_file
from tools.convert_weights.lpips_sources import collect, read_state
from tools.convert_weights.networks import resnet
from tools.convert_weights.networks.dcgan import read_dcgan
from tools.convert_weights.networks.lpips import from_state_dicts
from tools.convert_weights.networks.navigan import read_navigan

# In place of a path: the DCGAN for faces, fetched as a wheel.
_FACES = "faces"
_SUFFIX = ".safetensors"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; {self.format_usage().strip()}")


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, metavar="FILE", help=f"to write, FILE{_SUFFIX}")


def _add_dcgan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="SOURCE", help=f"PyTorch file, wheel with one, or {_FACES!r}"
    )
    _add_output(parser)


def _convert_dcgan(options: argparse.Namespace) -> None:
    source = fetch_faces_wheel() if options.source == _FACES else pathlib.Path(options.source)
    _check_output(options.out, source)
    config, params, origin = read_dcgan(source)
    write_generator(options.out, "dcgan", config, params, origin)
    _report(options.out)


def _add_stylegan2(parser: argparse.ArgumentParser) -> None:
    stylegan2_command.add_arguments(parser)
    _add_output(parser)


def _convert_stylegan2(options: argparse.Namespace) -> None:
    if options.all_known:
        if stylegan2_command.options_of(options) != stylegan2_command.Options():
            raise InputError(
                "--all-known: expected no other option than --out; got one that is of a single "
                "file; leave it out, or convert that network by its name"
            )
        stylegan2_command.convert_all(options.out, _say)
        return
    _check_output(options.out, options.source)
    stylegan2_command.convert_one(
        options.source, options.out, stylegan2_command.options_of(options)
    )
    _report(options.out)


def _add_navigan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="SOURCE", help="eigenvectors_layer*.pt, checkpoint.pt or deformation.pt"
    )
    parser.add_argument(
        "--generator", required=True, metavar="FILE", help="the generator, converted"
    )
    parser.add_argument(
        "--basis", metavar="FILE", help="for a checkpoint trained in a basis: its file"
    )
    parser.add_argument(
        "--layer",
        metavar="NAME",
        help="the layer, such as convs.3, where the file is not named after it",
    )
    _add_output(parser)


def _convert_navigan(options: argparse.Namespace) -> None:
    given = (options.source, options.generator, options.basis)
    _check_output(options.out, *filter(None, given))
    generator, params = read_generator(options.generator)
    directions = read_navigan(
        options.source, generator, params, basis=options.basis, layer=options.layer
    )
    write_directions(options.out, directions)
    _report(options.out)


def _add_lpips(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="SOURCE",
        nargs="?",
        help="torchvision file of the net or saved LPIPS module; default: downloaded",
    )
    parser.add_argument("--net", required=True, choices=sorted(BACKBONES))
    parser.add_argument("--version", choices=sorted(VERSIONS), default="0.1")
    linear = parser.add_mutually_exclusive_group()
    linear.add_argument(
        "--linear",
        metavar="FILE",
        help="linear weights or wheel of lpips; default: in SOURCE, else downloaded",
    )
    linear.add_argument(
        "--no-linear", action="store_true", help="without linear weights: plain sums of channels"
    )
    _add_output(parser)


def _convert_lpips(options: argparse.Namespace) -> None:
    _check_output(options.out, *filter(None, (options.source, options.linear)))
    sources = collect(
        options.net,
        options.version,
        source=options.source,
        linear_source=options.linear,
        with_linear=not options.no_linear,
    )
    config, params = from_state_dicts(
        options.net, sources.backbone, sources.linear, options.version
    )
    write_perceptual(options.out, "lpips", config, params, sources.origin)
    _report(options.out)


def _add_resnet18(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="SOURCE", nargs="?", help=f"torchvision's {RESNET18}; default: downloaded"
    )
    _add_output(parser)


def _convert_resnet18(options: argparse.Namespace) -> None:
    _check_output(options.out, *filter(None, (options.source,)))
    state, origin = read_state(options.source or fetch(RESNET18), "backbone")
    write_start(options.out, resnet.from_state_dict(state), origin)
    _report(options.out)


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="FILE")


def _inspect(options: argparse.Namespace) -> None:
    _say(describe_file(options.source))


_KINDS: Mapping[
    str,
    tuple[Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], None], str],
] = {
    "dcgan": (_add_dcgan, _convert_dcgan, "DCGAN generator of PyTorch"),
    "stylegan2": (
        _add_stylegan2,
        _convert_stylegan2,
        "StyleGAN2 generator of rosinality, NaviGAN or NVIDIA",
    ),
    "navigan": (
        _add_navigan,
        _convert_navigan,
        "directions that NaviGAN saved: eigenvectors, a trained checkpoint, a deformation",
    ),
    "lpips": (_add_lpips, _convert_lpips, "LPIPS distance: network and linear weights"),
    "resnet18": (
        _add_resnet18,
        _convert_resnet18,
        "ResNet-18 of torchvision, to start a reconstructor with",
    ),
    "inspect": (_add_inspect, _inspect, "say what a file is, without executing anything"),
}


def _check_output(out: str, *sources: str | os.PathLike[str]) -> None:
    if not out.endswith(_SUFFIX):
        raise InputError(f"--out: expected a name that ends in {_SUFFIX}; got {out!r}; rename it")
    for source in sources:
        if os.path.exists(out) and os.path.exists(source) and os.path.samefile(out, source):
            raise InputError(f"--out: expected another file than the source; got {out!r} for both")


def _report(out: str) -> None:
    _say(f"written\n{describe_file(out)}")


def _say(text: str, file: TextIO | None = None) -> None:
    """Prints lines; foreign names may hold what a terminal would obey, which becomes a '?'."""
    lines = ("".join(c if c.isprintable() else "?" for c in line) for line in text.split("\n"))
    print("\n".join(lines), file=file or sys.stdout)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m tools.convert_weights",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    for kind, (add_arguments, _, words) in _KINDS.items():
        add_arguments(kinds.add_parser(kind, help=words, description=words))
    first = arguments[0] if arguments else ""
    if first and not first.startswith("-") and first not in _KINDS:
        near = difflib.get_close_matches(first, _KINDS)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise InputError(f"KIND: got {first!r}; allowed: {', '.join(_KINDS)}{hint}")
    options = parser.parse_args(arguments)
    for name, value in vars(options).items():
        if isinstance(value, str):  # shells leave the ~ of --out=~/FILE to us
            setattr(options, name, os.path.expanduser(value))
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, 2 for a user's mistake, 130 after Ctrl-C."""
    try:
        options = _parse(sys.argv[1:] if arguments is None else arguments)
        _KINDS[options.kind][1](options)
    except InputError as error:
        _say(f"error: {error}", sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        _say("interrupted; files are written whole or not at all", sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
