"""DCGAN: sizes, parameters, and the output of each stage."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.errors import InputError
from navigan_jax.generators.dcgan import dcgan


@pytest.mark.parametrize("widths", [(5,), (5, 4), (7, 5, 4, 3)])
def test_sizes_follow_from_the_widths(widths):
    """4 pixels, doubled by each width; the 4x4 kernels lead from each width to the next."""
    generator = dcgan(z_dim=6, widths=widths, image_channels=2)
    count = len(widths) + 1
    assert generator.resolution == 4 * 2 ** len(widths)
    channels = (6, *widths, 2)
    expected = {f"conv{i}/kernel": (4, 4, channels[i], channels[i + 1]) for i in range(count)}
    parts = ("scale", "bias", "mean", "var")
    expected |= {f"norm{i}/{part}": (widths[i],) for i in range(count - 1) for part in parts}
    shapes = generator.weights
    assert {path: leaf.shape for path, leaf in params_lib.flatten(shapes).items()} == expected
    assert [layer.path for layer in generator.layers] == [f"conv{i}/kernel" for i in range(count)]
    assert [layer.original_name for layer in generator.layers] == [
        f"main.{3 * i}.weight" for i in range(count)
    ]


def test_each_layer_reads_what_the_one_before_gives():
    """Features between layers are not negative, and `resolution` is the output's side."""
    generator = dcgan(z_dim=6, widths=(7, 5), image_channels=2)
    params = testing.draw_params(generator, 0)
    z = generator.sample_latents(jax.random.key(0), 3)
    for before, layer in zip(generator.layers, generator.layers[1:], strict=False):
        carry = generator.prefix(params, z, [layer])
        assert carry.shape == (3, before.resolution, before.resolution, layer.shape[2])
        assert np.min(carry) == 0 < np.max(carry)
    images = generator.synthesize(params, z)
    assert images.shape[1] == generator.layers[-1].resolution
    assert np.abs(images).max() < 1


def test_first_layer_multiplies_z_by_its_kernel():
    """z is one pixel; without normalisation, conv0 is relu(Σ_i z_i kernel_i)."""
    generator = dcgan(z_dim=6, widths=(5,), image_channels=2)
    params = testing.draw_params(generator, 0)
    for part, value in {"scale": 1, "bias": 0, "mean": 0, "var": 1}.items():
        params = params_lib.replace(params, f"norm0/{part}", np.full(5, value, np.float32))
    z = generator.sample_latents(jax.random.key(0), 3)
    kernel = params["conv0"]["kernel"]
    expected = np.einsum("bi,klio->bklo", z, kernel) / np.sqrt(1 + 1e-5)
    got = generator.prefix(params, z, generator.layers[1:])
    testing.assert_close(got, np.maximum(expected, 0), 1e-6)


def test_image_is_odd_in_the_last_kernel():
    """tanh(-x) = -tanh(x), and tanh is the last operation."""
    generator = dcgan(z_dim=6, widths=(5,), image_channels=2)
    params = testing.draw_params(generator, 0)
    z = generator.sample_latents(jax.random.key(0), 3)
    kernel = jnp.asarray(params["conv1"]["kernel"])
    turned = params_lib.replace(params, "conv1/kernel", -kernel)
    np.testing.assert_array_equal(generator.synthesize(turned, z), -generator.synthesize(params, z))


@pytest.mark.parametrize("edited", [(0,), (1, 2), (0, 1, 2)])
def test_edited_layers_alone_are_matrix_products(edited):
    """The other layers stay convolutions, which are faster for fixed weights."""
    generator = dcgan(z_dim=6, widths=(7, 5), image_channels=2)
    params = testing.draw_params(generator, 0)
    layers = [generator.layers[index] for index in edited]
    carry = generator.prefix(params, generator.sample_latents(jax.random.key(0), 3), layers)
    suffix = jax.make_jaxpr(lambda carry: generator.suffix(params, carry, layers))(carry)
    remaining = 3 - edited[0]
    assert str(suffix).count("conv_general_dilated[") == remaining - len(edited)


@pytest.mark.parametrize(
    "change",
    [
        {"z_dim": 0},
        {"z_dim": 2.0},
        {"image_channels": -1},
        {"widths": ()},
        {"widths": (4, 0)},
        {"widths": (4, "5")},
    ],
)
def test_impossible_sizes_are_refused(change):
    """The message names all three sizes and their values."""
    sizes = {"z_dim": 6, "widths": (5, 4), "image_channels": 2} | change
    with pytest.raises(InputError, match=r"^dcgan: expected positive whole numbers z_dim, widths"):
        dcgan(**sizes)
