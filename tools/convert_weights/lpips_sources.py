"""Where the weights of LPIPS come from: classifiers of torchvision, and LPIPS's own linear weights.

Backbone: a file of torchvision, a saved LPIPS module, or the known file of torchvision, downloaded.
Linear weights: a file of the original project, the wheel of its package, the same saved module, or
the known wheel, downloaded.
"""

import dataclasses
import hashlib
import os
import re
from collections.abc import Iterable, Mapping

import numpy as np

from navigan_jax.errors import InputError
from tools.convert_weights.download import BACKBONES, LPIPS_WHEEL, fetch
from tools.convert_weights.networks.lpips import LAYERS
from tools.convert_weights.readers.torch_file import read_bytes, read_torch_bytes
from tools.convert_weights.readers.wheel import is_wheel, read_member

State = Mapping[str, np.ndarray]

_BACKBONE_KEY = re.compile(r"(?:features|net\.slice\d+)\.(\d+)\..+")
_LINEAR_KEY = re.compile(r"lins?\.?\d+\.model\.1\.weight")


@dataclasses.dataclass(frozen=True)
class Sources:
    """State dicts for `lpips.from_state_dicts`, and where they were read."""

    backbone: State
    linear: State | None
    origin: dict[str, str]


def net_of(names: Iterable[str]) -> str | None:
    """Returns the net (vgg, alex or squeeze) that has convolutions of these names, or None."""
    layers = {int(match[1]) for key in names if (match := _BACKBONE_KEY.fullmatch(key))}
    return next((net for net, known in LAYERS.items() if layers == set(known)), None)


def has_linear(state: State) -> bool:
    """Whether the state has linear weights of LPIPS."""
    return any(_LINEAR_KEY.fullmatch(key) for key in state)


def collect(
    net: str,
    version: str,
    *,
    source: str | os.PathLike[str] | None,
    linear_source: str | os.PathLike[str] | None,
    with_linear: bool,
    cache: str | os.PathLike[str] | None = None,
) -> Sources:
    """Returns the weights of both parts.

    net, version: of LPIPS, for example "vgg" and "0.1". source: the backbone's file; None: the
    known file of torchvision. linear_source: the linear weights' file or the wheel of lpips; None:
    those in `source` if it is a saved LPIPS module, else those of the known wheel. with_linear:
    False leaves them out. cache: the folder of downloaded files; None means the usual one.

    Raises: InputError if a file is missing, damaged, hostile, or of another net.
    """
    if net not in BACKBONES:
        raise InputError(f"lpips: expected a net; got {net!r}; allowed: {', '.join(BACKBONES)}")
    path = fetch(BACKBONES[net], cache) if source is None else source
    backbone, origin = read_state(path, "backbone")
    found = net_of(backbone)
    if found != net:
        raise InputError(
            f"{path}: expected the convolutions of {net}, features.N of {BACKBONES[net]}; got "
            f"{found or 'no known net'} ({_listed(backbone)}); choose --net or another file"
        )
    if not with_linear:
        return Sources(backbone, None, origin)
    if linear_source is None and has_linear(backbone):
        return Sources(backbone, backbone, origin)
    path = fetch(LPIPS_WHEEL, cache) if linear_source is None else linear_source
    member = re.escape(f"lpips/weights/v{version}/{net}.pth")
    linear, linear_origin = read_state(path, "linear", member)
    if not has_linear(linear):
        raise InputError(
            f"{path}: expected linear weights of LPIPS, lin0.model.1.weight and so on; got "
            f"{_listed(linear)}; give such a file by --linear, or leave them out by --no-linear"
        )
    return Sources(backbone, linear, origin | linear_origin)


def read_state(
    path: str | os.PathLike[str], part: str, member: str | None = None
) -> tuple[State, dict[str, str]]:
    """Returns a state dict and where it is from, under names that begin with `part`.

    member: the file's name in a wheel, as a pattern.
    Raises: InputError if the file is missing, damaged, hostile, or no state dict.
    """
    data, name = read_bytes(path), str(path)
    origin = {part: os.path.basename(name), f"{part}_sha256": hashlib.sha256(data).hexdigest()}
    if member is not None and is_wheel(data, name):
        found, data = read_member(data, name, member)
        origin[f"{part}_member"] = found
        name = f"{name}: {found}"
    content = read_torch_bytes(data, name)
    if not isinstance(content, dict) or not content:
        raise InputError(
            f"{name}: expected a state dict; got a {type(content).__name__}; "
            "save the state_dict() of the network"
        )
    arrays = {key: value for key, value in content.items() if isinstance(value, np.ndarray)}
    if len(arrays) < len(content) or any(not isinstance(key, str) for key in arrays):
        raise InputError(
            f"{name}: expected a state dict, tensors by name; got {_listed(content)}; "
            "save the state_dict() of the network"
        )
    return arrays, origin


def _listed(state: Mapping[str, object]) -> str:
    names = [str(key) for key in state]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
