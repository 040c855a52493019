"""Every benchmark can be started in both ways; what it measures is in `benchmarks/results`."""

import pathlib
import runpy
import subprocess
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = {path.stem: path for path in (ROOT / "benchmarks").glob("*.py")}
SCRIPTS = sorted(name for name, path in FILES.items() if "\ndef main(" in path.read_text())


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Imports as if no script had been run in this process, and leaves no trace of one."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    _forget()
    yield
    _forget()


def _forget() -> None:
    for name in list(sys.modules):
        if name == "as_module" or name.partition(".")[0] == "benchmarks":
            del sys.modules[name]


def test_files_that_are_no_scripts_are_imported_by_some() -> None:
    texts = [path.read_text() for path in FILES.values()]
    for name in FILES.keys() - {*SCRIPTS, "__init__"}:
        words = (f"import {name}", f"import baseline, {name}", f"from benchmarks.{name} import")
        assert any(word in text for word in words for text in texts), name


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("is_file", [True, False], ids=["file", "module"])
@pytest.mark.usefixtures("fresh")
def test_script_starts_as_a_file_and_as_a_module(
    name: str,
    is_file: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And its help is its docstring, which says what it measures and how long that takes."""
    monkeypatch.setattr(sys, "argv", [str(FILES[name]), "--help"])
    with pytest.raises(SystemExit) as ended:
        if is_file:
            sys.path.insert(0, str(ROOT / "benchmarks"))
            runpy.run_path(str(FILES[name]), run_name="__main__")
        else:
            runpy.run_module(f"benchmarks.{name}", run_name="__main__", alter_sys=True)
    assert not ended.value.code
    said = capsys.readouterr().out
    assert said.startswith(f"usage: {name}.py") and f"python -m benchmarks.{name}" in said


def test_a_file_starts_from_another_folder(tmp_path: pathlib.Path) -> None:
    done = subprocess.run(
        [sys.executable, FILES["spectrum"], "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "usage: spectrum.py" in done.stdout, done.stderr
