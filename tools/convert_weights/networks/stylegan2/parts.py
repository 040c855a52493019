"""What the readers of StyleGAN2's three formats share: renaming, settings, sizes, the average w.

Each format is a table of foreign names with our paths and what turns the array into our layout,
always a view, so that the place of every number in the file stays known.
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

# Draws of z for an average w that a file lacks, as the rosinality program makes it.
AVERAGE_DRAWS = 4096
# Of the mapping, in all official programs; a bare state dict does not say it.
MAPPING_RATE = 0.01
# Of the constant noise that is drawn for a file that lacks it.
NOISE_SEED = 0

Config = dict[str, Any]
Params = dict[str, Any]
Turn = Callable[[np.ndarray], np.ndarray]

# In place of a path: an array that says what the filter is, or nothing of use.
FILTER, UNUSED = "", "unused"
# More than any network has; 4 << 12 pixels a side would not fit any memory.
MOST_LAYERS, MOST_BLOCKS = 100, 12
_DTYPES = ("float16", "bfloat16", "float32", "float64")
_AVERAGE = "mapping/w_avg"


class Target(NamedTuple):
    """Our path for a foreign array, the view of it in our layout, and what is added to that."""

    path: str
    turn: Turn = lambda array: array
    added: float = 0.0


Names = Mapping[str, Target]


class Settings(NamedTuple):
    """What the arrays do not show; the fields are keywords of the architecture."""

    mapping_rate: float
    resample_taps: tuple[float, ...]
    clamp: float | None
    labels: str = "embedded"


@dataclasses.dataclass(frozen=True)
class Draft:
    """A network that was found, renamed, but not yet checked.

    arrays: by our path, views of what was read. has_noise: whether its layers have noise. told:
    keys of the config whose values the file says too, beside the arrays that show them.
    """

    arrays: Mapping[str, Found]
    settings: Settings
    has_noise: bool = True
    told: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def lacks_noise(self) -> bool:
        """Whether all layers have a strength of their noise, and none has the noise itself."""
        ends = [path.rpartition("/")[2] for path in self.arrays]
        return self.has_noise and "noise_strength" in ends and "noise" not in ends


def transposed(array: np.ndarray) -> np.ndarray:
    return array.transpose(1, 0)


def hwc(array: np.ndarray) -> np.ndarray:
    return array.transpose(1, 2, 0)


def hwio(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 3, 1, 0)


def turned(array: np.ndarray) -> np.ndarray:
    return array[::-1, ::-1]


def single(axes: int, turn: Turn = lambda array: array) -> Turn:
    """Returns the turn of an array behind so many axes of length 1."""
    return lambda array: turn(array.squeeze(tuple(range(axes))))


def rename(
    arrays: Mapping[str, np.ndarray], names: Names, name: str
) -> tuple[dict[str, Found], dict[str, np.ndarray]]:
    """Returns our arrays by path, and the filters by their foreign names.

    Raises: InputError, which begins with `name`, for an array that is unknown or of odd shape.
    """
    if unknown := [key for key in arrays if key not in names]:
        raise refusal(name, f"the arrays {listed(unknown)}, which are unknown here")
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
    """Returns the taps, of sum 1, whose outer product every filter is but for its sum.

    Raises: InputError, which begins with `name`, if there are none or they differ.
    """
    found: list[np.ndarray] = []
    for key, array in filters.items():
        total = array.sum(dtype=np.float64)
        if array.ndim not in (1, 2) or not np.isfinite(total) or total == 0:
            raise refusal(name, f"the filter {key} of shape {list(array.shape)}, sum {total}")
        array = array / total
        taps = array if array.ndim == 1 else array.sum(axis=1)
        if array.ndim == 2 and not np.allclose(array, np.outer(taps, taps), rtol=0, atol=1e-6):
            raise refusal(name, f"the filter {key}, which is no outer product of one with itself")
        found.append(taps)
    if not found or any(
        taps.shape != found[0].shape or not np.allclose(taps, found[0], rtol=0, atol=1e-6)
        for taps in found
    ):
        raise refusal(name, f"{len(found)} filters, not all the same")
    return tuple(found[0].tolist())


def finish(
    draft: Draft, name: str, *, draws: int = AVERAGE_DRAWS, label_names: Sequence[str] = ()
) -> tuple[Config, Params]:
    """Returns (config, params), float32, once every array has the shape that the others imply.

    draws: of z, for the average w if the network lacks it; always the same ones. label_names: of
    its classes.

    Raises: InputError, which begins with `name`, if it is no StyleGAN2 generator.
    """
    flat = {path: view + added if added else view for path, (view, added) in draft.arrays.items()}
    if not draft.has_noise:
        flat |= _silence(flat, name)
    if draft.lacks_noise:
        flat |= _draw_noise(flat, name)
    lacks_average = _AVERAGE not in flat
    if lacks_average:
        widths = [flat[path].shape for path in flat if re.fullmatch(r"mapping/fc\d+/bias", path)]
        flat[_AVERAGE] = np.zeros(widths[-1] if widths else 0, np.float32)
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite and is refused when written
        params = params_lib.unflatten(
            {path: np.array(array, np.float32, order="C") for path, array in flat.items()}
        )
    config = _config_of(flat, draft.settings, name) | {"label_names": list(label_names)}
    for key, value in draft.told.items():
        if config[key] != value:
            raise refusal(name, f"settings that say {key} {value} beside arrays of {config[key]}")
    try:
        generator = make_generator("stylegan2", config)
    except InputError as error:
        raise refusal(name, f"sizes that do not fit ({error})") from error
    expected = jax.eval_shape(generator.init, jax.random.key(0))
    if differences := params_lib.describe_differences(expected, params):
        raise refusal(name, f"another set of arrays than its own sizes need: {listed(differences)}")
    if lacks_average:
        params = params_lib.replace(params, _AVERAGE, _average_w(config, params, draws))
    return config, params


def average_of(latent_avg: np.ndarray, name: str) -> np.ndarray:
    """Returns the average w, of which encoders keep a copy for each layer.

    Raises: InputError, which begins with `name`, if the copies differ.
    """
    if latent_avg.ndim < 2:
        return latent_avg.reshape(-1)
    rows = latent_avg.reshape(-1, latent_avg.shape[-1])
    if not len(rows) or not np.array_equal(rows, np.broadcast_to(rows[0], rows.shape)):
        raise refusal(
            name,
            f"a latent_avg of shape {list(latent_avg.shape)} whose rows differ; the average is "
            "one w for all layers",
        )
    return rows[0]


def describe_average(draft: Draft, draws: int) -> str:
    """Returns where the average w of a network is from."""
    if _AVERAGE in draft.arrays:
        return "in the file"
    return f"not in the file: mean of {draws} draws, seed 0"


def describe_noise(draft: Draft) -> str:
    """Returns where the constant noise of a network is from; nothing where it is in the file."""
    if not draft.has_noise:
        return "none: the network has no noise"
    return f"not in the file: drawn once, seed {NOISE_SEED}" if draft.lacks_noise else ""


def _config_of(flat: Mapping[str, np.ndarray], settings: Settings, name: str) -> Config:
    def sizes(pattern: str, axis: int) -> list[int]:
        """The sizes of an axis of the arrays whose paths match, by the number in the path."""
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
    """Returns height and width of the constant features, 4x4 unless a user had other plans."""
    constant = flat.get("synthesis/b4/const", np.zeros(0))
    if constant.ndim != 3:
        raise refusal(name, f"a constant of shape {list(constant.shape)}")
    return constant.shape[0], constant.shape[1]


def _silence(flat: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Returns noise of strength 0 for the layers of a network that has none."""
    found: dict[str, np.ndarray] = {}
    for path, size in _noise_sizes(flat, name).items():
        found |= {f"{path}/noise_strength": np.zeros(()), f"{path}/noise": np.zeros(size)}
    return found


def _draw_noise(flat: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Returns noise for the layers of a network whose file has none, always the same.

    The programs draw it once, when they make a network, so one draw is as good as another.
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
    """Returns the attribute that all modules whose path matches have in common.

    Raises: InputError, which begins with `name`, if some differ or lack it.
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
    """Raises: InputError, which begins with `name`, if a setting has no value that is allowed."""
    if not any(value is choice or value == choice for choice in allowed):
        raise refusal(name, f"the setting {key}={value!r} where only {listed(allowed)} will do")


def number(key: str, value: Any, name: str) -> float:
    """Returns a setting that is a finite number.

    Raises: InputError, which begins with `name`, if it is none.
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
    """Returns the first eight with commas, and how many more there are."""
    texts = [str(value) for value in values]
    return ", ".join(texts[:8]) + (f" and {len(texts) - 8} more" if len(texts) > 8 else "")


def refusal(name: str, got: str) -> InputError:
    """Returns the error for a file called `name` that holds something else."""
    return InputError(
        f"{name}: expected a StyleGAN2 generator; got {got}; allowed, in any wrapper: the network "
        "or state dict of rosinality/stylegan2-pytorch or NaviGAN (g_ema), that of NVIDIA's "
        "PyTorch programs (G_ema), Gs of its TensorFlow programs (configurations e and f); "
        "see what the file is with: python -m tools.convert_weights inspect FILE"
    )
