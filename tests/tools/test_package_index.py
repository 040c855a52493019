"""The package index of pip: both interfaces and its settings; nothing is executed."""

import base64
import http.server
import json
import pathlib
import threading
from collections.abc import Iterator

import pytest

from tools.convert_weights import package_index
from tools.convert_weights.package_index import Settings, find_url, open_url, parse_settings

FILE = "some_thing-1.0.tar.gz"


class _Index(http.server.BaseHTTPRequestHandler):
    """/json and /html are indexes; /secret asks for a login."""

    def do_GET(self) -> None:
        login = "Basic " + base64.b64encode(b"me:p:w d").decode()
        if self.path.startswith("/secret") and self.headers["Authorization"] != login:
            self.send_error(401)
            return
        if self.path.endswith("/some-thing/") and not self.path.startswith("/none"):
            files = [{"filename": FILE, "url": f"../../files/{FILE}#sha256=1"}]
            page = f'<a>no link</a><a href="../../files/{FILE}#sha256=1">{FILE}</a>'
            text = page if self.path.startswith("/html") else json.dumps({"files": files})
        elif self.path == f"/files/{FILE}":
            text = "the file"
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Index) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("kind", ["json", "html", "secret"])
def test_file_is_found_and_read_in_either_interface(site: str, kind: str) -> None:
    """A login in the index's address is used."""
    login = "me:p%3Aw%20d@" if kind == "secret" else ""
    settings = Settings((f"http://{login}{site}/{kind}/",))
    url = find_url("some-thing", FILE, settings)
    assert url == f"http://{site}/files/{FILE}"
    with open_url(url, settings, seconds=5) as response:
        assert response.read() == b"the file"


def test_indexes_are_asked_in_order_and_folders_before_them(
    site: str, tmp_path: pathlib.Path
) -> None:
    settings = Settings((f"http://{site}/none", f"http://{site}/json"), (str(tmp_path),))
    assert find_url("some-thing", FILE, settings) == f"http://{site}/files/{FILE}"
    (tmp_path / FILE).write_text("here")
    assert find_url("some-thing", FILE, settings) == (tmp_path / FILE).as_uri()


def test_what_no_index_has_is_told_apart_from_an_index_that_does_not_answer(site: str) -> None:
    assert find_url("some-thing", "other.tar.gz", Settings((f"http://{site}/json",))) is None
    assert find_url("some-thing", FILE, Settings(())) is None
    assert find_url("some-thing", FILE, Settings((f"http://{site}/none",))) is None
    with pytest.raises(OSError, match="401"):
        find_url("some-thing", FILE, Settings((f"http://{site}/secret",)))


def test_settings_are_those_that_pip_prints() -> None:
    """Settings for downloads take precedence over global ones, and the environment over both."""
    text = (
        ":env:.find-links='/wheels'\n"
        "download.index-url='https://b/simple'\n"
        "global.extra-index-url='https://c/simple file:///d'\n"
        "global.index-url='https://a/simple'\n"
        "install.cert='not for downloads'\n"
    )
    found = parse_settings(text)
    assert found == Settings(("https://b/simple", "https://c/simple", "file:///d"), ("/wheels",))
    assert parse_settings("") == Settings((package_index.PYPI,))
    assert parse_settings("global.no-index='true'\n").indexes == ()
