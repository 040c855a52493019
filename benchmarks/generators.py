"""Generators at their published sizes, random weights: ours against a plain JAX version.

  python -m benchmarks.generators                    (all; half an hour on two cores)
  python -m benchmarks.generators --only biggan_128

For each network: a forward pass, the gradient of one layer, and a Gauss-Newton product of that
layer, of one image, from the layer's stage on. The plain version is the same network with every
convolution and its derivatives left to XLA. Both sides run in turn, as the machine may be shared; a
ratio is that of the medians. The last line of a network is the memory of a spectrum of 64
directions: the vectors of the solver, and the program of one product.
"""

if not __package__:
    import as_module  # noqa: F401

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common
from navigan_jax import devices
from navigan_jax import params as params_lib
from navigan_jax.array_types import Array, Images, Params
from navigan_jax.generators.base import EditableLayer, Generator
from navigan_jax.generators.files import make_generator
from navigan_jax.nn import affine, layers

DIRECTIONS = 64


@dataclasses.dataclass(frozen=True)
class Case:
    """A network at its published size, and the layer that is edited."""

    architecture: str
    sizes: dict[str, Any]
    layer: str


def _biggan(side: int) -> dict[str, Any]:
    factors = {128: (16, 16, 8, 4, 2, 1), 256: (16, 16, 8, 8, 4, 2, 1)}[side]
    chunks = len(factors)
    return {
        "z_dim": 20 * chunks,
        "label_dim": 1000,
        "embedding": 128,
        "widths": [96 * factor for factor in factors],
        "attention": [3],  # at 64 pixels
        "epsilon": 1e-5,
    }


CASES = {
    "biggan_128": Case("biggan", _biggan(128), "blocks.2.0.conv1"),
    "biggan_256": Case("biggan", _biggan(256), "blocks.2.0.conv1"),
    "biggan_deep_128": Case(
        "biggan_deep",
        {
            "z_dim": 128,
            "label_dim": 1000,
            "embedding": 128,
            "first_width": 2048,
            "outputs": [128 * factor for factor in (16, 16, 16, 8, 8, 4, 4, 2, 2, 1)],
            "doubles": [bool(index % 2) for index in range(10)],
            "attention": [8],
        },
        "generator.layers.5.conv_1",
    ),
    "pix2pixhd_1024x512": Case(
        "pix2pixhd",
        {
            "labels": 35,
            "has_instances": True,
            "width_first": 64,
            "halvings": 4,
            "blocks": 9,
            "height": 512,
            "width": 1024,
        },
        "model.25",
    ),
    "proggan_1024": Case(
        "proggan",
        {
            "z_dim": 512,
            "widths": [512, 512, 512, 512, 256, 128, 64, 32, 16],
            "image_channels": 3,
        },
        "features.6",
    ),
}


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Leaves all convolutions to XLA while a function is traced."""
    with contextlib.ExitStack() as stack:
        for module, name, instead in (
            (affine, "conv3x3", layers.conv),
            (affine, "conv_by_matmul", layers.conv),
            (layers, "conv_transpose_by_matmul", layers.conv_transpose),
        ):
            stack.enter_context(mock.patch.object(module, name, instead))
        yield


def functions(generator: Generator, layer: EditableLayer) -> dict[str, Callable[..., Any]]:
    """Returns the three computations, as functions of (weight, params, carry)."""

    def images(weight: Array, params: Params, carry: Any) -> Images:
        changed = params_lib.replace(params, layer.path, weight)
        return generator.suffix(changed, carry, [layer])

    def gradient(weight: Array, params: Params, carry: Any) -> Array:
        return jax.grad(lambda weight: jnp.sum(images(weight, params, carry) ** 2))(weight)

    def product(weight: Array, params: Params, carry: Any) -> Array:
        def of_weight(weight: Array) -> Images:
            return images(weight, params, carry)

        # No multiple of the weight: normalisation may follow, and then its product is 0.
        vector = jax.random.normal(jax.random.key(2), weight.shape)
        tangent = jax.jvp(of_weight, (weight,), (vector,))[1]
        return jax.vjp(of_weight, weight)[1](tangent)[0]

    return {"forward": images, "gradient": gradient, "product": product}


def measure(name: str, case: Case, repeats: int) -> None:
    """Prints the lines of one network."""
    generator = make_generator(case.architecture, case.sizes)
    params = params_lib.to_device(generator.init(jax.random.key(0)))
    (layer,) = generator.find_layers([case.layer])
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(f"{name}: {count / 1e6:.1f} M weights, {layer.original_name} {list(layer.shape)}")
    latent = generator.sample_latents(jax.random.key(1), 1)
    carry = jax.jit(lambda params, z: generator.prefix(params, z, [layer]))(params, latent)
    weight = jnp.asarray(params_lib.get(params, layer.path))
    for what in ("forward", "gradient", "product"):
        compiled, times, results = {}, {}, {}
        for side in ("plain", "ours"):
            function = functions(generator, layer)[what]
            with plain() if side == "plain" else contextlib.nullcontext():
                compiled[side] = jax.jit(function).lower(weight, params, carry).compile()
            results[side] = np.asarray(compiled[side](weight, params, carry))
            times[side] = []
        for _ in range(repeats):
            for side, program in compiled.items():
                times[side].append(common.seconds(program, weight, params, carry, repeats=0)[0])
        slow, fast = (float(np.median(times[side])) for side in ("plain", "ours"))
        spread = np.abs(results["plain"]).max()
        error = np.abs(results["ours"] - results["plain"]).max() / spread
        print(f"  {what}: plain {slow:.2f} s, ours {fast:.2f} s; largest difference {error:.1e}")
        common.ratio(f"{name}_{what}", slow / fast)
    vectors = (2 * DIRECTIONS + 1) * weight.nbytes
    product = functions(generator, layer)["product"]
    working = devices.working_bytes(product, weight, params, carry)
    print(
        f"  {DIRECTIONS} directions: {vectors / 2**30:.2f} GiB of vectors, "
        f"{working / 2**30:.2f} GiB for a product of one image"
    )


def main() -> None:
    """Runs the script."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--only", choices=CASES, help="one network; default: all")
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    options = parser.parse_args()
    common.say_where()
    for name, case in CASES.items():
        if options.only in (None, name):
            measure(name, case, options.repeats)


if __name__ == "__main__":
    main()
