"""The viewer behind a tunnel and behind proxies, over real connections."""

from collections.abc import Iterator

import httpx
import pytest

from tests.viewer.proxying import proxy, tunnel
from tests.viewer.serving import Served, serving

TOKEN = "abcdefgh-01234567"
FOLDER = "/user/ann/proxy/8017"
NAME = "hub.example"
CHANGE = {"index": 0, "change": {"starred": True}}
IMAGE = {"client": "test", "sequence": 1, "view": {"sample": {"seed": 1}}}


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Returns a viewer whose config.address is the folder of a hub."""
    folder = tmp_path_factory.mktemp("behind")
    address = f"https://{NAME}{FOLDER}/"
    with serving(folder, architecture="dcgan", token=TOKEN, address=address) as running:
        yield running


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Returns a viewer without config.address."""
    with serving(tmp_path_factory.mktemp("plain"), architecture="dcgan") as running:
        yield running


def own(name: str, scheme: str = "http") -> dict[str, str]:
    """Returns the headers of a browser that shows the page at this host."""
    return {"host": name, "origin": f"{scheme}://{name}", "sec-fetch-site": "same-origin"}


def test_tunnel_with_another_port_works(plain: Served) -> None:
    with (
        tunnel(plain.port) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http,
    ):
        assert port != plain.port
        for name in ("localhost", "127.0.0.1", "[::1]"):
            headers = own(f"{name}:{port}")
            assert http.get("/", headers={"host": headers["host"]}).status_code == 200
            assert http.get("/api/state", headers=headers).status_code == 200
            image = IMAGE | {"client": name}
            assert http.post("/api/image", json=image, headers=headers).status_code == 200
        others = (
            {"host": f"evil.example:{port}", "origin": f"http://evil.example:{port}"},
            {"host": f"localhost:{port}", "origin": f"http://localhost:{plain.port}"},
            {"host": f"localhost:{port}", "origin": "http://evil.example"},
            {"host": f"localhost:{port}", "sec-fetch-site": "same-site"},
        )
        for headers in others:
            assert http.post("/api/notes", json=CHANGE, headers=headers).status_code == 403
        assert not plain.notes_path.exists()


@pytest.mark.parametrize("keeps_folder", [False, True])
@pytest.mark.parametrize("keeps_host", [True, False])
def test_proxy_with_a_folder_works_if_its_address_is_configured(
    behind: Served, keeps_folder: bool, keeps_host: bool
) -> None:
    """The token comes with the address once; its cookie stays in the folder."""
    behind.notes_path.unlink(missing_ok=True)
    host = None if keeps_host else f"localhost:{behind.port}"
    with (
        proxy(behind.port, FOLDER, keeps_folder=keeps_folder, host=host) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}{FOLDER}/", timeout=60) as http,
    ):
        named = {"host": NAME}
        assert http.get("", headers=named).status_code == 401
        opened = http.get("", params={"token": TOKEN}, headers=named)
        assert opened.status_code == 303
        assert opened.url.join(opened.headers["location"]).path == f"{FOLDER}/"
        cookie = opened.headers["set-cookie"]
        assert "Path" not in cookie and "Secure" in cookie  # so it is that of the page's folder
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
        headers = own(NAME, "https") | {"cookie": cookie.partition(";")[0]}
        page = http.get("", headers=headers)
        assert page.status_code == 200 and 'src="main.js"' in page.text
        for part in ("main.js", "api/state"):
            assert http.get(part, headers=headers).status_code == 200
        image = IMAGE | {"client": str(port)}
        assert http.post("api/image", json=image, headers=headers).status_code == 200
        for other in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
            answer = http.post("api/notes", json=CHANGE, headers=headers | other)
            assert answer.status_code == 403
        if keeps_host:
            other = {"host": "evil.example", "origin": "https://evil.example"}
            answer = http.post("api/notes", json=CHANGE, headers=headers | other)
            assert answer.status_code == 403
        assert not behind.notes_path.exists()
        assert http.post("api/notes", json=CHANGE, headers=headers).status_code == 200


def test_proxy_without_an_address_gets_the_command(plain: Served) -> None:
    """Browsers get text, programs JSON."""
    with (
        proxy(plain.port, FOLDER) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}{FOLDER}/") as http,
    ):
        page = http.get("", headers={"host": NAME, "accept": "text/html,*/*"})
        assert page.status_code == 403
        assert page.headers["content-type"] == "text/plain; charset=utf-8"
        assert page.text.endswith(f"--config.address=https://{NAME}{FOLDER}/\n")
        answer = http.post("api/image", json=IMAGE, headers=own(NAME, "https"))
        assert answer.json()["error"].endswith(f"--config.address=https://{NAME}{FOLDER}/")
