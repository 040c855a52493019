"""Videos show the given images along the path; files are complete or absent."""

import io
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from navigan_jax.errors import InputError
from navigan_jax.showcase import base, video

EASINGS = ("linear", "sine", "smooth")


@pytest.mark.parametrize("easing", EASINGS)
def test_easing_rises_from_0_to_1_alike_on_both_sides(easing):
    times = np.linspace(0, 1, 101)
    eased = video.ease(times, easing)
    assert eased[0] == 0 and eased[-1] == pytest.approx(1)
    assert (np.diff(eased) > 0).all()
    np.testing.assert_allclose(eased + eased[::-1], 1, atol=1e-12)
    slow = np.diff(eased)[0] / np.diff(eased)[50]
    assert slow == pytest.approx(1) if easing == "linear" else slow < 0.05


@pytest.mark.parametrize("returns", [True, False])
@pytest.mark.parametrize("ends", [(-1.0, 1.0), (0.0, 1.0), (-0.3, 2.0)])
def test_path_goes_from_end_to_end_through_the_original(ends, returns):
    factors, order = video.plan_path(*ends, frames=20, easing="sine", returns=returns)
    assert (factors[0], factors[-1]) == pytest.approx(ends)
    assert 0.0 in factors
    assert len(order) == 20 and set(order) == set(range(len(factors)))
    assert order[0] == 0 and max(order) == len(factors) - 1
    steps = np.abs(np.diff([*order, order[0]] if returns else order))
    assert (steps == 1).all()


def make_strips(steps=5, samples=2, side=16):
    random = np.random.RandomState(0)
    images = random.uniform(-1, 1, (2, steps, samples, 1, 1, 3)) * np.ones((1, 1, 1, side, side, 1))
    captions = [f"t = {step}" for step in range(steps)]
    return [
        video.Strip(name, rows.astype(np.float32), captions)
        for name, rows in zip(("smile", "age"), images, strict=True)
    ]


def tile_colours(picture, strips):
    """Returns the colour in the middle of each tile of a frame."""
    pixels = np.asarray(picture).astype(int)
    found = []
    for strip in strips:
        colours = base.to_rgb(strip.images)[:, :, 0, 0].astype(int)
        distances = np.abs(pixels[:, :, None, None] - colours[None, None]).max(axis=4)
        found.append(np.count_nonzero(distances <= 10, axis=(0, 1)))
    return found


def test_frames_show_the_step_of_every_sample():
    """The picture of a step holds the tiles of that step only."""
    strips, factors = make_strips(), np.linspace(-1, 1, 5)
    pictures = list(video.draw_frames(strips, factors, "source", cell=64))
    assert len(pictures) == 5
    for step, picture in enumerate(pictures):
        assert picture.size[0] % 2 == 0 and picture.size[1] % 2 == 0
        for counts in tile_colours(picture, strips):
            assert (counts[step] >= 60 * 60).all()
            assert (np.delete(counts, step, axis=0) < 60 * 60).all()


def test_mp4_plays_back_as_drawn(tmp_path):
    """Decoded frames come in the path's order; H.264 changes flat colours by little."""
    strips, factors = make_strips(), np.linspace(-1, 1, 5)
    order = [0, 1, 2, 3, 4, 3, 2, 1]
    path = tmp_path / "video.mp4"
    video.write_video(path, strips, factors, order, frames_per_second=10)
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    command = [
        ffmpeg,
        "-loglevel",
        "error",
        "-i",
        str(path),
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-",
    ]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    expected = [np.asarray(p) for p in video.draw_frames(strips, factors, "", cell=192)]
    frames = np.frombuffer(raw, np.uint8).reshape(-1, *expected[0].shape)
    assert len(frames) == len(order)
    for frame, step in zip(frames, order, strict=True):
        errors = [np.abs(frame.astype(int) - other).mean() for other in expected]
        assert np.argmin(errors) == step and errors[step] < 4
    assert [entry.name for entry in tmp_path.iterdir()] == ["video.mp4"]


def test_gif_plays_for_the_time_asked(tmp_path):
    strips, factors = make_strips(), np.linspace(-1, 1, 5)
    path = tmp_path / "video.gif"
    video.write_video(path, strips, factors, [0, 1, 2, 3, 4, 3, 2, 1], frames_per_second=10)
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        durations = []
        for frame in range(image.n_frames):
            image.seek(frame)
            durations.append(image.info["duration"])
        assert sum(durations) == 800 and image.info["loop"] == 0


def test_small_images_are_enlarged_in_both_files(tmp_path):
    """By a whole factor: 64 pixels become 128 in the GIF."""
    path = tmp_path / "video.gif"
    strips = make_strips(steps=2, samples=1, side=64)
    video.write_video(path, strips, np.linspace(0, 1, 2), [0, 1], frames_per_second=10)
    with Image.open(path) as image:
        expected = next(video.draw_frames(strips, np.linspace(0, 1, 2), "", cell=128))
        assert image.size == expected.size
    assert video.LARGEST_GIF_CELL // 64 == 2


def test_other_suffixes_and_a_failing_ffmpeg_are_refused(tmp_path, monkeypatch):
    """Nothing is left behind."""
    strips, factors = make_strips(), np.linspace(-1, 1, 5)
    with pytest.raises(ValueError, match=r"expected one of .mp4, .gif; got '.avi'"):
        video.write_video(tmp_path / "video.avi", strips, factors, [0], frames_per_second=10)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: "false")
    with pytest.raises(InputError, match=r"expected to write a video; got .* from ffmpeg"):
        video.write_video(tmp_path / "video.mp4", strips, factors, [0], frames_per_second=10)
    assert not list(tmp_path.iterdir())
