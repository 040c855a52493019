"""Seconds of a Hessian product on the DCGAN of faces: each kind, in blocks of 1, 4 and 16.

  python -m benchmarks.products        (2 minutes)

Also: the weight derivative of the edited layer as a convolution and as a matrix product, and a
compiled loop against calls from Python, the two choices that the products rest on.
"""

import jax
import jax.numpy as jnp

from benchmarks import baseline, common
from navigan_jax import linalg
from navigan_jax import params as params_lib
from navigan_jax.array_types import Params
from navigan_jax.generators.base import Generator
from navigan_jax.layers import conv_transpose, conv_transpose_by_matmul
from navigan_jax.perceptual import METRICS
from navigan_jax.perceptual.base import Distance
from navigan_jax.subspaces import products, reduction

CACHE = 4 * 2**30


def main() -> None:
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
    print("seconds per vector, 16 latents, main.3 (first call in brackets)")
    found = {}
    for name, product in kinds.items():
        cells = []
        for size in (1, 4, 16):
            entries = reduced.entries if "reduced" in name else objective.entries
            start = linalg.start_lanczos(jax.random.key(size), entries, size, jnp.float32)
            median, first = common.seconds(product, start.candidate, repeats=3)
            found[name, size] = median / size
            cells.append(f"block {size:2}: {median / size:.3f} ({first:.1f})")
        print(f"  {name:26}" + "   ".join(cells), flush=True)
    ours = found["gauss_newton, reduced", 16]
    common.ratio("product_block16", found["central_difference", 16] / ours)
    common.ratio("product_block16_plain", found["central difference, plain", 16] / ours)
    weight_derivative()
    compiled_loop(generator, params, metric, z)


def weight_derivative() -> None:
    """The derivative by the kernel of a transposed convolution, 16 images."""
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
    """Four gradients one after another: a loop inside the compiled program, and Python's."""
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
