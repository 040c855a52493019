"""ResNet-18 of torchvision as a reconstructor; its numbers are compared in the golden training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.discovery.reconstructor import make_reconstructor
from navigan_jax.errors import InputError
from navigan_jax.nn.layers import conv
from tools.convert_weights.networks.resnet import double_inputs, from_state_dict


def torchvision_names():
    """{name: kind of shape} of all weights of the file."""
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
