"""The largest microbatch that fits a memory budget.

The estimate is made before the run, for each device. The compiler tells what each program needs at
that microbatch; the sizes of arrays tell what is kept between programs. Nothing is run. The free
memory and random numbers play no part, so one config always gives one microbatch.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import devices
from navigan_jax import spectrum as spectrum_lib
from navigan_jax.array_types import Params
from navigan_jax.config import Config
from navigan_jax.editing import plausibility
from navigan_jax.errors import InputError
from navigan_jax.generators.base import Generator
from navigan_jax.perceptual.base import Distance
from navigan_jax.subspaces import products
from navigan_jax.tasks import inputs
from navigan_jax.tasks.inputs import Problem
from navigan_jax.tasks.workdirs import say

_LARGEST = 16  # a larger microbatch is not faster on CPU; on a GPU, set one by hand

_PIXELS_AT_ONCE = 2**22

# Python, JAX, compiled programs and what the allocator keeps; measured by benchmarks/large.py.
_PROGRAM_BYTES = 3 * 2**29


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The memory that a run needs on one device, or on all devices if they share one memory.

    working: bytes of the largest program. parts: everything else, as (name, bytes).
    """

    microbatch: int
    working: int
    parts: tuple[tuple[str, int], ...]

    def least(self, microbatch: int) -> float:
        """Returns the bytes at another microbatch, if programs shrink in proportion to it."""
        scale = microbatch / self.microbatch
        return scale * self.working + sum(size for _, size in self.parts)

    @property
    def total(self) -> int:
        return self.working + sum(size for _, size in self.parts)

    def __str__(self) -> str:
        parts = (*self.parts, ("the largest program", self.working))
        text = ", ".join(f"{name} {_gib(size)}" for name, size in parts if size)
        return f"{_gib(self.total)} GiB: {text}"


def microbatch_of_spectrum(config: Config, problem: Problem, z: np.ndarray) -> int:
    """Returns the microbatch of the solver: the config's, or the largest that fits for 0.

    Raises: InputError if a microbatch of 1 does not fit `config.memory_gib`.
    """
    if config.microbatch:
        return int(config.microbatch)
    estimate = choose(
        config.memory_gib,
        lambda size: estimate_spectrum(config, problem, z, size),
        most=min(_LARGEST, devices.share_of_samples(len(z))),
        otherwise=", or lower config.cache_gib or config.directions",
    )
    say(
        f"microbatch {estimate.microbatch}, chosen for {config.memory_gib:g} GiB "
        f"(config.memory_gib); estimated {estimate}"
    )
    return estimate.microbatch


def estimate_spectrum(config: Config, problem: Problem, z: np.ndarray, microbatch: int) -> Estimate:
    """Returns the memory that the solver of the task `hessian` needs at a microbatch.

    A run needs less if it drops weights that have no effect for any latent.
    """
    settings, entries = config.solver, sum(math.prod(layer.shape) for layer in problem.layers)
    is_power = settings.name == "power"
    needs = products.measure(
        problem.generator,
        problem.params,
        problem.metric,
        z,
        problem.layers,
        microbatch=microbatch,
        cache_bytes=inputs.cache_bytes(config),
        kinds=("central_difference", "gauss_newton") if is_power else (settings.product,),
        block_size=1 if is_power else settings.block_size,
    )
    if is_power:  # all of them three times at the end: as found, of norm 1, with fixed signs
        vectors = 3 * config.directions + 8
    else:
        vectors = settings.max_vectors or spectrum_lib.default_max_vectors(
            config.directions, settings.block_size
        )
    held = 4 * vectors * entries
    found = 0 if is_power else 8 * config.directions * entries  # by the solver, and to be written
    if not is_power and entries <= vectors:  # the matrix itself, in float64, and what eigh takes
        held += 5 * 8 * entries**2
    copies = jax.local_device_count() if devices.share_memory() else 1
    on_host = int(devices.share_memory())  # where the weights are as well
    return Estimate(
        microbatch,
        copies * needs.working,
        (
            ("Python and JAX", _PROGRAM_BYTES),
            ("weights", (copies + on_host) * needs.shared),
            ("inputs of the layer", copies * needs.inputs),
            ("linearisation", copies * needs.jacobian),
            (f"{vectors} vectors", held),
            ("directions", found),
        ),
    )


def microbatch_of_images(config: Config, problem: Problem) -> int:
    """Returns the microbatch for rendering: the config's, or the largest that fits for 0.

    It is smaller for large images: they are rendered whole, while the solver may need few pixels.
    Raises: InputError if a microbatch of 1 does not fit `config.memory_gib`.
    """
    if config.microbatch:
        return min(int(config.microbatch), images_at_once(problem.generator))
    generator, layers = problem.generator, problem.layers
    copies = 1 + int(devices.share_memory())
    weights = copies * sum(leaf.nbytes for leaf in jax.tree.leaves(problem.params))

    def look(params: Params, metric: Distance, z: jax.Array) -> Any:
        images = generator.suffix(params, generator.prefix(params, z, layers), layers)
        return images, metric.features(images), plausibility.describe(images)

    def estimate(size: int) -> Estimate:
        shape = (size, *generator.space.shape)
        z = jax.ShapeDtypeStruct(shape, jnp.float32)
        working = devices.working_bytes(look, problem.params, problem.metric, z)
        return Estimate(size, working, (("Python and JAX", _PROGRAM_BYTES), ("weights", weights)))

    return choose(config.memory_gib, estimate, most=_LARGEST, otherwise="").microbatch


def images_at_once(generator: Generator) -> int:
    """Returns the largest useful microbatch for whole images; a larger one is not faster.

    At 1024 px 16 images of StyleGAN2 take 6.9 GiB, 4 take 1.7.
    """
    height, width, _ = generator.image_shape
    return max(1, _PIXELS_AT_ONCE // (height * width))


def choose(
    memory_gib: float, estimate: Callable[[int], Estimate], *, most: int, otherwise: str
) -> Estimate:
    """Returns the estimate of the largest microbatch among most, most / 2, ..., 1 that fits.

    otherwise: other advice for the message if none fits.
    Raises: InputError if none fits.
    """
    budget = memory_gib * 2**30
    size = most
    while True:
        found = estimate(size)
        if found.total <= budget:
            return found
        if size == 1:
            raise InputError(
                "config.memory_gib: expected room for one latent at a time; got "
                f"{memory_gib:g} GiB, and a run needs {found}; raise it with "
                f"--config.memory_gib=N{otherwise}"
            )
        size //= 2
        while size > 1 and found.least(size) > budget:
            size //= 2


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f}"
