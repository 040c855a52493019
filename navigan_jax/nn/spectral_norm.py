"""Spectral normalisation as PyTorch programs store it: a weight is divided when it is used.

The stored weight is a matrix W [outputs, rest], and its divisor σ comes from stored vectors. There
are two forms:

1. With u and v stored, σ = u·(W v). So σ is linear in u, and any weight in use can be stored.
2. With u alone, one step of the power iteration comes first: v = W'u / |W'u| and σ = |W v|. Then σ
   lies between the smallest and the largest singular value of W, whatever u is. So the weight in
   use always has a singular value of 1 or more, and no other weight can be stored.

Sources: Miyato et al. 2018; torch.nn.utils.spectral_norm; ajbrock/BigGAN-PyTorch.
"""

import numpy as np

from navigan_jax.array_types import Float

Matrix = Float[np.ndarray, "outputs rest"]
Vector = Float[np.ndarray, "entries"]

_FLAT = 1e-3  # u·(W v) below this share of the old one makes u useless
_STEPS = 60  # of bisection: to the last bit of float64


def as_matrix(weights: np.ndarray) -> Matrix:
    """Returns a weight [*kernel, in, out] as PyTorch's matrix [out, in · kernel], in float64."""
    array = np.asarray(weights, np.float64)
    array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    return array.reshape(len(array), -1)


def divisor(matrix: Matrix, u: Vector, v: Vector | None, epsilon: float) -> float:
    """Returns σ; v None: after one step of the power iteration from u."""
    if v is not None:
        return float(u @ (matrix @ v))
    pulled = u @ matrix
    right = pulled / max(np.linalg.norm(pulled), epsilon)
    image = matrix @ right
    left = image / max(np.linalg.norm(image), epsilon)
    return float(left @ image)


def left_vector(matrix: Matrix, u: Vector, v: Vector | None, wanted: float) -> Vector | None:
    """Returns a vector near u with which the matrix has the divisor `wanted`; None if none has.

    matrix: the stored weight, as rounded in the file.
    """
    if v is not None:
        got = float(u @ (matrix @ v))
        return None if abs(got) < _FLAT * wanted else u * (wanted / got)
    squares, basis = _left_singular(matrix)
    start = basis.T @ (u / np.linalg.norm(u))

    def excess(coordinates: Vector) -> float:
        weights = coordinates**2 * squares
        return float(np.sqrt(weights @ squares / np.sum(weights)) - wanted)

    below = excess(start) < 0
    end = np.zeros_like(start)
    place = -1 if below else 0
    end[place] = 1.0 if start[place] >= 0 else -1.0
    low, high = 0.0, 1.0
    if (excess(end) if squares[place] > 0 else -wanted) * (1 if below else -1) < 0:
        return None
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if (excess((1 - middle) * start + middle * end) < 0) == below:
            low = middle
        else:
            high = middle
    found = basis @ ((1 - low) * start + low * end)
    return found / np.linalg.norm(found)


def _left_singular(matrix: Matrix) -> tuple[Vector, Float[np.ndarray, "outputs rank"]]:
    """Returns the squares of the singular values, rising, and the left singular vectors."""
    rows, columns = matrix.shape
    if rows <= columns:
        squares, basis = np.linalg.eigh(matrix @ matrix.T)
        return np.maximum(squares, 0), basis
    squares, right = np.linalg.eigh(matrix.T @ matrix)
    kept = squares > squares[-1] * 1e-24
    squares, right = squares[kept], right[:, kept]
    return squares, (matrix @ right) / np.sqrt(squares)
