"""Shared parts of the readers of StyleGAN2's three formats: names, settings, sizes, the average w.

Each format is a table from foreign names to our paths, with a function that turns the array into
our layout. That function returns a view, so that each number's place in the file stays known.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import params as params_lib
from navigan_jax.errors import InputError
from navigan_jax.generators.files import make_generator
from tools.convert_weights.readers.structure import Found, Record

# Draws of z to estimate a missing average w from, as many as in rosinality's program.
AVERAGE_DRAWS = 4096
# The mapping's learning-rate multiplier in all official programs; no state dict stores it.
MAPPING_RATE = 0.01
# Seed of the constant noise that is drawn for a file without noise.
NOISE_SEED = 0

Config = dict[str, Any]
Params = dict[str, Any]
Turn = Callable[[np.ndarray], np.ndarray]

# In place of a path: the array is a resampling filter, or it has no effect.
FILTER, UNUSED = "", "unused"
# More than any network has: images of 4 << 12 pixels a side would not fit in any memory.
MOST_LAYERS, MOST_BLOCKS = 100, 12
_DTYPES = ("float16", "bfloat16", "float32", "float64")
_AVERAGE = "mapping/w_avg"


class Target(NamedTuple):
    """Our path for a foreign array, the view of it in our layout, and the number added to it."""

    path: str
    turn: Turn = lambda array: array
    added: float = 0.0


Names = Mapping[str, Target]


class Settings(NamedTuple):
    """Settings that the arrays do not show; the fields are keys of the architecture's config."""

    mapping_rate: float
    resample_taps: tuple[float, ...]
    clamp: float | None
    labels: str = "embedded"


@dataclasses.dataclass(frozen=True)
class Draft:
    """A network with its arrays renamed, not yet checked as a whole.

    arrays: views of the arrays in the file, by our path. has_noise: whether its layers have noise.
    stored: sizes in the file's settings, by the config's key; they must agree with the arrays.
    """

    arrays: Mapping[str, Found]
    settings: Settings
    has_noise: bool = True
    stored: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def lacks_noise(self) -> bool:
        """Whether the file stores noise strengths but no noise."""
        ends = [path.rpartition("/")[2] for path in self.arrays]
        return self.has_noise and "noise_strength" in ends and "noise" not in ends

    @property
    def lacks_average(self) -> bool:
        """Whether the file stores no average w."""
        return _AVERAGE not in self.arrays


def transposed(array: np.ndarray) -> np.ndarray:
    return array.transpose(1, 0)


def hwc(array: np.ndarray) -> np.ndarray:
    return array.transpose(1, 2, 0)


def hwio(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 3, 1, 0)


def turned(array: np.ndarray) -> np.ndarray:
    return array[::-1, ::-1]


def single(axes: int, turn: Turn = lambda array: array) -> Turn:
    """Returns `turn` for an array that has this many leading axes of length 1."""
    return lambda array: turn(array.squeeze(tuple(range(axes))))


def rename(
    arrays: Mapping[str, np.ndarray], names: Names, name: str
) -> tuple[dict[str, Found], dict[str, np.ndarray]]:
    """Returns the arrays by our path, and the filters by their foreign names.

    Raises: InputError, which begins with `name`, for an unknown array, dtype or number of axes.
    """
    if unknown := [key for key in arrays if key not in names]:
        raise refusal(name, f"the unknown arrays {listed(unknown)}")
    found, filters = {}, {}
    for key, array in arrays.items():
        path, turn, added = names[key]
        if array.dtype.name not in _DTYPES:
            raise refusal(name, f"{key} of dtype {array.dtype}")
        if path == FILTER:
            filters[key] = array
        elif path != UNUSED:
            try:
                found[path] = Found(turn(array), added)
            except ValueError as error:
                raise refusal(name, f"{key} of shape {list(array.shape)}") from error
    return found, filters


def taps_of(filters: Mapping[str, np.ndarray], name: str) -> tuple[float, ...]:
    """Returns the taps, normalised to sum 1, whose outer product gives every filter up to scale.

    Raises: InputError, which begins with `name`, if there are no filters or they differ.
    """
    found: list[np.ndarray] = []
    for key, array in filters.items():
        total = array.sum(dtype=np.float64)
        if array.ndim not in (1, 2) or not np.isfinite(total) or total == 0:
            raise refusal(name, f"the filter {key} of shape {list(array.shape)}, sum {total}")
        array = array / total
        taps = array if array.ndim == 1 else array.sum(axis=1)
        if array.ndim == 2 and not np.allclose(array, np.outer(taps, taps), rtol=0, atol=1e-6):
            raise refusal(name, f"the filter {key}, which is not the outer product of its taps")
        found.append(taps)
    if not found or any(
        taps.shape != found[0].shape or not np.allclose(taps, found[0], rtol=0, atol=1e-6)
        for taps in found
    ):
        raise refusal(name, f"{len(found)} filters that are not all equal")
    return tuple(found[0].tolist())


def finish(
    draft: Draft, name: str, *, draws: int = AVERAGE_DRAWS, label_names: Sequence[str] = ()
) -> tuple[Config, Params]:
    """Returns (config, params in float32) after checking that all arrays fit one another.

    draws: number of draws of z (seed 0) to estimate a missing average w from. label_names: of the
    classes.

    Raises: InputError, which begins with `name`, if the draft is no StyleGAN2 generator.
    """
    flat = {
        path: found.view + found.added if found.added else found.view
        for path, found in draft.arrays.items()
    }
    if not draft.has_noise:
        flat |= _silence(flat, name)
    if draft.lacks_noise:
        flat |= _draw_noise(flat, name)
    if draft.lacks_average:
        widths = [flat[path].shape for path in flat if re.fullmatch(r"mapping/fc\d+/bias", path)]
        flat[_AVERAGE] = np.zeros(widths[-1] if widths else 0, np.float32)
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite and is refused when written
        params = params_lib.unflatten(
            {path: np.array(array, np.float32, order="C") for path, array in flat.items()}
        )
    config = _config_of(flat, draft.settings, name) | {"label_names": list(label_names)}
    for key, value in draft.stored.items():
        if config[key] != value:
            raise refusal(name, f"the setting {key}={value} but arrays of {key} {config[key]}")
    try:
        generator = make_generator("stylegan2", config)
    except InputError as error:
        raise refusal(name, f"sizes that do not fit ({error})") from error
    expected = generator.weights
    if differences := params_lib.describe_differences(expected, params):
        raise refusal(name, f"arrays that do not match its own sizes: {listed(differences)}")
    if draft.lacks_average:
        params = params_lib.replace(params, _AVERAGE, _average_w(config, params, draws))
    return config, params


def average_of(latent_avg: np.ndarray, name: str) -> np.ndarray:
    """Returns the average w as one row; encoders store a copy for each layer.

    Raises: InputError, which begins with `name`, if the copies differ.
    """
    if latent_avg.ndim < 2:
        return latent_avg.reshape(-1)
    rows = latent_avg.reshape(-1, latent_avg.shape[-1])
    if not len(rows) or not np.array_equal(rows, np.broadcast_to(rows[0], rows.shape)):
        raise refusal(
            name,
            f"a latent_avg of shape {list(latent_avg.shape)} whose rows differ; the average w must "
            "be the same for all layers",
        )
    return rows[0]


def describe_average(draft: Draft, draws: int) -> str:
    """Returns a text on the origin of the average w."""
    if not draft.lacks_average:
        return "in the file"
    return f"not in the file: mean of {draws} draws, seed 0"


def describe_noise(draft: Draft) -> str:
    """Returns a text on the origin of the constant noise; empty if the file stores it."""
    if not draft.has_noise:
        return "none: the network has no noise"
    return f"not in the file: drawn once, seed {NOISE_SEED}" if draft.lacks_noise else ""


def _config_of(flat: Mapping[str, np.ndarray], settings: Settings, name: str) -> Config:
    def sizes(pattern: str, axis: int) -> list[int]:
        """Returns one axis of each shape whose path matches, in order of the path's number."""
        found = {}
        for path, array in flat.items():
            if match := re.fullmatch(pattern, path):
                if array.ndim <= axis:
                    raise refusal(name, f"{path} of shape {list(array.shape)}")
                found[int(match[1])] = array.shape[axis]
        if not found:
            raise refusal(name, f"no array {pattern}")
        return [found[number] for number in sorted(found)]

    images = sizes(r"synthesis/b(\d+)/torgb/bias", 0)
    has_residuals = any(path.endswith("/skip/kernel") for path in flat)
    channels = sizes(r"synthesis/b(\d+)/conv1/bias", 0)
    sums_images = len(images) == len(channels)
    embed = flat.get("mapping/embed/kernel", np.zeros((0, 0)))
    label_dim, label_width = embed.shape if embed.ndim == 2 else (0, 0)
    return {
        "z_dim": sizes(r"mapping/fc(0)/kernel", 0)[0] - label_width,
        "label_dim": label_dim,
        "label_width": label_width,
        "labels": settings.labels,
        "mapping_widths": sizes(r"mapping/fc(\d+)/bias", 0),
        "mapping_rate": settings.mapping_rate,
        "channels": channels,
        "first_size": list(_first_size(flat, name)),
        "image_channels": images[-1],
        "blocks": "resnet" if has_residuals else "skip" if sums_images else "orig",
        "resample_taps": list(settings.resample_taps),
        "clamp": settings.clamp,
    }


def _average_w(config: Config, params: Params, draws: int) -> Any:
    generator = make_generator("stylegan2", config)
    z = generator.sample_latents(jax.random.key(0), draws)
    average = jax.jit(lambda z: jnp.mean(generator.map_latent(params, z)[:, 0], axis=0))
    return np.asarray(average(z))


def _first_size(flat: Mapping[str, np.ndarray], name: str) -> tuple[int, int]:
    """Returns height and width of the constant features; 4x4 in all official networks."""
    constant = flat.get("synthesis/b4/const", np.zeros(0))
    if constant.ndim != 3:
        raise refusal(name, f"a constant of shape {list(constant.shape)}")
    return constant.shape[0], constant.shape[1]


def _silence(flat: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Returns noise of strength 0 for each layer of a network without noise."""
    found: dict[str, np.ndarray] = {}
    for path, size in _noise_sizes(flat, name).items():
        found |= {f"{path}/noise_strength": np.zeros(()), f"{path}/noise": np.zeros(size)}
    return found


def _draw_noise(flat: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Returns noise from a fixed seed for each layer of a network whose file stores none.

    The programs draw the noise once, when they make a network, so any draw serves equally well.
    """
    random = np.random.RandomState(NOISE_SEED)
    return {
        f"{path}/noise": random.standard_normal(size)
        for path, size in sorted(_noise_sizes(flat, name).items())
    }


def _noise_sizes(flat: Mapping[str, np.ndarray], name: str) -> dict[str, tuple[int, int]]:
    """Returns height and width of the features of each convolution, by its path."""
    height, width = _first_size(flat, name)
    matches = (re.fullmatch(r"(synthesis/b(\d+)/conv[01])/kernel", path) for path in flat)
    return {
        match[1]: (height * (int(match[2]) // 4), width * (int(match[2]) // 4))
        for match in matches
        if match
    }


def common_setting(modules: Mapping[str, Record], pattern: str, key: str, name: str) -> Any:
    """Returns the attribute `key`, equal in all modules whose path matches.

    Raises: InputError, which begins with `name`, if modules differ in the attribute or lack it.
    """
    values = [
        module.state.get(key, "nothing")
        for path, module in modules.items()
        if re.fullmatch(pattern, path)
    ]
    plain = all(isinstance(value, str | int | float | np.number | None) for value in values)
    if not plain or not values or any(value != values[0] for value in values):
        raise refusal(name, f"layers that differ in {key} or lack it")
    return values[0]


def require(key: str, value: Any, allowed: tuple[Any, ...], name: str) -> None:
    """Checks that a setting has an allowed value.

    Raises: InputError, which begins with `name`, if it has another.
    """
    if not any(value is choice or value == choice for choice in allowed):
        raise refusal(name, f"the setting {key}={value!r}; allowed values: {listed(allowed)}")


def number(key: str, value: Any, name: str) -> float:
    """Returns a setting as a float.

    Raises: InputError, which begins with `name`, if it is no finite number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise refusal(name, f"the setting {key}={value!r}")
    if not math.isfinite(value):
        raise refusal(name, f"the setting {key}={value!r}")
    return float(value)


def clamp_of(value: Any, name: str) -> float | None:
    """Returns the bound of activations, or None.

    Raises: as `number`.
    """
    return None if value is None else number("conv_clamp", value, name)


def listed(values: Iterable[Any]) -> str:
    """Returns the first eight values, joined by commas, and the count of the others."""
    texts = [str(value) for value in values]
    return ", ".join(texts[:8]) + (f" and {len(texts) - 8} more" if len(texts) > 8 else "")


def refusal(name: str, got: str) -> InputError:
    """Returns the error for a file that holds no StyleGAN2 generator; `got` is what it holds."""
    return InputError(
        f"{name}: expected a StyleGAN2 generator; got {got}; allowed, in any wrapper: the network "
        "or state dict of rosinality/stylegan2-pytorch or NaviGAN (g_ema), that of NVIDIA's "
        "PyTorch programs (G_ema), Gs of its TensorFlow programs (configurations e and f); "
        "see what the file is with: python -m tools.convert_weights inspect FILE"
    )
