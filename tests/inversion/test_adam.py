"""The standard projector against its definition, written down in NumPy for a linear generator."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.inversion import adam, objective
from tests.inversion.toy import LINEAR, ROWS, SIDE, SIZE, problem_of

STEPS = 10


def correlation(noise):
    """The noise term and its gradient, map by map and lag by lag."""
    value, gradient, weight = (
        0.0,
        np.zeros_like(noise),
        np.eye(noise.size).reshape(-1, *noise.shape),
    )
    maps = noise
    while True:
        for axis in (0, 1):
            product = np.mean(maps * np.roll(maps, 1, axis))
            value += product**2
            by_maps = 2 * product * (np.roll(maps, 1, axis) + np.roll(maps, -1, axis)) / maps.size
            gradient += np.tensordot(weight, by_maps, 2).reshape(noise.shape)
        if maps.shape[0] <= 8:
            return value, gradient
        maps = maps.reshape(maps.shape[0] // 2, 2, maps.shape[1] // 2, 2).mean((1, 3))
        weight = weight.reshape(len(weight), len(maps), 2, len(maps[0]), 2).mean((2, 4))


@pytest.mark.parametrize("space", ["w", "w_plus"])
def test_first_ten_steps_are_those_of_the_definition(space):
    params = params_lib.to_device(LINEAR.init(jax.random.key(1)))
    image = np.random.RandomState(2).standard_normal((1, SIDE, SIDE, 1)).astype(np.float32)
    problem = problem_of(LINEAR, params, image, space=space)
    schedule, key = adam.Schedule(STEPS), jax.random.key(3)
    rows = (ROWS,) if space == "w_plus" else ()
    code = jnp.broadcast_to(problem.spread.mean, (1, *rows, SIZE))
    drawn = adam.draw_noise(objective.noise_maps(LINEAR, params), jax.random.key(4))
    found = list(adam.run(problem, schedule, adam.begin(code, drawn), key))

    out, strength = np.asarray(params["out"], np.float64), float(params["noise_strength"])
    target = image.reshape(-1).astype(np.float64)
    scale = 2 / target.size  # of the gradient of the mean square, which is the L2 metric
    x = [np.asarray(code, np.float64), np.asarray(drawn["noise"], np.float64)]
    first, second = [np.zeros_like(each) for each in x], [np.zeros_like(each) for each in x]
    for step in range(STEPS):
        t = step / STEPS
        ramp = 0.5 - 0.5 * math.cos(math.pi * min(1, (1 - t) / 0.25))
        rate = 0.1 * ramp * min(1, t / 0.05)
        jitter = float(problem.spread.deviation) * 0.05 * max(0, 1 - t / 0.75) ** 2
        moved = np.asarray(jax.random.normal(jax.random.fold_in(key, step), code.shape), np.float64)
        w = x[0] + jitter * moved
        latent = w.reshape(1, -1) if rows else np.tile(w, (1, ROWS))
        rest = (latent @ out).reshape(-1) + strength * x[1].reshape(-1) - target
        by_latent = scale * (out @ rest)
        by_code = by_latent.reshape(x[0].shape) if rows else by_latent.reshape(ROWS, SIZE).sum(0)
        by_noise = scale * strength * rest.reshape(SIDE, SIDE) + 1e5 * correlation(x[1])[1]
        for i, gradient in enumerate([by_code.reshape(x[0].shape), by_noise]):
            first[i] = 0.9 * first[i] + 0.1 * gradient
            second[i] = 0.999 * second[i] + 0.001 * gradient**2
            mean, square = first[i] / (1 - 0.9 ** (step + 1)), second[i] / (1 - 0.999 ** (step + 1))
            x[i] = x[i] - rate * mean / (np.sqrt(square) + 1e-8)
        x[1] -= x[1].mean()
        x[1] /= np.sqrt(np.mean(x[1] ** 2))
        np.testing.assert_allclose(found[step].value, np.sum(rest**2) / target.size, rtol=1e-4)
        np.testing.assert_allclose(found[step].code, x[0], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found[step].noise["noise"], x[1], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("side", [8, 16, 32])
def test_noise_term_is_its_definition(side):
    noise = np.random.RandomState(0).standard_normal((side, side)).astype(np.float32)
    found, gradient = jax.value_and_grad(objective.noise_correlation)({"a": jnp.asarray(noise)})
    value, by_hand = correlation(noise.astype(np.float64))
    np.testing.assert_allclose(found, value, rtol=1e-4)
    testing.assert_close(gradient["a"], by_hand, 1e-4)


def test_noise_maps_stay_normalised():
    noise = {"a": 3 + 2 * jax.random.normal(jax.random.key(0), (16, 24))}
    (maps,) = objective.standardise(noise).values()
    np.testing.assert_allclose([maps.mean(), maps.var()], [0, 1], atol=1e-5)


def test_schedule_is_that_of_the_projector():
    schedule = adam.Schedule(1000)
    np.testing.assert_allclose(
        [schedule.rate_at(step) for step in (0, 25, 50, 750, 875, 999)],
        [0, 0.05, 0.1, 0.1, 0.05, 0.1 * (0.5 - 0.5 * math.cos(math.pi / 250))],
        atol=1e-9,
    )
    found = [schedule.jitter_at(step) for step in (0, 375, 750, 900)]
    np.testing.assert_allclose(found, [0.05, 0.0125, 0, 0])
