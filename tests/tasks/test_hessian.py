"""The task from a config to files: what it finds and shows."""

import json
import pathlib
import re
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import hessian
from navigan_jax import config as config_lib
from navigan_jax import params as params_lib
from navigan_jax.directions import read_directions
from navigan_jax.errors import InputError
from navigan_jax.generators.files import read_generator
from navigan_jax.perceptual import METRICS
from navigan_jax.progress import read_metrics
from navigan_jax.subspaces import products
from navigan_jax.tasks import inputs
from tests.tasks.spectra import PICTURES, Finished, arrays_of, configure, contents, override, run


def page_data(workdir: pathlib.Path) -> dict[str, Any]:
    """Returns what the script of the gallery reads."""
    page = (workdir / "gallery.html").read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    return json.loads(data)


def solve_densely(
    config: config_lib.Config, layers: list[str], z: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns eigenvalues and eigenvectors (rows), descending, of the Hessian made whole."""
    generator, params = read_generator(config.generator)
    found = generator.find_layers(layers)
    metric = METRICS[config.metric.name]()
    objective = products.make_objective(
        generator, params, metric, z, found, microbatch=len(z), cache_bytes=2**26
    )
    eye = jnp.eye(objective.entries)
    matrix = np.float64(products.gauss_newton(objective, cache_bytes=0)(eye))  # in one block
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return values[::-1], vectors[:, ::-1].T


def test_artefacts_hold_what_was_found(finished: Finished) -> None:
    """1. The directions are orthonormal with small residuals, and say where they come from.
    2. They are the leading eigenvectors of the dense Hessian. 3. Page, metrics and config agree.
    """
    config, workdir = finished.config, finished.workdir
    generator, params = read_generator(config.generator)
    directions = read_directions(
        workdir / "directions.safetensors", digest=params_lib.digest(params)
    )
    assert len(directions) == 3 and directions.layers == ("conv1/kernel",)
    basis = directions.basis["conv1/kernel"].reshape(3, -1)
    np.testing.assert_allclose(basis @ basis.T, np.eye(3), atol=1e-5)
    assert (directions.measures["residual"] <= config.solver.tolerance).all()
    eigenvalues = directions.measures["eigenvalue"]
    assert (np.diff(eigenvalues) < 0).all() and eigenvalues[-1] > 0
    assert (directions.shift_scales > 0).all()
    assert np.ptp(directions.distances) < 0.1 * directions.distances.mean()
    known = directions.provenance
    assert config_lib.from_text(known["config"]) == inputs.fill_defaults(config)
    assert (known["metric"], known["latents"], known["seed"]) == ("nlpd", "6", "0")
    assert known["method"] == "hessian, lanczos"

    key = jax.random.fold_in(jax.random.key(config.seed), 0)
    values, vectors = solve_densely(config, ["conv1"], generator.sample_latents(key, 6))
    np.testing.assert_allclose(eigenvalues, values[:3], rtol=1e-3)
    projector = vectors[:3].T @ vectors[:3]
    np.testing.assert_allclose(basis.T @ basis, projector, atol=0.01)

    page = page_data(workdir)
    assert [entry["eigenvalue"] for entry in page["directions"]] == directions.measures[
        "eigenvalue"
    ].tolist()
    assert page["samples"] == 2 and page["fractions"] == [-1, 0, 1]
    assert len({entry["sheet"] for entry in page["directions"]}) == 3
    rows = list(read_metrics(workdir / "metrics.jsonl"))
    assert rows[-1]["found"] == 3 and rows[-1]["step"] == int(known["products"])
    assert rows[-1]["residual"] <= config.solver.tolerance
    kept = config_lib.from_text((workdir / "config.json").read_text())
    assert kept == inputs.fill_defaults(config)
    for name in PICTURES:
        assert (workdir / name).stat().st_size > 1000
    assert not list(workdir.glob("state*")) and not list(workdir.glob(".*"))


@pytest.mark.usefixtures("no_solver")
def test_second_run_reuses_the_directions(
    finished: Finished, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No byte of them changes, nothing is calibrated; lost pictures are drawn as they were."""
    workdir = finished.copy(tmp_path)
    before = contents(workdir)
    for name in PICTURES:
        (workdir / name).unlink()
    run(finished.config, workdir)
    after = contents(workdir)
    for name in before.keys() - {"inputs.json"}:
        assert after[name] == before[name], name
    said = capsys.readouterr()
    assert "directions.safetensors: found, 3 directions" in said.out
    assert "gallery.html" in said.out.splitlines()[-2]
    assert "images: done" in said.err and "shift scales" not in said.err


@pytest.mark.usefixtures("no_solver")
def test_what_is_shown_can_change_without_solving(
    finished: Finished, files: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """The pictures and shift scales are new, the directions are not; neither are moved files."""
    workdir = finished.copy(tmp_path)
    moved = shutil.copy(files / "generator.safetensors", tmp_path / "moved.safetensors")
    config = configure(
        files,
        metric__name="nlpd",
        generator=str(moved),
        microbatch=2,
        save_minutes=5.0,
        show__steps=5,
        show__samples=1,
        show__change=0.05,
    )
    before = arrays_of(workdir)
    run(config, workdir)
    after = arrays_of(workdir)
    np.testing.assert_array_equal(after["basis/conv1/kernel"], before["basis/conv1/kernel"])
    assert (after["shift_scales"] < 0.9 * before["shift_scales"]).all()
    page = page_data(workdir)
    assert page["samples"] == 1 and page["fractions"] == [-1, -0.5, 0, 0.5, 1]
    kept = config_lib.from_text((workdir / "config.json").read_text())
    assert kept == inputs.fill_defaults(config)


def test_several_layers_and_latents_from_a_file(
    files: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """The eigenvectors of both layers together, for the z of the file, as many as asked for."""
    z = np.random.RandomState(4).standard_normal((9, 5, 1, 1))
    np.savez(tmp_path / "z.npz", z=z)
    config = configure(
        files, layer="main.6, conv0", latents__path=str(tmp_path / "z.npz"), latents__count=7
    )
    run(config, tmp_path / "run")
    arrays = arrays_of(tmp_path / "run")
    basis = [arrays[f"basis/{path}/kernel"].reshape(3, -1) for path in ("conv0", "conv2")]
    found = np.concatenate(basis, axis=1)
    np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-5)
    values, vectors = solve_densely(config, ["conv0", "conv2"], z[:7].reshape(7, 5))
    np.testing.assert_allclose(arrays["measures/eigenvalue"], values[:3], rtol=1e-3)
    np.testing.assert_allclose(found.T @ found, vectors[:3].T @ vectors[:3], atol=0.01)
    directions = read_directions(tmp_path / "run" / "directions.safetensors", digest=None)
    assert directions.provenance["latents"] == "7"


def test_paper_s_setting_runs_with_lpips(
    files: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The paper's variant in small: LPIPS at 64 px, power iteration, central differences.

    Its vectors are what the steps of that solver give, with residuals that say how far it got.
    (Most of the time goes into compiling LPIPS.)
    """
    config = override(
        hessian.get_config("paper"),
        files,
        {
            "metric__name": "lpips",
            "metric__weights": str(files / "lpips.safetensors"),
            "directions": 2,
            "latents__count": 3,
            "solver__iterations": 3,
            "microbatch": 3,
            "show__samples": 1,
            "show__steps": 3,
            "show__calibration_latents": 2,
        },
    )
    assert config.solver.name == "power" and config.metric.size == 64
    run(config, tmp_path / "run")
    arrays = arrays_of(tmp_path / "run")
    basis = arrays["basis/conv1/kernel"].reshape(2, -1)
    np.testing.assert_allclose(basis @ basis.T, np.eye(2), atol=1e-4)
    assert (
        np.isfinite(arrays["measures/residual"]).all() and arrays["measures/residual"].max() > 1e-3
    )
    assert "2 pairs, 8 products" in (said := capsys.readouterr().out)
    assert "above the tolerance 0.001" in said
    rows = list(read_metrics(tmp_path / "run" / "metrics.jsonl"))
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(rows[2]["eigenvalue"], arrays["measures/eigenvalue"][0], rtol=1e-6)


def test_exact_products_find_the_same(
    files: pathlib.Path, whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Exact and Gauss-Newton products agree in float32; different last bits show that both ran.

    So does a microbatch that the run chooses by itself.
    """
    run(configure(files, solver__product="exact", microbatch=0), tmp_path / "run")
    exact, other = arrays_of(tmp_path / "run"), arrays_of(whole)
    np.testing.assert_allclose(
        exact["measures/eigenvalue"], other["measures/eigenvalue"], rtol=1e-3
    )
    np.testing.assert_allclose(exact["basis/conv1/kernel"], other["basis/conv1/kernel"], atol=0.02)
    assert np.any(exact["basis/conv1/kernel"] != other["basis/conv1/kernel"])


def test_step_too_small_for_float32_is_told(
    files: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(
        files, solver__name="power", solver__iterations=2, solver__epsilon=1e-5, directions=1
    )
    run(config, tmp_path / "run")
    assert re.search(
        r"warning: .* \d+% of the weights did not change.* config.solver.eps", _said(capsys)
    )
    gone = configure(files, solver__name="power", solver__epsilon=1e-12, directions=1)
    with pytest.raises(InputError, match="gradient"):
        run(gone, tmp_path / "gone")
    assert "100% of the weights did not change" in _said(capsys)


def _said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.replace("\n", " ")
