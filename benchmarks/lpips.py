"""What LPIPS costs against NLPD, and the product of the paper, on cars and faces.

  python -m tools.convert_weights lpips --net vgg --out runs/weights/lpips.safetensors
  python -m benchmarks.lpips --lpips runs/weights/lpips.safetensors        (3 minutes)

Images are resized to 64 px by nearest interpolation, as in the paper. The paper's product is a
central difference with LPIPS; ours are Gauss-Newton products in blocks of 2, on the weights on
which the images depend. Figures are medians of three calls.
"""

if not __package__:
    import as_module  # noqa: F401

import functools
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common
from navigan_jax import params as params_lib
from navigan_jax.generators.files import read_generator
from navigan_jax.perceptual import METRICS
from navigan_jax.perceptual.base import AtSize
from navigan_jax.perceptual.files import read_perceptual
from navigan_jax.subspaces import products, reduction

CACHE = 4 * 2**30
LATENTS, BLOCK, ROUNDS = 16, 2, 3
LAYERS = {"cars": "synthesis/b16/conv1", "faces": "main.3"}


def measure(name: str, lpips: pathlib.Path) -> None:
    """Prints seconds for one vector by each product, and ratios."""
    generator, params = common.read_faces() if name == "faces" else read_generator(name)
    params = params_lib.to_device(params)
    z = generator.sample_latents(jax.random.key(0), LATENTS)
    calls = {}
    for kind, metric in (("nlpd", METRICS["nlpd"]()), ("lpips", read_perceptual(lpips))):
        objective = products.make_objective(
            generator,
            params,
            AtSize(metric, 64, "nearest"),
            z,
            generator.find_layers([LAYERS[name]]),
            microbatch=LATENTS,
            cache_bytes=CACHE,
        )
        reduced = reduction.reduce_inputs(objective, at_least=BLOCK).objective
        product = products.gauss_newton(reduced, cache_bytes=CACHE)
        block = jax.random.normal(jax.random.key(1), (BLOCK, reduced.entries))
        calls[kind] = functools.partial(product, block / reduced.entries**0.5)
        if kind == "lpips":
            central = products.central_difference(objective, epsilon=0.1)
            row = jax.random.normal(jax.random.key(1), (1, objective.entries))
            calls["paper"] = functools.partial(central, row / objective.entries**0.5)
    spent: dict[str, list[np.ndarray]] = {kind: [] for kind in calls}
    for kind, call in calls.items():
        jax.block_until_ready(call())  # compiles
        for _ in range(ROUNDS):
            watch = common.Stopwatch()
            vectors = len(jnp.atleast_2d(jax.block_until_ready(call())))
            spent[kind].append(watch.read() / vectors)
    found = {kind: np.median(rows, axis=0) for kind, rows in spent.items()}
    for kind, (clock, processor) in found.items():
        print(
            f"{name:6} {kind:6} {clock:7.3f} s a product, {processor:7.3f} s of the processor, "
            f"{LATENTS} latents",
            flush=True,
        )
    common.ratio(f"{name}_lpips_to_nlpd_processor", found["lpips"][1] / found["nlpd"][1])
    common.ratio(f"{name}_paper_to_nlpd_processor", found["paper"][1] / found["nlpd"][1])


def main() -> None:
    parser = common.make_parser(__doc__)
    parser.add_argument("--lpips", type=pathlib.Path, required=True, help="weights of LPIPS")
    options = parser.parse_args()
    if not options.lpips.exists():
        sys.exit(f"{options.lpips} is missing: see the head of this file")
    common.say_where()
    for name in LAYERS:
        measure(name, options.lpips)


if __name__ == "__main__":
    main()
