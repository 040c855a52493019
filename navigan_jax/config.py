"""Configs: load a file, check every key, freeze, save as text, compare two.

A config is a `ConfigDict` of numbers, texts, truth values and tuples of these, nested by topic.
Keys are named by their path, as on the command line: `generator.layer` is set with
`--config.generator.layer=conv1`. A required key, or a key that may stay None, is a
`config_dict.placeholder(type)`; the task's keys say which of the two it is. `--config.key=None`
empties a placeholder for text. A text that begins with ~/ is a path in the home folder, because
shells do not expand ~ after the `=` of an option.
"""

import dataclasses
import difflib
import inspect
import json
import math
import os
import pathlib
import re
import runpy
import traceback
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from ml_collections import config_dict

from navigan_jax import faults
from navigan_jax.errors import InputError

Config: TypeAlias = config_dict.ConfigDict  # a FrozenConfigDict is one too
Kind: TypeAlias = Any  # bool, int, float, str, tuple, tuple[int, ...] and unions of these with None
Keys: TypeAlias = Mapping[str, Kind]  # path of a key: what its value must be

_EXAMPLES = {bool: "true", int: "1", float: "0.1", str: "TEXT", tuple: "'(1, 2)'"}
_HOME = re.compile(r"(?:(?<=^)|(?<=,)|(?<=, ))~[^/,\s]*(?=/)")


def load(argument: str) -> Config:
    """Returns what `get_config` of a config file returns.

    argument: "path.py", or "path.py:word" to call `get_config("word")`.
    Raises: InputError if there is no such file, if it is not Python, or if its config holds values
      that the command line cannot set or JSON cannot store.
    """
    path, *words = argument.split(":", 1)
    if not os.path.isfile(path):
        folder = pathlib.Path(path).parent
        beside = _python_files(folder)
        found = faults.found_at(path)
        found = "no file" if found == "nothing" else found
        raise InputError(
            f"--config: expected a Python file with get_config(); got {path!r}, which is "
            f"{found}; allowed: any such file, {folder} holds {', '.join(beside) or 'none'}; "
            f"{_near(pathlib.Path(path).name, beside, most=1)}set --config=FILE.py, as seen from "
            f"{pathlib.Path.cwd()}"
        )
    try:
        get_config = runpy.run_path(path).get("get_config")
    except SyntaxError as error:
        place = f"{error.filename or path}{f':{error.lineno}' if error.lineno else ''}"
        line = repr((error.text or "").strip()[:80]) if error.text else "other bytes"
        raise InputError(
            f"{place}: expected Python; got {line} ({error.msg}); mend that line"
        ) from error
    except Exception as error:
        raise _failure(path, error) from error
    if not callable(get_config):
        raise InputError(f"{path}: expected a function get_config(); got none; add it")
    try:
        inspect.signature(get_config).bind(*words)
    except TypeError as error:
        raise InputError(
            f"--config: expected {path}{'' if words else ':WORD'} for its "
            f"get_config{inspect.signature(get_config)}; got {argument!r}; "
            f"{'leave the part after the colon out' if words else 'add the word it asks for'}"
        ) from error
    try:
        config = get_config(*words)
    except ValueError as error:  # what get_config says of the word
        raise InputError(f"--config={argument}: {error}") from error
    except Exception as error:
        raise _failure(path, error) from error
    if not isinstance(config, config_dict.ConfigDict):
        raise InputError(
            f"{path}: expected get_config() to return a ConfigDict; got {type(config).__name__}; "
            "return ml_collections.ConfigDict(...)"
        )
    for leaf in _leaves(config):
        if leaf.kind not in _EXAMPLES or not _is_plain(leaf.value):
            raise _no_plain_value(leaf)
    return config


def _python_files(folder: pathlib.Path) -> list[str]:
    """Returns the names of config files in a folder; none if the folder is not readable."""
    try:
        return sorted(file.name for file in folder.glob("[!_]*.py"))
    except OSError:
        return []


def _failure(path: str, error: Exception) -> InputError:
    """Returns the error for an exception of a config file, with the line that raised it."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if os.path.realpath(frame.filename) == os.path.realpath(path)
    ]
    if not lines:  # the file itself could not be read
        return InputError(
            f"--config: expected a Python file with get_config(); got {path!r}, which cannot be "
            f"read: {faults.in_words(error)}; choose another file"
        )
    return InputError(
        f"{path}:{lines[-1]}: expected a config; got {type(error).__name__}: {error}; mend that "
        "line"
    )


def require_key(config: Config, path: str) -> None:
    """Checks that the config has a key at this path.

    Raises: InputError with the keys most like it.
    """
    known = list_keys(config)
    if path not in known:
        raise _unknown_key(path, known)


def misfit(config: Config, path: str, value: str) -> InputError:
    """Returns the error for a command-line text that is not a valid value of the key `path`."""
    return InputError(_misfit_message(path, list_kinds(config)[path], repr(value)))


def validate(config: Config, keys: Keys, *, others: bool = False) -> None:
    """Checks a whole config against the keys that its reader expects.

    keys: the kind of each path's value: a type, `tuple[int, ...]`, or a union such as
      `int | None`. An int passes for a float; True does not pass for an int.
    others: whether keys that are not in `keys` are allowed, with any value.
    Raises: InputError for the first key that is unknown, missing, not set, or of another type.
    """
    leaves = {leaf.path: leaf for leaf in _leaves(config)}
    for path, leaf in leaves.items():
        if path not in keys and others:
            continue
        if not _is_plain(leaf.value):
            raise _no_plain_value(leaf)
        if path not in keys:
            raise _unknown_key(path, keys)
    for path, kind in keys.items():
        if path not in leaves:
            raise InputError(
                f"config.{path}: expected {_name(kind)}; got a config without this key; "
                f"allowed: the keys {', '.join(sorted(keys))}; add the key to the config file"
            )
        value = leaves[path].value
        if not _fits(value, kind):
            raise InputError(
                _misfit_message(path, kind, "nothing" if value is None else repr(value))
            )


def freeze(config: Config) -> Config:
    """Returns a copy that refuses changes, with paths in the home folder written in full.

    Placeholders that hold the text "None" are emptied.
    """
    texts = [leaf for leaf in _leaves(config) if isinstance(leaf.value, str)]
    changed: dict[str, str | None] = {leaf.path: expand_home(leaf.value) for leaf in texts}
    # The command line knows texts only: --config.key=None is how it empties one.
    changed |= {leaf.path: None for leaf in texts if leaf.is_placeholder and leaf.value == "None"}
    return replace(config, changed)


def replace(config: Config, values: Mapping[str, Any]) -> Config:
    """Returns a copy that refuses changes, with these values at their paths."""
    copy = config_dict.ConfigDict(config).copy_and_resolve_references()
    with copy.unlocked(), copy.ignore_type():
        copy.update_from_flattened_dict(values)
    return config_dict.FrozenConfigDict(copy)


def expand_home(text: str) -> str:
    """Returns the text with each leading ~ of a path expanded; commas separate paths.

    A text with commas that is an existing path as a whole is one path.

    >>> expand_home("runs/a~/b")
    'runs/a~/b'
    """
    whole = os.path.expanduser(text)
    if "," in text and os.path.exists(whole):
        return whole
    return _HOME.sub(lambda home: os.path.expanduser(home[0]), text)


def split_paths(text: str) -> list[str]:
    """Returns the paths in a text, separated by commas.

    A path may itself hold commas and begin or end with blanks: the longest existing path is taken.
    """
    pieces = text.split(",")
    paths = []
    while pieces:
        for count in range(len(pieces), 0, -1):
            path = ",".join(pieces[:count])
            path = path if os.path.exists(path) else path.strip()
            if count == 1 or os.path.exists(path):
                break
        paths.append(path)
        del pieces[:count]
    return paths


def to_text(config: Config) -> str:
    """Returns a config as JSON with sorted keys: equal configs give equal texts."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True, allow_nan=False) + "\n"


def from_text(text: str, name: str = "saved config") -> Config:
    """Returns the frozen config that `to_text` wrote.

    name: the source of the text, with which a message begins.
    Raises: InputError if the text is not such a text.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{name}: expected the JSON that a run writes; got {text[:40]!r}, "
            f"{faults.in_words(error)}; remove that file, or choose another --workdir"
        ) from error
    if not isinstance(content, dict):
        raise InputError(
            f"{name}: expected a JSON object; got {text[:40]!r}; "
            "remove that file, or choose another --workdir"
        )
    return config_dict.FrozenConfigDict(_with_tuples(content))


def differences(old: Config, new: Config) -> list[str]:
    """Returns a line "path: old -> new" for each key whose values differ, sorted by path."""
    before, after = ({leaf.path: repr(leaf.value) for leaf in _leaves(side)} for side in (old, new))
    return [
        f"{path}: {before.get(path, '(no such key)')} -> {after.get(path, '(no such key)')}"
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    ]


def list_keys(config: Config) -> list[str]:
    """Returns the paths of all keys with values, as "show.samples"."""
    return [leaf.path for leaf in _leaves(config)]


def list_kinds(config: Config) -> dict[str, type]:
    """Returns the type of each key's value; for a placeholder, its declared type."""
    return {leaf.path: leaf.kind for leaf in _leaves(config)}


@dataclasses.dataclass(frozen=True)
class _Leaf:
    path: str
    value: Any  # None: a placeholder that is not set
    kind: type  # of a placeholder, what it holds once it is set
    is_placeholder: bool = False


def _leaves(config: Config, prefix: str = "") -> Iterator[_Leaf]:
    for name, value in config.items(preserve_field_references=True):
        path = f"{prefix}{name}"
        if isinstance(value, config_dict.ConfigDict):
            yield from _leaves(value, f"{path}.")
        elif isinstance(value, config_dict.FieldReference):
            try:
                yield _Leaf(path, value.get(), value.get_type(), is_placeholder=True)
            except config_dict.RequiredValueError:
                kind = value.get_type().__name__
                raise InputError(
                    f"config.{path}: expected placeholder({kind}); got required_placeholder, "
                    "which the command line cannot set; change it in the config file"
                ) from None
        else:
            yield _Leaf(path, value, type(value))


def _with_tuples(content: Any) -> Any:
    """Returns decoded JSON with its lists as the tuples they were; equality sees the difference."""
    if isinstance(content, dict):
        return {name: _with_tuples(value) for name, value in content.items()}
    if isinstance(content, list):
        return tuple(_with_tuples(value) for value in content)
    return content


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(item) for item in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or type(value) in _EXAMPLES


def _no_plain_value(leaf: _Leaf) -> InputError:
    return InputError(
        f"config.{leaf.path}: expected a finite number, a text, a truth value, a tuple of these or "
        f"a placeholder of such a type; got {leaf.value!r}; choose such a value"
    )


def _fits(value: Any, kind: Kind) -> bool:
    if isinstance(kind, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(kind))
    if item := _item(kind):
        return isinstance(value, tuple) and all(_fits(entry, item) for entry in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _item(kind: Kind) -> Kind:
    """Returns int for tuple[int, ...], and None for any other type."""
    return typing.get_args(kind)[0] if isinstance(kind, types.GenericAlias) else None


def _name(kind: Kind) -> str:
    if isinstance(kind, types.UnionType):
        return " or ".join(_name(option) for option in typing.get_args(kind))
    if item := _item(kind):
        return f"tuple of {_name(item)}"
    return "None" if kind is types.NoneType else kind.__name__


def _misfit_message(path: str, kind: Kind, came: str) -> str:
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    plain = next(option for option in options if option is not types.NoneType)
    example = _EXAMPLES[tuple if _item(plain) else plain]
    return (
        f"config.{path}: expected {_name(kind)}; got {came}; "
        f"set it in the config file or with --config.{path}={example}"
    )


def _unknown_key(path: str, known: Iterable[str]) -> InputError:
    known = sorted(known)
    return InputError(
        f"config.{path}: expected a known key; got {path!r}; {_near(path, known)}"
        f"allowed: {', '.join(known)}; correct or remove it"
    )


def _near(name: str, known: Sequence[str], most: int = 4) -> str:
    """Returns "did you mean ...? " or nothing; a key at the wrong depth counts as near."""
    near = difflib.get_close_matches(name, known, n=1)
    last = name.rpartition(".")[2]
    near += [path for path in known if path.rpartition(".")[2] == last and path not in near]
    near = near[:most]
    return f"did you mean {' or '.join(near)}? " if near else ""
