"""StyleGAN2 generators as three programs write them.

1. Networks and state dicts of rosinality/stylegan2-pytorch and of NaviGAN.
2. Networks and state dicts of NVIDIA's PyTorch programs: G_ema, and G.
3. Networks of NVIDIA's TensorFlow programs: Gs, and G.

Each is renamed to the parameters of our StyleGAN2; their names and shapes give
the architecture, and what they do not show is read from the settings beside them or, where a state
dict stands alone, told by options. Where every weight stands in the file is kept beside them.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from navigan_jax.errors import InputError
from tools.convert_weights.finding import Candidate, Form, choose, describe, find
from tools.convert_weights.networks.base import Foreign
from tools.convert_weights.networks.stylegan2 import ada, rosinality
from tools.convert_weights.networks.stylegan2.parts import (
    AVERAGE_DRAWS,
    MAPPING_RATE,
    Config,
    Draft,
    Params,
    average_of,
    describe_average,
    describe_noise,
    finish,
    refusal,
)
from tools.convert_weights.networks.stylegan2.tensorflow import draft_tensorflow
from tools.convert_weights.readers.modules import Contents, name_values
from tools.convert_weights.readers.structure import Found

ROSINALITY, ADA, TENSORFLOW = "rosinality", "NVIDIA PyTorch", "NVIDIA TensorFlow"
# The average w, where it stands beside a state dict.
_LATENT_AVERAGE = "latent_avg"
_ADA_AVERAGE = "mapping.w_avg"


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


def from_foreign(
    foreign: Foreign, options: Options = _DEFAULTS
) -> tuple[Config, Params, dict[str, Any]]:
    """Returns (config, params, source) of a file of any of the three kinds.

    source: what and where the weights are from, and the map of their places in the file.

    Raises: InputError if the file holds no such StyleGAN2 generator, or several alike.
    """
    candidates, chosen, draft = _chosen(foreign.contents, foreign.name, options)
    config, params = finish(
        draft, foreign.name, draws=options.draws, label_names=options.label_names
    )
    networks = {chosen.label: draft.arrays}
    for candidate in candidates:
        arrays = None if candidate is chosen else _alike(candidate, draft, options)
        if arrays is not None:
            networks[candidate.label] = arrays
    source = {
        **foreign.origin,
        "network": chosen.label,
        "average w": describe_average(draft, options.draws),
        **_told("noise", describe_noise(draft)),
        **_told("assumed", _assumed(chosen, draft)),
        "map": foreign.map_of(chosen.label, networks),
    }
    return config, params, source


def from_content(content: Any, name: str, options: Options = _DEFAULTS) -> tuple[Config, Params]:
    """Returns (config, params) of what was read, as `from_foreign` does.

    Raises: InputError, which begins with `name`.
    """
    draft = _chosen(name_values(content), name, options)[2]
    return finish(draft, name, draws=options.draws, label_names=options.label_names)


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
    return finish(
        rosinality.draft_rosinality(state, latent_avg, name, mapping_rate=mapping_rate), name
    )


def _knows_tensorflow(name: str) -> bool:
    return name.startswith(("synthesis/", "mapping/"))


# The anchors of the generations before and after are here too, to be refused by name.
_FORMS = (
    Form(ROSINALITY, r"input\.input", rosinality.NAMES.__contains__),
    Form(ADA, r"synthesis\.(?:b4\.const|input\.freqs)", ada.NAMES.__contains__),
    Form(TENSORFLOW, r"synthesis/\d+x\d+/Const/const|ToRGB_lod0/weight", _knows_tensorflow),
)


def _chosen(
    contents: Contents, name: str, options: Options
) -> tuple[list[Candidate], Candidate, Draft]:
    """Returns all networks that may be generators, and the one to be converted, renamed."""
    candidates = find(contents, _FORMS, name)
    if not candidates:
        raise refusal(name, describe(contents))
    read = functools.partial(_draft, name=name, options=options)
    chosen, draft = choose(candidates, read, options.network, name)
    _check_options(chosen, options, name)
    return candidates, chosen, draft


def _draft(candidate: Candidate, name: str, options: Options) -> Draft:
    """Returns a generator in our names, not yet checked as a whole."""
    arrays = {key: array for key, array in candidate.arrays.items() if key != _LATENT_AVERAGE}
    _refuse_others(arrays, name)
    average = candidate.beside(_LATENT_AVERAGE)
    if average is not None and not isinstance(average, np.ndarray):
        raise refusal(name, "a latent_avg that is no tensor")
    if average is not None and candidate.form == ADA and _ADA_AVERAGE not in arrays:
        arrays[_ADA_AVERAGE] = average_of(average, name)
    rate, record = options.mapping_rate, candidate.record
    if candidate.form == ROSINALITY:
        return rosinality.draft_rosinality(
            arrays, average, name, mapping_rate=rate, modules=candidate.modules
        )
    if candidate.form == TENSORFLOW:
        if record is None:
            raise refusal(name, "arrays of a TensorFlow network without the network's settings")
        return draft_tensorflow(record, arrays, name)
    if record is None:
        return ada.draft_ada_state(arrays, name, mapping_rate=rate, clamp=options.clamp)
    return ada.draft_ada(candidate.modules, arrays, name)


def _refuse_others(arrays: Mapping[str, np.ndarray], name: str) -> None:
    """Refuses by name the generations of networks that files of this layout may hold too."""
    if any(key.startswith("synthesis.input.") for key in arrays):
        raise refusal(name, "a StyleGAN3 generator, whose layers are of another kind")
    if any("ToRGB_lod" in key for key in arrays):
        raise refusal(name, "a StyleGAN1 or progressive generator, whose layers are of other kinds")


def _unsaid(candidate: Candidate, name: str) -> tuple[str, ...]:
    """Returns the options that say what the file does not."""
    if candidate.form == ROSINALITY:
        is_said = rosinality.mapping_rate_of(candidate.modules, name) is not None
        return () if is_said else ("--mapping-rate",)
    is_state = candidate.form == ADA and candidate.record is None
    return ("--mapping-rate", "--clamp") if is_state else ()


def _check_options(chosen: Candidate, options: Options, name: str) -> None:
    """Refuses what a user says of a file that tells it itself, rather than pass it over."""
    given = {
        "--mapping-rate": options.mapping_rate != MAPPING_RATE,
        "--clamp": options.clamp is not None,
    }
    unsaid = _unsaid(chosen, name)
    useless = [option for option in given if given[option] and option not in unsaid]
    if useless:
        raise InputError(
            f"{name}: expected {useless[0]} only for a state dict, which does not say it (--clamp: "
            "one of NVIDIA's program); got a network that settles it; leave the option out"
        )


def _assumed(chosen: Candidate, draft: Draft) -> str:
    """Returns what was taken of the options, or their defaults, as a state dict does not say it."""
    settings = draft.settings
    texts = {
        "--mapping-rate": f"mapping rate {settings.mapping_rate:g}",
        "--clamp": f"clamp {settings.clamp or 'none'}",
    }
    return ", ".join(texts[option] for option in _unsaid(chosen, ""))


def _told(key: str, text: str) -> dict[str, str]:
    return {key: text} if text else {}


def _alike(candidate: Candidate, draft: Draft, options: Options) -> Mapping[str, Found] | None:
    """Returns the arrays of another generator of the file, if it has the shapes of this one."""
    try:
        arrays = _draft(candidate, "", options).arrays
    except InputError:
        return None  # it was not asked for, so what it is does not matter
    shapes, wanted = (
        {path: entry.view.shape for path, entry in group.items()}
        for group in (arrays, draft.arrays)
    )
    return arrays if shapes == wanted else None
