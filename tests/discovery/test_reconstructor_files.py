"""A reconstructor that starts with weights of torchvision: by the command, the file, the task."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from configs import discover
from navigan_jax import checkpoints, params, testing
from navigan_jax import config as config_lib
from navigan_jax.discovery.reconstructor import make_reconstructor
from navigan_jax.discovery.reconstructor_files import read_start, start_with, write_start
from navigan_jax.errors import InputError
from navigan_jax.generators.files import make_generator
from navigan_jax.tasks import training
from tests.tools.crafting import resnet18_shapes, state_dict_file
from tools.convert_weights import __main__ as command
from tools.convert_weights import download


def torchvision_state():
    """Returns a state of ResNet-18's names and shapes, filled at random."""
    return testing.fill_state_dict(resnet18_shapes(), 0)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Returns the state and the path of the file that the command made of it."""
    folder = tmp_path_factory.mktemp("resnet18")
    source, out = folder / "resnet18.pth", folder / "start.safetensors"
    state = torchvision_state()
    source.write_bytes(state_dict_file(state))
    assert command.main(["resnet18", str(source), "--out", str(out)]) == 0
    return state, out


def first(path, *, name="resnet18", channels=3):
    """Returns (start, fresh, first variables) as the task makes them."""
    config = discover.get_config()
    config.reconstructor.name, config.reconstructor.weights = name, str(path)
    config = config_lib.freeze(config)
    sizes = {"z_dim": 5, "widths": [7, 6], "image_channels": channels}
    generator = make_generator("dcgan", sizes)
    start = training.read_reconstructor(config)
    network = make_reconstructor(name, directions=3)
    fresh = training.first_variables(config, generator, network, None)
    made = training.first_variables(config, generator, network, start)
    return tuple(map(params.flatten, (start, fresh, made)))


def test_reconstructor_starts_with_exactly_these_weights_and_fresh_heads(converted):
    state, path = converted
    start, fresh, made = first(path)
    heads = {name for name in made if "_head/" in name}
    assert len(heads) == 4 and set(made) == set(fresh) == set(start) | heads
    for name, leaf in made.items():
        np.testing.assert_array_equal(leaf, fresh[name] if name in heads else start[name])
    kernel = state["conv1.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(made["params/conv1/kernel"][:, :, :3], kernel / 2)
    np.testing.assert_array_equal(made["params/conv1/kernel"][:, :, 3:], kernel / 2)
    for ours, theirs in (
        ("params/layer2_0/downsample_bn/scale", "layer2.0.downsample.1.weight"),
        ("batch_stats/layer4_1/bn2/var", "layer4.1.bn2.running_var"),
    ):
        np.testing.assert_array_equal(made[ours], state[theirs])
        assert not np.array_equal(made[ours], fresh[ours])


def test_without_a_source_the_known_file_is_downloaded(converted, tmp_path, monkeypatch, capsys):
    """From its address once, then from the cache; the result is that of the same file, given."""
    source = converted[1].with_name("resnet18.pth")
    site = tmp_path / download.RESNET18
    site.write_bytes(source.read_bytes())
    digest = hashlib.sha256(site.read_bytes()).hexdigest()
    known = download.KNOWN_FILES[download.RESNET18]
    near = dataclasses.replace(known, sha256=digest, url=site.as_uri())
    monkeypatch.setenv("NAVIGAN_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "start.safetensors"

    def convert(file):
        monkeypatch.setitem(download.KNOWN_FILES, download.RESNET18, file)
        out.unlink(missing_ok=True)
        return command.main(["resnet18", "--out", str(out)])

    assert convert(near) == 0
    site.unlink()
    assert convert(near) == 0  # from the cache
    given, found = (checkpoints.read_arrays(path) for path in (converted[1], out))
    assert found[1]["digest"] == given[1]["digest"]
    assert json.loads(found[1]["source"])["backbone"] == download.RESNET18
    # What is in the cache has not the digest that is listed, and there is no network.
    assert convert(dataclasses.replace(known, url=site.as_uri())) == 2
    message = capsys.readouterr().err
    cached = tmp_path / "cache" / download.RESNET18
    for part in (site.as_uri(), f"put it at {cached}", known.sha256):
        assert part in message
    assert not out.exists()


def test_lenet_takes_no_weights(converted):
    with pytest.raises(
        InputError,
        match=r"config\.reconstructor\.weights: expected nothing, as lenet .*; got '.*'; leave",
    ):
        first(converted[1], name="lenet")


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_first_convolution_is_adapted_to_grey_and_to_alpha(converted, channels):
    """Images give what RGB images of the same look do, whatever their alpha; all else stays."""
    start = params.flatten(read_start(converted[1]))
    kernel = start["params/conv1/kernel"]
    own = start | {"params/conv1/kernel": np.zeros((7, 7, 2 * channels, 64), np.float32)}
    made = params.flatten(start_with(params.unflatten(own), params.unflatten(start), "file"))
    adapted = made.pop("params/conv1/kernel")
    images = np.random.RandomState(0).uniform(-1, 1, (2, 7, 7, channels)).astype(np.float32)
    colour = images[..., : channels - 1] if channels in (2, 4) else images
    rgb = np.broadcast_to(colour, (2, 7, 7, 3))
    answers = [
        np.einsum("pijc,pijco->o", pair, weights.reshape(7, 7, 2, -1, 64).transpose(2, 0, 1, 3, 4))
        for pair, weights in ((images, adapted), (rgb, kernel))
    ]
    np.testing.assert_allclose(*answers, rtol=1e-4, atol=1e-4)
    for name, leaf in made.items():
        np.testing.assert_array_equal(leaf, start[name])


def test_weights_of_another_kind_are_refused(converted, tmp_path):
    path = converted[1]
    arrays, metadata = checkpoints.read_arrays(path)
    other = tmp_path / "other.safetensors"
    checkpoints.write_arrays(other, arrays, metadata | {"format": "navigan_jax.generator"})
    with pytest.raises(InputError, match=r"other\.safetensors: expected .*reconstructor"):
        read_start(other)
    checkpoints.write_arrays(other, arrays | {"params/bn1/bias": np.ones(64)}, metadata)
    with pytest.raises(InputError, match=r"expected weights of digest .*; got .* was changed"):
        read_start(other)


def test_incomplete_or_broken_weights_are_not_written(converted, tmp_path):
    start, out = read_start(converted[1]), tmp_path / "out.safetensors"
    flat = params.flatten(start)
    for changed, complaint in (
        ({"params/bn1/bias": None}, r"params/bn1/bias \[64\]; got absent; make it anew"),
        ({"params/bn1/bias": np.ones(3)}, r"params/bn1/bias \[64\]; got \[3\]; make it anew"),
        ({"params/other": np.ones(3)}, r"params/other absent; got \[3\]; make it anew"),
        ({"params/bn1/bias": np.full(64, np.nan)}, r"got NaN or infinity in params/bn1/bias"),
        ({"params/bn1/bias": np.ones(64, np.int32)}, r"of float32; got params/bn1/bias of int32"),
        (
            {"batch_stats/bn1/var": np.full(64, -1, np.float32)},
            r"variances of 0 or more; got -1 in batch_stats/bn1/var",
        ),
    ):
        kept = {name: leaf for name, leaf in (flat | changed).items() if leaf is not None}
        with pytest.raises(InputError, match=complaint):
            write_start(out, params.unflatten(kept), {})
    assert not out.exists()
