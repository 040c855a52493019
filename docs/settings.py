"""Makes docs/settings.md: every key of every task, with its meaning, default, kind and limits.

python -m docs.settings

Meaning and default are those of the task's file in configs/: the comment behind a key with the
lines of comment that follow it. Kind and limits are those that the task checks.
"""

import ast
import importlib
import io
import math
import pathlib
import tokenize
import types
import typing
from typing import Any

from configs import bake, discover, edit, factors, gallery, hessian, invert, maps, sweep, viewer
from navigan_jax import tasks
from navigan_jax.tasks.settings import Limits, Settings

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "settings.md"
CONFIGS = {
    "hessian": hessian,
    "discover": discover,
    "sweep": sweep,
    "gallery": gallery,
    "maps": maps,
    "factors": factors,
    "viewer": viewer,
    "invert": invert,
    "edit": edit,
    "bake": bake,
}
HEAD = """# Every key of every task

A key is set in a copy of the config file, or on the command line as `--config.key=value`.

This page is made by `python -m docs.settings`: meanings and defaults are those of `configs/`, kinds
and limits those that the tasks check.
"""
KINDS = {int: "whole number", float: "number", str: "text", bool: "True or False"}


def read_meanings(path: pathlib.Path) -> dict[str, str]:
    """Returns the comment of each key that a config file sets, in the file's order."""
    text = path.read_text(encoding="utf-8")
    comments: dict[int, tuple[bool, str]] = {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            is_alone = not token.line[: token.start[1]].strip()
            comments[token.start[0]] = is_alone, token.string.lstrip("# ")
    meanings = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Assign) and (key := _key(node.targets[0])):
            line = typing.cast(int, node.end_lineno)
            parts = [comments[line][1]] if line in comments else []
            while comments.get(line + 1, (False, ""))[0]:
                line += 1
                parts.append(comments[line][1])
            meanings[line, key] = " ".join(parts)
    return {key: meaning for (_, key), meaning in sorted(meanings.items())}


def _key(target: ast.expr) -> str:
    """Returns the key that an assignment sets, or nothing: it sets something else."""
    if isinstance(target, ast.Attribute):
        parent = _key(target.value)
        return f"{parent}.{target.attr}" if parent else ""
    names = {"config": "config", "keys": "config.synthesis"}
    return names.get(target.id, "") if isinstance(target, ast.Name) else ""


def describe_kind(key: str, settings: Settings) -> str:
    """Returns kind and limits of a key in words."""
    kind = settings.kinds[key]
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    plain = next(option for option in options if option is not types.NoneType)
    if key in settings.names:
        named = [f"`{name}`" for name in settings.names[key] if name]
        text = f"{', '.join(named[:-1])} or {named[-1]}"
    elif isinstance(plain, types.GenericAlias):
        text = f"{KINDS[typing.get_args(plain)[0]]}s in parentheses"
    else:
        text = KINDS[plain] + _range(settings.limits.get(key), plain)
    may_be_empty = len(options) > 1 or "" in settings.names.get(key, ())
    return f"{text}, or nothing" if may_be_empty else text


def _range(limits: Limits | None, kind: type) -> str:
    if limits is None or (math.isinf(limits.least) and math.isinf(limits.most)):
        return ""
    least, is_open = limits.least, limits.is_open
    if is_open and kind is int:
        least, is_open = least + 1, False
    if math.isinf(limits.most):
        return f" above {least:g}" if is_open else f", {least:g} or more"
    most = f"{limits.most:.0f}"
    return f" above {least:g}, at most {most}" if is_open else f", {least:g} to {most}"


def find_keys(task: str) -> list[tuple[str, str, Any, str]]:
    """Returns (key, meaning, default, kind) of each key of a task, in the order of its file."""
    # What a file does not say it takes from hessian.py, and the comment with it.
    settings = importlib.import_module(f"navigan_jax.tasks.{task}").SETTINGS
    config = CONFIGS[task].get_config()
    shared = read_meanings(ROOT / "configs" / "hessian.py")
    meanings = {**shared, **read_meanings(ROOT / "configs" / f"{task}.py")}
    known = {key.removeprefix("config."): meaning for key, meaning in meanings.items()}
    in_order = sorted(known, key=lambda key: key.startswith("synthesis."))  # those are shared
    return [
        (key, known[key], _value(config, key), describe_kind(key, settings))
        for key in in_order
        if key in settings.kinds and key != "task"
    ]


def _value(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


def make_page() -> str:
    """Returns the page."""
    parts = [HEAD]
    for task in tasks.TASKS:
        path = f"configs/{task}.py"
        purpose = (CONFIGS[task].__doc__ or "").partition("\n")[0]
        parts.append(f"\n## {task}\n\n{purpose} [{path}](../{path})\n\n")
        parts.append("| key | default | kind | meaning |\n| --- | --- | --- | --- |\n")
        for key, meaning, default, kind in find_keys(task):
            shown = "nothing" if default in (None, "", ()) else f"`{default}`"
            shown = "to be given" if default is None and "or nothing" not in kind else shown
            escaped = meaning.replace("|", "\\|")
            parts.append(f"| `{key}` | {shown} | {kind} | {escaped} |\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(make_page(), encoding="utf-8")
