"""docs/settings.md tells every key of every task, as configs and tasks have it now."""

import importlib

import pytest

from docs import settings as page
from navigan_jax import tasks
from navigan_jax.tasks.settings import POSITIVE, Limits, Settings


@pytest.mark.parametrize("task", tasks.TASKS)
def test_every_key_of_a_task_has_a_meaning(task: str) -> None:
    """The meaning is the comment behind the key in the config file."""
    checked = importlib.import_module(f"navigan_jax.tasks.{task}").SETTINGS.kinds
    told = page.find_keys(task)
    assert {key for key, *_ in told} == checked.keys() - {"task"}
    without = [key for key, meaning, *_ in told if not meaning]
    assert not without, f"configs/{task}.py: write a comment behind {', '.join(without)}"


def test_page_is_up_to_date() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert text == page.make_page(), "make it anew: python -m docs.settings"


@pytest.mark.parametrize(
    ("kind", "limits", "names", "words"),
    [
        (int, POSITIVE, (), "whole number, 1 or more"),
        (float, POSITIVE, (), "number above 0"),
        (float, Limits(most=1, is_open=True), (), "number above 0, at most 1"),
        (int | None, Limits(least=2, most=9), (), "whole number, 2 to 9, or nothing"),
        (str, None, ("", "a", "b"), "`a` or `b`, or nothing"),
        (tuple[int, ...], None, (), "whole numbers in parentheses"),
        (bool, None, (), "True or False"),
    ],
)
def test_kinds_are_told_with_their_limits(
    kind: type, limits: Limits | None, names: tuple[str, ...], words: str
) -> None:
    settings = Settings(
        {"key": kind}, {"key": limits} if limits else {}, {"key": names} if names else {}
    )
    assert page.describe_kind("key", settings) == words
