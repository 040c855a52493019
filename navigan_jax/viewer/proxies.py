"""Proxies: the address that a browser shows if a proxy stands between it and the viewer."""

import dataclasses
import re
import urllib.parse
from collections.abc import Mapping

from navigan_jax.errors import InputError

_PORTS = {"http": 80, "https": 443}
# Headers in which proxies name the folder of the viewer; the first two are Jupyter's.
_FOLDERS = ("x-forwarded-prefix", "x-forwarded-context", "x-script-name")


@dataclasses.dataclass(frozen=True)
class Address:
    """The viewer's address behind a proxy.

    origin: scheme and host as browsers write them, https://hub.example. folder: the path of the
    viewer on that host, without a final slash.
    """

    origin: str
    folder: str

    @property
    def host(self) -> str:
        """The name and port, as in a Host header."""
        return self.origin.partition("://")[2]

    @property
    def is_secure(self) -> bool:
        """Whether browsers reach the proxy by https alone."""
        return self.origin.startswith("https:")

    @property
    def url(self) -> str:
        """The address of the page; the page's relative links need the final slash."""
        return f"{self.origin}{urllib.parse.quote(self.folder)}/"

    def below(self, path: str) -> str:
        """Returns the path without the folder, which some proxies leave in their requests."""
        inside = self.folder and path.startswith(f"{self.folder}/")
        return path[len(self.folder) :] if inside else path


def read_address(text: str) -> Address:
    """Parses the address that a browser shows.

    Raises: InputError if the text is not an http or https address.
    """
    try:
        parts = urllib.parse.urlsplit(text.strip())
        port = parts.port
    except ValueError:
        parts, port = urllib.parse.urlsplit(""), None
    name = (parts.hostname or "").lower()
    is_name = re.fullmatch(r"[a-z0-9._-]+|[\da-f:.]+", name)
    if parts.scheme not in _PORTS or not is_name or parts.username is not None:
        raise InputError(
            f"config.address: expected the address that the browser shows; got {text!r}; give "
            "the whole address, such as --config.address=https://hub.example/user/ann/proxy/8017/"
        )
    name = f"[{name}]" if ":" in name else name
    shown = "" if port in (None, _PORTS[parts.scheme]) else f":{port}"
    folder = urllib.parse.unquote(parts.path).rstrip("/")
    return Address(f"{parts.scheme}://{name}{shown}", folder)


def guess_address(headers: Mapping[str, str]) -> str:
    """Returns the address to start the viewer with, guessed from a request's headers.

    Anybody can send headers, so parts that are not plain become HOST or FOLDER.
    """
    host = headers.get("x-forwarded-host", headers.get("host", "")).partition(",")[0].strip()
    scheme = headers.get("x-forwarded-proto", "").partition(",")[0].strip()
    origin = re.fullmatch(r"(https?)://([\w.:-]+)", headers.get("origin", ""))
    if origin:
        scheme, host = origin[1], origin[2]
    folder = next((headers[name] for name in _FOLDERS if name in headers), "")
    if not re.fullmatch(r"[\w.-]+(:\d+)?", host, re.ASCII):
        return "https://HOST/FOLDER/"
    if not re.fullmatch(r"(/[\w.~@%:-]+)*/?", folder, re.ASCII):
        folder = "/FOLDER"
    return f"{scheme if scheme in _PORTS else 'https'}://{host}{folder.rstrip('/')}/"
