"""Known files: from the cache or downloaded, always with the listed digest."""

import hashlib
import io
import pathlib
import tarfile

import pytest

from navigan_jax.errors import InputError
from tests.tools.crafting import zip_archive
from tools.convert_weights import download
from tools.convert_weights.download import KNOWN_FILES, KnownFile, cache_folder, fetch

DATA = b"weights" * 1_000
NAME = "toy-1.0-py3-none-any.whl"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(name="site")
def _site(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Makes a known file `toy.bin` whose URL is on this disk."""
    path = tmp_path / "site" / "toy.bin"
    path.parent.mkdir()
    path.write_bytes(DATA)
    monkeypatch.setitem(KNOWN_FILES, "toy.bin", KnownFile(_digest(DATA), url=path.as_uri()))
    return path


@pytest.fixture(name="shelf")
def _shelf(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Makes a known wheel that pip finds in one folder only."""
    metadata = b"Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n"
    tags = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    members = {"toy/weights.tar": b"w", "toy-1.0.dist-info/METADATA": metadata}
    members |= {"toy-1.0.dist-info/WHEEL": tags, "toy-1.0.dist-info/RECORD": b""}
    path = tmp_path / "shelf" / NAME
    path.parent.mkdir()
    path.write_bytes(zip_archive(members))
    known = KnownFile(_digest(path.read_bytes()), requirement="toy==1.0")
    monkeypatch.setitem(KNOWN_FILES, NAME, known)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    return path


def test_file_is_downloaded_once(site: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The bytes equal the source's; the second time they come from the cache."""
    cache = tmp_path / "deep" / "cache"
    path = fetch("toy.bin", cache)
    assert path == cache / "toy.bin"
    assert path.read_bytes() == DATA
    site.unlink()
    assert fetch("toy.bin", cache) == path
    assert [file.name for file in cache.iterdir()] == ["toy.bin"]


def test_damaged_cache_is_replaced(site: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A file of another digest in the cache is never returned."""
    (tmp_path / "toy.bin").write_bytes(DATA[:-1])
    assert fetch("toy.bin", tmp_path).read_bytes() == DATA


def test_other_bytes_are_refused(site: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The message has both digests, and no file is left behind."""
    site.write_bytes(b"changed")
    cache = tmp_path / "cache"
    with pytest.raises(
        InputError,
        match=rf"another file, of SHA-256 {_digest(b'changed')}.*must be {_digest(DATA)}",
    ):
        fetch("toy.bin", cache)
    assert list(cache.iterdir()) == []


def test_offline_message_says_what_to_do(site: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The message has the URL, the digest and the path to which the file can be copied by hand."""
    site.unlink()
    cache = tmp_path / "cache"
    with pytest.raises(InputError) as info:
        fetch("toy.bin", cache)
    for part in (site.as_uri(), f"put it at {cache / 'toy.bin'}", _digest(DATA)):
        assert part in str(info.value)
    (cache / "toy.bin").write_bytes(DATA)
    assert fetch("toy.bin", cache).read_bytes() == DATA


def test_wheel_is_found_by_pip_once(shelf: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """pip finds the wheel in the folder; the second time it comes from the cache."""
    cache, want = tmp_path / "cache", shelf.read_bytes()
    assert fetch(NAME, cache).read_bytes() == want
    shelf.unlink()
    assert fetch(NAME, cache).read_bytes() == want
    assert [file.name for file in cache.iterdir()] == [NAME]


def test_wheel_that_pip_does_not_find_is_told(shelf: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The message has pip's last line, the command, the path and the digest."""
    shelf.unlink()
    with pytest.raises(
        InputError, match=r"by pip download --no-deps toy==1\.0; got pip said: ERROR: .*put it at"
    ):
        fetch(NAME, tmp_path / "cache")


def test_source_package_is_not_built(
    shelf: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Building it would run its setup.py; without a wheel the package counts as missing."""
    mark = tmp_path / "mark"
    shelf.unlink()
    setup = f"import pathlib\nimport setuptools\npathlib.Path({str(mark)!r}).touch()\n"
    setup += "setuptools.setup(name='toy', version='1.0')\n"
    with tarfile.open(shelf.parent / "toy-1.0.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("toy-1.0/setup.py")
        member.size = len(setup)
        archive.addfile(member, io.BytesIO(setup.encode()))
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "1")
    with pytest.raises(InputError, match=r"pip said: ERROR: No matching distribution"):
        fetch(NAME, tmp_path / "cache")
    assert not mark.exists()


def test_unknown_name_lists_the_known_ones() -> None:
    """A caller's programming mistake shows the table."""
    with pytest.raises(InputError, match=r"got 'vgg19'; allowed: .*vgg16-397923af"):
        fetch("vgg19")


def test_cache_folder_is_named_by_the_environment(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NAVIGAN_CACHE, or a folder in the home directory."""
    monkeypatch.setenv("NAVIGAN_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("NAVIGAN_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "navigan_jax"


def test_faces_are_a_known_wheel(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel of faces comes from the cache if the cache has it."""
    known = KnownFile(_digest(DATA), requirement="none==0")
    monkeypatch.setitem(KNOWN_FILES, download.FACES_WHEEL, known)
    (tmp_path / download.FACES_WHEEL).write_bytes(DATA)
    assert download.fetch_faces_wheel(tmp_path).read_bytes() == DATA


@pytest.mark.parametrize("name", KNOWN_FILES)
def test_known_file_has_a_digest_and_one_origin(name: str) -> None:
    """64 hexadecimal digits, and a URL, a requirement or a project; names of torchvision repeat
    the digest."""
    known = KNOWN_FILES[name]
    assert len(bytes.fromhex(known.sha256)) == 32
    assert [known.url, known.requirement, known.project].count("") == 2
    if known.url:
        assert known.url.endswith(f"/{name}")
        assert name.rpartition("-")[2].partition(".")[0] == known.sha256[:8]
