"""Per-direction tables by hand-made recognisers, whose answers are known."""

import csv
import io

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import testing
from navigan_jax.discovery import ranking


def make_table(confusion, *, cosine=None, shift_error=None):
    count = len(confusion)
    return ranking.Table(
        np.array(confusion),
        np.arange(count) / 10 if shift_error is None else np.array(shift_error),
        np.eye(count) if cosine is None else np.array(cosine),
    )


CONFUSION = [[8, 2, 0, 0], [0, 9, 1, 0], [1, 0, 9, 0], [3, 3, 3, 1]]


def test_table_counts_what_a_recogniser_says():
    """One that always names the next direction and is wrong by 2 about odd ones' shifts."""
    directions = 3

    def predict(parameters, key, indices):
        shifts = jax.random.normal(key, indices.shape)
        odd = 2.0 * (indices % 2)
        return (indices + parameters) % directions, shifts + odd, shifts

    for batch in (2, 3, 5, 30):  # also if the last batch is not full
        counter = testing.TraceCounter(predict)
        measure = ranking.make_measure(
            counter, lambda shift: jnp.eye(3) * shift, directions=directions, batch=batch, rounds=4
        )
        table = measure(1, jax.random.key(0))
        assert (table.confusion == 4 * np.roll(np.eye(3, dtype=int), 1, axis=1)).all()
        testing.assert_close(table.shift_error, np.array([0.0, 2.0, 0.0]), 1e-6)
        assert table.accuracy.tolist() == [0, 0, 0]
        assert table.nearest.tolist() == [1, 2, 0] and table.confused.tolist() == [1, 1, 1]
        assert measure(0, jax.random.key(0)).accuracy.tolist() == [1, 1, 1]
        assert counter.traces == 1


def test_order_is_by_accuracy_then_by_shift_error():
    table = make_table(CONFUSION, shift_error=[0.1, 0.3, 0.2, 0.0])
    assert table.accuracy.tolist() == [0.8, 0.9, 0.9, 0.1]
    assert table.order.tolist() == [2, 1, 0, 3]


def test_rank_drops_what_is_dead_parallel_or_taken_for_another():
    cosine = np.eye(4)
    plain = ranking.rank(make_table(CONFUSION), most_cosine=0.9, most_confused=0.3)
    assert plain.kept == (1, 2, 0) and plain.fate == ("kept as 2", "kept as 0", "kept as 1", "dead")
    cosine[0, 2] = cosine[2, 0] = -0.95  # the same direction backwards
    table = make_table(CONFUSION, cosine=cosine)
    parallel = ranking.rank(table, most_cosine=0.9, most_confused=0.3)
    assert parallel.kept == (1, 2) and parallel.fate[0] == "duplicate of 2"
    confused = ranking.rank(make_table(CONFUSION), most_cosine=0.9, most_confused=0.09)
    assert confused.kept == (1, 2) and confused.fate[0] == "duplicate of 1"


def test_rank_keeps_all_if_none_is_recognised():
    table = make_table([[0, 1], [1, 0]])
    assert ranking.rank(table, most_cosine=0.9, most_confused=1.0).kept == (0, 1)


def test_records_say_the_same_as_csv_and_as_text():
    table = make_table(CONFUSION)
    records = ranking.rows(table, ranking.rank(table, most_cosine=0.9, most_confused=0.3))
    assert [row["direction"] for row in records] == table.order.tolist()
    assert records[-1]["fate"] == "dead" and records[-1]["accuracy"] == 0.1
    read = list(csv.DictReader(io.StringIO(ranking.as_csv(records))))
    assert [{name: str(value) for name, value in row.items()} for row in records] == read
    lines = ranking.as_text(records).splitlines()
    assert len(lines) == 5 and lines[1].split()[:2] == ["1", "0.900"]
