"""Reads requests: bodies of bounded size, JSON checked key by key; mistakes become HTTP errors."""

import json
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from navigan_jax import faults

MOST_JSON = 256 * 2**10  # bytes of a body
_LONGEST_NAME = 100  # characters of a file's name


async def read_body(request: Request, kind: str, most: int) -> bytes:
    """Returns the body. kind: the media type that is required. most: bytes.

    Raises: HTTPException (413 too large, 415 another media type).
    """
    got = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if got != kind:
        raise HTTPException(415, f"content-type: expected {kind}; got {got or 'none'}")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and len(length) < 16 and int(length) > most:
        raise HTTPException(413, f"body: expected at most {most} bytes; got {length}")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise HTTPException(413, f"body: expected at most {most} bytes; got more")
    return bytes(body)


async def read_table(request: Request, needed: set[str], others: set[str]) -> dict[str, Any]:
    """Returns the JSON object of the body. needed: required keys. others: optional keys.

    Raises: HTTPException (400, 413, 415).
    """
    body = await read_body(request, "application/json", MOST_JSON)
    try:
        data = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"body: expected JSON; got {faults.in_words(error)}") from error
    if not isinstance(data, dict):
        raise HTTPException(400, f"body: expected a JSON object; got {type(data).__name__}")
    if missing := sorted(needed - data.keys()):
        raise HTTPException(400, f"body: expected the key {missing[0]}; got {sorted(data)}")
    if unknown := sorted(data.keys() - needed - others):
        allowed = ", ".join(sorted(needed | others))
        raise HTTPException(400, f"body: expected only the keys {allowed}; got {unknown[0][:80]!r}")
    return data


def _no_constant(name: str) -> float:
    raise ValueError(f"{name}, which is not a JSON number")


def read_word(table: dict[str, Any], key: str, default: str = "", *, most: int = 64) -> str:
    """Returns the text under a key: 1 to `most` printable characters.

    Raises: HTTPException (400).
    """
    value = table.get(key, default)
    if not isinstance(value, str) or not 1 <= len(value) <= most or not value.isprintable():
        raise HTTPException(
            400, f"{key}: expected 1 to {most} printable characters; got {_shown(value)}"
        )
    return value


def read_flag(table: dict[str, Any], key: str) -> bool:
    """Returns the boolean under a key; False if the key is missing.

    Raises: HTTPException (400).
    """
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise HTTPException(400, f"{key}: expected true or false; got {_shown(value)}")
    return value


def read_number(table: dict[str, Any], key: str, least: int, most: int) -> int:
    """Returns the whole number under a key, from `least` to `most`.

    Raises: HTTPException (400).
    """
    value = table[key]
    if type(value) is not int or not least <= value <= most:
        expected = f"a whole number from {least} to {most}"
        raise HTTPException(400, f"{key}: expected {expected}; got {_shown(value)}")
    return value


def read_file_name(request: Request, default: str) -> str:
    """Returns the name of the user's file, without folders, from the query parameter `file`."""
    name = request.query_params.get("file", "").replace("\\", "/").rpartition("/")[2]
    return "".join(c if c.isprintable() else "?" for c in name[-_LONGEST_NAME:]) or default


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
