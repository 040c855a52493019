"""Mapping state dicts to LPIPS weights; the values are compared in test_lpips_golden.py."""

import numpy as np
import pytest

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.errors import InputError
from navigan_jax.perceptual import lpips
from tools.convert_weights.networks.lpips.weights import from_state_dicts

CONVOLUTIONS = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3)}
CONVOLUTIONS |= {10: (256, 256, 3, 3)}


@pytest.fixture(scope="module")
def backbone():
    """AlexNet in torchvision's layout, with a classifier that LPIPS does not use."""
    shapes = {f"features.{i}.weight": shape for i, shape in CONVOLUTIONS.items()}
    shapes |= {f"features.{i}.bias": shape[:1] for i, shape in CONVOLUTIONS.items()}
    return testing.fill_state_dict(shapes | {"classifier.1.weight": (7, 9)}, 1)


@pytest.fixture(scope="module")
def linear():
    random = np.random.RandomState(0)
    channels = [shape[0] for shape in CONVOLUTIONS.values()]
    return {
        f"lin{i}.model.1.weight": random.random_sample((1, c, 1, 1)).astype(np.float32)
        for i, c in enumerate(channels)
    }


def test_kernels_become_hwio_and_names_count_up(backbone, linear):
    """Each tensor is transposed once and lands in its layer."""
    config, params = from_state_dicts("alex", backbone, linear, "0.1")
    assert config == {"net": "alex", "version": "0.1", "linear": True}
    for number, index in enumerate(CONVOLUTIONS):
        layer = params["backbone"][f"conv{number}"]
        kernel = backbone[f"features.{index}.weight"]
        np.testing.assert_array_equal(layer["kernel"], np.einsum("oihw->hwio", kernel))
        np.testing.assert_array_equal(layer["bias"], backbone[f"features.{index}.bias"])
        stored = linear[f"lin{number}.model.1.weight"][0, :, 0, 0]
        np.testing.assert_array_equal(params["linear"][str(number)], stored)
    assert {leaf.dtype for leaf in params_lib.flatten(params).values()} == {np.dtype(np.float32)}


def test_a_whole_lpips_module_gives_the_same(backbone, linear):
    """Its own names, its repeated linear weights and its scaling layer are understood."""
    module = {"scaling_layer.shift": np.zeros((1, 3, 1, 1), np.float32)} | linear
    module |= {key.replace("lin", "lins.", 1): value for key, value in linear.items()}
    for number, index in enumerate(CONVOLUTIONS, start=1):
        for kind in ("weight", "bias"):
            module[f"net.slice{number}.{index}.{kind}"] = backbone[f"features.{index}.{kind}"]
    _, expected = from_state_dicts("alex", backbone, linear, "0.1")
    _, params = from_state_dicts("alex", module, module, "0.1")
    assert params_lib.digest(params) == params_lib.digest(expected)


@pytest.mark.parametrize("names", ["lin{}", "lins.{}", "both"])
def test_linear_weights_without_dropout_are_those_of_the_file(backbone, linear, names):
    """Without dropout the layer is the first of its sequence; its weights are used."""
    kinds = ("lin{}", "lins.{}") if names == "both" else (names,)
    found = {
        f"{kind.format(index)}.model.0.weight": linear[f"lin{index}.model.1.weight"]
        for kind in kinds
        for index in range(5)
    }
    _, expected = from_state_dicts("alex", backbone, linear, "0.1")
    _, params = from_state_dicts("alex", backbone, found, "0.1")
    assert params_lib.digest(params) == params_lib.digest(expected)


def test_linear_weights_can_be_left_out(backbone):
    """The options record that there are none."""
    config, params = from_state_dicts("alex", backbone, None, "0.0")
    assert config == {"net": "alex", "version": "0.0", "linear": False}
    assert lpips.create(params, **config).params.keys() == {"backbone"}


@pytest.mark.parametrize(
    ("backbone_change", "linear_change", "message"),
    [
        ({"features.3.weight": None}, {}, "missing backbone/conv1/kernel"),
        ({"features.3.weight": np.ones((192, 64, 3, 3))}, {}, r"conv1/kernel: expected shape \(5"),
        (
            {"features.3.weight": np.ones(9)},
            {},
            r"'features.3.weight': expected a weight of a conv",
        ),
        ({"features.28.bias": np.ones(512)}, {}, "'features.28.bias': expected layers 0, 3, 6"),
        ({"net.slice1.0.bias": np.ones(64)}, {}, "'net.slice1.0.bias': expected each layer once"),
        ({"features.0.bias": np.full(64, np.nan)}, {}, "finite weights; .*conv0/bias"),
        ({}, {"lin1.model.1.weight": None}, "missing linear/1"),
        ({}, {"lin1.model.1.weight": np.ones((192, 1, 1, 1))}, r"expected shape \(1, channels"),
        ({}, {"lin1.model.1.weight": -np.ones((1, 192, 1, 1))}, "of at least 0"),
        ({}, {"lins.1.model.1.weight": np.ones((1, 192, 1, 1))}, "same weights under both"),
        ({}, {"lin1.model.0.weight": np.ones((1, 192, 1, 1))}, "same weights under both"),
        ({"features.1.running_mean": np.ones(64)}, {}, "an array of another layer"),
        (
            {"lin0.model.1.bias": np.ones(1)},
            {},
            "'lin0.model.1.bias': expected only weights of alex",
        ),
        (
            {"extra.weight": np.ones(1)},
            {},
            "'extra.weight': expected only weights of alex and of LPIPS",
        ),
        (
            {"scaling_layer.scale": np.full((1, 3, 1, 1), 2.0)},
            {},
            r"'scaling_layer.scale': expected \[0.458, 0.448, 0.45\], as LPIPS",
        ),
    ],
)
def test_wrong_state_dicts_are_refused(backbone, linear, backbone_change, linear_change, message):
    """Missing, unknown, misshapen, repeated and impossible weights are named."""

    def changed(state, change):
        return {k: v for k, v in (state | change).items() if v is not None}

    with pytest.raises(InputError, match=message):
        from_state_dicts(
            "alex", changed(backbone, backbone_change), changed(linear, linear_change), "0.1"
        )


def test_an_unknown_net_is_refused(backbone):
    """The message lists the nets."""
    with pytest.raises(InputError, match="got 'resnet'; allowed: vgg, alex, squeeze"):
        from_state_dicts("resnet", backbone, None, "0.1")
