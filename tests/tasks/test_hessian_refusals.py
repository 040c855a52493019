"""Mistakes of users of the task: one message each, and nothing half-written."""

import errno
import json
import math
import os
import pathlib
import re
import resource
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from configs import demo, hessian, tiny
from navigan_jax import checkpoints, devices, tasks, testing
from navigan_jax import config as config_lib
from navigan_jax import params as params_lib
from navigan_jax.errors import InputError
from navigan_jax.perceptual.files import write_perceptual
from navigan_jax.tasks import hessian as hessian_task
from navigan_jax.tasks import inputs
from tests.tasks.spectra import (
    ROOT,
    SIZES,
    Finished,
    Overrides,
    Stop,
    assert_same_results,
    configure,
    refused,
    run,
    stop,
)

FRACTIONS = (float, float | None)


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
    refused(config, workdir, r"config\.json: expected the JSON that a run writes")
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
        (None, "expected a state of this solver; got something else; delete that file to start"),
    ],
)
def test_damaged_state_is_one_message(
    damage: Callable[[bytes], bytes] | None,
    message: str,
    files: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    """The message says what to delete; after that the run works."""
    config = configure(files)
    workdir = checkpoints.make_folder(tmp_path / "run")
    path = workdir / "state.safetensors"
    checkpoints.write_state(path, {"other": np.ones(9)})
    if damage is not None:
        path.write_bytes(damage(path.read_bytes()))
    problem = inputs.read_problem(config)
    digests = inputs.digest_inputs(config, problem, inputs.draw_latents(config, problem.generator))
    kept = inputs.fill_defaults(config)
    checkpoints.write_text(workdir / "config.json", config_lib.to_text(kept))
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
    monkeypatch.setattr(hessian_task, "_find_directions", stop)
    with pytest.raises(Stop):
        run(config, workdir)
    (workdir / "state.safetensors").touch()
    options = {"net": "alex", "version": "0.1", "linear": True}
    other = testing.random_lpips("alex", seed=1).params
    write_perceptual(pathlib.Path(weights), "lpips", options, other, {})
    refused(config, workdir, r"\n  metric: other content, \w{16} -> \w{16}\nchoose another")


def test_settings_may_change_where_nothing_was_found_yet(
    files: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that stopped before its first state does not keep the workdir for itself."""
    monkeypatch.setattr(hessian_task, "_find_directions", stop)
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
    "no latents": ({"latents__path": "none.npz"}, r"\.npz or \.npy file of latents; got nothing"),
    "no npz": ({"latents__path": "netG.pt"}, r"z \[count, 5\]; got one that cannot be read; write"),
    "wrong npy": ({"latents__path": "z.npy"}, r"z \[count, 5\]; got .*\[3, 4\]; give latents that"),
    "empty file": (
        {"latents__path": "empty_file.npz"},
        "expected latents .*; got an empty file; w",
    ),
    "cut npz": (
        {"latents__path": "cut.npz"},
        r"z \[count, 5\]; got one that cannot be read; write",
    ),
    "pickled z": ({"latents__path": "object.npz"}, "got 'z' .* of Python objects, .*: python -m"),
    "no z": ({"latents__path": "y.npz"}, r"got 2 that can be meant: .y. .*; keep one"),
    "short z": ({"latents__path": "short.npz"}, r"z \[count, 5\]; got 'z' \[3, 4\]; give latents"),
    "flat z": ({"latents__path": "flat.npz"}, r"z \[count, 5\]; got 'z' \[15\]; give latents"),
    "empty z": ({"latents__path": "empty.npz"}, r"z \[count, 5\]; got 'z' \[0, 5\]; give latents"),
    "NaN z": ({"latents__path": "nan.npz"}, r"expected finite numbers .* in 'z' \[3, 5\]; make"),
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
    np.savez(folder / "y.npz", y=np.ones((3, 5)), x=np.ones((3, 5)))
    np.save(folder / "z.npy", np.ones((3, 4)))
    (folder / "empty_file.npz").touch()
    (folder / "cut.npz").write_bytes((folder / "nan.npz").read_bytes()[:-30])
    return folder


@pytest.mark.usefixtures("no_solver")
@pytest.mark.parametrize("case", FILE_MISTAKES)
def test_wrong_file_is_one_message(
    case: str, mistakes: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """The message begins with the file's path; nothing is written."""
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
    """Images of four pixels, too small for the features of both."""
    weights = str(files / "lpips.safetensors") if metric == "lpips" else None
    config = configure(
        files,
        metric__name=metric,
        metric__weights=weights,
        metric__size=4,
    )
    refused(
        config, tmp_path / "run", rf"{metric}.*: expected images .*got shape .*, 4, 3\); choose"
    )


def test_every_number_out_of_range_is_one_message(
    files: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Negative ones for all keys with numbers, and 0 where it has no meaning."""
    settings = hessian_task.SETTINGS
    numbers = {k for k, kind in settings.kinds.items() if kind in (int, int | None, *FRACTIONS)}
    assert numbers == settings.limits.keys()
    for key in sorted(settings.limits):
        kind = float if settings.kinds[key] in FRACTIONS else int
        values = {kind(0)} if settings.limits[key].is_open else set()
        values |= {kind(-1)} if key != "synthesis.truncation" else set()  # that may be any number
        values |= {math.nan, math.inf, -math.inf} if kind is float else set()
        for value in values:
            config = configure(files, **{key.replace(".", "__"): value})
            refused(config, tmp_path / "run", f"config.{key}: expected .*; got {value}; set it")


@pytest.mark.parametrize(
    ("generator", "solver", "message"),
    [
        ("dead", "lanczos", "conv1/kernel: expected images that change .*; choose another layer"),
        (
            "dead",
            "power",
            "conv1/kernel: expected images that change .*; choose another layer .*; "
            "or change the step of the central differences, 0.1, with --config.solver.epsilon=N",
        ),
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
    monkeypatch.setattr(hessian_task, "_find_directions", stop)
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
        lambda: hessian.get_config("paper_code"),
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


def test_variants_have_the_numbers_of_the_paper_and_of_the_script() -> None:
    for variant, iterations in (("paper", 10), ("paper_code", 20)):
        config = hessian.get_config(variant)
        assert (config.directions, config.latents.count) == (64, 512)
        assert (config.solver.name, config.solver.epsilon) == ("power", 0.1)
        assert config.solver.iterations == iterations
        metric = config.metric
        assert (metric.name, metric.size, metric.resize) == ("lpips", 64, "nearest")


def test_unknown_words_for_configs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected the variant default, paper or .*; got 'papr'"):
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
    refused(
        config,
        tmp_path / "run",
        r"z\.npz: expected an array of real numbers; got 'z' .*; write it as float32",
    )


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
