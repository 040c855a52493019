"""What a config names and tasks read: a generator with layers and a distance, and latents."""

import dataclasses
import hashlib
import pathlib
import zipfile
import zlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import params as params_lib
from navigan_jax.array_types import Params
from navigan_jax.config import Config
from navigan_jax.errors import InputError
from navigan_jax.generators.base import EditableLayer, Generator
from navigan_jax.generators.files import read_generator
from navigan_jax.perceptual import METRICS
from navigan_jax.perceptual.base import RESIZE_METHODS, AtSize, Distance
from navigan_jax.perceptual.files import read_perceptual
from navigan_jax.tasks.settings import NOT_NEGATIVE, POSITIVE, SEED, Limits, Settings

COMMON = Settings({"task": str, "seed": int, "distributed": bool}, {"seed": SEED})
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
CACHE = Settings({"cache_gib": float}, {"cache_gib": NOT_NEGATIVE})

# What reading an .npz file raises if it is none, damaged, or lacks the array.
_NO_NPZ = (
    OSError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    MemoryError,
    OverflowError,
    RuntimeError,  # encrypted, or packed in a way that zipfile does not know
    zipfile.BadZipFile,
    zlib.error,
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


def read_problem(config: Config) -> Problem:
    """Returns what the keys of `PROBLEM` name.

    Raises: InputError for a file that is missing, damaged or of another kind, an unknown layer, or
      a distance that does not take images of this generator.
    """
    generator, params = read_generator(config.generator)
    layers = generator.find_layers([name.strip() for name in config.layer.split(",")])
    metric = make_metric(config)
    shape = (1, generator.resolution, generator.resolution, generator.image_channels)
    jax.eval_shape(metric.features, jax.ShapeDtypeStruct(shape, jnp.float32))
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
    """Returns the z of the run, from the file or from the seed.

    Raises: InputError if the file does not hold latents of this generator.
    """
    path, width = config.latents.path, generator.z_dim + generator.label_dim
    if path is None:
        key = jax.random.fold_in(jax.random.key(config.seed), 0)
        return np.asarray(generator.sample_latents(key, config.latents.count))
    try:
        if not pathlib.Path(path).is_file():
            raise FileNotFoundError("no such file")
        with open(path, "rb") as file:
            z = np.load(file, allow_pickle=False)["z"]
        if z.dtype.kind not in "fiu":
            raise TypeError(f"numbers of type {z.dtype}")
        with np.errstate(over="ignore"):
            z = z.astype(np.float32)
    except _NO_NPZ as error:
        raise InputError(
            f"{path}: expected an .npz file with a numeric array z [count, {width}]; "
            f"got {error}; write one with numpy.savez(FILE, z=z)"
        ) from error
    if z.ndim == 4 and z.shape[2:] == (1, 1):  # as some write them for convolutions
        z = z[:, :, 0, 0]
    if z.ndim != 2 or z.shape[1] != width or not len(z):
        raise InputError(
            f"{path}: expected z of shape [count, {width}]; got {list(z.shape)}; give "
            "latents of this generator"
        )
    if not np.isfinite(z).all():
        raise InputError(f"{path}: expected finite z; got NaN or infinity; draw them anew")
    return z[: config.latents.count]


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
