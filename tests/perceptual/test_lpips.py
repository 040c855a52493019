"""LPIPS beyond its contract in test_base.py and its golden data in test_lpips_golden.py."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.errors import InputError
from navigan_jax.perceptual import lpips
from navigan_jax.perceptual.base import AtSize, distance


@pytest.fixture(scope="module")
def metric():
    return testing.random_lpips("alex", 0)


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.RandomState(2).uniform(-1, 1, (2, 33, 37, 3)), jnp.float32)


def create(metric, params, **options):
    config = {"net": metric.net, "version": metric.version, "linear": True} | options
    return lpips.create(params, **config)


def test_derivatives_are_finite_at_dead_pixels(metric, images):
    """If all channels are zero, forward, reverse and forward-over-reverse mode give no NaN."""
    bias = metric.params["backbone"]["conv0"]["bias"] - 3.0
    params = params_lib.replace(metric.params, "backbone/conv0/bias", bias)
    metric = dataclasses.replace(metric, params=params)
    dead = np.all(np.asarray(metric.taps(images)[0]) == 0, axis=-1)
    assert 0.05 < dead.mean() < 1

    @jax.jit
    def derivatives(metric, images, v):
        def total(b):
            return jnp.sum(distance(metric, images, b))

        forward = jax.jvp(metric.features, (images,), (v,))[1]
        reverse = jax.vjp(metric.features, images)[1](forward)[0]
        away = images + 0.1 * v
        return forward, reverse, jax.grad(total)(away), jax.jvp(jax.grad(total), (away,), (v,))[1]

    results = derivatives(metric, images, testing.normal_like(1, images))
    for leaf in jax.tree.leaves(results):
        assert np.isfinite(leaf).all()
        assert np.any(leaf)


def test_the_norm_is_raised_by_1e_10_outside_the_root(metric):
    """A feature vector of norm 1e-10 is normalised to norm 1/2, and zero to zero."""
    ones = {"linear": jax.tree.map(jnp.ones_like, metric.params["linear"])}
    taps = tuple(
        jnp.zeros((1, 1, 2, len(weights))).at[0, 0, 0, 3].set(1e-10)
        for _, weights in sorted(metric.params["linear"].items())
    )
    for leaf in create(metric, metric.params | ones).normalise(taps):
        testing.assert_close(leaf[0, 0, 0, 3], 0.5 / np.sqrt(2), 1e-5, "two pixels")
        np.testing.assert_array_equal(leaf[0, 0, 1], 0)


def test_mean_of_the_map_is_near_the_distance(metric, images):
    """Upsampling hardly moves the mean; the map is largest where the images differ."""
    other = images.at[:, :12, :12].add(0.5)
    where = lpips.distance_map(metric, images, other)
    assert where.shape == images.shape[:3]
    testing.assert_close(where.mean(axis=(1, 2)), distance(metric, images, other), 0.2, "mean")
    assert np.all(where[:, :12, :12].mean(axis=(1, 2)) > 2 * where[:, 24:, 24:].mean(axis=(1, 2)))


def test_version_0_0_skips_the_scaling_layer(metric, images):
    """Its taps of images that are already scaled equal the taps of version 0.1."""
    shift, scale = jnp.array([-0.030, -0.088, -0.188]), jnp.array([0.458, 0.448, 0.450])
    old = create(metric, metric.params, version="0.0")
    scaled = (images - shift[None, None, None]) / scale[None, None, None]
    for x, y in zip(old.taps(scaled), metric.taps(images), strict=True):
        testing.assert_close(x, y, 1e-4)


def test_linear_weights_of_one_change_nothing(metric, images):
    """LPIPS without linear weights weighs every channel by 1."""
    ones = {"linear": jax.tree.map(jnp.ones_like, metric.params["linear"])}
    plain = create(metric, {"backbone": metric.params["backbone"]}, linear=False)
    weighted = create(metric, metric.params | ones)
    value = distance(weighted, images, images[::-1])
    testing.assert_close(distance(plain, images, images[::-1]), value, 1e-5)


def test_grey_images_are_rgb_of_three_equal_channels(metric, images):
    grey = images[..., :1]
    for x, y in zip(metric.features(grey), metric.features(grey.repeat(3, axis=3)), strict=True):
        np.testing.assert_array_equal(x, y)


def test_images_of_other_channels_are_refused(metric):
    """The message lists the allowed numbers of channels."""
    with pytest.raises(InputError, match=r"lpips alex: expected images .* 3 \(RGB\) or 4 .*, 5\);"):
        metric.features(jnp.zeros((1, 40, 40, 5)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda flat: flat | {"linear/2": -flat["linear/2"]}, "of at least 0.*for layers 2"),
        (lambda flat: flat | {"linear/1": flat["linear/1"][1:]}, r"linear/1: expected shape \(192"),
        (
            lambda flat: {
                path: leaf for path, leaf in flat.items() if path != "backbone/conv3/bias"
            },
            r"missing backbone/conv3/bias \(256,\)",
        ),
        (lambda flat: flat | {"extra": jnp.ones(3)}, r"unexpected extra \(3,\)"),
        (
            lambda flat: flat | {"backbone/conv0/bias": flat["backbone/conv0/bias"] * jnp.nan},
            "finite weights; got NaN or infinity in .*backbone/conv0/bias",
        ),
    ],
)
def test_wrong_weights_are_refused(metric, change, message):
    """Every check of the weights names the weight."""
    flat = change(params_lib.flatten(metric.params))
    with pytest.raises(InputError, match=message):
        create(metric, params_lib.unflatten(flat))


@pytest.mark.parametrize("options", [{"net": "resnet"}, {"version": "0.2"}])
def test_unknown_options_are_refused(metric, options):
    """The message lists the known options."""
    with pytest.raises(InputError, match=r"allowed nets: vgg, alex, squeeze; .*: 0\.1, 0\.0"):
        create(metric, metric.params, **options)


def test_weights_of_another_net_are_refused(metric):
    """VGG does not accept the weights of AlexNet."""
    with pytest.raises(InputError, match="lpips vgg: expected its weights with linear weights"):
        create(metric, metric.params, net="vgg")


def test_gradients_are_orthogonal_to_demodulated_filters(metric):
    """Scaling a demodulated filter does not change the image, so ⟨∂d/∂θ_o, θ_o⟩ = 0 for each output
    o, up to the 1e-8 in the norm. Control: ToRGB, which has no demodulation.
    """
    generator = testing.tiny_generators()["stylegan2"]
    params = testing.draw_params(generator, 1)
    z = generator.sample_latents(jax.random.key(0), 2)
    wanted = AtSize(metric, 32, "nearest")
    paths = [f"synthesis/b8/{name}/kernel" for name in ("conv0", "conv1", "torgb")]

    @jax.jit
    def gradients(weights, wanted, params, z):
        def total(weights):
            changed = params
            for path, weight in weights.items():
                changed = params_lib.replace(changed, path, weight)
            images = generator.synthesize(changed, generator.map_latent(changed, z))
            return jnp.sum(distance(wanted, images[:1], images[1:]))

        return jax.grad(total)(weights)

    with testing.x64():  # LPIPS leaves 1e-3 of it to rounding in 32 bits
        exact = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (wanted, params, z))
        weights = {path: params_lib.get(exact[1], path) for path in paths}
        found = jax.device_get(gradients(weights, *exact))
    for path, gradient in found.items():
        along = np.sum(gradient * np.asarray(weights[path]), axis=(0, 1, 2))
        squares = [np.sum(np.square(x), axis=(0, 1, 2)) for x in (gradient, weights[path])]
        cosines = np.abs(along) / np.sqrt(squares[0] * squares[1])
        assert np.all(cosines > 1e-2) if "torgb" in path else np.all(cosines < 1e-4), path
