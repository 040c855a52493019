"""StyleGAN2: its layers against their definitions, and the laws of all its forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.errors import InputError
from navigan_jax.generators.files import make_generator, read_generator, write_generator
from navigan_jax.generators.stylegan2.network import BLOCKS
from tests.generators.stylegan2.definition import CONFIG, LABELLED


def make(**changes):
    return make_generator("stylegan2", CONFIG | changes)


def random_params(generator, seed=0, dtype=np.float32):
    """Parameters away from their initial values: biases, noise and average have an effect."""
    shapes = generator.weights
    return jax.tree.map(lambda leaf: np.asarray(leaf, dtype), testing.normal_like(seed, shapes))


def latents(generator, count=3, seed=1):
    return np.asarray(generator.sample_latents(jax.random.key(seed), count))


@functools.partial(jax.jit, static_argnums=0)
def map_latent(generator, params, z):
    return generator.map_latent(params, z)


@functools.partial(jax.jit, static_argnums=0)
def synthesize(generator, params, w_plus, noise_key=None):
    return generator.synthesize(params, w_plus, noise_key)


def images_of(generator, params, z):
    return synthesize(generator, params, map_latent(generator, params, z))


# The network in its forms.

FORMS = {blocks: {"blocks": blocks} for blocks in BLOCKS} | {
    "labels": LABELLED | {"truncation": 0.7, "truncation_cutoff": 3},
    "labels of TensorFlow": LABELLED | {"labels": "concatenated", "clamp": 0.8, "noise": "none"},
}


@pytest.fixture(scope="module", params=sorted(FORMS))
def form(request):
    generator = make(**FORMS[request.param])
    return generator, random_params(generator), latents(generator)


def test_every_kernel_is_a_layer(form):
    """Of the mapping, the synthesis, the styles and ToRGB, each with its shape."""
    generator, params, _ = form
    kernels = {path: leaf for path, leaf in params_lib.flatten(params).items() if "kernel" in path}
    assert {layer.path: layer.shape for layer in generator.layers} == {
        path: kernel.shape for path, kernel in kernels.items()
    }


def test_network_can_be_cut_before_every_stage(form):
    """Running stage by stage equals running at once; latents are [batch, rows, w]."""
    generator, params, z = form
    run = jax.jit(
        lambda p, carry, start: generator.network.apply(
            {"params": p}, carry, start, start + 1, method="run"
        ),
        static_argnums=2,
    )
    carry = z
    for stage in range(generator.stages):
        if stage == generator.mapping_stages:
            assert carry.shape == (3, 4, 7)
            testing.assert_close(carry, map_latent(generator, params, z), 1e-5, "latents")
        carry = run(params, carry, stage)
    assert carry.shape == (3, 8, 8, 2)
    testing.assert_close(carry, images_of(generator, params, z), 1e-5, "images")


@pytest.mark.parametrize("blocks", ["skip", "resnet"])
def test_matrix_products_equal_the_plain_layers(blocks):
    """In 64 bits: images of the suffix, and derivatives by all weights at once."""
    generator = make(blocks=blocks)
    params, z = random_params(generator), latents(generator)
    layers = generator.layers

    def by_matmul(weights, z):
        changed = params_lib.unflatten(params_lib.flatten(params) | weights)
        return generator.suffix(changed, generator.prefix(changed, z, layers), layers)

    def plain(weights, z):
        changed = params_lib.unflatten(params_lib.flatten(params) | weights)
        return generator.synthesize(changed, generator.map_latent(changed, z))

    @functools.partial(jax.jit, static_argnums=0)
    def derivative(function, weights, z, cotangent):
        value, pull_back = jax.vjp(lambda weights: function(weights, z), weights)
        return value, pull_back(cotangent)[0]

    flat = params_lib.flatten(params)
    with testing.x64():
        weights = {layer.path: jnp.asarray(flat[layer.path], np.float64) for layer in layers}
        cotangent = testing.normal_like(3, np.zeros((3, 8, 8, 2)))
        value, gradient = jax.device_get(derivative(by_matmul, weights, z, cotangent))
        desired, plain_gradient = jax.device_get(derivative(plain, weights, z, cotangent))
    testing.assert_close(value, desired, 1e-10, "images")
    assert gradient.keys() == plain_gradient.keys()
    for path in gradient:
        testing.assert_close(gradient[path], plain_gradient[path], 1e-10, path)


def test_demodulated_filters_may_be_scaled():
    """Scaling an output filter has no effect, except in ToRGB, which has no demodulation."""
    generator = make(blocks="resnet")
    params, z = random_params(generator), latents(generator)
    images = images_of(generator, params, z)
    for layer in generator.layers:
        if not layer.path.endswith(("conv0/kernel", "conv1/kernel", "torgb/kernel")):
            continue
        factors = np.linspace(0.5, 3, layer.shape[-1], dtype=np.float32)
        weight = params_lib.get(params, layer.path) * factors
        scaled = images_of(generator, params_lib.replace(params, layer.path, weight), z)
        if "torgb" in layer.path:
            assert np.max(np.abs(scaled - images)) > 1e-2
        else:
            testing.assert_close(scaled, images, 1e-5, layer.path)


# What is chosen at run time.


def test_truncation_draws_the_first_rows_to_the_average():
    """w_avg + factor * (w - w_avg) in the first rows, others unchanged; factor 1 is exact."""
    plain = make()
    params, z = random_params(plain), latents(plain)
    w_plus = np.asarray(plain.map_latent(params, z))
    np.testing.assert_array_equal(w_plus, np.repeat(w_plus[:, :1], 4, axis=1))
    average = params["mapping"]["w_avg"]
    for factor in (0.0, 0.3, 1.7):
        for rows in (None, 3):
            drawn = make(truncation=factor, truncation_cutoff=rows).map_latent(params, z)
            desired = w_plus.copy()
            desired[:, :rows] = average + factor * (w_plus[:, :rows] - average)
            testing.assert_close(drawn, desired, 1e-6, f"{factor}, {rows}")
    np.testing.assert_array_equal(make(truncation_cutoff=2).map_latent(params, z), w_plus)


def test_noise_is_constant_absent_or_fresh():
    """ "none" equals strength 0; a key draws fresh noise, which differs by key and by sample."""
    generator = make()
    params = random_params(generator)
    w_plus = np.asarray(generator.map_latent(params, latents(generator)))
    w_plus = np.repeat(w_plus[:1], 2, axis=0)
    silent = params_lib.unflatten(
        {
            path: leaf * 0 if path.endswith("noise_strength") else leaf
            for path, leaf in params_lib.flatten(params).items()
        }
    )
    constant = synthesize(generator, params, w_plus)
    absent = synthesize(make(noise="none"), params, w_plus)
    testing.assert_close(synthesize(generator, silent, w_plus), absent, 1e-6, "silent")
    testing.assert_close(constant[0], constant[1], 1e-6, "samples")
    fresh = [synthesize(generator, params, w_plus, jax.random.key(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(fresh[0], fresh[1])
    others = (constant[0], absent[0], fresh[0][1], fresh[2][0])
    assert all(np.max(np.abs(fresh[0][0] - other)) > 1e-2 for other in others)
    again = synthesize(make(noise="none"), params, w_plus, jax.random.key(0))
    np.testing.assert_array_equal(again, absent)


@pytest.mark.parametrize("labels", ["embedded", "concatenated"])
def test_mapping_of_labels_equals_its_definition(labels):
    """A label passes a layer and its own norm, or a matrix and a norm together with z."""
    generator = make(**LABELLED, labels=labels, mapping_widths=[7])
    params, latent = random_params(generator), latents(generator)

    def normalise(x):
        return x / np.sqrt(np.mean(x**2, axis=1, keepdims=True) + 1e-8)

    z, label = latent[:, :5], latent[:, 5:]
    assert sorted(set(label.ravel())) == [0, 1] and np.all(label.sum(axis=1) == 1)
    embed = params["mapping"]["embed"]
    if labels == "embedded":
        made = label @ embed["kernel"] / np.sqrt(3) + embed["bias"]
        x = np.concatenate([normalise(z), normalise(made)], axis=1)
    else:
        x = normalise(np.concatenate([z, label @ embed["kernel"]], axis=1))
    layer = params["mapping"]["fc0"]
    x = x @ layer["kernel"] * (0.1 / np.sqrt(9)) + layer["bias"] * 0.1
    w = np.where(x < 0, 0.2 * x, x) * np.sqrt(2)
    testing.assert_close(generator.map_latent(params, latent)[:, 0], w, 1e-5)


def test_clamp_bounds_features_and_images():
    """The clamp bounds the image of each resolution; features are bounded by clamp times gain."""
    generator = make(clamp=0.1, blocks="orig")
    params, z = random_params(generator), latents(generator)
    bounded = np.asarray(images_of(generator, params, z))
    assert (
        np.max(np.abs(bounded)) <= 0.1 < np.max(np.abs(images_of(make(blocks="orig"), params, z)))
    )
    state = generator.prefix(params, z, generator.find_layers(["to_rgbs.0"]))
    assert np.max(np.abs(state.x)) <= 0.1


def test_options_are_chosen_when_a_file_is_read(tmp_path):
    """An option that the file sets may not be given; unknown options are refused."""
    params = random_params(make())
    path = tmp_path / "generator.safetensors"
    write_generator(path, "stylegan2", CONFIG, params, {})
    assert read_generator(path)[0] == make()
    options = {"truncation": 0.5, "noise": "none"}
    assert read_generator(path, options)[0] == make(**options)
    with pytest.raises(InputError, match="clamp: expected an option that the weights do not deter"):
        read_generator(path, {"clamp": 1.0})
    with pytest.raises(InputError, match=r"psi: expected an option of stylegan2.* no architecture"):
        read_generator(path, {"psi": 1.0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"z_dim": 0}, "z_dim: expected one or more positive whole numbers"),
        ({"channels": []}, "channels: expected one or more positive whole numbers"),
        (
            {"mapping_widths": [4, 2.5]},
            "mapping_widths: expected one or more positive whole numbers",
        ),
        ({"label_dim": 3}, "label_dim, label_width: expected two positive"),
        ({"labels": "both"}, "labels: expected one of embedded, concatenated; got 'both'"),
        ({"blocks": "dense"}, "blocks: expected one of skip, resnet, orig; got 'dense'"),
        ({"noise": "loud"}, "noise: expected one of constant, random, none; got 'loud'"),
        ({"resample_taps": [1.0]}, "resample_taps: expected two or more numbers"),
        ({"resample_taps": [1.0, -1.0]}, "whose sum is not 0"),
        ({"mapping_rate": 0}, "mapping_rate: expected a positive number"),
        ({"clamp": -1}, "clamp: expected a positive number or None"),
        ({"truncation": float("inf")}, "expected numbers below .*got truncation = inf"),
        ({"truncation_cutoff": 5}, "truncation_cutoff: expected a whole number from 0 to 4"),
    ],
)
def test_mistake_is_told(changes, message):
    """The message says which keyword, which values are allowed, and which came."""
    with pytest.raises(InputError, match=message):
        make(**changes)
