"""The task from a config to files, on a random generator so small that a run takes seconds.

Runs are stopped in processes of their own.
"""

import dataclasses
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from configs import discover, discover_demo, tiny
from navigan_jax import config as config_lib
from navigan_jax import devices, progress, testing
from navigan_jax import params as params_lib
from navigan_jax.directions import Directions, read_directions, write_directions
from navigan_jax.discovery import ranking
from navigan_jax.discovery.reconstructor import feature_bytes
from navigan_jax.errors import InputError
from navigan_jax.generators.files import make_generator, write_generator
from navigan_jax.tasks import discover as task
from navigan_jax.tasks import showing, training
from tests.stopping import compare, read_events
from tests.tasks.cheap_training import make_setup

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIZES = {"z_dim": 5, "widths": [7, 6], "image_channels": 3}
_TOUCHES = 170  # of the workdir by a whole run, about
CACHE = {
    "JAX_ENABLE_COMPILATION_CACHE": "true",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
TEXTS = ("table.txt", "table.csv", "table.json", "metrics.jsonl")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Returns a folder with a generator, and directions of its layers conv1 and conv2."""
    folder = tmp_path_factory.mktemp("files")
    generator = make_generator("dcgan", SIZES)
    params = testing.draw_params(generator, 0)
    write_generator(folder / "generator.safetensors", "dcgan", SIZES, params, {})
    required = ("architecture", "method", "metric", "seed", "latents", "config")
    provenance = dict.fromkeys(required, "") | {"digest": params_lib.digest(params)}
    for layer in generator.layers[1:]:
        rows = np.random.RandomState(1).standard_normal((4, *layer.shape)).astype(np.float32)
        rows /= np.linalg.norm(rows.reshape(4, -1), axis=1).reshape(4, *([1] * len(layer.shape)))
        name = layer.path.partition("/")[0]
        write_directions(
            folder / f"{name}.safetensors",
            Directions(
                {layer.path: rows},
                {"eigenvalue": np.arange(4.0)},
                np.ones((4, 2)),
                np.ones((4, 2)),
                provenance,
            ),
        )
    return folder


def configure(files, variant="discover", **changes):
    """Returns the tiny config with values by path, dots written as two underscores."""
    config = tiny.get_config(variant)
    defaults = {"generator": str(files / "generator.safetensors"), "layer": "conv1"}
    for name, value in (defaults | {"metric__name": "l2"} | changes).items():
        *parents, last = name.split("__")
        node = config
        for parent in parents:
            node = node[parent]
        with node.ignore_type():
            node[last] = value
    return config_lib.freeze(config)


def run(config, workdir):
    workdir.mkdir(exist_ok=True)
    task.run(config, workdir)


@pytest.fixture(scope="module")
def whole(files, tmp_path_factory):
    """Returns the workdir of a run that was never stopped, which nobody changes."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    run(configure(files), workdir)
    return workdir


def test_run_writes_directions_of_unit_norm_and_tables_that_agree(files, whole):
    directions = read_directions(whole / "directions.safetensors", digest=None)
    records = json.loads((whole / "table.json").read_text())
    assert sorted(row["direction"] for row in records) == [0, 1, 2]
    kept = [row for row in records if row["fate"].startswith("kept")]
    assert directions.measures["accuracy"].tolist() == [row["accuracy"] for row in kept]
    assert tuple(directions.measures) == ("accuracy", "shift_error")
    for index in range(len(directions)):
        (delta,) = directions.edit(index).deltas.values()
        assert np.linalg.norm(delta) == pytest.approx(1, abs=1e-5)
    rows = list(progress.read_metrics(whole / "metrics.jsonl"))
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    assert ["held_out_accuracy" in row for row in rows] == [False, True, False, True]
    assert all(row["directions_rate"] == 1e-4 for row in rows)
    for name in ("training.png", "gallery.png", "gallery.html", "animation.gif", "table.csv"):
        assert (whole / name).stat().st_size > 100


def test_tensorboard_has_the_numbers_of_the_metrics_and_pictures(whole):
    """Losses, accuracies, shift errors and rates of every window; directions at image steps."""
    scalars, pictures = {}, {}
    for event in read_events(next(whole.glob("events.*"))):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                scalars.setdefault(value.tag, {})[event.step] = value.simple_value
            else:
                pictures.setdefault(value.tag, []).append((event.step, value.image))
    rows = list(progress.read_metrics(whole / "metrics.jsonl"))
    assert {"loss", "label_loss", "shift_loss", "accuracy", "shift_error"} < set(scalars)
    for name in {name for row in rows for name in row} - {"step"}:
        wanted = {row["step"]: row[name] for row in rows if name in row}
        assert scalars[name] == pytest.approx(wanted, rel=1e-6)
    assert scalars["directions_rate"] == scalars["reconstructor_rate"]
    assert len(scalars["held_out_accuracy"]) == 2
    ((tag, shown),) = pictures.items()
    assert tag == "directions" and [step for step, _ in shown] == [4, 8]
    with PIL.Image.open(io.BytesIO(shown[0][1].encoded_image_string)) as picture:
        assert picture.size == (5 * 16, 2 * 16)  # shifts across, directions down


def test_finished_run_is_shown_anew_without_training(files, whole, tmp_path, capsys, monkeypatch):
    workdir = pathlib.Path(shutil.copytree(whole, tmp_path / "copy"))
    (workdir / "gallery.png").unlink()
    monkeypatch.setattr(training, "train", None)
    run(configure(files, show__samples=1), workdir)
    assert "found, " in capsys.readouterr().out and (workdir / "gallery.png").exists()


def test_run_stopped_at_random_leaves_the_workdir_of_one_that_was_not(files, whole, tmp_path):
    """Killed and interrupted, in training and later: every file has the same bytes, and there are
    the same checkpoints. The program that is stopped takes what is compiled from this one's cache.
    """
    flags = ["--config=configs/tiny.py:discover", f"--workdir={tmp_path}"]
    flags += [f"--config.generator={files / 'generator.safetensors'}"]
    flags += ["--config.layer=conv1", "--config.metric.name=l2"]
    arguments = ["1", "3", str(_TOUCHES), "SIGKILL,SIGTERM", *flags]
    said = run_stopped("tests.stopping", *arguments)
    assert "3 stops" in said and said.count("interrupted; run the same command again") == 1
    assert {*TEXTS, "directions.safetensors", "animation.gif"} < compare(tmp_path, whole)


def test_training_stopped_at_random_keeps_the_first_of_the_best(tmp_path):
    """Also if many checkpoints are equally good: states, records, metrics and what TensorBoard
    shows are those of a training that nobody stopped.
    """
    numbers = "SIGKILL,SIGTERM,SIGINT"
    said = run_stopped("tests.tasks.cheap_training", "1", "6", numbers, str(tmp_path))
    assert "\n6 stops" in said and "Traceback" not in said
    compare(tmp_path / "stopped", tmp_path / "whole")
    rows = progress.read_metrics(tmp_path / "whole" / "metrics.jsonl")
    history = {row["step"]: row["held_out_accuracy"] for row in rows if "held_out_accuracy" in row}
    best = [step for step, value in history.items() if value == max(history.values())]
    assert len(best) > 3 and best[0] < 20
    steps = {path.name for path in (tmp_path / "whole" / "checkpoints").iterdir()}
    assert steps == {str(best[0]), "22", "24"}
    assert (tmp_path / "whole" / "best.txt").read_text().startswith(f"{best[0]} ")


def run_stopped(*arguments):
    """Runs a module in a process and returns what it said."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
        env=os.environ
        | CACHE
        | {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir},
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_finished_run_goes_on_with_more_steps(files, whole, tmp_path):
    """And ends with the bits of one that had them at once."""
    run(configure(files, steps=4), tmp_path / "run")
    before = read_directions(tmp_path / "run" / "directions.safetensors", digest=None)
    assert before.provenance["latents"] == str(4 * 4)
    run(configure(files), tmp_path / "run")
    for name in TEXTS:
        assert (tmp_path / "run" / name).read_text() == (whole / name).read_text(), name
    ours, theirs = (
        read_directions(folder / "directions.safetensors", digest=None)
        for folder in (tmp_path / "run", whole)
    )
    assert ours.basis["conv1/kernel"].tobytes() == theirs.basis["conv1/kernel"].tobytes()


def test_finished_run_is_ranked_anew_without_training(files, whole, tmp_path, monkeypatch):
    """All but one direction are now too parallel; without checkpoints the old result stays."""
    workdir = pathlib.Path(shutil.copytree(whole, tmp_path / "copy"))
    config = configure(files, rank__most_cosine=1e-9)
    monkeypatch.setattr(training, "make_step", None)
    monkeypatch.setattr(task, "_show", lambda *arguments: None)
    run(config, workdir)
    records = json.loads((workdir / "table.json").read_text())
    assert [row["fate"].partition(" ")[0] for row in records].count("kept") == 1
    assert len(read_directions(workdir / "directions.safetensors", digest=None)) == 1
    shutil.rmtree(workdir / "checkpoints")
    run(configure(files), workdir)
    assert len(read_directions(workdir / "directions.safetensors", digest=None)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"subspace__name": "hessian", "matrix": "orthonormal"},
        {"subspace__name": "latent", "layer": None, "matrix": "projected"},
        {"subspace__name": "full", "matrix": "random"},
    ],
)
def test_every_subspace_trains(files, tmp_path, changes, capsys, monkeypatch):
    """The gallery is made of latents alone; that of weights is another test's."""
    is_latent = changes["subspace__name"] == "latent"
    if not is_latent:
        monkeypatch.setattr(task, "_show", lambda *arguments: None)
    if changes["subspace__name"] == "hessian":
        changes = changes | {"subspace__path": str(files / "conv1.safetensors")}
    run(configure(files, steps=2, save_steps=2, **changes), tmp_path / "run")
    assert "of 3 directions kept" in capsys.readouterr().out
    assert (tmp_path / "run" / "gallery.html").exists() == is_latent
    directions = read_directions(tmp_path / "run" / "directions.safetensors", digest=None)
    if changes["matrix"] == "random":  # of all weights, orthonormal
        rows = directions.basis["conv1/kernel"].reshape(len(directions), -1)
        assert rows.shape[1] == 4 * 4 * 7 * 6
        testing.assert_close(rows @ rows.T, np.eye(len(rows)), 1e-5)


def test_given_scale_may_leave_the_distribution(files, tmp_path, capsys, monkeypatch):
    """The paper's scales do; a note names the key that finds another scale, and training runs."""
    monkeypatch.setattr(task, "_show", lambda *arguments: None)
    config = configure(files, shift__scale=30.0, steps=2, save_steps=2)
    run(config, tmp_path / "run")
    said = capsys.readouterr().out
    assert "note: at ±30, config.shift.scale, all images are out of" in said
    assert "of 3 directions kept" in said


def test_images_need_not_be_square(tmp_path, capsys, monkeypatch):
    """Of a StyleGAN2 whose constant is not: weights of several layers, and w."""
    sizes = testing.TINY_CONFIGS["stylegan2"] | {"first_size": (4, 6)}
    params = testing.draw_params(make_generator("stylegan2", sizes), 0)
    params = {**params, "mapping": jax.tree.map(lambda leaf: 100 * leaf, params["mapping"])}
    write_generator(tmp_path / "generator.safetensors", "stylegan2", sizes, params, {})
    several = {"layer": "to_rgb1, 0, convs.1.modulation", "matrix": "linear"}
    latent = {"layer": None, "subspace__name": "latent", "subspace__latent": "w"}
    shown = []
    monkeypatch.setattr(task, "_show", lambda *arguments: shown.append(arguments))
    for name, changes in (("several", several), ("latent", latent)):
        run(configure(tmp_path, steps=2, save_steps=2, **changes), tmp_path / name)
    assert len(shown) == 2 and capsys.readouterr().out.count("of 3 directions kept") == 2
    with pytest.raises(
        InputError, match=r"shift\.scale: expected a number above 0 for z, .*; got 0; set"
    ):
        run(configure(tmp_path, **latent | {"subspace__latent": "z"}), tmp_path / "z")


# --- what ends a run


@pytest.fixture
def train(files, monkeypatch):
    """Returns (workdir, **changes) -> result of a training whose steps cost nothing.

    Its loss is the number of the step; nothing is ever recognised.
    """

    def make_cheap_step(*arguments):
        def step(state):
            state = dataclasses.replace(state, step=state.step + 1)
            loss = jnp.float32(np.asarray(state.step)[0])
            bad = jnp.nan if int(loss) == poisoned else loss
            return state, {"loss": bad, "accuracy": loss, "shift_error": loss}

        return step

    def measure(setup, rounds):
        empty = np.zeros((3, 3))
        return lambda *arguments: ranking.Table(empty.astype(int), errors, empty)

    poisoned, errors = None, np.ones(3)
    monkeypatch.setattr(training, "make_step", make_cheap_step)
    monkeypatch.setattr(training, "make_measure", measure)

    def run_it(workdir, *, nan_at=None, shift_error=1.0, **changes):
        nonlocal poisoned, errors
        poisoned, errors = nan_at, np.full(3, shift_error)
        config = configure(files, image_steps=100, **changes)
        setup, first = make_setup()
        best = training.train(config, workdir, setup, first)
        return best, [row["step"] for row in progress.read_metrics(workdir / "metrics.jsonl")]

    return run_it


def test_steps_are_made_to_the_end_and_no_further(train, tmp_path):
    for _ in range(2):
        best, steps = train(tmp_path)
        assert steps == [2, 4, 6, 8] and best.steps == 4  # the first of equal ones


def test_patience_ends_a_run_that_stays_ended(train, tmp_path, capsys):
    changes = {"save_steps": 2, "patience": 1, "least_gain": 1.0}
    for _ in range(2):
        assert train(tmp_path, **changes)[1] == [2, 4]
        assert "stopped: no gain in 1 evaluations, config.patience" in capsys.readouterr().out


def test_hours_end_a_run_with_a_checkpoint(train, tmp_path, capsys):
    best, steps = train(tmp_path, max_hours=1e-9)
    assert steps == [2] and best.steps == 2
    assert "hours passed, config.max_hours" in capsys.readouterr().out
    assert train(tmp_path, max_hours=1e-9)[1] == [2]
    assert train(tmp_path, max_hours=100.0)[1] == [2, 4, 6, 8]


def test_a_loss_of_nan_ends_the_run_and_keeps_the_last_good_checkpoint(train, tmp_path):
    with pytest.raises(
        InputError,
        match=r"training: expected finite numbers; got a loss of NaN .* by step 6; the checkpoint "
        r"of step 4 is kept; train in another --workdir with a smaller --config\.shift\.scale",
    ):
        train(tmp_path, nan_at=5)
    assert (tmp_path / "checkpoints" / "4").is_dir()


def test_a_reconstructor_that_tells_nan_ends_the_run(train, tmp_path):
    """Its loss may be finite all the same, as it has statistics of its own in training."""
    with pytest.raises(
        InputError, match=r"training: .* got NaN or infinity from the reconstructor"
    ):
        train(tmp_path, shift_error=np.nan)


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"directions": 7}, r"directions: expected 1 to 6, the size of the subspace; got 7; set"),
        ({"layer": None}, r"config\.layer: .* got None with config\.subspace\.name=svd; set it"),
        (
            {"subspace__name": "latent"},
            r"config\.layer: .* got 'conv1' with config\.subspace\.name=latent; leave it out",
        ),
        ({"subspace__name": "hessian"}, r"config\.subspace\.path: expected a file .*; got None"),
        ({"save_steps": 3}, r"config\.save_steps: expected a multiple of .*, 2; got 3"),
        ({"image_steps": 5}, r"config\.image_steps: expected a multiple of .*, 2; got 5"),
        ({"matrix": "skew"}, r"config\.matrix: .*; got 'skew'; allowed: identity, random, "),
        ({"shift__scale": 1.0, "shift__least": 2.0}, r"config\.shift\.least: .* scale, 1; got 2"),
        ({"shift__scale": 1e30}, r"config\.shift\.scale: .* set --config\.shift\.scale=[\d.]+, or"),
        (
            {"reconstructor__side": 4096, "batch": 10**5, "microbatch": 1},
            r"config\.reconstructor\.side: .* for 100000 pairs .*, at 4096 pixels; lower it",
        ),
        ({"reconstructor__side": 8}, r"reconstructor: expected images of 32 pixels or more; got 8"),
        ({"steps": 0}, r"config\.steps: expected a number above 0; got 0"),
        ({"show__plausible_samples": 0}, r"plausible_samples: expected a number above 0; got 0"),
    ],
)
def test_what_cannot_be_trained_is_refused(files, tmp_path, changes, complaint):
    with pytest.raises(InputError, match=complaint):
        run(configure(files, **changes), tmp_path / "run")
    assert not (tmp_path / "run" / "directions.safetensors").exists()


@pytest.mark.parametrize("name", ["lenet", "resnet18"])
def test_features_of_a_batch_fit_exactly_or_are_refused(name, monkeypatch):
    """Up to the last byte; the first convolution alone, counted by hand, needs less."""
    config = discover.get_config()
    sizes = {"reconstructor.name": name, "reconstructor.side": 4096, "batch": 6, "microbatch": 1}
    config.update_from_flattened_dict(sizes)
    config, generator = config_lib.freeze(config), make_generator("dcgan", SIZES)
    pairs = -(-6 // jax.device_count())
    needed = pairs * feature_bytes(training.network_of(config), generator.image_shape)
    assert needed > pairs * {"lenet": 4092**2 * 6, "resnet18": 2048**2 * 64}[name] * 4
    monkeypatch.setattr(devices, "share_memory", lambda: False)
    monkeypatch.setattr(devices, "_free_bytes", lambda: needed)
    training.require_room(config, generator)
    monkeypatch.setattr(devices, "_free_bytes", lambda: needed - 1)
    pattern = rf"features of {name} for {pairs} pairs .* at 4096 pixels; lower it .*config\.batch=N"
    with pytest.raises(InputError, match=pattern):
        training.require_room(config, generator)


def test_a_subspace_of_another_layer_or_network_is_refused(files, tmp_path):
    changes = {"subspace__name": "hessian", "subspace__path": str(files / "conv2.safetensors")}
    pattern = r"conv2\.safetensors: expected directions of conv1/kernel \[4, 4, 7, 6\]; got dir.* o"
    with pytest.raises(InputError, match=pattern):
        run(configure(files, **changes), tmp_path / "a")
    generator = make_generator("dcgan", SIZES)
    other = tmp_path / "other.safetensors"
    write_generator(other, "dcgan", SIZES, testing.draw_params(generator, 1), {})
    changes["subspace__path"] = str(files / "conv1.safetensors")
    with pytest.raises(InputError, match=r"expected directions of the weights .*; got direct"):
        run(configure(files, generator=str(other), **changes), tmp_path / "b")
    with pytest.raises(InputError, match=r"config\.subspace\.size: expected 0 to 4, .*; got 5"):
        run(configure(files, subspace__size=5, **changes), tmp_path / "c")


def test_a_workdir_of_another_config_shows_the_difference(files, whole, tmp_path):
    workdir = pathlib.Path(shutil.copytree(whole, tmp_path / "copy"))
    (workdir / "directions.safetensors").unlink()  # its checkpoints are enough
    with pytest.raises(InputError, match=r"results of another:\n  batch: 4 -> 2\nchoose another"):
        run(configure(files, batch=2), workdir)


@pytest.mark.parametrize("variant", sorted(discover._VARIANTS))
def test_every_variant_has_the_keys_that_the_task_reads(variant):
    config = discover.get_config(variant)
    config.generator = "g"
    if config.subspace.name != "latent":
        config.layer = "conv1"
    config = config_lib.freeze(config)
    task.SETTINGS.check(config)
    showing.check(config)
    assert config.save_steps % config.log_steps == config.image_steps % config.log_steps == 0


def test_variants_have_the_numbers_of_the_paper_and_of_the_scripts():
    names = ("directions", "batch", "steps")
    for variant, scale, least, weight, numbers in (
        ("svd", 3500, 300, 2.5e-3, (64, 32, 100_000)),
        ("svd_code", 3500, 300, 2.5e-3, (64, 32, 100_000)),
        ("hybrid", 80, 15, 2.5e-3, (64, 16, 100_000)),
        ("hybrid_code", 60, 15, 0.25, (64, 32, 100_000)),
        ("latent", 6, 0.5, 0.25, (64, 32, 100_000)),
    ):
        config = discover.get_config(variant)
        assert (config.shift.scale, config.shift.least) == (scale, least)
        assert config.loss.shift_weight == weight
        assert tuple(config[name] for name in names) == numbers
        assert config.optimizer.directions_rate == config.optimizer.reconstructor_rate == 1e-4
        assert config.reconstructor.name == "resnet18"
    with pytest.raises(ValueError, match=r"expected one of default, svd, .*; got 'sdv'"):
        discover.get_config("sdv")
    assert discover_demo.get_config().max_hours * 60 < 10
