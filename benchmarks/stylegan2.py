"""StyleGAN2 of config-f with random weights: ours against a plain JAX version of the same network.

  python -m benchmarks.stylegan2              (256 px, batch 4)
  python -m benchmarks.stylegan2 --full       (256, 512 and 1024 px, batches 1, 4 and 16; an hour)
  python -m benchmarks.stylegan2 --side 512 --batch 1 --only forward

The plain version scales the input by the style, applies one shared convolution (to double the side:
zeros between the pixels, then the filter) and scales the output. `pixels` compares whole images
with only those pixels that a distance at 64 px, nearest interpolation, reads; `pixels_gradient`
does the same for the gradient of a layer. `precision` compares features in bfloat16 with float32,
for images and gradient. Both sides run in turn, as the machine may be shared. A ratio is that of
the medians; the ratio of processor time follows it.
"""

if not __package__:
    import as_module  # noqa: F401

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks import common
from navigan_jax import devices
from navigan_jax import params as params_lib
from navigan_jax.array_types import Array, Images, Params
from navigan_jax.generators.base import Generator
from navigan_jax.generators.files import make_generator

TAPS = (1.0, 3.0, 3.0, 1.0)
LAYER = "synthesis/b64/conv1/kernel"  # convs.7 of NaviGAN


def config_f(side: int) -> dict[str, Any]:
    """Returns the sizes of config-f."""
    blocks = int(math.log2(side)) - 1
    return {
        "z_dim": 512,
        "label_dim": 0,
        "label_width": 0,
        "labels": "embedded",
        "mapping_widths": [512] * 8,
        "mapping_rate": 0.01,
        "channels": [min(32768 // (4 << block), 512) for block in range(blocks)],
        "image_channels": 3,
        "blocks": "skip",
        "resample_taps": list(TAPS),
        "clamp": None,
    }


def plain(params: Params, w_plus: Array) -> Images:
    """Returns the images by the plain version."""
    synthesis = params["synthesis"]
    x = jnp.repeat(synthesis["b4"]["const"][None], len(w_plus), axis=0)
    image: Any = 0.0
    for index in range(len(synthesis)):
        block = synthesis[f"b{4 << index}"]
        if index:
            x = _styled(x, w_plus[:, 2 * index - 1], block["conv0"], up=True)
        x = _styled(x, w_plus[:, 2 * index], block["conv1"], up=False)
        part = block["torgb"]
        scaled = x * _style(part["affine"], w_plus[:, 2 * index + 1])[:, None, None]
        rgb = _convolve(scaled, part["kernel"]) / math.sqrt(x.shape[-1])
        rgb += part["bias"][None, None, None]
        image = rgb + (_filter(image, up=2, before=2, after=1) if index else 0)
    return image


def _style(affine: Params, w: Array) -> Array:
    return w @ affine["kernel"] / math.sqrt(w.shape[-1]) + affine["bias"][None]


def _styled(x: Images, w: Array, part: Params, *, up: bool) -> Images:
    kernel = part["kernel"] / math.sqrt(9 * x.shape[-1])
    style = _style(part["affine"], w)
    scaled = x * style[:, None, None]
    if up:
        y = lax.conv_general_dilated(
            scaled,
            kernel[::-1, ::-1],
            (1, 1),
            [(2, 2), (2, 2)],
            lhs_dilation=(2, 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        y = _filter(y, up=1, before=1, after=1)
    else:
        y = _convolve(scaled, kernel)
    demodulation = lax.rsqrt(style**2 @ jnp.sum(kernel**2, axis=(0, 1)) + 1e-8)
    y = y * demodulation[:, None, None] + part["noise_strength"] * part["noise"][None, :, :, None]
    return jax.nn.leaky_relu(y + part["bias"][None, None, None], 0.2) * math.sqrt(2)


def _convolve(x: Images, kernel: Array) -> Images:
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _filter(x: Images, *, up: int, before: int, after: int) -> Images:
    """Puts zeros between and around the pixels, then sums shifted images along each axis."""
    for axis in (1, 2):
        edges = [(0, 0, 0)] * 4
        edges[axis] = (before, after + up - 1, up - 1)
        x = lax.pad(x, jnp.zeros((), x.dtype), edges)
        size = x.shape[axis] - len(TAPS) + 1
        x = sum(
            2 * tap / sum(TAPS) * lax.slice_in_dim(x, start, start + size, axis=axis)
            for start, tap in enumerate(TAPS)
        )
    return x


def mean_square(images: Images) -> Array:
    return jnp.mean(images**2)


def cases(generator: Generator) -> dict[str, tuple[Callable[..., Any], ...]]:
    """Returns {name: (ours, the other)}, functions of (params, w_plus, block of vectors)."""
    layers = generator.find_layers([LAYER])

    def ours(params: Params, w_plus: Array) -> Images:
        return generator.suffix(params, carry_of(params, w_plus), layers)

    def carry_of(params: Params, w_plus: Array) -> Any:
        stage = layers[0].stage
        variables = {"params": params}
        return generator.network.apply(
            variables, w_plus, generator.mapping_stages, stage, method="run"
        )

    def of_weight(images_of: Any, params: Params, w_plus: Array) -> Callable[[Array], Images]:
        return lambda weight: images_of(params_lib.replace(params, LAYER, weight), w_plus)

    def gradient(images_of: Any) -> Callable[..., Any]:
        def run(params: Params, w_plus: Array, block: Array) -> Any:
            images = of_weight(images_of, params, w_plus)
            weight = params_lib.get(params, LAYER)
            return jax.value_and_grad(lambda weight: mean_square(images(weight)))(weight)

        return run

    def gauss_newton(images_of: Any) -> Callable[..., Any]:
        def run(params: Params, w_plus: Array, block: Array) -> Array:
            images = of_weight(images_of, params, w_plus)
            weight = params_lib.get(params, LAYER)
            _, jacobian = jax.linearize(images, weight)
            transpose = jax.linear_transpose(jacobian, weight)
            return jax.vmap(lambda vector: transpose(jacobian(vector))[0])(block)

        return run

    def images_and_gradient(precision: str) -> Callable[..., Any]:
        network = generator.network.clone(precision=precision)
        made = dataclasses.replace(generator, network=network)

        def run(params: Params, w_plus: Array, block: Array) -> Any:
            def loss(weight: Array) -> tuple[Array, Images]:
                images = made.synthesize(params_lib.replace(params, LAYER, weight), w_plus)
                return mean_square(images), images

            gradient, images = jax.grad(loss, has_aux=True)(params_lib.get(params, LAYER))
            return images, gradient

        return run

    first = generator.find_layers(["synthesis/b4/conv1"])
    stride = generator.resolution // 64

    def pixels_of(wanted: int) -> Callable[..., Images]:
        def images_of(params: Params, w_plus: Array) -> Images:
            images = generator.suffix(params, w_plus, first, stride=wanted)
            return images[:, :: stride // wanted, :: stride // wanted]

        return images_of

    return {
        "pixels": tuple(
            lambda params, w_plus, block, wanted=wanted: pixels_of(wanted)(params, w_plus)
            for wanted in (stride, 1)
        ),
        "pixels_gradient": (gradient(pixels_of(stride)), gradient(pixels_of(1))),
        "forward": (
            lambda params, w_plus, block: generator.synthesize(params, w_plus),
            lambda params, w_plus, block: plain(params, w_plus),
        ),
        "gradient": (gradient(ours), gradient(plain)),
        "gauss_newton": (gauss_newton(ours), gauss_newton(plain)),
        "precision": (images_and_gradient("bfloat16"), images_and_gradient("float32")),
    }


def compare(
    name: str, functions: tuple[Callable[..., Any], ...], repeats: int, *arguments: Any
) -> None:
    """Runs both sides in turn; prints seconds, processor seconds and their ratios.

    If one side does not fit the memory, a line says so and neither runs.
    """
    times: list[list[tuple[float, float]]] = [[], []]
    compiled, lacking = [], []
    for side, function in zip(SIDES, functions, strict=True):
        began = time.perf_counter()
        compiled.append(jax.jit(function).lower(*arguments).compile())
        spent = time.perf_counter() - began
        needed = devices.bytes_of_program(compiled[-1]) or 0
        print(
            f"  {name}: {side} compiled in {spent:.0f} s, {needed / 2**20:.0f} MiB of "
            "temporaries and results",
            flush=True,
        )
        lacking.append(devices.describe_shortage(needed))
    if any(lacking):
        needs = (
            f"{side} needs {words}" for side, words in zip(SIDES, lacking, strict=True) if words
        )
        print(f"  {name}: left out: {'; '.join(needs)}", flush=True)
        return
    results = [jax.block_until_ready(program(*arguments)) for program in compiled]
    for _ in range(repeats):
        for program, side in zip(compiled, times, strict=True):
            wall, process = time.perf_counter(), time.process_time()
            jax.block_until_ready(program(*arguments))
            side.append((time.perf_counter() - wall, time.process_time() - process))
    (ours, ours_cpu), (other, other_cpu) = np.median(np.array(times), axis=1)
    pairs = list(zip(*map(jax.tree.leaves, results), strict=True))
    largest, typical = (
        max(float(norm(jnp.abs(a - b)) / jnp.sqrt(jnp.mean(b**2))) for a, b in pairs)
        for norm in (jnp.max, lambda x: jnp.sqrt(jnp.mean(x**2)))
    )
    cosine = min(
        float(jnp.vdot(a, b) / jnp.sqrt(jnp.vdot(a, a) * jnp.vdot(b, b))) for a, b in pairs
    )
    print(
        f"  {name}: ours {ours:.2f} s ({ours_cpu:.2f} s of processors), other {other:.2f} s "
        f"({other_cpu:.2f} s); of the deviation the largest difference is {largest:.1e}, its root "
        f"mean square {typical:.1e}, 1 - cosine {1 - cosine:.1e}"
    )
    common.ratio(name, other / ours)
    common.ratio(f"{name}_processors", other_cpu / ours_cpu)


CASES = ["forward", "gradient", "gauss_newton", "pixels", "pixels_gradient", "precision"]
SIDES = ("ours", "other")
VECTORS = 2


def main() -> None:
    parser = common.make_parser(__doc__)
    parser.add_argument("--side", type=int, nargs="+", default=[256])
    parser.add_argument("--batch", type=int, nargs="+", default=[4])
    parser.add_argument("--only", nargs="+", default=CASES)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    common.say_where()
    for side in [256, 512, 1024] if options.full else options.side:
        generator = make_generator("stylegan2", config_f(side))
        params = jax.jit(generator.init)(jax.random.key(0))
        block = jax.random.normal(
            jax.random.key(2), (VECTORS, *params_lib.get(params, LAYER).shape)
        )
        for batch in [1, 4, 16] if options.full else options.batch:
            z = generator.sample_latents(jax.random.key(1), batch)
            w_plus = jax.jit(generator.map_latent)(params, z)
            for name, functions in cases(generator).items():
                if name in options.only:
                    label = f"{name}_{side}_{batch}"
                    compare(label, functions, options.repeats, params, w_plus, block)


if __name__ == "__main__":
    main()
