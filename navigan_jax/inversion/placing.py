"""Placing: which part of a photograph the generator sees, and how its image is pasted back.

A place is a parallelogram in the photograph, given by its corners. Lengths are in pixels; the
middle of the first pixel is (0.5, 0.5), and x runs to the right, y downwards.

Source of the alignment of faces: the FFHQ dataset (Karras et al. 2019), whose crop is built from
the eyes and the corners of the mouth.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from navigan_jax import faults
from navigan_jax.array_types import Float
from navigan_jax.errors import InputError

# Landmarks of a face by their number in the common scheme of 68 points.
_LEFT_EYE, _RIGHT_EYE, _MOUTH = slice(36, 42), slice(42, 48), (48, 54)
_FEWEST = 4  # pixels along a side of a place


@dataclasses.dataclass(frozen=True, eq=False)
class Place:
    """A parallelogram. corners: top left, bottom left, bottom right and top right, each (x, y)."""

    corners: Float[np.ndarray, "4 2"]

    @property
    def origin(self) -> np.ndarray:
        """The top left corner."""
        return self.corners[0]

    @property
    def across(self) -> np.ndarray:
        """The top side, from left to right."""
        return self.corners[3] - self.corners[0]

    @property
    def down(self) -> np.ndarray:
        """The left side, from top to bottom."""
        return self.corners[1] - self.corners[0]

    @property
    def size(self) -> tuple[float, float]:
        """Height and width."""
        return float(np.hypot(*self.down)), float(np.hypot(*self.across))


def box(left: float, top: float, right: float, bottom: float) -> Place:
    """Returns an upright rectangle."""
    corners = [(left, top), (left, bottom), (right, bottom), (right, top)]
    return Place(np.array(corners, np.float64))


def centre(height: int, width: int, aspect: float) -> Place:
    """Returns the largest rectangle of this aspect, width / height, in the middle."""
    tall = min(height, width / aspect)
    wide = tall * aspect
    left, top = math.floor((width - wide) / 2), math.floor((height - tall) / 2)
    return box(left, top, left + wide, top + tall)


def align_face(landmarks: Float[np.ndarray, "points 2"]) -> Place:
    """Returns the square that FFHQ cuts out around a face.

    landmarks: 68 points in the common order; or 4: the middles of the left and the right eye and
      the left and the right corner of the mouth, left and right as seen in the picture; or 5, with
      the nose as the third.
    Raises: InputError for another number of points, or points of no face.
    """
    points = np.asarray(landmarks, np.float64)
    if points.shape == (68, 2):
        left, right = points[_LEFT_EYE].mean(axis=0), points[_RIGHT_EYE].mean(axis=0)
        mouth = points[list(_MOUTH)]
    elif points.shape in ((4, 2), (5, 2)):
        left, right, mouth = points[0], points[1], points[-2:]
    else:
        raise InputError(
            "landmarks: expected 4, 5 or 68 points (x, y) of a face; got an array of shape "
            f"{list(points.shape)}; see docs/photographs.md"
        )
    eyes, eye_to_eye = (left + right) / 2, right - left
    eye_to_mouth = mouth.mean(axis=0) - eyes
    # The right axis of the face: from eye to eye, and across the line from the eyes to the mouth.
    axis = eye_to_eye - np.array([-eye_to_mouth[1], eye_to_mouth[0]])
    length = float(np.hypot(*axis))
    reach = max(2.0 * float(np.hypot(*eye_to_eye)), 1.8 * float(np.hypot(*eye_to_mouth)))
    if not (np.isfinite(points).all() and length > 0 and reach > _FEWEST):
        raise InputError(
            "landmarks: expected the eyes and the corners of the mouth of a face; got points that "
            "lie on each other; mark them again"
        )
    x = axis * (reach / length)
    y = np.array([-x[1], x[0]])
    middle = eyes + 0.1 * eye_to_mouth
    return Place(np.stack([middle - x - y, middle - x + y, middle + x + y, middle + x - y]))


def read_landmarks(path: str) -> Mapping[str, list[np.ndarray]]:
    """Returns {name of the photograph: landmarks of each face} of a JSON file.

    The file holds {"photo.jpg": [face, ...]}, each face a list of points [x, y].
    Raises: InputError if the file is missing or holds something else.
    """
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: expected a JSON file of landmarks; got {faults.in_words(error)}; check it"
        ) from error
    expected = '{"photo.jpg": [face, ...]}, each face 4, 5 or 68 points [x, y]'
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected {expected}; got {str(content)[:60]!r}; correct it")
    return {
        name: [_points(path, expected, face) for face in _list(path, expected, faces)]
        for name, faces in content.items()
    }


def _list(path: str, expected: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{path}: expected {expected}; got {str(value)[:60]!r}; correct it")
    return value


def _points(path: str, expected: str, face: Any) -> np.ndarray:
    try:
        points = np.asarray(face, np.float64)
    except (ValueError, TypeError, OverflowError):
        points = np.zeros(0)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise InputError(f"{path}: expected {expected}; got {str(face)[:60]!r}; correct it")
    return points


def require_place(place: Place, photograph: np.ndarray, name: str) -> None:
    """Checks that a place has an area and meets the photograph. Raises: InputError."""
    height, width = photograph.shape[:2]
    low, high = place.corners.min(axis=0), place.corners.max(axis=0)
    meets = (high > 0).all() and low[0] < width and low[1] < height
    if not meets or min(place.size) < _FEWEST:
        raise InputError(
            f"{name}: expected a place of {_FEWEST} pixels or more in this photograph of "
            f"{width}x{height}; got corners {np.round(place.corners, 1).tolist()}; correct it"
        )


def crop(
    photograph: Float[np.ndarray, "height width channels"], place: Place, height: int, width: int
) -> Float[np.ndarray, "height width channels"]:
    """Returns the place as an image of this size.

    An upright place inside the photograph is resized by a Lanczos filter, as the standard projector
    does. Any other place is first sampled bicubically at about its own size. What lies outside the
    photograph is its mirror image.
    """
    if _is_upright(place) and _is_inside(place, photograph):
        return _resize(photograph, height, width, (*place.corners[0], *place.corners[2]))
    tall, wide = (max(1, round(side)) for side in place.size)
    # As fine as the photograph or as the image, whichever is finer, so that nothing is lost.
    tall, wide = max(tall, height), max(wide, width)
    padded, offset = _pad(photograph, place)
    at = (place.origin + offset, place.across / wide, place.down / tall)
    return _resize(_sample(padded, *at, tall, wide), height, width)


def paste_back(
    photograph: Float[np.ndarray, "height width channels"],
    place: Place,
    image: Float[np.ndarray, "rows columns channels"],
    *,
    feather: float = 0.1,
) -> Float[np.ndarray, "height width channels"]:
    """Returns the photograph with the image at its place.

    feather: width of the border in which the photograph passes into the image, as a share of the
      image's side; 0: none.
    """
    height, width = photograph.shape[:2]
    low = np.clip(np.floor(place.corners.min(axis=0)), 0, (width, height)).astype(int)
    high = np.clip(np.ceil(place.corners.max(axis=0)), 0, (width, height)).astype(int)
    if (high <= low).any():
        return photograph.copy()
    tall, wide = (max(1, round(side)) for side in place.size)
    rows, columns = image.shape[:2]
    # Averaged first where the photograph is coarser than the image.
    image = _resize(image, min(tall, rows), min(wide, columns))
    rows, columns = image.shape[:2]
    inverse = np.linalg.inv(np.stack([place.across / columns, place.down / rows], axis=1))
    rim = 4
    padded = np.pad(image, ((rim, rim), (rim, rim), (0, 0)), mode="edge")
    origin = inverse @ (low - place.origin) + rim
    size = (int(high[1] - low[1]), int(high[0] - low[0]))
    warped = _sample(padded, origin, inverse[:, 0], inverse[:, 1], *size)
    mask = _mask(place, low, size, feather)
    result = photograph.copy()
    part = result[low[1] : high[1], low[0] : high[0]]
    part += mask * (warped - part)
    return result


def _mask(place: Place, low: np.ndarray, size: tuple[int, int], feather: float) -> np.ndarray:
    """Returns the weight of the image at each pixel: 0 outside, rising to 1 within the border."""
    xs, ys = np.arange(size[1]) + 0.5 + low[0], np.arange(size[0]) + 0.5 + low[1]
    points = np.stack(np.meshgrid(xs, ys), axis=-1) - place.origin
    shares = points @ np.linalg.inv(np.stack([place.across, place.down], axis=1)).T
    inside = np.minimum(shares, 1 - shares).min(axis=-1)
    if feather == 0:
        return (inside > 0)[..., None].astype(np.float32)
    ramp = np.clip(inside / feather, 0, 1)
    return (ramp * ramp * (3 - 2 * ramp))[..., None].astype(np.float32)


def _is_upright(place: Place) -> bool:
    return bool(place.across[1] == 0 and place.down[0] == 0 and (place.across[0] > 0))


def _is_inside(place: Place, photograph: np.ndarray) -> bool:
    height, width = photograph.shape[:2]
    low, high = place.corners.min(axis=0), place.corners.max(axis=0)
    return bool((low >= 0).all() and high[0] <= width and high[1] <= height)


def _pad(photograph: np.ndarray, place: Place) -> tuple[np.ndarray, np.ndarray]:
    """Returns the photograph with mirrored rims that hold the place, and the shift of pixels."""
    height, width = photograph.shape[:2]
    rim = 4  # for the filter
    low, high = place.corners.min(axis=0), place.corners.max(axis=0)
    left, top = (max(0, math.ceil(-value)) + rim for value in low)
    right = max(0, math.ceil(high[0] - width)) + rim
    bottom = max(0, math.ceil(high[1] - height)) + rim
    padded = np.pad(photograph, ((top, bottom), (left, right), (0, 0)), mode="symmetric")
    return padded, np.array([left, top], np.float64)


def _channels(image: np.ndarray) -> list[Image.Image]:
    return [
        Image.fromarray(np.ascontiguousarray(image[..., i], np.float32))
        for i in range(image.shape[-1])
    ]


def _resize(
    image: np.ndarray, height: int, width: int, part: Sequence[float] | None = None
) -> np.ndarray:
    """Returns the image, or a part of it, resized by a Lanczos filter; unchanged at equal size."""
    left, top, right, bottom = (0, 0, image.shape[1], image.shape[0]) if part is None else part
    bounds = float(left), float(top), float(right), float(bottom)
    resized = [
        np.asarray(channel.resize((width, height), Image.Resampling.LANCZOS, box=bounds))
        for channel in _channels(image)
    ]
    return np.stack(resized, axis=-1)


def _sample(
    image: np.ndarray,
    origin: np.ndarray,
    across: np.ndarray,
    down: np.ndarray,
    height: int,
    width: int,
) -> np.ndarray:
    """Returns bicubic samples of the image on a grid.

    origin: the corner of the grid; across, down: the steps from one sample to the next.
    """
    matrix = (across[0], down[0], origin[0], across[1], down[1], origin[1])
    sampled = [
        np.asarray(
            channel.transform(
                (width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC
            )
        )
        for channel in _channels(image)
    ]
    return np.stack(sampled, axis=-1)
