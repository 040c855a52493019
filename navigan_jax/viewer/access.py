"""Who may talk to the viewer: this page alone, from this machine unless the user says otherwise.

A page of another site, open in the same browser, can send requests here too. So
1. the Host header has to name this machine, as 127.0.0.1, localhost or [::1] with any port, which
   is what a browser sends through an SSH tunnel too, or the address of the user's own proxy. A site
   that points its own name at 127.0.0.1 (DNS rebinding) sends that name and is refused;
2. an Origin header, which browsers put on every request that could change something, has to be
   that of the page itself: the one of the Host header, port included, or that of the proxy; and
   what the browser tells of itself (Sec-Fetch-Site) must not be "cross-site" or "same-site";
3. answers forbid frames and any other source of scripts, and may not be read from elsewhere.
Where others can reach the viewer, on an open address or behind a proxy, a token is asked for: it
comes once with the address and is kept in a cookie. On an open address names are unknown in
advance, so there the token stands in place of the first rule.
"""

import dataclasses
import hmac
import ipaddress
import json
import re
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http import cookies
from typing import Any

from navigan_jax.errors import InputError
from navigan_jax.viewer.proxies import Address, guess_address

Message = MutableMapping[str, Any]
Application = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[Message]],
        Callable[[Message], Awaitable[None]],
    ],
    Awaitable[None],
]

_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}


@dataclasses.dataclass(frozen=True)
class Access:
    """The rule of one server.

    any_host: whether every Host header is answered, which needs a token. proxy: the address that
    browsers show behind a proxy. token: asked for unless None.
    """

    any_host: bool
    token: str | None
    cookie: str
    proxy: Address | None = None

    def __post_init__(self) -> None:
        if self.token is None and (self.any_host or self.proxy is not None):
            raise ValueError("access: a server that others can reach needs a token")


def is_loopback(host: str) -> bool:
    """Says whether only this machine reaches an address.

    Raises: InputError if it is no IP address, nor localhost.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise InputError(
            f"config.host: expected an IP address of this machine or localhost; got {host!r}; "
            "allowed: 127.0.0.1 (this machine alone), 0.0.0.0 (all networks) or one network's; "
            "set it with --config.host=127.0.0.1"
        ) from error


def make_access(host: str, port: int, token: str | None, proxy: Address | None = None) -> Access:
    """Returns the rule for a server that listens there, perhaps behind a proxy.

    Raises: ValueError if others can reach it and there is no token; InputError if the token is
      short or no word.
    """
    if token is not None and not re.fullmatch(r"[A-Za-z0-9_-]{16,}", token):
        raise InputError(
            f"config.token: expected 16 or more letters, digits, - or _; got {len(token)} "
            "characters; leave it out to have one drawn"
        )
    return Access(not is_loopback(host), token, f"navigan_jax_{port}", proxy)


def refusal(
    access: Access, method: str, path: str, query: str, headers: Mapping[str, str]
) -> tuple[int, str] | None:
    """Returns status and reason if the request may not be answered.

    path: below that of the proxy. headers: by lower-case name.
    """
    host = headers.get("host", "").lower()
    is_proxy = access.proxy is not None and host == access.proxy.host
    if not (access.any_host or is_proxy or _names_this_machine(host)):
        return 403, (
            f"host: expected 127.0.0.1, localhost or [::1]{_or(access.proxy)}; got {host!r}; open "
            f"the address that the viewer printed; {_advice(headers)}"
        )
    origin = headers.get("origin")
    if origin is not None and not _is_own(origin.lower(), host, is_proxy, access.proxy):
        return 403, (
            f"origin: expected this page{_or(access.proxy)}; got {origin!r}; open the viewer "
            f"itself; {_advice(headers)}"
        )
    site = headers.get("sec-fetch-site", "none")
    opens_page = method == "GET" and path == "/" and headers.get("sec-fetch-mode") == "navigate"
    if site not in ("none", "same-origin") and not opens_page:
        return 403, f"site: expected a request of this page; got {site}; open the viewer itself"
    if access.token is not None and not _has_token(access, query, headers):
        return 401, (
            "token: expected the one that the viewer printed; got none or another; open the "
            "whole address once, with ?token=... at its end"
        )
    return None


def _names_this_machine(host: str) -> bool:
    """Says whether a Host header is a name of this machine that no other site can bear.

    Any port will do: that of an SSH tunnel's near end is another one than the viewer's.
    """
    name = re.fullmatch(r"(localhost|[\d.]+|\[[\da-f:.]+\])(:\d{1,5})?", host)
    if name is None:
        return False
    try:
        return is_loopback(name[1].strip("[]"))
    except InputError:
        return False


def _is_own(origin: str, host: str, is_proxy: bool, proxy: Address | None) -> bool:
    """Says whether an Origin header is that of the page which the Host header belongs to.

    A proxy may keep the browser's Host header or put the viewer's own in its place.
    """
    if proxy is not None and origin == proxy.origin:
        return True
    return not is_proxy and origin in (f"http://{host}", f"https://{host}")


def _or(proxy: Address | None) -> str:
    return "" if proxy is None else f", or {proxy.origin} as config.address says"


def _advice(headers: Mapping[str, str]) -> str:
    return (
        "behind a proxy of your own (Jupyter, code-server, nginx), start the viewer with the "
        f"address that your browser shows: --config.address={guess_address(headers)}"
    )


def _has_token(access: Access, query: str, headers: Mapping[str, str]) -> bool:
    given = [token_of_query(query), headers.get("authorization", "").removeprefix("Bearer ")]
    try:
        morsel = cookies.SimpleCookie(headers.get("cookie", "")).get(access.cookie)
    except cookies.CookieError:
        morsel = None
    given.append(morsel.value if morsel else "")
    expected = (access.token or "").encode()
    return any(hmac.compare_digest(token.encode(), expected) for token in given)


def token_of_query(query: str) -> str:
    """Returns the token in a query string, or an empty text."""
    return urllib.parse.parse_qs(query).get("token", [""])[0]


def guard(application: Application, access: Access) -> Application:
    """Returns the application behind the rule, with the headers that protect its answers."""

    async def guarded(
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":  # no web sockets here, and no lifespan
            return
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        query = scope["query_string"].decode("latin-1")
        path = scope["path"] if access.proxy is None else access.proxy.below(scope["path"])

        async def send_protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                protection = [(k.encode(), v.encode()) for k, v in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *protection]}
            await send(message)

        refused = refusal(access, scope["method"], path, query, headers)
        if refused is not None:
            is_read = "text/html" in headers.get("accept", "")
            await _answer(send_protected, refused[0], refused[1], as_text=is_read)
        elif access.token is not None and path == "/" and token_of_query(query):
            # Relative, and a cookie without a path: the proxy's folder is known to the browser.
            cookie = f"{access.cookie}={access.token}; HttpOnly; SameSite=Strict"
            cookie += "; Secure" if access.proxy and access.proxy.is_secure else ""
            more = [(b"location", b"./"), (b"set-cookie", cookie.encode())]
            await _answer(send_protected, 303, "go on without the token in the address", more)
        else:
            await application({**scope, "path": path}, receive, send_protected)

    return guarded


async def _answer(
    send: Callable[[Message], Awaitable[None]],
    status: int,
    reason: str,
    headers: list[tuple[bytes, bytes]] | None = None,
    *,
    as_text: bool = False,
) -> None:
    """Sends a reason: as text to people, else as JSON to programs."""
    body = f"{reason}\n".encode() if as_text else json.dumps({"error": reason}).encode()
    kind = b"text/plain; charset=utf-8" if as_text else b"application/json"
    more = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send(
        {"type": "http.response.start", "status": status, "headers": [*more, *(headers or [])]}
    )
    await send({"type": "http.response.body", "body": body})
