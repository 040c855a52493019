"""What a config names and tasks read: a generator with layers and a distance, and latents."""

import dataclasses
import hashlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import config as config_lib
from navigan_jax import params as params_lib
from navigan_jax.array_types import Params
from navigan_jax.config import Config
from navigan_jax.editing.recipe import AS_IT_IS, Synthesis
from navigan_jax.errors import InputError, OptionError
from navigan_jax.generators import base
from navigan_jax.generators.base import EditableLayer, Generator
from navigan_jax.generators.files import OPTIONS, read_generator
from navigan_jax.generators.latents import read_latents, spaces_of
from navigan_jax.generators.stylegan2.network import NOISES
from navigan_jax.nn.layers import PRECISIONS
from navigan_jax.perceptual import METRICS
from navigan_jax.perceptual.base import RESIZE_METHODS, AtSize, Distance
from navigan_jax.perceptual.files import read_perceptual
from navigan_jax.tasks.settings import FINITE, NOT_NEGATIVE, POSITIVE, SEED, Limits, Settings
from navigan_jax.tasks.workdirs import say

COMMON = Settings(
    {"task": str, "seed": int, "compilation_cache": bool, "distributed": bool}, {"seed": SEED}
)
PROBLEM = Settings(
    {
        "generator": str,
        "layer": str,
        "metric.name": str,
        "metric.weights": str | None,
        "metric.size": int,
        "metric.resize": str,
        "microbatch": int,
    },
    {"metric.size": Limits(most=4096), "microbatch": POSITIVE},
    {"metric.name": tuple(METRICS), "metric.resize": RESIZE_METHODS},
)
LATENTS = Settings(
    {"latents.count": int, "latents.path": str | None},
    {"latents.count": Limits(most=10**7, is_open=True)},
)
SYNTHESIS = Settings(
    {
        "synthesis.truncation": float | None,
        "synthesis.truncation_cutoff": int | None,
        "synthesis.noise": str,
        "synthesis.noise_seed": int | None,
        "synthesis.label": str | None,
        "synthesis.precision": str,
    },
    {
        "synthesis.truncation": FINITE,
        "synthesis.truncation_cutoff": NOT_NEGATIVE,
        "synthesis.noise_seed": SEED,
    },
    {"synthesis.noise": ("", *NOISES), "synthesis.precision": ("", *PRECISIONS)},
)
MIXING = Settings({"latents.mix_from": int | None}, {"latents.mix_from": NOT_NEGATIVE})
# With a budget, a microbatch of 0 means: chosen by it.
BUDGET = Settings(
    {"cache_gib": float, "memory_gib": float},
    {
        "cache_gib": Limits(most=10**6),
        "memory_gib": Limits(most=10**6, is_open=True),
        "microbatch": NOT_NEGATIVE,
    },
)


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """What is edited and how changes are felt: a generator, some of its layers, a distance.

    digest: of the parameters. source: the path they were read from, for messages.
    """

    generator: Generator
    params: Params
    digest: str
    layers: tuple[EditableLayer, ...]
    metric: Distance
    source: str


def synthesis(config: Config) -> Synthesis:
    """Returns what the keys `synthesis` say; those that are empty say nothing."""
    keys = config.synthesis
    return Synthesis(
        truncation=keys.truncation,
        truncation_cutoff=keys.truncation_cutoff,
        noise=keys.noise or None,
        noise_seed=keys.noise_seed,
        label=keys.label or None,
        precision=keys.precision or None,
    )


def said_in_full(config: Config) -> Config:
    """Returns the config with the defaults in the place of empty keys `synthesis`.

    So it is kept: who reads it need not know them, and to say a default changes nothing.
    """
    settled = {**OPTIONS, **synthesis(config).to_json()}
    return config_lib.replace(config, {f"synthesis.{key}": settled[key] for key in settled})


def read_set_generator(
    config: Config, recipe: Synthesis = AS_IT_IS
) -> tuple[Generator, Params, Synthesis]:
    """Returns the generator that `config.generator` names, its parameters, and how it is set.

    recipe: how that of `config.recipe` sets it; what the keys `synthesis` say comes before.
    Raises: InputError as `read_generator`; it names the key that is wrong, and the recipe if the
      key is there.
    """
    said = synthesis(config)
    setting = recipe.with_changes(said)
    try:
        generator, params = read_generator(config.generator, setting.options())
    except OptionError as error:
        is_said = error.option in said.to_json()
        place = "config.synthesis." if is_said else f"{config.recipe}: synthesis: "
        raise InputError(f"{place}{error}") from error
    return generator, params, setting


def read_problem(config: Config) -> Problem:
    """Returns what the keys of `PROBLEM` and `SYNTHESIS` name.

    Raises: InputError for a file that is missing, damaged or of another kind, an unknown layer, or
      a distance that does not take images of this generator.
    """
    generator, params, _ = read_set_generator(config)
    layers = generator.find_layers([name.strip() for name in config.layer.split(",")])
    metric = make_metric(config)
    images = jax.ShapeDtypeStruct((1, *generator.image_shape), jnp.float32)
    jax.eval_shape(metric.features, images)
    digest = params_lib.digest(params)
    return Problem(generator, params, digest, layers, metric, config.generator)


def make_metric(config: Config) -> Distance:
    """Returns the distance that `config.metric` describes.

    Raises: InputError if its weights are missing, not wanted or not readable.
    """
    name, weights = config.metric.name, config.metric.weights
    if name == "lpips":
        if weights is None:
            raise InputError(
                "config.metric.weights: expected the weights of lpips; got nothing; make them "
                "with: python -m tools.convert_weights lpips --net vgg --out lpips.safetensors"
            )
        metric = read_perceptual(weights)
    elif weights is not None:
        raise InputError(
            f"config.metric.weights: expected nothing, as {name} takes none; got {weights!r}; "
            "leave the key out, or set --config.metric.name=lpips"
        )
    else:
        metric = METRICS[name]()
    if config.metric.size:
        return AtSize(metric, config.metric.size, config.metric.resize)
    return metric


def draw_latents(config: Config, generator: Generator) -> np.ndarray:
    """Returns the latents of the run, from the file or from the seed: z, or w_plus of a file.

    Says what of a file was taken, and as what.
    Raises: InputError if the file does not hold latents of this generator.
    """
    path = config.latents.path
    if path is None:
        key = jax.random.fold_in(jax.random.key(config.seed), 0)
        return np.asarray(generator.sample_latents(key, config.latents.count))
    latents, count = read_latents(path, spaces_of(generator)), config.latents.count
    more = f"; the first {count} are used" if count < len(latents.values) else ""
    say(f"{latents.told}{more}")
    return latents.values[:count]


def require_different(config: Config, generator: Generator) -> None:
    """Checks that the truncation leaves drawn latents different, as some tasks compare them.

    Raises: InputError.
    """
    keys = config.synthesis
    if keys.truncation != 0:
        return
    rows = spaces_of(generator).rows
    if keys.truncation_cutoff in (None, rows):
        raise InputError(
            "config.synthesis.truncation: expected images that differ with the latent; got 0, "
            "which makes all of them the same; set another number with "
            "--config.synthesis.truncation=N, or leave later rows as they are with "
            f"--config.synthesis.truncation_cutoff=N, less than {rows}"
        )


def mix_latents(config: Config, problem: Problem, latents: np.ndarray) -> np.ndarray:
    """Returns the latents with the rows from `latents.mix_from` on those of other draws of z.

    Raises: InputError if the generator has no rows of w, or not so many.
    """
    row, generator = config.latents.mix_from, problem.generator
    if row is None:
        return latents
    rows = spaces_of(generator).rows
    if row >= rows:
        most = rows - 1 if rows else "none, as it has no w"
        raise InputError(
            f"config.latents.mix_from: expected a row of w_plus of this {generator.architecture}; "
            f"got {row}; allowed: up to {most}; set it with --config.latents.mix_from=N"
        )

    @jax.jit
    def mixed(params: Params, latents: jax.Array, others: jax.Array) -> jax.Array:
        first, second = (generator.map_latent(params, each) for each in (latents, others))
        return base.mix_latents(first, second, row)

    key = jax.random.fold_in(jax.random.key(config.seed), 3)
    others = generator.sample_latents(key, len(latents))
    return np.asarray(mixed(problem.params, latents, others))


def digest_inputs(config: Config, problem: Problem, z: np.ndarray) -> Mapping[str, str]:
    """Returns the SHA-256 of what the config only names."""
    inputs = {"generator": problem.digest, "latents": params_lib.digest({"z": z})}
    if config.metric.weights is not None:
        with open(config.metric.weights, "rb") as file:
            inputs["metric"] = hashlib.file_digest(file, "sha256").hexdigest()
    return inputs


def cache_bytes(config: Config) -> int:
    """Returns the bytes per device for what need not be computed twice."""
    return int(config.cache_gib * 2**30)
