"""Plain words for what is wrong with a file, so that messages repeat no exception of Python."""

import errno
import json
import os

_SYSTEM = {
    errno.ENOENT: "nothing",
    errno.ENOTDIR: "a path that leads through a file",
    errno.EISDIR: "a folder",
    errno.EACCES: "a file that this user may not read",
    errno.EPERM: "a file that this user may not read",
    errno.ENAMETOOLONG: "a name that is too long",
    errno.ELOOP: "a link to itself",
}


def found_at(path: str | os.PathLike[str]) -> str:
    """Returns what is at the path, for a message that expected a file."""
    if os.path.isdir(path):
        return "a folder"
    if os.path.isfile(path):
        return "a file"
    if os.path.islink(path) and not os.path.exists(path):
        return "a link to nothing"
    return "a pipe, a socket or a device" if os.path.lexists(path) else "nothing"


def in_words(error: BaseException) -> str:
    """Returns what was found, for a message that expected a readable file, e.g. "a folder".

    error: from the operating system, from decoding text or JSON, or from this package.
    """
    if isinstance(error, UnicodeDecodeError):
        return f"invalid UTF-8 at byte {error.start}"
    if isinstance(error, json.JSONDecodeError):
        return f"invalid JSON at line {error.lineno}, column {error.colno}"
    if isinstance(error, RecursionError):
        return "lists or tables that are nested too deeply"
    if isinstance(error, MemoryError):
        return "more data than fits in memory"
    if isinstance(error, OSError) and error.errno is not None:
        reason = os.strerror(error.errno)
        return _SYSTEM.get(error.errno, f"a system error ({reason})")
    return str(error).partition("\n")[0] or "something else"
