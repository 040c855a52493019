"""Anybody's own functions, named as "FILE.py:NAME", or as "MODULE:NAME" of an installed module.

The file is run, deliberately, as Python runs a script: name only files that you trust. Its folder
joins Python's search path, at the end, so that the file can import others beside it. An exception
in it becomes one message that names the file and the line.
"""

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import keyword
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from navigan_jax import faults
from navigan_jax.errors import InputError

_SHOWN = 8  # names of functions in a message


def is_own_code(text: str) -> bool:
    """Whether the text names a Python file, or a function in a file or module."""
    is_module = re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", text) is not None
    return re.search(r"\.py(:|$)", text) is not None or (is_module and not os.path.lexists(text))


def file_of(text: str) -> pathlib.Path:
    """Returns the file of "FILE.py:NAME" or "MODULE:NAME".

    Raises: InputError if the text has another form, or there is no such file.
    """
    return _split(text)[0]


def load_function(text: str) -> Callable[..., Any]:
    """Runs the file of "FILE.py:NAME" or "MODULE:NAME"; returns its function (or class) NAME.

    Raises: InputError if the text has another form, there is no such file or function, or the file
      raises an exception.
    """
    path, name = _split(text)
    module = _import(text) if _is_module(text) else _run(text, path)
    function = getattr(module, name, None)
    if not callable(function):
        found = "no such name" if function is None else f"a {type(function).__name__}"
        names = [
            key
            for key, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", None) == module.__name__
        ]
        near = difflib.get_close_matches(name, names, n=_SHOWN, cutoff=0) or ["none"]
        raise InputError(
            f"{text}: expected a function {name} in {path}; got {found}; functions there: "
            f"{', '.join(near)}; name one of them, or define {name}"
        )
    return function


def call_function(text: str) -> Any:
    """Returns what the function of `load_function`, called without arguments, returns.

    Raises: as `load_function`; InputError, which names the function, if it raises an exception.
    """
    function = load_function(text)
    try:
        with explaining_errors(text):
            return function()
    except InputError as error:
        start = "" if str(error).startswith(text) else f"{text}: "
        raise InputError(f"{start}{error}") from error


@contextlib.contextmanager
def explaining_errors(text: str) -> Iterator[None]:
    """Turns an exception of the own code "FILE.py:NAME", which the block calls, into InputError.

    The message names the line of the file where it came from. An InputError passes unchanged.
    """
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        reason = str(error).strip().partition("\n")[0]
        name = type(error).__name__
        raise InputError(
            f"{text}: expected code that runs; got {name}{f': {reason}' if reason else ''}, "
            f"{_place(error, text)}; correct it there"
        ) from error


def _split(text: str) -> tuple[pathlib.Path, str]:
    path, _, name = text.rpartition(":")  # the last colon: a drive of Windows has one too
    if _is_module(text):
        return _find_module(text), name
    if not path.endswith(".py") or not name.isidentifier() or keyword.iskeyword(name):
        raise InputError(
            f"{text}: expected a Python file and the name of a function in it, FILE.py:NAME, or "
            f"MODULE:NAME; got {text!r}; write for example my_code.py:make"
        )
    if not os.path.isfile(path):
        raise InputError(
            f"{text}: expected a Python file; got {faults.found_at(path)} at {path}; check the path"
        )
    return pathlib.Path(path), name


def _is_module(text: str) -> bool:
    return is_own_code(text) and re.search(r"\.py(:|$)", text) is None


def _find_module(text: str) -> pathlib.Path:
    name = text.rpartition(":")[0]
    try:
        with explaining_errors(text):  # finding a.b runs a
            spec = importlib.util.find_spec(name)
    except InputError as error:
        if not isinstance(error.__cause__, ModuleNotFoundError | ValueError):
            raise
        spec = None
    if spec is None or spec.origin is None or not os.path.isfile(spec.origin):
        raise InputError(
            f"{text}: expected a module that Python finds, or a file FILE.py:NAME; got no module "
            f"{name}; install it, or give the path of its file"
        )
    return pathlib.Path(spec.origin)


def _import(text: str) -> ModuleType:
    with explaining_errors(text):
        return importlib.import_module(text.rpartition(":")[0])


def _run(text: str, path: pathlib.Path) -> ModuleType:
    place = path.resolve()
    # Dataclasses and pickles look for their module under its name, which must be nobody else's.
    name = f"own_code_{place.stem}_{hashlib.sha256(os.fsencode(place)).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, place)
    if spec is None or spec.loader is None:
        raise InputError(f"{text}: expected a Python file; got {path}; check the path")
    module = importlib.util.module_from_spec(spec)
    if str(place.parent) not in sys.path:
        sys.path.append(str(place.parent))
    sys.modules[name] = module
    try:
        with explaining_errors(text):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _place(error: BaseException, text: str) -> str:
    """Returns where in the file the exception came from, or else in which file it was raised."""
    path = text.rpartition(":")[0]
    if module := sys.modules.get(path):
        path = module.__file__ or path
    own = os.path.realpath(path)
    if isinstance(error, SyntaxError) and error.filename:
        return f"in {os.path.basename(error.filename)}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    mine = [frame for frame in frames if os.path.realpath(frame.filename) == own]
    return f"in {os.path.basename(path)}, line {mine[-1].lineno}" if mine else f"in {path}"
