"""Devices: pmap, psum, processes and microbatches are used in this module only.

Latents are spread over all devices of all processes. Each device works through its share one
microbatch at a time, and sums run over all devices. Shares are padded with copies of weight zero,
so any number of latents fits any number of devices and any microbatch.
"""

import dataclasses
import functools
import os
import pathlib
import socket
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils

from navigan_jax.errors import InputError

_AXIS = "devices"

_PATIENCE = 300  # seconds to wait for the coordinator; JAX's own default


def initialize_distributed() -> None:
    """Joins the processes of a pod; must come before any other use of JAX.

    Reads JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID if they are set. JAX finds
    the rest on TPU pods and under Slurm.
    Raises: InputError if the processes cannot find each other.
    """
    settings: dict[str, Any] = {}
    try:
        for argument, variable, kind in (
            ("coordinator_address", "JAX_COORDINATOR_ADDRESS", str),
            ("num_processes", "JAX_NUM_PROCESSES", int),
            ("process_id", "JAX_PROCESS_ID", int),
        ):
            text = os.environ.get(variable)
            if text is not None and kind is int and not text.isdecimal():
                raise ValueError(f"{variable}={text!r}, which is no number")
            if text is not None:
                settings[argument] = kind(text)
        if {"coordinator_address", "process_id"} <= settings.keys():
            _require_meeting_place(settings["coordinator_address"], settings["process_id"])
        jax.distributed.initialize(**settings)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"distributed: expected processes that find each other; got {_first_line(error)}; set "
            "JAX_COORDINATOR_ADDRESS=host:port, JAX_NUM_PROCESSES and JAX_PROCESS_ID for each, if "
            "JAX does not know the cluster, or set --config.distributed=False"
        ) from error


def _require_meeting_place(address: str, process_id: int) -> None:
    """Raises OSError if process 0 cannot listen there, or another one not reach it in time.

    JAX would end the program without a word that a user can act on.
    """
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        raise ValueError(f"JAX_COORDINATOR_ADDRESS={address!r}, which is no host:port")
    if process_id == 0:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", int(port)))
        return
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                raise OSError(f"nobody at {address} for {_PATIENCE} seconds") from error
        time.sleep(0.2)


def _first_line(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return reason.partition("\n")[0]


def is_main_process() -> bool:
    """Whether this process writes files and shows progress."""
    return process_number() == 0


def process_number() -> int:
    """Returns the index of this process, from 0."""
    return int(jax.process_index())


def is_single_process() -> bool:
    """Whether all devices belong to this process."""
    return jax.process_count() == 1


def wait_for_all(name: str) -> None:
    """Waits until all processes have called this function with the same name."""
    if not is_single_process():
        multihost_utils.sync_global_devices(name)


def value_of_main_process(value: float) -> float:
    """Returns the value of the main process; every process must call this function."""
    if is_single_process():
        return value
    return float(multihost_utils.broadcast_one_to_all(np.float32(value)))


def share_memory() -> bool:
    """Whether the devices of a process share its memory, as on CPU."""
    return jax.default_backend() == "cpu"


def describe() -> str:
    """Returns a line for logs: the number and kind of devices, and the number of processes."""
    kind = jax.devices()[0].device_kind
    processes = jax.process_count()
    text = f"{jax.device_count()} x {kind}"
    return text if processes == 1 else f"{text} in {processes} processes"


@dataclasses.dataclass(frozen=True)
class Shards:
    """Per-sample data, spread: one tree for each microbatch, leaves [local devices, samples, ...].

    weights: for each microbatch [local devices, samples]: 1/M for each of the M samples, 0 for
    padding; they sum to 1 over all processes.
    """

    batches: tuple[Any, ...]
    weights: tuple[jax.Array, ...]


def shard(data: Any, *, microbatch: int) -> Shards:
    """Spreads a tree of arrays [samples, ...] over all devices.

    Every process passes the same data and keeps what belongs to its own devices.
    """
    samples = jax.tree.leaves(data)[0].shape[0]
    devices = jax.devices()
    share = share_of_samples(samples)
    size, count = _microbatches(samples, microbatch)
    # Slot `samples` stands for padding: behind each device's share, and behind the last sample.
    slots = np.full((len(devices), count * size), samples)
    slots[:, :share] = np.minimum(np.arange(len(devices) * share), samples).reshape(-1, share)
    mine = slots[[i for i, device in enumerate(devices) if device in jax.local_devices()]]
    precision = jnp.result_type(float)
    batches, weights = [], []
    for chosen in np.split(mine, count, axis=1):
        index = np.where(chosen < samples, chosen, 0)
        batches.append(_place(jax.tree.map(lambda x, at=index: np.asarray(x)[at], data)))
        weights.append(_place(np.where(chosen < samples, 1 / samples, 0).astype(precision)))
    return Shards(tuple(batches), tuple(weights))


def share_of_samples(samples: int) -> int:
    """Returns the number of samples that one device takes, padding included."""
    return -(-samples // jax.device_count())


def _microbatches(samples: int, microbatch: int) -> tuple[int, int]:
    """Returns size and number of a device's microbatches."""
    share = share_of_samples(samples)
    size = min(microbatch, share)
    return size, -(-share // size)


def _place(tree: Any) -> Any:
    """Puts row i of each leaf on local device i."""
    return _mapped(_identity, 0)(tree)


def replicate(tree: Any) -> Any:
    """Returns the tree with a copy of each leaf on every local device."""
    if not jax.tree.leaves(tree):
        return tree  # pmap takes no function without results where there are several processes
    rows = np.zeros(jax.local_device_count(), np.float32)
    return _mapped(_second, 0, None)(rows, tree)


def _identity(tree: Any) -> Any:
    return tree


def _second(_: Any, tree: Any) -> Any:
    return tree


@functools.cache
def _mapped(function: Callable[..., Any], *in_axes: int | None) -> Callable[..., Any]:
    # Made once, so that it is compiled once; but not before the processes of a pod are joined.
    return jax.pmap(function, axis_name=_AXIS, in_axes=in_axes)


def map_microbatches(function: Callable[[Any, Any], Any], shared: Any, shards: Shards) -> Shards:
    """Returns the shards with function(shared, microbatch) in place of each microbatch.

    `shared` is replicated.
    """
    mapped = _Checked(jax.pmap(function, axis_name=_AXIS))
    return dataclasses.replace(
        shards, batches=tuple(mapped(shared, batch) for batch in shards.batches)
    )


def sum_over_samples(
    function: Callable[[Any, Any, jax.Array, Any], Any],
) -> Callable[[Any, Shards, Any], Any]:
    """Returns (replicated, shards, argument) -> sum over all microbatches of all devices.

    function(shared, microbatch, weights, argument) returns a tree of sums over the microbatch.
    `argument` is the same on all devices. The result is on the first device. The loop over
    microbatches is Python's: inside a compiled loop XLA on CPU uses one core and is 3 times
    slower (benchmarks/products.py), and elsewhere calls are asynchronous anyway.
    """

    mapped = _Checked(_map_and_sum(function))

    def over_all(shared: Any, shards: Shards, argument: Any) -> Any:
        total = None
        for data, weights in zip(shards.batches, shards.weights, strict=True):
            part = mapped(shared, data, weights, argument)
            total = part if total is None else jax.tree.map(jnp.add, total, part)
        return total

    return over_all


def _map_and_sum(function: Callable[[Any, Any, jax.Array, Any], Any]) -> Any:
    def on_device(shared: Any, data: Any, weights: jax.Array, argument: Any) -> Any:
        return lax.psum(function(shared, data, weights, argument), _AXIS)

    return jax.pmap(on_device, axis_name=_AXIS, in_axes=(0, 0, 0, None), out_axes=None)


# The same from shapes alone: what would be there and how much memory it takes, nothing being run.


def replica_shapes(tree: Any) -> Any:
    """Returns the shapes of what `replicate` returns of arrays or shapes."""
    return _with_axes(tree, jax.local_device_count())


def shard_shapes(data: Any, *, microbatch: int) -> Shards:
    """Returns the shapes of what `shard` returns of arrays or shapes."""
    size, count = _microbatches(jax.tree.leaves(data)[0].shape[0], microbatch)
    rows = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), data)
    lead = (jax.local_device_count(), size)
    weights: Any = jax.ShapeDtypeStruct(lead, jnp.result_type(float))
    return Shards((_with_axes(rows, *lead),) * count, (weights,) * count)


def _with_axes(tree: Any, *lead: int) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((*lead, *jnp.shape(x)), x.dtype), tree)


def map_microbatch_shapes(
    function: Callable[[Any, Any], Any], shared: Any, shards: Shards
) -> tuple[Shards, int]:
    """Returns the shapes of what `map_microbatches` returns, and the working bytes of a device."""
    mapped = jax.pmap(function, axis_name=_AXIS)
    batch = jax.eval_shape(mapped, shared, shards.batches[0])
    needed = bytes_of_program(mapped.lower(shared, shards.batches[0]).compile())
    return dataclasses.replace(shards, batches=(batch,) * len(shards.batches)), needed or 0


def sum_working_bytes(
    function: Callable[[Any, Any, jax.Array, Any], Any], shared: Any, shards: Shards, argument: Any
) -> int:
    """Returns the working bytes of a device for `sum_over_samples` of the function."""
    arguments = shared, shards.batches[0], shards.weights[0], argument
    return bytes_of_program(_map_and_sum(function).lower(*arguments).compile()) or 0


def working_bytes(function: Callable[..., Any], *arguments: Any) -> int:
    """Returns the bytes of a compiled function's temporaries and results, from shapes."""
    return bytes_of_program(jax.jit(function).lower(*arguments).compile()) or 0


def map_replicas(
    function: Callable[[Any, Any], tuple[Any, Any]],
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Returns (shared, state) -> (state, report), run by every device on its own replica.

    function(shared, state) takes and gives the trees of one device, and can call
    `share_of_device` and `mean_over_devices`. `shared` is replicated and kept; so is the state,
    whose memory is used for the new one: the old one is gone. The report is on the first device.
    """
    return _Checked(
        jax.pmap(function, axis_name=_AXIS, out_axes=(0, None), donate_argnums=(1,)),
    )


def mean_over_devices(tree: Any) -> Any:
    """Returns the mean over all devices; only inside a mapped function."""
    return lax.pmean(tree, _AXIS)


def mapped_devices() -> int:
    """Returns the number of devices that run the mapped function; only inside that function."""
    return lax.axis_size(_AXIS)


def share_of_device(tree: Any) -> Any:
    """Returns this device's part of arrays [samples, ...]; only inside a mapped function.

    All devices hold the same tree and get equal parts.
    Raises: ValueError if the devices do not divide the samples.
    """
    count = mapped_devices()

    def part(leaf: jax.Array) -> jax.Array:
        if leaf.shape[0] % count:
            raise ValueError(f"devices: {leaf.shape[0]} samples for {count} devices")
        size = leaf.shape[0] // count
        return lax.dynamic_slice_in_dim(leaf, lax.axis_index(_AXIS) * size, size)

    return jax.tree.map(part, tree)


def first_replica(tree: Any) -> Any:
    """Returns the tree of the first local device of a replicated one, as NumPy arrays."""
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_shards[0].data)[0], tree)


class _Checked:
    """A pmapped function that is checked for memory once for each shape of its arguments.

    The check's program is the one that JAX keeps and runs: nothing is compiled twice.
    """

    def __init__(self, mapped: Any) -> None:
        self._mapped = mapped
        self._known: set[Any] = set()

    def __call__(self, *arguments: Any) -> Any:
        leaves, structure = jax.tree.flatten(arguments)
        signature = (structure, tuple((jnp.shape(leaf), leaf.dtype) for leaf in leaves))
        if signature not in self._known:
            _require_memory(self._mapped.lower(*arguments).compile())
            self._known.add(signature)
        return self._mapped(*arguments)


def _require_memory(program: Any) -> None:
    """Refuses a program whose temporaries and results do not fit the free memory.

    The check comes first because a system that overcommits memory kills the process.
    Raises: InputError naming the key to lower.
    """
    shortage = _shortage(bytes_of_program(program) or 0)
    if shortage:
        needed, free = shortage
        raise InputError(
            f"memory: expected a microbatch to fit in the {free:.1f} GiB that are free; got one "
            f"that needs {needed:.1f} GiB; lower config.microbatch with --config.microbatch=N, "
            "down to 1"
        )


def describe_shortage(needed: int) -> str:
    """Returns a description of the shortage if `needed` bytes on every device do not fit, or ""."""
    shortage = _shortage(needed)
    return "{:.1f} GiB, where {:.1f} GiB are free".format(*shortage) if shortage else ""


def _shortage(needed: int) -> tuple[float, float] | None:
    """Returns (GiB needed, GiB free) if `needed` bytes on every device do not fit, else None."""
    free = _free_bytes()
    if share_memory():
        needed *= jax.local_device_count()
    return None if free is None or needed <= free else (needed / 2**30, free / 2**30)


def bytes_of_program(program: Any) -> int | None:
    """Returns the bytes of a program's temporaries and results on a device, if known."""
    analysis = program.memory_analysis()
    if analysis is None:
        return None
    return int(analysis.temp_size_in_bytes + analysis.output_size_in_bytes)


def _free_bytes() -> int | None:
    """Returns the free memory of a device, or None if it is unknown."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    available = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024 * int(available[0]) if available else None
