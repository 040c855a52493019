"""Layers of StyleGAN2 by their definitions: one kernel for each sample, in 64 bits."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from navigan_jax import testing
from navigan_jax.generators.stylegan2.layers import modulated
from navigan_jax.nn import winograd
from navigan_jax.nn.layers import (
    Factors,
    conv,
    conv_by_matmul,
    conv_transpose,
    conv_transpose_by_matmul,
)
from navigan_jax.nn.resampling import rim_of, smooth
from navigan_jax.nn.winograd import conv3x3, double3x3
from tests.generators.stylegan2.definition import by_definition


def convolutions(up, by_matmul, taps):
    if not up:
        return conv_by_matmul if by_matmul else conv
    double = conv_transpose_by_matmul if by_matmul else conv_transpose
    rim = rim_of(taps)
    return lambda x, kernel: smooth(double(x, kernel, stride=2, padding=-rim), taps, rim)


def draw_change(kind, random, kernel, samples):
    """A change of the kernel for each sample, as given to the layers and as plain arrays."""
    if kind == "none":
        return None, None
    if kind == "dense":
        change = random.standard_normal((samples, *kernel.shape))
        return change, change
    shapes = ((*kernel.shape[:-1], 2), (samples, 2), (2, kernel.shape[-1]))
    left, scale, right = map(random.standard_normal, shapes)
    return Factors(left, scale, right), np.einsum("klir,br,ro->bklio", left, scale, right)


CHANGES = ("none", "dense", "factors")


@settings(max_examples=12, deadline=None)
@given(
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1, 3]),
    st.lists(st.integers(1, 9).map(float), min_size=2, max_size=5),
    st.integers(1, 5),
    st.sampled_from(CHANGES),
    st.integers(0, 1000),
)
def test_modulated_conv_equals_its_definition(
    up, by_matmul, demodulate, side, taps, inputs, kind, seed
):
    """One shared convolution between two scalings equals one with each sample's own kernel.

    Each sample has its own change of the kernel, or two windows in place of a change.
    """
    random = np.random.RandomState(seed)
    windows = 2 if kind == "none" else 1
    x = random.standard_normal((2 * windows, 4, 5, inputs))
    kernel = random.standard_normal((3 if up else side,) * 2 + (inputs, 2))
    style = random.standard_normal((2, inputs))
    change, plain_change = draw_change(kind, random, kernel, 2)
    with testing.x64():
        ways = [convolutions(up, matrix, taps) for matrix in (by_matmul, True)]
        actual = modulated(
            x, kernel, style, ways[0], demodulate=demodulate, change=change, own=ways[1]
        )
    desired = by_definition(x, kernel, style, up, taps, demodulate, plain_change)
    testing.assert_close(actual, desired, 1e-10)


@pytest.mark.parametrize("up", [False, True])
def test_modulated_conv_by_winograd_equals_its_definition(up, monkeypatch):
    """With Winograd's method, forced for tiny arrays, and with all kinds of changes."""
    monkeypatch.setattr(winograd, "is_worthwhile", lambda *shapes: True)
    random, taps = np.random.RandomState(5), (1.0, 3.0, 3.0, 1.0)
    x, kernel = random.standard_normal((2, 5, 6, 3)), random.standard_normal((3, 3, 3, 2))
    style = random.standard_normal((2, 3))
    changes = {kind: draw_change(kind, random, kernel, 2) for kind in CHANGES}

    def fast(x, kernel):
        return smooth(double3x3(x, kernel), taps, 1) if up else conv3x3(x, kernel)

    @jax.jit
    def run(x, kernel, style, changes):
        own = convolutions(up, True, taps)
        return {
            (kind, demodulate): modulated(
                x, kernel, style, fast, demodulate=demodulate, change=changes[kind], own=own
            )
            for kind in CHANGES
            for demodulate in (False, True)
        }

    with testing.x64():
        arguments = (x, kernel, style, {kind: change for kind, (change, _) in changes.items()})
        lowered = run.lower(*arguments)
        actual = jax.device_get(run(*arguments))
    assert lowered.as_text().count("dot_general") > 2 * 16  # of the points of two convolutions
    for (kind, demodulate), images in actual.items():
        desired = by_definition(x, kernel, style, up, taps, demodulate, changes[kind][1])
        testing.assert_close(images, desired, 1e-11, f"{kind}, {demodulate}")


def test_turned_kernel_is_another_one():
    """Control: the test detects a kernel turned by 180 degrees, as TensorFlow stores it."""
    random = np.random.RandomState(0)
    x, kernel = random.standard_normal((1, 4, 4, 2)), random.standard_normal((3, 3, 2, 2))
    style = random.standard_normal((1, 2))
    convolve = convolutions(True, False, (1, 3, 3, 1))
    actual = modulated(x, kernel[::-1, ::-1], style, convolve, demodulate=True)
    desired = by_definition(x, kernel, style, True, (1, 3, 3, 1), True)
    with pytest.raises(AssertionError, match="relative error"):
        testing.assert_close(actual, desired, 0.1)


def test_no_kernel_is_made_for_a_single_sample():
    """Every intermediate array is smaller than one kernel per sample would be."""
    shapes = [(64, 4, 4, 32), (3, 3, 32, 32), (64, 32)]
    arguments = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    program = jax.make_jaxpr(lambda *a: modulated(*a, conv, demodulate=True))(*arguments)
    sizes = [variable.aval.size for step in program.eqns for variable in step.outvars]
    assert max(sizes) < shapes[0][0] * np.prod(shapes[1])
