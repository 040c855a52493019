"""The PDF holds every image at full resolution; each map is coloured by its largest value."""

import re
import zlib

import numpy as np

from navigan_jax.showcase import base, figure, maps


def test_figure_is_as_wide_as_text_and_repeats_to_the_byte(make_showcase, tmp_path):
    showcase = make_showcase(directions=5, samples=3, steps=5, names={1: "smile $x$"})
    figure.write_figure(tmp_path / "a.pdf", showcase)
    figure.write_figure(tmp_path / "b.pdf", showcase)
    data = (tmp_path / "a.pdf").read_bytes()
    assert data == (tmp_path / "b.pdf").read_bytes()
    box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", data)
    assert abs(float(box[1]) / 72 - figure.WIDTH) < 0.01
    assert b"/FontFile2" in data and b"/Type3" not in data


def test_figure_holds_the_images(make_showcase, tmp_path):
    """−s, original and +s of every sample, side by side, pixel for pixel."""
    showcase = make_showcase(directions=1, samples=2, steps=5, height=40, width=40)
    figure.write_figure(tmp_path / "a.pdf", showcase)
    data = (tmp_path / "a.pdf").read_bytes()
    expected = figure._tile(base.to_rgb(showcase.frames[0][:, [0, 2, 4]]))
    found = []
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", data, re.DOTALL):
        try:
            found.append(len(zlib.decompress(stream)))
        except zlib.error:
            continue
    assert expected.shape[0] * expected.shape[1] <= max(found)


def make_row(change):
    random = np.random.RandomState(0)
    images = random.uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32)
    return maps.MapRow("smile", change, 0.25, images, images[[0, 1, 0]], change)


def test_colours_follow_the_root_of_the_change():
    """0 is the darkest, the largest the brightest; four times the change is twice as far."""
    values = np.array([[0.0, 1.0], [4.0, 16.0]])
    got = maps.colour(values)
    np.testing.assert_array_equal(got, maps.colour(values / 1000))
    scale = maps.colour(np.linspace(0, 1, 257)[None] ** 2)[0]
    for value, share in ((0.0, 0), (1.0, 64), (4.0, 128), (16.0, 256)):
        place = np.argwhere(values == value)[0]
        np.testing.assert_allclose(got[tuple(place)].astype(int), scale[share], atol=2)
    assert (maps.colour(np.zeros((2, 2))) == got[0, 0]).all()


def test_overlay_leaves_the_image_where_nothing_changes():
    image = np.linspace(-1, 1, 48, dtype=np.float32).reshape(4, 4, 3)
    change = np.zeros((4, 4))
    change[1, 2] = 1.0
    got = maps.overlay(image, change)
    grey = base.to_rgb(image).mean(axis=2)
    kept = np.ones((4, 4), bool)
    kept[1, 2] = False
    np.testing.assert_allclose(got[kept][:, 0], grey[kept], atol=0.51)
    assert np.ptp(got[1, 2].astype(int)) > 20


def test_sheet_has_a_row_for_each_direction(tmp_path):
    change = np.random.RandomState(1).uniform(0, 1, (8, 8))
    one = maps.draw_maps([make_row(change)], "title", "subtitle")
    three = maps.draw_maps([make_row(change)] * 3, "title", "subtitle")
    assert three.size[0] == one.size[0] and three.size[1] > one.size[1] + 2 * 128
    maps.write_maps(tmp_path / "maps.png", [make_row(change)], "title", "subtitle")
    assert (tmp_path / "maps.png").read_bytes()[1:4] == b"PNG"
