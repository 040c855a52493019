"""Networks in the package are found by name, from anywhere, and come with an installed package."""

import configparser
import pathlib

import pytest

from navigan_jax import assets, testing
from navigan_jax import params as params_lib
from navigan_jax.assets.finding import find_gauges, find_generator
from navigan_jax.errors import InputError
from navigan_jax.evaluation.gauges import read_gauges
from navigan_jax.generators.files import make_generator, read_generator, write_generator
from tools.convert_weights.__main__ import main as convert

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", assets.GENERATORS)
def test_generator_is_read_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    generator, params = read_generator(name)
    assert generator.resolution == 64
    assert not params_lib.non_finite_paths(params)


@pytest.mark.parametrize("name", assets.GAUGES)
def test_gauges_are_read_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gauges = read_gauges(name)
    assert gauges.source == name and "wheel radius" in gauges.names


def test_a_file_of_that_name_takes_precedence(tmp_path, monkeypatch):
    """A user's own file or folder named `cars` is what the user means."""
    monkeypatch.chdir(tmp_path)
    sizes = {"z_dim": 5, "widths": [7, 6], "image_channels": 3}
    own = make_generator("dcgan", sizes)
    write_generator(tmp_path / "cars", "dcgan", sizes, testing.draw_params(own, 0), {})
    assert read_generator("cars")[0].architecture == "dcgan"


@pytest.mark.parametrize("find", [find_generator, find_gauges])
def test_a_wrong_name_is_told_with_the_right_ones(find, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^car: expected .* did you mean cars\?"):
        find("car")
    assert find("no/such.safetensors") == pathlib.Path("no/such.safetensors")


def test_inspect_takes_a_name(capsys):
    assert convert(["inspect", "cars"]) == 0
    told = capsys.readouterr().out
    assert "navigan_jax.generator" in told and "by regression" in told


def test_imagenet_has_a_name_for_each_class():
    """In the order of the synsets, so that well-known indices have their well-known names."""
    names = assets.imagenet_names()
    assert len(names) == assets.IMAGENET_CLASSES and all(names)
    assert names[0] == "tench, Tinca tinca" and names[207] == "golden retriever"
    assert names[999].startswith("toilet tissue")


def test_all_files_are_package_data_and_small():
    """Each named file is there, setup.cfg takes it along, and all have 4 MB at most."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    patterns = setup["options.package_data"]["navigan_jax.assets"].split(",")
    folder = ROOT / "navigan_jax" / "assets"
    named = {*assets.GENERATORS.values(), *assets.GAUGES.values(), assets.CLASSES}
    packed = {path.name for pattern in patterns for path in folder.glob(pattern.strip())}
    assert named == packed
    assert sum((folder / name).stat().st_size for name in named) < 4e6
