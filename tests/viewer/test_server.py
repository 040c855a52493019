"""The answers of the server over a real connection: pictures, notes, errors, other origins."""

import concurrent.futures
import io
import json
import socket
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from navigan_jax.errors import InputError
from navigan_jax.viewer import server
from tests.viewer.serving import Served, serving

VIEW = {"sample": {"seed": 1}, "moves": [{"index": 1, "shift": 2.0}]}


def ask_image(http: httpx.Client, sequence: Any, **changes: Any) -> httpx.Response:
    body = {"client": "test", "sequence": sequence, "view": VIEW} | changes
    return http.post("/api/image", json=body)


def test_page_loads_nothing_from_elsewhere(http: httpx.Client) -> None:
    page = http.get("/")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy
    assert page.headers["x-frame-options"] == "DENY" and "server" not in page.headers
    names = "main", "api", "gauges", "history", "notes", "samples", "shifts", "stage", "strip"
    parts = ["viewer.css", *(f"{name}.js" for name in names)]
    for name in parts:
        part = http.get(f"/{name}")
        assert part.status_code == 200
        assert part.headers["content-type"].startswith(
            "text/css" if ".css" in name else "text/java"
        )
        for text in (page.text, part.text.replace("http://www.w3.org/2000/svg", "")):
            assert "http:" not in text and "https:" not in text and "@import" not in text


def test_state_describes_generator_and_directions(http: httpx.Client, fresh: Served) -> None:
    state = http.get("/api/state").json()
    assert state["start"] == {"seed": 5, "samples": 3}
    assert state["generator"]["rows"] == 4 and len(state["directions"]["ends"]) == 6
    assert state["notes"] == {}


def test_image_is_the_studios_png(http: httpx.Client, viewer: Served) -> None:
    answer = ask_image(http, 1, client="bits")
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
    assert answer.headers["x-sequence"] == "1"
    assert answer.content == viewer.studio.png(viewer.studio.view(VIEW))
    assert Image.open(io.BytesIO(answer.content)).size == (8, 8)


def test_late_request_gets_no_picture(http: httpx.Client) -> None:
    assert ask_image(http, 7, client="late").status_code == 200
    late = ask_image(http, 6, client="late")
    assert late.status_code == 204 and not late.content
    assert ask_image(http, 6, client="late", place="another").status_code == 200
    assert ask_image(http, 6, client="other").status_code == 200


def test_many_at_once_all_get_their_own_picture(viewer: Served) -> None:
    def drag(client: int) -> list[bool]:
        with httpx.Client(base_url=viewer.url, timeout=60) as http:
            right = []
            for step in range(6):
                view = VIEW | {"moves": [{"index": client % 6, "shift": 0.1 * step - client}]}
                answer = ask_image(http, step, client=f"many{client}", view=view)
                expected = viewer.studio.png(viewer.studio.view(view))
                right.append(answer.status_code == 200 and answer.content == expected)
            return right

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(all(right) for right in pool.map(drag, range(8)))


def test_notes_are_on_the_disk_when_the_answer_comes(http: httpx.Client, fresh: Served) -> None:
    answer = http.post(
        "/api/notes", json={"index": 3, "change": {"name": "smile", "starred": True}}
    )
    assert answer.status_code == 200
    kept = json.loads(fresh.notes_path.read_text(encoding="utf-8"))
    assert next(iter(kept["directions"].values()))["3"]["name"] == "smile"
    assert http.get("/api/notes").json() == answer.json()
    assert http.get("/api/state").json()["notes"]["3"]["starred"] is True
    assert ask_image(http, 1, client="mark").headers["x-notes"] == answer.json()["mark"]


def test_own_latents_are_saved_and_shown(http: httpx.Client) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, w_plus=np.ones((2, 4, 11), np.float32))
    kind = {"content-type": "application/octet-stream"}
    for file, called in (("mine.npz", "mine.npz"), ("a/b\\c.npz", "c.npz"), ("", "latents")):
        told = http.post(
            "/api/latents", params={"file": file}, content=buffer.getvalue(), headers=kind
        ).json()
        assert told["count"] == 2 and told["space"] == "w_plus"
        assert told["told"] == f"{called}: 2 latents taken as w_plus, from 'w_plus' [2, 4, 11]"
    view = {"sample": {"own": told["own"], "index": 1}}
    assert ask_image(http, 1, client="own", view=view).status_code == 200


@pytest.mark.parametrize("kind", ["png", "gif", "mp4", "recipe"])
def test_export_is_a_file(http: httpx.Client, kind: str) -> None:
    answer = http.post("/api/export", json={"kind": kind, "view": VIEW})
    assert answer.status_code == 200
    assert answer.headers["content-disposition"].startswith("attachment; filename")
    begins = {"png": b"\x89PNG", "gif": b"GIF8", "mp4": b"\0\0\0", "recipe": b"{"}
    assert answer.content.startswith(begins[kind])
    if kind == "gif":
        assert Image.open(io.BytesIO(answer.content)).n_frames > 20
    if kind == "mp4":
        assert answer.content[4:8] == b"ftyp"


@pytest.mark.parametrize("kind", ["gif", "mp4"])
def test_video_without_a_shift_is_refused(http: httpx.Client, kind: str) -> None:
    view = {"sample": {"seed": 1}, "moves": [{"index": 1, "shift": 0}]}
    answer = http.post("/api/export", json={"kind": kind, "view": view})
    assert answer.status_code == 400 and "shift one first" in answer.json()["error"]


# Mistakes


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "reason"),
    [
        ("GET", "/nothing", {}, 404, "path: expected a path of the viewer"),
        ("GET", "/../server.py", {}, 404, "path: "),
        ("GET", "/%2e%2e/server.py", {}, 404, "path: "),
        ("GET", "/api/image", {}, 405, "method: expected POST; got GET"),
        ("DELETE", "/api/notes", {}, 405, "method: expected GET, HEAD, POST; got DELETE"),
        ("POST", "/api/image", {"json": []}, 400, "body: expected a JSON object"),
        ("POST", "/api/image", {"json": {}}, 400, "body: expected the key client"),
        ("POST", "/api/notes", {"json": {"index": 99, "change": {}}}, 400, "index: expected"),
        (
            "POST",
            "/api/notes",
            {"json": {"index": 0, "change": {"name": 3}}},
            400,
            "name: expected",
        ),
        ("POST", "/api/export", {"json": {"kind": "exe", "view": VIEW}}, 400, "kind: expected"),
        (
            "POST",
            "/api/notes",
            {"data": {"index": "0"}},
            415,
            "content-type: expected application/j",
        ),
        ("POST", "/api/notes", {"content": b"{}"}, 415, "got none"),
    ],
)
def test_mistake_gets_its_reason(
    http: httpx.Client, method: str, path: str, options: Any, status: int, reason: str
) -> None:
    answer = http.request(method, path, **options)
    assert answer.status_code == status and reason in answer.json()["error"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"client": 1}, "client: expected 1 to 64 printable characters; got 1"),
        ({"client": ""}, "client: expected 1 to 64 printable characters"),
        ({"client": "a" * 65}, "client: expected 1 to 64 printable characters"),
        ({"place": ""}, "place: expected 1 to 64 printable characters"),
        ({"sequence": -1}, "sequence: expected a whole number from 0"),
        ({"sequence": 1.0}, "sequence: expected a whole number"),
        ({"sequence": 2**53}, "sequence: expected a whole number"),
        ({"small": 1}, "small: expected true or false"),
        ({"patient": None}, "patient: expected true or false"),
        ({"view": {}}, "view: expected the key sample"),
        ({"more": 1}, "got 'more'"),
    ],
)
def test_invalid_image_request_gets_its_reason(
    http: httpx.Client, changes: Any, reason: str
) -> None:
    answer = ask_image(http, **{"sequence": 1} | changes)
    assert answer.status_code == 400 and reason in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"{", 400, "body: expected JSON"),
        (b"\xff\xfe", 400, "body: expected JSON"),
        (b"[" * 100_000, 400, "body: expected JSON"),
        (b'{"client": "a", "sequence": NaN}', 400, "NaN, which is not a JSON number"),
        (b'"' + b"x" * 300_000 + b'"', 413, "body: expected at most"),
    ],
)
def test_body_that_is_not_json_gets_its_reason(
    http: httpx.Client, body: bytes, status: int, reason: str
) -> None:
    kind = {"content-type": "application/json"}
    answer = http.post("/api/image", content=body, headers=kind)
    assert answer.status_code == status and reason in answer.json()["error"]
    chunks = (body[at : at + 10_000] for at in range(0, len(body), 10_000))  # no Content-Length
    assert http.post("/api/image", content=chunks, headers=kind).status_code == status


def test_a_bug_is_reported_without_its_details(
    viewer: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewer.studio, "render", lambda _: 1 / 0)
    with httpx.Client(base_url=viewer.url, timeout=60) as http:
        answer = ask_image(http, 1, client="fault", view={"sample": {"seed": 12345}})
    assert answer.status_code == 500 and "ZeroDivisionError" in answer.json()["error"]
    assert "Traceback" not in answer.text


# Other origins


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
    ],
)
def test_other_origins_neither_read_nor_write(
    http: httpx.Client, fresh: Served, headers: dict[str, str]
) -> None:
    change = {"index": 0, "change": {"starred": True}}
    for answer in (
        http.post("/api/notes", json=change, headers=headers),
        http.get("/api/state", headers=headers),
        http.options("/api/notes", headers=headers | {"access-control-request-method": "POST"}),
    ):
        assert answer.status_code == 403 and "error" in answer.json()
        assert not any(name.startswith("access-control") for name in answer.headers)
    assert not fresh.notes_path.exists()


def test_token_comes_with_the_address_and_stays_in_a_cookie(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    token = "abcdefgh-01234567"
    folder = tmp_path_factory.mktemp("token")
    with (
        serving(folder, architecture="dcgan", token=token) as running,
        httpx.Client(base_url=running.url) as http,
    ):
        assert http.get("/").status_code == 401
        opened = http.get("/", params={"token": token})
        assert opened.status_code == 303 and opened.headers["location"] == "./"
        cookie = opened.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
        assert http.get("/api/state").status_code == 200


def test_port_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"config\.port: .* got {port} .*--config\.port=0"):
            server.listen("127.0.0.1", port)
