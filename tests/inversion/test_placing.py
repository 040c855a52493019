import json

import numpy as np
import pytest

from navigan_jax.errors import InputError
from navigan_jax.inversion import placing

RANDOM = np.random.RandomState(0)
FACE = np.array([[110.0, 80], [150, 90], [112, 120], [140, 126]])


def smooth(height=200, width=260):
    ys, xs = np.mgrid[:height, :width]
    waves = [np.sin(xs / 25), np.cos(ys / 30), np.sin((xs + ys) / 40)]
    return np.stack(waves, axis=-1).astype(np.float32)


def test_upright_place_of_whole_pixels_is_cut_out():
    photograph = RANDOM.uniform(-1, 1, (50, 70, 3)).astype(np.float32)
    place = placing.box(10, 5, 42, 37)
    image = placing.crop(photograph, place, 32, 32)
    np.testing.assert_array_equal(image, photograph[5:37, 10:42])
    np.testing.assert_array_equal(placing.paste_back(photograph, place, image), photograph)


@pytest.mark.parametrize("feather", [0.05, 0.1, 0.5])
def test_paste_of_the_cut_is_the_photograph_within_half_a_grey_level(feather):
    photograph, place = smooth(), placing.align_face(FACE)
    side = round(place.size[0])
    image = placing.crop(photograph, place, side, side)
    back = placing.paste_back(photograph, place, image, feather=feather)
    assert np.abs(back - photograph).max() * 127.5 <= 0.5


def test_nothing_changes_outside_the_place():
    photograph, place = smooth(), placing.align_face(FACE)
    back = placing.paste_back(photograph, place, np.ones((64, 64, 3), np.float32), feather=0)
    changed = (back != photograph).any(axis=-1)
    ys, xs = np.mgrid[:200, :260] + 0.5
    shares = (np.stack([xs, ys], axis=-1) - place.origin) @ np.linalg.inv(
        np.stack([place.across, place.down], axis=1)
    ).T
    inside = ((shares > 0) & (shares < 1)).all(axis=-1)
    assert not (changed & ~inside).any()
    np.testing.assert_allclose(back[inside], 1, atol=1e-5)


def test_border_passes_softly():
    photograph = np.zeros((60, 60, 3), np.float32)
    image = np.ones((40, 40, 3), np.float32)
    back = placing.paste_back(photograph, placing.box(10, 10, 50, 50), image, feather=0.25)
    line = back[30, 10:30, 0]
    assert (np.diff(line) >= 0).all()
    assert line[0] < 0.02
    np.testing.assert_allclose(line[10:], 1, atol=1e-6)


def test_place_beyond_the_photograph_is_mirrored():
    photograph = smooth(40, 40)
    image = placing.crop(photograph, placing.box(-10, 0, 30, 40), 40, 40)
    np.testing.assert_allclose(image[:, 10:], photograph[:, :30], atol=0.02)
    np.testing.assert_allclose(image[:, :10], photograph[:, 9::-1], atol=0.02)


@pytest.mark.parametrize(
    ("height", "width", "aspect", "corners"),
    [
        (60, 100, 1.0, (20, 0, 80, 60)),
        (101, 60, 1.0, (0, 20, 60, 80)),
        (60, 100, 2.0, (0, 5, 100, 55)),
    ],
)
def test_centre_is_the_largest_rectangle_of_the_aspect(height, width, aspect, corners):
    expected = placing.box(*corners).corners
    np.testing.assert_array_equal(placing.centre(height, width, aspect).corners, expected)


def test_face_of_sixty_eight_points_is_that_of_its_eyes_and_mouth():
    points = RANDOM.uniform(0, 10, (68, 2))
    points[36:42] += FACE[0] - points[36:42].mean(axis=0)
    points[42:48] += FACE[1] - points[42:48].mean(axis=0)
    points[[48, 54]] = FACE[2:]
    expected = placing.align_face(FACE).corners
    np.testing.assert_allclose(placing.align_face(points).corners, expected)
    nose = np.insert(FACE, 2, (125, 100), axis=0)
    np.testing.assert_allclose(placing.align_face(nose).corners, expected)


def test_upright_face_has_the_size_that_ffhq_gives():
    # Eyes 40 apart, 50 above the mouth: the half side is max(2 · 40, 1.8 · 50) = 90.
    place = placing.align_face(np.array([[80.0, 100], [120, 100], [85, 150], [115, 150]]))
    np.testing.assert_allclose(place.size, (180, 180))
    np.testing.assert_allclose(place.corners.mean(axis=0), (100, 105))
    np.testing.assert_allclose(place.across, (180, 0), atol=1e-9)


def test_turning_the_face_turns_the_place():
    turn = np.array([[np.cos(0.7), -np.sin(0.7)], [np.sin(0.7), np.cos(0.7)]])
    turned = placing.align_face(FACE @ turn.T).corners
    np.testing.assert_allclose(turned, placing.align_face(FACE).corners @ turn.T)


@pytest.mark.parametrize("points", [np.zeros((3, 2)), np.zeros((4, 2)), np.full((4, 2), np.nan)])
def test_points_of_no_face_are_refused(points):
    with pytest.raises(InputError, match="landmarks"):
        placing.align_face(points)


def test_landmarks_are_read(tmp_path):
    path = tmp_path / "faces.json"
    path.write_text(json.dumps({"me.jpg": [FACE.tolist()], "empty.jpg": []}))
    found = placing.read_landmarks(str(path))
    np.testing.assert_array_equal(found["me.jpg"][0], FACE)
    assert found["empty.jpg"] == []


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", '{"a": 3}', '{"a": [3]}', '{"a": [[[1, "x"]]]}', '{"a": [[[1, 1e999]]]}']
)
def test_other_landmarks_are_refused(tmp_path, text):
    path = tmp_path / "faces.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"faces\.json"):
        placing.read_landmarks(str(path))


@pytest.mark.parametrize("corners", [(300, 0, 400, 100), (0, 0, 3, 3), (-50, 0, -1, 40)])
def test_place_outside_the_photograph_is_refused(corners):
    with pytest.raises(InputError, match="place"):
        placing.require_place(placing.box(*corners), smooth(), "photo.jpg")
