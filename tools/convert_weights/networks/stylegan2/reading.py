"""StyleGAN2 generators as three programs write them, with nothing in the files executed.

1. PyTorch files of rosinality/stylegan2-pytorch and of NaviGAN, or a state dict of NVIDIA's.
2. Pickles of NVIDIA's PyTorch programs: G_ema, and G.
3. Pickles of NVIDIA's TensorFlow programs: Gs, and G.

Each is renamed to the parameters of our StyleGAN2; their names and shapes give
the architecture, and what they do not show is read from the settings beside them or, where a state
dict stands alone, told by options. Where every weight stands in the file is kept beside them.
"""

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from navigan_jax.errors import InputError
from tools.convert_weights.networks.stylegan2.ada import draft_ada, draft_ada_state
from tools.convert_weights.networks.stylegan2.parts import (
    AVERAGE_DRAWS,
    MAPPING_RATE,
    Config,
    Draft,
    Params,
    describe_average,
    finish,
    refusal,
)
from tools.convert_weights.networks.stylegan2.rosinality import draft_rosinality
from tools.convert_weights.networks.stylegan2.tensorflow import draft_tensorflow
from tools.convert_weights.readers import signatures
from tools.convert_weights.readers.nvidia_file import (
    NVIDIA_NAMES,
    is_tf_network,
    network_arrays,
    networks_in,
)
from tools.convert_weights.readers.places import Places
from tools.convert_weights.readers.source_map import Found, make_source_map
from tools.convert_weights.readers.structure import Record
from tools.convert_weights.readers.torch_file import read_bytes, read_torch_bytes
from tools.convert_weights.readers.unpickle import read_pickle

# What programs call their generators, the average of training first, which all of them show.
NETWORKS = ("g_ema", "G_ema", "Gs", "g", "G")
_BARE = "state"  # what a state dict that stands alone is called here


@dataclasses.dataclass(frozen=True)
class Options:
    """What a user may have to say about a file.

    network: which of its generators, as the file calls it; None: the average of training.
    mapping_rate, clamp: learning-rate multiplier of the mapping and bound of activations, used
    where a state dict does not say them. draws: of z, for an average w that the file lacks.
    label_names: of the classes, in order, which no file says.
    """

    network: str | None = None
    mapping_rate: float = MAPPING_RATE
    clamp: float | None = None
    draws: int = AVERAGE_DRAWS
    label_names: tuple[str, ...] = ()


_DEFAULTS = Options()


class State(NamedTuple):
    """A state dict, and the average w that stands beside it."""

    arrays: Mapping[str, np.ndarray]
    latent_avg: np.ndarray | None


def read_stylegan2(
    path: str | os.PathLike[str], options: Options = _DEFAULTS
) -> tuple[Config, Params, dict[str, Any]]:
    """Returns (config, params, source) of a file of any of the three kinds.

    source: what and where the weights are from, and the map of their places in the file.

    Raises: InputError if the file is damaged, hostile or holds no such StyleGAN2 generator.
    """
    data, name = read_bytes(path), str(path)
    places = Places(data)
    if signatures.kind_of(data) == signatures.PICKLE:
        content = read_pickle(data, NVIDIA_NAMES, name=name, places=places)[0]
        found: Mapping[str, Record | State] = networks_in(content)
        if not any(key in found for key in NETWORKS):
            raise refusal(name, "a pickle without G_ema or Gs")
    else:
        found = _states_in(read_torch_bytes(data, name, places=places), name)
    generators = {key: found[key] for key in (*NETWORKS, _BARE) if key in found}
    chosen = _choose(list(generators), options.network, name)
    _check_options(generators[chosen], options, name)
    draft = _draft(generators[chosen], name, options)
    config, params = finish(draft, name, draws=options.draws, label_names=options.label_names)
    alike = {chosen: draft.arrays}
    for key in generators.keys() - {chosen}:
        if (arrays := _alike(generators[key], draft, options)) is not None:
            alike[key] = arrays
    source = {
        "file": os.path.basename(name),
        "sha256": hashlib.sha256(data).hexdigest(),
        "network": chosen,
        "average w": describe_average(draft, options.draws),
        **_not_in_the_file(generators[chosen], draft),
        "map": make_source_map(os.path.basename(name), data, places, chosen, alike).to_json(),
    }
    return config, params, source


def from_torch_content(
    content: Any, name: str, options: Options = _DEFAULTS
) -> tuple[Config, Params]:
    """Returns (config, params) of what a PyTorch file holds.

    content: a dict with the state `g_ema` and perhaps `latent_avg`, or a state itself.

    Raises: InputError, which begins with `name`, if that is no StyleGAN2 generator.
    """
    states = _states_in(content, name)
    state = states[_choose(list(states), options.network, name)]
    return finish(_draft(state, name, options), name, draws=options.draws)


def from_rosinality(
    state: Mapping[str, np.ndarray],
    latent_avg: np.ndarray | None,
    name: str = "stylegan2",
    *,
    mapping_rate: float = MAPPING_RATE,
) -> tuple[Config, Params]:
    """Returns (config, params) of a generator's state dict in rosinality's names.

    latent_avg: the average w; None: made here, of fixed draws of z. mapping_rate: `lr_mlp` there.

    Raises: InputError, which begins with `name`, if that is no StyleGAN2 generator.
    """
    return finish(draft_rosinality(state, latent_avg, name, mapping_rate=mapping_rate), name)


def from_nvidia(network: Record, name: str = "stylegan2") -> tuple[Config, Params]:
    """Returns (config, params) of a generator as NVIDIA's programs pickle it.

    Raises: InputError, which begins with `name`, if that is no StyleGAN2 generator.
    """
    return finish(_draft(network, name, _DEFAULTS), name)


def _states_in(content: Any, name: str) -> dict[str, State]:
    """Returns the generators' state dicts in what a PyTorch file holds, at least one."""
    if not isinstance(content, dict):
        raise refusal(name, "no state dict of tensors, alone or as g_ema")
    average = content.get("latent_avg")
    if average is not None and not isinstance(average, np.ndarray):
        raise refusal(name, "a latent_avg that is no tensor")
    groups = {key: content[key] for key in NETWORKS if key in content}
    states = {
        key: State({name.removeprefix("module."): array for name, array in state.items()}, average)
        for key, state in (groups or {_BARE: content}).items()
        if _is_state(state)
    }
    if not states:
        raise refusal(name, "no state dict of tensors, alone or as g_ema")
    return states


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(array, np.ndarray) for key, array in value.items()
    )


def _choose(found: list[str], wanted: str | None, name: str) -> str:
    """Returns the network that the user named, or the first."""
    if wanted is None:
        return found[0]
    if wanted not in found:
        raise InputError(
            f"{name}: expected a file with the network {wanted!r}; got one with "
            f"{', '.join(found)}; choose one of these with --network, or leave it out"
        )
    return wanted


def _is_nvidia_state(found: State) -> bool:
    return any(key.startswith(("synthesis.", "mapping.")) for key in found.arrays)


def _unsaid(found: Record | State) -> tuple[str, ...]:
    """Returns the options that say what the file does not."""
    if not isinstance(found, State):
        return ()
    return ("--mapping-rate", "--clamp") if _is_nvidia_state(found) else ("--mapping-rate",)


def _check_options(found: Record | State, options: Options, name: str) -> None:
    """Refuses what a user says of a file that tells it itself, rather than pass it over."""
    given = {
        "--mapping-rate": options.mapping_rate != MAPPING_RATE,
        "--clamp": options.clamp is not None,
    }
    useless = [option for option in given if given[option] and option not in _unsaid(found)]
    if useless:
        raise InputError(
            f"{name}: expected {useless[0]} only for a state dict, which does not say it (--clamp: "
            "one of NVIDIA's program); got a network that settles it; leave the option out"
        )


def _not_in_the_file(found: Record | State, draft: Draft) -> dict[str, str]:
    """Returns what was taken of the options, or their defaults, as a state dict does not say it."""
    settings = draft.settings
    texts = {
        "--mapping-rate": f"mapping rate {settings.mapping_rate:g}",
        "--clamp": f"clamp {settings.clamp or 'none'}",
    }
    assumed = ", ".join(texts[option] for option in _unsaid(found))
    return {"assumed": assumed} if assumed else {}


def _draft(found: Record | State, name: str, options: Options) -> Draft:
    """Returns a generator in our names, not yet checked."""
    if isinstance(found, State):
        rate = options.mapping_rate
        if _is_nvidia_state(found):
            _refuse_others(found.arrays, name)
            return draft_ada_state(found.arrays, name, mapping_rate=rate, clamp=options.clamp)
        return draft_rosinality(found.arrays, found.latent_avg, name, mapping_rate=rate)
    try:
        arrays = network_arrays(found)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    _refuse_others(arrays, name)
    return (draft_tensorflow if is_tf_network(found) else draft_ada)(found, arrays, name)


def _refuse_others(arrays: Mapping[str, np.ndarray], name: str) -> None:
    """Refuses by name the generations of networks that files of this layout may hold too."""
    if any(key.startswith("synthesis.input.") for key in arrays):
        raise refusal(name, "a StyleGAN3 generator, whose layers are of another kind")
    if any("ToRGB_lod" in key for key in arrays):
        raise refusal(name, "a StyleGAN1 or progressive generator, whose layers are of other kinds")


def _alike(found: Record | State, draft: Draft, options: Options) -> Mapping[str, Found] | None:
    """Returns the arrays of another generator of the file, if it has the shapes of this one."""
    try:
        arrays = _draft(found, "", options).arrays
    except InputError:
        return None  # it was not asked for, so what it is does not matter
    shapes, wanted = (
        {path: entry.view.shape for path, entry in group.items()}
        for group in (arrays, draft.arrays)
    )
    return arrays if shapes == wanted else None
