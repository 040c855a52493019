"""The sheet shows the given pixels, frames the original in the middle, and is bounded."""

import pathlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from navigan_jax.showcase import base, grid

Make = Callable[..., base.Showcase]


def _cell(
    sheet: np.ndarray, layout: grid.Layout, direction: int, row: int, column: int
) -> np.ndarray:
    top, left = layout.top(direction, row), layout.left(column)
    return sheet[top : top + layout.cell_height, left : left + layout.cell_width]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sheet_gives_every_pixel_back(make_showcase: Make, channels: int) -> None:
    """Every n-th pixel of an enlarged cell is the image; all other pixels repeat these."""
    showcase = make_showcase(channels=channels)
    layout = grid.plan_sheet(showcase.frames.shape)
    sheet = np.asarray(grid.draw_grid(showcase))
    factor = layout.cell_height // showcase.frames.shape[3]
    assert factor == 7
    for i, row, column in np.ndindex(showcase.frames.shape[:3]):
        expected = base.to_rgb(showcase.frames[i, row, column]).repeat(factor, 0).repeat(factor, 1)
        np.testing.assert_array_equal(_cell(sheet, layout, i, row, column), expected)


def test_original_alone_is_framed_and_named_in_the_accent_colour(make_showcase: Make) -> None:
    """The frame is above and below its images; above other columns is white paper."""
    showcase = make_showcase(steps=7)
    layout = grid.plan_sheet(showcase.frames.shape)
    sheet = np.asarray(grid.draw_grid(showcase))
    for column in range(7):
        left = layout.left(column)
        head = sheet[layout.top(0, 0) - 30 : layout.top(0, 0) - 8, left : left + layout.cell_width]
        assert (head == grid.ACCENT).all(axis=-1).any() == (column == 3)
    for direction in range(2):
        above = sheet[layout.top(direction, 0) - 2]
        below = sheet[layout.top(direction, layout.rows - 1) + layout.cell_height + 1]
        for column in range(7):
            place = layout.left(column) + layout.cell_width // 2
            expected = grid.ACCENT if column == 3 else (255, 255, 255)
            assert tuple(above[place]) == tuple(below[place]) == expected


@pytest.mark.parametrize("side", [1, 64, 100, 1024])
@pytest.mark.parametrize(
    ("directions", "samples", "steps"), [(1, 1, 3), (32, 4, 9), (64, 9, 11), (700, 8, 41)]
)
def test_sheet_is_bounded(directions: int, samples: int, steps: int, side: int) -> None:
    layout = grid.plan_sheet((directions, samples, steps, side, side, 3))
    width, height = layout.size
    assert height <= grid.MAX_HEIGHT and width <= 2000
    assert 1 <= layout.shown <= directions and 1 <= layout.rows <= samples
    if layout.shown < directions:  # samples give way first
        assert layout.rows == 1


def test_sheet_keeps_as_much_as_fits() -> None:
    """One more sample, or one more direction, would be too high."""
    layout = grid.plan_sheet((32, 4, 9, 64, 64, 3))
    assert (layout.shown, layout.rows) == (32, 2)
    assert layout.size[1] + 32 * layout.cell_height > grid.MAX_HEIGHT
    layout = grid.plan_sheet((700, 4, 9, 64, 64, 3))
    assert layout.size[1] + layout.group_height > grid.MAX_HEIGHT


def test_write_grid_writes_the_sheet(make_showcase: Make, tmp_path: pathlib.Path) -> None:
    """Two files are equal, and their pixels are those of the sheet."""
    showcase = make_showcase(names={0: "smile " * 20, 1: "λ–漢"})
    grid.write_grid(tmp_path / "gallery.png", showcase)
    grid.write_grid(tmp_path / "again.png", showcase)
    data = (tmp_path / "gallery.png").read_bytes()
    assert data == (tmp_path / "again.png").read_bytes()
    with Image.open(tmp_path / "gallery.png") as image:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(grid.draw_grid(showcase)))


def test_shorten_fits_the_width() -> None:
    typeface = grid.font(16)
    text = "a name that goes on and on"
    for width in (30, 60, 120, 1000):
        short = grid.shorten(text, width, typeface)
        assert typeface.getlength(short) <= width
        assert short == text or short.endswith("…")
    assert grid.shorten(text, 1000, typeface) == text
