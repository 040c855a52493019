"""Normalises the command line, so that flags may come in any order.

`ml_collections` needs --config=FILE before its overrides, and concatenates the values of a tuple
that is given twice. Here --config may stand anywhere, a flag and its value may be separate words,
and the last of repeated flags counts.
"""

import os
import re
from collections.abc import Sequence

from navigan_jax import config as config_lib
from navigan_jax.config import Config
from navigan_jax.errors import InputError

_FLAG = re.compile(r"--?(config|workdir|(no)?config\.([^=]*))(?:=(.*))?", re.DOTALL)


def find_config(arguments: Sequence[str]) -> str:
    """Returns the path of the last --config, with ~ expanded; "" without a --config.

    Raises: InputError for a --config without a value.
    """
    words, found = list(arguments), ""
    while words and words[0] != "--":
        flag = _FLAG.fullmatch(words.pop(0))
        if flag and flag[1] == "config":
            found = os.path.expanduser(_value(flag, words))
    return found


def in_one_form(arguments: Sequence[str], path: str, config: Config) -> list[str]:
    """Returns the arguments as --config, --workdir, each override once, and then all others.

    path: the value of --config. config: the content of that file. The override of a boolean key
      may omit its value, and --noconfig.key sets the key to false.
    Raises: InputError for an unknown key, or a flag without the value it needs.
    """
    kinds = config_lib.list_kinds(config)
    words, others = list(arguments), list[str]()
    values = {"config": path}
    while words:
        flag = _FLAG.fullmatch(words[0])
        if words[0] == "--":
            others += words
            break
        word = words.pop(0)
        if flag is None:
            others.append(word)
        elif flag[3] is None:
            value = _value(flag, words)
            if flag[1] == "workdir":
                values["workdir"] = value
        else:
            config_lib.require_key(config, flag[3])
            values[f"config.{flag[3]}"] = _override(flag, words, kinds[flag[3]])
    return [*(f"--{name}={value}" for name, value in values.items()), *others]


def _override(flag: re.Match[str], words: list[str], kind: type) -> str:
    """Returns the value of an override; removes the first of `words` if that is the value."""
    word, _, negated, key, value = flag[0], *flag.groups()
    if negated and (kind is not bool or value is not None):
        raise InputError(
            f"config.{key}: expected --config.{key}=VALUE; got {word!r}; --noconfig.KEY is for "
            "boolean keys, and takes no value"
        )
    if negated:
        return "false"
    if kind is bool and value is None:
        return words.pop(0) if words and words[0].lower() in ("true", "false") else "true"
    return _value(flag, words)


def _value(flag: re.Match[str], words: list[str]) -> str:
    """Returns the text after the = of a flag; without one, removes and returns the first word."""
    if flag[4] is not None:
        return flag[4]
    if not words or words[0] == "--" or _FLAG.fullmatch(words[0]):
        raise InputError(
            f"{flag[0]}: expected a value; got {'another flag' if words else 'nothing'}; write "
            f"{flag[0]}=VALUE; see --help"
        )
    return words.pop(0)
