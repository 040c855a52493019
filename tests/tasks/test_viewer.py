"""The task serves what its config names, on this machine alone unless told otherwise."""

import pathlib
import re
import signal
from typing import Any

import httpx
import pytest

from configs import edit, viewer
from navigan_jax import config as config_lib
from navigan_jax import params as params_lib
from navigan_jax import tasks
from navigan_jax.directions import read_directions, read_fitting
from navigan_jax.errors import InputError
from navigan_jax.generators.files import read_generator
from navigan_jax.viewer import server
from navigan_jax.viewer.studio import Studio
from tests.viewer.serving import Process, write_files


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Returns a folder with a generator, directions of it and directions of another."""
    folder = tmp_path_factory.mktemp("files")
    write_files(folder, others="others")
    return folder


def configure(files: pathlib.Path, **changes: Any) -> config_lib.Config:
    config = viewer.get_config()
    config.generator = str(files / "generator.safetensors")
    config.directions = str(files / "directions.safetensors")
    config.port = 0
    for key, value in changes.items():
        config[key] = value
    return config_lib.freeze(config)


@pytest.mark.parametrize("is_open", [False, True])
def test_command_prints_its_address_and_serves_until_it_is_stopped(
    files: pathlib.Path, tmp_path: pathlib.Path, is_open: bool
) -> None:
    options = ["--config.seed=11", *(["--config.host=0.0.0.0"] if is_open else [])]
    with Process(files, 0, f"--workdir={tmp_path / 'work'}", *options) as process:
        pattern = r"open http://0\.0\.0\.0:\d+/\?token=(\S{20,})$"
        found = re.match(pattern if is_open else r"open http://127\.0\.0\.1:\d+/()$", process.said)
        assert found is not None, process.said
        with httpx.Client(base_url=process.url, timeout=60) as http:
            if is_open:
                assert http.get("/api/state").status_code == 401
                http.headers["authorization"] = f"Bearer {found[1]}"
            state = http.get("/api/state").json()
        assert state["start"] == {"seed": 11, "samples": 8}
        process.running.send_signal(signal.SIGINT if is_open else signal.SIGTERM)
        assert process.running.wait(30) == 0
        assert process.running.stdout is not None
        assert "stopped" in process.running.stdout.read()


def test_address_of_a_proxy_is_printed_with_a_token(
    files: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A token is drawn, as others reach that address; the viewer itself listens here alone."""
    served: list[Any] = []
    monkeypatch.setattr(server, "serve", lambda _, listening: served.append(listening))
    address = "https://hub.example/user/ann/proxy/8017/"
    tasks.TASKS["viewer"](configure(files, address=address), tmp_path)
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"open {re.escape(address)}\?token=\S{{20,}}", first)
    assert second == "others who reach that address can open it, with that token"
    assert len(served) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"address": "hub.example"}, r"config\.address: expected the address that the browser"),
        ({"port": 70000}, r"config\.port: expected a number of at most 65535; got 70000"),
        ({"samples": 0}, r"config\.samples: expected 1 or a number above it; got 0"),
        ({"seed": -1}, r"config\.seed: expected 0 or a number above it; got -1"),
        ({"host": "studio.example"}, r"config\.host: expected an IP address"),
        ({"host": "192.0.2.1"}, r"config\.port: expected a free port of 192\.0\.2\.1"),
        ({"token": "short"}, r"config\.token: expected 16 or more"),
        ({"distributed": True}, r"config\.distributed: expected False"),
        ({"generator": "none.safetensors"}, "none.safetensors: expected a file; got nothing"),
    ],
)
def test_mistake_is_told(
    files: pathlib.Path, tmp_path: pathlib.Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        tasks.TASKS["viewer"](configure(files, **changes), tmp_path)


def test_directions_of_another_generator_are_told(
    files: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    config = configure(files, directions=str(files / "others.safetensors"))
    with pytest.raises(InputError, match="expected directions of the weights"):
        tasks.TASKS["viewer"](config, tmp_path)


def test_directions_of_another_generator_are_used_if_told_so(
    files: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """In the viewer and in the recipe that it exports; the pixels are those of the directions' own
    generator, which is the same one here under another name.
    """
    generator, params = read_generator(files / "generator.safetensors")
    digest = params_lib.digest(params)
    views = []
    for name in ("directions", "others"):
        path = files / f"{name}.safetensors"
        directions = read_fitting(path, params, digest=digest, any_weights=True)
        assert directions.provenance.get("found_in") == ("0" * 64 if name == "others" else None)
        studio = Studio(generator, params, directions, path, tmp_path)
        moves = [{"index": 1, "shift": 2.5}]
        views.append(studio.view({"sample": {"seed": 7}, "moves": moves}))
    recipe = files / "others.json"
    recipe.write_text(studio.recipe_text(views[1].recipe), encoding="utf-8")
    config = edit.get_config()
    config.generator, config.recipe = str(files / "generator.safetensors"), str(recipe)
    with pytest.raises(InputError, match=r"directions of the weights .*any_weights=True"):
        tasks.TASKS["edit"](config_lib.freeze(config), tmp_path)
    config.any_weights = True
    tasks.TASKS["edit"](config_lib.freeze(config), tmp_path)
    assert (tmp_path / "edit_000.png").read_bytes() == studio.png(views[0])


def test_png_is_the_edit_tasks_file(files: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The recipe that the viewer exports gives the file that it exports, byte by byte."""
    generator, params = read_generator(files / "generator.safetensors")
    path = files / "directions.safetensors"
    directions = read_directions(path, digest=params_lib.digest(params))
    studio = Studio(generator, params, directions, path, tmp_path)
    moves = [{"index": 1, "shift": 2.5}, {"index": 3, "shift": -1.25}]
    view = studio.view({"sample": {"seed": 7, "index": 2}, "moves": moves})
    recipe = files / "recipe.json"  # beside the directions, which it names
    recipe.write_text(studio.recipe_text(view.recipe), encoding="utf-8")
    config = edit.get_config()
    config.generator, config.recipe = str(files / "generator.safetensors"), str(recipe)
    tasks.TASKS["edit"](config_lib.freeze(config), tmp_path)
    assert (tmp_path / "edit_000.png").read_bytes() == studio.png(view)
    original = studio.view({"sample": {"seed": 7, "index": 2}})
    assert (tmp_path / "original_000.png").read_bytes() == studio.png(original)
    assert studio.png(view) != studio.png(original)
