"""Own functions are run from their file, and each mistake in them is one message with its line."""

import pathlib
import sys
from collections.abc import Iterator

import pytest

from navigan_jax import own_code
from navigan_jax.errors import InputError

CODE = """
import dataclasses

import beside_own_code

NUMBER = 3


@dataclasses.dataclass
class Pair:
    first: "int"


def double(x):
    return 2 * x


def fail(x):
    return _inside(x)


def _inside(x):
    return x / 0


def leave():
    raise SystemExit(beside_own_code.WORD)
"""


@pytest.fixture
def own(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """Yields a file of own code that imports another beside it; modules are forgotten later."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    (tmp_path / "beside_own_code.py").write_text("WORD = 'enough'\n")
    path = tmp_path / "own.py"
    path.write_text(CODE)
    yield path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_function_is_that_of_the_file(own: pathlib.Path) -> None:
    """A class too; what is beside the file can be imported, and the search path keeps its order."""
    before = list(sys.path)
    assert own_code.load_function(f"{own}:double")(4) == 8
    assert own_code.load_function(f"{own}:Pair")(1).first == 1
    assert sys.path[: len(before)] == before


def test_a_changed_file_is_run_anew(own: pathlib.Path) -> None:
    assert own_code.load_function(f"{own}:double")(4) == 8
    own.write_text("def double(x):\n    return 'changed to two times x'\n")
    assert own_code.load_function(f"{own}:double")(4) == "changed to two times x"


def test_files_of_one_name_do_not_mix(own: pathlib.Path) -> None:
    """Two files of the same name in two folders are two modules."""
    other = own.parent / "folder" / "own.py"
    other.parent.mkdir()
    other.write_text("def double(x):\n    return -x\n")
    first, second = (own_code.load_function(f"{path}:double") for path in (own, other))
    assert (first(4), second(4)) == (8, -4)
    assert first.__module__ != second.__module__


@pytest.mark.parametrize(
    ("text", "is_own"),
    [("my.py:make", True), ("my.py", True), ("C:\\my.py:make", True), ("my.pyx", False)],
)
def test_own_code_is_known_by_its_ending(text: str, is_own: bool) -> None:
    assert own_code.is_own_code(text) is is_own


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{own}", r"expected a Python file and the name of a function in it, FILE\.py:NAME"),
        ("{own}:", "write for example my_code.py:make"),
        ("{own}:not-a-name", "write for example my_code.py:make"),
        ("{own}:class", "write for example my_code.py:make"),
        ("{own}x:double", "write for example my_code.py:make"),
        ("C:no_such.py:double", "got nothing at C:no_such.py; check the path"),
        ("{folder}/.py:double", "got nothing at .*check the path"),
        ("{own}:duble", "got no such name; functions there: double, .*; name one of them"),
        ("{own}:NUMBER", "expected a function NUMBER in .*; got a int"),
    ],
)
def test_what_names_no_function_is_refused(own: pathlib.Path, text: str, message: str) -> None:
    text = text.format(own=own, folder=own.parent)
    with pytest.raises(InputError, match=message) as raised:
        own_code.load_function(text)
    assert str(raised.value).startswith(f"{text}: expected ")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "x = 1\nx.y\n",
            "got AttributeError: 'int' object .*, in own.py, line 2; correct it there",
        ),
        ("def f(:\n", "got SyntaxError: .*, in own.py, line 1;"),
        ("\nimport no_such_package\n", "got ModuleNotFoundError: No module .*, in own.py, line 2;"),
        ("raise SystemExit\n", "got SystemExit, in own.py, line 1;"),
        ("\n\nraise ValueError('one\\ntwo')\n", "got ValueError: one, in own.py, line 3;"),
    ],
)
def test_an_exception_in_the_file_is_told_in_one_line(
    own: pathlib.Path, code: str, message: str
) -> None:
    """And nothing of the failed file stays among the modules."""
    own.write_text(code)
    known = set(sys.modules)
    with pytest.raises(InputError, match=f"own.py:f: expected code that runs; {message}") as raised:
        own_code.load_function(f"{own}:f")
    assert "\n" not in str(raised.value)
    assert set(sys.modules) <= known


def test_an_exception_in_a_call_names_the_innermost_line_of_the_file(own: pathlib.Path) -> None:
    text = f"{own}:fail"
    fail, leave = own_code.load_function(text), own_code.load_function(f"{own}:leave")
    line = CODE.splitlines().index("    return x / 0") + 1
    with (
        pytest.raises(InputError, match=rf"ZeroDivisionError: .*, in own\.py, line {line};"),
        own_code.explaining_errors(text),
    ):
        fail(1)
    with (
        pytest.raises(InputError, match="got SystemExit: enough"),
        own_code.explaining_errors(text),
    ):
        leave()


def test_a_message_for_the_user_passes_unchanged() -> None:
    with (
        pytest.raises(InputError, match=r"^expected this; got that$"),
        own_code.explaining_errors("own.py:f"),
    ):
        raise InputError("expected this; got that")
    with pytest.raises(KeyboardInterrupt), own_code.explaining_errors("own.py:f"):
        raise KeyboardInterrupt
