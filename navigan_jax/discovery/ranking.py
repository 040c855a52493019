"""How well the reconstructor tells directions apart: accuracy, shift error, confusion, ranking.

Measured on held-out samples with a seed of their own, in which every direction occurs equally
often, with the reconstructor's running statistics.
"""

import csv
import dataclasses
import io
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax.array_types import Array, Float, Int, Key

# (parameters, key, indices) -> (predicted indices, predicted shifts, shifts)
Predict = Callable[[Any, Key, Int[Array, "batch"]], tuple[Array, Array, Array]]


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Measurements of K directions.

    confusion: [K, K], how often direction i (row) was predicted as j. shift_error: [K], mean
    |t̂ − t|. cosine: [K, K], cosines between the directions.
    """

    confusion: Int[np.ndarray, "directions directions"]
    shift_error: Float[np.ndarray, "directions"]
    cosine: Float[np.ndarray, "directions directions"]

    def __len__(self) -> int:
        return len(self.confusion)

    @property
    def accuracy(self) -> Float[np.ndarray, "directions"]:
        """The share of each direction's samples that were predicted correctly."""
        return np.diag(self.confusion) / np.maximum(self.confusion.sum(axis=1), 1)

    @property
    def nearest(self) -> Int[np.ndarray, "directions"]:
        """The other direction that each one is confused with most often; itself if K = 1.

        Ties go to the more parallel direction.
        """
        others = self.confusion + 0.5 * np.abs(self.cosine)
        np.fill_diagonal(others, -1)
        return np.argmax(others, axis=1)

    @property
    def confused(self) -> Float[np.ndarray, "directions"]:
        """The share of each direction's samples that were predicted as its nearest direction."""
        rows = np.arange(len(self))
        return self.confusion[rows, self.nearest] / np.maximum(self.confusion.sum(axis=1), 1)

    @property
    def order(self) -> Int[np.ndarray, "directions"]:
        """The directions by accuracy, best first; ties go to the smaller shift error."""
        return np.lexsort((np.arange(len(self)), self.shift_error, -self.accuracy))


@dataclasses.dataclass(frozen=True, eq=False)
class Ranking:
    """kept: the directions of the result, best first. fate: [K], a word each, e.g. "dead"."""

    kept: tuple[int, ...]
    fate: tuple[str, ...]


def make_measure(
    predict: Predict, cosine: Callable[[Any], Array], *, directions: int, batch: int, rounds: int
) -> Callable[[Any, Key], Table]:
    """Returns (parameters, key) -> table, compiled once.

    cosine: parameters -> [K, K]. rounds: samples per direction. The samples depend on the key
    alone.
    """
    total = directions * rounds
    batches = -(-total // batch)
    # The last batch is filled up with samples that do not count.
    chosen = np.arange(batches * batch) % directions
    counts = (np.arange(batches * batch) < total).astype(np.int32)

    @jax.jit
    def add(sums: Any, parameters: Any, key: Key, indices: Array, weights: Array) -> Any:
        predicted, predicted_shifts, shifts = predict(parameters, key, indices)
        confusion, errors = sums
        error = jnp.where(weights > 0, jnp.abs(predicted_shifts - shifts), 0)
        return confusion.at[indices, predicted].add(weights), errors.at[indices].add(error)

    cosine = jax.jit(cosine)

    def measure(parameters: Any, key: Key) -> Table:
        sums = jnp.zeros((directions, directions), jnp.int32), jnp.zeros(directions)
        for index in range(batches):
            part = slice(index * batch, (index + 1) * batch)
            here = jax.random.fold_in(key, index)
            sums = add(sums, parameters, here, jnp.asarray(chosen[part]), jnp.asarray(counts[part]))
        confusion, errors = (np.asarray(part) for part in sums)
        return Table(confusion, errors.astype(np.float64) / rounds, np.asarray(cosine(parameters)))

    return measure


def rank(table: Table, *, most_cosine: float, most_confused: float) -> Ranking:
    """Returns the directions worth keeping, best first, and the fate of each.

    A direction is dead if its accuracy is less than twice that of chance, 1/K. It is a duplicate of
    a better kept one if the two are parallel, |cos| > most_cosine, or if more than `most_confused`
    of their samples are predicted as the other one, on average of the two. If all directions are
    dead, none is dropped as dead.
    """
    accuracy, confusion = table.accuracy, table.confusion
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    dead = accuracy < min(2 / len(table), 0.5)
    if dead.all():
        dead[:] = False
    kept: list[int] = []
    fate = [""] * len(table)
    for index in map(int, table.order):
        twin = next(
            (
                other
                for other in kept
                if abs(table.cosine[index, other]) > most_cosine
                or (shares[index, other] + shares[other, index]) / 2 > most_confused
            ),
            None,
        )
        if dead[index]:
            fate[index] = "dead"
        elif twin is not None:
            fate[index] = f"duplicate of {twin}"
        else:
            fate[index] = f"kept as {len(kept)}"
            kept.append(index)
    return Ranking(tuple(kept), tuple(fate))


_COLUMNS = (
    "direction",
    "accuracy",
    "shift_error",
    "nearest",
    "confused_with_nearest",
    "cosine_with_nearest",
    "fate",
)


def rows(table: Table, ranking: Ranking) -> list[dict[str, Any]]:
    """Returns one record per direction, {column: value}, best first."""
    numbers = (
        range(len(table)),
        table.accuracy,
        table.shift_error,
        table.nearest,
        table.confused,
        table.cosine[np.arange(len(table)), table.nearest],
        ranking.fate,
    )
    plain = [list(map(_plain, column)) for column in numbers]
    return [
        dict(zip(_COLUMNS, (column[index] for column in plain), strict=True))
        for index in map(int, table.order)
    ]


def _plain(value: Any) -> int | float | str:
    return value.item() if isinstance(value, np.generic) else value


def as_csv(records: Sequence[dict[str, Any]]) -> str:
    """Returns the records as CSV with a header line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def as_text(records: Sequence[dict[str, Any]]) -> str:
    """Returns the records as a table for people."""
    lines = ["direction  accuracy  shift error  nearest  confused  cosine  fate"]
    lines += [
        f"{row['direction']:>9}  {row['accuracy']:>8.3f}  {row['shift_error']:>11.4g}  "
        f"{row['nearest']:>7}  {row['confused_with_nearest']:>8.3f}  "
        f"{row['cosine_with_nearest']:>6.2f}  {row['fate']}"
        for row in records
    ]
    return "\n".join(lines) + "\n"
