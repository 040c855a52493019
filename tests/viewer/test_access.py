"""Only the viewer's own page reaches the viewer: host names, origins, tokens."""

import pytest

from navigan_jax.errors import InputError
from navigan_jax.viewer.access import Access, make_access, refusal
from navigan_jax.viewer.proxies import read_address

LOCAL = make_access("127.0.0.1", 8000, None)
TOKEN = "abcdefgh-01234567"
OPEN = make_access("0.0.0.0", 8000, TOKEN)
HUB = "https://hub.example/user/ann/proxy/8000/"
BEHIND = make_access("127.0.0.1", 8000, TOKEN, read_address(HUB))
COOKIE = {"cookie": f"navigan_jax_8000={TOKEN}"}


def ask(access: Access, method: str = "POST", path: str = "/api/image", query: str = "", **headers):
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    found = refusal(access, method, path, query, {"host": "127.0.0.1:8000"} | told)
    return found[0] if found else None


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8000",
        "localhost:8000",
        "LOCALHOST:8000",
        "[::1]:8000",
        "localhost:9000",  # the near end of ssh -L 9000:localhost:8000
        "127.0.0.1:9000",
        "[::1]:9000",
        "127.0.0.2:8000",
        "localhost",  # port 80, which browsers do not name
    ],
)
def test_names_of_this_machine_are_answered_with_any_port(host: str) -> None:
    assert ask(LOCAL, host=host) is None
    for scheme in ("http", "https"):
        origin = f"{scheme}://{host}"
        assert ask(LOCAL, host=host, origin=origin, sec_fetch_site="same-origin") is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8000",
        "127.0.0.1.evil.example:8000",
        "localhost.evil.example:8000",
        "evil.localhost:8000",  # not every browser keeps such names on this machine
        "localhost.:8000",
        "127.1:8000",
        "0x7f.0.0.1:8000",
        "127.0.0.1:8000:80",
        "127.0.0.1@evil.example",
        "user@localhost:8000",
        "localhost:8000/evil",
        "localhost:",
        "localhost evil.example",
        "0.0.0.0:8000",
        "10.0.0.1:8000",
        "[::2]:8000",
        "::1",
        "",
        ":8000",
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
        "http://127.0.0.1:8001",  # another program on this machine
        "http://127.0.0.1",
        "http://localhost:8000",
        "http://[::1]:8000",
        "http://127.0.0.1:8000.evil.example",
        "http://127.0.0.1:8000/",
        "ftp://127.0.0.1:8000",
        "file://",
        "chrome-extension://abc",
    ],
)
def test_other_origins_are_refused(origin: str) -> None:
    """localhost is another origin than 127.0.0.1 for a browser, so it is one here."""
    for access, more in ((LOCAL, {}), (OPEN, COOKIE), (BEHIND, COOKIE)):
        assert ask(access, origin=origin, **more) == 403
        assert ask(access, "GET", "/api/state", origin=origin, **more) == 403


def test_page_of_another_port_does_not_drive_a_tunnel() -> None:
    """The near end of a tunnel is an origin of its own; pages of any other port are refused."""
    for origin in ("http://localhost:8000", "http://localhost:3000", "http://127.0.0.1:9000"):
        assert ask(LOCAL, host="localhost:9000", origin=origin) == 403
    assert ask(LOCAL, "GET", "/api/state", host="localhost:9000", sec_fetch_site="same-site") == 403


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


@pytest.mark.parametrize("host", ["hub.example", "HUB.example", "localhost:8000"])
def test_configured_proxy_is_answered(host: str) -> None:
    """A proxy may keep the browser's Host header or replace it by the viewer's."""
    own = {"host": host, "origin": "https://hub.example", "sec_fetch_site": "same-origin"}
    assert ask(BEHIND, **own, **COOKIE) is None
    assert ask(BEHIND, **own) == 401
    assert ask(BEHIND, **own | {"origin": "http://hub.example"}, **COOKIE) == 403
    assert ask(BEHIND, **own | {"origin": "https://hub.example:8443"}, **COOKIE) == 403
    assert ask(BEHIND, **own | {"origin": "https://evil.example"}, **COOKIE) == 403
    assert ask(BEHIND, **own | {"sec_fetch_site": "cross-site"}, **COOKIE) == 403
    assert ask(LOCAL, **own) == 403


def test_configured_proxy_admits_no_other_name() -> None:
    for host in ("evil.example", "hub.example:8443", "hub.example.evil.example", "a.hub.example"):
        assert ask(BEHIND, host=host, **COOKIE) == 403
        assert ask(BEHIND, host=host, origin=f"https://{host}", **COOKIE) == 403
    assert ask(BEHIND, host="localhost:9000", origin="http://localhost:9000", **COOKIE) is None


def told(access: Access, **headers: str) -> str:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    found = refusal(access, "POST", "/api/image", "", named)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        (
            {"host": "hub.example", "x_forwarded_prefix": "/user/a%40b/proxy/8000"},
            "https://hub.example/user/a%40b/proxy/8000/",
        ),
        (
            {"host": "hub.example:8888", "origin": "http://hub.example:8888"},
            "http://hub.example:8888/",
        ),
        (
            {"host": "hub.example", "x_forwarded_proto": "http,https", "x_forwarded_host": "b.c"},
            "http://b.c/",
        ),
        ({"host": "localhost:8000", "origin": "https://hub.example"}, "https://hub.example/"),
        ({"host": "a b; rm -rf ~"}, "https://HOST/FOLDER/"),
        ({"host": "hub.example", "x_script_name": "/a`b`"}, "https://hub.example/FOLDER/"),
    ],
)
def test_refusal_says_what_to_start_the_viewer_with(headers: dict[str, str], address: str) -> None:
    """The command is guessed from the headers; parts that a shell would execute are left out."""
    assert told(LOCAL, **headers).endswith(f"--config.address={address}")


def test_server_that_others_reach_needs_a_token() -> None:
    for host in ("0.0.0.0", "192.168.1.5", "::"):
        with pytest.raises(ValueError, match="needs a token"):
            make_access(host, 8000, None)
    with pytest.raises(ValueError, match="needs a token"):
        make_access("127.0.0.1", 8000, None, read_address(HUB))


@pytest.mark.parametrize("token", ["short", "with blanks in it!", "ü" * 20, "x" * 15])
def test_weak_token_is_refused(token: str) -> None:
    with pytest.raises(InputError, match=r"config\.token: expected 16 or more letters"):
        make_access("127.0.0.1", 8000, token)


def test_host_name_instead_of_an_address_is_refused() -> None:
    with pytest.raises(InputError, match=r"config\.host: expected an IP address .*'studio'"):
        make_access("studio", 8000, TOKEN)


@pytest.mark.parametrize(
    ("text", "origin", "url"),
    [
        (HUB, "https://hub.example", HUB),
        (
            "https://Hub.Example:443/proxy/8000",
            "https://hub.example",
            "https://hub.example/proxy/8000/",
        ),
        ("http://hub:8888/a%20b/?x=1#y", "http://hub:8888", "http://hub:8888/a%20b/"),
        (" http://[::1]:9000 ", "http://[::1]:9000", "http://[::1]:9000/"),
        ("http://10.0.0.1:80", "http://10.0.0.1", "http://10.0.0.1/"),
    ],
)
def test_address_is_normalised_as_in_browsers(text: str, origin: str, url: str) -> None:
    found = read_address(text)
    assert (found.origin, found.url) == (origin, url)
    assert found.host == origin.partition("://")[2]


@pytest.mark.parametrize(
    "text",
    [
        "hub.example",
        "hub.example/proxy",
        "ftp://hub",
        "https://",
        "",
        "https://a b/",
        "https://ann:secret@hub/",
        "http://hub:99999/",
        "http://[::1/",
        "https://*.hub.example/",
    ],
)
def test_invalid_address_is_refused(text: str) -> None:
    with pytest.raises(
        InputError, match=r"^config\.address: expected the address that the browser"
    ):
        read_address(text)


@pytest.mark.parametrize(
    ("path", "below"),
    [
        ("/user/ann/proxy/8000/api/image", "/api/image"),
        ("/user/ann/proxy/8000/", "/"),
        ("/user/ann/proxy/8000", "/user/ann/proxy/8000"),
        ("/user/ann/proxy/80001/", "/user/ann/proxy/80001/"),
        ("/api/image", "/api/image"),
    ],
)
def test_folder_of_the_proxy_may_stay_in_paths(path: str, below: str) -> None:
    assert read_address(HUB).below(path) == below
    assert read_address("https://hub.example/").below(path) == path
