"""A step of training: its laws, and that nothing depends on how it is spread, cut or resumed."""

import dataclasses
import functools
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import devices, testing
from navigan_jax import params as params_lib
from navigan_jax.discovery import loop
from navigan_jax.discovery import step as step_lib
from navigan_jax.discovery.matrix import direction_matrix
from navigan_jax.discovery.reconstructor import init_reconstructor, make_reconstructor
from navigan_jax.discovery.step import Program, Recipe, draw_batch, init_state, make_step
from navigan_jax.errors import InputError
from navigan_jax.generators.dcgan import dcgan
from navigan_jax.nn.layers import dense_change
from navigan_jax.subspaces.svd import singular_values

ROOT = pathlib.Path(__file__).resolve().parents[2]
VIRTUAL_DEVICES = 8
STEPS = 3

RECIPE = Recipe(
    batch=16,
    directions=4,
    shift_scale=3.0,
    min_shift=0.5,
    directions_rate=1e-2,
    reconstructor_rate=1e-3,
)


@functools.cache
def parts():
    """A generator of 32 px, its parameters, the layers, the directions and their parameters."""
    generator = dcgan(z_dim=7, widths=(6, 5, 4), image_channels=3)
    params = params_lib.to_device(testing.draw_params(generator, 1))
    layers = generator.find_layers(["conv1"])
    subspace, _ = singular_values({"conv1/kernel": np.asarray(params["conv1"]["kernel"])})
    key = jax.random.key(2)
    directions = direction_matrix(key, subspace, kind="projected", count=RECIPE.directions)
    return generator, params, layers, directions, directions.init(key)


def program(recipe=RECIPE, *, synchronised=False):
    generator, _, layers, _, _ = parts()
    reconstructor = make_reconstructor(
        "lenet", directions=recipe.directions, synchronised=synchronised
    )
    return Program(generator, layers, reconstructor, recipe)


def first_state(recipe=RECIPE):
    variables = init_reconstructor(jax.random.key(3), program().reconstructor, (32, 32, 3))
    return init_state(jax.random.key(4), recipe, parts()[-1], variables)


def make_our_step(recipe=RECIPE, *, synchronised=False):
    generator, params, layers, directions, _ = parts()
    reconstructor = program(synchronised=synchronised).reconstructor
    return make_step(generator, params, layers, directions, reconstructor, recipe)


@functools.cache
def compiled(synchronised):
    return make_our_step(synchronised=synchronised)


def run(steps, state, *, synchronised=False):
    """The state after so many steps, as NumPy arrays, and the metrics of each."""
    step, metrics = compiled(synchronised), []
    state = devices.replicate(state)
    for _ in range(steps):
        state, report = step(state)
        metrics.append(jax.tree.map(np.asarray, report))
    return devices.first_replica(state), metrics


def leaves(tree):
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def spread_results(synchronised):
    """Gradients of the first step, as Adam keeps them, statistics after it, and all metrics."""
    first, _ = run(1, first_state(), synchronised=synchronised)
    last, metrics = run(STEPS, first_state(), synchronised=synchronised)
    gradients = first.directions_optimizer[0].mu, first.reconstructor_optimizer[0].mu
    statistics = first.reconstructor["batch_stats"]
    return leaves((gradients, statistics, last.directions, metrics))


def main(path):
    """Writes where the steps lead on the devices of this process, by both rules of the norm."""
    results = {"devices": np.array(jax.device_count())}
    for synchronised in (True, False):
        for name, leaf in spread_results(synchronised).items():
            results[f"{synchronised} {name}"] = leaf
    np.savez(path, **results)


def loss_of(a_program, state, batch):
    """Loss, (metrics, statistics) and the gradient by the matrix and the reconstructor."""
    _, params, _, directions, _ = parts()
    trained = state.directions, state.reconstructor["params"]
    gradient_of = jax.jit(jax.value_and_grad(a_program.loss, has_aux=True))
    return gradient_of(trained, (params, directions), state, batch)


def first_batch(state):
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), 0)
    return draw_batch(key, parts()[0], RECIPE)


def test_eight_devices_agree_with_one(tmp_path):
    """Synchronised normalisation: in everything. Each its own: the loss is the mean of the parts'.

    Parameters of the reconstructor are left out: Adam takes whole steps along gradients that are
    zero but for rounding, those of biases before a normalisation.
    """
    path = tmp_path / "eight.npz"
    count = f"--xla_force_host_platform_device_count={VIRTUAL_DEVICES}"
    flags = f"{os.environ['XLA_FLAGS']} {count}"  # those of conftest, which compile fast
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, str(path)]
    subprocess.run(command, env=environment, cwd=ROOT, check=True, timeout=500)
    with np.load(path) as file:
        eight = dict(file)
    assert eight["devices"] == VIRTUAL_DEVICES
    one = spread_results(False)
    for name, leaf in one.items():
        testing.assert_close(eight[f"True {name}"], leaf, 2e-3, name, scale=_scale(name, one))
    # By its own rule each device normalises two samples by themselves.
    start = first_state()
    batch = first_batch(start)
    share = RECIPE.batch // VIRTUAL_DEVICES
    shares = [
        tuple(part[index : index + share] for part in batch)
        for index in range(0, RECIPE.batch, share)
    ]
    _, params, _, directions, _ = parts()
    trained, shared = (start.directions, start.reconstructor["params"]), (params, directions)
    loss = jax.jit(own_program().loss)
    each = [loss(trained, shared, start, part)[0] for part in shares]
    (name,) = (name for name in one if name.startswith("[3][0]") and name.endswith("['loss']"))
    testing.assert_close(eight[f"False {name}"], np.mean(each), 1e-4)
    assert abs(eight[f"False {name}"] - one[name]) > 1e-2 * one[name]


def _scale(name, results):
    """The largest number of the same tree: gradients that vanish have only its rounding."""
    tree = name[:3]
    return max(np.max(np.abs(leaf)) for other, leaf in results.items() if other[:3] == tree)


@functools.cache
def own_program():
    return program()


def test_resumed_run_equals_the_whole_bit_by_bit():
    """The state goes through NumPy in between; steps differ from each other."""
    whole, metrics = run(4, first_state())
    half, first = run(2, first_state())
    resumed, second = run(2, jax.tree.map(jnp.asarray, half))
    for name, leaf in leaves(whole).items():
        np.testing.assert_array_equal(leaf, leaves(resumed)[name], name)
    assert [m["loss"] for m in metrics] == [m["loss"] for m in first + second]
    assert len({float(m["loss"]) for m in metrics}) == 4
    assert whole.step == 4


def test_step_is_traced_once_and_uses_its_state_up(monkeypatch):
    counters = []

    def counted(function):
        counters.append(testing.TraceCounter(function))
        return map_replicas(counters[-1])

    map_replicas = devices.map_replicas
    monkeypatch.setattr(step_lib.devices, "map_replicas", counted)
    step, state = make_our_step(), devices.replicate(first_state())
    for _ in range(3):
        previous = state
        state, _ = step(state)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(previous))
    assert [counter.traces for counter in counters] == [1]


def test_training_loop_moves_nothing_to_the_device():
    """Inputs are made there; what comes back is fetched by name, once a window of steps."""
    step, state = compiled(False), devices.replicate(first_state())
    state, _ = step(state)  # compiled
    with jax.transfer_guard("disallow"):
        found = [window.step for window in loop.windows(step, state, done=1, total=5, every=2)]
        assert found == [2, 4, 5]
        with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
            jnp.sin(np.ones(3, np.float32))


def test_microbatches_change_nothing_but_the_rounding():
    """Loss, statistics and gradients."""
    state = first_state()
    batch = first_batch(state)
    (loss, (_, statistics)), gradients = loss_of(own_program(), state, batch)
    small = program(dataclasses.replace(RECIPE, microbatch=4))
    (same_loss, (_, same_statistics)), same_gradients = loss_of(small, state, batch)
    testing.assert_close(same_loss, loss, 1e-5)
    testing.assert_close(same_gradients[0]["matrix"], gradients[0]["matrix"], 1e-3)
    largest = max(np.max(np.abs(leaf)) for leaf in jax.tree.leaves(gradients[1]))
    for actual, expected in zip(
        *(map(jax.tree.leaves, ((same_statistics, same_gradients), (statistics, gradients)))),
        strict=True,
    ):
        testing.assert_close(actual, expected, 1e-4, scale=max(1, largest))


def test_microbatches_make_nothing_anew_behind_the_changed_weights(monkeypatch):
    """Two convolutions more: that before the changed layer, and with a factor of the change."""
    state = first_state()
    _, params, _, directions, _ = parts()
    arguments = (params, directions), state, first_batch(state)

    def convolutions(microbatch):
        recipe = dataclasses.replace(RECIPE, microbatch=microbatch)
        gradient = jax.grad(program(recipe).loss, has_aux=True)
        trained = state.directions, state.reconstructor["params"]
        return str(jax.make_jaxpr(gradient)(trained, *arguments)).count(" conv_general_dilated[")

    whole = convolutions(None)
    assert convolutions(4) <= whole + 2
    monkeypatch.setattr(step_lib, "_KEPT", ())
    assert convolutions(4) > whole + 2


def test_changes_are_linear_in_the_shift():
    """t and -t/2; another direction is told apart."""
    _, _, _, directions, parameters = parts()
    indices, shifts = jnp.array([0, 2, 3]), jnp.array([3.0, -1.0, 0.5])

    def change(indices, shifts):
        return dense_change(directions.changes(parameters, indices, shifts)["conv1/kernel"])

    testing.assert_close(change(indices, -shifts / 2), -change(indices, shifts) / 2, 1e-6)
    norms = jnp.sqrt(jnp.sum(change(indices, shifts) ** 2, axis=(1, 2, 3, 4)))
    testing.assert_close(norms, jnp.abs(shifts), 1e-5)
    with pytest.raises(AssertionError, match="relative error"):
        testing.assert_close(change(indices[::-1], shifts), change(indices, shifts), 0.1)


def test_gradient_of_the_matrix_is_that_of_finite_differences():
    """In float64, along a random change, for pooling and ReLU have kinks only between regions."""
    with testing.x64():
        double = functools.partial(
            jax.tree.map,
            lambda x: jnp.asarray(x, jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x,
        )
        state, batch = double(first_state()), double(first_batch(first_state()))
        _, params, _, directions, _ = parts()
        shared, weights = double((params, directions)), state.reconstructor["params"]

        @jax.jit
        @jax.value_and_grad
        def loss(matrix):
            return own_program().loss((matrix, weights), shared, state, batch)[0]

        tangent = testing.normal_like(5, state.directions)
        _, gradient = loss(state.directions)
        expected = sum(jnp.vdot(gradient[name], tangent[name]) for name in gradient)
        step = 1e-6
        sides = [
            loss(jax.tree.map(lambda x, t, s=side: x + s * step * t, state.directions, tangent))[0]
            for side in (1, -1)
        ]
        measured = (sides[0] - sides[1]) / (2 * step)
        scale = abs(float(expected))
    assert scale > 1e-3
    testing.assert_close(measured, expected, 1e-5, scale=scale)


def test_what_does_not_fit_is_one_message(monkeypatch):
    generator, params, _, directions, _ = parts()
    data = jnp.zeros((2, 7)), {"latent": jnp.zeros((2, 7))}
    with pytest.raises(InputError, match=r"latent space: expected one of this dcgan; got 'w'"):
        step_lib.render_pairs(generator, params, "w", data[1], data[0])
    with pytest.raises(InputError, match=r"microbatch: expected a divisor of the 16 .* got 5"):
        small = program(dataclasses.replace(RECIPE, microbatch=5))
        loss_of(small, first_state(), first_batch(first_state()))
    monkeypatch.setattr(jax, "device_count", lambda: 3)
    with pytest.raises(InputError, match=r"batch: expected a multiple .*set config.batch=18"):
        make_step(generator, params, "z", directions, own_program().reconstructor, RECIPE)


if __name__ == "__main__":
    main(sys.argv[1])
