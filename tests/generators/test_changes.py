"""Weights that change from sample to sample, against one generator per sample."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.nn.layers import Factors, dense_change

GENERATORS = testing.tiny_generators()
BATCH, FACTORS = 3, 2
# One layer for each way in which a weight is used.
CASES = (
    ("dcgan", "conv0", "dense"),
    ("dcgan", "conv1", "factors"),
    ("stylegan2", "mapping/fc1", "dense"),
    ("stylegan2", "synthesis/b4/conv1", "dense"),
    ("stylegan2", "synthesis/b8/conv0", "factors"),
    ("stylegan2", "synthesis/b8/torgb", "factors"),
    ("sngan", "block0/conv2", "factors"),
    ("biggan", "block0/bn1/gain", "factors"),
    ("biggan", "attention0/theta", "dense"),
    ("biggan_deep", "layer2/conv_1", "factors"),
    ("pix2pixhd", "enhancer1_conv", "factors"),
    ("pix2pixhd", "global_up0", "factors"),
    ("proggan", "layer0/conv", "dense"),
)


def draw_change(shape, form):
    """A change for each sample, about as large as the weights."""
    random = np.random.RandomState(len(shape) + sum(shape))
    if form == "dense":
        return jnp.asarray(0.3 * random.standard_normal((BATCH, *shape)), jnp.float32)
    shapes = (*shape[:-1], FACTORS), (BATCH, FACTORS), (FACTORS, shape[-1])
    return Factors(*(jnp.asarray(0.5 * random.standard_normal(s), jnp.float32) for s in shapes))


def images_of_own_weights(generator, params, z, layer, change):
    """Returns each sample's image from a generator with that sample's weight."""

    def one(row, delta):
        changed = params_lib.add(params, layer.path, delta)
        carry = generator.prefix(changed, row[None], [layer])
        return generator.suffix(changed, carry, [layer])[0]

    return jax.vmap(one)(z, dense_change(change))


@pytest.mark.parametrize(("name", "layer_name", "form"), CASES)
def test_changes_are_those_of_one_generator_for_each_sample(name, layer_name, form):
    """Images and gradients by the change; a control swaps the changes of samples."""
    generator = GENERATORS[name]
    (layer,) = generator.find_layers([layer_name])
    params = params_lib.to_device(testing.draw_params(generator, 1))
    if "mapping" in params:  # its rate would hide what changes there
        params = {**params, "mapping": jax.tree.map(lambda x: 100 * x, params["mapping"])}
    z = generator.sample_latents(jax.random.key(2), BATCH)
    change = draw_change(layer.shape, form)

    def ours(change):
        carry = generator.prefix(params, z, [layer])
        return generator.suffix_of_changes(params, carry, [layer], {layer.path: change})

    def own(change):
        return images_of_own_weights(generator, params, z, layer, change)

    @jax.jit
    def compare(change, cotangent):
        results = []
        for images in (ours, own):
            value, derivative = jax.vjp(images, change)
            results.append((value, derivative(cotangent)[0]))
        return results

    shape = (BATCH, *generator.image_shape)
    cotangent = testing.normal_like(3, jnp.zeros(shape))
    (images, gradient), (expected, expected_gradient) = compare(change, cotangent)
    testing.assert_close(images, expected, 2e-5)
    for pair in zip(*map(jax.tree.leaves, (gradient, expected_gradient)), strict=True):
        testing.assert_close(*pair, 1e-4)
    swapped = jax.tree.map(lambda leaf: leaf[::-1] if len(leaf) == BATCH else leaf, change)
    other, _ = compare(swapped, cotangent)[0]
    with pytest.raises(AssertionError, match="relative error"):
        testing.assert_close(other, expected, 1e-3)


@pytest.mark.parametrize("name", GENERATORS)
def test_no_changes_give_the_same_images(name):
    generator = GENERATORS[name]
    params = testing.draw_params(generator, 4)
    z = generator.sample_latents(jax.random.key(5), BATCH)
    layers = generator.layers[-1:]

    @jax.jit
    def both(params, z):
        carry = generator.prefix(params, z, layers)
        changed = generator.suffix_of_changes(params, carry, layers, {})
        return changed, generator.suffix(params, carry, layers)

    testing.assert_close(*both(params, z), 2e-5)


def test_changes_of_other_layers_or_shapes_are_refused():
    """Otherwise a change that no layer reads would be ignored silently."""
    generator = GENERATORS["dcgan"]
    params = testing.draw_params(generator, 6)
    layer, other = generator.layers[:2]
    carry = jnp.zeros((BATCH, *generator.space.shape))
    for changed, shape in ((other, other.shape), (layer, other.shape)):
        with pytest.raises(ValueError, match=r"changes: .*has shape"):
            change = {changed.path: jnp.zeros((BATCH, *shape))}
            generator.suffix_of_changes(params, carry, [layer], change)
