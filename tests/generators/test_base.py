"""The laws of every generator: a chain of stages that can be cut before any editable layer."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.errors import InputError
from navigan_jax.generators import ARCHITECTURES
from navigan_jax.generators.latent_space import NormalSpace

BATCH = 3


@pytest.fixture(scope="module", params=sorted(testing.TINY_CONFIGS))
def case(request):
    """A generator, its parameters, latents, and their images by one compiled call."""
    generator = testing.tiny_generators()[request.param]
    params = testing.draw_params(generator, 0)
    z = generator.sample_latents(jax.random.key(0), BATCH)
    synthesize = jax.jit(lambda p, z: generator.synthesize(p, generator.map_latent(p, z)))
    images = synthesize(params, z)
    return types.SimpleNamespace(
        generator=generator, params=params, z=z, synthesize=synthesize, images=images
    )


def test_every_architecture_is_tested():
    """A new one needs a small generator in `navigan_jax.testing`."""
    assert testing.TINY_CONFIGS.keys() == ARCHITECTURES.keys()


def test_images_are_finite_and_of_the_declared_size(case):
    """NHWC, float32, different for different latents."""
    generator, images = case.generator, case.images
    assert images.shape == (BATCH, *generator.image_shape)
    assert images.dtype == jnp.float32
    assert np.isfinite(images).all()
    assert np.std(images, axis=0).min(axis=(0, 1)).max() > 0


def test_layers_are_leaves_of_the_parameters_in_the_order_of_their_stages(case):
    """Paths and shapes are those of `init`; no path and no name stands for two layers."""
    generator = case.generator
    shapes = generator.weights
    for layer in generator.layers:
        assert params_lib.get(shapes, layer.path).shape == layer.shape
        assert 0 <= layer.stage < generator.stages
        assert 1 <= layer.resolution <= generator.resolution
    stages = [layer.stage for layer in generator.layers]
    assert stages == sorted(stages)
    names = [name for layer in generator.layers for name in set(layer.names)]
    assert len(names) == len(set(names))
    assert "" not in names


def test_cut_before_any_layer_changes_nothing(case):
    """suffix(prefix(z)) = synthesize(map_latent(z)), for the layers of each stage, and for all."""
    generator = case.generator
    stages = sorted({layer.stage for layer in generator.layers})
    cuts = [[layer for layer in generator.layers if layer.stage == stage] for stage in stages]
    cuts.append(generator.layers)

    @jax.jit
    def all_images(params, z):
        return [generator.suffix(params, generator.prefix(params, z, cut), cut) for cut in cuts]

    for cut, images in zip(cuts, all_images(case.params, case.z), strict=True):
        testing.assert_close(images, case.images, 1e-5, cut[0].path)


def test_prefix_reads_no_weight_of_its_layers_and_ends_just_before(case):
    """A NaN in a layer's weight appears after the layer's stage, and not before it."""
    generator = case.generator
    first_of_stage = {layer.stage: layer for layer in reversed(generator.layers)}
    prefixes = jax.jit(
        lambda params, z: {
            stage: generator.prefix(params, z, [layer]) for stage, layer in first_of_stage.items()
        }
    )
    clean = prefixes(case.params, case.z)
    for layer in generator.layers:
        bad = params_lib.replace(case.params, layer.path, np.full(layer.shape, np.nan, np.float32))
        carries = prefixes(bad, case.z)
        for stage, carry in carries.items():
            if stage <= layer.stage:
                jax.tree.map(np.testing.assert_array_equal, carry, clean[stage])
            else:
                assert any(np.isnan(leaf).any() for leaf in jax.tree.leaves(carry)), layer.path
        assert np.isnan(case.synthesize(bad, case.z)).any(), layer.path


def test_image_does_not_depend_on_its_batch(case):
    """A latent gives the same image alone and in a batch."""
    for index in range(BATCH):
        alone = case.synthesize(case.params, case.z[index : index + 1])
        testing.assert_close(alone[0], case.images[index], 1e-5, f"sample {index}")


def test_jvp_and_vjp_are_adjoint(case):
    """<Jv, w> = <v, J'w> for the image as a function of all editable weights."""
    generator, layers = case.generator, case.generator.layers
    weights = {layer.path: params_lib.get(case.params, layer.path) for layer in layers}

    @jax.jit
    def products(params, z, weights, v, w):
        def images(weights):
            changed = params_lib.unflatten(params_lib.flatten(params) | weights)
            return generator.suffix(changed, generator.prefix(changed, z, layers), layers)

        return jax.jvp(images, (weights,), (v,))[1], jax.vjp(images, weights)[1](w)[0]

    v, w = testing.normal_like(1, weights), testing.normal_like(2, case.images)
    jv, jtw = products(case.params, case.z, weights, v, w)
    back = sum(np.vdot(v[path], jtw[path]) for path in v)
    scale = np.linalg.norm(jv) * np.linalg.norm(w)
    testing.assert_close(np.vdot(jv, w), back, 1e-5, "adjoint", scale=scale)
    for path, gradient in jtw.items():
        assert np.any(gradient != 0), path


def test_equal_generators_share_their_compiled_functions(case):
    """Two generators with the same config are equal, so `jit` traces once."""
    other = testing.tiny_generators()[case.generator.architecture]
    assert other == case.generator
    assert other is not case.generator
    counter = testing.TraceCounter(lambda generator, params, z: generator.map_latent(params, z))
    mapped = jax.jit(counter, static_argnums=0)
    mapped(case.generator, case.params, case.z)
    mapped(other, case.params, case.z)
    assert counter.traces == 1


def test_latents_are_drawn_by_key_and_labelled_where_there_are_labels(case):
    """The same key gives the same latents: z ~ N(0, I), then a one-hot label."""
    generator = case.generator
    draws = [generator.sample_latents(jax.random.key(seed), 500) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    assert draws[0].shape == (500, *generator.space.shape)
    if not isinstance(generator.space, NormalSpace):
        return
    z, label = np.split(np.asarray(draws[0]), [generator.space.movable], axis=1)
    # Five standard errors of mean and variance.
    assert np.abs(z.mean(axis=0)).max() < 5 / np.sqrt(500)
    assert np.abs(z.var(axis=0) - 1).max() < 5 * np.sqrt(2 / 500)
    if generator.space.label_dim:
        assert set(np.unique(label)) == {0, 1}
        np.testing.assert_array_equal(label.sum(axis=1), 1)
        assert label.any(axis=0).all()


def test_layers_are_found_by_each_of_their_names(case):
    """By path or original name, with or without the last part; in the network's order."""
    generator = case.generator
    for layer in generator.layers:
        for name in layer.names:
            assert generator.find_layers([name]) == (layer,)
        assert layer.path.removesuffix("/kernel") in layer.names
    backwards = [layer.path for layer in reversed(generator.layers)]
    assert generator.find_layers(backwards) == generator.layers


def test_unknown_layers_are_told_with_the_known_ones(case):
    """The message proposes the nearest name; a part of a name is not a name."""
    generator = case.generator
    layer = generator.layers[-1]
    name = layer.path.removesuffix("/kernel")
    with pytest.raises(InputError, match=r"^layer: expected a layer of this ") as caught:
        generator.find_layers([name + "x"])
    assert f"got '{name}x'; did you mean {name!r}?; allowed: " in str(caught.value)
    assert str(caught.value).endswith("; set config.layer")
    for known in generator.layers:
        assert f"{known.path} ({known.original_name})" in str(caught.value)
    names = {name for known in generator.layers for name in known.names}
    parts = {name.rpartition(mark)[0] for name in names for mark in "./"} - names
    for wrong in ("zzz", "kernel", *parts):
        with pytest.raises(InputError, match=f"got {wrong!r}"):
            generator.find_layers([wrong])


def test_no_layer_and_the_same_layer_twice_are_refused(case):
    """A layer under two of its names counts as repeated."""
    layer = case.generator.layers[0]
    for names in ([], [layer.path, layer.path], [layer.path, layer.original_name]):
        with pytest.raises(InputError, match=r"one or several different layers; got \[.*allowed: "):
            case.generator.find_layers(names)
