"""Array types for signatures, and the axis letters that end array names in function bodies.

Axis letters: B batch, D latent size, L synthesis layers, H rows, W columns, C channels, K kernel
side, I/O channels in and out, P entries of the edited weights, R basis vectors, N directions, T
steps along a shift, M samples for a statistic. Images are NHWC in [-1, 1], kernels are HWIO.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

from jax import Array
from jaxtyping import Float, Int, PRNGKeyArray

Key: TypeAlias = PRNGKeyArray
Params: TypeAlias = Mapping[str, Any]  # nested string-keyed mappings whose leaves are arrays
Images: TypeAlias = Float[Array, "batch height width channels"]
Vector: TypeAlias = Float[Array, "entries"]
Block: TypeAlias = Float[Array, "vectors entries"]

__all__ = ["Array", "Block", "Float", "Images", "Int", "Key", "Params", "Vector"]
