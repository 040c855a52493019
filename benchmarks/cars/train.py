"""Trains the StyleGAN2 of cars by regression: it learns to draw the scene of its latent.

  python -m benchmarks.cars.train --workdir runs/cars

A latent z ~ N(0, I) gives factors (`scene.from_latents`), these give a scene, and the network
learns to draw it. So each coordinate of z has a known meaning. This is not adversarial training:
there is no discriminator, and the images are renderings, not photographs.

The same command resumes a stopped run. Each evaluation writes the average of the weights to
`generator.safetensors` and a line to `metrics.jsonl`. The rate falls over `--images`, so another
number of images is another run.
"""

import argparse
import functools
import math
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.cars import scene
from navigan_jax import params as params_lib
from navigan_jax.array_types import Array, Float, Images, Key, Params
from navigan_jax.discovery.checkpointing import Checkpoints
from navigan_jax.generators.base import Generator
from navigan_jax.generators.files import make_generator, write_generator
from navigan_jax.progress import MetricWriter, Progress

SIZES: dict[str, Any] = {
    "z_dim": len(scene.TRAINED),
    "label_dim": 0,
    "label_width": 0,
    "labels": "embedded",
    "mapping_widths": (64, 64, 64),
    "mapping_rate": 1.0,  # with the usual 0.01 the mapping learns far too slowly from regression
    "channels": (64, 64, 64, 48, 32),
    "image_channels": 3,
    "blocks": "skip",
    "resample_taps": (1.0, 3.0, 3.0, 1.0),
    "clamp": None,
}
# Constant noise would be one more picture that every image shares.
FIXED = ("noise_strength", "noise", "w_avg")

RATE = 2.5e-3
WARM_UP = 200  # steps
HELD_OUT = 512  # scenes
STEPS_A_CALL = 25
AVERAGE_DRAWS = 16384


class State(NamedTuple):
    """What training resumes from: the weights, their average, Adam's moments, the step."""

    params: Params
    average: Params
    moments: optax.OptState
    step: Array


def loss_of(images: Images, targets: Images) -> Float[Array, ""]:
    """Returns L1 and L2 on three levels of a pyramid, of the images and of neighbours' differences.

    Differences weigh edges, which are a small part of the pixels: spokes, windows, lamps.
    """
    error = images - targets
    total = jnp.zeros(())
    for _ in range(3):
        down, right = error[:, 1:] - error[:, :-1], error[:, :, 1:] - error[:, :, :-1]
        for part, weight in ((error, 1.0), (down, 1.0), (right, 1.0)):
            total += weight * (jnp.mean(jnp.abs(part)) + 2 * jnp.mean(part**2))
        error = (error[:, ::2] + error[:, 1::2]) / 2
        error = (error[:, :, ::2] + error[:, :, 1::2]) / 2
    return total


def images_of(generator: Generator, params: Params, z: Float[Array, "batch z"]) -> Images:
    """Returns the images of latents."""
    return generator.synthesize(params, generator.map_latent(params, z))


def make_optimizer(steps: int) -> optax.GradientTransformation:
    """Returns Adam with a warm-up and a cosine decay over `steps`."""
    rate = optax.warmup_cosine_decay_schedule(
        0.0, RATE, min(WARM_UP, steps // 2), steps, 0.01 * RATE
    )
    return optax.adam(rate, b1=0.9, b2=0.99)


def is_trained(params: Params) -> Params:
    """Returns a tree of truth values: which weights training changes."""
    flat = params_lib.flatten(params)
    return params_lib.unflatten(
        {path: jnp.asarray(path.rpartition("/")[2] not in FIXED, jnp.float32) for path in flat}
    )


def start(generator: Generator, key: Key, optimizer: optax.GradientTransformation) -> State:
    """Returns fresh weights."""
    params = generator.init(key)
    return State(params, params, optimizer.init(params), jnp.zeros((), jnp.int32))


@functools.partial(jax.jit, static_argnames=("generator", "batch", "steps"))
def train(
    generator: Generator, key: Key, state: State, *, batch: int, steps: int
) -> tuple[State, Float[Array, ""]]:
    """Returns the state after STEPS_A_CALL steps, and their mean loss."""
    optimizer = make_optimizer(steps)

    def step(state: State, _: None) -> tuple[State, Array]:
        z = generator.sample_latents(jax.random.fold_in(key, state.step), batch)
        targets = scene.render(scene.from_latents(z), generator.resolution)
        loss, gradient = jax.value_and_grad(
            lambda params: loss_of(images_of(generator, params, z), targets)
        )(state.params)
        updates, moments = optimizer.update(gradient, state.moments, state.params)
        updates = jax.tree.map(jnp.multiply, updates, is_trained(updates))
        params = optax.apply_updates(state.params, updates)
        # The average spans the last part of what was done so far, at most some 8000 images.
        decay = jnp.minimum(0.999, (1 + state.step) / (10 + state.step))
        average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, state.average, params)
        return State(params, average, moments, state.step + 1), loss

    state, losses = jax.lax.scan(step, state, None, length=STEPS_A_CALL)
    return state, jnp.mean(losses)


@functools.partial(jax.jit, static_argnames=("generator",))
def error_of(generator: Generator, params: Params, z: Float[Array, "batch z"]) -> Float[Array, ""]:
    """Returns the root mean square error of the images of latents, images in [-1, 1]."""

    def batch(z: Array) -> Array:
        targets = scene.render(scene.from_latents(z), generator.resolution)
        return jnp.mean((images_of(generator, params, z) - targets) ** 2)

    return jnp.sqrt(jnp.mean(jax.lax.map(batch, z.reshape(-1, 32, z.shape[-1]))))


def with_average_w(generator: Generator, params: Params, key: Key) -> Params:
    """Returns the weights with the mean w of many latents, to which truncation draws."""
    z = generator.sample_latents(key, AVERAGE_DRAWS)
    w = generator.map_latent(params, z)[:, 0]
    return params_lib.replace(params, "mapping/w_avg", jnp.mean(w, axis=0))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--images", type=int, default=240_000, help="seen in all")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=250, help="steps between evaluations")
    return parser.parse_args()


def main() -> None:
    """Trains, or resumes."""
    options = _parse()
    calls = math.ceil(options.images / options.batch / STEPS_A_CALL)
    steps = calls * STEPS_A_CALL
    generator = make_generator("stylegan2", SIZES)
    key_init, key_train, key_test, key_mean = jax.random.split(jax.random.key(options.seed), 4)
    state = start(generator, key_init, make_optimizer(steps))
    held_out = generator.sample_latents(key_test, HELD_OUT)
    options.workdir.mkdir(parents=True, exist_ok=True)
    with Checkpoints(options.workdir / "checkpoints", keep=1) as checkpoints:
        if checkpoints.steps:
            state, record = checkpoints.restore(checkpoints.steps[-1], state)
            if record["steps"] != steps or record["batch"] != options.batch:
                raise SystemExit(
                    f"{options.workdir} holds a run of {record['steps']} steps in batches of "
                    f"{record['batch']}; give the same --images and --batch, or another --workdir"
                )
            print(f"resuming after {int(state.step)} of {steps} steps", flush=True)
        first = int(state.step)
        with (
            MetricWriter(options.workdir, first_step=first + 1) as metrics,
            Progress("training", steps - first, unit="steps", is_main=True) as progress,
        ):
            error = float("nan")
            while int(state.step) < steps:
                state, loss = train(generator, key_train, state, batch=options.batch, steps=steps)
                step = int(state.step)
                if step % options.every == 0 or step == steps:
                    average = with_average_w(generator, state.average, key_mean)
                    error = float(error_of(generator, average, held_out))
                    metrics.write(
                        step,
                        {"images": step * options.batch, "loss": float(loss), "rmse": error},
                    )
                    notes = {"trained": "by regression on rendered scenes, not adversarially"}
                    write_generator(
                        options.workdir / "generator.safetensors",
                        "stylegan2",
                        SIZES,
                        jax.tree.map(np.asarray, average),
                        notes,
                    )
                    record = {"accuracy": -error, "steps": steps, "batch": options.batch}
                    checkpoints.save(step, jax.tree.map(np.asarray, state), record)
                progress.advance(STEPS_A_CALL, loss=float(loss), rmse=error)
    print(f"wrote {options.workdir / 'generator.safetensors'}")


if __name__ == "__main__":
    main()
