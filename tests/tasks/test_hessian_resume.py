"""Stopped runs of the task go on, with the same bits.

Kills and interruptions happen in processes of their own, at a given state of the solver.
"""

import pathlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import checkpoints, linalg
from navigan_jax.tasks import hessian as hessian_task
from tests.tasks.spectra import ROOT, Stop, assert_same_results, configure, run, stop

# Runs main and stops at the third state of the solver: KILLED when it is saved, or by a signal.
STOPPED = """
import os, signal, sys
from navigan_jax import checkpoints, main
from navigan_jax.subspaces import runs

number = signal.Signals[sys.argv.pop(1)]
count = 0

def stop_at_third(function):
    def stopping(*arguments, **named):
        global count
        result = function(*arguments, **named)
        count += 1
        if count == 3:
            os.kill(os.getpid(), number)
        return result
    return stopping

if number == signal.SIGKILL:
    checkpoints.write_state = stop_at_third(checkpoints.write_state)
else:
    from navigan_jax import progress
    progress.Progress.advance = stop_at_third(progress.Progress.advance)
main.run()
"""


@pytest.mark.parametrize(
    ("name", "solver", "code"),
    [
        ("SIGKILL", "lanczos", -signal.SIGKILL),
        ("SIGTERM", "lanczos", 128 + signal.SIGTERM),
        ("SIGINT", "power", 128 + signal.SIGINT),
    ],
)
def test_stopped_run_resumes_with_the_same_bits(
    name: str,
    solver: str,
    code: int,
    files: pathlib.Path,
    whole: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    """Killed after a save, or interrupted between two: the same command ends with the directions
    and metrics of a run that was never stopped, without repeating the products.
    """
    changes = {"solver__name": solver, "solver__iterations": 2}
    changes["save_minutes"] = 0.0 if name == "SIGKILL" else 600.0
    workdir = tmp_path / "stopped"
    command = [sys.executable, "-c", STOPPED, name, "--config=configs/tiny.py:hessian"]
    command += [f"--workdir={workdir}", f"--config.generator={files / 'generator.safetensors'}"]
    command += ["--config.layer=conv1", "--config.metric.name=l2"]
    command += [f"--config.{key.replace('__', '.')}={value}" for key, value in changes.items()]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == code, done.stderr
    if code > 0:
        assert done.stderr.endswith("interrupted; run the same command again to resume\n")
        assert "Traceback" not in done.stderr
    assert not (workdir / "directions.safetensors").exists()
    saved = checkpoints.read_state(workdir / "state.safetensors")
    assert saved is not None and not list(workdir.glob(".*"))

    config = configure(files, **changes)
    run(config, workdir)
    assert not (workdir / "state.safetensors").exists()
    if solver == "power":
        whole = tmp_path / "whole"
        run(config, whole)
    assert_same_results(workdir, whole)


def test_resumed_run_makes_only_the_products_that_are_missing(
    files: pathlib.Path,
    whole: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run stopped after its last step makes only the product that compiles."""
    config = configure(files, save_minutes=0.0)

    monkeypatch.setattr(hessian_task.spectrum_lib, "as_directions", stop)
    with pytest.raises(Stop):
        run(config, tmp_path / "run")
    monkeypatch.undo()
    made = []
    original = linalg.lanczos

    def counted(*arguments: Any, **named: Any) -> Iterator[linalg.KrylovState]:
        for state in original(*arguments, **named):
            made.append(state.products)
            yield state

    monkeypatch.setattr(linalg, "lanczos", counted)
    run(config, tmp_path / "run")
    assert not made
    assert_same_results(tmp_path / "run", whole)


def test_state_of_other_coordinates_is_not_taken(
    files: pathlib.Path, whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """After another reduction the vectors mean something else, so the run starts anew."""
    config = configure(files, save_minutes=0.0)
    workdir = checkpoints.make_folder(tmp_path / "run")
    state = linalg.start_lanczos(jax.random.key(0), 7 * 6 * 16, 2, jnp.float32)
    tree = {"problem": np.frombuffer(b"another", np.uint8), "solver": state.to_arrays()}
    for name in ("config.json", "inputs.json"):
        shutil.copy(whole / name, workdir)
    checkpoints.write_state(workdir / "state.safetensors", tree)
    run(config, workdir)
    assert_same_results(workdir, whole)
