"""Bars only in a terminal; metrics that survive a crash and never repeat a step."""

import io
import json
import math
import pathlib
import re

import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import progress
from navigan_jax.errors import InputError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _run(stream: io.StringIO, *, is_main: bool = True, done: int = 0, fail: bool = False) -> str:
    with progress.Progress(
        "Lanczos", 40, unit="products", is_main=is_main, done=done, stream=stream
    ) as bar:
        for step in range(done, 40):
            bar.advance(residual=0.5**step)
            if fail and step == 12:
                raise ArithmeticError("no more")
    return stream.getvalue()


def test_progress_is_two_lines_without_a_terminal() -> None:
    first, last = _run(io.StringIO()).splitlines()
    assert first == "Lanczos: 40 products"
    assert last.startswith("Lanczos: done: 40 of 40 products in ")
    assert last.endswith(", residual 1.82e-12")


def test_progress_says_where_it_began_and_stopped() -> None:
    first, _ = _run(io.StringIO(), done=38).splitlines()
    assert first == "Lanczos: 40 products, 38 of them done"
    assert re.fullmatch(
        r"Lanczos: done: 40 of 40 products in \d+\.\d s",
        _run(io.StringIO(), done=40).splitlines()[1],
    )
    stream = io.StringIO()
    with pytest.raises(ArithmeticError, match="no more"):
        _run(stream, fail=True)
    assert "Lanczos: stopped: 13 of 40 products" in stream.getvalue()


def test_progress_draws_a_bar_on_a_terminal() -> None:
    """Its last state shows the count and the latest residual; no summary follows it."""
    text = _run(Terminal())
    assert "40/40" in text and "residual=1.82e-12" in text and "products/s" in text
    assert "done:" not in text


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_progress_of_other_processes_is_silent(stream: io.StringIO) -> None:
    assert _run(stream, is_main=False) == ""


def _rows(folder: pathlib.Path) -> list[dict]:
    return list(progress.read_metrics(folder / progress.METRICS_FILE))


def _boards(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.glob("events.out.tfevents.*"))


def test_metrics_are_one_object_per_line(tmp_path: pathlib.Path) -> None:
    """Each line is on the disk when `write` returns; arrays of one number become numbers."""
    with progress.open_metrics(tmp_path, first_step=0, is_main=True) as metrics:
        for step, residual in enumerate([np.float32(0.5), jnp.float32(0.25), 1]):
            metrics.write(step, {"residual": residual})
            assert len(_rows(tmp_path)) == step + 1
    assert _rows(tmp_path) == [
        {"step": 0, "residual": 0.5},
        {"step": 1, "residual": 0.25},
        {"step": 2, "residual": 1.0},
    ]
    (board,) = _boards(tmp_path)
    assert board.read_bytes().count(b"residual") == 3


def test_metrics_are_valid_json_for_any_number(tmp_path: pathlib.Path) -> None:
    values = {"a": math.nan, "b": -math.inf, "c": None, "d": np.float64(1e300)}
    with progress.open_metrics(tmp_path, first_step=0, is_main=True) as metrics:
        metrics.write(7, values)
    text = (tmp_path / progress.METRICS_FILE).read_text()
    row = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert row == {
        "step": 7,
        "a": None,
        "b": None,
        "c": None,
        "d": 1e300,
        "non_finite": {"a": "nan", "b": "-inf"},
    }


@pytest.mark.parametrize("name", ["step", "non_finite"])
def test_metrics_refuse_names_of_their_own(name: str) -> None:
    with pytest.raises(ValueError, match=rf"are reserved; got \['{name}'\]"):
        progress.encode_metrics(0, {name: 1.0})


@pytest.mark.parametrize(
    "torn", ['{"step": 3, "resi', '{"step": 3, "residual": 0.1}', "{\n", "\0\n"]
)
def test_metrics_drop_a_torn_last_line(tmp_path: pathlib.Path, torn: str) -> None:
    """Wherever it was cut off; all other lines, before and after, are whole."""
    path = tmp_path / progress.METRICS_FILE
    path.write_text('{"step": 1, "residual": 0.5}\n{"step": 2, "residual": 0.25}\n' + torn)
    with progress.open_metrics(tmp_path, first_step=3, is_main=True) as metrics:
        metrics.write(3, {"residual": 0.125})
    assert [row["step"] for row in _rows(tmp_path)] == [1, 2, 3]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_metrics_drop_the_steps_that_are_repeated(tmp_path: pathlib.Path) -> None:
    """A run resumed at step 2 equals a run without a stop; a new run starts with an empty file."""

    def run(folder: pathlib.Path, first: int, last: int) -> None:
        with progress.open_metrics(folder, first_step=first, is_main=True) as metrics:
            for step in range(first, last):
                metrics.write(step, {"residual": 0.5**step})

    run(tmp_path / "whole", 0, 6)
    run(tmp_path / "resumed", 0, 4)
    run(tmp_path / "resumed", 2, 6)
    assert _rows(tmp_path / "resumed") == _rows(tmp_path / "whole")
    run(tmp_path / "resumed", 0, 1)
    assert [row["step"] for row in _rows(tmp_path / "resumed")] == [0]


@pytest.mark.parametrize("damage", ["nonsense", "[1]", '{"residual": 1.0}'])
def test_metrics_refuse_a_file_damaged_inside(tmp_path: pathlib.Path, damage: str) -> None:
    path = tmp_path / progress.METRICS_FILE
    path.write_text(f'{{"step": 0}}\n{damage}\n{{"step": 2}}\n')
    with pytest.raises(InputError, match=r"metrics.jsonl: expected .* on line 2; got .* move it"):
        progress.open_metrics(tmp_path, first_step=3, is_main=True)
    assert damage in path.read_text()


def test_metrics_of_other_processes_write_nothing(tmp_path: pathlib.Path) -> None:
    with progress.open_metrics(tmp_path / "none", first_step=0, is_main=False) as metrics:
        metrics.write(0, {"residual": 1.0})
    assert not (tmp_path / "none").exists()


def test_metrics_need_a_folder(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a part of the path is a file"):
        progress.open_metrics(tmp_path / "file", first_step=0, is_main=True)
