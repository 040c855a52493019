"""The converters need nothing that JAX reads from the environment."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from navigan_jax import checkpoints, environment

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_inspect_works_whatever_jax_is_told(tmp_path: pathlib.Path) -> None:
    """This holds for values that JAX cannot read, and for flags that would end XLA."""
    path = tmp_path / "a.safetensors"
    checkpoints.write_arrays(path, {"weight": np.zeros((2, 3), np.float32)}, {})
    variables = {
        "JAX_PLATFORMS": "nonsense",
        "JAX_PLATFORM_NAME": "gpu",
        "JAX_ENABLE_X64": "perhaps",
        "JAX_DEFAULT_MATMUL_PRECISION": "junk",
        "XLA_FLAGS": "--xla_no_such_flag",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tools.convert_weights", "inspect", str(path)],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "weight" in done.stdout


def test_set_aside_leaves_what_others_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JAX_ENABLE_X64", "XLA_FLAGS", "JAXON", "NAVIGAN_CACHE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    environment.set_aside()
    assert {name for name in os.environ if name.startswith(("JAX_", "XLA_"))} == {"JAX_PLATFORMS"}
    assert os.environ["JAX_PLATFORMS"] == "cpu"
    assert os.environ["JAXON"] == os.environ["NAVIGAN_CACHE"] == "1"
