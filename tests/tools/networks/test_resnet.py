"""ResNet-18 of torchvision as a reconstructor; its numbers are compared in the golden training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import checkpoints, testing
from navigan_jax import params as params_lib
from navigan_jax.discovery.reconstructor import make_reconstructor
from navigan_jax.errors import InputError
from navigan_jax.nn.layers import conv
from tests.tools.crafting import state_dict_file
from tests.tools.test_finding import module
from tools.convert_weights.foreign import read_foreign
from tools.convert_weights.networks.base import Foreign
from tools.convert_weights.networks.resnet import double_inputs, from_foreign, from_state_dict


def torchvision_names():
    """Returns {name: shape} of all weights of the file."""
    blocks = [f"layer{layer}.{block}." for layer in range(1, 5) for block in range(2)]
    convs = ["conv1.weight", *(f"{block}conv{i}.weight" for block in blocks for i in (1, 2))]
    norms = ["bn1", *(f"{block}bn{i}" for block in blocks for i in (1, 2))]
    convs += [f"layer{layer}.0.downsample.0.weight" for layer in (2, 3, 4)]
    norms += [f"layer{layer}.0.downsample.1" for layer in (2, 3, 4)]
    leaves = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    shapes = dict.fromkeys(convs, (5, 3, 3, 3))
    shapes |= {f"{norm}.{leaf}": (5,) for norm in norms for leaf in leaves}
    return shapes | {"fc.weight": (7, 5), "fc.bias": (7,)}


def test_every_weight_but_the_heads_has_its_place():
    variables = from_state_dict(testing.fill_state_dict(torchvision_names(), 1))
    example = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    network = make_reconstructor("resnet18", directions=4)
    shapes = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, x, False), example)
    wanted = {path for path in params_lib.flatten(shapes) if "_head/" not in path}
    assert set(params_lib.flatten(variables)) == wanted


def test_two_equal_images_give_what_one_gave():
    kernel = testing.normal_like(2, jnp.zeros((3, 3, 3, 5)))
    image = testing.normal_like(3, jnp.zeros((2, 6, 7, 3)))
    twice = jnp.concatenate([image, image], axis=-1)
    doubled = jnp.asarray(double_inputs(np.asarray(kernel)))
    testing.assert_close(conv(twice, doubled), conv(image, kernel), 1e-5)


def test_another_network_is_one_message():
    with pytest.raises(InputError, match=r"resnet18: expected .* got 'features.0.weight'; allowed"):
        from_state_dict({"features.0.weight": np.zeros((1, 1, 1, 1))})


@pytest.fixture(name="state", scope="module")
def _state():
    """Returns small weights, and a first kernel of the true size, which identifies the network."""
    return testing.fill_state_dict(torchvision_names() | {"conv1.weight": (4, 3, 7, 7)}, 1)


def digest_of(content):
    foreign = Foreign("file", content, {}, lambda chosen, networks: {})
    return params_lib.digest(from_foreign(foreign))


@pytest.mark.parametrize(
    "wrapper",
    [
        lambda state: {f"module.{key}": array for key, array in state.items()},
        lambda state: {f"_orig_mod.module.{key}": array for key, array in state.items()},
        lambda state: {
            "state_dict": {f"backbone.{key}": array for key, array in state.items()}
            | {"backbone_ema_decay": np.ones(()), "head.weight": np.ones((2, 2))},
            "epoch": 3,
        },
        lambda state: [{"model": state}, None],
        lambda state: module(state, "torchvision.models.resnet.ResNet"),
        lambda state: {key: array for key, array in state.items() if not key.startswith("fc.")},
    ],
    ids=["parallel", "compiled", "lightning", "list", "module", "without the classifier"],
)
def test_network_is_found_in_any_wrapper(wrapper, state):
    assert digest_of(wrapper(state)) == params_lib.digest(from_state_dict(state))


def test_safetensors_and_old_streams_are_read(state, tmp_path):
    want = params_lib.digest(from_state_dict(state))
    old, new = tmp_path / "old.pth", tmp_path / "new.safetensors"
    old.write_bytes(state_dict_file(state, legacy=True))
    checkpoints.write_arrays(new, state, {})
    for path in (old, new):
        assert params_lib.digest(from_foreign(read_foreign(path))) == want


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bn1.bias": None}, r"a file without the arrays bn1\.bias; allowed"),
        (
            {"layer2.0.downsample.1.weight": None},
            r"a file without the arrays layer2\.0\.downsample\.1",
        ),
        ({"layer1.0.conv3.weight": np.zeros((4, 4, 1, 1))}, r"got 'layer1\.0\.conv3\.weight'"),
        ({"layer1.2.conv1.weight": np.zeros((4, 4, 3, 3))}, r"got 'layer1\.2\.conv1\.weight'"),
        ({"conv1.bias": np.zeros(4)}, r"got 'conv1\.bias'"),
    ],
    ids=["no bias", "no downsampling", "ResNet-50", "ResNet-34", "bias of a convolution"],
)
def test_arrays_that_are_missing_or_too_many_are_named(change, message, state):
    changed = {key: array for key, array in (state | change).items() if array is not None}
    with pytest.raises(InputError, match=message):
        digest_of({"model": changed})
    with pytest.raises(
        InputError, match=r"file: .* got a dict of model; 1 arrays, such as model\.x;"
    ):
        digest_of({"model": {"x": np.zeros(3)}})
