"""Latent spaces: what one latent of a generator is, and how latents are drawn.

Tasks see a latent as an array of `shape`. A space alone knows what the numbers mean.
"""

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Protocol

import jax
import jax.numpy as jnp

from navigan_jax.array_types import Array, Float, Key
from navigan_jax.errors import InputError

_MOST_LISTED = 12  # names of classes in a message
_FEWEST_DRAWN = 64  # samples, so that neighbouring samples share one compiled draw


class LatentSpace(Protocol):
    """The inputs of a generator; a frozen value, so that it can be static under `jit`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one latent."""
        ...

    @property
    def movable(self) -> int:
        """The number of first entries that a latent direction may move; 0 if there are none."""
        ...

    def sample(self, key: Key, count: int) -> Float[Array, "count *latent"]:
        """Returns `count` random latents; one of them does not depend on how many are drawn."""
        ...

    def draw(self, key: Key, index: int) -> Float[Array, "1 *latent"]:
        """Returns sample `index` of `sample`."""
        ...

    def truncate(
        self, latent: Float[Array, "*batch latent"], factor: float
    ) -> Float[Array, "*batch latent"]:
        """Returns the latent moved to the mean: mean + factor · (latent - mean)."""
        ...


@dataclasses.dataclass(frozen=True)
class NormalSpace:
    """z ~ N(0, I), followed by a one-hot label if the generator has classes.

    z_dim: size of z. label_dim: number of classes, 0 without labels. label_names: of the classes;
    may be empty. label: the class of all samples; None: a random class for each. bound: entries of
    z beyond ±bound are drawn anew; None: no bound. scale: factor of z after that.
    """

    z_dim: int
    label_dim: int = 0
    label_names: tuple[str, ...] = ()
    label: int | None = None
    bound: float | None = None
    scale: float = 1.0

    @classmethod
    def of_classes(
        cls,
        z_dim: int,
        label_dim: int,
        label_names: Sequence[str],
        label: int | str | None,
        *,
        bound: float | None = None,
        scale: float = 1.0,
    ) -> "NormalSpace":
        """Returns the space with the class of all samples given by index or name; see `find_label`.

        Raises: InputError for an unknown class.
        """
        found = find_label(label, label_dim, label_names)
        return cls(z_dim, label_dim, tuple(label_names), found, bound, scale)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one latent."""
        return (self.z_dim + self.label_dim,)

    @property
    def movable(self) -> int:
        """The size of z: a direction does not move the label."""
        return self.z_dim

    def sample(self, key: Key, count: int) -> Float[Array, "count latent"]:
        """Returns `count` samples of z, each followed by a one-hot label if any."""
        if not self.label_dim:
            return self._sample_z(key, count)
        key_z, key_label = jax.random.split(key)
        labels = jax.random.randint(key_label, (count,), 0, self.label_dim)
        if self.label is not None:
            labels = jnp.full_like(labels, self.label)
        z = self._sample_z(key_z, count)
        return jnp.concatenate([z, jax.nn.one_hot(labels, self.label_dim)], axis=1)

    def draw(self, key: Key, index: int) -> Float[Array, "1 latent"]:
        """Returns sample `index` of `sample`."""
        count = max(_FEWEST_DRAWN, 1 << index.bit_length())
        return self.sample(key, count)[index : index + 1]

    def truncate(
        self, latent: Float[Array, "*batch latent"], factor: float
    ) -> Float[Array, "*batch latent"]:
        """Returns the latent with factor · z; the label stays."""
        return jnp.concatenate(
            [factor * latent[..., : self.z_dim], latent[..., self.z_dim :]], axis=-1
        )

    def _sample_z(self, key: Key, count: int) -> Float[Array, "count z"]:
        shape = (count, self.z_dim)
        if self.bound is None:
            z = jax.random.normal(key, shape)
        else:
            z = jax.random.truncated_normal(key, -self.bound, self.bound, shape)
        return z if self.scale == 1 else self.scale * z


def find_label(
    label: int | str | None, label_dim: int, label_names: Sequence[str] = ()
) -> int | None:
    """Returns the index of a class that is given by index or by name; None for None.

    label_names: a name may list synonyms, separated by commas; each of them names the class.
    Raises: InputError for an unknown class, or a name of several.
    """
    if label is None:
        return None
    text = str(label)
    synonyms: dict[str, list[int]] = {}
    for index, name in enumerate(label_names):
        for word in dict.fromkeys([name.lower(), *name.lower().split(", ")]):
            synonyms.setdefault(word, []).append(index)
    found = synonyms.get(text.lower(), [])
    if len(found) == 1:
        return found[0]
    if not found and text.isdecimal() and int(text) < label_dim:
        return int(text)
    if found:
        meant = " or ".join(f"{index} ({label_names[index]})" for index in found)
        raise InputError(
            f"label: expected one class; got {text!r}, a name of {len(found)}; give its number: "
            f"{meant}"
        )
    near = difflib.get_close_matches(text.lower(), synonyms, n=1)
    hint = f"; did you mean {label_names[synonyms[near[0]][0]]!r}?" if near else ""
    allowed = f"0 to {label_dim - 1}" if label_dim else "none, as it has no classes"
    if label_names:
        more = len(label_names) - _MOST_LISTED
        allowed += f", or {', '.join(label_names[:_MOST_LISTED])}"
        allowed += f" and {more} more names" if more > 0 else ""
    raise InputError(
        f"label: expected a class of this generator; got {text!r}{hint}; allowed: {allowed}"
    )
