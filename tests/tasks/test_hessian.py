"""The task from a config to files, on a random generator so small that a run takes seconds.

Kills and interruptions happen in processes of their own, at a given state of the solver.
"""

import dataclasses
import errno
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import demo, hessian, tiny
from navigan_jax import checkpoints, devices, linalg, tasks, testing
from navigan_jax import config as config_lib
from navigan_jax import params as params_lib
from navigan_jax.directions import read_directions
from navigan_jax.errors import InputError
from navigan_jax.generators.files import make_generator, read_generator, write_generator
from navigan_jax.perceptual import METRICS
from navigan_jax.perceptual.files import write_perceptual
from navigan_jax.progress import read_metrics
from navigan_jax.subspaces import products
from navigan_jax.tasks import hessian as hessian_task
from navigan_jax.tasks import inputs

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIZES = {"z_dim": 5, "widths": [7, 6], "image_channels": 3}
PICTURES = ("spectrum.png", "gallery.png", "gallery.html", "animation.gif")
Overrides = Any


def draw_params(sizes: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    """Returns float32 weights of such a DCGAN; running variances are positive."""
    random = np.random.RandomState(seed)
    shapes = jax.eval_shape(make_generator("dcgan", sizes).init, jax.random.key(0))

    def draw(path: tuple[jax.tree_util.DictKey, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        lowest = -0.5 if path[-1].key == "kernel" else 0.2
        return random.uniform(lowest, 0.6, leaf.shape).astype(np.float32)

    return jax.tree.map_with_path(draw, shapes)


@pytest.fixture(scope="module")
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
    two = SIZES | {"image_channels": 2}
    write_generator(folder / "two_channels.safetensors", "dcgan", two, draw_params(two), {})
    lpips = testing.random_lpips("alex", seed=0)
    options = {"net": "alex", "version": "0.1", "linear": True}
    write_perceptual(folder / "lpips.safetensors", "lpips", options, lpips.params, {})
    return folder


def configure(files: pathlib.Path, **changes: Overrides) -> config_lib.Config:
    """Returns the tiny config with values by path, dots written as two underscores."""
    return override(tiny.get_config("hessian"), files, changes)


def override(
    config: config_lib.Config, files: pathlib.Path, changes: dict[str, Overrides]
) -> config_lib.Config:
    defaults = {"generator": str(files / "generator.safetensors"), "layer": "conv1"}
    for name, value in (defaults | {"metric__name": "l2"} | changes).items():
        *parents, last = name.split("__")
        node = config
        for parent in parents:
            node = node[parent]
        node[last] = value
    return config_lib.freeze(config)


def run(config: config_lib.Config, workdir: pathlib.Path) -> None:
    """Runs the task as main does."""
    tasks.TASKS[config.task](config, checkpoints.make_folder(workdir))


@dataclasses.dataclass(frozen=True)
class Finished:
    """A finished run, which nobody changes."""

    config: config_lib.Config
    workdir: pathlib.Path

    def copy(self, to: pathlib.Path) -> pathlib.Path:
        return pathlib.Path(shutil.copytree(self.workdir, to / "copy"))


@pytest.fixture(scope="module")
def finished(files: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Returns a run with NLPD, the default."""
    config = configure(files, metric__name="nlpd")
    workdir = tmp_path_factory.mktemp("finished") / "run"
    run(config, workdir)
    return Finished(config, workdir)


@pytest.fixture(scope="module")
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


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def arrays_of(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    return checkpoints.read_arrays(workdir / "directions.safetensors")[0]


def assert_same_results(ours: pathlib.Path, theirs: pathlib.Path) -> None:
    """The same bits, in directions, metrics and page; how often states were saved may differ."""
    our, their = arrays_of(ours), arrays_of(theirs)
    assert our.keys() == their.keys()
    for name in our:
        np.testing.assert_array_equal(our[name], their[name])
    for name in ("metrics.jsonl", "gallery.html"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


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
    assert config_lib.from_text(known["config"]) == config
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
    assert config_lib.from_text((workdir / "config.json").read_text()) == config
    for name in PICTURES:
        assert (workdir / name).stat().st_size > 1000
    assert not list(workdir.glob("state*")) and not list(workdir.glob(".*"))


@pytest.mark.usefixtures("no_solver")
def test_second_run_reuses_the_directions(
    finished: Finished, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not a byte of them changes, and pictures that were lost are drawn again, as they were."""
    workdir = finished.copy(tmp_path)
    before = contents(workdir)
    for name in PICTURES:
        (workdir / name).unlink()
    run(finished.config, workdir)
    after = contents(workdir)
    for name in before.keys() - {"inputs.json"}:
        assert after[name] == before[name], name
    said = capsys.readouterr().out
    assert "directions.safetensors: found, 3 directions" in said
    assert "gallery.html" in said.splitlines()[-2]


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
    assert config_lib.from_text((workdir / "config.json").read_text()) == config


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
    """As Gauss-Newton ones, up to float32; not to the bit, so it was another way.

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
        files, solver__name="power", solver__iterations=2, solver__epsilon=1e-6, directions=1
    )
    run(config, tmp_path / "run")
    assert re.search(r"warning: .* left \d+% of the weights .* config.solver.eps", _said(capsys))
    gone = configure(files, solver__name="power", solver__epsilon=1e-12, directions=1)
    with pytest.raises(InputError, match="gradient"):
        run(gone, tmp_path / "gone")
    assert "left 100% of the weights as they were" in _said(capsys)


def _said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.replace("\n", " ")


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
    """One that was stopped after its last step makes none but the one that compiles."""
    config = configure(files, save_minutes=0.0)

    monkeypatch.setattr(hessian_task.spectrum_lib, "as_directions", _stop)
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
    """Where the problem was reduced in another way, vectors mean something else: it starts anew."""
    config = configure(files, save_minutes=0.0)
    workdir = checkpoints.make_folder(tmp_path / "run")
    state = linalg.start_lanczos(jax.random.key(0), 7 * 6 * 16, 2, jnp.float32)
    tree = {"problem": np.frombuffer(b"another", np.uint8), "solver": state.to_arrays()}
    for name in ("config.json", "inputs.json"):
        shutil.copy(whole / name, workdir)
    checkpoints.write_state(workdir / "state.safetensors", tree)
    run(config, workdir)
    assert_same_results(workdir, whole)


def refused(config: config_lib.Config, workdir: pathlib.Path, message: str) -> str:
    """Asserts that the run ends with one such message and that the workdir stays as it is."""
    before = contents(checkpoints.make_folder(workdir))
    with pytest.raises(InputError, match=message) as caught:
        run(config, workdir)
    assert contents(workdir) == before
    return str(caught.value)


@pytest.mark.usefixtures("no_solver")
def test_workdir_with_results_of_another_config_is_not_touched(
    finished: Finished, files: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """The message shows what differs, be it a key or the content of a file, and nothing else."""
    workdir = finished.copy(tmp_path)
    config = configure(files, metric__name="nlpd", seed=3, solver__tolerance=0.1, show__samples=1)
    said = refused(config, workdir, "expected a workdir of this config; got one with results of")
    differences = [line.strip() for line in said.splitlines() if line.startswith("  ")]
    assert differences[:2] == ["seed: 0 -> 3", "solver.tolerance: 0.001 -> 0.1"]
    assert len(differences) == 3 and differences[2].startswith("latents: other content, ")
    config = configure(files, metric__name="nlpd", generator=str(files / "other.safetensors"))
    said = refused(config, workdir, r"\n  generator: other content, \w{16} -> \w{16}\nchoose")
    assert "generator.safetensors" not in said


@pytest.mark.usefixtures("no_solver")
def test_damaged_workdir_is_one_message(
    finished: Finished, files: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Config lost or no JSON; directions cut short, or of other weights than the config's."""
    config = finished.config
    workdir = finished.copy(tmp_path)
    (workdir / "config.json").write_text("{", encoding="utf-8")
    refused(config, workdir, "saved config: expected the JSON that a run writes")
    (workdir / "config.json").unlink()
    refused(config, workdir, "expected config.json and inputs.json beside the results there; got")
    shutil.copy(finished.workdir / "config.json", workdir)
    path = workdir / "directions.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(config, workdir, "directions.safetensors: expected a whole safetensors file")
    arrays, metadata = checkpoints.read_arrays(finished.workdir / "directions.safetensors")
    provenance = json.loads(metadata["provenance"]) | {"digest": 64 * "0"}
    metadata["provenance"] = json.dumps(provenance)
    checkpoints.write_arrays(path, arrays, metadata)
    refused(config, workdir, "directions.safetensors: expected directions of the weights .*; got")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:200], r"expected a whole safetensors file.*or delete .*state.safetens"),
        (lambda data: b"", "or delete .*state.safetensors to start anew"),
        (None, "expected a state of this solver; got something else .*; delete that file to start"),
    ],
)
def test_damaged_state_is_one_message(
    damage: Callable[[bytes], bytes] | None,
    message: str,
    files: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    """It says what to delete, and doing so helps."""
    config = configure(files)
    workdir = checkpoints.make_folder(tmp_path / "run")
    path = workdir / "state.safetensors"
    checkpoints.write_state(path, {"other": np.ones(9)})
    if damage is not None:
        path.write_bytes(damage(path.read_bytes()))
    problem = inputs.read_problem(config)
    digests = inputs.digest_inputs(config, problem, inputs.draw_latents(config, problem.generator))
    checkpoints.write_text(workdir / "config.json", config_lib.to_text(config))
    checkpoints.write_text(workdir / "inputs.json", json.dumps(digests, indent=2) + "\n")
    with pytest.raises(InputError, match=re.compile(message, re.DOTALL)):
        run(config, workdir)
    assert not (workdir / "directions.safetensors").exists()


def test_metric_weights_with_other_content_are_noticed(
    files: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the path is the same. (What was found is made up: only its presence counts.)"""
    weights = shutil.copy(files / "lpips.safetensors", tmp_path / "lpips.safetensors")
    config = configure(files, metric__name="lpips", metric__weights=str(weights), metric__size=64)
    workdir = checkpoints.make_folder(tmp_path / "run")
    monkeypatch.setattr(hessian_task, "_find_directions", _stop)
    with pytest.raises(Stop):
        run(config, workdir)
    (workdir / "state.safetensors").touch()
    options = {"net": "alex", "version": "0.1", "linear": True}
    other = testing.random_lpips("alex", seed=1).params
    write_perceptual(pathlib.Path(weights), "lpips", options, other, {})
    refused(config, workdir, r"\n  metric: other content, \w{16} -> \w{16}\nchoose another")


class Stop(Exception):
    """Ends a run where a test wants it to end."""


def _stop(*_: Any, **__: Any) -> None:
    raise Stop


def test_settings_may_change_where_nothing_was_found_yet(
    files: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that stopped before its first state does not keep the workdir for itself."""
    monkeypatch.setattr(hessian_task, "_find_directions", _stop)
    for seed in (1, 2):
        with pytest.raises(Stop):
            run(configure(files, seed=seed), tmp_path / "run")
    text = (tmp_path / "run" / "config.json").read_text(encoding="utf-8")
    assert config_lib.from_text(text).seed == 2


FILE_MISTAKES: dict[str, tuple[dict[str, str], str]] = {
    "no file": ({"generator": "none.safetensors"}, "expected a file; got nothing; check the path"),
    "foreign": (
        {"generator": "netG.pt"},
        "convert it if it has another format: python -m tools.convert_weights",
    ),
    "truncated": ({"generator": "truncated.safetensors"}, "expected a whole safetensors file; got"),
    "misfit": (
        {"generator": "misfit.safetensors"},
        r"expected the weights of this dcgan; got oth(?s:.*)conv1/kernel: expected shape \(4, 4, 8",
    ),
    "other kind": (
        {"generator": "lpips.safetensors"},
        "expected a file of format navigan_jax.generator; got navigan_jax.perceptual; see what",
    ),
    "NaN weights": ({"generator": "nan.safetensors"}, "expected finite weights; got NaN or inf"),
    "no latents": ({"latents__path": "none.npz"}, "expected an .npz file with a numeric array z"),
    "no npz": ({"latents__path": "netG.pt"}, r"numeric array z \[count, 5\]; got .*; write one"),
    "npy": ({"latents__path": "z.npy"}, r"numeric array z \[count, 5\]; got .*; write one"),
    "empty file": (
        {"latents__path": "empty_file.npz"},
        r"numeric array z \[count, 5\]; got .*; wr",
    ),
    "cut npz": ({"latents__path": "cut.npz"}, r"numeric array z \[count, 5\]; got .*; write one"),
    "pickled z": ({"latents__path": "object.npz"}, "expected an .npz file with a numeric array z"),
    "no z": ({"latents__path": "y.npz"}, "expected an .npz file with a numeric array z"),
    "short z": ({"latents__path": "short.npz"}, r"expected z of shape \[count, 5\]; got \[3, 4\]"),
    "flat z": ({"latents__path": "flat.npz"}, r"expected z of shape \[count, 5\]; got \[15\]"),
    "empty z": ({"latents__path": "empty.npz"}, r"expected z of shape \[count, 5\]; got \[0, 5\]"),
    "NaN z": ({"latents__path": "nan.npz"}, "expected finite z; got NaN or infinity; draw them"),
    "no lpips": (
        {"metric__name": "lpips", "metric__weights": "none.safetensors"},
        "expected the weights of a distance; got nothing; make them with: python -m tools.convert",
    ),
    "no lpips weights": (
        {"metric__name": "lpips", "metric__weights": "generator.safetensors"},
        "expected a file of format navigan_jax.perceptual; got navigan_jax.generator",
    ),
}


@pytest.fixture(scope="module")
def mistakes(files: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Returns a folder with broken copies of the files."""
    folder = tmp_path_factory.mktemp("mistakes")
    for name in ("generator", "lpips"):
        shutil.copy(files / f"{name}.safetensors", folder)
    whole = (folder / "generator.safetensors").read_bytes()
    (folder / "truncated.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "netG.pt").write_bytes(b"PK\x03\x04 not one of ours")
    arrays, metadata = checkpoints.read_arrays(folder / "generator.safetensors")
    wider = metadata | {"config": json.dumps(SIZES | {"widths": [8, 6]})}
    checkpoints.write_arrays(folder / "misfit.safetensors", arrays, wider)
    arrays["conv1/kernel"][0, 0, 0, 0] = np.nan
    nan = metadata | {"digest": params_lib.digest(params_lib.unflatten(arrays))}
    checkpoints.write_arrays(folder / "nan.safetensors", arrays, nan)
    for name, z in {
        "short": np.ones((3, 4)),
        "flat": np.ones(15),
        "empty": np.ones((0, 5)),
        "nan": np.full((3, 5), np.nan),
        "object": np.array([None, 1]),
    }.items():
        np.savez(folder / f"{name}.npz", z=z)
    np.savez(folder / "y.npz", y=np.ones((3, 5)))
    np.save(folder / "z.npy", np.ones((3, 5)))
    (folder / "empty_file.npz").touch()
    (folder / "cut.npz").write_bytes((folder / "nan.npz").read_bytes()[:-30])
    return folder


@pytest.mark.usefixtures("no_solver")
@pytest.mark.parametrize("case", FILE_MISTAKES)
def test_wrong_file_is_one_message(
    case: str, mistakes: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """It begins with the file's path; nothing is written."""
    changes, message = FILE_MISTAKES[case]
    paths = {k: str(mistakes / v) if "." in v else v for k, v in changes.items()}
    said = refused(configure(mistakes, **paths), tmp_path / "run", message)
    assert said.startswith(str(mistakes))


@pytest.mark.usefixtures("no_solver")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"layer": "conv9"},
            r"layer: expected a layer of this dcgan; got 'conv9'; did you mean .*; "
            r"allowed: conv0/kernel \(main.0.weight\), conv1/kernel .*; set config.layer",
        ),
        (
            {"layer": "conv1, main.3"},
            r"expected one or several different layers; got \['conv1', 'm",
        ),
        ({"layer": None}, "config.layer: expected str; got nothing; set it in the config file or"),
        ({"directions": 673}, "config.directions: expected 1 to 672, the number of weights of con"),
        ({"solver__max_vectors": 35}, r"solver.max_vectors: expected 36 or more .* got 35; set it"),
        ({"metric__name": "ssim"}, "config.metric.name: .* got 'ssim'; allowed: nlpd, l2, lpips; "),
        ({"metric__resize": "cubic"}, "config.metric.resize: .*; allowed: nearest, antialiased; "),
        ({"solver__name": "qr"}, "config.solver.name: .* got 'qr'; allowed: lanczos, power; set"),
        ({"solver__product": "fd"}, "solver.product: .* got 'fd'; allowed: gauss_newton, exact; "),
        ({"metric__name": "lpips"}, "config.metric.weights: expected .* lpips; got nothing; make "),
        ({"metric__weights": "a"}, "metric.weights: expected nothing, as l2 takes none; got 'a'; "),
        ({"show__steps": 4}, "config.show.steps: expected an odd number from 3, .*; got 4; set it"),
        ({"show__steps": 1}, "config.show.steps: expected an odd number from 3, .*; got 1; set it"),
        ({"seed": 2**32}, "config.seed: expected a number of at most 4294967295; got 4294967296"),
        ({"latents__count": 10**13}, "latents.count: expected a number of at most 10000000; got 1"),
        ({"solver__max_products": 4}, "max_products: expected 5 or more for the directions; got 4"),
        (
            {"metric__name": "nlpd", "metric__size": 4},
            r"nlpd: expected images .* sides of 8 pixels or more; got shape \(1, 4, 4, 3\); choose",
        ),
    ],
)
def test_wrong_setting_is_one_message(
    changes: dict[str, Overrides], message: str, files: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    refused(configure(files, **changes), tmp_path / "run", message)


@pytest.mark.usefixtures("no_solver")
@pytest.mark.parametrize("metric", ["nlpd", "lpips"])
def test_metric_that_does_not_take_the_images_is_one_message(
    metric: str, files: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """A generator of two channels, which are neither grey nor colour."""
    weights = str(files / "lpips.safetensors") if metric == "lpips" else None
    config = configure(
        files,
        generator=str(files / "two_channels.safetensors"),
        metric__name=metric,
        metric__weights=weights,
    )
    refused(config, tmp_path / "run", rf"{metric}.*: expected images .*3 channels .*, 2\); choose ")


def test_every_number_out_of_range_is_one_message(
    files: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Negative ones for all keys with numbers, and 0 where it has no meaning."""
    settings = hessian_task.SETTINGS
    numbers = {k for k, kind in settings.kinds.items() if kind in (int, float, int | None)}
    assert numbers - {"synthesis.truncation"} == settings.limits.keys()  # that may be any number
    for key in sorted(settings.limits):
        kind = float if settings.kinds[key] is float else int
        for value in {kind(-1)} | ({kind(0)} if settings.limits[key].is_open else set()):
            config = configure(files, **{key.replace(".", "__"): value})
            refused(config, tmp_path / "run", f"config.{key}: expected .*; got {value}; set it")


@pytest.mark.parametrize(
    ("generator", "solver", "message"),
    [
        ("dead", "lanczos", "conv1/kernel: expected images that change .*; choose another layer"),
        ("dead", "power", "conv1/kernel: expected images that change .*; choose another layer"),
        ("imaginary", "lanczos", "conv1/kernel: expected finite products .*; got NaN or infinity"),
        ("imaginary", "power", "conv1/kernel: expected finite products .*; got NaN or infinity"),
    ],
)
def test_layer_that_cannot_be_used_is_one_message(
    generator: str, solver: str, message: str, files: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """A zero gradient, because the norm behind the layer scales it by 0; images that are NaN.

    No state stays behind, so the next run in that workdir may choose another layer.
    """
    config = configure(
        files,
        generator=str(files / f"{generator}.safetensors"),
        solver__name=solver,
        save_minutes=0.0,
    )
    with pytest.raises(InputError, match=message):
        run(config, tmp_path / "run")
    left = {path.name.partition(".")[0] for path in (tmp_path / "run").iterdir()}
    assert left <= {"config", "inputs", "metrics", "events"}


def test_batch_that_does_not_fit_names_the_key(
    files: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a run with that key lowered is taken in the same workdir."""
    monkeypatch.setattr(devices, "_free_bytes", lambda: 1000)
    with pytest.raises(InputError, match=r"memory: .* lower config.microbatch with --config.micro"):
        run(configure(files), tmp_path / "run")
    monkeypatch.undo()
    monkeypatch.setattr(hessian_task, "_find_directions", _stop)
    with pytest.raises(Stop):
        run(configure(files, microbatch=1, seed=1), tmp_path / "run")


def test_full_disk_is_one_message(
    files: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first file that cannot be kept ends the run; no part of it stays."""

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"inputs.json: could not be written \(No space left.*fre"):
        run(configure(files), tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_file_too_large_for_the_system_is_one_message_and_a_rerun_goes_on(
    files: pathlib.Path, whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """The system itself refuses, here by its limit on the size of a file, the state or the result.

    Nothing half-written is left, and with room again the run ends as one without the trouble.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for minutes, name in ((0.0, "state"), (600.0, "directions")):
        config = configure(files, save_minutes=minutes)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
        try:
            with pytest.raises(InputError, match=rf"{name}.safetensors: could not be written \("):
                run(config, tmp_path / "run")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        left = {path.name.partition(".")[0] for path in (tmp_path / "run").iterdir()}
        assert left <= {"config", "inputs", "metrics", "events"}
    run(config, tmp_path / "run")
    assert_same_results(tmp_path / "run", whole)


@pytest.mark.parametrize(
    "get_config",
    [
        hessian.get_config,
        lambda: hessian.get_config("paper"),
        demo.get_config,
        lambda: tiny.get_config("hessian"),
    ],
)
def test_config_has_every_key_the_task_reads_and_no_other(
    get_config: Callable[[], config_lib.Config],
) -> None:
    config = get_config()
    config.generator, config.layer = "a", "b"
    config_lib.validate(config, hessian_task.SETTINGS.kinds)
    assert config.task in tasks.TASKS


def test_every_key_is_read() -> None:
    """Each key's name stands somewhere in tasks/ or main, beside the table of keys."""
    folder = ROOT / "navigan_jax"
    text = "".join(p.read_text() for p in [*folder.glob("tasks/*.py"), folder / "main.py"])
    for key in hessian_task.SETTINGS.kinds:
        assert re.search(rf"\.{key.rpartition('.')[2]}\b(?!\")", text), key


def test_unknown_words_for_configs_are_refused() -> None:
    with pytest.raises(ValueError, match="expected the variant default or paper; got 'papr'"):
        hessian.get_config("papr")
    with pytest.raises(ValueError, match=r"expected one of hessian, .*; got 'hesian'"):
        tiny.get_config("hesian")


@pytest.mark.usefixtures("no_solver")
@pytest.mark.parametrize(
    "z",
    [
        np.full((4, SIZES["z_dim"]), "a"),
        np.ones((4, SIZES["z_dim"]), np.complex64),
        np.ones((4, SIZES["z_dim"]), bool),
        np.zeros(4, [("a", np.float32)]),
    ],
    ids=["text", "complex", "truth", "records"],
)
def test_latents_that_are_no_numbers_are_one_message(
    z: np.ndarray, files: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    np.savez(tmp_path / "z.npz", z=z)
    config = configure(files, latents__path=str(tmp_path / "z.npz"))
    refused(config, tmp_path / "run", r"z\.npz: expected an \.npz file with a numeric array z")


@pytest.mark.usefixtures("no_solver")
def test_workdir_in_use_is_refused(files: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A second run in a workdir would mix its files with those of the first."""
    folder = checkpoints.make_folder(tmp_path / "run")
    with checkpoints.locked(folder), pytest.raises(InputError, match="one that is in use; wait"):
        run(configure(files), folder)
    assert not list(folder.iterdir())


@pytest.mark.usefixtures("no_solver")
def test_directions_of_other_shapes_in_the_workdir_are_refused(
    finished: Finished, tmp_path: pathlib.Path
) -> None:
    """The file says it is of these weights, but holds fewer directions than the config asks for."""
    workdir = finished.copy(tmp_path)
    arrays, metadata = checkpoints.read_arrays(workdir / "directions.safetensors")
    fewer = {name: array[:2] for name, array in arrays.items()}
    checkpoints.write_arrays(workdir / "directions.safetensors", fewer, metadata)
    with pytest.raises(InputError, match=r"expected directions of shapes .*; got .*; the file was"):
        run(finished.config, workdir)
