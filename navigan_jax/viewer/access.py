"""Access rules: only the viewer's own page may use the server, by default only from this machine.

A page of another site, open in the same browser, can send requests to the viewer too. Therefore:
1. The Host header must name this machine, as 127.0.0.1, localhost or [::1] with any port, or the
   user's own proxy. A browser sends such a name through an SSH tunnel too. A site that points its
   own name at 127.0.0.1 (DNS rebinding) sends that name and is refused.
2. The Origin header, which browsers add to every request that could change something, must be the
   page's own: the host and port of the Host header, or the proxy. The browser's Sec-Fetch-Site
   header must not be "cross-site" or "same-site".
3. Answers forbid frames and scripts from elsewhere, and other sites may not read them.
If others can reach the viewer, on an open address or behind a proxy, it asks for a token. The token
comes with the address once and is then kept in a cookie. On an open address, host names are not
known in advance, so the token replaces rule 1.
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
    """The access rules of one server.

    any_host: every Host header is allowed, which requires a token. token: required unless None.
    cookie: name of the cookie with the token. proxy: the viewer's address behind a proxy.
    """

    any_host: bool
    token: str | None
    cookie: str
    proxy: Address | None = None

    def __post_init__(self) -> None:
        if self.token is None and (self.any_host or self.proxy is not None):
            raise ValueError("access: a server that others can reach needs a token")


def is_loopback(host: str) -> bool:
    """Returns whether only this machine can reach an address.

    Raises: InputError if the host is neither an IP address nor localhost.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise InputError(
            f"config.host: expected an IP address of this machine or localhost; got {host!r}; "
            "allowed: 127.0.0.1 (this machine only), 0.0.0.0 (all networks) or this machine's "
            "address in one network; set it with --config.host=127.0.0.1"
        ) from error


def make_access(host: str, port: int, token: str | None, proxy: Address | None = None) -> Access:
    """Returns the access rules of a server on this host and port, perhaps behind a proxy.

    Raises: ValueError if others can reach the server and there is no token; InputError if the
      token is too short or has other characters than letters, digits, - and _.
    """
    if token is not None and not re.fullmatch(r"[A-Za-z0-9_-]{16,}", token):
        raise InputError(
            f"config.token: expected 16 or more letters, digits, - or _; got {len(token)} "
            "characters; leave it out for a random token"
        )
    return Access(not is_loopback(host), token, f"navigan_jax_{port}", proxy)


def refusal(
    access: Access, method: str, path: str, query: str, headers: Mapping[str, str]
) -> tuple[int, str] | None:
    """Returns status and reason if the request is refused, else None.

    path: without the proxy's folder. headers: by lower-case name.
    """
    host = headers.get("host", "").lower()
    is_proxy = access.proxy is not None and host == access.proxy.host
    if not (access.any_host or is_proxy or _names_this_machine(host)):
        return 403, (
            f"host: expected 127.0.0.1, localhost or [::1]{_or(access.proxy)}; got {host!r}; open "
            f"the address that the viewer printed; {_proxy_advice(headers)}"
        )
    origin = headers.get("origin")
    if origin is not None and not _is_own(origin.lower(), host, is_proxy, access.proxy):
        return 403, (
            f"origin: expected the viewer's own page{_or(access.proxy)}; got {origin!r}; open the "
            f"viewer itself; {_proxy_advice(headers)}"
        )
    site = headers.get("sec-fetch-site", "none")
    opens_page = method == "GET" and path == "/" and headers.get("sec-fetch-mode") == "navigate"
    if site not in ("none", "same-origin") and not opens_page:
        return 403, (
            "sec-fetch-site: expected a request from the viewer's own page; got "
            f"{site}; open the viewer itself"
        )
    if access.token is not None and not _has_token(access, query, headers):
        return 401, (
            "token: expected the token that the viewer printed; got none or another one; open "
            "the whole printed address once, with ?token=... at its end"
        )
    return None


def _names_this_machine(host: str) -> bool:
    """Returns whether a Host header is a name of this machine that no other site can have.

    Any port is allowed, as the near end of an SSH tunnel has another port than the viewer.
    """
    name = re.fullmatch(r"(localhost|[\d.]+|\[[\da-f:.]+\])(:\d{1,5})?", host)
    if name is None:
        return False
    try:
        return is_loopback(name[1].strip("[]"))
    except InputError:
        return False


def _is_own(origin: str, host: str, is_proxy: bool, proxy: Address | None) -> bool:
    """Returns whether an Origin header is that of the viewer's own page.

    A proxy may pass the browser's Host header on or replace it by the viewer's.
    """
    if proxy is not None and origin == proxy.origin:
        return True
    return not is_proxy and origin in (f"http://{host}", f"https://{host}")


def _or(proxy: Address | None) -> str:
    return "" if proxy is None else f", or {proxy.origin} as config.address says"


def _proxy_advice(headers: Mapping[str, str]) -> str:
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
    """Returns the token in a query string, or ""."""
    return urllib.parse.parse_qs(query).get("token", [""])[0]


def guard(application: Application, access: Access) -> Application:
    """Returns the application behind the access rules, with protective headers on its answers."""

    async def guarded(
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":  # the viewer has no web sockets and no lifespan events
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
            is_person = "text/html" in headers.get("accept", "")
            await _answer(send_protected, refused[0], refused[1], as_text=is_person)
        elif access.token is not None and path == "/" and token_of_query(query):
            # Relative location, cookie without a path: so both stay in the proxy's folder.
            cookie = f"{access.cookie}={access.token}; HttpOnly; SameSite=Strict"
            cookie += "; Secure" if access.proxy and access.proxy.is_secure else ""
            more = [(b"location", b"./"), (b"set-cookie", cookie.encode())]
            await _answer(send_protected, 303, "continue without the token in the address", more)
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
    """Sends a status and its reason, as text or as JSON."""
    body = f"{reason}\n".encode() if as_text else json.dumps({"error": reason}).encode()
    kind = b"text/plain; charset=utf-8" if as_text else b"application/json"
    more = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send(
        {"type": "http.response.start", "status": status, "headers": [*more, *(headers or [])]}
    )
    await send({"type": "http.response.body", "body": body})
