"""What an inversion makes small: the distance to the photograph, and what keeps codes usual.

Source of the noise term, of its weight and of the size at which images are compared: the projector
of Karras et al. 2020, appendix D.
"""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from navigan_jax import params as params_lib
from navigan_jax.array_types import Array, Float, Images, Params
from navigan_jax.generators.base import Generator
from navigan_jax.inversion import codes
from navigan_jax.inversion.codes import Spread
from navigan_jax.perceptual.base import Distance, Features, squared_norms

NOISE_WEIGHT = 1e5
_LARGEST = 256  # pixels: larger images are averaged down to it before they are compared
_SMALLEST_NOISE = 8


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """One photograph, and the generator that is to show it.

    image: [1, height, width, channels], of the generator's size. features: of the photograph.
    rest: [1, entries], what follows the movable entries of z. usual: weight of the mean of u².
    """

    params: Params
    metric: Distance
    spread: Spread
    image: Images
    features: Features
    rest: Array
    usual: Array
    generator: Generator = dataclasses.field(metadata={"static": True})
    space: str = dataclasses.field(metadata={"static": True})


def average_down(images: Images, largest: int = _LARGEST) -> Images:
    """Returns images averaged over squares, until no side is larger than `largest` if possible."""
    side = -(-max(images.shape[1:3]) // largest)
    while images.shape[1] % side or images.shape[2] % side:
        side -= 1
    if side == 1:
        return images
    batch, height, width, channels = images.shape
    split = images.reshape(batch, height // side, side, width // side, side, channels)
    return split.mean(axis=(2, 4))


def make_problem(
    generator: Generator,
    params: Params,
    metric: Distance,
    spread: Spread,
    image: Images,
    *,
    space: str,
    rest: Array,
    usual: float,
) -> Problem:
    """Returns the problem of one photograph."""
    features = _features(metric, image)
    weight = jnp.asarray(usual, image.dtype)
    return Problem(params, metric, spread, image, features, rest, weight, generator, space)


@jax.jit
def _features(metric: Distance, images: Images) -> Features:
    return metric.features(average_down(images))


def noise_maps(generator: Generator, params: Params) -> dict[str, Array]:
    """Returns the noise maps that a generator adds, by path; none if it has no constant noise."""
    if getattr(generator.network, "noise", None) != "constant":
        return {}
    flat = params_lib.flatten(params)
    return {path: leaf for path, leaf in flat.items() if path.rpartition("/")[2] == "noise"}


def with_noise(params: Params, noise: Mapping[str, Array]) -> Params:
    """Returns the parameters with other noise maps."""
    return params_lib.unflatten({**params_lib.flatten(params), **noise}) if noise else params


def images_of(problem: Problem, code: Array, noise: Mapping[str, Array]) -> Images:
    """Returns the image of a code [1, ...]."""
    generator, params = problem.generator, with_noise(problem.params, noise)
    latent = codes.to_latent(params, code, problem.rest, generator=generator, space=problem.space)
    return generator.synthesize(params, latent)


def distance(problem: Problem, images: Images) -> Float[Array, ""]:
    """Returns the distance of an image to the photograph."""
    features = problem.metric.features(average_down(images))
    return jnp.sum(squared_norms(jax.tree.map(jnp.subtract, features, problem.features)))


def unusual(problem: Problem, code: Array) -> Float[Array, ""]:
    """Returns the mean of u², weighted: 1 times the weight for a typical sample."""
    return problem.usual * jnp.mean(problem.spread.whiten(code) ** 2)


def noise_correlation(noise: Mapping[str, Array]) -> Float[Array, ""]:
    """Returns the squared correlations of noise maps with themselves, shifted by one pixel.

    They are summed over the maps and over maps averaged over 2, 4, ... pixels, down to 8 pixels.
    """
    total = jnp.zeros(())
    for each in noise.values():
        maps = each
        while True:
            for axis in (0, 1):
                total += jnp.mean(maps * jnp.roll(maps, 1, axis)) ** 2
            if min(maps.shape) <= _SMALLEST_NOISE:
                break
            height, width = (side // 2 for side in maps.shape)
            split = maps[: 2 * height, : 2 * width].reshape(height, 2, width, 2)
            maps = split.mean(axis=(1, 3))
    return total


def standardise(noise: Mapping[str, Array]) -> dict[str, Array]:
    """Returns the noise maps with mean 0 and variance 1."""
    centred = {path: maps - jnp.mean(maps) for path, maps in noise.items()}
    return {path: maps * jax.lax.rsqrt(jnp.mean(maps**2)) for path, maps in centred.items()}


@functools.partial(jax.jit, static_argnames=("levels",))
def pyramid(images: Images, levels: int) -> tuple[Images, ...]:
    """Returns the images at `levels` sizes, halved each time; each has its mean square as norm."""
    found = []
    for level in range(levels):
        small = images if level == 0 else average_down(images, max(images.shape[1:3]) >> level)
        found.append(small / small.size**0.5)
    return tuple(found)


def pyramid_levels(height: int, width: int) -> int:
    """Returns the number of sizes down to about 8 pixels."""
    levels = 1
    while (
        min(height, width) >> levels >= 8
        and not (height >> (levels - 1)) % 2
        and not (width >> (levels - 1)) % 2
    ):
        levels += 1
    return levels
