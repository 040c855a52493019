"""Reads foreign zip archives (PyTorch files, wheels, NumPy archives) in memory; unpacks nothing.

These are refused before anything is decompressed: encrypted members, members of other compression
methods than deflate, members that expand too much or overlap, two members of one name, and names
outside of the archive.
"""

import functools
import io
import struct
import zipfile
import zlib
from typing import NamedTuple

from navigan_jax.errors import InputError

# Checkpoints of the largest known generators have 0.6 GB.
MAX_BYTES = 8 << 30
# Weights hardly compress; compressed zeros reach a ratio of about 1000, but in small arrays only.
MAX_RATIO = 200
MAX_SPARE_BYTES = 64 << 20

_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
    OverflowError,
    ValueError,
)


class Stored(NamedTuple):
    """An uncompressed member of an archive.

    start, stop: of its bytes. checksums: positions of its CRC-32 in the archive, of 4 bytes each.
    """

    start: int
    stop: int
    checksums: tuple[int, ...]


class Archive:
    """A checked zip archive. names: of its members, in order. size: in bytes."""

    def __init__(self, data: bytes, name: str):
        """data: the whole archive. name: its name in messages.

        Raises: InputError if the archive is damaged or hostile.
        """
        self._name = name
        self._data = data
        self.size = len(data)
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except _ZIP_ERRORS as error:
            # The directory is the last part of a zip archive.
            is_cut = isinstance(error, zipfile.BadZipFile) and "not a zip" in str(error)
            raise self._damaged("one whose end is missing" if is_cut else str(error)) from error
        members = self._zip.infolist()
        self.names = [member.filename for member in members]
        self._known = frozenset(self.names)
        self._check(members, len(data))

    def read(self, name: str) -> bytes:
        """Returns the bytes of a member, after comparing its checksum if it has one.

        Raises: InputError if the member is missing or damaged.
        """
        if name not in self._known:
            raise self._damaged(f"no member {name!r}")
        try:
            if self._is_unchecked(self._zip.getinfo(name)):
                start, stop = self._span(name)
                return self._data[start:stop]
            return self._zip.read(name)
        except _ZIP_ERRORS as error:
            raise self._damaged(f"member {name!r}: {error}") from error

    def stored(self, name: str) -> Stored | None:
        """Returns the place of a member's bytes, or None if the member is compressed.

        Raises: InputError if the member is missing or its headers contradict one another.
        """
        if name not in self._known:
            raise self._damaged(f"no member {name!r}")
        member = self._zip.getinfo(name)
        if member.compress_type != zipfile.ZIP_STORED:
            return None
        local, (start, stop) = member.header_offset, self._span(name)
        if self._is_unchecked(member):
            return Stored(start, stop, ())
        # The checksum is in the local header or after the bytes (there perhaps behind a signature),
        # and in the directory at the end.
        after = stop + 4 * (self._data[stop : stop + 4] == b"PK\x07\x08")
        places = (local + 14, after, self._directory[name] + 16)
        crc = struct.pack("<I", member.CRC)
        found = tuple(at for at in places if crc == self._data[at : at + 4])
        if zlib.crc32(memoryview(self._data)[start:stop]) != member.CRC or places[-1] not in found:
            raise self._damaged(f"member {name!r} at another place than its headers say")
        deferred = member.flag_bits & 8
        return Stored(start, stop, tuple(at for at in found if at != after or deferred))

    @staticmethod
    def _is_unchecked(member: zipfile.ZipInfo) -> bool:
        """Whether the checksum is 0: torch.save has a setting that computes no checksums."""
        return (
            member.CRC == 0
            and member.compress_type == zipfile.ZIP_STORED
            and member.compress_size == member.file_size > 0
        )

    def _span(self, name: str) -> tuple[int, int]:
        """Returns where the bytes of a stored member begin and end."""
        member = self._zip.getinfo(name)
        lengths = struct.unpack_from("<HH", self._data, member.header_offset + 26)
        start = member.header_offset + 30 + sum(lengths)
        if start + member.file_size > len(self._data):
            raise self._damaged(f"member {name!r} at another place than its headers say")
        return start, start + member.file_size

    @functools.cached_property
    def _directory(self) -> dict[str, int]:
        """The position of each member's entry in the directory."""
        found, at = {}, self._zip.start_dir
        for member in self._zip.infolist():
            found[member.filename] = at
            at += 46 + sum(struct.unpack_from("<HHH", self._data, at + 28))
        return found

    def _check(self, members: list[zipfile.ZipInfo], size: int) -> None:
        for member in members:
            parts = member.filename.replace("\\", "/").split("/")
            if ".." in parts or parts[0] == "" or ":" in parts[0]:
                raise self._hostile(f"a member outside of the archive, {member.filename!r}")
            if member.flag_bits & 1:
                raise self._hostile(f"an encrypted member, {member.filename!r}")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise self._hostile(f"compression method {member.compress_type}")
        if len(self._known) < len(self.names):
            raise self._hostile("two members of one name")
        if sum(member.compress_size for member in members) > size:
            raise self._hostile("members that overlap")
        expanded = sum(member.file_size for member in members)
        if expanded > min(MAX_BYTES, MAX_RATIO * size + MAX_SPARE_BYTES):
            raise self._hostile(f"{size} bytes that expand to {expanded}")

    def _damaged(self, got: str) -> InputError:
        return InputError(
            f"{self._name}: expected a whole zip archive; got {got}; "
            "the file is truncated or damaged, such as half a download: get it again"
        )

    def _hostile(self, got: str) -> InputError:
        return InputError(
            f"{self._name}: expected an archive of weights; got {got}; allowed: stored or deflated "
            f"members inside the archive, {MAX_BYTES} bytes, ratio {MAX_RATIO}; "
            "get the file from its source"
        )
