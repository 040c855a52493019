"""Every command from a checkpoint of published size to a baked edit: time and memory.

  python -m benchmarks.published                     (all; half an hour on two cores)
  python -m benchmarks.published --only biggan_128

Random weights are written in the original's names and format. The file is converted, the spectrum
task finds 2 directions of a layer over 2 latents, one of them is baked into a copy of the file, and
the copy is converted again and compared with the shifted weights. Each command is a process of its
own; its peak is that of the resident memory.
"""

if not __package__:
    import as_module  # noqa: F401

import itertools
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from benchmarks import common
from benchmarks.pipeline import SPECTRUM, run
from navigan_jax import params as params_lib
from navigan_jax.directions import read_directions
from navigan_jax.editing.edit import apply_edit
from navigan_jax.generators.files import read_generator
from tests.tools import crafting

Shapes = dict[str, tuple[int, ...]]

SHIFT = 0.5
_PARTS = ("weight", "bias")


class Published(NamedTuple):
    """A network: its command, the shapes of its arrays, the layer to edit, more arguments."""

    command: str
    shapes: Callable[[], Shapes]
    layer: str
    more: tuple[str, ...] = ()


def _conv(name: str, outputs: int, inputs: int, side: int, weight: str = "weight") -> Shapes:
    return {f"{name}.{weight}": (outputs, inputs, side, side), f"{name}.bias": (outputs,)}


def biggan_128() -> Shapes:
    """Returns the arrays of ajbrock's BigGAN at 128 pixels, 96 channels."""
    widths = [96 * factor for factor in (16, 16, 8, 4, 2, 1)]
    shapes: Shapes = {"shared.weight": (1000, 128)}
    shapes |= {"linear.weight": (16 * widths[0], 20), "linear.bias": (16 * widths[0],)}
    for block, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        name = f"blocks.{block}.0"
        for norm, width in (("bn1", inputs), ("bn2", outputs)):
            shapes |= {f"{name}.{norm}.stored_{part}": (width,) for part in ("mean", "var")}
            shapes |= {f"{name}.{norm}.{part}.weight": (width, 148) for part in ("gain", "bias")}
        shapes |= _conv(f"{name}.conv1", outputs, inputs, 3)
        shapes |= _conv(f"{name}.conv2", outputs, outputs, 3)
        shapes |= _conv(f"{name}.conv_sc", outputs, inputs, 1)
    width = widths[4]
    for name, outputs, inputs in (
        ("theta", width // 8, width),
        ("phi", width // 8, width),
        ("g", width // 2, width),
        ("o", width, width // 2),
    ):
        shapes[f"blocks.3.1.{name}.weight"] = (outputs, inputs, 1, 1)
    shapes["blocks.3.1.gamma"] = ()
    shapes |= {f"output_layer.0.{part}": (96,) for part in ("gain", "bias")}
    shapes |= {f"output_layer.0.stored_{part}": (96,) for part in ("mean", "var")}
    shapes |= _conv("output_layer.2", 3, 96, 3)
    layers = [name for name in shapes if name.endswith(".weight") and name != "shared.weight"]
    return shapes | {f"{name[:-6]}u0": (1, shapes[name][0]) for name in layers}


def biggan_deep_128() -> Shapes:
    """Returns the arrays of Hugging Face's BigGAN-deep at 128 pixels."""
    widths = [128 * factor for factor in (16, 16, 16, 16, 8, 8, 4, 4, 2, 2, 1)]
    shapes: Shapes = {"embeddings.weight": (128, 1000)}
    normalised: dict[str, tuple[int, ...]] = {"generator.gen_z": (16 * widths[0], 256)}
    biases = {"generator.gen_z": 16 * widths[0]}

    def norm(name: str, width: int) -> None:
        for part in ("running_means", "running_vars"):
            shapes[f"{name}.{part}"] = (51, width)

    for index in range(11):
        name = f"generator.layers.{index}"
        if index == 8:  # attention, between blocks 7 and 8
            width = widths[8]
            for conv, outputs, inputs in (
                ("theta", width // 8, width),
                ("phi", width // 8, width),
                ("g", width // 2, width),
                ("o_conv", width, width // 2),
            ):
                normalised[f"{name}.snconv1x1_{conv}"] = (outputs, inputs, 1, 1)
            shapes[f"{name}.gamma"] = (1,)
            continue
        block = index - (index > 8)
        inputs, outputs = widths[block], widths[block + 1]
        middle = inputs // 4
        for number, width in enumerate((inputs, middle, middle, middle)):
            norm(f"{name}.bn_{number}", width)
            for part in ("scale", "offset"):
                normalised[f"{name}.bn_{number}.{part}"] = (width, 256)
        kernels = (
            (middle, inputs, 1),
            (middle, middle, 3),
            (middle, middle, 3),
            (outputs, middle, 1),
        )
        for number, (features, width, side) in enumerate(kernels):
            normalised[f"{name}.conv_{number}"] = (features, width, side, side)
            biases[f"{name}.conv_{number}"] = features
    norm("generator.bn", 128)
    shapes |= {"generator.bn.weight": (128,), "generator.bn.bias": (128,)}
    normalised["generator.conv_to_rgb"] = (128, 128, 3, 3)
    biases["generator.conv_to_rgb"] = 128
    for name, shape in normalised.items():
        shapes |= {f"{name}.weight_orig": shape, f"{name}.weight_u": shape[:1]}
        shapes[f"{name}.weight_v"] = (int(np.prod(shape[1:])),)
    return shapes | {f"{name}.bias": (width,) for name, width in biases.items()}


def pix2pixhd_global() -> Shapes:
    """Returns the arrays of pix2pixHD's global generator."""
    shapes = _conv("model.1", 64, 36, 7)
    for index in range(4):
        shapes |= _conv(f"model.{4 + 3 * index}", 128 << index, 64 << index, 3)
        up = f"model.{25 + 3 * index}"
        shapes[f"{up}.weight"] = (1024 >> index, 512 >> index, 3, 3)
        shapes[f"{up}.bias"] = (512 >> index,)
    for index in range(9):
        for place in (1, 5):
            shapes |= _conv(f"model.{16 + index}.conv_block.{place}", 1024, 1024, 3)
    return shapes | _conv("model.38", 3, 64, 7)


def proggan_1024() -> Shapes:
    """Returns the arrays of ptrblck's ProgGAN at 1024 pixels."""
    widths = [512, 512, 512, 512, 256, 128, 64, 32, 16]
    shapes: Shapes = {}
    inputs = 512
    for index in range(18):
        width, side = widths[index // 2], 3 if index else 4
        shapes[f"features.{index}.conv.weight"] = (width, inputs, side, side)
        shapes |= {f"features.{index}.wscale.scale": (1,), f"features.{index}.wscale.b": (width,)}
        inputs = width
    shapes["output.conv.weight"] = (3, 16, 1, 1)
    return shapes | {"output.wscale.scale": (1,), "output.wscale.b": (3,)}


NETWORKS = {
    "biggan_128": Published("biggan", biggan_128, "blocks.2.0.conv1"),
    "biggan_deep_128": Published("biggan-deep", biggan_deep_128, "generator.layers.5.conv_1"),
    "pix2pixhd_1024x512": Published("pix2pixhd", pix2pixhd_global, "model.25"),
    "proggan_1024": Published("proggan", proggan_1024, "features.6"),
}


def draw_state(shapes: Shapes) -> dict[str, np.ndarray]:
    """Returns random arrays: kernels that keep the variance, norms from a power iteration."""
    random, state = np.random.default_rng(0), {}
    for name, shape in shapes.items():
        if name.endswith(("var", "vars", "scale", "gain")) and "wscale" not in name:
            drawn = 0.5 + random.random(shape)
        elif len(shape) > 1:
            drawn = random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) / 2)
        else:
            drawn = 0.1 * random.standard_normal(shape) + name.endswith("wscale.scale")
        state[name] = np.float32(drawn)
    for name in shapes:
        if name.endswith((".u0", ".weight_u")):
            stem = name.rpartition(".")[0]
            key = f"{stem}.weight" if name.endswith("u0") else f"{stem}.weight_orig"
            matrix = state[key].reshape(len(state[key]), -1)
            v = state[name].reshape(-1) @ matrix
            v /= np.linalg.norm(v)
            u = matrix @ v
            state[name] = (u / np.linalg.norm(u)).reshape(shapes[name])
            if f"{stem}.weight_v" in state:
                state[f"{stem}.weight_v"] = v
    return state


def _commands(
    name: str, source: pathlib.Path, folder: pathlib.Path
) -> Iterator[tuple[str, list[str]]]:
    """Yields the name and the arguments of each command, in order."""
    network = NETWORKS[name]
    convert = ["tools.convert_weights", network.command]
    generator, found, baked = folder / "generator.safetensors", folder / "found", folder / "b.pth"
    yield "convert", [*convert, str(source), "--out", str(generator)]
    task = ["navigan_jax.main", f"--config.generator={generator}"]
    few = {**SPECTRUM, "show.plausible_samples": 16}
    keys = [f"--config.{key}={value}" for key, value in few.items() if key != "layer"]
    yield (
        "spectrum and gallery",
        [
            *(*task, "--config=configs/hessian.py", f"--workdir={found}", *keys),
            f"--config.layer={network.layer}",
        ],
    )
    yield (
        "bake",
        [
            *(*task, "--config=configs/bake.py", f"--workdir={folder / 'bake'}"),
            *(f"--config.source={source}", f"--config.out={baked}"),
            f"--config.directions={found / 'directions.safetensors'}",
            *("--config.indices=(0,)", f"--config.shifts=({SHIFT},)"),
        ],
    )
    yield "convert again", [*convert, str(baked), "--out", str(folder / "again.safetensors")]


def _check(folder: pathlib.Path) -> float:
    """Returns the largest error of the baked weights, relative to the largest weight of each."""
    _, params = read_generator(folder / "generator.safetensors")
    _, again = read_generator(folder / "again.safetensors")
    found = folder / "found" / "directions.safetensors"
    directions = read_directions(found, digest=params_lib.digest(params))
    shifted = params_lib.flatten(apply_edit(params, directions.edit(0), SHIFT))
    errors = [
        np.abs(got - shifted[path]).max() / max(np.abs(shifted[path]).max(), 1e-12)
        for path, got in params_lib.flatten(again).items()
    ]
    return float(max(errors))


def main() -> None:
    """Runs the script."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--only", choices=NETWORKS, help="one network; default: all")
    only = parser.parse_args().only
    common.say_where()
    print(f"{'network':20} {'command':22} {'seconds':>8} {'peak MB':>8}")
    for name, network in NETWORKS.items():
        if only not in (None, name):
            continue
        with tempfile.TemporaryDirectory() as place:
            folder = pathlib.Path(place)
            source = folder / "network.pth"
            source.write_bytes(crafting.state_dict_file(draw_state(network.shapes())))
            print(f"{name:20} {source.stat().st_size / 1e6:.0f} MB", flush=True)
            for label, arguments in _commands(name, source, folder):
                seconds, peak = run(folder / "peak", *arguments)
                print(f"{'':20} {label:22} {seconds:8.1f} {peak / 1e6:8.0f}", flush=True)
            print(f"{'':20} baked weights are the shifted ones to {_check(folder):.1e}", flush=True)


if __name__ == "__main__":
    main()
