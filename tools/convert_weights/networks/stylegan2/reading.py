"""Reads the StyleGAN2 generators that three programs write.

1. Networks and state dicts of rosinality/stylegan2-pytorch and of NaviGAN.
2. Networks and state dicts of NVIDIA's PyTorch programs: G_ema, and G.
3. Networks of NVIDIA's TensorFlow programs: Gs, and G.

The arrays are renamed to the parameters of our StyleGAN2. Their names and shapes give the
architecture. The other settings are read from the pickled network, or come from the command's
options if the file is a bare state dict. A map keeps the place of each weight in the file.
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
# The name of an average w that is stored beside a state dict.
_LATENT_AVERAGE = "latent_avg"
_ADA_AVERAGE = "mapping.w_avg"


@dataclasses.dataclass(frozen=True)
class Options:
    """The user's options for one file; None stands for an option that was not given.

    network: the generator to convert, by its name in the file; None: the average of training.
    mapping_rate, clamp: learning-rate multiplier of the mapping and bound of activations, for a
    state dict, which does not store them. draws: number of draws of z to estimate the average w
    from, for a file without one. label_names: of the classes, in order; no file stores them.
    """

    network: str | None = None
    mapping_rate: float | None = None
    clamp: float | None = None
    draws: int | None = None
    label_names: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """The number of draws: as given, or the default."""
        return AVERAGE_DRAWS if self.draws is None else self.draws

    @property
    def rate(self) -> float:
        """The multiplier of the mapping: as given, or the default."""
        return MAPPING_RATE if self.mapping_rate is None else self.mapping_rate


_DEFAULTS = Options()


def from_foreign(
    foreign: Foreign, options: Options = _DEFAULTS
) -> tuple[Config, Params, dict[str, Any]]:
    """Returns (config, params, source) of a file of any of the three kinds.

    source: the origin of the weights, and the map of their places in the file.

    Raises: InputError if the file holds no such StyleGAN2 generator, or several that fit equally
      well, or if an option is given for a setting that the file stores.
    """
    candidates, chosen, draft = _chosen(foreign.contents, foreign.name, options)
    config, params = finish(
        draft, foreign.name, draws=options.count, label_names=options.label_names
    )
    networks = {chosen.label: draft.arrays}
    for candidate in candidates:
        arrays = None if candidate is chosen else _alike(candidate, draft, options)
        if arrays is not None:
            networks[candidate.label] = arrays
    source = {
        **foreign.origin,
        "network": chosen.label,
        "average w": describe_average(draft, options.count),
        **_unless_empty("noise", describe_noise(draft)),
        **_unless_empty("assumed", _assumed(chosen, draft)),
        "map": foreign.map_of(chosen.label, networks),
    }
    return config, params, source


def from_content(content: Any, name: str, options: Options = _DEFAULTS) -> tuple[Config, Params]:
    """Returns (config, params) of a file's content, as `from_foreign` does.

    Raises: InputError, which begins with `name`.
    """
    draft = _chosen(name_values(content), name, options)[2]
    return finish(draft, name, draws=options.count, label_names=options.label_names)


def _knows_tensorflow(name: str) -> bool:
    return name.startswith(("synthesis/", "mapping/"))


# StyleGAN1 and StyleGAN3 have anchors here too, so that they are refused by name.
_FORMS = (
    Form(ROSINALITY, r"input\.input", rosinality.NAMES.__contains__),
    Form(ADA, r"synthesis\.(?:b4\.const|input\.freqs)", ada.NAMES.__contains__),
    Form(TENSORFLOW, r"synthesis/\d+x\d+/Const/const|ToRGB_lod0/weight", _knows_tensorflow),
)


def _chosen(
    contents: Contents, name: str, options: Options
) -> tuple[list[Candidate], Candidate, Draft]:
    """Returns all candidates, the chosen one, and the draft of the chosen one."""
    candidates = find(contents, _FORMS, name)
    if not candidates:
        raise refusal(name, describe(contents))
    read = functools.partial(_draft, name=name, options=options)
    chosen, draft = choose(candidates, read, options.network, name)
    _check_options(chosen, draft, options, name)
    return candidates, chosen, draft


def _draft(candidate: Candidate, name: str, options: Options) -> Draft:
    """Returns the draft of a candidate: its arrays in our names, not yet checked as a whole."""
    arrays = {key: array for key, array in candidate.arrays.items() if key != _LATENT_AVERAGE}
    _refuse_others(arrays, name)
    average = candidate.beside(_LATENT_AVERAGE)
    if average is not None and not isinstance(average, np.ndarray):
        raise refusal(name, "a latent_avg that is no tensor")
    if average is not None and candidate.form == ADA and _ADA_AVERAGE not in arrays:
        arrays[_ADA_AVERAGE] = average_of(average, name)
    rate, record = options.rate, candidate.record
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
    """Refuses StyleGAN1 and StyleGAN3, whose files have the same layout, by their names."""
    if any(key.startswith("synthesis.input.") for key in arrays):
        raise refusal(name, "a StyleGAN3 generator, whose layers are of another kind")
    if any("ToRGB_lod" in key for key in arrays):
        raise refusal(name, "a StyleGAN1 or progressive generator, whose layers are of other kinds")


def _options_for_missing(candidate: Candidate, name: str) -> tuple[str, ...]:
    """Returns the options for those settings that the file does not store."""
    if candidate.form == ROSINALITY:
        is_stored = rosinality.mapping_rate_of(candidate.modules, name) is not None
        return () if is_stored else ("--mapping-rate",)
    is_state = candidate.form == ADA and candidate.record is None
    return ("--mapping-rate", "--clamp") if is_state else ()


def _check_options(chosen: Candidate, draft: Draft, options: Options, name: str) -> None:
    """Refuses an option without effect: the file stores that setting, or the average w, itself."""
    given = {
        "--mapping-rate": options.mapping_rate is not None,
        "--clamp": options.clamp is not None,
    }
    missing = _options_for_missing(chosen, name)
    useless = [option for option in given if given[option] and option not in missing]
    if useless:
        of = " of NVIDIA's PyTorch programs" if useless[0] == "--clamp" else ""
        raise InputError(
            f"{name}: expected {useless[0]} only for a state dict{of}, which does not store this "
            "setting; got a network whose setting is fixed; leave the option out"
        )
    if options.draws is not None and not draft.lacks_average:
        raise InputError(
            f"{name}: expected --draws only for a file without an average w; got a file that "
            "stores the average w; leave the option out"
        )


def _assumed(chosen: Candidate, draft: Draft) -> str:
    """Returns the settings that come from the options or their defaults, not from the file."""
    settings = draft.settings
    texts = {
        "--mapping-rate": f"mapping rate {settings.mapping_rate:g}",
        "--clamp": f"clamp {settings.clamp or 'none'}",
    }
    return ", ".join(texts[option] for option in _options_for_missing(chosen, ""))


def _unless_empty(key: str, text: str) -> dict[str, str]:
    return {key: text} if text else {}


def _alike(candidate: Candidate, draft: Draft, options: Options) -> Mapping[str, Found] | None:
    """Returns the arrays of another generator in the file, or None if its shapes differ."""
    try:
        arrays = _draft(candidate, "", options).arrays
    except InputError:
        return None  # another kind of network, which the user did not ask for
    shapes, wanted = (
        {path: entry.view.shape for path, entry in group.items()}
        for group in (arrays, draft.arrays)
    )
    return arrays if shapes == wanted else None
