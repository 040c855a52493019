"""Photographs from strangers as arrays: JPEG, PNG, WebP and TIFF in all their forms.

A photograph is read as it is meant to be seen: turned as its EXIF entry says, converted from its
colour profile to sRGB, and laid over white where it is transparent. Grey, CMYK and 16-bit files
become RGB.
"""

import dataclasses
import hashlib
import io
import pathlib
import struct
import warnings
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from navigan_jax import faults
from navigan_jax.array_types import Float
from navigan_jax.errors import InputError

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")
_MOST_BYTES = 2**28
_MOST_PIXELS = 2**27  # 134 megapixels: 1.6 GB as float32
_SMALLEST = 16  # pixels along a side

# What Pillow raises for a file that is damaged, cut off, or hostile.
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    MemoryError,
    OverflowError,
    RuntimeError,
    struct.error,
    Image.DecompressionBombError,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Photograph:
    """A picture in sRGB.

    pixels: in [-1, 1], of 8 or 16 bits before. sha256: of the file. told: what was done to read
    it, in words; may be empty.
    """

    name: str
    pixels: Float[np.ndarray, "height width 3"]
    sha256: str
    told: str = ""


def find_photographs(places: Sequence[str]) -> list[pathlib.Path]:
    """Returns the files among `places`, and the pictures in its folders, in alphabetical order.

    Raises: InputError for a place where nothing is, or a folder without pictures.
    """
    found: list[pathlib.Path] = []
    for place in map(pathlib.Path, places):
        if place.is_dir():
            inside = sorted(p for p in place.iterdir() if p.suffix.lower() in ENDINGS)
            if not inside:
                raise InputError(
                    f"{place}: expected a folder with pictures ({', '.join(ENDINGS)}); got none "
                    "in it; check config.images"
                )
            found += inside
        elif place.is_file():
            found.append(place)
        else:
            raise InputError(
                f"{place}: expected a picture, or a folder of pictures; got "
                f"{faults.found_at(place)}; check config.images"
            )
    return list(dict.fromkeys(found))


def read_photograph(path: pathlib.Path) -> Photograph:
    """Returns the photograph in a file. Raises: as `parse_photograph`."""
    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise _refusal(str(path), f"{size} bytes", f"at most {_MOST_BYTES} bytes")
        content = path.read_bytes()
    except OSError as error:
        raise _refusal(str(path), faults.in_words(error), "a readable file") from error
    return parse_photograph(content, str(path))


def parse_photograph(content: bytes, name: str) -> Photograph:
    """Returns the photograph in the bytes of a file; `name` is the file's name.

    Raises: InputError if the bytes are no picture, are cut off, or are too many or too few pixels.
    """
    try:
        # A bomb is refused below by its number of pixels, before any of them is decoded.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
                _require_size(picture, name)
                frames = getattr(picture, "n_frames", 1)
                picture.load()
                pixels, told = _to_srgb(picture)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise _refusal(name, "other bytes", f"a picture ({', '.join(_FORMATS)})") from error
    except _UNREADABLE as error:
        raise _refusal(name, f"a damaged one ({faults.in_words(error)})", "a whole picture") from (
            error
        )
    if frames > 1:
        told = [f"the first of {frames} pictures in the file is used", *told]
    digest = hashlib.sha256(content).hexdigest()
    return Photograph(name, pixels, digest, "; ".join(told))


def _require_size(picture: Image.Image, name: str) -> None:
    width, height = picture.size
    if width * height > _MOST_PIXELS:
        raise _refusal(name, f"{width}x{height} pixels", f"at most {_MOST_PIXELS} pixels")
    if min(width, height) < _SMALLEST:
        raise _refusal(name, f"{width}x{height} pixels", f"sides of {_SMALLEST} pixels or more")


def _to_srgb(picture: Image.Image) -> tuple[np.ndarray, list[str]]:
    """Returns the pixels in [-1, 1] as they are meant to be seen, and what was done, in words."""
    told = []
    profile = picture.info.get("icc_profile")
    upright = ImageOps.exif_transpose(picture)
    if upright.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I"):
        grey = np.clip(np.asarray(upright.convert("I"), np.float32), 0, 65535) / 32767.5 - 1
        return np.repeat(grey[..., None], 3, axis=2), ["grey of 16 bits"]
    if upright.mode == "F":
        raise ValueError("pixels that are fractions without a known range")
    if upright.mode in ("P", "PA") or "transparency" in upright.info:
        upright = upright.convert("RGBA")
    alpha = None
    if upright.mode in ("RGBA", "LA", "La", "RGBa"):
        upright = upright.convert("LA" if upright.mode in ("LA", "La") else "RGBA")
        alpha = np.asarray(upright.getchannel("A"), np.float32)[..., None] / 255
        upright = upright.convert("L" if upright.mode == "LA" else "RGB")
    mode = upright.mode
    if profile:
        converted = _from_profile(upright, profile)
        told += [] if converted else ["its colour profile cannot be read and is left out"]
        upright = converted or upright
    if mode not in ("RGB", "1"):
        told.append(f"converted from {'grey' if mode == 'L' else mode} to RGB")
    pixels = np.asarray(upright.convert("RGB"), np.float32) / 127.5 - 1
    if alpha is not None and (alpha < 1).any():
        pixels = alpha * pixels + (1 - alpha)
        told.append("transparent pixels are laid over white")
    return np.ascontiguousarray(pixels), told


def _from_profile(picture: Image.Image, profile: bytes) -> Image.Image | None:
    """Returns the picture in sRGB, or None for a profile that is damaged or of other colours."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(
            picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, *_UNREADABLE):
        return None


def _refusal(name: str, got: str, expected: str) -> InputError:
    return InputError(f"{name}: expected {expected}; got {got}; give another picture")
