"""SNGAN and ProgGAN of the official programs, against definitions in NumPy, and refusals."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pytest

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.directions import Edit
from navigan_jax.editing.bake import bake
from navigan_jax.errors import InputError
from navigan_jax.generators.files import read_generator
from navigan_jax.generators.source_map import read_source_map
from tests.tools import crafting
from tests.tools.converting import convert_file
from tools.convert_weights import __main__ as command
from tools.convert_weights.inspect_file import describe_file

State = dict[str, np.ndarray]
Z, WIDTHS, CLASSES = 3, (4, 3), 2


def _assert_told(path: pathlib.Path, architecture: str) -> None:
    assert f"architecture  {architecture}\nresolution    8\n" in describe_file(path).text


def _images(generator: Any, params: Any, latent: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(generator.synthesize)(params, latent.astype(np.float32)))


def _normal(shapes: Mapping[str, tuple[int, ...]]) -> State:
    random = np.random.RandomState(0)
    return {
        name: (
            random.random_sample(shape) + 0.5 if "var" in name else random.standard_normal(shape)
        ).astype(np.float32)
        for name, shape in shapes.items()
    }


def _correlate(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Images NCHW and a kernel OIHW of odd side; zeros outside."""
    rim = kernel.shape[2] // 2
    padded = np.pad(x, ((0, 0), (0, 0), (rim, rim), (rim, rim)))
    height, width = x.shape[2:]
    return sum(
        np.einsum("nihw,oi->nohw", padded[:, :, i : i + height, j : j + width], kernel[:, :, i, j])
        for i in range(kernel.shape[2])
        for j in range(kernel.shape[3])
    )


def _double(x: np.ndarray) -> np.ndarray:
    return x.repeat(2, axis=2).repeat(2, axis=3)


# --- The official SNGAN (Chainer), whose last normalisation has no classes.


def _chainer_state(classes: int) -> State:
    shapes: dict[str, tuple[int, ...]] = {
        "l1/W": (16 * WIDTHS[0], Z),
        "l1/b": (16 * WIDTHS[0],),
        "block2/c1/W": (WIDTHS[1], WIDTHS[0], 3, 3),
        "block2/c2/W": (WIDTHS[1], WIDTHS[1], 3, 3),
        "block2/c_sc/W": (WIDTHS[1], WIDTHS[0], 1, 1),
        "l3/W": (3, WIDTHS[1], 3, 3),
        "l3/b": (3,),
    }
    shapes |= {f"block2/{conv}/b": (WIDTHS[1],) for conv in ("c1", "c2", "c_sc")}
    norms = {"block2/b1": WIDTHS[0], "block2/b2": WIDTHS[1], "b3": WIDTHS[1]}
    for norm, width in norms.items():
        shapes |= {f"{norm}/avg_mean": (width,), f"{norm}/avg_var": (width,)}
        if classes and norm != "b3":
            shapes |= {f"{norm}/{part}/W": (classes, width) for part in ("gammas", "betas")}
        else:
            shapes |= {f"{norm}/{part}": (width,) for part in ("gamma", "beta")}
    return _normal(shapes) | {"b3/N": np.array(7)}


def _chainer_images(state: State, z: np.ndarray, labels: np.ndarray) -> np.ndarray:
    def norm(x: np.ndarray, key: str) -> np.ndarray:
        if f"{key}/gammas/W" in state:
            gain, bias = (state[f"{key}/{part}/W"][labels] for part in ("gammas", "betas"))
        else:
            gain, bias = (state[f"{key}/{part}"][None] for part in ("gamma", "beta"))
        mean, var = (state[f"{key}/avg_{part}"][None, :, None, None] for part in ("mean", "var"))
        scaled = (x - mean) / np.sqrt(var + 2e-5)
        return np.maximum(scaled * gain[:, :, None, None] + bias[:, :, None, None], 0)

    def conv(x: np.ndarray, key: str) -> np.ndarray:
        return _correlate(x, state[f"{key}/W"]) + state[f"{key}/b"][None, :, None, None]

    x = (z @ state["l1/W"].T + state["l1/b"]).reshape(-1, WIDTHS[0], 4, 4)
    h = conv(_double(norm(x, "block2/b1")), "block2/c1")
    x = conv(norm(h, "block2/b2"), "block2/c2") + conv(_double(x), "block2/c_sc")
    return np.tanh(conv(norm(x, "b3"), "l3")).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("classes", [0, CLASSES])
def test_official_sngan_computes_its_definition(tmp_path: pathlib.Path, classes: int) -> None:
    """With and without classes; `inspect` names it."""
    state, path = _chainer_state(classes), tmp_path / "ResNetGenerator_850000.npz"
    np.savez(path, **state)
    _assert_told(path, "SNGAN generator of Chainer")
    generator, params = convert_file("sngan", path)
    z, labels = np.random.RandomState(1).standard_normal((2, Z)), np.array([1, 0])
    latent = np.concatenate([z, np.eye(classes)[labels]], axis=1) if classes else z
    assert generator.space.shape == (Z + classes,)
    testing.assert_close(
        _images(generator, params, latent), _chainer_images(state, z, labels), 1e-4
    )


# --- The official ProgGAN (TensorFlow), and the same network as the port writes it.


def _tensorflow_state() -> State:
    first, second = WIDTHS
    shapes: dict[str, tuple[int, ...]] = {
        "4x4/Dense/weight": (Z, 16 * first),
        "4x4/Conv/weight": (3, 3, first, first),
        "8x8/Conv0_up/weight": (3, 3, second, first),
        "8x8/Conv1/weight": (3, 3, second, second),
        "ToRGB_lod0/weight": (1, 1, second, 3),
        "ToRGB_lod1/weight": (1, 1, first, 3),
    }
    biases = {"4x4/Dense": first, "4x4/Conv": first, "8x8/Conv0_up": second, "8x8/Conv1": second}
    biases |= {"ToRGB_lod0": 3, "ToRGB_lod1": 3}
    return _normal(shapes | {f"{name}/bias": (width,) for name, width in biases.items()})


def _tensorflow_images(state: State, z: np.ndarray) -> np.ndarray:
    """As the official program: scaled weights; a doubling kernel sums four shifted copies."""

    def scaled(key: str, fan_in: int, gain: float) -> np.ndarray:
        return state[f"{key}/weight"] * gain / np.sqrt(fan_in)

    def finish(x: np.ndarray, key: str) -> np.ndarray:
        x = x + state[f"{key}/bias"][None, :, None, None]
        x = np.where(x > 0, x, 0.2 * x)
        return x / np.sqrt(np.mean(x**2, axis=1, keepdims=True) + 1e-8)

    def conv(x: np.ndarray, key: str, gain: float = np.sqrt(2)) -> np.ndarray:
        side, _, inputs, _ = state[f"{key}/weight"].shape
        kernel = scaled(key, side * side * inputs, gain)
        return _correlate(x, kernel.transpose(3, 2, 0, 1))

    def double(x: np.ndarray, key: str) -> np.ndarray:
        kernel = np.pad(scaled(key, 9 * x.shape[1], np.sqrt(2)), ((1, 1), (1, 1), (0, 0), (0, 0)))
        kernel = kernel[1:, 1:] + kernel[:-1, 1:] + kernel[1:, :-1] + kernel[:-1, :-1]
        height, width = x.shape[2:]
        full = np.zeros((len(x), kernel.shape[2], 2 * height + 2, 2 * width + 2))
        for row, column in np.ndindex(height, width):
            spread = np.einsum("ni,hwoi->nohw", x[:, :, row, column], kernel)
            full[:, :, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4] += spread
        return full[:, :, 1:-1, 1:-1]

    z = z / np.sqrt(np.mean(z**2, axis=1, keepdims=True) + 1e-8)
    x = (z @ scaled("4x4/Dense", Z, np.sqrt(2) / 4)).reshape(-1, WIDTHS[0], 4, 4)
    x = finish(conv(finish(x, "4x4/Dense"), "4x4/Conv"), "4x4/Conv")
    x = finish(double(x, "8x8/Conv0_up"), "8x8/Conv0_up")
    x = finish(conv(x, "8x8/Conv1"), "8x8/Conv1")
    image = conv(x, "ToRGB_lod0", 1.0) + state["ToRGB_lod0/bias"][None, :, None, None]
    return image.transpose(0, 2, 3, 1)


def _tensorflow_file(state: State) -> bytes:
    variables = [(name, crafting.numpy_array(array)) for name, array in state.items()]
    content = {"version": 2, "static_kwargs": {}, "variables": variables}
    network = crafting.Build(crafting.New(crafting.Global("tfutil", "Network")), content)
    return crafting.pickled((network, network, network), 3)


@pytest.fixture
def official(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "karras2018iclr.pkl"
    path.write_bytes(_tensorflow_file(_tensorflow_state()))
    return path


def test_official_proggan_computes_its_definition(official: pathlib.Path) -> None:
    """Weights, scales and the order of pixels; images of smaller sides are left out."""
    assert (
        "architecture  ProgGAN generator of TensorFlow\nresolution    8\n"
        in describe_file(official).text
    )
    generator, params = convert_file("proggan", official)
    z = np.random.RandomState(1).standard_normal((2, Z))
    expected = _tensorflow_images(_tensorflow_state(), z)
    testing.assert_close(_images(generator, params, z), expected, 1e-5)


@pytest.mark.parametrize("layer", ["layer0/conv", "layer2/conv", "image/conv"])
def test_baked_copy_has_the_shifted_weights(official: pathlib.Path, layer: str) -> None:
    """Also those that the file keeps reversed or in another order."""
    _, params = convert_file("proggan", official)
    path = f"{layer}/kernel"
    delta = np.random.RandomState(2).standard_normal(np.shape(params_lib.get(params, path)))
    edit, out = Edit({path: delta.astype(np.float32)}), official.parent / "baked.pkl"
    source_map = read_source_map(official.parent / "converted.safetensors")
    bake(official, out, source_map, params, [(edit, 0.5)])
    _, baked = convert_file("proggan", out)
    expected = params_lib.add(params, path, np.float32(0.5) * edit.deltas[path])
    jax.tree.map(lambda a, b: testing.assert_close(a, b, 1e-6), baked, expected)


# --- Files of NaviGAN, in wrappers and with faults.


def _port_state(layers: int = 4, image_channels: int = 3) -> State:
    shapes: dict[str, tuple[int, ...]] = {}
    inputs = Z
    for index in range(layers):
        width, side = WIDTHS[min(index // 2, 1)], 3 if index else 4
        shapes[f"features.{index}.conv.weight"] = (width, inputs, side, side)
        shapes[f"features.{index}.wscale.b"] = (width,)
        inputs = width
    shapes |= {"output.conv.weight": (image_channels, inputs, 1, 1)}
    shapes |= {"output.wscale.b": (image_channels,)}
    scales = [f"{key.removesuffix('.b')}.scale" for key in shapes if key.endswith("wscale.b")]
    return _normal(shapes | dict.fromkeys(scales, (1,)))


@pytest.mark.parametrize("image_channels", [1, 2, 3, 4])
@pytest.mark.parametrize("layers", [2, 6])
def test_port_of_any_size_converts_in_any_wrapper(
    tmp_path: pathlib.Path, image_channels: int, layers: int
) -> None:
    state = _port_state(layers, image_channels)
    wrapped = {f"module.{name}": array for name, array in state.items()}
    path = tmp_path / "100_celeb_hq_network-snapshot-010403.pth"
    path.write_bytes(crafting.state_dict_file(wrapped))
    generator, params = convert_file("proggan", path)
    assert generator.image_shape == (2 << layers // 2, 2 << layers // 2, image_channels)
    kernel = state["features.1.conv.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(params_lib.get(params, "layer1/conv/kernel"), kernel)


def _navigan_state() -> State:
    first, second = WIDTHS
    shapes: dict[str, tuple[int, ...]] = {
        "0.weight": (16 * first, Z),
        "0.bias": (16 * first,),
        "5.weight": (3, second, 3, 3),
        "5.bias": (3,),
        "2.bypass.1.weight": (second, first, 3, 3),
        "2.bypass.1.bias": (second,),
    }
    for conv, inputs in (("conv1", first), ("conv2", second)):
        shapes |= {f"2.{conv}.weight": (second, inputs, 3, 3), f"2.{conv}.bias": (second,)}
    for norm, width in (("2.model.0", first), ("2.model.4", second), ("3", second)):
        parts = ("weight", "bias", "running_mean", "running_var")
        shapes |= {f"{norm}.{part}": (width,) for part in parts}
    state = _normal(shapes)
    for number, conv in ((3, "conv1"), (6, "conv2")):
        state |= {
            f"2.model.{number}.{part}": state[f"2.{conv}.{part}"] for part in ("weight", "bias")
        }
    return {f"model.{name}": array for name, array in state.items()}


def test_folder_of_navigan_converts(tmp_path: pathlib.Path) -> None:
    """Beside generator.pt lies args.json, which repeats what the arrays tell."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    (folder / "args.json").write_text('{"model": "sn_resnet32"}', encoding="utf-8")
    (folder / "generator.pt").write_bytes(crafting.state_dict_file(_navigan_state()))
    out = tmp_path / "out.safetensors"
    assert command.main(["sngan", str(folder), "--out", str(out)]) == 0
    generator, _ = read_generator(out)
    assert (generator.architecture, *generator.image_shape) == ("sngan", 8, 8, 3)
    assert (
        "architecture  SNGAN generator of NaviGAN\nresolution    8\n"
        in describe_file(folder / "generator.pt").text
    )


FAULTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "twin": (
        "sngan",
        {"model.2.model.3.bias": np.ones(WIDTHS[1])},
        "unlike 2.model.3.bias",
    ),
    "dense": (
        "sngan",
        {"model.0.weight": np.ones((50, Z))},
        "50 outputs before a block",
    ),
    "further": ("sngan", {"model.9.weight": np.ones(3)}, "further arrays 9.weight"),
    "variance": ("sngan", {"model.3.running_var": -np.ones(WIDTHS[1])}, "negative variances"),
    "nan": ("proggan", {"output.wscale.b": np.full(3, np.nan)}, "3 of 3 numbers NaN or infinite"),
    "axes": ("proggan", {"features.1.conv.weight": np.ones((4, 4))}, r"\[4, 4\], not of 4 axes"),
    "shape": ("proggan", {"features.1.conv.weight": np.ones((4, 4, 5, 5))}, "got other shapes:"),
    "missing": ("proggan", {"output.conv.weight": None}, "got no output.conv.weight, but"),
    "odd": ("proggan", {"features.3.conv.weight": None}, "3 layers, not two for each side"),
    "gap": ("proggan", {"features.2.conv.weight": None}, "layers numbered 0, 1, 3"),
    "other": ("sngan", {"model.2.conv1.weight": None}, "expected an SNGAN generator"),
}


@pytest.mark.parametrize(("kind", "changes", "pattern"), FAULTS.values(), ids=FAULTS)
def test_other_files_are_refused(
    tmp_path: pathlib.Path,
    kind: str,
    changes: dict[str, Any],
    pattern: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = {**(_navigan_state() if kind == "sngan" else _port_state()), **changes}
    arrays = {key: np.float32(array) for key, array in state.items() if array is not None}
    (tmp_path / "net.pth").write_bytes(crafting.state_dict_file(arrays))
    out = str(tmp_path / "out.safetensors")
    assert command.main([kind, str(tmp_path / "net.pth"), "--out", out]) != 0
    with pytest.raises(InputError, match=pattern):
        raise InputError(capsys.readouterr().err)
    assert not (tmp_path / "out.safetensors").exists()
