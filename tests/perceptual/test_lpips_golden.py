"""LPIPS against numbers of the original program; the index names sizes, seeds and tolerances."""

import ast
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.perceptual import lpips
from navigan_jax.perceptual.base import (
    AtSize,
    distance,
    distance_per_layer,
    resize,
    signed,
    squared_norms,
)
from tools.convert_weights.networks.lpips.weights import from_state_dicts

PROGRAM = "richzhang/PerceptualSimilarity"
CASES = testing.golden_names(PROGRAM)
POWER_ITERATION = "yandex-research/navigan: hessian_power_iteration.HVP_forward"

pytestmark = pytest.mark.golden(PROGRAM)


def filled_backbone(case, digest_of):
    """Weights by the fill rule, checked against the digest in the golden data."""
    names = digest_of["digest/names"].tolist()
    shapes = [ast.literal_eval(shape) for shape in digest_of["digest/shapes"].tolist()]
    start = testing.golden_fill_start(case.info["architecture"]["fill"])
    return testing.fill_state_dict(dict(zip(names, shapes, strict=True)), start)


def linear_weights(arrays, prefix):
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def nhwc(images):
    return np.moveaxis(images, 1, -1)


class Golden:
    """One golden case: its arrays, and the distance with linear weights."""

    def __init__(self, name):
        self.case = testing.golden_case(name)
        self.data = self.case.arrays("data")
        self.inputs = self.case.arrays("inputs")
        self.sizes = self.case.info["sizes"]
        self.state = filled_backbone(self.case, self.data)
        net = self.case.info["architecture"]["net"]
        config, params = from_state_dicts(net, self.state, linear_weights(self.data, "lin/"), "0.1")
        self.metric = lpips.create(params, **config)

    def close(self, actual, key, quantity):
        testing.assert_close(actual, self.data[key], self.case.tolerance[quantity], key)

    def gradient_close(self, actual, key, looseness=1):
        """Compares gradients (NHWC) by their norms.

        A unit within rounding of the kink of its ReLU, or of a tie in its pool, may switch in one
        float32 program and not in the other. That moves a few pixels by some percent and the norm
        by less than 1e-3; a mistake moves it by 1.
        """
        stored = self.data[key]
        error = np.moveaxis(np.asarray(actual), -1, 1) - stored
        relative = np.linalg.norm(error.ravel()) / np.linalg.norm(stored.ravel())
        assert relative <= looseness * self.case.tolerance["grad"], f"{key}: {relative:.3g}"

    def pair(self, size, dtype=np.float32):
        return [nhwc(self.inputs[f"{size}/{name}"]).astype(dtype) for name in ("in0", "in1")]


@pytest.fixture(scope="module", params=CASES)
def golden(request):
    return Golden(request.param)


def variants(metric):
    """The two labels of the golden data: with linear weights and without."""
    without = dataclasses.replace(metric, params={"backbone": metric.params["backbone"]})
    return {"lpips1": metric, "lpips0": without}


def per_image(per_layer):
    return np.asarray(per_layer).sum(axis=0).reshape(-1, 1, 1, 1)


def weighted_sum(per_layer):
    """The scalar whose gradient is stored: weight n + 1 for pair n."""
    return jnp.sum(per_layer @ jnp.arange(1, per_layer.shape[1] + 1, dtype=per_layer.dtype))


@jax.jit
def layers_and_maps_of(metric, a, b):
    labelled = variants(metric).items()
    layers = {label: distance_per_layer(m, a, b) for label, m in labelled}
    return layers, {label: lpips.distance_map(m, a, b) for label, m in labelled}


@jax.jit
def layers_and_gradients_of(metric, a, b, cotangent):
    """Contributions of layers and their maps by label, and the gradient of each stored scalar.

    All scalars share one backward pass through the network, because compiling it takes the time.
    """
    taps_a = metric.taps(a)

    def scalars(taps_b):
        values, layers, maps = {}, {}, {}
        for label, m in variants(metric).items():
            x, y = m.normalise(taps_a), m.normalise(taps_b)
            layers[label] = squared_norms(jax.tree.map(jnp.subtract, x, y))
            values[f"{label}_spatial0"] = weighted_sum(layers[label])
            maps[label] = lpips.layer_maps(x, y, *b.shape[1:3])
            values[f"{label}_spatial1"] = jnp.sum(sum(maps[label]) * cotangent)
        return values, (layers, maps)

    taps_b, pull_back = jax.vjp(metric.taps, b)
    cotangents, (layers, maps) = jax.jacrev(scalars, has_aux=True)(taps_b)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *cotangents.values())
    gradients = jax.vmap(pull_back)(stacked)[0]
    return layers, maps, dict(zip(cotangents, gradients, strict=True))


@jax.jit
def layers_and_gradient(metric, a, b):
    def weighted(b):
        per_layer = distance_per_layer(metric, a, b)
        return weighted_sum(per_layer), per_layer

    (_, per_layer), gradient = jax.value_and_grad(weighted, has_aux=True)(b)
    return per_layer, gradient


def test_filled_backbone_has_the_stored_digest(golden):
    """Sum, sum of magnitudes and first elements of every filled tensor equal the stored ones."""
    filled = [tensor.astype(np.float64) for tensor in golden.state.values()]
    for quantity, values in (
        ("sum", [tensor.sum() for tensor in filled]),
        ("abssum", [np.abs(tensor).sum() for tensor in filled]),
        ("first4", [tensor.ravel()[:4] for tensor in filled]),
    ):
        testing.assert_close(values, golden.data[f"digest/{quantity}"], 1e-12, quantity)


def test_lpips_equals_the_original(golden):
    """Value, contribution of each layer and map agree, with linear weights and without."""
    for size in golden.sizes:
        layers, maps = layers_and_maps_of(golden.metric, *golden.pair(size))
        for label, per_layer in layers.items():
            key = f"{size}/{label}_spatial"
            golden.close(per_layer, f"{key}0/per_layer", "per_layer")
            golden.close(per_image(per_layer), f"{key}0/val", "value")
            golden.close(maps[label][:, None], f"{key}1/val", "map")


def test_lpips_in_64_bits_equals_the_original(golden):
    """Values to nearly all digits; gradients and layer maps to float32."""
    for size in golden.sizes:
        cotangent = golden.inputs[f"{size}/cotangent"][:, 0].astype(np.float64)
        pair = golden.pair(size, np.float64)
        with testing.x64(optimised=True):
            results = jax.device_get(layers_and_gradients_of(golden.metric, *pair, cotangent))
        layers, maps, gradients = results
        for label, per_layer in layers.items():
            key = f"{size}/{label}_spatial"
            assert per_layer.dtype == np.float64
            golden.close(per_layer, f"{key}0/per_layer_f64", "value_f64")
            golden.close(per_image(per_layer), f"{key}0/val_f64", "value_f64")
            for index, layer_map in enumerate(maps[label]):
                layer_key = f"{key}1/layer{index}_map_sample0"
                if layer_key in golden.data:
                    golden.close(layer_map[:1, None], layer_key, "map")
        for kind, gradient in gradients.items():
            golden.gradient_close(gradient, f"{size}/{kind}/grad_in1")


def test_taps_equal_the_features_of_the_original(golden):
    """Shape, mean and deviation of each channel of every tap agree."""
    taps_of = jax.jit(lambda metric, images: metric.taps(images))
    for size in golden.sizes:
        taps = taps_of(golden.metric, golden.pair(size)[0])
        assert len(taps) == golden.case.info["architecture"]["layers"]
        for index, maps in enumerate(taps):
            key = f"{size}/lpips1_spatial0/feat{index}"
            maps = np.moveaxis(maps, -1, 1)
            assert maps.shape == tuple(golden.data[f"{key}_shape"])
            axes = (0, 2, 3)
            stats = np.stack([maps.mean(axes), maps.std(axes, ddof=1)])
            golden.close(stats, f"{key}_mean_std", "features")


def test_lpips_of_unit_range_and_of_identical_images(golden):
    """Images mapped from [0, 1] equal the original's `normalize`; equal images have distance 0."""
    for size in golden.sizes:
        key = f"{size}/lpips1_spatial0"
        a, b = golden.pair(size)
        mapped = [signed((images + 1) / 2) for images in (a, b)]
        value = per_image(layers_and_maps_of(golden.metric, *mapped)[0]["lpips1"])
        golden.close(value, f"{key}/val_normalize_01", "value")
        # The two passes may be compiled differently, so features agree to rounding: 1e-6 squared.
        identical = per_image(layers_and_maps_of(golden.metric, a, a)[0]["lpips1"])
        stored = golden.data[f"{key}/val_identical"]
        testing.assert_close(identical, stored, 1e-12, key, scale=value.min())


def test_dead_pixels_give_the_original_gradient(golden):
    """If all channels of the first layer are zero, value and gradient agree, without a NaN."""
    assert golden.case.info["has_deadpix"] == any("deadpix" in key for key in golden.data)
    for bias_key in (key for key in golden.data if key.endswith("deadpix/first_conv_bias")):
        key = bias_key.rsplit("/", 1)[0]
        bias = jnp.asarray(golden.data[bias_key])
        params = params_lib.replace(golden.metric.params, "backbone/conv0/bias", bias)
        metric = dataclasses.replace(golden.metric, params=params)
        per_layer, gradient = layers_and_gradient(metric, *golden.pair(key.split("/")[0]))
        golden.close(per_layer, f"{key}/per_layer", "per_layer")
        golden.close(per_image(per_layer), f"{key}/val", "value")
        golden.gradient_close(gradient, f"{key}/grad_in1", looseness=10)


@pytest.fixture(scope="module", params=testing.golden_names(POWER_ITERATION))
def resized(request):
    """A case whose images were shrunk by nearest neighbour before LPIPS."""
    case = testing.golden_case(request.param)
    return case, case.arrays("data")


def test_resize_picks_the_pixels_of_the_original(resized):
    """Nearest-neighbour resizing takes the same pixels."""
    case, data = resized
    full = nhwc(data["at_delta/img0_full_first2"])
    size = case.info["architecture"]["lpips_interpolation_size"]
    small = resize(jnp.asarray(full), size, case.info["architecture"]["interpolation"])
    expected = nhwc(data["at_delta/img0_interp"])[: len(full)]
    # Equal up to the rounding of two runs of the generator, of two batch sizes.
    testing.assert_close(small, expected, case.tolerance["images"], "nearest")


def test_lpips_of_resized_images_equals_the_original(resized):
    """LPIPS of the shrunk images agrees, and `AtSize` shrinks the large ones to the same value."""
    case, data = resized
    info = case.info["architecture"]
    net = info["lpips_net"]
    cases = map(testing.golden_case, CASES)
    digest_of = next(case for case in cases if case.info["architecture"]["net"] == net)
    state = filled_backbone(case, digest_of.arrays("data"))
    config, params = from_state_dicts(net, state, linear_weights(data, "lpips_lin/"), "0.1")
    metric = lpips.create(params, **config)
    a, b = (nhwc(data[f"at_delta/img{i}_interp"]) for i in (0, 1))
    values_of = jax.jit(distance)
    value = values_of(metric, a, b).reshape(-1, 1, 1, 1)
    testing.assert_close(value, data["at_delta/lpips"], case.tolerance["lpips"], "lpips")
    full = nhwc(data["at_delta/img0_full_first2"])
    shrunk = AtSize(metric, info["lpips_interpolation_size"], info["interpolation"])
    few = a[: len(full)]
    testing.assert_close(
        values_of(shrunk, full, full[::-1]), values_of(metric, few, few[::-1]), 1e-4, "AtSize"
    )
