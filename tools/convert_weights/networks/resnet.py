"""Converts torchvision's ResNet-18, a classifier of photographs, to start a reconstructor with.

The reconstructor's first convolution reads six channels, those of two images. Its kernel is the
classifier's kernel for three channels, repeated and halved, so that two equal images give the same
output as one of them did. The classifier on top is dropped; the heads start at random.
"""

import argparse
import functools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from navigan_jax import params as params_lib
from navigan_jax.discovery.reconstructor_files import write_start
from navigan_jax.errors import InputError
from tools.convert_weights.download import RESNET18, fetch
from tools.convert_weights.finding import Candidate, Form, choose, describe, find
from tools.convert_weights.networks.base import (
    Foreign,
    Network,
    Opener,
    add_choice,
    by_names,
    check_output,
)

_KEY = re.compile(r"(?:(layer[1-4])\.([01])\.)?(conv[12]|bn[12]|downsample\.[01])\.(\w+)")
_SKIPPED = ("fc.weight", "fc.bias")  # the classifier
_COUNT = "num_batches_tracked"
_LEAVES = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}
_PARTS = {"downsample.0": "downsample_conv", "downsample.1": "downsample_bn"}


def path_of(key: str) -> str | None:
    """Returns our path, below {"params", "batch_stats"}, for a name of torchvision, or None."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    layer, block, part, leaf = match.groups()
    part = _PARTS.get(part, part)
    where = f"{layer}_{block}/{part}" if layer else part
    if "conv" in part:
        return f"params/{where}/kernel" if leaf == "weight" else None
    if leaf not in _LEAVES:
        return None
    collection, name = _LEAVES[leaf]
    return f"{collection}/{where}/{name}"


def _names() -> list[str]:
    """Returns the names of all arrays, without the classifier and the counts of training steps."""
    pairs = [("conv1", "bn1")]
    for layer in range(1, 5):
        for block in range(2):
            prefix = f"layer{layer}.{block}."
            pairs += [(f"{prefix}conv{part}", f"{prefix}bn{part}") for part in (1, 2)]
        if layer > 1:
            pairs.append((f"layer{layer}.0.downsample.0", f"layer{layer}.0.downsample.1"))
    return [
        name
        for conv, norm in pairs
        for name in (f"{conv}.weight", *(f"{norm}.{leaf}" for leaf in _LEAVES))
    ]


def double_inputs(kernel: np.ndarray) -> np.ndarray:
    """Returns the HWIO kernel for two stacked inputs: the kernel repeated for each, halved."""
    return np.concatenate([kernel, kernel], axis=2) / 2


def from_state_dict(state: Mapping[str, np.ndarray], name: str = "resnet18") -> dict[str, Any]:
    """Returns {"params", "batch_stats"} of the reconstructor without its heads, in float32.

    state: torchvision's names, kernels OIHW; the classifier `fc` may be absent.
    Raises: InputError, which begins with `name`, if an array is missing or not one of ResNet-18.
    """
    flat: dict[str, np.ndarray] = {}
    for key, array in state.items():
        if key in _SKIPPED or key.endswith(_COUNT):
            continue
        path = path_of(key)
        if path is None:
            raise _refusal(name, repr(key))
        array = np.asarray(array, np.float32)
        flat[path] = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
    if missing := [key for key in _names() if key not in state]:
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        raise _refusal(name, f"a file without the arrays {', '.join(missing[:4])}{more}")
    first = "params/conv1/kernel"
    flat[first] = double_inputs(flat[first])
    return params_lib.unflatten({path: np.ascontiguousarray(flat[path]) for path in flat})


def _refusal(name: str, got: str) -> InputError:
    return InputError(
        f"{name}: expected the weights of torchvision's ResNet-18; got {got}; allowed: its state "
        f"dict or module in any wrapper, with or without the classifier; give {RESNET18}, or no "
        "file, to have it downloaded"
    )


_FORM = Form(
    "torchvision",
    r"conv1\.weight",
    knows=lambda name: path_of(name) is not None or name in _SKIPPED,
    is_anchor=lambda array: array.ndim == 4 and array.shape[1:] == (3, 7, 7),
)


def from_foreign(foreign: Foreign, network: str | None = None) -> dict[str, Any]:
    """Converts the ResNet-18 in a file; returns as `from_state_dict`.

    network: its name in the file; None: the average of training, or the only one.

    Raises: InputError if the file holds no ResNet-18, or several that fit equally well.
    """
    candidates = find(foreign.contents, [_FORM], foreign.name)
    if not candidates:
        raise _refusal(foreign.name, describe(foreign.contents))
    read = functools.partial(_read, name=foreign.name)
    return choose(candidates, read, network, foreign.name)[1]


def _read(candidate: Candidate, name: str) -> dict[str, Any]:
    return from_state_dict(candidate.arrays, name)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="SOURCE", nargs="?", help=f"torchvision's {RESNET18}; default: downloaded"
    )
    add_choice(parser)


def _convert(options: argparse.Namespace, open_file: Opener) -> str:
    check_output(options.out, *filter(None, (options.source,)))
    foreign = open_file(options.source or fetch(RESNET18))
    origin = {"backbone": foreign.origin["file"], "backbone_sha256": foreign.origin["sha256"]}
    write_start(options.out, from_foreign(foreign, options.network), origin)
    return options.out


NETWORK = Network(
    words="ResNet-18 of torchvision, to start a reconstructor with",
    add_arguments=_add_arguments,
    convert=_convert,
    recognise=by_names(
        {
            "torchvision resnet18 or resnet34": (
                r"conv1\.weight",
                r"bn1\.running_mean",
                r"layer1\.0\.bn2\.weight",
                r"layer4\.1\.conv2\.weight",
            )
        }
    ),
)
