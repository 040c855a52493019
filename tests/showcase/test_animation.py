"""The animation shows one period of a sine over the rendered steps, within bounds."""

import pathlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from navigan_jax.showcase import animation, base

Make = Callable[..., base.Showcase]


@pytest.mark.parametrize("steps", [3, 5, 9, 25])
def test_path_goes_once_round_from_the_original(steps: int) -> None:
    """Consecutive steps are neighbours, across the end too; each inner step occurs twice."""
    order, durations = animation.plan_path(np.linspace(-1, 1, steps))
    assert len(order) == len(durations) == 2 * (steps - 1)
    assert order[0] == steps // 2
    assert all(abs(a - b) == 1 for a, b in zip(order, [*order[1:], order[0]], strict=True))
    met = [order.count(step) for step in range(steps)]
    assert met == [1, *[2] * (steps - 2), 1]


@pytest.mark.parametrize("steps", [3, 5, 9, 25])
def test_path_dwells_like_a_sine(steps: int) -> None:
    """A step is shown as long as a finely sampled sine of that period is nearest to it."""
    fractions = np.linspace(-1, 1, steps)
    order, durations = animation.plan_path(fractions)
    sine = np.sin(np.linspace(0, 2 * np.pi, 200_000, endpoint=False))
    nearest = np.rint((sine + 1) / 2 * (steps - 1)).astype(int)
    expected = np.bincount(nearest, minlength=steps) / len(sine) * animation.SECONDS * 1000
    times = np.zeros(steps)
    np.add.at(times, order, durations)
    np.testing.assert_allclose(times, expected, atol=20)  # rounded to 10 ms, twice at most
    np.testing.assert_array_equal(times, times[::-1])


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_file_holds_every_picture_and_repeats(
    make_showcase: Make, tmp_path: pathlib.Path, suffix: str
) -> None:
    showcase = make_showcase(steps=5)
    path = tmp_path / f"directions{suffix}"
    animation.write_animation(path, showcase)
    pictures, durations = animation.draw_frames(showcase, 96)
    with Image.open(path) as image:
        assert image.n_frames == len(pictures) == 8
        assert image.info["loop"] == 0
        for i, picture in enumerate(pictures):
            image.seek(i)
            image.load()
            assert image.info["duration"] == durations[i]
            assert image.size == picture.size
            shown = np.asarray(image.convert("RGB"), np.float64)
            assert np.abs(shown - np.asarray(picture)).mean() < 4  # of 255; 256 colours, or lossy


def test_pictures_show_the_steps_of_the_path(make_showcase: Make) -> None:
    """The first image of each picture is the step's frame, pixels repeated."""
    showcase = make_showcase(directions=1, samples=1, steps=5, height=48, width=48)
    pictures, _ = animation.draw_frames(showcase, 96)
    order, _ = animation.plan_path(showcase.fractions)
    for step, picture in zip(order, pictures, strict=True):
        corner = np.asarray(picture)[16 : 16 + 96, 16 : 16 + 96]
        np.testing.assert_array_equal(corner[::2, ::2], base.to_rgb(showcase.frames[0, 0, step]))


def test_pictures_are_bounded(make_showcase: Make) -> None:
    """Directions, samples and steps beyond the limits are left out."""
    large, _ = animation.draw_frames(make_showcase(11, 7, 41, 5, 3), 96)
    limit, _ = animation.draw_frames(make_showcase(8, 4, 25, 5, 3), 96)
    assert len(large) == len(limit) == 48
    assert large[0].size == limit[0].size


def test_file_is_bounded(
    make_showcase: Make, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is too large is made again with smaller images."""
    showcase = make_showcase(2, 4, 3, 64, 64)
    animation.write_animation(tmp_path / "large.gif", showcase)
    size = (tmp_path / "large.gif").stat().st_size
    monkeypatch.setattr(animation, "MAX_BYTES", size - 1)
    animation.write_animation(tmp_path / "small.gif", showcase)
    assert (tmp_path / "small.gif").stat().st_size < size
    with Image.open(tmp_path / "large.gif") as large, Image.open(tmp_path / "small.gif") as small:
        assert small.width < large.width


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_write_animation_is_deterministic(
    make_showcase: Make, tmp_path: pathlib.Path, suffix: str
) -> None:
    for name in ("a", "b"):
        animation.write_animation(tmp_path / f"{name}{suffix}", make_showcase(steps=3))
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_write_animation_refuses_other_suffixes(
    make_showcase: Make, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(ValueError, match=r"'.gif', '.webp'\]; got '.mp4'"):
        animation.write_animation(tmp_path / "a.mp4", make_showcase())
