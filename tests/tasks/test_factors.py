"""The task `factors` with own gauges: its files, the proposed names, and where they show."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from configs import tiny
from navigan_jax import checkpoints, notes, suggestions, tasks
from navigan_jax import config as config_lib
from navigan_jax import directions as directions_lib
from navigan_jax.directions import read_directions
from navigan_jax.errors import InputError
from navigan_jax.tasks import choosing
from tests.tasks.calibrated import COUNT, write_calibrated

GAUGE = """
import numpy as np
from navigan_jax.evaluation.gauges import Factor, Gauges

FACTORS = (Factor("brightness", -1.0, 1.0), Factor("contrast"), Factor("red", -1.0, 1.0))

def read(images):
    images = np.asarray(images)
    columns = [images.mean((1, 2, 3)), images.std((1, 2, 3)), images[..., 0].mean((1, 2))]
    return np.stack(columns, axis=1)

def make():
    return Gauges(factors=FACTORS, read=read)

def constant():
    return Gauges(factors=FACTORS[1:2], read=lambda images: np.zeros((len(images), 1)))
"""
NAME_ALL = {"name__purity": 0.0, "name__change": 0.0, "name__consistency": 0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_calibrated(tmp_path_factory.mktemp("factors"))
    (folder / "own_gauge.py").write_text(GAUGE)
    return folder


def configure(experiment, folder, **changes):
    config = tiny.get_config(experiment)
    config.generator = str(folder / "generator.safetensors")
    config.directions = str(folder / "directions.safetensors")
    if experiment == "factors":
        config.gauges = f"{folder / 'own_gauge.py'}:make"
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config_lib.freeze(config)


def run(config, workdir):
    tasks.TASKS[config.task](config, checkpoints.make_folder(workdir))


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """A run in which each direction gets a name."""
    workdir = tmp_path_factory.mktemp("finished")
    run(configure("factors", folder, **NAME_ALL), workdir)
    return workdir


def test_files_agree(folder, finished):
    """JSON and CSV hold the same numbers; a picture has one row for each direction."""
    data = json.loads((finished / "factors.json").read_text())
    with open(finished / "factors.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [row["name"] for row in data["directions"]]
    assert [factor["name"] for factor in data["factors"]] == ["brightness", "contrast", "red"]
    for row, one in zip(rows, data["directions"], strict=True):
        assert float(row["purity"]) == pytest.approx(one["purity"], rel=1e-4)
        assert float(row["red"]) == pytest.approx(one["responses"][2], rel=1e-4)
        sizes = np.square(one["sizes"])
        assert one["purity"] == pytest.approx(sizes.max() / sizes.sum())
        assert np.shape(one["curves"]) == (3, 4) and len(one["shifts"]) == 4
        # s is the shift scale, or the end of the effective range where that is nearer.
        assert (one["shifts"][0], one["shifts"][-1]) == (-1.5, 3.0)
    with Image.open(finished / "factors.png") as picture:
        assert picture.height > 20 * COUNT
    assert (finished / "factors.pdf").read_bytes().startswith(b"%PDF")


def test_the_same_run_writes_the_same_bytes(folder, finished, tmp_path):
    run(configure("factors", folder, **NAME_ALL), tmp_path)
    for name in ("factors.json", "factors.csv", "factors.png", "factors.pdf"):
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes(), name


def test_proposed_names_show_where_the_user_gave_none(folder, finished, tmp_path):
    """The choice shows them, and the page suggests them; names in the notes take precedence."""
    data = json.loads((finished / "factors.json").read_text())
    proposed = {row["index"]: row["name"] for row in data["directions"]}
    config = configure("gallery", folder)
    choice = choosing.read_choice(config)
    assert dict(choice.suggested) == proposed
    assert choice.title(3) == "smile"
    assert choice.title(0) == f"{proposed[0]} ?"
    run(config, tmp_path)
    page = (tmp_path / "gallery.html").read_text()
    assert json.dumps(proposed[0]) in page


def test_names_need_purity_and_change(folder, finished, tmp_path):
    """With thresholds that no direction reaches, none is named, and the sidecar says so."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    for changes in ({"name__purity": 1.0}, {"name__change": 100.0}):
        run(configure("factors", copy, **changes), tmp_path / "out")
        assert not choosing.read_choice(configure("gallery", copy)).suggested


def test_suggest_off_writes_only_to_the_workdir(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    sidecar = suggestions.sidecar_path(copy / "directions.safetensors")
    sidecar.unlink(missing_ok=True)
    run(configure("factors", copy, suggest=False), tmp_path / "out")
    assert not sidecar.exists()


def test_suggestions_for_other_directions_do_not_count(folder, finished, tmp_path):
    path = folder / "directions.safetensors"
    digest = directions_lib.digest(read_directions(path, digest=None))
    assert len(suggestions.read_suggestions(path, digest=digest, count=COUNT)) == COUNT
    assert not suggestions.read_suggestions(path, digest="other", count=COUNT)
    assert notes.sidecar_path(path) != suggestions.sidecar_path(path)


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("{", "invalid JSON at line 1"),
        ("[]", "no table of format"),
        ('{"format": "navigan_jax.factors", "version": 9}', "version 9"),
    ],
)
def test_a_damaged_sidecar_is_named(folder, tmp_path, text, got):
    path = shutil.copy(folder / "directions.safetensors", tmp_path)
    suggestions.sidecar_path(path).write_text(text)
    with pytest.raises(InputError, match=rf"directions\.factors\.json: expected.*got {got}"):
        suggestions.read_suggestions(path, digest="", count=COUNT)


def test_a_row_for_a_direction_that_does_not_exist_is_refused(folder, finished, tmp_path):
    path = shutil.copy(folder / "directions.safetensors", tmp_path)
    data = json.loads((finished / "factors.json").read_text())
    data["directions"][0]["index"] = COUNT
    suggestions.sidecar_path(path).write_text(json.dumps(data))
    with pytest.raises(InputError, match="got a row without a number of a direction"):
        suggestions.read_suggestions(path, digest=data["directions_digest"], count=COUNT)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 3}, r"config\.steps: expected an even number"),
        ({"latents__count": 1}, r"config\.latents\.count"),
        ({"name__purity": 1.5}, r"config\.name\.purity"),
        ({"gauges": "nowhere.py:make"}, "nowhere.py"),
    ],
)
def test_mistakes_are_told_before_work(folder, tmp_path, changes, words):
    with pytest.raises(InputError, match=words):
        run(configure("factors", folder, **changes), tmp_path)


def test_without_gauges_the_message_says_how_to_give_them(folder, tmp_path):
    config = configure("factors", folder, gauges=None)
    with pytest.raises(InputError, match=r"config\.gauges: expected .*my_gauge\.py:make"):
        run(config, tmp_path)


def test_a_factor_without_range_or_spread_is_refused(folder, tmp_path):
    config = configure("factors", folder, gauges=f"{folder / 'own_gauge.py'}:constant")
    with pytest.raises(InputError, match=r"'contrast'.*give low and high"):
        run(config, tmp_path)
