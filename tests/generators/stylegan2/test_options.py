"""All options of StyleGAN2 together: every computation of its images equals the definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.directions import Edit
from navigan_jax.editing.edit import make_batch_editor
from navigan_jax.generators.files import make_generator
from navigan_jax.generators.stylegan2.network import BLOCKS, LABELS
from navigan_jax.nn import winograd
from tests.generators.stylegan2.definition import image_of

CONFIGS = st.fixed_dictionaries(
    {
        "z_dim": st.integers(2, 4),
        "label_dim": st.sampled_from([0, 3]),
        "labels": st.sampled_from(LABELS),
        "mapping_widths": st.lists(st.integers(2, 5), min_size=1, max_size=2).map(tuple),
        "mapping_rate": st.sampled_from([0.1, 1.0]),
        "channels": st.lists(st.integers(2, 4), min_size=2, max_size=2).map(tuple),
        "image_channels": st.sampled_from([1, 3]),
        "first_size": st.tuples(st.integers(2, 4), st.integers(2, 4)),
        "blocks": st.sampled_from(BLOCKS),
        "resample_taps": st.lists(st.integers(1, 9).map(float), min_size=2, max_size=5).map(tuple),
        "clamp": st.sampled_from([None, 2.0]),
        "noise": st.sampled_from(["constant", "none"]),
        "truncation": st.sampled_from([1.0, 0.6, 1.3]),
        "truncation_cutoff": st.sampled_from([None, 0, 3]),
    }
)
BATCH = 2


def draw(generator, seed):
    """Weights in 64 bits without special values; latents; a change for each sample."""
    shapes = generator.weights
    random = np.random.RandomState(seed)
    params = jax.tree.map(lambda leaf: random.standard_normal(leaf.shape), shapes)
    z = np.asarray(generator.sample_latents(jax.random.key(seed), BATCH), np.float64)
    return params, z, random


def edited_by_loop(config, params, z, path, changes):
    """Returns each sample's image from a network with that sample's weight."""
    flat = params_lib.flatten(params)
    return np.stack(
        [
            image_of(config, params_lib.unflatten(flat | {path: flat[path] + change}), latent)
            for latent, change in zip(z, changes, strict=True)
        ]
    )


# Each example compiles a network of its own, four times over: that takes seconds.
@settings(max_examples=5, deadline=None, phases=[Phase.generate])
@given(CONFIGS, st.integers(0, 99), st.booleans(), st.integers(0, 1000))
def test_every_way_gives_the_images_of_the_definition(config, layer_number, by_winograd, seed):
    """In 64 bits: plain; cut before a layer that is a matrix product, with half of the pixels; with
    that layer changed for each sample, as a change and, by vmap, as a weight.
    """
    if config["label_dim"]:
        config["label_width"] = config["z_dim"] if config["labels"] == "concatenated" else 2
    else:
        config["label_width"] = 0
    generator = make_generator("stylegan2", config)
    layer = generator.layers[layer_number % len(generator.layers)]
    params, z, random = draw(generator, seed)
    rows, index = random.standard_normal((3, *layer.shape)), np.array([2, 0])
    shifts = np.array([0.5, -0.8])
    changes = shifts.reshape(-1, *[1] * len(layer.shape)) * rows[index]

    @jax.jit
    def images(params, z, rows, changes):
        carry = generator.prefix(params, z, [layer])
        edit_batch = make_batch_editor(generator, [layer])
        return {
            "plain": generator.synthesize(params, generator.map_latent(params, z)),
            "cut": generator.suffix(params, carry, [layer], stride=2),
            "beside": generator.suffix_of_changes(params, carry, [layer], {layer.path: changes}),
            "vmap": edit_batch(params, z, Edit({layer.path: rows}), index, jnp.asarray(shifts)),
        }

    with pytest.MonkeyPatch.context() as patch, testing.x64():
        if by_winograd:
            patch.setattr(winograd, "is_worthwhile", lambda *shapes: True)
        made = jax.device_get(images(params, z, rows, changes))
    plain = edited_by_loop(config, params, z, layer.path, 0 * changes)
    edited = edited_by_loop(config, params, z, layer.path, changes)
    wanted = {"plain": plain, "cut": plain[:, ::2, ::2], "beside": edited, "vmap": edited}
    for way, desired in wanted.items():
        testing.assert_close(
            made[way], desired, 1e-9, f"{way}, {layer.path}", scale=1 + np.std(plain)
        )
