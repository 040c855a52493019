"""What went wrong with a file, in plain words: for messages, which hold no text of Python's own."""

import errno
import json
import os

_SYSTEM = {
    errno.ENOENT: "nothing",
    errno.ENOTDIR: "a path through a file",
    errno.EISDIR: "a folder",
    errno.EACCES: "a file that this user may not read",
    errno.EPERM: "a file that this user may not read",
    errno.ENAMETOOLONG: "a name that is too long",
    errno.ELOOP: "a link to itself",
}


def found_at(path: str | os.PathLike[str]) -> str:
    """Returns what is there, for a message that expected a file."""
    if os.path.isdir(path):
        return "a folder"
    if os.path.isfile(path):
        return "a file"
    if os.path.islink(path) and not os.path.exists(path):
        return "a link to nothing"
    return "a pipe, a socket or a device" if os.path.lexists(path) else "nothing"


def in_words(error: BaseException) -> str:
    """Returns what came, for a message that expected a readable file: "a folder", "no UTF-8 text".

    error: of the system, of a decoder of text or JSON, or with a text of ours.
    """
    if isinstance(error, UnicodeDecodeError):
        return f"no UTF-8 text from byte {error.start} on"
    if isinstance(error, json.JSONDecodeError):
        return f"no JSON from line {error.lineno}, column {error.colno} on"
    if isinstance(error, RecursionError):
        return "lists or tables that are nested too deeply"
    if isinstance(error, MemoryError):
        return "more than fits the memory"
    if isinstance(error, OSError) and error.errno is not None:
        reason = os.strerror(error.errno)
        return _SYSTEM.get(error.errno, f"a failure of the system ({reason})")
    return str(error).partition("\n")[0] or "something else"
