import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from navigan_jax.errors import InputError
from navigan_jax.inversion import photographs
from navigan_jax.inversion.photographs import parse_photograph

RANDOM = np.random.RandomState(0)
COLOURS = RANDOM.randint(0, 256, (20, 30, 3)).astype(np.uint8)
GREY = RANDOM.randint(0, 256, (20, 30)).astype(np.uint8)


def encode(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return buffer.getvalue()


def signed(pixels):
    return pixels.astype(np.float32) / 127.5 - 1


def read(content):
    return parse_photograph(content, "photo")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_pixels_of_files_without_loss_are_kept(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    found = read(encode(Image.fromarray(COLOURS), kind, **options))
    np.testing.assert_array_equal(found.pixels, signed(COLOURS))
    assert found.pixels.dtype == np.float32
    assert found.told == ""


def test_jpeg_is_near():
    smooth = np.linspace(0, 255, 32 * 32).reshape(32, 32).astype(np.uint8)
    found = read(encode(Image.fromarray(smooth), "JPEG", quality=100))
    np.testing.assert_allclose(found.pixels[..., 0], signed(smooth), atol=4 / 127.5)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_picture_stands_as_its_exif_entry_says(orientation):
    stored = Image.fromarray(COLOURS)
    exif = stored.getexif()
    exif[0x0112] = orientation
    upright = {
        1: COLOURS,
        2: COLOURS[:, ::-1],
        3: COLOURS[::-1, ::-1],
        4: COLOURS[::-1],
        5: COLOURS.swapaxes(0, 1),
        6: np.rot90(COLOURS, -1),
        7: COLOURS.swapaxes(0, 1)[::-1, ::-1],
        8: np.rot90(COLOURS, 1),
    }[orientation]
    found = read(encode(stored, "PNG", exif=exif))
    np.testing.assert_array_equal(found.pixels, signed(upright))


def test_grey_is_repeated():
    found = read(encode(Image.fromarray(GREY)))
    np.testing.assert_array_equal(found.pixels, np.repeat(signed(GREY)[..., None], 3, axis=2))


def test_sixteen_bits_are_kept():
    deep = RANDOM.randint(0, 65536, (20, 30)).astype(np.uint16)
    found = read(encode(Image.fromarray(deep)))
    expected = deep.astype(np.float64) / 32767.5 - 1
    np.testing.assert_allclose(found.pixels[..., 1], expected, atol=1e-6)
    assert "16 bits" in found.told


def test_transparent_pixels_become_white():
    alpha = np.zeros((20, 30, 1), np.uint8)
    alpha[:10] = 255
    found = read(encode(Image.fromarray(np.concatenate([COLOURS, alpha], axis=2))))
    np.testing.assert_array_equal(found.pixels[:10], signed(COLOURS)[:10])
    assert (found.pixels[10:] == 1).all()
    assert "white" in found.told


def test_palette_with_a_transparent_colour_becomes_white_there():
    picture = Image.fromarray((GREY > 128).astype(np.uint8), "L").convert("P")
    picture.putpalette([0, 0, 0, 255, 0, 0])
    found = read(encode(picture, "PNG", transparency=0))
    red = GREY > 128
    np.testing.assert_array_equal(found.pixels[red], np.broadcast_to([1.0, -1, -1], (red.sum(), 3)))
    assert (found.pixels[~red] == 1).all()


def test_cmyk_becomes_rgb():
    found = read(encode(Image.new("CMYK", (30, 20), (255, 0, 0, 0)), "TIFF"))
    np.testing.assert_allclose(found.pixels[0, 0], [-1, 1, 1], atol=0.01)
    assert "CMYK" in found.told


def test_colours_are_converted_from_their_profile():
    picture = Image.fromarray(COLOURS)
    same = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    found = read(encode(picture, "PNG", icc_profile=same))
    np.testing.assert_allclose(found.pixels, signed(COLOURS), atol=1.01 / 127.5)
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for profile in (b"no profile", lab):  # damaged, and of other colours
        found = read(encode(picture, "PNG", icc_profile=profile))
        np.testing.assert_array_equal(found.pixels, signed(COLOURS))
        assert "left out" in found.told


def test_first_of_several_pictures_is_used():
    pages = [Image.fromarray(COLOURS), Image.fromarray(255 - COLOURS)]
    found = read(encode(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    np.testing.assert_array_equal(found.pixels, signed(COLOURS))
    assert "first of 2" in found.told


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb():
    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"0"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "other bytes"),
        (b"hello, this is text", "other bytes"),
        (encode(Image.fromarray(COLOURS))[:300], "damaged"),
        (encode(Image.fromarray(COLOURS), "JPEG")[:200], "damaged|other bytes"),
        (encode(Image.fromarray(COLOURS), "GIF"), "other bytes"),
        (encode(Image.fromarray(COLOURS[:8])), "30x8"),
        (bomb(), "pixels"),
        (encode(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "fractions"),
    ],
    ids=["empty", "text", "cut png", "cut jpeg", "gif", "small", "bomb", "float"],
)
def test_other_files_are_refused(content, told):
    with pytest.raises(InputError, match=told):
        read(content)


def test_files_and_folders_are_found_once(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "sub").mkdir()
    found = photographs.find_photographs([str(tmp_path), str(tmp_path / "b.png")])
    assert [path.name for path in found] == ["a.JPG", "b.png"]
    for place in (tmp_path / "none.png", tmp_path / "sub"):
        with pytest.raises(InputError, match=r"config\.images"):
            photographs.find_photographs([str(place)])
