"""The command line: what it writes, what it prints, and how it reports mistakes."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from navigan_jax.generators.files import read_generator
from navigan_jax.perceptual.files import read_perceptual
from navigan_jax.testing import fill_state_dict
from tests.tools.crafting import Call, Global, dcgan_state, state_dict_file, torch_zip
from tools.convert_weights import __main__ as command
from tools.convert_weights.networks import NETWORKS, dcgan
from tools.convert_weights.networks.dcgan import from_state_dict

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(name="source")
def _source(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "netG.pth"
    path.write_bytes(state_dict_file(dcgan_state()))
    return path


def run(*arguments: object) -> int:
    return command.main([str(argument) for argument in arguments])


def error_of(capsys: pytest.CaptureFixture[str], status: int) -> str:
    """Returns the message of a command that failed: one, on stderr, and no traceback."""
    captured = capsys.readouterr()
    assert status == 2
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("error: ") == 1
    assert "Traceback" not in captured.err
    return captured.err


def test_paths_may_begin_with_the_home_folder(
    source: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shells do not expand the ~ of --out=~/FILE."""
    monkeypatch.setenv("HOME", str(source.parent))
    assert run("dcgan", f"~/{source.name}", "--out=~/g.safetensors") == 0
    assert (source.parent / "g.safetensors").is_file()


def test_dcgan_is_converted_and_described(
    source: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file holds the converted parameters; the report has its sizes, layers and digest."""
    out = tmp_path / "new" / "g.safetensors"
    assert run("dcgan", source, "--out", out) == 0
    generator, params = read_generator(out)
    assert generator.resolution == 16
    _, want = from_state_dict(dcgan_state())
    np.testing.assert_array_equal(params["conv1"]["kernel"], want["conv1"]["kernel"])
    text = capsys.readouterr().out
    for part in (
        "written",
        str(out),
        "dcgan",
        "resolution",
        "conv2/kernel",
        "4 x 4 x 3 x 3",
        "digest",
    ):
        assert part in text


def test_faces_are_fetched(
    source: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A word in place of a path names the known wheel."""
    monkeypatch.setattr(dcgan, "fetch_faces_wheel", lambda: source)
    out = tmp_path / "g.safetensors"
    assert run("dcgan", "faces", "--out", out) == 0
    assert out.is_file()


# Input channels, squeezed channels, channels of each expansion: SqueezeNet 1.1.
FIRES = {3: (64, 16, 64), 4: (128, 16, 64), 6: (128, 32, 128), 7: (256, 32, 128)}
FIRES |= {9: (256, 48, 192), 10: (384, 48, 192), 11: (384, 64, 256), 12: (512, 64, 256)}


def squeezenet() -> dict[str, np.ndarray]:
    shapes: dict[str, tuple[int, ...]] = {
        "features.0.weight": (64, 3, 3, 3),
        "features.0.bias": (64,),
    }
    for index, (inputs, squeezed, expanded) in FIRES.items():
        parts = {"squeeze": (squeezed, inputs, 1, 1), "expand1x1": (expanded, squeezed, 1, 1)}
        parts["expand3x3"] = (expanded, squeezed, 3, 3)
        for part, shape in parts.items():
            shapes[f"features.{index}.{part}.weight"] = shape
            shapes[f"features.{index}.{part}.bias"] = shape[:1]
    return fill_state_dict(shapes, 1)


def linear_weights() -> dict[str, np.ndarray]:
    channels = (64, 128, 256, 384, 384, 512, 512)
    return {
        f"lin{index}.model.1.weight": np.full((1, count, 1, 1), 0.5, np.float32)
        for index, count in enumerate(channels)
    }


@pytest.mark.parametrize("with_linear", [True, False])
def test_lpips_is_converted_and_described(
    with_linear: bool, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both parts, or the backbone alone, become a file that the package reads."""
    source, linear = tmp_path / "squeeze.pth", tmp_path / "lin.pth"
    source.write_bytes(state_dict_file(squeezenet()))
    linear.write_bytes(state_dict_file(linear_weights(), legacy=True))
    out = tmp_path / "l.safetensors"
    last = ["--linear", linear] if with_linear else ["--no-linear"]
    assert run("lpips", source, "--net", "squeeze", "--out", out, *last) == 0
    metric = read_perceptual(out)
    assert ("linear" in metric.params) is with_linear  # type: ignore[attr-defined]
    text = capsys.readouterr().out
    assert "navigan_jax.perceptual" in text
    assert f'"linear": {str(with_linear).lower()}' in text


def test_inspect_describes(source: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The description goes to stdout."""
    assert run("inspect", source) == 0
    text = capsys.readouterr().out
    assert "DCGAN generator" in text
    assert "resolution    16" in text


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (torch_zip({"a": 1}, {}), 0, "PyTorch zip archive"),
        (torch_zip(Global("mylib", "Options"), {}), 0, "PyTorch zip archive"),
        (torch_zip(Call(Global("os", "system"), ("x",)), {}), 3, "HOSTILE  refers to 'os.system'"),
        (torch_zip({"a": 1}, {})[:-30], 3, "half a download"),
        (b"\n<html><title>Too many</title>", 3, "a web page 'Too many'"),
        (b"", 3, "an empty file"),
        (None, 2, ""),
    ],
    ids=["file", "unknown class", "hostile", "cut", "page", "empty", "absent"],
)
def test_exit_status_of_inspect_says_what_could_be_read(
    data: bytes | None,
    status: int,
    words: str,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """0 for a readable file, 3 for an unreadable one, 2 for a wrong path."""
    path = tmp_path / "x.pt"
    if data is not None:
        path.write_bytes(data)
    assert run("inspect", path) == status
    assert words in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["stylegan2", "dcgan", "resnet18"])
@pytest.mark.parametrize("page", [b"\n\n<!DOCTYPE html><html>", b"\xef\xbb\xbf<?xml ?><Error>"])
def test_page_in_place_of_a_file_is_told_by_converters(
    kind: str, page: bytes, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message lists the allowed formats, among them NVIDIA's pickles."""
    path = tmp_path / "ffhq.pkl"
    path.write_bytes(page)
    message = error_of(capsys, run(kind, path, "--out", tmp_path / "x.safetensors"))
    assert re.search("got an? (web page|XML answer of a server), not the file behind it", message)
    assert re.search(r"allowed: .*pickles of NVIDIA \(\.pkl\)", message)


def test_terminal_codes_in_names_are_not_printed(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names of arrays are foreign text; their escape sequences must not reach the terminal."""
    path = tmp_path / "x.pt"
    path.write_bytes(state_dict_file({"a\x1b[2Jb\r": np.zeros(1, np.float32)}))
    assert run("inspect", path) == 0
    text = capsys.readouterr().out
    assert "a?[2Jb?" in text
    assert "\x1b" not in text and "\r" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: KIND"),
        (
            ["dcgn"],
            f"KIND: got 'dcgn'; allowed: {', '.join(NETWORKS)}, inspect; did you mean dcgan?",
        ),
        (
            ["xyz"],
            f"KIND: got 'xyz'; allowed: {', '.join(NETWORKS)}, inspect\n",
        ),
        (["dcgan", "a"], "the following arguments are required: --out"),
        (["lpips", "a", "--out", "l.safetensors"], "required: --net"),
        (["lpips", "--net", "vg", "--out", "l.safetensors"], "invalid choice: 'vg'"),
        (["lpips", "--net", "vgg", "--version", "1", "--out", "l"], "invalid choice: '1'"),
        (
            ["lpips", "--net", "vgg", "--linear", "a", "--no-linear", "--out", "l"],
            "not allowed with",
        ),
        (["dcgan", "a", "--out", "g.pth"], "--out: expected a name that ends in .safetensors"),
        (["dcgan", "absent", "--out", "g.safetensors"], "absent: expected a file; got nothing"),
        (["inspect", "absent"], "absent: expected a file; got nothing"),
        (["inspect"], "required: FILE"),
    ],
)
def test_mistake_is_one_message(
    arguments: list[str],
    message: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit status 2 and what to do, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    assert message in error_of(capsys, run(*arguments))
    assert list(tmp_path.iterdir()) == []


def test_source_is_not_overwritten(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another spelling of its path is recognised too."""
    path = tmp_path / "g.safetensors"
    path.write_bytes(state_dict_file(dcgan_state()))
    before = path.read_bytes()
    out = tmp_path / "x" / ".." / "g.safetensors"
    (tmp_path / "x").mkdir()
    assert "expected another file than the source" in error_of(
        capsys, run("dcgan", path, "--out", out)
    )
    assert path.read_bytes() == before


def test_failed_conversion_leaves_the_old_file(
    source: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An earlier result is kept if the next source is damaged."""
    out = tmp_path / "g.safetensors"
    assert run("dcgan", source, "--out", out) == 0
    before = out.read_bytes()
    source.write_bytes(source.read_bytes()[:-50])
    capsys.readouterr()
    assert "truncated or damaged" in error_of(capsys, run("dcgan", source, "--out", out))
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.safetensors", "netG.pth"]


def test_interrupt_is_told_quietly(
    source: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C gives the usual status of an interrupted program and no traceback."""

    def interrupt(path: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "describe_file", interrupt)
    assert run("inspect", source) == 130
    assert capsys.readouterr().err == "interrupted; files are written whole or not at all\n"


def test_module_runs_as_a_program(source: pathlib.Path) -> None:
    """`python -m tools.convert_weights` describes a file, and fails with status 2."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}

    def program(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tools.convert_weights", *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment,
            check=False,
        )

    good, bad = program("inspect", str(source)), program("inspect", "absent")
    assert good.returncode == 0
    assert "DCGAN generator" in good.stdout
    assert bad.returncode == 2
    assert bad.stderr == "error: absent: expected a file; got nothing; check the path\n"
