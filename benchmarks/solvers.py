"""How many products eigensolvers need for 32 pairs, on a spectrum like that of a layer.

  python -m benchmarks.solvers       (1 minute)

Block Lanczos with blocks of 1, 2, 4 and 8 against `jax.experimental.sparse.linalg.lobpcg_standard`,
to a residual of 1e-3. A diagonal matrix is enough, because Krylov methods depend on the spectrum
alone. A product with a generator's Hessian costs far more than everything else, so products count.
"""

if not __package__:
    import as_module  # noqa: F401

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse.linalg import lobpcg_standard

from benchmarks import common
from navigan_jax.subspaces import hessian

ENTRIES = 4000
COUNT = 32
TOLERANCE = 1e-3


def spectrum_of_layer() -> np.ndarray:
    """Returns eigenvalues that decay like those of the DCGAN's main.3."""
    return (12 * np.arange(1, ENTRIES + 1) ** -0.6).astype(np.float32)


def worst_residual(values: np.ndarray, vectors: np.ndarray, diagonal: np.ndarray) -> float:
    residuals = np.linalg.norm(vectors * diagonal - values[:, None] * vectors, axis=1)
    return float(np.max(residuals / values))


def lobpcg_products(diagonal: np.ndarray) -> tuple[int, float]:
    """Returns (products, largest residual) of the fewest iterations that meet the tolerance."""
    start = jax.random.normal(jax.random.key(0), (ENTRIES, COUNT))
    device = jnp.asarray(diagonal)
    for iterations in range(5, 200, 5):
        values, vectors, done = lobpcg_standard(
            lambda block: device[:, None] * block, start, iterations, 0.0
        )
        worst = worst_residual(np.asarray(values), np.asarray(vectors).T, diagonal)
        if worst <= TOLERANCE:
            break
    # Every iteration multiplies the current vectors, their residuals and the last steps.
    return 3 * COUNT * int(done), worst


def main() -> None:
    common.make_parser(__doc__).parse_args()
    common.say_where()
    diagonal = spectrum_of_layer()
    device = jnp.asarray(diagonal)
    needed = {}
    for block in (1, 2, 4, 8):
        found = hessian.lanczos_spectrum(
            jax.random.key(0),
            lambda rows: rows * device[None, :],
            ENTRIES,
            count=COUNT,
            tolerance=TOLERANCE,
            block_size=block,
            max_vectors=160,
            max_products=4000,
        )
        needed[block] = found.products
        worst = worst_residual(found.eigenvalues, np.asarray(found.vectors), diagonal)
        print(f"block Lanczos, blocks of {block}: {found.products} products, residual {worst:.1e}")
    products, worst = lobpcg_products(diagonal)
    print(f"lobpcg_standard: {products} products, residual {worst:.1e}")
    common.ratio("lobpcg_products", products / needed[2])


if __name__ == "__main__":
    main()
