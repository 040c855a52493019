"""No page but the viewer's own reaches the viewer: names, origins, tokens."""

import pytest

from navigan_jax.errors import InputError
from navigan_jax.viewer.access import Access, make_access, refusal

LOCAL = make_access("127.0.0.1", 8000, None)
TOKEN = "abcdefgh-01234567"
OPEN = make_access("0.0.0.0", 8000, TOKEN)


def ask(access: Access, method: str = "POST", path: str = "/api/image", query: str = "", **headers):
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    found = refusal(access, method, path, query, {"host": "127.0.0.1:8000"} | told)
    return found[0] if found else None


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST:8000", "[::1]:8000"]
)
def test_own_names_are_answered(host: str) -> None:
    assert ask(LOCAL, host=host) is None
    assert ask(LOCAL, host=host, origin=f"http://{host}", sec_fetch_site="same-origin") is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8000",
        "127.0.0.1:8001",
        "127.0.0.1",
        "127.0.0.1.evil.example:8000",
        "",
        "[::1]",
    ],
)
def test_other_names_are_refused(host: str) -> None:
    """A site that points its name at this machine (DNS rebinding) sends its own name."""
    assert ask(LOCAL, host=host) == 403
    assert ask(LOCAL, "GET", "/", host=host) == 403
    assert ask(LOCAL, host=host, origin=f"http://{host}") == 403


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "",
        "http://127.0.0.1:8001",
        "http://localhost:8000",
        "http://127.0.0.1:8000.evil.example",
        "file://",
        "chrome-extension://abc",
    ],
)
def test_other_origins_are_refused(origin: str) -> None:
    """localhost is another origin than 127.0.0.1 for a browser, so it is one here."""
    assert ask(LOCAL, origin=origin) == 403
    assert ask(LOCAL, "GET", "/api/state", origin=origin) == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_sites_may_only_open_the_page(site: str) -> None:
    assert ask(LOCAL, "GET", "/api/state", sec_fetch_site=site) == 403
    assert ask(LOCAL, "GET", "/main.js", sec_fetch_site=site, sec_fetch_mode="no-cors") == 403
    assert ask(LOCAL, "GET", "/", sec_fetch_site=site, sec_fetch_mode="no-cors") == 403
    assert ask(LOCAL, "POST", "/", sec_fetch_site=site, sec_fetch_mode="navigate") == 403
    assert ask(LOCAL, "GET", "/", sec_fetch_site=site, sec_fetch_mode="navigate") is None
    assert ask(LOCAL, "GET", "/", sec_fetch_site="none", sec_fetch_mode="navigate") is None


def test_open_server_asks_for_its_token() -> None:
    assert ask(OPEN, host="studio.example:8000") == 401
    assert ask(OPEN, "GET", "/") == 401
    for wrong in (TOKEN[:-1], TOKEN + "x", "", "ä" * 17):
        assert ask(OPEN, query=f"token={wrong}") == 401
        assert ask(OPEN, authorization=f"Bearer {wrong}") == 401
        assert ask(OPEN, cookie=f"navigan_jax_8000={wrong}") == 401
    assert ask(OPEN, cookie=f"navigan_jax_8001={TOKEN}") == 401
    assert ask(OPEN, query=f"token={TOKEN}") is None
    assert ask(OPEN, authorization=f"Bearer {TOKEN}") is None
    assert ask(OPEN, cookie=f"a=1; navigan_jax_8000={TOKEN}") is None


def test_token_does_not_open_the_server_to_other_origins() -> None:
    cookie = f"navigan_jax_8000={TOKEN}"
    assert ask(OPEN, cookie=cookie, origin="http://evil.example") == 403
    assert ask(OPEN, cookie=cookie, sec_fetch_site="cross-site") == 403
    assert ask(OPEN, cookie=cookie, origin="http://127.0.0.1:8000") is None


def test_open_server_without_a_token_cannot_be_made() -> None:
    for host in ("0.0.0.0", "192.168.1.5", "::"):
        with pytest.raises(ValueError, match="needs a token"):
            make_access(host, 8000, None)


@pytest.mark.parametrize("token", ["short", "with blanks in it!", "ü" * 20, "x" * 15])
def test_weak_token_is_told(token: str) -> None:
    with pytest.raises(InputError, match=r"config\.token: expected 16 or more letters"):
        make_access("127.0.0.1", 8000, token)


def test_name_in_place_of_an_address_is_told() -> None:
    with pytest.raises(InputError, match=r"config\.host: expected an IP address .*'studio'"):
        make_access("studio", 8000, TOKEN)


def test_port_80_is_not_named_by_browsers() -> None:
    assert ask(make_access("127.0.0.1", 80, None), host="127.0.0.1") is None
