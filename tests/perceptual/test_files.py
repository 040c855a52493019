"""Writing and reading weights of distances."""

import json

import jax
import numpy as np
import pytest

from navigan_jax import checkpoints, testing
from navigan_jax import params as params_lib
from navigan_jax.errors import InputError
from navigan_jax.perceptual.files import read_perceptual, write_perceptual

CONFIG = {"net": "alex", "version": "0.1", "linear": True}
SOURCE = {"file": "alexnet.pth", "sha256": "0" * 64}


@pytest.fixture(scope="module")
def metric():
    return testing.random_lpips("alex", 0)


@pytest.fixture(scope="module")
def written(metric, tmp_path_factory):
    path = tmp_path_factory.mktemp("perceptual") / "alex.safetensors"
    write_perceptual(path, "lpips", CONFIG, metric.params, SOURCE)
    return path


def rewritten(written, tmp_path, change_metadata=None, change_arrays=None):
    """Returns a copy with other metadata or arrays, without making them consistent."""
    arrays, metadata = checkpoints.read_arrays(written)
    path = tmp_path / "changed.safetensors"
    checkpoints.write_arrays(
        path, arrays | (change_arrays or {}), metadata | (change_metadata or {})
    )
    return path


def test_read_returns_what_was_written(metric, written):
    """The same options and weights; the source stays in the file."""
    read = read_perceptual(written)
    assert jax.tree.structure(read) == jax.tree.structure(metric)
    for x, y in zip(jax.tree.leaves(read), jax.tree.leaves(metric), strict=True):
        np.testing.assert_array_equal(x, y)
    _, metadata = checkpoints.read_arrays(written)
    assert json.loads(metadata["source"]) == SOURCE
    assert metadata["digest"] == params_lib.digest(metric.params)


def test_nothing_unreadable_is_written(metric, tmp_path):
    """Options that do not fit the weights are refused before a file appears."""
    path = tmp_path / "wrong.safetensors"
    with pytest.raises(InputError, match="lpips vgg: expected its weights"):
        write_perceptual(path, "lpips", CONFIG | {"net": "vgg"}, metric.params, SOURCE)
    assert not path.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "navigan_jax.generator"}, "expected a file of format navigan_jax.perceptual"),
        ({"format_version": "2"}, "format version 1; got 2"),
        ({"kind": "ssim"}, "changed.safetensors: .*known kind; got 'ssim'; allowed: lpips"),
        ({"config": "{"}, "JSON under 'config'"),
        ({"config": json.dumps({"net": "alex"})}, "options linear, net, version; got"),
        ({"config": json.dumps(CONFIG | {"net": "vgg"})}, "missing backbone/conv10"),
        ({"config": json.dumps(CONFIG | {"linear": False})}, "unexpected linear/0"),
        ({"digest": "0" * 64}, "expected weights of digest 0000.*changed or damaged"),
    ],
)
def test_wrong_metadata_is_refused(written, tmp_path, change, message):
    """Format, version, kind, options and digest are checked, and the file is named."""
    path = rewritten(written, tmp_path, change)
    with pytest.raises(InputError, match=message) as caught:
        read_perceptual(path)
    assert str(path) in str(caught.value)


def test_changed_weights_are_refused(written, tmp_path):
    """Changing one number changes the digest."""
    bias = checkpoints.read_arrays(written)[0]["backbone/conv1/bias"].copy()
    bias[3] += 1e-6
    path = rewritten(written, tmp_path, change_arrays={"backbone/conv1/bias": bias})
    with pytest.raises(InputError, match="changed or damaged"):
        read_perceptual(path)


def test_missing_file_is_refused(tmp_path):
    """The message names the path."""
    with pytest.raises(
        InputError, match=r"absent\.safetensors: expected the weights .* make them with"
    ):
        read_perceptual(tmp_path / "absent.safetensors")
