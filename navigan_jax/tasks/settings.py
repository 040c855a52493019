"""Constraints on the keys of a config: kinds, ranges of numbers, allowed names."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

from navigan_jax import config as config_lib
from navigan_jax.config import Config
from navigan_jax.errors import InputError


class Limits(NamedTuple):
    """The range of a number: `least` to `most`; `is_open` excludes `least`."""

    least: float = 0
    most: float = float("inf")
    is_open: bool = False

    def describe(self) -> str:
        """Returns the range in words."""
        if math.isinf(self.least):
            return "a finite number"
        most = "" if math.isinf(self.most) else f", of at most {self.most:.0f}"
        return f"{self.describe_least()}{most}"

    def describe_least(self) -> str:
        """Returns the lower end of the range in words."""
        if self.is_open:
            return f"a number above {self.least:g}"
        return f"{self.least:g} or a number above it"


FINITE = Limits(least=-float("inf"))
NOT_NEGATIVE = Limits()
POSITIVE = Limits(is_open=True)
SEED = Limits(most=2**32 - 1)  # seeds have 32 bits


@dataclasses.dataclass(frozen=True)
class Settings:
    """Keys with their kinds; limits of numbers; allowed names of texts.

    `|` joins two `Settings`, so that tasks can share keys.
    """

    kinds: config_lib.Keys
    limits: Mapping[str, Limits] = dataclasses.field(default_factory=dict)
    names: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)

    def __or__(self, other: Self) -> "Settings":
        return Settings(
            {**self.kinds, **other.kinds},
            {**self.limits, **other.limits},
            {**self.names, **other.names},
        )

    def check(self, config: Config) -> None:
        """Checks that the config has exactly these keys, with values of their kinds and ranges.

        Raises: InputError for the first key that is wrong.
        """
        for key, limits in self.limits.items():
            number = _find(config, key)
            if isinstance(number, float) and not math.isfinite(number):
                raise wrong_number(config, key, limits.describe())
        config_lib.validate(config, self.kinds)
        for key, limits in self.limits.items():
            _check_limits(config, key, limits)
        for key, allowed in self.names.items():
            if value(config, key) not in allowed:
                raise InputError(
                    f"config.{key}: expected an allowed name; got "
                    f"{value(config, key)!r}; allowed: {', '.join(filter(None, allowed))}; set it "
                    f"with --config.{key}={allowed[0] or allowed[1]}"
                )


def _check_limits(config: Config, key: str, limits: Limits) -> None:
    number = value(config, key)
    if number is None:  # an empty placeholder
        return
    if number < limits.least or (limits.is_open and number == limits.least):
        raise wrong_number(config, key, limits.describe_least())
    if number > limits.most:
        raise wrong_number(config, key, f"a number of at most {limits.most:.0f}")


def wrong_number(config: Config, key: str, expected: str) -> InputError:
    """Returns the error for a number out of range: `expected` describes the range."""
    return InputError(
        f"config.{key}: expected {expected}; got {value(config, key)}; set it with --config.{key}=N"
    )


def _find(config: Config, key: str) -> Any:
    """Returns the value at a path, or None if the config lacks it."""
    found: Any = config.to_dict()
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def value(config: Config, key: str) -> Any:
    """Returns the value at a path of the config, e.g. "latents.count"."""
    for part in key.split("."):
        config = config[part]
    return config
