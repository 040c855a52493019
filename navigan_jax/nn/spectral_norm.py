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

_FLAT = 1e-3  # a u at nearly a right angle to W v, by the cosine, loses digits when it is scaled


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


def left_vector(matrix: Matrix, u: Vector, v: Vector | None, wanted: float) -> Vector:
    """Returns a vector near u with which the divisor is `wanted`, or as close to it as can be.

    matrix: the stored weight, as rounded in the file.

    Without v, let c be the coordinates of u by the left singular vectors, and s the singular
    values. The divisor is `wanted` if Σ c² s² (s² - wanted²) = 0. One coordinate changes, that
    with the largest factor of the sign that is missing, so that rounding u hardly changes the
    divisor.
    """
    if v is not None:
        image = matrix @ v
        if abs(u @ image) < _FLAT * np.linalg.norm(u) * np.linalg.norm(image):
            u = image
        got = float(u @ image)
        return u * (wanted / got) if got else u
    squares, basis = _left_singular(matrix)
    coordinates = basis.T @ u
    factors = squares * (squares - wanted**2)
    excess = coordinates**2 @ factors
    if excess == 0:
        return u
    place = np.argmin(factors) if excess > 0 else np.argmax(factors)
    if factors[place] * excess >= 0:
        # All singular values are on one side of `wanted`: the one next to it is the closest.
        return basis[:, 0 if excess > 0 else -1]
    rest = excess - coordinates[place] ** 2 * factors[place]
    coordinates[place] = np.copysign(np.sqrt(-rest / factors[place]), coordinates[place])
    found = basis @ coordinates
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
