"""Finds a file of a Python package in the index that pip is configured for; runs nothing.

`pip download` would run the setup script of a source archive to learn its metadata. The index alone
gives the file's URL (simple repository interface: JSON, PEP 691, or HTML, PEP 503).
"""

import base64
import html.parser
import json
import pathlib
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, NamedTuple, TypeAlias

Response: TypeAlias = Any  # http.client.HTTPResponse, or that of a file

PYPI = "https://pypi.org/simple"

_SECONDS = 60
_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
_SETTING = re.compile(r"^([\w:]+)\.([\w-]+)=(['\"])(.*)\3$", re.MULTILINE)
# Later ones replace earlier ones, as in pip.
_SECTIONS = ("global", "download", ":env:")


class Settings(NamedTuple):
    """Where pip looks for packages; `cert` is the file of trusted certificates."""

    indexes: tuple[str, ...] = (PYPI,)
    folders: tuple[str, ...] = ()
    cert: str | None = None


def read_settings() -> Settings:
    """Returns the settings of this Python's pip, from its files and environment variables."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return parse_settings(result.stdout)


def parse_settings(text: str) -> Settings:
    r"""Parses the output of `pip config list`.

    >>> parse_settings("global.index-url='https://a/simple'\n:env:.index-url='https://b/simple'\n")
    Settings(indexes=('https://b/simple',), folders=(), cert=None)
    """
    found = {(section, key): value for section, key, _, value in _SETTING.findall(text)}
    merged: dict[str, str] = {}
    for wanted in _SECTIONS:
        merged |= {key: value for (section, key), value in found.items() if section == wanted}
    indexes = (merged.get("index-url", PYPI), *merged.get("extra-index-url", "").split())
    if merged.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        indexes = ()
    links = merged.get("find-links", "").split()
    return Settings(indexes, tuple(links), merged.get("cert"))


def find_url(project: str, file_name: str, settings: Settings) -> str | None:
    """Returns the URL of a project's file, or None if no index or folder has the file.

    Raises: OSError of the first index that failed, if no other index has the file.
    """
    for folder in settings.folders:
        path = pathlib.Path(urllib.parse.urlparse(folder).path if "://" in folder else folder)
        if (path / file_name).is_file():
            return (path / file_name).absolute().as_uri()
    first: OSError | None = None
    for index in settings.indexes:
        page = f"{index.rstrip('/')}/{project}/"
        try:
            links = _links(page, settings)
        except urllib.error.HTTPError as error:
            error.close()  # the error is also an open response
            if error.code != 404:  # 404: the index has no such project
                first = first or error
            continue
        except OSError as error:
            first = first or error
            continue
        if file_name in links:
            return links[file_name]
    if first is not None:
        raise first
    return None


def open_url(url: str, settings: Settings, *, seconds: float, accept: str = "*/*") -> Response:
    """Returns the response to a request with pip's certificates and credentials.

    Raises: OSError as `urllib.request.urlopen` does.
    """
    parts = urllib.parse.urlsplit(url)
    headers = {"Accept": accept}
    if parts.username is not None:
        login = f"{parts.username}:{parts.password or ''}"
        encoded = base64.b64encode(urllib.parse.unquote(login).encode()).decode()
        headers["Authorization"] = f"Basic {encoded}"
        url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    context = ssl.create_default_context(cafile=settings.cert) if settings.cert else None
    request = urllib.request.Request(url, headers=headers)
    return urllib.request.urlopen(request, timeout=seconds, context=context)


def _links(page: str, settings: Settings) -> dict[str, str]:
    """Returns the files on a project's page in an index, name to URL."""
    with open_url(page, settings, seconds=_SECONDS, accept=_ACCEPT) as response:
        text, base = response.read().decode("utf-8", "replace"), response.geturl()
    try:
        listed = [(file["filename"], file["url"]) for file in json.loads(text)["files"]]
    except (ValueError, TypeError, KeyError):  # not the JSON interface, so the HTML one
        reader = _Anchors()
        reader.feed(text)
        listed = [(_name_of(link), link) for link in reader.links]
    return {name: urllib.parse.urljoin(base, link).partition("#")[0] for name, link in listed}


def _name_of(link: str) -> str:
    return urllib.parse.unquote(urllib.parse.urlsplit(link).path.rpartition("/")[2])


class _Anchors(html.parser.HTMLParser):
    """Collects the targets of all links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]
