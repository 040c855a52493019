"""Maps of change equal their definition for any microbatch; half areas equal those by hand."""

import jax
import numpy as np
import pytest

from navigan_jax import testing
from navigan_jax.channels import over
from navigan_jax.directions import Edit
from navigan_jax.editing.edit import apply_edit
from navigan_jax.evaluation import locality

LATENTS, STEPS = 5, 4


@pytest.fixture(scope="module")
def case():
    generator = testing.tiny_generators()["dcgan"]
    params = testing.draw_params(generator, 0)
    layers = generator.find_layers(["conv1"])
    random = np.random.RandomState(1)
    edits = [
        Edit({layers[0].path: random.standard_normal(layers[0].shape).astype(np.float32) / 9})
        for _ in range(2)
    ]
    z = generator.sample_latents(jax.random.key(0), LATENTS)
    shifts = np.array([[-2.0, -1.0, 1.0, 2.0], [-0.5, 0.0, 0.5, 1.0]])
    return generator, params, layers, np.asarray(z), edits, shifts


@pytest.mark.parametrize("count", [2, 4])
def test_map_with_alpha_is_the_mean_of_those_over_black_and_white(count):
    original, *edited = np.random.RandomState(0).uniform(-1.2, 1.2, (4, 5, 7, count))
    alone = [
        locality.change_map(over(original, ground), over(np.array(edited), ground))
        for ground in (-1.0, 1.0)
    ]
    found = locality.change_map(original, np.array(edited))
    np.testing.assert_allclose(found, np.mean(alone, axis=0))


def test_map_is_the_mean_of_squared_differences(case):
    """The reference is the whole generator, with pixels from 0 to 1, in float32's tolerance."""
    generator, params, layers, z, edits, shifts = case
    got = locality.change_maps(generator, params, layers, z, edits, shifts, microbatch=LATENTS)
    synthesize = jax.jit(generator.synthesize)
    original = np.asarray(synthesize(params, z), np.float64)
    for number, (edit, row) in enumerate(zip(edits, shifts, strict=True)):
        changes = []
        for shift in row:
            edited = np.asarray(synthesize(apply_edit(params, edit, np.float32(shift)), z))
            changes.append((((edited - original) / 2) ** 2).mean(axis=(0, 3)))
        testing.assert_close(got[number], np.mean(changes, axis=0), 1e-4)
    one = np.stack(
        [synthesize(apply_edit(params, edits[0], np.float32(t)), z[:1])[0] for t in shifts[0]]
    )
    single = locality.change_maps(
        generator, params, layers, z[:1], edits[:1], shifts[:1], microbatch=4
    )
    testing.assert_close(locality.change_map(original[0], one), single[0], 1e-4)


def test_batches_change_the_map_by_rounding_alone(case):
    """Microbatches that divide the latents, and others; `on_batch` counts edits times batches."""
    generator, params, layers, z, edits, shifts = case
    calls = []
    maps = [
        locality.change_maps(
            generator,
            params,
            layers,
            z,
            edits,
            shifts,
            microbatch=size,
            on_batch=lambda: calls.append(1),
        )
        for size in (1, 2, 64)
    ]
    for other in maps[1:]:
        testing.assert_close(other, maps[0], 1e-5)
    assert len(calls) == 2 * (5 + 3 + 1)


def test_half_area_of_known_maps():
    """An even change: half of the pixels. A single pixel: half of it. No change: as an even one."""
    assert locality.half_area(np.full((10, 10), 3.0)) == pytest.approx(0.5)
    single = np.zeros((10, 10))
    single[3, 4] = 2.0
    assert locality.half_area(single) == pytest.approx(0.005)
    block = np.zeros((10, 10))
    block[:5, :4] = 1.0
    assert locality.half_area(block) == pytest.approx(0.1)
    assert locality.half_area(np.zeros((10, 10))) == 0.5
