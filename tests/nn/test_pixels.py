"""Images from windows around the wanted pixels, against whole images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.generators.files import make_generator
from navigan_jax.nn.pixels import plan

CONFIG = {
    "z_dim": 3,
    "label_dim": 0,
    "label_width": 0,
    "labels": "embedded",
    "mapping_widths": (4,),
    "mapping_rate": 0.1,
    "channels": (2, 3, 2, 3, 2),
    "image_channels": 2,
    "clamp": None,
}

# Kind of blocks, filter, stride, layers whose weights move (whole ones and ones of windows), first
# size. The strides are those of 64 of 1024 and of 512 pixels; by them alone windows are planned.
CASES = [
    ("skip", (1, 3, 3, 1), 16, ("b16/conv0", "b64/conv0", "b64/torgb/affine"), (4, 4)),
    ("skip", (1, 3, 3, 1), 8, ("b32/conv0", "b64/torgb"), (4, 6)),
    ("resnet", (1, 3, 4, 2), 8, ("b32/conv1", "b64/skip", "b64/conv1"), (4, 4)),
    ("orig", (1, 2, 4), 8, ("b32/conv0",), (4, 4)),
]


@pytest.mark.parametrize(("blocks", "taps", "stride", "names", "first_size"), CASES)
def test_wanted_pixels_and_their_derivatives_are_those_of_whole_images(
    blocks, taps, stride, names, first_size
):
    """In 64 bits; windows at the image's border read zeros, as the whole image does."""
    changes = {"blocks": blocks, "resample_taps": taps, "first_size": first_size}
    generator = make_generator("stylegan2", CONFIG | changes)
    layers = generator.find_layers([f"synthesis/{name}" for name in names])
    shapes = generator.weights

    @functools.partial(jax.jit, static_argnums=0)
    def images_and_gradient(wanted, params, z, cotangent):
        carry = generator.prefix(params, z, layers)

        def images(weights):
            changed = params_lib.unflatten(params_lib.flatten(params) | weights)
            made = generator.suffix(changed, carry, layers, stride=wanted)
            return made if wanted == stride else made[:, ::stride, ::stride]

        weights = {layer.path: params_lib.get(params, layer.path) for layer in layers}
        value, pull_back = jax.vjp(images, weights)
        return value, pull_back(cotangent)[0]

    with testing.x64():
        params = jax.tree.map(
            lambda leaf: jnp.asarray(leaf, np.float64), testing.normal_like(0, shapes)
        )
        z = np.random.RandomState(1).standard_normal((2, 3))
        height, width = (length // stride for length in generator.image_shape[:2])
        cotangent = np.random.RandomState(2).standard_normal((2, height, width, 2))
        actual = jax.device_get(images_and_gradient(stride, params, z, cotangent))
        desired = jax.device_get(images_and_gradient(1, params, z, cotangent))
    testing.assert_close(actual[0], desired[0], 1e-11, "images")
    for path, gradient in desired[1].items():
        testing.assert_close(actual[1][path], gradient, 1e-10, path)
    with pytest.raises(AssertionError, match="relative error"):
        testing.assert_close(actual[0], np.roll(desired[0], 1, axis=1), 1e-2)


@pytest.mark.parametrize("blocks", [8, 9])
def test_images_of_512_and_1024_pixels_are_made_at_64(blocks):
    """In float32, to rounding: every 8th and every 16th pixel of the whole image."""
    changes = {"channels": (2,) * blocks, "blocks": "skip", "resample_taps": (1, 3, 3, 1)}
    generator = make_generator("stylegan2", CONFIG | changes)
    params = testing.draw_params(generator, 0)
    z, layers = generator.sample_latents(jax.random.key(0), 1), generator.layers[-2:]
    stride = generator.resolution // 64

    @jax.jit
    def both(params, z):
        carry = generator.prefix(params, z, layers)
        whole = generator.suffix(params, carry, layers)
        return generator.suffix(params, carry, layers, stride=stride), whole[:, ::stride, ::stride]

    made, wanted = both(params, z)
    assert made.shape == (1, 64, 64, 2)
    testing.assert_close(made, wanted, 1e-5)


def test_windows_begin_where_they_are_cheaper():
    """At 1024 px and 64 wanted: one pixel of the last layer, then 3, from a window of 4 before it.

    At 512 px both convolutions read more; windows of the transposed one would overlap there, so it
    runs on the whole image.
    """
    steps = [(0, "conv1"), (0, "torgb")]
    steps += [(b, part) for b in range(1, 9) for part in ("conv0", "conv1", "torgb")]
    views = plan(steps, "skip", (1, 3, 3, 1), 16)
    sizes = {steps[number]: (before.x.size, after.x) for number, (before, after) in views.items()}
    assert {step: size for step, (size, _) in sizes.items()} == {
        (8, "torgb"): 1,
        (8, "conv1"): 3,
        (8, "conv0"): 4,
        (7, "torgb"): 4,
        (7, "conv1"): 6,
    }
    assert plan(steps, "skip", (1, 3, 3, 1), 1) == plan(steps, "skip", (1, 3, 3, 1), 3) == {}


def test_stride_has_to_divide_the_side():
    generator = testing.tiny_generators()["stylegan2"]
    with pytest.raises(ValueError, match="stride: expected a divisor of 8; got 3"):
        generator.suffix({}, None, generator.layers, stride=3)
