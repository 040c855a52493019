"""What the channels of an image mean, told by their number, and what is seen of images with alpha.

Images are grey (1 channel), grey and alpha (2), RGB (3) or RGB and alpha (4). Colours run from -1,
black, to 1, white; alpha runs from -1, transparent, to 1, opaque, and a value beyond these counts
as the nearer end. Alpha is straight, as in PNG files: colours are not multiplied by it.

Whoever compares images must see colour and alpha, but no colour where an image is transparent:
nobody sees that, and a network is free to leave anything there. So an image with alpha is compared
as two opaque ones, laid over black and over white. Together they tell colour and alpha in full, and
of an opaque image they are twice the image itself.

All functions take arrays of NumPy and of JAX, and return opaque images as they are.
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
    """Returns the numbers of channels that images may have.

    >>> describe()
    '1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGB and alpha)'
    """
    *most, last = (f"{count} ({meaning})" for count, meaning in MEANINGS.items())
    return f"{', '.join(most)} or {last}"


def require_known(count: int, what: str) -> None:
    """Checks that images of so many channels can be shown and compared.

    what: has these images, for the message.
    Raises: InputError.
    """
    if count not in MEANINGS:
        raise InputError(
            f"{what}: expected images of {describe()} channels; got {count}: nothing shows them; "
            "take a network that makes such images, or cut its last layer down to these channels"
        )


def has_alpha(count: int) -> bool:
    """Returns whether the last of so many channels is alpha."""
    return count in (2, 4)


def _split(images: Pixels) -> tuple[Pixels, Pixels]:
    """Returns the colour, and the alpha from 0 to 1."""
    return images[..., :-1], ((images[..., -1:] + 1) / 2).clip(0, 1)


def _join(parts: list[Pixels]) -> Pixels:
    """Returns arrays side by side in their channels."""
    return parts[0].__array_namespace__().concatenate(parts, axis=-1)


def over(images: Pixels, background: float | Pixels) -> Pixels:
    """Returns the opaque images that are seen over a background.

    background: in [-1, 1]; a number, or an array that broadcasts.
    """
    if not has_alpha(images.shape[-1]):
        return images
    colour, alpha = _split(images)
    return background + alpha * (colour - background)


def over_black_and_white(images: Pixels) -> Pixels:
    """Returns all that is seen of images: over black and over white, side by side in the channels.

    The mean squared difference of two such arrays is the mean of those over black and over white.
    """
    if not has_alpha(images.shape[-1]):
        return images
    return _join([over(images, BLACK), over(images, WHITE)])


def premultiply(images: Pixels) -> Pixels:
    """Returns all that is seen of images in as many channels: the colour over black, and the alpha.

    Such images may be averaged, as no colour of a transparent pixel is left in them.
    """
    if not has_alpha(images.shape[-1]):
        return images
    return _join([over(images, BLACK), 2 * _split(images)[1] - 1])


def unpremultiply(images: Pixels) -> Pixels:
    """Returns the images that `premultiply` makes these of; black where they are transparent."""
    if not has_alpha(images.shape[-1]):
        return images
    colour, alpha = _split(images)
    is_seen = alpha > 0
    return _join([(colour - BLACK) / (alpha + ~is_seen) * is_seen + BLACK, images[..., -1:]])
