"""Pixels become the right bytes, and a showcase refuses parts that do not match."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from navigan_jax.errors import InputError
from navigan_jax.showcase import base

Make = Callable[..., base.Showcase]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_to_uint8_gives_every_byte_back(dtype: type) -> None:
    """All 256 bytes survive as floats in [-1, 1]; half precision errs by 1/4 of a byte."""
    pixels = np.arange(256, dtype=np.uint8)
    images = (pixels.astype(np.float64) / 127.5 - 1).astype(dtype)
    np.testing.assert_array_equal(base.to_uint8(images), pixels)


def test_to_uint8_clamps_and_never_wraps() -> None:
    images = np.array([-1e30, -1.01, -1.0, 0.0, 1.0, 1.01, 1.02, 300.0], np.float32)
    np.testing.assert_array_equal(base.to_uint8(images), [0, 0, 0, 128, 255, 255, 255, 255])


def test_to_uint8_rounds_to_the_nearest() -> None:
    """Away from ties, the byte is the nearest to (x + 1) · 127.5."""
    images = np.random.default_rng(0).uniform(-1, 1, 10_000).astype(np.float32)
    error = base.to_uint8(images) - (images.astype(np.float64) + 1) * 127.5
    assert np.abs(error).max() <= 0.5 + 1e-4  # float32 holds values near 255 to 2e-5


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_to_uint8_names_the_first_non_finite_pixel(value: float) -> None:
    images = np.zeros((2, 3, 5, 1), np.float32)
    images[1, 2, 3] = value
    with pytest.raises(InputError, match=r"finite pixels; got 1 .* at \(1, 2, 3, 0\) .* smaller"):
        base.to_uint8(images)


def test_to_uint8_refuses_integers() -> None:
    with pytest.raises(TypeError, match=r"floats in \[-1, 1\]; got uint8"):
        base.to_uint8(np.zeros(3, np.uint8))


def test_to_rgb_repeats_grey() -> None:
    images = np.linspace(-1, 1, 7, dtype=np.float32).reshape(1, 7, 1)
    expected = np.repeat(base.to_uint8(images), 3, axis=-1)
    np.testing.assert_array_equal(base.to_rgb(images), expected)


@pytest.mark.parametrize("channels", [2, 4])
def test_to_rgb_shows_alpha_over_a_checkerboard(channels: int) -> None:
    """Opaque pixels hide the board; transparent pixels of any colour show it."""
    images = np.random.default_rng(0).uniform(-2, 2, (3, 10, 14, channels)).astype(np.float32)
    colour = base.to_rgb(images[..., :-1])
    board = base.to_rgb(base.checkerboard(10, 14))
    for alpha, expected in ((-1.0, [board] * 3), (-1.3, [board] * 3), (1.0, colour), (9, colour)):
        images[..., -1] = alpha
        np.testing.assert_array_equal(base.to_rgb(images), expected)
    images[..., -1] = 0
    between = (board.astype(float) + colour) / 2
    np.testing.assert_allclose(base.to_rgb(images), between, atol=1)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (64, 64), (1024, 1024), (64, 128)])
def test_checkerboard_has_16_squares_along_the_shorter_side(height: int, width: int) -> None:
    board = base.checkerboard(height, width)
    assert np.count_nonzero(np.diff(board[:, 0, 0])) == 15
    np.testing.assert_array_equal(board[:height, :height, 0], board[:height, :height, 0].T)
    assert set(np.unique(base.to_uint8(board))) == {204, 238}


@pytest.mark.parametrize("steps", [3, 5, 7, 9, 11, 41])
@pytest.mark.parametrize("limit", [3, 5, 7, 11])
def test_thin_steps_keeps_ends_middle_and_symmetry(steps: int, limit: int) -> None:
    kept = base.thin_steps(steps, limit)
    assert len(kept) == len(set(kept)) == min(steps, limit)
    assert kept == sorted(kept) and kept[0] == 0 and kept[-1] == steps - 1
    assert kept[len(kept) // 2] == steps // 2
    assert [steps - 1 - step for step in reversed(kept)] == kept


def test_spread_shifts_has_an_exact_zero_and_is_odd() -> None:
    for steps in (3, 5, 9, 11):
        shifts = base.spread_shifts(5.9672571476505025, 5.9672571476505025, steps)
        assert len(shifts) == steps and shifts[steps // 2] == 0
        assert shifts == tuple(-shift for shift in reversed(shifts))
        assert shifts[-1] == 5.9672571476505025


def test_spread_shifts_takes_the_end_of_each_side() -> None:
    assert base.spread_shifts(2.0, 10.0, 5) == (-2.0, -1.0, 0.0, 5.0, 10.0)
    assert base.spread_shifts(3.0, 6.0, 4) == (-3.0, -1.0, 2.0, 6.0)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (64, 64, (128, 128)),
        (28, 28, (112, 112)),
        (96, 96, (96, 96)),
        (128, 100, (128, 100)),
        (129, 43, (128, 43)),
        (1024, 512, (128, 64)),
        (1, 1, (96, 96)),
        (1000, 1, (128, 1)),
    ],
)
def test_display_size_is_a_multiple_or_fits(
    height: int, width: int, expected: tuple[int, int]
) -> None:
    assert base.display_size(height, width, smallest=96, largest=128) == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (0.001, "0.001"),
        (0.0009996, "0.001"),
        (0.00099949, "9.99×10⁻⁴"),
        (-1.5e-7, "−1.5×10⁻⁷"),
        (99_949.0, "99900"),
        (99_951.0, "1×10⁵"),
        (float("nan"), "–"),
        (float("-inf"), "−∞"),
    ],
)
def test_format_number_shows_three_digits(value: float, text: str) -> None:
    assert base.format_number(value) == text


def test_describe_fractions_names_the_columns() -> None:
    names = base.describe_fractions(np.linspace(-1, 1, 7))
    assert names == ["−s", "−0.67 s", "−0.33 s", "original", "+0.33 s", "+0.67 s", "+s"]


def _broken(showcase: base.Showcase, **changes: object) -> None:
    first = dataclasses.replace(showcase.directions[0], **changes)
    dataclasses.replace(showcase, directions=(first, *showcase.directions[1:]))


@pytest.mark.parametrize(
    ("shifts", "complaint"),
    [
        ((-1.0, 0.0, 1.0), "5 steps and 3 shifts for direction 0"),
        ((-2.0, -1.0, 1e-9, 1.0, 2.0), "with 0 in the middle"),
        ((2.0, 1.0, 0.0, -1.0, -2.0), "ascending finite numbers"),
        ((-np.inf, -1.0, 0.0, 1.0, 2.0), "ascending finite numbers"),
        ((-2.0, -0.5, 0.0, 0.5, 2.0), "the same fractions"),
    ],
)
def test_showcase_refuses_shifts(
    make_showcase: Make, shifts: tuple[float, ...], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        _broken(make_showcase(), shifts=shifts)


def test_showcase_refuses_parts_that_do_not_belong_together(make_showcase: Make) -> None:
    showcase = make_showcase()
    with pytest.raises(ValueError, match="expected 2 records; got 1"):
        dataclasses.replace(showcase, directions=showcase.directions[:1])
    with pytest.raises(ValueError, match=r"4 \(RGB and alpha\) channels; got 5"):
        dataclasses.replace(showcase, frames=showcase.frames[..., [0, 1, 2, 0, 1]])
    with pytest.raises(ValueError, match="all above 0"):
        dataclasses.replace(showcase, frames=showcase.frames[:, :0])
    with pytest.raises(ValueError, match="odd number of steps"):
        dataclasses.replace(showcase, frames=showcase.frames[:, :, :4])
    with pytest.raises(ValueError, match=r"provenance: missing \['latents'\]"):
        dataclasses.replace(showcase, provenance={"layer": "a", "metric": "b"})
    with pytest.raises(InputError, match="finite pixels"):
        dataclasses.replace(showcase, frames=showcase.frames * np.float32(np.nan))
