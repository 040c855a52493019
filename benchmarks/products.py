"""Seconds of a Hessian product on the DCGAN of faces: each kind, in blocks of 1, 4 and 16.

  python -m benchmarks.products        (3 minutes)

All kinds and blocks run in turn, so that other programs slow all of them alike. Figures are medians
over the rounds, by the clock and by processor time. The ratios compare the Gauss-Newton product in
blocks of 16 with the central difference in its best block size:

product_block16        as the solver uses it, on the weights on which the images depend
product_block16_whole  on all weights
product_block16_plain  against the central difference of benchmarks/baseline.py

Two more comparisons show the choices behind the products: the weight derivative of the edited layer
as a convolution and as a matrix product, and a compiled loop against calls from Python.
"""

if not __package__:
    import as_module  # noqa: F401

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import baseline, common
from navigan_jax import params as params_lib
from navigan_jax.array_types import Params
from navigan_jax.generators.base import Generator
from navigan_jax.nn.layers import conv_transpose, conv_transpose_by_matmul
from navigan_jax.perceptual import METRICS
from navigan_jax.perceptual.base import Distance
from navigan_jax.subspaces import products, reduction

CACHE = 4 * 2**30
ROUNDS = 5


def main() -> None:
    common.make_parser(__doc__).parse_args()
    common.say_where()
    generator, params = common.read_faces()
    params = params_lib.to_device(params)
    metric = METRICS["nlpd"]()
    layers = generator.find_layers(["main.3"])
    z = generator.sample_latents(jax.random.key(0), 16)
    objective = products.make_objective(
        generator, params, metric, z, layers, microbatch=16, cache_bytes=CACHE
    )
    reduced = reduction.reduce_inputs(objective, at_least=16).objective
    gradient = baseline.plain_gradient(generator, params, metric, [z], layers[0].path)
    plain = baseline.plain_central_difference(gradient, 0.1)
    kinds = {
        "exact": products.exact(objective),
        "gauss_newton": products.gauss_newton(objective, cache_bytes=CACHE),
        "gauss_newton, not kept": products.gauss_newton(objective, cache_bytes=0),
        "gauss_newton, reduced": products.gauss_newton(reduced, cache_bytes=CACHE),
        "central_difference": products.central_difference(objective, epsilon=0.1),
        "central difference, plain": lambda block: jnp.stack([plain(row) for row in block]),
    }
    calls = {}
    for name, product in kinds.items():
        entries = reduced.entries if "reduced" in name else objective.entries
        # The plain one goes row by row and is slow: one row tells.
        for size in (1,) if "plain" in name else (1, 4, 16):
            block = jax.random.normal(jax.random.key(size), (size, entries)) / entries**0.5
            calls[name, size] = functools.partial(product, block)
    compiled = {key: common.seconds(call, repeats=0)[1] for key, call in calls.items()}
    found = take_turns(calls)
    print("seconds per vector, 16 latents, main.3 (of processors; first call)")
    for name in kinds:
        cells = [
            f"block {size:2}: {clock:.3f} ({processors:.3f}; {compiled[name, size]:.1f})"
            for (kind, size), (clock, processors) in found.items()
            if kind == name
        ]
        print(f"  {name:26}" + "   ".join(cells), flush=True)
    for suffix, ours, theirs in (
        ("", "gauss_newton, reduced", "central_difference"),
        ("_whole", "gauss_newton", "central_difference"),
        ("_plain", "gauss_newton, reduced", "central difference, plain"),
    ):
        best = np.min([figures for (kind, _), figures in found.items() if kind == theirs], axis=0)
        clock, processors = best / found[ours, 16]
        common.ratio(f"product_block16{suffix}", clock)
        common.ratio(f"product_block16{suffix}_processors", processors)
    weight_derivative()
    compiled_loop(generator, params, metric, z)


def take_turns(calls: dict[tuple[str, int], Any]) -> dict[tuple[str, int], np.ndarray]:
    """Returns medians of [seconds, processor seconds] for one vector; each runs once a round."""
    spent: dict[tuple[str, int], list[np.ndarray]] = {key: [] for key in calls}
    for _ in range(ROUNDS):
        for key, call in calls.items():
            watch = common.Stopwatch()
            jax.block_until_ready(call())
            spent[key].append(watch.read() / key[1])
    return {key: np.median(rows, axis=0) for key, rows in spent.items()}


def weight_derivative() -> None:
    """Times the derivative by the kernel of a transposed convolution, 16 images."""
    x = jax.random.normal(jax.random.key(0), (16, 4, 4, 512))
    kernel = jax.random.normal(jax.random.key(1), (4, 4, 512, 256))
    cotangent = jax.random.normal(jax.random.key(2), (16, 8, 8, 256))
    times = []
    for layer in (conv_transpose, conv_transpose_by_matmul):

        def derivative(x, kernel, cotangent, layer=layer):  # type: ignore[no-untyped-def]
            transpose = jax.linear_transpose(lambda k: layer(x, k, stride=2, padding=1), kernel)
            return transpose(cotangent)[0]

        median, _ = common.seconds(jax.jit(derivative), x, kernel, cotangent, repeats=5)
        times.append(median)
    print(f"weight derivative: convolution {times[0]:.4f} s, matrix product {times[1]:.4f} s")
    common.ratio("weight_derivative", times[0] / times[1])


def compiled_loop(generator: Generator, params: Params, metric: Distance, z: jax.Array) -> None:
    """Times four gradients one after another: in a compiled loop, and in a Python loop."""
    one = baseline.plain_gradient_of_batch(generator, metric, "conv1/kernel")
    block = jax.random.normal(jax.random.key(3), (4, *params["conv1"]["kernel"].shape))
    single = jax.jit(one)
    inside = jax.jit(lambda rows, params, z: jax.lax.map(lambda row: one(row, params, z), rows))
    outside, _ = common.seconds(
        lambda rows: [single(row, params, z) for row in rows], block, repeats=3
    )
    looped, _ = common.seconds(inside, block, params, z, repeats=3)
    print(f"four gradients: calls from Python {outside:.3f} s, a compiled loop {looped:.3f} s")
    common.ratio("compiled_loop", looped / outside)


if __name__ == "__main__":
    main()
