"""The spectrum shows every known value and distinguishes signs."""

import pathlib

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from navigan_jax.showcase import plots

PROVENANCE = {"layer": "conv2/$kernel_$", "metric": "lpips", "latents": "512"}
EIGENVALUES = np.array([2.0, 1.0, -0.5, 0.25, -0.125])
RESIDUALS = np.array([1e-4, 0.5, 1e-2, 3.0, 0.0])


def test_spectrum_shows_sizes_signs_and_residuals() -> None:
    upper, lower = plots.draw_spectrum(EIGENVALUES, RESIDUALS, PROVENANCE).axes
    assert upper.get_yscale() == lower.get_yscale() == "log"
    shown = {}
    for container, is_negative in zip(upper.containers, (False, True), strict=True):
        points = container[0]
        is_hollow = to_rgb(points.get_markerfacecolor()) == (1, 1, 1)
        assert is_hollow == is_negative
        for x, y in zip(*points.get_data(), strict=True):
            shown[int(x)] = -y if is_negative else y
    assert shown == dict(enumerate(EIGENVALUES))
    np.testing.assert_array_equal(lower.lines[0].get_ydata(), RESIDUALS[:4])  # 0 has no logarithm


def test_bars_span_the_residual() -> None:
    """A bar runs over λ ± r·|λ|; a lower end at or below 0 stays just above it."""
    upper = plots.draw_spectrum(EIGENVALUES, RESIDUALS, PROVENANCE).axes[0]
    bars = {}
    for container in upper.containers:
        for segment in container[2][0].get_segments():
            bars[round(segment[0, 0])] = segment[:, 1]
    np.testing.assert_allclose(bars[1], [0.5, 1.5])
    np.testing.assert_allclose(bars[2], [0.495, 0.505])
    np.testing.assert_allclose(bars[3][1], 1.0)
    assert 0 < bars[3][0] < 1e-3


def test_axes_have_plain_numbers_and_room_below_the_lowest_marker() -> None:
    figure = plots.draw_spectrum(np.array([12.0, 5.0, 2.0]), np.full(3, 1e-4), PROVENANCE)
    figure.canvas.draw()
    upper, lower = figure.axes
    low, high = upper.get_ylim()
    shown = [
        label.get_text()
        for place, label in zip(upper.get_yticks(), upper.get_yticklabels(), strict=True)
        if low <= place <= high
    ]
    assert shown == ["1", "2", "5", "10", "20"]
    assert lower.get_ylim()[0] < 0.6e-4 and "10⁻⁴" in [
        x.get_text() for x in lower.get_yticklabels()
    ]


def test_legend_mentions_bars_only_if_some_are_visible() -> None:
    for residual, told in ((1e-4, ""), (0.3, "bars: ± residual")):
        axes = plots.draw_spectrum(EIGENVALUES, np.full(5, residual), PROVENANCE).axes[0]
        assert axes.get_legend().get_title().get_text() == told


@pytest.mark.parametrize(
    ("eigenvalues", "residuals"),
    [
        ([1.0], [np.nan]),
        ([0.0, 0.0], [np.nan, np.inf]),
        ([np.nan, 1e-30, 1e30], [0.1, 0.0, 1e9]),
        (np.geomspace(1, 1e-9, 1000), np.full(1000, 1e-5)),
    ],
)
def test_spectrum_takes_any_values(
    eigenvalues: list[float], residuals: list[float], tmp_path: pathlib.Path
) -> None:
    """Unknown, zero and huge values give no warning."""
    path = tmp_path / "spectrum.png"
    plots.write_spectrum(path, np.array(eigenvalues), np.array(residuals), PROVENANCE)
    with Image.open(path) as image:
        assert image.size == (1350, 840)


def test_spectrum_refuses_none_and_unequal_lengths() -> None:
    with pytest.raises(ValueError, match=r"shapes \(5,\) and \(4,\)"):
        plots.draw_spectrum(EIGENVALUES, RESIDUALS[:4], PROVENANCE)
    with pytest.raises(ValueError, match=r"expected at least one eigenvalue .* shapes \(0,\)"):
        plots.draw_spectrum(EIGENVALUES[:0], RESIDUALS[:0], PROVENANCE)


def test_write_spectrum_is_deterministic(tmp_path: pathlib.Path) -> None:
    for name in ("a.png", "b.png"):
        plots.write_spectrum(tmp_path / name, EIGENVALUES, RESIDUALS, PROVENANCE)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
