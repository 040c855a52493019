"""The official networks by name, downloaded from a server on this machine."""

import functools
import hashlib
import http.server
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.generators.files import read_generator
from tests.tools.converting import read_stylegan2
from tools.convert_weights import __main__ as command
from tools.convert_weights import known_networks
from tools.convert_weights.download import KnownFile
from tools.convert_weights.networks.stylegan2 import command as stylegan2_command

pytestmark = pytest.mark.golden

ADA, TENSORFLOW = (
    testing.golden_case(f"stylegan2_{name}").path("checkpoint") for name in ("ada_orig", "tf_orig")
)
NOWHERE = KnownFile("", url="http://127.0.0.1:9/none.pkl")


def digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def server() -> Iterator[str]:
    """Returns the address of a server of the golden files."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(ADA.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{site.server_port}"
        site.shutdown()
        thread.join()


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> dict[str, KnownFile]:
    """Returns an empty table in place of the official one, and an empty cache."""
    table: dict[str, KnownFile] = {}
    monkeypatch.setattr(known_networks, "KNOWN_NETWORKS", table)
    monkeypatch.setattr(stylegan2_command, "KNOWN_NETWORKS", table)
    monkeypatch.setenv("NAVIGAN_CACHE", str(tmp_path / "cache"))
    return table


def test_network_is_converted_by_its_name(
    known: dict[str, KnownFile], server: str, tmp_path: pathlib.Path, capsys: Any
) -> None:
    """It is downloaded once. An unknown digest is printed, stored and required from then on."""
    known["toy"] = KnownFile("", url=f"{server}/{ADA.name}")
    out = tmp_path / "toy.safetensors"
    assert command.main(["stylegan2", "toy", "--out", str(out)]) == 0
    cached = tmp_path / "cache" / "stylegan2" / "toy.pkl"
    record = cached.with_name("toy.pkl.sha256")
    assert f"it is {digest(ADA)}, now stored in {record}" in capsys.readouterr().out
    assert record.read_text() == f"{digest(ADA)}  toy.pkl\n"
    want = params_lib.digest(read_stylegan2(ADA)[1])
    assert params_lib.digest(read_generator(out)[1]) == want
    known["toy"] = NOWHERE
    assert command.main(["stylegan2", "toy", "--out", str(out)]) == 0
    assert "SHA-256 was unknown" not in capsys.readouterr().out
    cached.unlink()
    known["toy"] = KnownFile("", url=TENSORFLOW.as_uri())
    assert command.main(["stylegan2", "toy", "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert f"another file, of SHA-256 {digest(TENSORFLOW)}" in error
    assert f"must be {digest(ADA)}" in error


def test_download_that_breaks_off_is_not_kept(
    known: dict[str, KnownFile], tmp_path: pathlib.Path, capsys: Any
) -> None:
    """Without a known digest, half a file would be taken for the whole."""

    class Broken(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = ADA.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])

        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Broken) as site:
        thread = threading.Thread(target=site.handle_request)
        thread.start()
        known["toy"] = KnownFile("", url=f"http://127.0.0.1:{site.server_port}/toy.pkl")
        arguments = ["stylegan2", "toy", "--out", str(tmp_path / "toy.safetensors")]
        assert command.main(arguments) == 2
        thread.join()
    error = capsys.readouterr().err
    assert "toy.pkl: expected a download by http" in error and "connection broke" in error
    assert list((tmp_path / "cache" / "stylegan2").iterdir()) == []


def test_file_put_into_the_cache_by_hand_is_taken(
    known: dict[str, KnownFile], tmp_path: pathlib.Path, capsys: Any
) -> None:
    """The message tells to do so; a known digest is still required."""
    known["toy"] = NOWHERE
    cached = tmp_path / "cache" / "stylegan2" / "toy.pkl"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(ADA.read_bytes())
    arguments = ["stylegan2", "toy", "--out", str(tmp_path / "toy.safetensors")]
    assert command.main(arguments) == 0
    assert f"it is {digest(ADA)}, now stored in" in capsys.readouterr().out
    known["toy"] = KnownFile(digest(TENSORFLOW), url=NOWHERE.url)
    assert command.main(arguments) == 2
    assert f"must be {digest(TENSORFLOW)}" in capsys.readouterr().err


def test_unknown_name_is_told(tmp_path: pathlib.Path, capsys: Any) -> None:
    """The message lists similar names; a path is reported as a missing file."""
    out = str(tmp_path / "x.safetensors")
    assert command.main(["stylegan2", "ffhq-config-g", "--out", out]) == 2
    assert "did you mean ffhq-config-f or" in capsys.readouterr().err
    assert command.main(["stylegan2", "network.pkl", "--out", out]) == 2
    assert "network.pkl: expected a file; got nothing" in capsys.readouterr().err
    assert command.main(["stylegan2", "--out", out]) == 2
    assert "one of the arguments SOURCE --all-known is required" in capsys.readouterr().err


def test_all_known_are_converted_and_kept(
    known: dict[str, KnownFile], server: str, tmp_path: pathlib.Path, capsys: Any
) -> None:
    """One that the server lacks keeps none back and is told at the end; a second run does the
    rest only."""
    known["first"] = KnownFile(digest(ADA), url=f"{server}/{ADA.name}")
    known["absent"] = KnownFile("", url=f"{server}/absent.pkl")
    known["last"] = KnownFile("", url=TENSORFLOW.as_uri())
    folder = tmp_path / "networks"
    assert command.main(["stylegan2", "--all-known", "--out", str(folder)]) == 2
    told = capsys.readouterr()
    assert "expected 3 networks; got 2" in told.err and "HTTP Error 404" in told.err
    assert told.err.count("error:") == 1
    assert sorted(path.stem for path in folder.iterdir()) == ["first", "last"]
    known["absent"] = KnownFile("", url=f"{server}/{TENSORFLOW.name}")
    assert command.main(["stylegan2", "--all-known", "--out", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "1 of 3  first: already there" in text
    assert f"2 of 3  absent: {folder / 'absent.safetensors'}" in text


def test_without_a_network_one_error_says_so(
    known: dict[str, KnownFile], tmp_path: pathlib.Path, capsys: Any
) -> None:
    """The first network ends the command with advice, and nothing is written."""
    known |= {"first": NOWHERE, "second": NOWHERE}
    folder = tmp_path / "networks"
    assert command.main(["stylegan2", "--all-known", "--out", str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.count("error:") == 1 and "second" not in error
    for part in (
        "expected a network connection; got none at 1 of 2  first",
        NOWHERE.url,
        f"put it at {tmp_path / 'cache' / 'stylegan2' / 'first.pkl'}",
        "its SHA-256 was never published",
    ):
        assert part in error
    assert list(folder.iterdir()) == []


def test_official_networks_have_addresses() -> None:
    """The paper's networks are listed; addresses differ, and digests are well-formed."""
    table = known_networks.KNOWN_NETWORKS
    assert {f"{data}-config-f" for data in ("ffhq", "car", "horse", "church")} < set(table)
    assert {"ffhq-256x256", "afhqv2-512x512", "ada-ffhq", "ada-ffhq256"} < set(table)
    assert len({known.url for known in table.values()}) == len(table) == 52
    for known in table.values():
        assert known.url.startswith("https://") and known.url.endswith(".pkl")
        assert len(bytes.fromhex(known.sha256)) in (0, 32)
