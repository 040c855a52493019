"""Leading eigenpairs: the default solver against the paper's, on the DCGAN of faces.

  python -m benchmarks.spectrum            16 latents, 32 pairs: both sides run whole (10 minutes)
  python -m benchmarks.spectrum --full     and 512 latents, 64 pairs (30 minutes more): there the
                                           paper's time is its fixed count of products times the
                                           measured time of one

The paper's solver is power iteration by central differences, 10 iterations for each direction. It
runs twice: written plainly as in the official code (`baseline.py`), and on this package's central
differences, which share the prefix and use matrix products (`ratio ..._same_products`). Compile
times are printed apart and do not count. `ratio ..._processor` is the same ratio by processor time,
which other programs change less.
"""

if not __package__:
    import as_module  # noqa: F401

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import baseline, common
from navigan_jax import linalg
from navigan_jax import params as params_lib
from navigan_jax.perceptual import METRICS
from navigan_jax.spectrum import default_max_vectors
from navigan_jax.subspaces import hessian, products, reduction

LAYER = "main.3"
MICROBATCH = 16
ITERATIONS = 10
EPSILON = 0.1
TOLERANCE = 1e-3
CACHE = 4 * 2**30


def true_residuals(product: Callable[..., Any], vectors: Any) -> np.ndarray:
    """Returns ||Hv - λv|| / λ, where λ is the Rayleigh quotient of v, by fresh products."""
    residuals = []
    for vector in vectors:
        image = product(vector[None])[0]
        value = jnp.vdot(vector, image)
        residuals.append(float(jnp.linalg.norm(image - value * vector) / value))
    return np.array(residuals)


def run_power(product: Callable[[Any], Any], weights: Any, count: int) -> tuple[Any, np.ndarray]:
    """Returns the unit vectors of the paper's solver, and its seconds (`Stopwatch`)."""
    watch = common.Stopwatch()
    *_, last = hessian.power_steps(
        jax.random.key(2),
        product,
        weights,
        count=count,
        iterations=ITERATIONS,
        epsilon=EPSILON,
        state=hessian.PowerState(),
    )
    vectors = jax.block_until_ready(jnp.stack(last.found))
    spent = watch.read()
    return vectors / jnp.linalg.norm(vectors, axis=1, keepdims=True), spent


def describe(seconds: np.ndarray) -> str:
    return f"{seconds[0]:.1f} s ({seconds[1]:.1f} s of processor)"


def compare(samples: int, count: int, *, block_size: int, whole: bool, name: str) -> None:
    """Runs both sides on one problem and prints their ratio first."""
    generator, params = common.read_faces()
    params = params_lib.to_device(params)
    metric = METRICS["nlpd"]()
    layers = generator.find_layers([LAYER])
    z = generator.sample_latents(jax.random.key(0), samples)
    objective = products.make_objective(
        generator, params, metric, z, layers, microbatch=MICROBATCH, cache_bytes=CACHE
    )
    weights = params_lib.get(params, layers[0].path).reshape(-1)

    watch = common.Stopwatch()
    reduced = reduction.reduce_inputs(objective, at_least=count)
    entries = reduced.objective.entries
    product = products.gauss_newton(reduced.objective, cache_bytes=CACHE)
    warm = linalg.start_lanczos(jax.random.key(9), entries, block_size, jnp.float32)
    jax.block_until_ready(product(warm.candidate))
    compile_ours = watch.read()[0]

    batches = [jnp.asarray(part) for part in np.split(np.asarray(z), samples // MICROBATCH)]
    gradient = baseline.plain_gradient(generator, params, metric, batches, layers[0].path)
    plain = baseline.plain_central_difference(gradient, EPSILON)
    shared = products.central_difference(objective, epsilon=EPSILON)
    probe = 1e-2 * reduced.expand(warm.candidate)[0]
    jax.block_until_ready(reduced.expand(jnp.zeros((count, entries))))
    first = common.Stopwatch()
    jax.block_until_ready(plain(probe))
    compile_plain = first.read()[0]
    jax.block_until_ready(shared(probe[None]))
    plain_second, shared_second = np.zeros(2), np.zeros(2)

    def measure_products() -> None:
        """Times two products of each kind before our run and two after it."""
        for _ in range(2):
            watch = common.Stopwatch()
            jax.block_until_ready(plain(probe))
            plain_second[:] += watch.read() / 4
            watch = common.Stopwatch()
            jax.block_until_ready(shared(probe[None]))
            shared_second[:] += watch.read() / 4

    measure_products()
    watch = common.Stopwatch()
    ours = hessian.lanczos_spectrum(
        jax.random.key(1),
        product,
        entries,
        count=count,
        tolerance=TOLERANCE,
        block_size=block_size,
        max_vectors=default_max_vectors(count, block_size),
        max_products=4000,
    )
    vectors = jax.block_until_ready(reduced.expand(ours.vectors))
    ours_seconds = watch.read()
    measure_products()

    evaluations = count * ITERATIONS
    if whole:
        paper, plain_seconds = run_power(plain, weights, count)
        _, shared_seconds = run_power(lambda v: shared(v[None])[0], weights, count)
        how = "measured whole"
    else:
        plain_seconds, shared_seconds = evaluations * plain_second, evaluations * shared_second
        how = f"{evaluations} products x the measured time of one"
    for other, seconds in (("", plain_seconds), ("_same_products", shared_seconds)):
        clock, processor = seconds / ours_seconds
        common.ratio(name + other, clock)
        common.ratio(f"{name}{other}_processor", processor)
    whole_product = products.gauss_newton(objective, cache_bytes=CACHE)
    residuals = true_residuals(whole_product, vectors)
    print(f"{samples} latents, {count} pairs of {LAYER}, {objective.entries} weights, nlpd")
    print(
        f"  ours   {describe(ours_seconds)}  {ours.products} products, blocks of {block_size}, "
        f"largest residual {residuals.max():.1e} (compiled in {compile_ours:.1f} s)"
    )
    print(
        f"  paper  {describe(plain_seconds)}  {evaluations} products, {how} "
        f"({describe(plain_second)} each; compiled in {compile_plain:.1f} s)"
    )
    print(
        f"  paper on our central differences {describe(shared_seconds)} "
        f"({describe(shared_second)} each)"
    )
    if whole:
        theirs = true_residuals(whole_product, paper)
        cosines = np.abs(np.sum(np.asarray(paper) * np.asarray(vectors), axis=1))
        overlap = np.linalg.norm(np.asarray(paper @ vectors.T)) ** 2 / count
        print(
            f"  paper's vectors: median residual {np.median(theirs):.1%}, mean |cos| with ours by "
            f"index {cosines.mean():.2f}, overlap of the subspaces {overlap:.2f}"
        )


def main() -> None:
    parser = common.make_parser(__doc__)
    parser.add_argument("--full", action="store_true", help="512 latents and 64 pairs too")
    parser.add_argument("--block-size", type=int, default=2)
    arguments = parser.parse_args()
    common.say_where()
    block = arguments.block_size
    compare(16, 32, block_size=block, whole=True, name="spectrum")
    if arguments.full:
        compare(512, 64, block_size=block, whole=False, name="spectrum_512")


if __name__ == "__main__":
    main()
