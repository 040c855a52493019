"""Generator files: an architecture, its sizes and its parameters in one safetensors file."""

import dataclasses
import inspect
import json
import os
import reprlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from navigan_jax import channels, checkpoints, generators, own_code
from navigan_jax import params as params_lib
from navigan_jax.array_types import Params
from navigan_jax.assets import finding
from navigan_jax.errors import InputError, OptionError
from navigan_jax.generators.base import Generator
from navigan_jax.generators.latent_space import NormalSpace, find_label
from navigan_jax.generators.own import read_own

# Limits for damaged or hostile files. A network has some 20 layers, and no array has more entries.
_MOST_SIZES, _LARGEST = 64, 2**31

# The options of a generator that its weights do not determine, with their defaults. An architecture
# that lacks an option accepts only its default.
OPTIONS: Mapping[str, Any] = MappingProxyType(
    {
        "truncation": 1.0,
        "truncation_cutoff": None,
        "noise": "constant",
        "noise_seed": 0,
        "label": None,
        "precision": "float32",
    }
)


def make_generator(architecture: str, config: Mapping[str, Any]) -> Generator:
    """Returns the generator of that architecture and those sizes.

    Raises: InputError for an unknown architecture, sizes that do not fit it, or images that cannot
      be shown (see `channels`), which no task could use.
    """
    if architecture not in generators.ARCHITECTURES:
        raise InputError(
            f"architecture: expected a known one; got {architecture!r}; "
            f"allowed: {', '.join(generators.ARCHITECTURES)}"
        )
    for key, value in config.items():
        sizes = [
            x for x in (value if isinstance(value, list | tuple) else [value]) if _is_number(x)
        ]
        if len(sizes) > _MOST_SIZES or not all(-_LARGEST < x < _LARGEST for x in sizes):
            raise InputError(
                f"{architecture}: expected numbers below {_LARGEST} and at most {_MOST_SIZES} in a "
                f"list; got {key} = {reprlib.repr(value)}; convert the weights anew"
            )
    try:
        generator = generators.ARCHITECTURES[architecture](**config)
    except TypeError as error:
        got = f"{str(dict(config))[:500]}, {_misfit(architecture, config)}"
        raise InputError(
            f"{architecture}: expected its sizes; got {got}; convert the weights anew"
        ) from error
    channels.require_known(generator.image_channels, architecture)
    return generator


def _misfit(architecture: str, config: Mapping[str, Any]) -> str:
    """Returns in words why the architecture does not accept the sizes."""
    parameters = inspect.signature(generators.ARCHITECTURES[architecture]).parameters
    needed = [name for name, found in parameters.items() if found.default is found.empty]
    if missing := [name for name in needed if name not in config]:
        return f"without {', '.join(missing)}"
    if unknown := [name for name in config if name not in parameters]:
        return f"of which {', '.join(unknown)} is unknown"
    return "which do not fit"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def write_generator(
    path: str | os.PathLike[str],
    architecture: str,
    config: Mapping[str, Any],
    params: Params,
    source: Mapping[str, Any],
) -> None:
    """Writes a generator file, atomically.

    config: the keywords of the architecture's constructor. source: where the weights are from.
    Raises: InputError if the parameters do not fit the architecture or hold NaN. Nothing is written
      in that case.
    """
    _make_fitting(path, architecture, config, params)
    metadata = {
        "format": "navigan_jax.generator",
        "format_version": "1",
        "architecture": architecture,
        "config": json.dumps(dict(config)),
        "digest": params_lib.digest(params),
        "source": json.dumps(dict(source)),
    }
    checkpoints.write_arrays(path, params_lib.flatten(params), metadata)


def read_generator(
    path: str | os.PathLike[str], options: Mapping[str, Any] | None = None
) -> tuple[Generator, Params]:
    """Returns a generator and its parameters (NumPy arrays).

    path: of a generator file; the name of one in the package, e.g. "cars"; or "FILE.py:NAME" of a
      function that returns anybody's own generator (see `generators.own`).
    options: those in `OPTIONS`, or other keywords of the architecture that the file does not set.
    Raises: InputError if the file is missing, damaged, of another kind, or its weights do not fit;
      OptionError if this generator lacks an option, or does not accept its value.
    """
    if own_code.is_own_code(str(path)):
        return _read_own(str(path), options or {})
    path = finding.find_generator(path)
    arrays, metadata = checkpoints.read_arrays(path)
    checkpoints.require_format(path, metadata, "generator")
    config = checkpoints.read_json(path, metadata, "config")
    params, architecture = params_lib.unflatten(arrays), metadata.get("architecture", "none")
    generator = _make_fitting(path, architecture, config, params)
    expected, got = metadata.get("digest"), params_lib.digest(params)
    if got != expected:
        raise InputError(
            f"{path}: expected weights of digest {expected}; got {got}; "
            "the file was changed or damaged: convert it anew"
        )
    if taken := _check_options(path, architecture, config, options or {}):
        generator = make_generator(architecture, {**config, **taken})
    return generator, params


def _read_own(text: str, options: Mapping[str, Any]) -> tuple[Generator, Params]:
    """Returns the own generator of "FILE.py:NAME"; its only option is the class of the samples."""
    generator, params = read_own(text)
    for option, value in options.items():
        if option not in OPTIONS or (option != "label" and value != OPTIONS[option]):
            raise OptionError(
                option,
                f"expected an option of one's own generator; got {value!r}; allowed: label; set "
                f"this in {text} instead",
            )
    label = options.get("label")
    if label is None:
        return generator, params
    space = generator.space
    if not isinstance(space, NormalSpace):
        raise OptionError("label", f"expected no class, as {text} has none; got {label!r}")
    try:
        index = find_label(label, space.label_dim, space.label_names)
    except InputError as error:
        raise OptionError("label", f"{str(error).removeprefix('label: ')} ({text})") from error
    return dataclasses.replace(generator, space=dataclasses.replace(space, label=index)), params


def _check_options(
    path: str | os.PathLike[str],
    architecture: str,
    config: Mapping[str, Any],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns the options that the architecture has; others must be at their default.

    Raises: OptionError for the first option that this generator does not accept.
    """
    known = {name: _keywords(make) for name, make in generators.ARCHITECTURES.items()}
    taken: dict[str, Any] = {}
    for option, value in options.items():
        if option in config:
            raise OptionError(
                option,
                f"expected an option that the weights do not determine; got {value!r}, but {path} "
                f"has {config[option]!r}; leave it out",
            )
        if option in known[architecture]:
            if _is_number(value) and not -_LARGEST < value < _LARGEST:
                raise OptionError(
                    option,
                    f"expected a number between {-_LARGEST} and {_LARGEST}; got {value!r}; correct "
                    "it where it was set",
                )
            try:
                make_generator(architecture, {**config, option: value})
            except InputError as error:
                reason = str(error).removeprefix(f"{architecture}: ").removeprefix(f"{option}: ")
                raise OptionError(option, f"{reason} ({path})") from error
            taken[option] = value
        elif option not in OPTIONS or value != OPTIONS[option]:
            having = ", ".join(sorted(name for name in known if option in known[name]))
            allowed = ", ".join(name for name in OPTIONS if name in known[architecture]) or "none"
            raise OptionError(
                option,
                f"expected an option of {architecture}, the architecture of {path}; got {value!r} "
                f"for an option of {f'{having} only' if having else 'no architecture'}; allowed: "
                f"{allowed}; leave it out",
            )
    return taken


def _keywords(make: Callable[..., Generator]) -> frozenset[str]:
    return frozenset(inspect.signature(make).parameters)


def _make_fitting(
    path: str | os.PathLike[str], architecture: str, config: Mapping[str, Any], params: Params
) -> Generator:
    """Returns the generator, after checking that the parameters fit; `path` is for messages."""
    try:
        generator = make_generator(architecture, config)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    expected = generator.weights
    if differences := params_lib.describe_differences(expected, params):
        raise InputError(
            f"{path}: expected the weights of this {architecture}; got other arrays; convert them "
            "anew:\n  " + "\n  ".join(differences)
        )
    kinds = {key: np.asarray(leaf).dtype for key, leaf in params_lib.flatten(params).items()}
    if others := [f"{key} of {kind}" for key, kind in kinds.items() if kind != np.float32]:
        raise InputError(
            f"{path}: expected weights of float32; got {', '.join(others)}; convert them anew"
        )
    if bad := params_lib.non_finite_paths(params):
        raise InputError(
            f"{path}: expected finite weights; got NaN or infinity in {', '.join(bad)}; "
            "the source is damaged or its training diverged: take another checkpoint"
        )
    return generator
