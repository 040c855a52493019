"""Peak memory of the solver for 64 directions of a 512x512x3x3 weight.

  python -m benchmarks.memory        (5 minutes)

The Hessian is a diagonal matrix with a spectrum like that of a generator's layer. No image is made,
so the peak is the solver's own. The basis, 64 vectors of float32, takes 604 MB.
"""

if not __package__:
    import as_module  # noqa: F401

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common
from navigan_jax.spectrum import default_max_vectors
from navigan_jax.subspaces import hessian

ENTRIES = 512 * 512 * 3 * 3
COUNT = 64
BLOCK = 2


def main() -> None:
    common.make_parser(__doc__).parse_args()
    common.say_where()
    values = np.zeros(ENTRIES, np.float32)
    values[:4000] = 10 * np.arange(1, 4001) ** -0.6
    diagonal = jnp.asarray(values)
    multiply = jax.jit(lambda block, diagonal: block * diagonal[None, :])
    before = common.peak_bytes()
    spectrum = hessian.lanczos_spectrum(
        jax.random.key(0),
        lambda block: multiply(block, diagonal),
        ENTRIES,
        count=COUNT,
        tolerance=1e-3,
        block_size=BLOCK,
        max_vectors=default_max_vectors(COUNT, BLOCK),
        max_products=4000,
    )
    jax.block_until_ready(spectrum.vectors)
    peak = common.peak_bytes()
    basis = 4 * COUNT * ENTRIES
    error = np.max(np.abs(spectrum.eigenvalues / values[:COUNT] - 1))
    print(
        f"{COUNT} pairs of {ENTRIES} weights: {spectrum.products} products, "
        f"eigenvalues within {error:.1e}"
    )
    print(
        f"peak {peak / 1e6:.0f} MB, of which {before / 1e6:.0f} MB before the solver; "
        f"basis {basis / 1e6:.0f} MB"
    )
    common.ratio("memory_over_basis", peak / basis)


if __name__ == "__main__":
    main()
