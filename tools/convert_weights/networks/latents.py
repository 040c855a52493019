"""The latents in what other programs pickle: a tensor, several, or entries by the image's name.

rosinality's projector writes {image: {"img": ..., "latent": ..., "noise": [...]}}, encoders of
StyleGAN write one tensor, a list, or {image: array}. What holds latents under a telling name is
found by it; what lies beside it does not matter.
"""

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

from navigan_jax.errors import InputError
from navigan_jax.generators.latents import is_latent_name

_PLAIN = "latents"  # a name that leaves it to the axes what they are
_MOST_LISTED = 6


def find_latents(content: Any, name: str, file: str) -> tuple[str, np.ndarray, int]:
    """Returns the name of the latents, the latents [count, ...] as float32, of how many arrays.

    content: what was read of the file, plain containers. name: of latents without one of their own.
    file: what messages call the file.
    Raises: InputError if it holds none, or arrays that do not belong together.
    """
    found = list(_walk(content, name if is_latent_name(name) else _PLAIN, file))
    if not found:
        raise InputError(
            f"{file}: expected latents, an array or several; got none; see what the file is with: "
            "python -m tools.convert_weights inspect FILE"
        )
    if len({(called, array.shape[-2:], array.ndim) for called, array in found}) > 1:
        listed = ", ".join(f"{called} {list(array.shape)}" for called, array in found)
        shown = listed if len(found) <= _MOST_LISTED else f"{listed[:200]}..."
        raise InputError(
            f"{file}: expected latents of one shape; got {len(found)} arrays: {shown}; save the "
            "latents alone, under a name such as w or latents"
        )
    arrays = [array for _, array in found]
    one_each = arrays[0].ndim == 1 or (arrays[0].ndim == 2 and arrays[0].shape[0] > 1)
    joined = arrays[0]
    if len(arrays) > 1:
        joined = np.stack(arrays) if one_each else np.concatenate(arrays)
    return found[0][0], joined, len(arrays)


def _walk(value: Any, name: str, file: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the arrays that can be latents, and what they are called."""
    if isinstance(value, np.ndarray):
        if value.ndim and (value.dtype.kind in "fiu" or value.dtype == ml_dtypes.bfloat16):
            with np.errstate(over="ignore"):
                yield name, value.astype(np.float32)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _walk(item, name, file)
    elif isinstance(value, dict):
        named = [key for key in value if is_latent_name(key)]
        if len(named) > 1:
            raise InputError(
                f"{file}: expected one entry of latents; got {', '.join(named)}; save one of them "
                "alone"
            )
        for key in named or value:
            yield from _walk(value[key], key if named else name, file)
