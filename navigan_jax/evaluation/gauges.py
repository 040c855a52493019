"""Gauges: functions that read named factors, such as "wheel radius", off images.

A gauge is a network of ours in a file, an asset of the package, or anybody's own function. All are
checked in the same way, and every user of them gets numbers of known shape in known units.
"""

import dataclasses
import functools
import hashlib
import json
import math
import numbers
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import assets, checkpoints, own_code
from navigan_jax import params as params_lib
from navigan_jax.array_types import Array, Float, Images, Params
from navigan_jax.assets import finding
from navigan_jax.errors import InputError
from navigan_jax.evaluation.gauge_network import GaugeNetwork, make_network, read_shares

_LONGEST_NAME = 60
_BATCH = 64  # images that a network reads at once, for the memory that features take


@dataclasses.dataclass(frozen=True)
class Factor:
    """A property that a gauge reads as a number.

    low, high: its range, in a unit of its own; None if it is not known.
    is_circular: whether both ends of the range are the same, as for an angle.
    """

    name: str
    low: float | None = None
    high: float | None = None
    is_circular: bool = False

    @property
    def span(self) -> float | None:
        """The length of the range, if it is known."""
        return None if self.low is None or self.high is None else self.high - self.low


@dataclasses.dataclass(frozen=True, eq=False)
class Gauges:
    """A gauge: a function that reads factors off images, and what it reads.

    read: takes images [batch, height, width, channels] in [-1, 1], as a NumPy or a JAX array, and
      returns a NumPy array [batch, factors] of float32, in the factors' own units.
    digest: of everything the readings depend on; `read_gauges` fills it in for a function.
    source: a path or a name, for messages; `read_gauges` fills it in.
    Raises: InputError if there is no factor, or a factor is not valid.
    """

    factors: tuple[Factor, ...]
    read: Callable[[Images | np.ndarray], np.ndarray]
    digest: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "factors", tuple(self.factors))
        require_sound(self.factors)
        if not callable(self.read):
            raise InputError(
                "gauges: expected a function read(images); got a "
                f"{type(self.read).__name__}; pass the function itself"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the factors, in the order of the readings."""
        return tuple(factor.name for factor in self.factors)


def require_sound(factors: Sequence[Factor]) -> None:
    """Checks that there are factors, with distinct names and valid ranges.

    Raises: InputError that names the first factor at fault.
    """
    if not factors:
        raise InputError("gauges: expected at least one factor; got none; name what is read")
    for factor in factors:
        if not isinstance(factor, Factor):
            raise InputError(
                f"gauges: expected factors; got {factor!r}; write Factor(name, low, high)"
            )
        if fault := _fault_of_name(factor.name):
            raise InputError(
                f"gauges: expected a name for each factor, one line of at most {_LONGEST_NAME} "
                f"characters; got {fault}; give it another name"
            )
        if fault := _fault_of_range(factor):
            raise InputError(
                f"gauges: expected a range with low < high for {factor.name!r}"
                f"{'' if factor.is_circular else ', or none'}; got {fault}; correct the factor"
            )
    names = [factor.name for factor in factors]
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(
            f"gauges: expected a different name for each factor; got {', '.join(doubles)} more "
            "than once; give them other names"
        )


def _fault_of_name(name: Any) -> str | None:
    if not isinstance(name, str):
        return f"a {type(name).__name__}"
    if not name.strip():
        return "an empty one"
    if not name.isprintable():
        return repr(name[:_LONGEST_NAME])
    return f"{len(name)} characters" if len(name) > _LONGEST_NAME else None


def _fault_of_range(factor: Factor) -> str | None:
    ends: tuple[Any, Any] = (factor.low, factor.high)
    if ends == (None, None):
        return "a circular factor without one" if factor.is_circular else None
    if all(_is_finite(end) for end in ends) and ends[0] < ends[1]:
        return None
    return f"low = {ends[0]!r}, high = {ends[1]!r}"


def _is_finite(value: Any) -> bool:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def change_of(
    factors: Sequence[Factor],
    before: Float[np.ndarray, "*batch factors"],
    after: Float[np.ndarray, "*batch factors"],
) -> Float[np.ndarray, "*batch factors"]:
    """Returns after - before in units of each factor's range.

    A circular factor's change is in [-1/2, 1/2): the shorter way round. A factor without a range
    keeps its own unit; the caller divides by the spread over images.
    """
    spans = np.array([factor.span or 1.0 for factor in factors])
    circular = np.array([factor.is_circular for factor in factors])
    change = (np.asarray(after, np.float64) - np.asarray(before, np.float64)) / spans
    return np.where(circular, change - np.floor(change + 0.5), change)


def write_gauges(
    path: str | os.PathLike[str],
    factors: Sequence[Factor],
    config: Mapping[str, Any],
    params: Params,
    source: Mapping[str, Any],
) -> None:
    """Writes a network of gauges, atomically.

    config: the keywords of `GaugeNetwork` without `is_circular`. source: what it was trained on,
      and how well it reads; stored in the file as JSON.
    Raises: InputError if factors, sizes and weights do not fit each other; nothing is written then.
    """
    factors = tuple(factors)
    _make_network(path, factors, config, params)
    metadata = {
        "format": "navigan_jax.gauges",
        "format_version": "1",
        "config": json.dumps(dict(config)),
        "factors": json.dumps([dataclasses.asdict(factor) for factor in factors]),
        "digest": _digest(factors, config, params),
        "source": json.dumps(dict(source)),
    }
    checkpoints.write_arrays(path, params_lib.flatten(params), metadata)


def read_gauges(path: str) -> Gauges:
    """Returns gauges that check what they read.

    path: a file by `write_gauges`; the name of an asset, e.g. "cars"; or "FILE.py:NAME", where
      NAME is anybody's own function without arguments that returns `Gauges`.
    Raises: InputError if none of these exists, the file is damaged, or the user's code fails or
      returns something else. The gauges' `read` raises it too, for images and numbers that do not
      fit.
    """
    gauges = _read_own(path) if own_code.is_own_code(path) else _read_network(path)
    return dataclasses.replace(gauges, read=functools.partial(_read_checked, gauges))


def _read_own(text: str) -> Gauges:
    gauges = own_code.call_function(text)
    if not isinstance(gauges, Gauges):
        raise InputError(
            f"{text}: expected a function that returns Gauges; got a {type(gauges).__name__}; "
            "return navigan_jax.evaluation.gauges.Gauges(factors, read)"
        )

    def read(images: Images | np.ndarray) -> np.ndarray:
        with own_code.explaining_errors(text):
            return gauges.read(np.asarray(images, np.float32))

    digest = gauges.digest or hashlib.sha256(own_code.file_of(text).read_bytes()).hexdigest()
    return dataclasses.replace(gauges, read=read, digest=digest, source=text)


def _read_network(name: str) -> Gauges:
    path = _find_network(name)
    arrays, metadata = checkpoints.read_arrays(path)
    checkpoints.require_format(path, metadata, "gauges")
    config = checkpoints.read_json(path, metadata, "config")
    params = params_lib.unflatten(arrays)
    rows = checkpoints.read_json(path, metadata, "factors", list)
    try:
        factors = tuple(Factor(**row) for row in rows)
    except TypeError as error:
        raise InputError(
            f"{path}: expected factors with name, low, high and is_circular; got "
            f"{str(rows)[:200]}; the file is damaged: make it anew"
        ) from error
    network = _make_network(path, factors, config, params)
    expected, got = metadata.get("digest"), _digest(factors, config, params)
    if got != expected:
        raise InputError(
            f"{path}: expected a network of digest {expected}; got {got}; the file was changed or "
            "damaged: make it anew"
        )
    return Gauges(factors, _reader(path, network, factors, params), got, name)


def _find_network(name: str) -> pathlib.Path:
    """Returns the path of the network; a name of one in the package is found there."""
    path = finding.find_gauges(name)
    if not path.exists():
        raise InputError(
            f"{name}: expected gauges; got nothing at this path; allowed: a file of format "
            "navigan_jax.gauges, a function of your own (my_gauge.py:make), or a name: "
            f"{', '.join(assets.GAUGES)}; correct the path"
        )
    return path


def _make_network(
    path: str | os.PathLike[str],
    factors: Sequence[Factor],
    config: Mapping[str, Any],
    params: Params,
) -> GaugeNetwork:
    """Returns the network, after checking that factors, sizes and weights fit."""
    try:
        require_sound(factors)
        if bare := [factor.name for factor in factors if factor.span is None]:
            raise InputError(
                "gauges: expected a range for each factor of a network; got none for "
                f"{', '.join(bare)}; give the range of what it was trained on"
            )
        return make_network(config, [factor.is_circular for factor in factors], params)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _digest(factors: Sequence[Factor], config: Mapping[str, Any], params: Params) -> str:
    """Returns the SHA-256 of everything the readings depend on."""
    rows = [dataclasses.asdict(factor) for factor in factors]
    text = json.dumps([rows, dict(config), params_lib.digest(params)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _reader(
    path: pathlib.Path, network: GaugeNetwork, factors: Sequence[Factor], params: Params
) -> Callable[[Images | np.ndarray], np.ndarray]:
    """Returns the function that reads with this network; it compiles once for each batch shape."""
    lows = np.array([[factor.low for factor in factors]], np.float32)
    spans = np.array([[factor.span for factor in factors]], np.float32)

    @jax.jit
    def program(params: Params, images: Images) -> Array:
        return jnp.asarray(lows) + spans * read_shares(network, params, images)

    weights = params_lib.to_device(params)

    def read(images: Images | np.ndarray) -> np.ndarray:
        height, width, channels = images.shape[1:]
        if height != width or channels != network.image_channels:
            raise InputError(
                f"{path}: expected square images of {network.image_channels} channels, as those "
                f"that it was trained on; got {height} x {width} pixels with {channels} channels; "
                "choose gauges for images of this kind"
            )
        parts = [images[i : i + _BATCH] for i in range(0, len(images), _BATCH)]
        return np.concatenate([np.asarray(program(weights, part)) for part in parts])

    return read


def _read_checked(gauges: Gauges, images: Images | np.ndarray) -> np.ndarray:
    """Returns the readings of `gauges`, after checking shape and numbers."""
    if images.ndim != 4 or not len(images):
        raise ValueError(f"gauges: images are [batch, height, width, channels]; got {images.shape}")
    got = gauges.read(images)
    expected = (len(images), len(gauges.factors))
    if not isinstance(got, np.ndarray | jax.Array) or got.dtype.kind not in "fiub":
        kind = f"an array of {got.dtype}" if hasattr(got, "dtype") else f"a {type(got).__name__}"
        raise InputError(
            f"{gauges.source}: expected readings as an array of numbers; got {kind}; "
            "return a NumPy array [batch, factors]"
        )
    if got.shape != expected:
        raise InputError(
            f"{gauges.source}: expected readings of shape {expected}, a row for each image and a "
            f"column for each of {', '.join(gauges.names)}; got {got.shape}; correct what read "
            "returns"
        )
    readings = np.asarray(got, np.float32)
    if not np.isfinite(readings).all():
        columns = zip(gauges.names, readings.T, strict=True)
        bad = [name for name, column in columns if not np.isfinite(column).all()]
        cause = (
            "correct what read returns"
            if np.isfinite(np.asarray(images)).all()
            else "the images hold such values themselves: choose smaller shifts"
        )
        raise InputError(
            f"{gauges.source}: expected finite readings; got NaN or infinity for "
            f"{', '.join(bad)}; {cause}"
        )
    return readings
