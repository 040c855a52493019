"""Features in bfloat16: close to float32, always rounded, and small edits keep their effect."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.directions import Edit
from navigan_jax.editing.edit import render_shifts
from navigan_jax.errors import InputError
from navigan_jax.generators.files import make_generator, read_generator, write_generator
from navigan_jax.nn.layers import shorten, widen

CONFIGS = {
    "dcgan": {"z_dim": 16, "widths": (16, 12), "image_channels": 3},
    "stylegan2": {**testing.TINY_CONFIGS["stylegan2"], "mapping_rate": 1.0, "channels": (16, 12)},
}
LAYERS = {"dcgan": "conv1", "stylegan2": "synthesis/b8/conv0"}


@pytest.fixture(scope="module", params=CONFIGS)
def case(request):
    """The same network in both precisions, with one program for images and one for derivatives."""
    long, short = (
        make_generator(request.param, {**CONFIGS[request.param], "precision": precision})
        for precision in ("float32", "bfloat16")
    )
    params = params_lib.to_device(draw(long))
    (layer,) = long.find_layers([LAYERS[request.param]])

    @functools.partial(jax.jit, static_argnums=0)
    def run(generator, weight, tangent, z):
        def images(weight):
            changed = params_lib.replace(params, layer.path, weight)
            return generator.suffix(changed, generator.prefix(changed, z, [layer]), [layer])

        value, derivative = jax.linearize(images, weight)
        (gradient,) = jax.linear_transpose(derivative, weight)(value)
        return value, derivative(tangent), gradient

    return types.SimpleNamespace(
        long=long,
        short=short,
        params=params,
        layer=layer,
        weight=params_lib.get(params, layer.path),
        z=long.sample_latents(jax.random.key(1), 64),
        run=run,
    )


def draw(generator):
    """Weights with which images differ from sample to sample."""
    params = testing.draw_params(generator, 0)
    return params_lib.unflatten(
        {
            path: leaf / 0.3
            if path.startswith(("mapping", "synthesis")) and leaf.ndim > 1
            else leaf
            for path, leaf in params_lib.flatten(params).items()
        }
    )


def relative(actual, desired):
    """Returns the root mean square of the difference, relative to that of `desired`."""
    return float(np.linalg.norm(np.ravel(actual - desired)) / np.linalg.norm(np.ravel(desired)))


def cosine(actual, desired):
    return np.vdot(actual, desired) / np.linalg.norm(actual) / np.linalg.norm(desired)


def test_images_and_derivatives_are_near_those_of_float32(case):
    """One rounding is at most 2^-9; after several layers the difference is not much larger."""
    tangent = testing.normal_like(2, case.weight)
    short, long = (case.run(g, case.weight, tangent, case.z) for g in (case.short, case.long))
    assert all(array.dtype == np.float32 for array in short)
    assert 2**-13 < relative(short[0], long[0]) < 2**-6
    for name, derivative, desired in zip(("along", "gradient"), short[1:], long[1:], strict=True):
        assert cosine(derivative, desired) > 0.998, name


def carry_before(generator, layer_name):
    """Returns shapes and dtypes of the layer's input."""
    shapes = generator.weights
    z = jax.ShapeDtypeStruct((2, *generator.space.shape), np.float32)
    layers = generator.find_layers([layer_name])
    return jax.eval_shape(lambda p, z: generator.prefix(p, z, layers), shapes, z)


def test_only_features_are_short():
    """The features and the residual between stages are bfloat16; w and image are not."""
    dcgan, skip, resnet = (
        make_generator(name, {**CONFIGS[name], **changes, "precision": "bfloat16"})
        for name, changes in (
            ("dcgan", {}),
            ("stylegan2", {}),
            ("stylegan2", {"blocks": "resnet"}),
        )
    )
    assert carry_before(dcgan, "conv2").dtype == jnp.bfloat16
    state = carry_before(skip, "synthesis/b8/conv0")
    assert (state.x.dtype, state.w_plus.dtype) == (jnp.bfloat16, np.float32)
    assert state.image.dtype == np.float32
    state = carry_before(resnet, "synthesis/b8/conv0")
    assert state.x.dtype == state.residual.dtype == jnp.bfloat16


def test_small_edit_is_felt_as_in_float32(case):
    """The edit is 1e-3 of every weight, less than half a unit in the last place of bfloat16.

    On average over all pixels the images move as far along the float32 change as that change is
    long, and the rest is rounding. Control: rounded weights do not change at all.
    """
    weight = widen(shorten(case.weight, "bfloat16"))
    edit = 1e-3 * weight * np.sign(testing.normal_like(3, weight))
    assert np.linalg.norm(edit) == pytest.approx(1e-3 * np.linalg.norm(weight), rel=1e-3)
    moves = []
    for generator in (case.short, case.long):
        ends = [case.run(generator, w, edit, case.z)[0] for w in (weight, weight + edit)]
        moves.append(np.ravel(ends[1] - ends[0]))
    felt, wanted = moves
    assert np.vdot(felt, wanted) / np.vdot(wanted, wanted) == pytest.approx(1, abs=0.2)
    np.testing.assert_array_equal(widen(shorten(weight + edit, "bfloat16")), weight)


def test_shift_of_zero_gives_the_bits_of_the_original(case):
    """For every direction, in the programs of both precisions."""
    deltas = [Edit({case.layer.path: testing.normal_like(k, case.weight)}) for k in range(2)]
    frames = render_shifts(
        case.short, case.params, [case.layer], case.z[:2], deltas, np.array([[0.0, 0.5]] * 2)
    )
    np.testing.assert_array_equal(frames[0, :, 0], frames[1, :, 0])
    assert np.all(np.any(frames[:, :, 0] != frames[:, :, 1], axis=(2, 3, 4)))


def test_rounding_is_that_of_bfloat16():
    """To nearest, ties to even; float32 is unchanged."""
    x = testing.normal_like(4, np.zeros(1000, np.float32))
    short = jax.jit(lambda x: widen(shorten(x, "bfloat16")))(x)
    np.testing.assert_array_equal(short, np.asarray(x.astype(jnp.bfloat16), np.float32))
    assert shorten(x, "float32") is x and widen(x) is x


def test_file_leaves_the_precision_open(tmp_path):
    """The precision is chosen when the file is read; the message lists the allowed words."""
    for name in ("dcgan", "stylegan2"):
        config, path = CONFIGS[name], tmp_path / name
        write_generator(
            path, name, config, testing.draw_params(make_generator(name, config), 0), {}
        )
        short = make_generator(name, {**config, "precision": "bfloat16"})
        assert read_generator(path, {"precision": "bfloat16"})[0] == short
        with pytest.raises(InputError, match="expected one of float32, bfloat16; got 'half'"):
            read_generator(path, {"precision": "half"})
