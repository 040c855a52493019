"""Who may talk to the viewer: this page alone, from this machine unless the user says otherwise.

A page of another site, open in the same browser, can send requests here too. So
1. the Host header has to name this server: a site that points its own name at 127.0.0.1 (DNS
   rebinding) is refused;
2. an Origin header, which browsers put on every request that could change something, has to be
   this server's, and what the browser tells of itself (Sec-Fetch-Site) must not be "cross-site";
3. answers forbid frames and any other source of scripts, and may not be read from elsewhere.
On an address that others can reach, names are unknown in advance; there a token is asked for
instead of the first: it comes once with the address and is kept in a cookie.
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
    """hosts: allowed values of the Host header, None for any. token: asked for unless None."""

    hosts: frozenset[str] | None
    token: str | None
    cookie: str

    def __post_init__(self) -> None:
        if self.hosts is None and self.token is None:
            raise ValueError("access: a server that answers to any name needs a token")


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


def make_access(host: str, port: int, token: str | None) -> Access:
    """Returns the rule for a server that listens there; any but loopback needs a token.

    Raises: ValueError without it; InputError if the token is short or no word.
    """
    if token is not None and not re.fullmatch(r"[A-Za-z0-9_-]{16,}", token):
        raise InputError(
            f"config.token: expected 16 or more letters, digits, - or _; got {len(token)} "
            "characters; leave it out to have one drawn"
        )
    hosts = None
    if is_loopback(host):
        names = {"127.0.0.1", "localhost", "[::1]", f"[{host}]" if ":" in host else host}
        hosts = frozenset(f"{name}:{port}" for name in names)
        hosts |= names if port == 80 else frozenset()
    return Access(hosts, token, f"navigan_jax_{port}")


def refusal(
    access: Access, method: str, path: str, query: str, headers: Mapping[str, str]
) -> tuple[int, str] | None:
    """Returns status and reason if the request may not be answered.

    headers: by lower-case name.
    """
    host = headers.get("host", "").lower()
    if access.hosts is not None and host not in access.hosts:
        return 403, (
            f"host: expected one of {', '.join(sorted(access.hosts))}; got {host!r}; "
            "open the address that the viewer printed"
        )
    origin = headers.get("origin")
    if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
        return 403, f"origin: expected this page; got {origin!r}; open the viewer itself"
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

        async def send_protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                protection = [(k.encode(), v.encode()) for k, v in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *protection]}
            await send(message)

        refused = refusal(access, scope["method"], scope["path"], query, headers)
        if refused is not None:
            await _answer(send_protected, refused[0], refused[1])
        elif access.token is not None and token_of_query(query):
            cookie = f"{access.cookie}={access.token}; HttpOnly; SameSite=Strict; Path=/"
            more = [(b"location", b"/"), (b"set-cookie", cookie.encode())]
            await _answer(send_protected, 303, "go on without the token in the address", more)
        else:
            await application(scope, receive, send_protected)

    return guarded


async def _answer(
    send: Callable[[Message], Awaitable[None]],
    status: int,
    reason: str,
    headers: list[tuple[bytes, bytes]] | None = None,
) -> None:
    body = json.dumps({"error": reason}).encode()
    more = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send(
        {"type": "http.response.start", "status": status, "headers": [*more, *(headers or [])]}
    )
    await send({"type": "http.response.body", "body": body})
