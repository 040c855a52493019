"""StyleGAN2: its layers by their definitions, and what every form of it promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.errors import InputError
from navigan_jax.generators.files import make_generator, read_generator, write_generator
from navigan_jax.generators.ops import smooth
from navigan_jax.generators.stylegan2 import BLOCKS, modulated
from navigan_jax.layers import conv, conv_by_matmul, conv_transpose, conv_transpose_by_matmul

CONFIG = {
    "z_dim": 5,
    "label_dim": 0,
    "label_width": 0,
    "labels": "embedded",
    "mapping_widths": [6, 7],
    "mapping_rate": 0.1,
    "channels": [5, 4, 3],
    "image_channels": 2,
    "blocks": "skip",
    "resample_taps": [1.0, 3.0, 3.0, 1.0],
    "clamp": None,
}
LABELLED = {"label_dim": 3, "label_width": 4}


def make(**changes):
    return make_generator("stylegan2", CONFIG | changes)


def random_params(generator, seed=0, dtype=np.float32):
    """Parameters of which none is at its neutral start: biases, noise and average act too."""
    shapes = jax.eval_shape(generator.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: np.asarray(leaf, dtype), testing.normal_like(seed, shapes))


def latents(generator, count=3, seed=1):
    return np.asarray(generator.sample_latents(jax.random.key(seed), count))


def images_of(generator, params, z):
    return jax.jit(lambda p, z: generator.synthesize(p, generator.map_latent(p, z)))(params, z)


# The modulated convolution.


def convolutions(up, by_matmul, taps):
    if not up:
        return conv_by_matmul if by_matmul else conv
    double = conv_transpose_by_matmul if by_matmul else conv_transpose
    return lambda x, kernel: smooth(double(x, kernel, stride=2, padding=0), taps)


def by_definition(x, kernel, style, up, taps, demodulate):
    """One kernel for each sample: scaled by the style, divided by its norm for each output."""
    side, _, inputs, _ = kernel.shape
    rows = []
    for image, scales in zip(x, style, strict=True):
        own = kernel * scales[None, None, :, None] / np.sqrt(inputs * side**2)
        if demodulate:
            own = own / np.sqrt(np.sum(own**2, axis=(0, 1, 2)) + 1e-8)
        rows.append(doubled(image, own, taps) if up else correlated(image, own))
    return np.stack(rows)


def correlated(image, kernel):
    side = len(kernel)
    padded = np.pad(image, ((side // 2, side // 2), (side // 2, side // 2), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(0, 1))
    return np.einsum("hwikl,klio->hwo", windows, kernel)


def doubled(image, kernel, taps):
    """A zero after each pixel, the padded filter, then the kernel turned round: one formula."""
    height, width, channels = image.shape
    inserted = np.zeros((2 * height, 2 * width, channels))
    inserted[::2, ::2] = image
    count = len(taps)
    pads = ((count - 1) // 2 + 2, (count - 2) // 2 + 1)
    padded = np.pad(inserted, (pads, pads, (0, 0)))
    weights = 4 * np.outer(taps, taps) / np.sum(taps) ** 2
    windows = np.lib.stride_tricks.sliding_window_view(padded, (count, count), axis=(0, 1))
    blurred = np.einsum("hwikl,kl->hwi", windows, weights[::-1, ::-1])
    windows = np.lib.stride_tricks.sliding_window_view(blurred, (3, 3), axis=(0, 1))
    return np.einsum("hwikl,klio->hwo", windows, kernel[::-1, ::-1])


@settings(max_examples=20, deadline=None)
@given(
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1, 3]),
    st.lists(st.integers(1, 9).map(float), min_size=2, max_size=5),
    st.integers(1, 5),
    st.integers(0, 1000),
)
def test_modulated_conv_equals_its_definition(up, by_matmul, demodulate, side, taps, inputs, seed):
    """One shared convolution between two scalings is a convolution of each sample with its own."""
    random = np.random.RandomState(seed)
    x = random.standard_normal((3, 4, 5, inputs))
    kernel = random.standard_normal((3 if up else side,) * 2 + (inputs, 2))
    style = random.standard_normal((3, inputs))
    with testing.x64():
        convolve = convolutions(up, by_matmul, taps)
        actual = np.asarray(modulated(x, kernel, style, convolve, demodulate=demodulate))
    desired = by_definition(x, kernel, style, up, taps, demodulate)
    testing.assert_close(actual, desired, 1e-10)


def test_turned_kernel_is_another_one():
    """Control: a doubling kernel turned by 180 degrees, as TensorFlow stores it, is told."""
    random = np.random.RandomState(0)
    x, kernel = random.standard_normal((1, 4, 4, 2)), random.standard_normal((3, 3, 2, 2))
    style = random.standard_normal((1, 2))
    convolve = convolutions(True, False, (1, 3, 3, 1))
    actual = modulated(x, kernel[::-1, ::-1], style, convolve, demodulate=True)
    desired = by_definition(x, kernel, style, True, (1, 3, 3, 1), True)
    with pytest.raises(AssertionError, match="relative error"):
        testing.assert_close(actual, desired, 0.1)


def test_no_kernel_is_made_for_a_single_sample():
    """All intermediate arrays are smaller than a kernel for each sample of the batch."""
    shapes = [(64, 4, 4, 32), (3, 3, 32, 32), (64, 32)]
    arguments = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    program = jax.make_jaxpr(lambda *a: modulated(*a, conv, demodulate=True))(*arguments)
    sizes = [variable.aval.size for step in program.eqns for variable in step.outvars]
    assert max(sizes) < shapes[0][0] * np.prod(shapes[1])


# The network in its forms.

FORMS = {blocks: {"blocks": blocks} for blocks in BLOCKS} | {
    "labels": LABELLED | {"truncation": 0.7, "truncated_rows": 4},
    "labels of TensorFlow": LABELLED | {"labels": "concatenated", "clamp": 0.8, "noise": "none"},
}


@pytest.fixture(scope="module", params=sorted(FORMS))
def form(request):
    generator = make(**FORMS[request.param])
    return generator, random_params(generator), latents(generator)


def test_layers_are_those_of_the_parameters(form):
    """Every kernel is an editable layer, of its shape, and no two have a name in common."""
    generator, params, _ = form
    kernels = {path: leaf for path, leaf in params_lib.flatten(params).items() if "kernel" in path}
    assert {layer.path: layer.shape for layer in generator.layers} == {
        path: kernel.shape for path, kernel in kernels.items()
    }
    assert [layer.stage for layer in generator.layers] == sorted(x.stage for x in generator.layers)
    for layer in generator.layers:
        for name in layer.names:
            assert generator.find_layers([name]) == (layer,)


def test_network_can_be_cut_before_every_stage(form):
    """Stage by stage gives what all at once gives; latents are [batch, rows, w]."""
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
            assert carry.shape == (3, 6, 7)
            testing.assert_close(carry, generator.map_latent(params, z), 1e-5, "latents")
        carry = run(params, carry, stage)
    assert carry.shape == (3, 16, 16, 2)
    testing.assert_close(carry, images_of(generator, params, z), 1e-5, "images")


def test_prefix_reads_no_weight_of_the_layer(form):
    """With NaN in the layer's weight the prefix is the same, and the images are NaN."""
    generator, params, z = form
    for layer in generator.layers[1::4]:
        spoilt = params_lib.replace(params, layer.path, np.full(layer.shape, np.nan, np.float32))
        carry = generator.prefix(params, z, [layer])
        for leaf, same in zip(
            jax.tree.leaves(carry),
            jax.tree.leaves(generator.prefix(spoilt, z, [layer])),
            strict=True,
        ):
            np.testing.assert_array_equal(leaf, same)
        images = generator.suffix(params, carry, [layer])
        testing.assert_close(images, images_of(generator, params, z), 1e-5, layer.path)
        assert np.all(np.isnan(generator.suffix(spoilt, carry, [layer])))


def test_matrix_products_equal_the_plain_layers(form):
    """In 64 bits: images of the suffix, and derivatives by all weights, both ways."""
    generator, params, z = form
    layers = generator.layers

    def images(suffix):
        def function(weights, z):
            changed = params_lib.unflatten(params_lib.flatten(params) | weights)
            if suffix:
                return generator.suffix(changed, generator.prefix(changed, z, layers), layers)
            return generator.synthesize(changed, generator.map_latent(changed, z))

        return function

    @jax.jit
    def derivatives(weights, z, tangents, cotangent):
        found = []
        for suffix in (True, False):
            value, pull_back = jax.vjp(lambda w, s=suffix: images(s)(w, z), weights)
            found.append((value, pull_back(cotangent)[0]))
        tangent = jax.jvp(lambda w: images(True)(w, z), (weights,), (tangents,))[1]
        return found, tangent

    flat = params_lib.flatten(params)
    with testing.x64():
        weights = {layer.path: jnp.asarray(flat[layer.path], np.float64) for layer in layers}
        tangents = testing.normal_like(2, weights)
        cotangent = testing.normal_like(3, np.zeros((3, 16, 16, 2)))
        found, tangent = jax.device_get(derivatives(weights, z, tangents, cotangent))
    (value, gradient), (plain, plain_gradient) = found
    testing.assert_close(value, plain, 1e-6, "images")
    for path, desired in plain_gradient.items():
        testing.assert_close(gradient[path], desired, 1e-5, path)
    forward = np.vdot(tangent, cotangent)
    backward = sum(np.vdot(gradient[path], tangents[path]) for path in gradient)
    scale = np.linalg.norm(tangent) * np.linalg.norm(cotangent)
    testing.assert_close(forward, backward, 1e-10, "adjoint", scale=scale)


def test_demodulated_filters_may_be_scaled():
    """An output filter times a number changes nothing; of ToRGB, which has no such norm, it does."""
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
    """w_avg + factor * (w - w_avg) in the rows asked for, the others as they are; 1 is exact."""
    plain = make()
    params, z = random_params(plain), latents(plain)
    w_plus = np.asarray(plain.map_latent(params, z))
    np.testing.assert_array_equal(w_plus, np.repeat(w_plus[:, :1], 6, axis=1))
    average = params["mapping"]["w_avg"]
    for factor in (0.0, 0.3, 1.7):
        for rows in (None, 0, 4):
            drawn = make(truncation=factor, truncated_rows=rows).map_latent(params, z)
            desired = w_plus.copy()
            desired[:, :rows] = average + factor * (w_plus[:, :rows] - average)
            testing.assert_close(drawn, desired, 1e-6, f"{factor}, {rows}")
    np.testing.assert_array_equal(make(truncated_rows=2).map_latent(params, z), w_plus)


def test_noise_is_constant_absent_or_fresh():
    """None is strength 0; a key replaces the constant noise, each key by its own, each sample's."""
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
    constant = generator.synthesize(params, w_plus)
    absent = make(noise="none").synthesize(params, w_plus)
    testing.assert_close(generator.synthesize(silent, w_plus), absent, 1e-6, "silent")
    np.testing.assert_array_equal(constant[0], constant[1])
    fresh = [generator.synthesize(params, w_plus, jax.random.key(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(fresh[0], fresh[1])
    others = (constant[0], absent[0], fresh[0][1], fresh[2][0])
    assert all(np.max(np.abs(fresh[0][0] - other)) > 1e-2 for other in others)
    again = make(noise="none").synthesize(params, w_plus, jax.random.key(0))
    np.testing.assert_array_equal(again, absent)


@pytest.mark.parametrize("labels", ["embedded", "concatenated"])
def test_mapping_of_labels_equals_its_definition(labels):
    """A label is a layer normalised on its own, or a matrix normalised together with z."""
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


def test_latents_have_all_labels():
    """Each latent is a standard normal z and one of the labels; the same key draws the same."""
    generator = make(**LABELLED)
    drawn = latents(generator, count=300)
    np.testing.assert_array_equal(drawn, latents(generator, count=300))
    counts = drawn[:, 5:].sum(axis=0)
    assert counts.sum() == 300 and np.all(counts > 60)
    testing.assert_close(drawn[:, :5].std(axis=0), np.ones(5), 0.2)


def test_clamp_bounds_features_and_images():
    """Images of one resolution are bounded by the clamp, features by the clamp and their gain."""
    generator = make(clamp=0.1, blocks="orig")
    params, z = random_params(generator), latents(generator)
    bounded = np.asarray(images_of(generator, params, z))
    assert (
        np.max(np.abs(bounded)) <= 0.1 < np.max(np.abs(images_of(make(blocks="orig"), params, z)))
    )
    state = generator.prefix(params, z, generator.find_layers(["b16/torgb"]))
    assert np.max(np.abs(state.x)) <= 0.1


# Files and mistakes.


def test_generator_comes_back_from_its_file(tmp_path):
    """Scalars stay scalars, and what is chosen at run time is no part of the weights."""
    generator = make()
    params = random_params(generator)
    path = tmp_path / "generator.safetensors"
    write_generator(path, "stylegan2", CONFIG, params, {})
    found, weights = read_generator(path)
    assert found == generator and hash(found) == hash(generator)
    for key, leaf in params_lib.flatten(params).items():
        assert leaf.shape == params_lib.get(weights, key).shape
        np.testing.assert_array_equal(leaf, params_lib.get(weights, key))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"z_dim": 0}, "z_dim: expected positive whole numbers"),
        ({"channels": []}, "channels: expected positive whole numbers"),
        ({"mapping_widths": [4, 2.5]}, "mapping_widths: expected positive whole numbers"),
        ({"label_dim": 3}, "label_dim, label_width: expected two positive"),
        ({"labels": "both"}, "labels: expected one of embedded, concatenated; got 'both'"),
        ({"blocks": "dense"}, "blocks: expected one of skip, resnet, orig; got 'dense'"),
        ({"noise": "random"}, "noise: expected one of constant, none; got 'random'"),
        ({"resample_taps": [1.0]}, "resample_taps: expected two or more numbers"),
        ({"resample_taps": [1.0, -1.0]}, "whose sum is not 0"),
        ({"mapping_rate": 0}, "mapping_rate: expected a positive number"),
        ({"clamp": -1}, "clamp: expected a positive number or None"),
        ({"truncated_rows": 7}, "truncated_rows: expected a whole number from 0 to 6"),
    ],
)
def test_mistake_is_told(changes, message):
    """The message says which keyword, what it may be and what it was."""
    with pytest.raises(InputError, match=message):
        make(**changes)
