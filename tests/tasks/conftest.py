"""What the tests of tasks share, made once."""

import pathlib
from typing import Any

import numpy as np
import pytest

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.generators.files import write_generator
from navigan_jax.perceptual.files import write_perceptual
from navigan_jax.subspaces import products
from tests.tasks.spectra import SIZES, Finished, configure, draw_params, run


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Returns a folder with generators and LPIPS weights."""
    folder = tmp_path_factory.mktemp("files")
    params = draw_params(SIZES)
    write_generator(folder / "generator.safetensors", "dcgan", SIZES, params, {})
    write_generator(folder / "other.safetensors", "dcgan", SIZES, draw_params(SIZES, 1), {})
    dead = params_lib.replace(params, "norm1/scale", np.zeros(6, np.float32))
    write_generator(folder / "dead.safetensors", "dcgan", SIZES, dead, {})
    imaginary = params_lib.replace(params, "norm1/var", np.full(6, -1, np.float32))
    write_generator(folder / "imaginary.safetensors", "dcgan", SIZES, imaginary, {})
    lpips = testing.random_lpips("alex", seed=0)
    options = {"net": "alex", "version": "0.1", "linear": True}
    write_perceptual(folder / "lpips.safetensors", "lpips", options, lpips.params, {})
    return folder


@pytest.fixture(scope="session")
def finished(files: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Returns a run with NLPD, the default."""
    config = configure(files, metric__name="nlpd")
    workdir = tmp_path_factory.mktemp("finished") / "run"
    run(config, workdir)
    return Finished(config, workdir)


@pytest.fixture(scope="session")
def whole(files: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Returns the workdir of a run with L2 that was never stopped, which nobody changes."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    run(configure(files, save_minutes=0.0), workdir)
    return workdir


@pytest.fixture
def no_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a test in which a product with the Hessian is made."""

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("a solver was started")

    monkeypatch.setattr(products, "make_objective", refuse)
