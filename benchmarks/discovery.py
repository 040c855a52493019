"""A step of training against the same step written directly, and what else the loop costs.

  python -m benchmarks.discovery        (10 minutes; --only dcgan, stylegan2 or loop for a part)

The direct form makes the weights of each sample, runs the whole generator twice, for the original
and under `vmap` for the shifted image, and is otherwise the same program: the same draws, the same
reconstructor, the same optimisers. Both start from one state and their results are compared.
StyleGAN2 is config-f at 256 px with random weights; speed does not depend on them. There nearly all
time goes into what follows the changed layer, which both forms compute alike: expect no gain on a
CPU. Its gradients, of float32 and of a batch of two, agree to about a hundredth only; agreement in
float64 is what tests/discovery/test_step_golden.py measures, on a small StyleGAN2.
"""

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common
from navigan_jax import devices
from navigan_jax import params as params_lib
from navigan_jax.array_types import Array, Images, Params
from navigan_jax.discovery.matrix import DirectionMatrix, direction_matrix
from navigan_jax.discovery.reconstructor import init_reconstructor, make_reconstructor
from navigan_jax.discovery.step import Program, Recipe, TrainState, init_state, make_step
from navigan_jax.generators.base import EditableLayer, Generator
from navigan_jax.generators.dcgan import dcgan
from navigan_jax.generators.stylegan2 import stylegan2
from navigan_jax.subspaces.svd import singular_values

CONFIG_F_256 = {
    "z_dim": 512,
    "label_dim": 0,
    "label_width": 0,
    "labels": "embedded",
    "mapping_widths": (512,) * 8,
    "mapping_rate": 0.01,
    "channels": (512, 512, 512, 512, 512, 256, 128),
    "image_channels": 3,
    "blocks": "skip",
    "resample_taps": (1.0, 3.0, 3.0, 1.0),
    "clamp": None,
}


class DirectProgram(Program):
    """The same step with weights made for each sample and two whole passes."""

    def forward(self, trained: Any, shared: Any, state: TrainState, batch: Any) -> Any:
        (params, directions), (matrix, weights) = shared, trained
        z, indices, shifts = batch
        deltas = directions.deltas(matrix, indices, shifts)
        original = self.generator.synthesize(params, self.generator.map_latent(params, z))

        def one(row: Array, deltas: dict[str, Array]) -> Images:
            changed = params
            for path, delta in deltas.items():
                changed = params_lib.add(changed, path, delta)
            latent = self.generator.map_latent(changed, row[None])
            return self.generator.synthesize(changed, latent)[0]

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


def against_direct(
    name: str,
    generator: Generator,
    params: Params,
    layer: str,
    network: str,
    recipe: Recipe,
    repeats: int,
) -> None:
    """Times both forms in turn, each on the same machine in the same minutes."""
    params = params_lib.to_device(params)
    layers, directions, reconstructor, state = set_up(generator, params, layer, network, recipe)
    programs = {
        "direct": DirectProgram(generator, layers, reconstructor, recipe),
        "ours": Program(generator, layers, reconstructor, recipe),
    }
    shared = devices.replicate((params, directions))
    runs, states, reports, moments = {}, {}, {}, {}
    times: dict[str, list[float]] = {form: [] for form in programs}
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
            began = time.perf_counter()
            states[form], report = run(shared, states[form])
            jax.block_until_ready(report)
            times[form].append(time.perf_counter() - began)
    medians = {form: float(np.median(rows)) for form, rows in times.items()}
    losses = [reports[form]["loss"] for form in programs]
    left, right = moments["direct"], moments["ours"]
    difference = np.linalg.norm(left - right) / np.linalg.norm(left)
    print(
        f"{name}, {layer}, {network}, batch {recipe.batch}: direct {medians['direct']:.3f} s, ours "
        f"{medians['ours']:.3f} s a step ({recipe.batch / medians['ours']:.1f} pairs a second); "
        f"loss {losses[0]:.6f} and {losses[1]:.6f}; gradients differ by {difference:.1e}"
    )
    common.ratio(f"discovery_step_{name}", medians["direct"] / medians["ours"])


def loop(steps: int) -> None:
    """Time outside the step and memory, on the DCGAN of faces and on a tiny network."""
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
    """Bytes of all arrays that live after 10 steps and after many."""
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
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=("dcgan", "stylegan2", "loop"))
    only = parser.parse_args().only
    common.say_where()
    if only in (None, "dcgan"):
        recipe = Recipe(batch=32, directions=64, shift_scale=10.0, min_shift=1.0)
        against_direct("dcgan", *common.read_faces(), "main.3", "lenet", recipe, repeats=5)
    if only in (None, "loop"):
        loop(100)
    if only in (None, "stylegan2"):
        generator = stylegan2(**CONFIG_F_256)
        params = generator.init(jax.random.key(0))
        recipe = Recipe(batch=2, directions=64, shift_scale=3500.0, min_shift=300.0)
        against_direct("stylegan2", generator, params, "convs.3", "resnet18", recipe, repeats=2)


if __name__ == "__main__":
    main()
