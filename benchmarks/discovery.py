"""A training step against the same step written directly, and the cost of the loop around it.

  python -m benchmarks.discovery        (--only dcgan, stylegan2, double or loop for a part)
  python -m benchmarks.discovery --only stylegan2 --batch 16     (the presets' batch; 4 without)

The direct form is a plain port of the official step. It computes the weights of each sample and
runs the whole plain generator twice: once for the originals and once, under `vmap`, for the shifted
images, where the edited layer is a convolution with one group for each sample. The plain StyleGAN2
is that of benchmarks/stylegan2.py. Draws, reconstructor and optimisers are the same on both sides.
Both start from one state; their losses and the gradients by the direction matrix are compared.

StyleGAN2 is config-f at 256 px with random weights, as speed does not depend on the weights. Our
side uses microbatches, as the presets do. Where rounding moves a number across the kink of a ReLU,
the gradient jumps, so float32 gradients agree to about a hundredth; `double` compares in float64.
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

from benchmarks import common
from benchmarks.stylegan2 import config_f, plain
from navigan_jax import devices
from navigan_jax import params as params_lib
from navigan_jax.array_types import Array, Images, Params
from navigan_jax.discovery.matrix import DirectionMatrix, direction_matrix
from navigan_jax.discovery.reconstructor import init_reconstructor, make_reconstructor
from navigan_jax.discovery.step import Program, Recipe, TrainState, init_state, make_step
from navigan_jax.generators.base import EditableLayer, Generator
from navigan_jax.generators.dcgan import dcgan
from navigan_jax.generators.files import make_generator
from navigan_jax.subspaces.svd import singular_values

Draw = Callable[[Params, Array], Images]  # of weights and z


@dataclasses.dataclass(frozen=True)
class DirectProgram(Program):
    """The same step with the weights of each sample and two whole passes of `draw`."""

    draw: Draw

    def forward(self, trained: Any, shared: Any, state: TrainState, batch: Any) -> Any:
        (params, directions), (matrix, weights) = shared, trained
        z, indices, shifts = batch
        deltas = directions.deltas(matrix, indices, shifts)
        original = self.draw(params, z)

        def one(row: Array, deltas: dict[str, Array]) -> Images:
            changed = params
            for path, delta in deltas.items():
                changed = params_lib.add(changed, path, delta)
            return self.draw(changed, row[None])[0]

        variables = {"params": weights, "batch_stats": state.reconstructor["batch_stats"]}
        prediction, changed = self.reconstructor.apply(
            variables, original, jax.vmap(one)(z, deltas), True, mutable=["batch_stats"]
        )
        return prediction, changed["batch_stats"]


def set_up(
    generator: Generator, params: Params, layer: str, network: str, recipe: Recipe
) -> tuple[tuple[EditableLayer, ...], DirectionMatrix, Any, TrainState]:
    """Returns layers, directions, reconstructor and the first state."""
    layers = generator.find_layers([layer])
    weights = {found.path: np.asarray(params_lib.get(params, found.path)) for found in layers}
    subspace, _ = singular_values(weights)
    key = jax.random.key(1)
    directions = direction_matrix(key, subspace, kind="projected", count=recipe.directions)
    reconstructor = make_reconstructor(network, directions=recipe.directions)
    shape = (generator.resolution, generator.resolution, generator.image_channels)
    variables = init_reconstructor(jax.random.key(2), reconstructor, shape)
    return (
        layers,
        directions,
        reconstructor,
        init_state(key, recipe, directions.init(key), variables),
    )


def _to_double(leaf: Array) -> Array:
    is_number = jnp.issubdtype(leaf.dtype, jnp.floating)
    return leaf.astype(jnp.float64) if is_number else leaf


def against_direct(
    name: str,
    generator: Generator,
    params: Params,
    draw: Draw,
    *,
    layer: str,
    network: str,
    recipe: Recipe,
    repeats: int,
) -> None:
    """Times both forms in turn and compares their results."""
    params = params_lib.to_device(params)
    layers, directions, reconstructor, state = set_up(generator, params, layer, network, recipe)
    whole = dataclasses.replace(recipe, microbatch=None)
    programs = {
        "direct": DirectProgram(generator, layers, reconstructor, whole, draw),
        "ours": Program(generator, layers, reconstructor, recipe),
    }
    if jax.config.jax_enable_x64:
        params, directions, state = jax.tree.map(_to_double, (params, directions, state))
    shared = devices.replicate((params, directions))
    runs, states, reports, moments = {}, {}, {}, {}
    times: dict[str, list[tuple[float, float]]] = {form: [] for form in programs}
    for form, program in programs.items():
        runs[form] = devices.map_replicas(program.step)
        began = time.perf_counter()
        states[form], report = runs[form](shared, devices.replicate(state))
        reports[form] = jax.tree.map(float, report)
        # Adam's mean is now a tenth of the first gradient. Later steps are no comparison: Adam
        # takes whole steps along gradients that are zero but for rounding.
        optimizer = devices.first_replica(states[form].directions_optimizer)
        moments[form] = optimizer[0].mu["matrix"]
        print(f"  {form}: compiled and first step {time.perf_counter() - began:.1f} s", flush=True)
    for _ in range(repeats):
        for form, run in runs.items():
            began, spent = time.perf_counter(), common.processor_seconds()
            states[form], report = run(shared, states[form])
            jax.block_until_ready(report)
            seconds = time.perf_counter() - began, common.processor_seconds() - spent
            times[form].append(seconds)
            print(f"  {form}: {seconds[0]:.2f} s, {seconds[1]:.2f} s of processors", flush=True)
    left, right = moments["direct"], moments["ours"]
    difference = np.linalg.norm(left - right) / np.linalg.norm(left)
    losses = [reports[form]["loss"] for form in programs]
    print(
        f"{name}, {layer}, {network}, batch {recipe.batch}, microbatch {recipe.microbatch}: loss "
        f"{losses[0]:.9g} and {losses[1]:.9g}; gradients of the matrix differ by {difference:.1e}"
    )
    if repeats:
        medians = {form: np.median(rows, axis=0) for form, rows in times.items()}
        clock, processors = medians["direct"] / medians["ours"]
        print(f"{recipe.batch / medians['ours'][0]:.2f} pairs a second")
        common.ratio(f"discovery_step_{name}", clock)
        common.ratio(f"discovery_step_{name}_processors", processors)


def dcgan_step() -> None:
    generator, params = common.read_faces()
    recipe = Recipe(batch=32, directions=64, shift_scale=10.0, min_shift=1.0)

    def draw(params: Params, z: Array) -> Images:
        return generator.synthesize(params, z)

    against_direct(
        "dcgan",
        generator,
        params,
        draw,
        layer="main.3",
        network="lenet",
        recipe=recipe,
        repeats=5,
    )


def stylegan2_step(name: str, *, batch: int, microbatch: int | None, repeats: int) -> None:
    generator = make_generator("stylegan2", config_f(256))
    params = jax.jit(generator.init)(jax.random.key(0))
    recipe = Recipe(
        batch=batch, directions=64, shift_scale=3500.0, min_shift=300.0, microbatch=microbatch
    )

    def draw(params: Params, z: Array) -> Images:
        return plain(params, generator.map_latent(params, z))

    against_direct(
        name,
        generator,
        params,
        draw,
        layer="convs.3",
        network="resnet18",
        recipe=recipe,
        repeats=repeats,
    )


def loop(steps: int) -> None:
    """Prints time outside the step, and memory, for the DCGAN of faces and a tiny network."""
    generator, params = common.read_faces()
    recipe = Recipe(batch=32, directions=64, shift_scale=10.0, min_shift=1.0)
    params = params_lib.to_device(params)
    parts = set_up(generator, params, "main.3", "lenet", recipe)
    layers, directions, reconstructor, state = parts
    step = make_step(generator, params, layers, directions, reconstructor, recipe)
    state, report = step(devices.replicate(state))
    jax.block_until_ready(report)
    outside, began = 0.0, time.perf_counter()
    for _ in range(steps):
        state, report = step(state)
        waiting = time.perf_counter()
        jax.block_until_ready(report)
        outside -= time.perf_counter() - waiting
    whole = time.perf_counter() - began
    # What is not waiting for the device: handing arguments over, and the loop itself.
    share = (whole + outside) / whole
    print(
        f"{steps} steps of the DCGAN in {whole:.1f} s: {steps * recipe.batch / whole:.0f} pairs/s"
    )
    print(f"outside the step {100 * share:.2f} %")
    memory(2000)


def memory(steps: int) -> None:
    """Prints the bytes of all live arrays after 10 steps and after many."""
    generator = dcgan(z_dim=7, widths=(6, 5, 4), image_channels=3)
    params = params_lib.to_device(generator.init(jax.random.key(0)))
    recipe = Recipe(batch=4, directions=4, shift_scale=3.0, min_shift=0.5)
    layers, directions, reconstructor, state = set_up(generator, params, "conv1", "lenet", recipe)
    step = make_step(generator, params, layers, directions, reconstructor, recipe)
    state, found = devices.replicate(state), {}
    for index in range(1, steps + 1):
        state, report = step(state)
        if index in (10, steps):
            jax.block_until_ready(report)
            live = sum(array.nbytes for array in jax.live_arrays())
            found[index] = (live, common.peak_bytes())
    for index, (live, peak) in found.items():
        print(f"after {index} steps: live arrays {live} bytes, peak {peak / 1e6:.0f} MB")
    common.ratio("discovery_memory_2000_over_10", found[steps][0] / found[10][0])
    assert int(jnp.max(state.step)) == steps


def main() -> None:
    parser = common.make_parser(__doc__)
    parser.add_argument("--only", choices=("dcgan", "loop", "stylegan2", "double"))
    parser.add_argument("--batch", type=int, default=4, help="of stylegan2")
    parser.add_argument("--repeats", type=int, default=2, help="of stylegan2")
    options = parser.parse_args()
    common.say_where()
    if options.only in (None, "dcgan"):
        dcgan_step()
    if options.only in (None, "loop"):
        loop(100)
    if options.only in (None, "stylegan2"):
        size = math.gcd(options.batch, 2 if options.batch < 16 else 8)
        stylegan2_step("stylegan2", batch=options.batch, microbatch=size, repeats=options.repeats)
    if options.only in (None, "double"):
        with jax.enable_x64(True):
            stylegan2_step("stylegan2_double", batch=2, microbatch=None, repeats=0)


if __name__ == "__main__":
    main()
