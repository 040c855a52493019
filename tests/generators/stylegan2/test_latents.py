"""The choices of a user of StyleGAN2: latents, classes, noise, sizes, layers by name."""

import functools

import jax
import numpy as np
import pytest

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.errors import InputError
from navigan_jax.generators.base import mix_latents
from navigan_jax.generators.files import make_generator
from tests.generators.stylegan2.definition import CONFIG, LABELLED


def make(**changes):
    return make_generator("stylegan2", CONFIG | LABELLED | changes)


@pytest.fixture(scope="module")
def params():
    shapes = jax.eval_shape(make().init, jax.random.key(0))
    return jax.tree.map(np.asarray, testing.normal_like(0, shapes))


@functools.partial(jax.jit, static_argnums=0)
def images_of(generator, params, latent):
    return generator.synthesize(params, generator.map_latent(params, latent))


def test_class_of_all_latents_may_be_told():
    """By index, by name, or at random; the message for a wrong class lists the classes."""
    names = ["cat", "dog", "2x"]
    key = jax.random.key(0)
    for label in ("dog", 1, "1"):
        z = make(label_names=names, label=label).sample_latents(key, 4)
        np.testing.assert_array_equal(z[:, 5:], np.tile([0, 1, 0], (4, 1)))
    free = make(label_names=names).sample_latents(key, 4)
    np.testing.assert_array_equal(z[:, :5], free[:, :5])
    assert len(np.unique(free[:, 5:], axis=0)) > 1
    with pytest.raises(InputError, match=r"got 'dig'; did you mean 'dog'\?; allowed: 0 to 2, or"):
        make(label_names=names, label="dig")
    with pytest.raises(InputError, match=r"got '3'; allowed: 0 to 2$"):
        make(label=3)
    with pytest.raises(InputError, match="allowed: none, as it has no classes"):
        make(label_dim=0, label_width=0, label=0)
    with pytest.raises(InputError, match="label_names: expected 3 different names, or none"):
        make(label_names=["a", "b", "a"])


def test_latents_of_all_kinds_give_the_same_images(params):
    """z, and its w_plus, whose rows may be mixed; layers of the mapping need z."""
    generator = make()
    z = generator.sample_latents(jax.random.key(1), 2)
    w_plus = jax.jit(generator.map_latent)(params, z)
    np.testing.assert_array_equal(generator.map_latent(params, w_plus), w_plus)
    images = images_of(generator, params, z)
    testing.assert_close(images_of(generator, params, w_plus), images, 1e-6, "images")
    layers = generator.find_layers(["to_rgb1", "convs.1"])

    @jax.jit
    def cut(params, latents):
        carries = [generator.prefix(params, latent, layers) for latent in latents]
        return [generator.suffix(params, carry, layers) for carry in carries]

    for made in cut(params, (z, w_plus)):
        testing.assert_close(made, images, 1e-5, "images")
    message = r"expected z, .*; got w_plus and layers of the mapping \(mapping/fc1/kernel\); give z"
    with pytest.raises(InputError, match=message):
        generator.prefix(params, w_plus, generator.find_layers(["style.2", "convs.1"]))
    other = w_plus[::-1]
    for row in range(w_plus.shape[1] + 1):
        mixed = mix_latents(w_plus, other, row)
        np.testing.assert_array_equal(mixed[:, :row], w_plus[:, :row])
        np.testing.assert_array_equal(mixed[:, row:], other[:, row:])


def test_images_and_derivatives_are_the_same_by_layers_of_every_kind(params):
    """Embedding, mapping, styles, convolutions and ToRGB edited at once.

    Cut before the first of them and computed by matrix products, the network gives the same images
    and derivatives.
    """
    generator = make()
    names = ["mapping.embed", "style.2", "conv1.modulation", "0", "convs.1", "to_rgbs.0"]
    layers = generator.find_layers(names)
    z = generator.sample_latents(jax.random.key(1), 2)
    deltas = {
        layer.path: 0.1 * testing.normal_like(index, params_lib.get(params, layer.path))
        for index, layer in enumerate(layers)
    }

    def edited(t, by_layers):
        changed = params
        for path, delta in deltas.items():
            changed = params_lib.add(changed, path, t * delta)
        if not by_layers:
            return generator.synthesize(changed, generator.map_latent(changed, z))
        return generator.suffix(changed, generator.prefix(params, z, layers), layers)

    @jax.jit
    def derivatives(t):
        functions = [functools.partial(edited, by_layers=by) for by in (False, True)]
        return [jax.jvp(function, (t,), (1.0,)) for function in functions]

    plain, ours = derivatives(0.5)
    for got, want in zip(ours, plain, strict=True):
        testing.assert_close(got, want, 1e-4, "images and their derivatives")


def test_random_noise_is_another_draw_for_all_samples(params):
    """It depends only on the seed, differs between layers, and vanishes at strength 0."""
    z = np.repeat(make().sample_latents(jax.random.key(1), 1), 2, axis=0)
    first, again, second, constant = (
        np.asarray(images_of(make(**options), params, z))
        for options in (
            {"noise": "random", "noise_seed": 1},
            {"noise": "random", "noise_seed": 1},
            {"noise": "random", "noise_seed": 2},
            {},
        )
    )
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first[0], first[1], rtol=1e-5, atol=1e-5)
    for other in (second, constant):
        assert np.max(np.abs(first - other)) > 0.01 * np.std(first)
    silent = params_lib.unflatten(
        {
            path: 0 * leaf if path.endswith("noise_strength") else leaf
            for path, leaf in params_lib.flatten(params).items()
        }
    )
    with_none = images_of(make(noise="none"), params, z)
    testing.assert_close(images_of(make(noise="random"), silent, z), with_none, 1e-6, "images")


def test_images_are_as_oblong_as_the_constant(params):
    """Turned weights, constant and noise give the turned image: height and width are never mixed
    up. All later sizes double.
    """
    tall, wide = make(first_size=(3, 5)), make(first_size=(5, 3))
    assert tall.image_shape == (6, 10, 2) and wide.image_shape == (10, 6, 2)
    shapes = params_lib.flatten(jax.eval_shape(tall.init, jax.random.key(0)))
    random = np.random.RandomState(0)
    drawn = {
        path: random.standard_normal(leaf.shape).astype(np.float32) for path, leaf in shapes.items()
    }
    turned = {
        path: leaf.swapaxes(0, 1) if leaf.ndim == 4 or path.endswith(("const", "/noise")) else leaf
        for path, leaf in drawn.items()
    }
    w_plus = random.standard_normal((2, 4, 7)).astype(np.float32)
    image = images_of(tall, params_lib.unflatten(drawn), w_plus)
    other = images_of(wide, params_lib.unflatten(turned), w_plus)
    assert image.shape == (2, 6, 10, 2)
    testing.assert_close(other.swapaxes(1, 2), image, 1e-5, "turned image")
    with pytest.raises(InputError, match="first_size: expected two positive whole numbers"):
        make(first_size=(4, 0))


def test_layers_are_found_by_the_names_that_people_know():
    """NaviGAN's index and names, and NVIDIA's names in both programs, with each resolution."""
    generator = make(channels=[5, 4, 3, 2])
    for number in range(6):
        side, part = 8 * 2 ** (number // 2), number % 2
        tensorflow = f"{side}x{side}/{('Conv0_up', 'Conv1')[part]}"
        path = f"synthesis/b{side}/conv{part}/kernel"
        names = [str(number), f"convs.{number}", f"convs.{number}.conv.weight", path, tensorflow]
        names += [f"b{side}.conv{part}", f"synthesis.b{side}.conv{part}"]
        for name in names:
            (layer,) = generator.find_layers([name])
            assert (layer.path, layer.number, layer.resolution) == (path, number, side)
    others = {
        "mapping/fc1/kernel": ["style.2", "style.2.weight", "mapping.fc1", "mapping/Dense1"],
        "mapping/embed/kernel": ["mapping.embed"],
        "synthesis/b4/conv1/kernel": ["conv1", "conv1.conv.weight", "4x4/Conv", "b4.conv1"],
        "synthesis/b4/torgb/kernel": ["to_rgb1", "to_rgb1.conv.weight", "4x4/ToRGB"],
        "synthesis/b16/torgb/kernel": ["to_rgbs.1", "16x16/ToRGB", "synthesis.b16.torgb"],
        "synthesis/b8/conv1/affine/kernel": [
            *("convs.1.modulation", "convs.1.conv.modulation.weight"),
            *("b8.conv1.affine", "synthesis.b8.conv1.affine", "synthesis/b8/conv1/affine"),
        ],
    }
    for path, names in others.items():
        for name in names:
            (layer,) = generator.find_layers([name])
            assert layer.path == path and layer.number is None
