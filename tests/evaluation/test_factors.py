"""Responses of factors: exact if linear, free of the unit of t, followed round if circular."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import testing
from navigan_jax.directions import Edit
from navigan_jax.editing.edit import apply_edit
from navigan_jax.evaluation.factors import Readings, measure_responses, read_factors
from navigan_jax.perceptual import METRICS
from navigan_jax.perceptual.base import distance

SHIFTS = np.array([[-3.0, -1.5, 1.0, 2.0], [-0.3, -0.15, 0.1, 0.2]])
UNITS = np.array([2.0, 1.0, 10.0])
CIRCULAR = (False, True, False)


def _linear(slopes, shifts=SHIFTS, *, latents=5, between=4.0):
    """Readings whose change, in ranges, is slope × p(t), where the distance is between × p²."""
    random = np.random.RandomState(0)
    perceptual = np.sign(shifts) * np.abs(shifts) / np.abs(shifts).max(axis=1, keepdims=True)
    distances = np.repeat(between * perceptual[:, None] ** 2, latents, axis=1)
    original = random.uniform(0, 1, (latents, len(UNITS))) * UNITS
    change = np.einsum("elf,es->elsf", slopes, perceptual)
    return Readings(original[:, None] + change * UNITS, original, distances, between)


def _slopes(*rows, latents=5):
    return np.repeat(np.array(rows)[:, None], latents, axis=1)


def test_linear_responses_are_found_exactly():
    """Slope, size, purity and consistency of a response that is the same for all latents."""
    rows = ([0.3, -0.1, 0.0], [0.0, 0.2, -0.4])
    found = measure_responses(_linear(_slopes(*rows)), SHIFTS, UNITS, CIRCULAR)
    np.testing.assert_allclose(found.mean, rows, atol=1e-12)
    np.testing.assert_allclose(found.size, np.abs(rows), atol=1e-12)
    np.testing.assert_allclose(found.purity, [0.9, 0.8])
    np.testing.assert_allclose(found.consistency, 1)
    assert found.largest.tolist() == [0, 2]
    assert found.reach(0, 0) == pytest.approx(0.3)


def test_the_unit_of_the_shift_does_not_matter():
    """Halving ξ and doubling t leaves all but the shifts themselves."""
    readings = _linear(_slopes([0.3, -0.1, 0.0], [0.0, 0.2, -0.4]))
    found = measure_responses(readings, SHIFTS, UNITS, CIRCULAR)
    other = measure_responses(readings, 2 * SHIFTS, UNITS, CIRCULAR)
    np.testing.assert_array_equal(found.mean, other.mean)
    np.testing.assert_array_equal(found.purity, other.purity)
    assert other.monotone_range(0, 0) == tuple(2 * end for end in found.monotone_range(0, 0))


def test_opposite_responses_cancel_in_the_mean_and_count_in_the_size():
    slopes = _slopes([0.3, 0.0, 0.0], latents=4)
    slopes[:, 1::2] *= -1
    found = measure_responses(_linear(slopes, SHIFTS[:1], latents=4), SHIFTS[:1], UNITS, CIRCULAR)
    np.testing.assert_allclose(found.mean[0, 0], 0, atol=1e-12)
    np.testing.assert_allclose(found.size[0, 0], 0.3)
    np.testing.assert_allclose(found.consistency, 0, atol=1e-12)


def test_circular_factors_are_followed_round():
    """A hue that goes 1.2 turns to one side is read modulo 1, and found whole."""
    shifts = np.array([[-1.0, -0.75, -0.5, -0.25, 0.25, 0.5, 0.75, 1.0]])
    readings = _linear(_slopes([0.0, 1.2, 0.0]), shifts)
    wrapped = readings.values.copy()
    wrapped[..., 1] %= 1
    readings = Readings(wrapped, readings.original, readings.distances, readings.between)
    found = measure_responses(readings, shifts, UNITS, CIRCULAR)
    np.testing.assert_allclose(found.mean[0], [0, 1.2, 0], atol=1e-12)
    plain = measure_responses(readings, shifts, UNITS, (False,) * 3)
    assert abs(plain.mean[0, 1] - 1.2) > 0.1


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([-2.0, -1.0, 1.0, 2.0], (-3.0, 2.0)),
        ([-0.5, -1.0, 1.0, 0.9], (-1.5, 1.0)),
        ([0.1, 0.2, 1.0, 4.0], (0.0, 2.0)),
        ([-2.0, -1.0, -0.1, 3.0], (-3.0, 0.0)),
    ],
)
def test_monotone_range_ends_where_the_factor_turns_back(curve, expected):
    readings = _linear(_slopes([0.0, 0.0, 0.0]), SHIFTS[:1])
    values = readings.values.copy()
    values[0, :, :, 0] = readings.original[:, None, 0] + np.array(curve)
    readings = Readings(values, readings.original, readings.distances, readings.between)
    found = measure_responses(readings, SHIFTS[:1], UNITS, CIRCULAR)
    assert found.monotone_range(0, 0) == expected


def test_a_direction_without_any_change_has_no_response():
    readings = _linear(_slopes([0.0, 0.0, 0.0]), SHIFTS[:1])
    still = Readings(readings.values, readings.original, 0 * readings.distances, 4.0)
    found = measure_responses(still, SHIFTS[:1], UNITS, CIRCULAR)
    assert not found.mean.any() and found.purity.tolist() == [0.0]
    assert found.consistency.tolist() == [0.0]


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
    z = generator.sample_latents(jax.random.key(0), 5)
    return generator, params, layers, np.asarray(z), edits


def _brightness(images):
    images = np.asarray(images)
    return np.stack([images.mean(axis=(1, 2, 3)), images.std(axis=(1, 2, 3))], axis=1)


def _read(case, microbatch, on_edit=lambda: None):
    generator, params, layers, z, edits = case
    return read_factors(
        generator,
        params,
        layers,
        METRICS["l2"](),
        _brightness,
        z,
        edits,
        SHIFTS,
        microbatch=microbatch,
        on_edit=on_edit,
    )


def test_readings_are_those_of_the_edited_images(case):
    """The reference is the whole generator; `between`: the mean distance of neighbours."""
    generator, params, _, z, edits = case
    found = _read(case, len(z))
    synthesize, l2 = jax.jit(generator.synthesize), METRICS["l2"]()
    original = synthesize(params, z)
    testing.assert_close(found.original, _brightness(original), 1e-4)
    testing.assert_close(found.between, distance(l2, original[1:], original[:-1]).mean(), 1e-4)
    for number, edit in enumerate(edits):
        for step, shift in enumerate(SHIFTS[number]):
            images = synthesize(apply_edit(params, edit, jnp.float32(shift)), z)
            testing.assert_close(found.values[number, :, step], _brightness(images), 1e-4)
            testing.assert_close(
                found.distances[number, :, step], distance(l2, images, original), 1e-3
            )


def test_microbatches_change_readings_by_rounding_alone(case):
    """Microbatches that divide the latents and others; one of 1 counts as 2, to have neighbours."""
    calls = []
    whole = _read(case, 64)
    for size in (1, 2, 3):
        parts = _read(case, size, lambda: calls.append(1))
        testing.assert_close(parts.values, whole.values, 1e-5)
        testing.assert_close(parts.distances, whole.distances, 1e-4)
    assert len(calls) == 2 * (3 + 3 + 2)
