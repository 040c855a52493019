"""Trains the network that reads a car's factors off its image.

  python -m benchmarks.cars.train_gauges --out runs/cars_gauges.safetensors

The scenes are drawn while it trains, and all factors vary in them, the wheel radius too. Images
are blurred and get noise, each by an amount of its own, because generated images are softer than
renders. R² is measured on other, clean renders: 1 - (mean square error / variance); for a circular
factor error and variance are those of the points (cosine, sine) of its angle.
"""

import argparse
import functools
import math
import pathlib
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.cars import scene
from navigan_jax import params as params_lib
from navigan_jax.array_types import Array, Float, Images, Key, Params
from navigan_jax.evaluation import gauge_network
from navigan_jax.evaluation.gauge_network import GaugeNetwork
from navigan_jax.evaluation.gauges import Factor, read_gauges, write_gauges
from navigan_jax.progress import Progress

SIZES: dict[str, Any] = {
    "side": 64,
    "image_channels": 3,
    "widths": (32, 64, 96),
    "squeezed": 24,
    "hidden": 160,
}
FACTORS = tuple(
    Factor(factor.name, factor.low, factor.high, factor.is_circular) for factor in scene.FACTORS
)
CIRCULAR = tuple(factor.is_circular for factor in FACTORS)
NETWORK = GaugeNetwork(**SIZES, is_circular=CIRCULAR)

RATE = 2e-3
DECAY = 1e-4  # of weights
WARM_UP = 200  # steps
BLUR = 1.0  # the largest standard deviation, in pixels
NOISE = 0.04  # the largest standard deviation, images in [-1, 1]
HELD_OUT = 4096  # renders
SEED_HELD_OUT = 1_000_003


class State(NamedTuple):
    """The weights, their average, the optimiser's moments, the step."""

    params: Params
    average: Params
    moments: optax.OptState
    step: Array


def shares_of_ranges(factors: Float[Array, "batch factors"]) -> Float[Array, "batch factors"]:
    """Returns the factors in units of their ranges, from the lower end."""
    low = jnp.array([[factor.low for factor in FACTORS]])
    span = jnp.array([[factor.span for factor in FACTORS]])
    return (factors - low) / span


def softened(key: Key, images: Images) -> Images:
    """Returns square images, each with a blur and noise of a random amount."""
    key_sigma, key_amount, key_noise = jax.random.split(key, 3)
    sigma = jax.random.uniform(key_sigma, (len(images), 1, 1), minval=0.05, maxval=BLUR)
    places = jnp.arange(images.shape[1])
    distances = (places[:, None] - places[None])[None]
    blur = jnp.exp(-0.5 * (distances / sigma) ** 2)
    blur = blur / jnp.sum(blur, axis=2, keepdims=True)
    blurred = jnp.einsum("bhi,bijc,bwj->bhwc", blur, images, blur)
    amount = jax.random.uniform(key_amount, (len(images), 1, 1, 1), maxval=NOISE)
    return blurred + amount * jax.random.normal(key_noise, images.shape)


def make_optimizer(steps: int) -> optax.GradientTransformation:
    """Returns AdamW with a warm-up and a cosine decay over `steps`."""
    rate = optax.warmup_cosine_decay_schedule(
        0.0, RATE, min(WARM_UP, steps // 2), steps, 0.005 * RATE
    )
    return optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(rate, b2=0.99, weight_decay=DECAY)
    )


@functools.partial(jax.jit, static_argnames=("batch", "steps"), donate_argnames="state")
def train(key: Key, state: State, *, batch: int, steps: int) -> tuple[State, Float[Array, ""]]:
    """Returns the state after a step, and its loss: 1 - R², about.

    One step a call: on CPU, XLA computes convolutions inside a loop some thirty times slower.
    """
    key_factors, key_soft = jax.random.split(jax.random.fold_in(key, state.step))
    factors = scene.draw(key_factors, batch, all_vary=True)
    images = softened(key_soft, scene.render(factors, NETWORK.side))
    targets = gauge_network.targets_of(shares_of_ranges(factors), CIRCULAR)

    def loss_of(params: Params) -> Array:
        return jnp.mean((NETWORK.apply({"params": params}, images) - targets) ** 2)

    loss, gradient = jax.value_and_grad(loss_of)(state.params)
    updates, moments = make_optimizer(steps).update(gradient, state.moments, state.params)
    params = optax.apply_updates(state.params, updates)
    decay = jnp.minimum(0.995, (1 + state.step) / (10 + state.step))
    average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, state.average, params)
    return State(params, average, moments, state.step + 1), loss


@jax.jit
def _read_renders(params: Params, factors: Float[Array, "batch factors"]) -> Array:
    return gauge_network.read_shares(NETWORK, params, scene.render(factors, NETWORK.side))


def shares_on_renders(
    params: Params, factors: Float[Array, "count factors"]
) -> Float[np.ndarray, "count factors"]:
    """Returns what the network reads on clean renders, in units of the ranges."""
    parts = [factors[i : i + 64] for i in range(0, len(factors), 64)]
    return np.concatenate([np.asarray(_read_renders(params, part)) for part in parts])


def r_squared(truth: np.ndarray, read: np.ndarray) -> dict[str, float]:
    """Returns R² of each factor; both arrays hold shares of the ranges [count, factors]."""
    scores = {}
    for factor, true, got in zip(FACTORS, truth.T, read.T, strict=True):
        if factor.is_circular:
            true, got = (np.exp(2j * math.pi * share) for share in (true, got))
        error = np.mean(np.abs(got - true) ** 2)
        scores[factor.name] = float(1 - error / np.mean(np.abs(true - true.mean()) ** 2))
    return scores


def measure(params: Params, count: int) -> dict[str, float]:
    """Returns R² of each factor on held-out clean renders."""
    factors = scene.draw(jax.random.key(SEED_HELD_OUT), count, all_vary=True)
    truth = shares_of_ranges(factors)
    return r_squared(np.asarray(truth), np.asarray(shares_on_renders(params, factors)))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--images", type=int, default=128_000, help="seen in all")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=250, help="steps between evaluations")
    return parser.parse_args()


def _worst(scores: dict[str, float], count: int) -> str:
    lowest = sorted(scores.items(), key=lambda item: item[1])[:count]
    return ", ".join(f"{name} {score:.4f}" for name, score in lowest)


def main() -> None:
    """Trains, measures and writes the gauges."""
    options = _parse()
    began = time.perf_counter()
    steps = math.ceil(options.images / options.batch)
    key_init, key_train = jax.random.split(jax.random.key(options.seed))
    params = gauge_network.init(key_init, NETWORK)
    moments = make_optimizer(steps).init(params)
    state = State(params, jax.tree.map(jnp.copy, params), moments, jnp.zeros((), jnp.int32))
    weights = sum(leaf.size for leaf in params_lib.flatten(params).values())
    print(f"{weights} weights, {steps} steps of {options.batch} renders", flush=True)
    with Progress("training", steps, unit="steps", is_main=True) as progress:
        for done in range(1, steps + 1):
            state, loss = train(key_train, state, batch=options.batch, steps=steps)
            progress.advance(1)
            if done % options.every == 0:
                spent = time.perf_counter() - began
                worst = _worst(measure(state.average, 512), 5)
                print(f"step {done}, {spent:.0f} s, loss {float(loss):.4f}: {worst}", flush=True)
    scores = measure(state.average, HELD_OUT)
    source = {
        "trained": "benchmarks/cars/train_gauges.py, on renders in which all factors vary, "
        "with blur and noise",
        "images": steps * options.batch,
        "seed": options.seed,
        "r_squared": {name: round(score, 4) for name, score in scores.items()},
        "measured": f"on {HELD_OUT} held-out clean renders",
    }
    write_gauges(options.out, FACTORS, SIZES, jax.tree.map(np.asarray, state.average), source)
    read_gauges(str(options.out))  # what was written can be read
    for name, score in scores.items():
        print(f"| {name} | {score:.4f} |")
    print(f"wrote {options.out} after {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
