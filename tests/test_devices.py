"""Means over samples do not depend on how the samples are spread."""

import functools
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import devices, testing
from navigan_jax.errors import InputError
from navigan_jax.generators.dcgan import dcgan
from navigan_jax.perceptual import METRICS
from navigan_jax.subspaces import hessian, products

ROOT = pathlib.Path(__file__).resolve().parents[1]
VIRTUAL_DEVICES = 8

# Around the borders of 8 devices and of microbatches of 4.
COUNTS = (1, 3, 4, 5, 7, 8, 9, 16, 33)
MICROBATCHES = (1, 2, 4, 5, 100)


def draw_samples(count: int) -> dict[str, np.ndarray]:
    """Returns a tree of data whose axes differ."""
    random = np.random.RandomState(count)
    return {
        "image": random.standard_normal((count, 2, 3)).astype(np.float32),
        "label": np.arange(1, count + 1, dtype=np.int32),
    }


@functools.cache
def summing() -> Callable[..., Any]:
    """Returns a sum of things that are not linear in the samples."""

    def on_batch(scale: Any, batch: Any, weights: Any, power: Any) -> Any:
        image, label = batch["image"], batch["label"]
        return {
            "image": scale * jnp.einsum("b,bij->ij", weights, jnp.abs(image) ** power),
            "label": jnp.vdot(weights, label.astype(jnp.float32) ** 2),
        }

    return devices.sum_over_samples(on_batch)


def mean_of(count: int, microbatch: int) -> dict[str, np.ndarray]:
    shards = devices.shard(draw_samples(count), microbatch=microbatch)
    result = summing()(devices.replicate(jnp.float32(3)), shards, jnp.float32(1.5))
    return jax.tree.map(np.asarray, result)


def tiny_spectrum(microbatch: int) -> dict[str, np.ndarray]:
    """Returns the leading eigenpairs of a layer of 448 weights, by Lanczos."""
    generator = dcgan(z_dim=3, widths=(7, 4), image_channels=2)
    params = generator.init(jax.random.key(0))
    z = generator.sample_latents(jax.random.key(1), 11)
    layers = generator.find_layers(["conv1"])
    objective = products.make_objective(
        generator, params, METRICS["l2"](), z, layers, microbatch=microbatch, cache_bytes=2**20
    )
    spectrum = hessian.lanczos_spectrum(
        jax.random.key(2),
        products.gauss_newton(objective, cache_bytes=2**20),
        objective.entries,
        count=3,
        tolerance=1e-4,
        block_size=2,
        max_vectors=60,
        max_products=400,
    )
    assert spectrum.converged
    return {"eigenvalues": spectrum.eigenvalues, "vectors": np.asarray(spectrum.vectors)}


def main(path: str) -> None:
    """Writes all of the above, for the devices of this process."""
    results: dict[str, np.ndarray] = {"devices": np.array(jax.local_device_count())}
    for count in (1, 7, 8, 9, 33):
        for microbatch in (1, 4):
            for name, value in mean_of(count, microbatch).items():
                results[f"{count} {microbatch} {name}"] = value
    results.update(tiny_spectrum(microbatch=1))
    np.savez(path, **results)


@pytest.mark.parametrize("microbatch", MICROBATCHES)
def test_mean_is_that_of_all_samples(microbatch: int) -> None:
    """For every number of samples, whether or not the microbatch divides it."""
    for count in COUNTS:
        samples = draw_samples(count)
        result = mean_of(count, microbatch)
        expected = 3 * np.mean(np.abs(np.float64(samples["image"])) ** 1.5, axis=0)
        testing.assert_close(result["image"], expected, 1e-5)
        expected = np.mean(np.float64(samples["label"]) ** 2)
        testing.assert_close(result["label"], expected, 1e-5)


@pytest.mark.parametrize("microbatch", MICROBATCHES)
def test_every_sample_has_its_weight_once(microbatch: int) -> None:
    """1/M for each of M samples, 0 for padding; no microbatch is larger than asked for."""
    for count in COUNTS:
        shards = devices.shard(draw_samples(count), microbatch=microbatch)
        labels = np.concatenate([np.asarray(batch["label"]).ravel() for batch in shards.batches])
        weights = np.concatenate([np.asarray(weight).ravel() for weight in shards.weights])
        np.testing.assert_array_equal(np.sort(labels[weights > 0]), np.arange(1, count + 1))
        np.testing.assert_allclose(weights[weights > 0], 1 / count, rtol=1e-6)
        assert all(batch["label"].shape[1] <= microbatch for batch in shards.batches)
        assert len({batch["label"].shape for batch in shards.batches}) == 1


def test_mapped_microbatches_keep_their_weights() -> None:
    """The mean of f(x) is the same whether f is applied before or within the sum."""
    shards = devices.shard(draw_samples(7), microbatch=3)
    scale = devices.replicate(jnp.float32(2))
    mapped = devices.map_microbatches(lambda s, batch: s * batch["image"] ** 2, scale, shards)
    run = devices.sum_over_samples(lambda _, x, weights, __: jnp.einsum("b,bij->ij", weights, x))
    result = run(devices.replicate(()), mapped, jnp.float32(0))
    testing.assert_close(result, 2 * np.mean(draw_samples(7)["image"] ** 2, axis=0), 1e-6)


def test_function_is_traced_once_for_all_microbatches_and_calls() -> None:
    counter = testing.TraceCounter(lambda _, batch, w, x: jnp.vdot(w, batch["label"] * x))
    run = devices.sum_over_samples(counter)
    shards = devices.shard(draw_samples(9), microbatch=2)
    for factor in (1.0, 2.0, 3.0):
        mean = run(devices.replicate(()), shards, jnp.float32(factor))
        assert abs(float(mean) - 5 * factor) < 1e-5
    assert counter.traces == 1
    run(devices.replicate(()), devices.shard(draw_samples(9), microbatch=3), jnp.float32(1))
    assert counter.traces == 2


def test_eight_devices_agree_with_one(tmp_path: pathlib.Path) -> None:
    """Means and a spectrum, in a process with 8 virtual devices; most counts do not divide."""
    path = tmp_path / "eight.npz"
    count = f"--xla_force_host_platform_device_count={VIRTUAL_DEVICES}"
    flags = f"{os.environ['XLA_FLAGS']} {count}"  # those of conftest, which compile fast
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, str(path)]
    subprocess.run(command, env=environment, cwd=ROOT, check=True, timeout=300)
    with np.load(path) as file:
        eight = dict(file)
    assert eight.pop("devices") == VIRTUAL_DEVICES
    main(str(tmp_path / "one.npz"))
    with np.load(tmp_path / "one.npz") as file:
        one = dict(file)
    assert one.pop("devices") == 1
    assert one.keys() == eight.keys()
    vectors = [side.pop("vectors") for side in (one, eight)]
    for name in one:
        testing.assert_close(eight[name], one[name], 1e-5, name)
    # Signs are fixed by a rule, so that even the vectors agree; the values lie well apart.
    testing.assert_close(vectors[1], vectors[0], 1e-3)


def test_program_that_needs_more_memory_than_there_is_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before it runs, by a message that names the key to lower."""
    run = devices.sum_over_samples(
        lambda _, batch, w, x: jnp.einsum("b,bij->ij", w, batch["image"]) * x
    )
    arguments = devices.replicate(()), devices.shard(draw_samples(5), microbatch=5), jnp.float32(1)
    monkeypatch.setattr(devices, "_free_bytes", lambda: 8)
    with pytest.raises(InputError, match=r"memory: .*; lower config.microbatch with --config.micr"):
        run(*arguments)
    monkeypatch.setattr(devices, "_free_bytes", lambda: None)
    run(*arguments)


def test_free_memory_is_known_here() -> None:
    """The check above is no use if the system is never asked; it has between 1 MB and 100 TB."""
    free = devices._free_bytes()
    assert free is not None and 2**20 < free < 2**47


def test_one_process_is_the_main_one_and_waits_for_nobody() -> None:
    assert devices.is_main_process() and devices.is_single_process()
    devices.wait_for_all("test")
    assert devices.describe() == f"1 x {jax.devices()[0].device_kind}"


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("JAX_NUM_PROCESSES", "two"),
        ("JAX_PROCESS_ID", "-1"),
        ("JAX_COORDINATOR_ADDRESS", "somewhere"),
    ],
)
def test_settings_of_a_pod_that_can_not_be_are_one_message(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str
) -> None:
    for name, value in {
        "JAX_COORDINATOR_ADDRESS": "localhost:1",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": "1",
        variable: text,
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"distributed: .*; got {variable}='{text}', which is no "):
        devices.initialize_distributed()


if __name__ == "__main__":
    main(sys.argv[1])
