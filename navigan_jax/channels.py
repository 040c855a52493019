"""The meaning of image channels by their number, and how images with alpha are compared.

Images are grey (1 channel), grey and alpha (2), RGB (3) or RGB and alpha (4). Colours run from -1
(black) to 1 (white). Alpha runs from -1 (transparent) to 1 (opaque); values outside are clipped.
Alpha is straight, as in PNG files: colours are not multiplied by it.

A comparison must see colour and alpha, but not the colour of transparent pixels: it is invisible,
and a network may produce any colour there. So an image with alpha is compared as two opaque images,
one over black and one over white. Together they determine alpha and every visible colour. For an
opaque image, both are the image itself.

All functions take NumPy or JAX arrays and return images without an alpha channel unchanged.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from navigan_jax.array_types import Array
from navigan_jax.errors import InputError

Pixels = TypeVar("Pixels", Array, np.ndarray)  # [*batch, channels]

MEANINGS: Mapping[int, str] = MappingProxyType(
    {1: "grey", 2: "grey and alpha", 3: "RGB", 4: "RGB and alpha"}
)
BLACK, WHITE = -1.0, 1.0


def describe() -> str:
    """Returns in words the numbers of channels that images may have.

    >>> describe()
    '1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGB and alpha)'
    """
    *most, last = (f"{count} ({meaning})" for count, meaning in MEANINGS.items())
    return f"{', '.join(most)} or {last}"


def require_known(count: int, what: str) -> None:
    """Checks that images with `count` channels can be shown and compared.

    what: the source of the images; the message begins with it.
    Raises: InputError.
    """
    if count not in MEANINGS:
        raise InputError(
            f"{what}: expected images of {describe()} channels; got {count}, which cannot be "
            "shown; use a network that makes such images, or cut its last layer to these channels"
        )


def has_alpha(count: int) -> bool:
    """Returns whether the last of `count` channels is alpha."""
    return count in (2, 4)


def _split(images: Pixels) -> tuple[Pixels, Pixels]:
    """Returns the colour channels, and alpha in [0, 1]."""
    return images[..., :-1], ((images[..., -1:] + 1) / 2).clip(0, 1)


def _join(parts: list[Pixels]) -> Pixels:
    """Returns the arrays concatenated along the channels."""
    return parts[0].__array_namespace__().concatenate(parts, axis=-1)


def over(images: Pixels, background: float | Pixels) -> Pixels:
    """Returns the images composited over a background; the result has no alpha.

    background: in [-1, 1]; a number, or an array that broadcasts to the images.
    """
    if not has_alpha(images.shape[-1]):
        return images
    colour, alpha = _split(images)
    return background + alpha * (colour - background)


def over_black_and_white(images: Pixels) -> Pixels:
    """Returns the images over black and over white, concatenated along the channels.

    The mean squared difference of two such arrays is the mean of two mean squared differences: that
    over black and that over white.
    """
    if not has_alpha(images.shape[-1]):
        return images
    return _join([over(images, BLACK), over(images, WHITE)])


def premultiply(images: Pixels) -> Pixels:
    """Returns the colour over black and the alpha, in the same number of channels.

    Such images may be averaged: a transparent pixel contributes no colour.
    """
    if not has_alpha(images.shape[-1]):
        return images
    return _join([over(images, BLACK), 2 * _split(images)[1] - 1])


def unpremultiply(images: Pixels) -> Pixels:
    """Returns the inverse of `premultiply`; transparent pixels become black."""
    if not has_alpha(images.shape[-1]):
        return images
    colour, alpha = _split(images)
    is_seen = alpha > 0
    return _join([(colour - BLACK) / (alpha + ~is_seen) * is_seen + BLACK, images[..., -1:]])
