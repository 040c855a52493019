"""Inputs that a config names: generator, layers, distance and latents."""

import dataclasses
import hashlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import assets
from navigan_jax import config as config_lib
from navigan_jax import inverted as inverted_lib
from navigan_jax import params as params_lib
from navigan_jax.array_types import Params
from navigan_jax.config import Config
from navigan_jax.editing.recipe import AS_IT_IS, Synthesis
from navigan_jax.errors import InputError, OptionError
from navigan_jax.evaluation import gauges as gauges_lib
from navigan_jax.evaluation.gauges import Gauges
from navigan_jax.generators import base
from navigan_jax.generators.base import EditableLayer, Generator
from navigan_jax.generators.files import OPTIONS, read_generator
from navigan_jax.generators.latents import Latents, read_latents, spaces_of
from navigan_jax.generators.pix2pixhd.label_maps import LabelMaps
from navigan_jax.generators.pix2pixhd.map_files import read_label_maps
from navigan_jax.generators.stylegan2.network import NOISES
from navigan_jax.inverted import read_inverted
from navigan_jax.nn.layers import PRECISIONS
from navigan_jax.perceptual import METRICS
from navigan_jax.perceptual.base import RESIZE_METHODS, AtSize, Distance
from navigan_jax.perceptual.files import read_perceptual
from navigan_jax.tasks.settings import FINITE, NOT_NEGATIVE, POSITIVE, SEED, Limits, Settings
from navigan_jax.tasks.workdirs import say

COMMON = Settings(
    {"task": str, "seed": int, "compilation_cache": bool, "distributed": bool}, {"seed": SEED}
)
METRIC = Settings(
    {
        "metric.name": str,
        "metric.weights": str | None,
        "metric.size": int,
        "metric.resize": str,
    },
    {"metric.size": Limits(most=4096)},
    {"metric.name": tuple(METRICS), "metric.resize": RESIZE_METHODS},
)
PROBLEM = METRIC | Settings(
    {"generator": str, "layer": str, "microbatch": int}, {"microbatch": POSITIVE}
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
# With a memory budget, a microbatch of 0 means: as large as the budget allows.
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
    """A generator, the layers to edit, and the distance that measures changes of images.

    digest: digest of the parameters. source: path of the generator file, for error messages.
    """

    generator: Generator
    params: Params
    digest: str
    layers: tuple[EditableLayer, ...]
    metric: Distance
    source: str


def synthesis(config: Config) -> Synthesis:
    """Returns the settings under `config.synthesis`; an empty key gives None."""
    keys = config.synthesis
    return Synthesis(
        truncation=keys.truncation,
        truncation_cutoff=keys.truncation_cutoff,
        noise=keys.noise or None,
        noise_seed=keys.noise_seed,
        label=keys.label or None,
        precision=keys.precision or None,
    )


def fill_defaults(config: Config) -> Config:
    """Returns the config with defaults in place of empty `synthesis` keys.

    Runs save this form: it needs no knowledge of the defaults, and setting a default explicitly
    makes no other config.
    """
    settled = {**OPTIONS, **synthesis(config).to_json()}
    return config_lib.replace(config, {f"synthesis.{key}": settled[key] for key in settled})


def read_set_generator(
    config: Config, recipe: Synthesis = AS_IT_IS
) -> tuple[Generator, Params, Synthesis]:
    """Returns the generator of `config.generator`, its parameters, and its synthesis settings.

    recipe: settings from `config.recipe`; keys set under `config.synthesis` take precedence.
    Raises: as `read_generator`; the error names the wrong key, or the recipe it comes from.
    """
    from_keys = synthesis(config)
    setting = recipe.with_changes(from_keys)
    try:
        generator, params = read_generator(config.generator, setting.options())
    except OptionError as error:
        is_key = error.option in from_keys.to_json()
        place = "config.synthesis." if is_key else f"{config.recipe}: synthesis: "
        raise InputError(f"{place}{error}") from error
    return generator, params, setting


def read_problem(config: Config) -> Problem:
    """Returns the problem that the keys of `PROBLEM` and `SYNTHESIS` describe.

    Raises: InputError for a file that is missing, damaged or of another kind, an unknown layer, or
      a distance that cannot take images of this generator.
    """
    generator, params, _ = read_set_generator(config)
    layers = generator.find_layers([name.strip() for name in config.layer.split(",")])
    metric = make_metric(config)
    images = jax.ShapeDtypeStruct((1, *generator.image_shape), jnp.float32)
    jax.eval_shape(metric.features, images)
    digest = params_lib.digest(params)
    return Problem(generator, params, digest, layers, metric, config.generator)


def read_gauges(config: Config) -> Gauges | None:
    """Returns the gauges of `config.gauges`, else those of the generator's name, else None.

    "none" stands for no gauges.
    Raises: as `gauges.read_gauges`.
    """
    name = config.gauges
    if name is None and config.generator in assets.GAUGES:
        name = config.generator
    return None if name in (None, "none") else gauges_lib.read_gauges(name)


def require_gauges(config: Config) -> Gauges:
    """Returns the gauges of a task that cannot do without.

    Raises: InputError if there are none, and as `read_gauges`.
    """
    gauges = read_gauges(config)
    if gauges is None:
        raise InputError(
            "config.gauges: expected what reads factors off the images of this generator; got "
            "nothing; allowed: a file of gauges, a function of your own (my_gauge.py:make), or a "
            f"name: {', '.join(assets.GAUGES)}; set it with --config.gauges=my_gauge.py:make"
        )
    return gauges


def make_metric(config: Config) -> Distance:
    """Returns the distance that `config.metric` describes.

    Raises: InputError if its weights are missing, superfluous or unreadable.
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
    """Returns the latents of the run: z drawn from the seed, or z or w_plus from the file.

    Prints which array of the file was taken, and as which kind of latent.
    Raises: InputError if the file does not hold latents of this generator.
    """
    path = config.latents.path
    if path is None:
        key = jax.random.fold_in(jax.random.key(config.seed), 0)
        return np.asarray(generator.sample_latents(key, config.latents.count))
    count = config.latents.count
    if isinstance(generator.space, LabelMaps):
        latents = read_label_maps(path, generator.space, count)
    else:
        latents = read_given_latents(path, generator)
    more = f"; the first {count} are used" if count < len(latents.values) else ""
    say(f"{latents.told}{more}")
    return latents.values[:count]


def read_given_latents(path: str, generator: Generator) -> Latents:
    """Returns the latents of a user's file: .npz, .npy, or inverted.safetensors.

    Raises: InputError if the file does not hold latents of this generator.
    """
    if not path.endswith(".safetensors"):
        return read_latents(path, spaces_of(generator))
    found = read_inverted(path, digest=None)
    shapes = spaces_of(generator).shapes
    # Changes of weights are left out: here all latents go through the same weights.
    inverted_lib.require_fit(path, dataclasses.replace(found, changes={}), {}, shapes)
    told = f"{path}: {len(found)} photograph{'s' * (len(found) != 1)}, as {found.space}"
    if found.changes:
        told += "; their changes of weights and noise are left out"
    return Latents(found.space, np.asarray(found.latents, np.float32), told)


def require_different(config: Config, generator: Generator) -> None:
    """Checks that images differ with the latent: a truncation of 0 makes them equal.

    Raises: InputError.
    """
    keys = config.synthesis
    if keys.truncation != 0:
        return
    rows = spaces_of(generator).rows
    if keys.truncation_cutoff in (None, rows):
        raise InputError(
            "config.synthesis.truncation: expected images that differ with the latent; got 0, "
            "which makes all images the same; set another number with "
            "--config.synthesis.truncation=N, or truncate fewer rows with "
            f"--config.synthesis.truncation_cutoff=N, less than {rows}"
        )


def mix_latents(config: Config, problem: Problem, latents: np.ndarray) -> np.ndarray:
    """Returns the latents after style mixing: rows from `latents.mix_from` on are of other draws.

    Raises: InputError if the generator does not have that row of w.
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
    """Returns the SHA-256 of each input that the config refers to by path or seed."""
    inputs = {"generator": problem.digest, "latents": params_lib.digest({"z": z})}
    if config.metric.weights is not None:
        inputs["metric"] = digest_metric(config)
    return inputs


def digest_metric(config: Config) -> str:
    """Returns the SHA-256 of the file of the metric's weights."""
    with open(config.metric.weights, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_bytes(config: Config) -> int:
    """Returns the bytes per device for cached intermediate results."""
    return int(config.cache_gib * 2**30)
