"""The reduced problem against the dense Hessian of the whole problem."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import devices, testing
from navigan_jax.generators.dcgan import dcgan
from navigan_jax.perceptual import METRICS
from navigan_jax.subspaces import products, reduction

PLENTY = 2**26


def make_objective(*names, samples=2, widths=(9, 3), cache_bytes=PLENTY, same=False):
    """An objective of a tiny generator: a phase of conv1 has 36 inputs, and 16 rows per sample."""
    generator = dcgan(z_dim=4, widths=widths, image_channels=3)
    precision = jnp.result_type(float)
    params = jax.tree.map(lambda x: jnp.asarray(x, precision), testing.draw_params(generator, 1))
    z = np.random.RandomState(2).standard_normal((samples, 4))
    if same:
        z[:] = z[0]
    return products.make_objective(
        generator,
        params,
        METRICS["nlpd"](),
        z,
        generator.find_layers(names),
        microbatch=2,
        cache_bytes=cache_bytes,
    )


@pytest.mark.parametrize("same", [False, True])
def test_reduced_problem_has_the_nonzero_spectrum(same):
    """P = Q' keeps lengths, H = Q (Q'HQ) Q', and the smaller product is Q'HQ. So nothing is lost.

    With two equal latents, the inputs span half as many dimensions.
    """
    with testing.x64():
        objective = make_objective("conv1", same=same)
        reduced = reduction.reduce_inputs(objective, at_least=3)
        entries, fewer = objective.entries, reduced.objective.entries
        assert fewer <= entries * (16 if same else 32) / 36
        q = np.asarray(reduced.expand(jnp.eye(fewer)))
        testing.assert_close(q @ q.T, np.eye(fewer), 1e-12)
        v = np.random.RandomState(3).standard_normal((3, entries))
        whole = products.gauss_newton(objective, cache_bytes=0)(jnp.asarray(v))
        small = products.gauss_newton(reduced.objective, cache_bytes=0)
        testing.assert_close(small(jnp.asarray(v @ q.T)) @ q, whole, 1e-10)
        # A control: the span of some other weights, as large as this one, loses something.
        lost = small(jnp.asarray(v @ np.roll(q, 1, axis=1).T)) @ np.roll(q, 1, axis=1) - whole
        assert np.linalg.norm(lost) > 1e-2 * np.linalg.norm(whole)


@pytest.mark.parametrize(
    ("names", "changed", "at_least"),
    [
        (["conv0"], {}, 1),  # reads z, which has no pixels
        (["conv1", "conv2"], {}, 1),
        (["conv1"], {"samples": 3}, 1),  # 48 rows for 36 inputs
        (["conv2"], {}, 1),  # 128 rows for 12 inputs
        (["conv1"], {"cache_bytes": 0}, 1),  # its input is not kept
        (["conv1"], {}, 2 * 2 * 33 * 3),  # so many directions are looked for
    ],
)
def test_problem_that_cannot_be_smaller_stays(names, changed, at_least):
    """The same object is returned, and vectors are those of the layer."""
    objective = make_objective(*names, **changed)
    reduced = reduction.reduce_inputs(objective, at_least=at_least)
    assert reduced.objective is objective and reduced.basis is None
    block = jnp.ones((2, objective.entries))
    assert reduced.expand(block) is block


def test_inputs_that_are_not_finite_are_left_to_the_solver():
    """The solver reports the layer by name; the reduction does not fail."""
    objective = make_objective("conv1")
    broken = tuple(batch.at[0, 0, 0, 0, 0].set(jnp.nan) for batch in objective.shards.batches)
    shards = devices.Shards(broken, objective.shards.weights)
    broken_objective = dataclasses.replace(objective, shards=shards)
    reduced = reduction.reduce_inputs(broken_objective, at_least=1)
    assert reduced.objective is broken_objective


def test_directions_of_several_processes_are_not_reduced(monkeypatch):
    """Each process holds only a part of the inputs."""
    monkeypatch.setattr(devices, "is_single_process", lambda: False)
    objective = make_objective("conv1")
    assert reduction.reduce_inputs(objective, at_least=1).objective is objective


def test_inputs_that_are_all_zero_leave_one_row():
    """Nothing divides by their size."""
    objective = make_objective("conv1")
    zero = tuple(jax.tree.map(jnp.zeros_like, batch) for batch in objective.shards.batches)
    shards = devices.Shards(zero, objective.shards.weights)
    reduced = reduction.reduce_inputs(dataclasses.replace(objective, shards=shards), at_least=1)
    assert math.prod(reduced.objective.layers[0].shape) == 2 * 2 * 1 * 3
    assert np.isfinite(reduced.basis).all()
