"""A PNG holds every pixel, with its alpha."""

import io

import numpy as np
import pytest
from PIL import Image

from navigan_jax.showcase import base, pictures


def decode(png: bytes) -> tuple[str, np.ndarray]:
    with Image.open(io.BytesIO(png)) as picture:
        return picture.mode, np.asarray(picture)


@pytest.mark.parametrize(("channels", "mode"), [(1, "RGB"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_png_gives_the_pixels_back(channels: int, mode: str) -> None:
    image = np.random.default_rng(0).uniform(-1, 1, (5, 7, channels)).astype(np.float32)
    found, pixels = decode(pictures.encode_png(image))
    assert found == mode
    expected = base.to_uint8(image)
    np.testing.assert_array_equal(pixels, expected.repeat(3, axis=2) if channels == 1 else expected)


@pytest.mark.parametrize("channels", [2, 4])
def test_preview_spreads_no_colour_of_transparent_pixels(channels: int) -> None:
    """One visible white pixel of four gives white at a quarter of the alpha."""
    image = np.full((2, 2, channels), -1, np.float32)
    image[0, 0] = 1
    _, pixels = decode(pictures.encode_png(image, longest=1))
    np.testing.assert_allclose(pixels[0, 0, :-1], 255, atol=4)
    np.testing.assert_allclose(pixels[0, 0, -1], 64, atol=1)
