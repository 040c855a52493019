"""SNGAN generators: NaviGAN's folder with args.json and generator.pt, and Chainer's .npz.

The names and shapes of the arrays give all sizes, so args.json is not needed. In NaviGAN's files
the convolutions of a block stand under two names, which share their numbers.
"""

import argparse
import math
import pathlib
import re

import numpy as np

from tools.convert_weights.networks.base import (
    Network,
    Opener,
    Shapes,
    add_choice,
    by_names,
    check_output,
)
from tools.convert_weights.networks.states import CONV, DENSE, Reading, State, convert_file, form
from tools.convert_weights.readers.structure import Found

_EXPECTED = (
    "an SNGAN generator, of NaviGAN (0.weight, 2.conv1.weight, 2.model.0.weight and so on) or of "
    "the official program (l1/W, block2/c1/W and so on)"
)
_FOLDER_FILE = "generator.pt"
_NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
_CHAINER_NORM = {"gamma": "scale", "beta": "bias", "avg_mean": "mean", "avg_var": "var"}
_CHAINER_EPSILON = 2e-5
_TORCH = re.compile(
    r"\d+\.(?:(?:conv[12]|model\.\d|bypass\.1)\.)?(?:weight|bias|running_\w+|num_\w+)"
)
_CHAINER = re.compile(r"(?:l\d|b\d|block\d/\w+)/.+")


def _read_torch(state: State) -> Reading:
    """Reads the names of NaviGAN: 0 dense, 2 and on blocks, then normalisation and convolution."""
    state.drop(r".*num_batches_tracked")
    blocks = 0
    while f"{blocks + 2}.conv1.weight" in state:
        blocks += 1
    views: dict[str, np.ndarray] = {}
    computed: dict[str, np.ndarray] = {}

    def affine(path: str, key: str, axes: tuple[int, ...]) -> None:
        views[f"{path}/kernel"] = state.take(f"{key}.weight", axes)
        views[f"{path}/bias"] = state.take(f"{key}.bias")

    def norm(path: str, key: str) -> None:
        for theirs, ours in _NORM.items():
            take = state.take_variance if ours == "var" else state.take
            views[f"{path}/{ours}"] = take(f"{key}.{theirs}")

    affine("dense", "0", DENSE)
    for block in range(blocks):
        key, path = f"{block + 2}", f"block{block}"
        for number, (conv, copy) in enumerate((("conv1", 3), ("conv2", 6))):
            norm(f"{path}/norm{number}/norm", f"{key}.model.{3 * number + number}")
            affine(f"{path}/{conv}", f"{key}.{conv}", CONV)
            for part, axes in (("weight", CONV), ("bias", None)):
                twin = state.take(f"{key}.model.{copy}.{part}", axes)
                ours = f"{path}/{conv}/{'kernel' if part == 'weight' else part}"
                if not np.array_equal(twin, views[ours]):
                    raise state.refusal(
                        f"{key}.{conv}.{part} unlike {key}.model.{copy}.{part}, its second name"
                    )
                if not np.shares_memory(twin, views[ours]):
                    computed[ours] = np.ascontiguousarray(views.pop(ours), np.float32)
        if f"{key}.bypass.1.weight" in state:
            affine(f"{path}/bypass", f"{key}.bypass.1", CONV)
    norm("norm", f"{blocks + 2}")
    affine("image", f"{blocks + 4}", CONV)
    return _reading(state, views, computed, epsilon=1e-5)


def _read_chainer(state: State) -> Reading:
    """Reads the names of the official program: l1 dense, block2 and on, b7, l7."""
    state.drop(r".*/N|.*/persistent.*")
    last = max(
        (
            number
            for number in range(2, 12)
            if f"l{number}/W" in state and f"b{number}/gamma" in state
        ),
        default=0,
    )
    views: dict[str, np.ndarray] = {}

    def affine(path: str, key: str, axes: tuple[int, ...]) -> None:
        views[f"{path}/kernel"] = state.take(f"{key}/W", axes)
        views[f"{path}/bias"] = state.take(f"{key}/b")

    def norm(path: str, key: str) -> None:
        has_classes = f"{key}/gammas/W" in state
        for theirs, ours in _CHAINER_NORM.items():
            if has_classes and ours in ("scale", "bias"):
                continue
            take = state.take_variance if ours == "var" else state.take
            views[f"{path}{'/norm' if path != 'norm' else ''}/{ours}"] = take(f"{key}/{theirs}")
        if has_classes:
            views[f"{path}/gain/kernel"] = state.take(f"{key}/gammas/W", rank=2)
            views[f"{path}/bias/kernel"] = state.take(f"{key}/betas/W", rank=2)

    affine("dense", "l1", DENSE)
    for block in range(last - 2):
        key, path = f"block{block + 2}", f"block{block}"
        norm(f"{path}/norm0", f"{key}/b1")
        norm(f"{path}/norm1", f"{key}/b2")
        for conv, theirs in (("conv1", "c1"), ("conv2", "c2"), ("bypass", "c_sc")):
            if conv != "bypass" or f"{key}/{theirs}/W" in state:
                affine(f"{path}/{conv}", f"{key}/{theirs}", CONV)
    norm("norm", f"b{last}")
    affine("image", f"l{last}", CONV)
    return _reading(state, views, {}, epsilon=_CHAINER_EPSILON)


def _reading(
    state: State,
    views: dict[str, np.ndarray],
    computed: dict[str, np.ndarray],
    epsilon: float,
) -> Reading:
    kernels = {**views, **computed}
    blocks = sum(path.endswith("/conv1/kernel") for path in kernels)
    if not blocks:
        raise state.refusal("no residual block")
    z_dim, outputs = kernels["dense/kernel"].shape
    first = kernels["block0/conv1/kernel"].shape[2]
    side = math.isqrt(outputs // first)
    if side * side * first != outputs:
        raise state.refusal(
            f"a dense layer of {outputs} outputs before a block of {first} channels"
        )
    gain = views.get("block0/norm0/gain/kernel")
    config = {
        "z_dim": z_dim,
        "widths": [first, *(kernels[f"block{i}/conv1/kernel"].shape[3] for i in range(blocks))],
        "image_channels": kernels["image/kernel"].shape[3],
        "first_side": side,
        "bypass_sides": [
            kernels[path].shape[0] if (path := f"block{i}/bypass/kernel") in kernels else 0
            for i in range(blocks)
        ],
        "epsilon": epsilon,
        "label_dim": 0 if gain is None else gain.shape[0],
    }
    return Reading(config, {path: Found(view) for path, view in views.items()}, computed)


_READERS = {
    form("NaviGAN", r"2\.conv1\.weight", _TORCH): _read_torch,
    form("Chainer", r"block2/c1/W", _CHAINER): _read_chainer,
}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="NaviGAN's folder with generator.pt, the file itself, or Chainer's .npz",
    )
    add_choice(parser)


def _convert(options: argparse.Namespace, open_file: Opener) -> str:
    source = pathlib.Path(options.source)
    if source.is_dir():
        source = source / _FOLDER_FILE
    check_output(options.out, source)
    return convert_file(
        open_file(source),
        options.out,
        options.network,
        architecture="sngan",
        expected=_EXPECTED,
        readers=_READERS,
    )


_NAVIGAN, _OFFICIAL = "SNGAN generator of NaviGAN", "SNGAN generator of Chainer"


def _side(shapes: Shapes) -> int | None:
    ends = [
        re.fullmatch(r"(?:.*[/.])?(?:block)?(\d+)[./](?:conv1\.weight|c1/W)", key) for key in shapes
    ]
    blocks = len({match[1] for match in ends if match})
    return 4 << blocks if blocks else None


NETWORK = Network(
    words="SNGAN generator of NaviGAN (folder or generator.pt) or of the official program (.npz)",
    add_arguments=_add_arguments,
    convert=_convert,
    recognise=by_names(
        {
            _NAVIGAN: (r"2\.conv1\.weight", r"2\.model\.0\.running_mean", r"0\.weight"),
            _OFFICIAL: (r"l1/W", r"block2/c1/W", r"block2/b1/.+"),
        }
    ),
    sides={_NAVIGAN: _side, _OFFICIAL: _side},
)
