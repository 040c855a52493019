"""Every case of the reference data is compared by a test.

A module of tests declares in `pytest.mark.golden(*programs)` that it compares with all cases of
these programs, which `testing.golden_names` lists.
"""

import functools
import importlib
import pathlib
from collections.abc import Iterable

import pytest

from navigan_jax.testing import golden_case, golden_names

TESTS = pathlib.Path(__file__).parent

# Programs of which the package has no counterpart. Their checkpoints are read all the same, see
# tools/readers/test_golden_checkpoints.py.
NO_COUNTERPART = ("mseitzer/pytorch-fid: ",)


@functools.cache
def _compared() -> tuple[str, ...]:
    """Returns the programs that some module compares with."""
    found: list[str] = []
    for path in sorted(TESTS.rglob("test_*.py")):
        if "\npytestmark = pytest.mark.golden(" in path.read_text(encoding="utf-8"):
            name = ".".join(path.relative_to(TESTS.parent).with_suffix("").parts)
            found += importlib.import_module(name).pytestmark.args
    return tuple(found)


def _cases_of(programs: Iterable[str]) -> set[str]:
    beginnings = tuple(programs)
    return {name for name in golden_names("") if golden_case(name).program.startswith(beginnings)}


def test_every_case_is_compared() -> None:
    """A case without numbers is a checkpoint, and every checkpoint is read."""
    with_numbers = {name for name in golden_names("") if "data" in golden_case(name).info["files"]}
    assert with_numbers
    left = with_numbers - _cases_of(_compared()) - _cases_of(NO_COUNTERPART)
    assert not left, (
        f"no test compares with {sorted(left)}; take them up in the module of their kind, and "
        "declare their program in its pytest.mark.golden"
    )


@pytest.mark.parametrize("program", NO_COUNTERPART)
def test_programs_without_a_counterpart_are_compared_by_no_test(program: str) -> None:
    """Once a test compares with a program, its line above goes."""
    assert not _cases_of([program]) & _cases_of(_compared())
