"""Edits: θ + tξ is exact, several edits add up, and all ways of rendering agree."""

import contextlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.directions import Edit
from navigan_jax.editing.edit import (
    apply_edit,
    combine,
    make_batch_editor,
    make_look,
    render_shifts,
    shrink,
)
from navigan_jax.generators.base import Generator
from navigan_jax.perceptual import METRICS
from navigan_jax.perceptual.base import distance

DIRECTIONS, SAMPLES = 3, 2


def draw_basis(layers, dtype=np.float32):
    """Directions of unit norm over all layers together, as an edit with a leading axis."""
    shapes = {
        layer.path: jax.ShapeDtypeStruct((DIRECTIONS, *layer.shape), dtype) for layer in layers
    }
    rows = testing.normal_like(7, shapes)
    squares = sum(np.sum(np.reshape(x, (DIRECTIONS, -1)) ** 2, axis=1) for x in rows.values())
    norms = np.sqrt(squares).astype(dtype)
    return Edit({k: np.asarray(x) / norms.reshape(-1, 1, 1, 1, 1) for k, x in rows.items()})


@contextlib.contextmanager
def counted_suffixes():
    """Counts how often the suffix of a generator is traced."""
    counter = testing.TraceCounter(Generator.suffix)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Generator, "suffix", lambda *arguments: counter(*arguments))
        yield counter


def row(basis, index):
    return Edit({path: rows[index] for path, rows in basis.deltas.items()})


@pytest.fixture(scope="module", params=[("conv1",), ("conv0", "conv2")], ids="+".join)
def case(request):
    """A generator with one or two edited layers, and directions of these layers."""
    generator = testing.tiny_generators()["dcgan"]
    layers = generator.find_layers(request.param)
    return types.SimpleNamespace(
        generator=generator,
        layers=layers,
        params=testing.draw_params(generator, 0),
        z=generator.sample_latents(jax.random.key(0), SAMPLES),
        basis=draw_basis(layers),
    )


def test_shift_of_zero_gives_the_same_parameters(case):
    """Edited weights are equal to the bit; all others are the same objects."""
    edit = row(case.basis, 0)
    shifted = apply_edit(case.params, edit, 0.0)
    for path, leaf in params_lib.flatten(case.params).items():
        got = params_lib.get(shifted, path)
        if path in edit.deltas:
            np.testing.assert_array_equal(got, leaf)
            assert got.dtype == leaf.dtype
        else:
            assert got is leaf


def test_shifts_are_linear_and_opposite_within_rounding(case):
    """(θ + tξ) - θ is tξ, and -tξ for -t, to half a unit in the last place of θ + tξ."""
    edit, theta = row(case.basis, 1), case.params
    for shift in (0.25, 3.0, 100.0):
        ahead, back = apply_edit(theta, edit, shift), apply_edit(theta, edit, -shift)
        for path, delta in edit.deltas.items():
            exact = shift * delta.astype(np.float64)
            start = params_lib.get(theta, path).astype(np.float64)
            for got, moved in ((ahead, exact), (back, -exact)):
                error = params_lib.get(got, path) - (start + moved)
                # One rounding of tξ, one of the sum.
                bound = np.finfo(np.float32).eps * (np.abs(exact) + np.abs(start + moved))
                assert np.all(np.abs(error) <= bound)


def test_unknown_layer_and_other_shape_are_refused(case):
    """The message names both."""
    with pytest.raises(ValueError, match="no leaf at 'conv7/kernel'; paths: conv0/kernel"):
        apply_edit(case.params, Edit({"conv7/kernel": np.zeros(1)}), 1.0)
    with pytest.raises(ValueError, match=r"'conv1/kernel' has shape \(4, 4, 6, 5\); got \(6, 5\)"):
        apply_edit(case.params, Edit({"conv1/kernel": np.zeros((6, 5))}), 1.0)


def test_combined_edit_is_the_sum_of_the_edits(case):
    """Σ t_i ξ_i at shift 1 equals applying one edit after the other."""
    edits = [row(case.basis, index) for index in range(DIRECTIONS)]
    shifts = [0.5, -2.0, 0.0]
    at_once = apply_edit(case.params, combine(edits, shifts), 1.0)
    in_turn = case.params
    for edit, shift in zip(edits, shifts, strict=True):
        in_turn = apply_edit(in_turn, edit, shift)
    for path in edits[0].deltas:
        got, expected = params_lib.get(at_once, path), params_lib.get(in_turn, path)
        testing.assert_close(got, expected, 1e-6, path)
    other = Edit({"norm0/bias": np.ones(6, np.float32)})
    both = combine([edits[0], other], [2.0, 3.0])
    assert both.deltas.keys() == {*edits[0].deltas, "norm0/bias"}
    np.testing.assert_array_equal(both.deltas["norm0/bias"], 3 * np.ones(6))
    assert combine([], []).deltas == {}
    with pytest.raises(ValueError, match="shorter"):
        combine(edits, shifts[:1])


def shifted_images(case, edit, shift):
    """The reference: the whole generator with edited parameters, without prefix and suffix."""
    return case.generator.synthesize(apply_edit(case.params, edit, shift), case.z)


def test_batch_editor_is_a_loop_of_single_edits(case):
    """Sample b is edited by direction k_b at t_b, in double precision; one trace for all k, t."""
    with testing.x64():
        basis = draw_basis(case.layers, np.float64)
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, np.float64), case.params)
        z = testing.normal_like(
            3, jax.ShapeDtypeStruct((4, *case.generator.space.shape), np.float64)
        )
        with counted_suffixes() as counter:
            edit_batch = make_batch_editor(case.generator, case.layers)
            for index, shift in (
                ([2, 0, 2, 1], [1.5, -2.0, 0.0, 0.3]),
                ([0, 0, 1, 2], [1, 2, 3, 4]),
            ):
                shift = np.array(shift, np.float64)
                images = edit_batch(params, z, basis, np.array(index), shift)
                loop = [
                    case.generator.synthesize(apply_edit(params, row(basis, k), t), z[b : b + 1])[0]
                    for b, (k, t) in enumerate(zip(index, shift, strict=True))
                ]
                testing.assert_close(images, np.stack(loop), 1e-12)
        assert counter.traces == 1


@pytest.fixture(scope="module")
def rendered(case):
    """Frames of all directions at shifts with 0 in the middle, and the arguments of the call."""
    edits = [row(case.basis, index) for index in range(DIRECTIONS)]
    shifts = np.array([1.0, 0.5, 4.0])[:, None] * np.linspace(-1, 1, 5)[None]
    calls = []
    with counted_suffixes() as counter:
        frames = render_shifts(
            case.generator, case.params, case.layers, case.z, edits, shifts, lambda: calls.append(1)
        )
    return types.SimpleNamespace(
        edits=edits, shifts=shifts, frames=frames, traces=counter.traces, calls=len(calls)
    )


def test_rendering_compiles_once_and_reports_each_edit(case, rendered):
    """Shifts and edits are arguments; axes are edits, samples, steps, then the image."""
    side = case.generator.resolution
    assert rendered.frames.shape == (DIRECTIONS, SAMPLES, 5, side, side, 3)
    assert rendered.traces == 1
    assert rendered.calls == DIRECTIONS


def test_column_of_shift_zero_is_the_original_bit_by_bit(case, rendered):
    """Equal bits in all directions; equal to the plain generator within rounding."""
    middle = rendered.frames[:, :, 2]
    for other in middle[1:]:
        np.testing.assert_array_equal(other, middle[0])
    nothing = Edit({layer.path: np.zeros(layer.shape, np.float32) for layer in case.layers})
    original = render_shifts(
        case.generator, case.params, case.layers, case.z, [nothing], np.zeros((1, 1))
    )
    np.testing.assert_array_equal(middle[0], original[0, :, 0])
    testing.assert_close(middle[0], case.generator.synthesize(case.params, case.z), 1e-5)


def test_large_images_come_as_means_over_squares(case, rendered):
    """Sides are at most `largest`, for any microbatch; smaller images are unchanged."""
    side = case.generator.resolution
    for largest, factor in ((side, 1), (side // 2, 2), (side // 2 + 1, 2), (side // 4, 4)):
        frames = render_shifts(
            case.generator,
            case.params,
            case.layers,
            case.z,
            rendered.edits[:2],
            rendered.shifts[:2],
            microbatch=1,
            largest=largest,
        )
        squares = (2, SAMPLES, 5, side // factor, factor, side // factor, factor, 3)
        expected = rendered.frames[:2].reshape(squares).mean(axis=(4, 6))
        testing.assert_close(frames, expected, 1e-5)


def test_shrunk_images_are_means_of_squares():
    """The smallest squares that fit; a rim is cut off, and small images are unchanged."""
    images = np.arange(2 * 5 * 7 * 3, dtype=np.float32).reshape(2, 5, 7, 3)
    assert shrink(images, 7) is images
    shrunk = shrink(images, 4)
    assert shrunk.shape == (2, 2, 3, 3) and shrunk.dtype == np.float32
    np.testing.assert_allclose(shrunk[1, 1, 2], images[1, 2:4, 4:6].mean(axis=(0, 1)))
    assert shrink(images[0], 2).shape == (1, 1, 3)


def test_shrinking_spreads_no_colour_of_transparent_pixels():
    """Two opaque pixels of four give their mean colour at half the alpha; no opaque pixel, none."""
    images = np.full((2, 4, 4), 0.9, np.float32)
    images[..., -1] = -1.0
    images[0, 0], images[1, 0] = [-0.5, 0, 0, 1], [0.5, 0, 0, 1]
    (left, right) = shrink(images, 2)[0]
    np.testing.assert_allclose(left, [0, 0, 0, 0], atol=1e-6)
    np.testing.assert_array_equal(right, [-1, -1, -1, -1])


def test_frames_are_those_of_the_shifted_generator(case, rendered):
    """Each column has its own shift, and all shifted columns differ from the original."""
    for index, edit in enumerate(rendered.edits):
        for step, shift in enumerate(rendered.shifts[index]):
            expected = shifted_images(case, edit, np.float32(shift))
            testing.assert_close(rendered.frames[index, :, step], expected, 1e-5)
            assert (shift == 0) == np.array_equal(
                rendered.frames[index, :, step], rendered.frames[index, :, 2]
            )


@pytest.mark.parametrize("name", ["l2", "nlpd"])
def test_distance_along_an_edit_is_the_mean_of_the_metric(case, name):
    """E_z d(G_θ(z), G_{θ+tξ}(z)); exactly 0 at t = 0; one trace for all edits and shifts."""
    metric, edit = METRICS[name](), row(case.basis, 2)
    with counted_suffixes() as counter:
        look = make_look(case.generator, case.params, case.layers, metric, case.z, None)
        assert look(edit, 0.0) == (0.0, 0.0)
        for shift in (-3.0, 0.5):
            images = shifted_images(case, edit, 0.0), shifted_images(case, edit, shift)
            expected = float(jnp.mean(distance(metric, *images)))
            assert expected > 0
            testing.assert_close(look(edit, shift)[0], expected, 1e-4)
        look(row(case.basis, 0), 1.0)
    assert counter.traces == 1


def test_edit_of_a_layer_left_behind_is_refused(case):
    """The carry may lie behind that layer, so the edit would have no effect or half of it."""
    edit = Edit({"norm0/scale": np.ones(6, np.float32)})
    message = r"edit: changes \['norm0/scale'\]; layers: \['conv"
    with pytest.raises(ValueError, match=message):
        render_shifts(case.generator, case.params, case.layers, case.z, [edit], np.zeros((1, 1)))
    look = make_look(case.generator, case.params, case.layers, METRICS["l2"](), case.z, None)
    with pytest.raises(ValueError, match=message):
        look(edit, 1.0)
