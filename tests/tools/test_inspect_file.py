"""Inspection: any file is described, and nothing in it is executed."""

import hashlib
import io
import json
import pathlib
import re
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from navigan_jax import directions as directions_lib
from navigan_jax import inverted, testing
from navigan_jax.checkpoints import write_arrays
from navigan_jax.directions import write_directions
from navigan_jax.errors import InputError
from navigan_jax.generators.files import write_generator
from navigan_jax.inverted import Inverted, write_inverted
from navigan_jax.testing import golden_case
from tests.tools.converting import read_stylegan2
from tests.tools.crafting import (
    Build,
    Call,
    Global,
    New,
    dcgan_state,
    pickled,
    row_strides,
    state_dict_file,
    storage,
    tensor,
    torch_stream,
    torch_zip,
    zip_archive,
)
from tests.tools.networks.test_lpips_sources import backbone, linear
from tests.viewer.serving import make_directions
from tools.convert_weights import architectures
from tools.convert_weights.inspect_file import describe_file
from tools.convert_weights.networks.dcgan import from_state_dict


def describe(tmp_path: pathlib.Path, data: bytes) -> dict[str, str]:
    """Returns the described file's lines by their first word."""
    path = tmp_path / "file"
    path.write_bytes(data)
    lines = describe_file(path).text.split("\n")
    assert all(line == line.rstrip() for line in lines[:4])
    return {line.split()[0]: " ".join(line.split()[1:]) for line in lines if line}


def test_size_and_digest_are_those_of_the_file(tmp_path: pathlib.Path) -> None:
    """Whatever the format."""
    data = b"\x81\xffknown" * 300
    got = describe(tmp_path, data)
    assert (got["bytes"], got["SHA-256"]) == ("2,100", hashlib.sha256(data).hexdigest())
    assert got["format"] == "bytes of no known format"


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


ARRAYS = {"a": np.zeros((2, 3), np.float32)}
WHEEL = {"p/weights.tar": b"", "p/a.py": b"", "p-1.dist-info/METADATA": b""}

FORMATS = {
    "PyTorch zip archive": state_dict_file(ARRAYS),
    "PyTorch stream (before version 1.6)": state_dict_file(ARRAYS, legacy=True),
    "NumPy archive": _npz(ARRAYS),
    "NumPy array": _npy(ARRAYS["a"]),
    "pickle of other data": pickled({"a": 1}),
    "Python wheel": zip_archive(WHEEL),
    "a web page, not the file behind it": b"<html>",
    "an empty file": b"",
}


@pytest.mark.parametrize("words", FORMATS)
def test_format_is_named(words: str, tmp_path: pathlib.Path) -> None:
    """Every known format, and files often mistaken for one."""
    assert describe(tmp_path, FORMATS[words])["format"] == words
    is_file = "page" not in words and "empty" not in words
    assert describe_file(tmp_path / "file").is_read == is_file


def test_wheel_lists_its_weights(tmp_path: pathlib.Path) -> None:
    """Members that are weight files are named, code is not."""
    assert describe(tmp_path, zip_archive(WHEEL))["weights"] == "p/weights.tar"


def test_arrays_are_listed_with_their_bad_numbers(tmp_path: pathlib.Path) -> None:
    """Name, shape, dtype, counts of NaN and infinity, in aligned columns."""
    arrays = {
        "short": np.array([1, np.nan, np.nan, np.inf], np.float32),
        "a/much/longer/name": np.zeros((2, 3, 4), np.int64),
        "brain": np.array([np.nan, 1]).astype(ml_dtypes.bfloat16),
        "scalar": np.array(-np.inf),
        "complex": np.array([complex(np.nan, 1)], np.complex64),
    }
    path = tmp_path / "file"
    path.write_bytes(state_dict_file(arrays))
    lines = describe_file(path).text.split("\n")
    table = lines[lines.index("") + 1 :]
    assert [line.split() for line in table] == [
        ["array", "shape", "dtype", "NaN", "Inf"],
        ["short", "4", "float32", "2", "1"],
        ["a/much/longer/name", "2", "x", "3", "x", "4", "int64", "-", "-"],
        ["brain", "2", "bfloat16", "1", "0"],
        ["scalar", "scalar", "float64", "0", "1"],
        ["complex", "1", "complex64", "1", "0"],
    ]
    assert len({len(line) for line in table}) == 1
    assert "5 with 32 numbers" in lines[5]


def test_generator_of_ours_is_described(tmp_path: pathlib.Path) -> None:
    """Architecture, resolution, sizes and digest of a file that the package wrote."""
    config, params = from_state_dict(dcgan_state(3, (7, 5), 1))
    path = tmp_path / "g.safetensors"
    write_generator(path, "dcgan", config, params, {"file": "x"})
    got = describe(tmp_path, path.read_bytes())
    assert got["format"] == "safetensors, navigan_jax.generator"
    assert (got["architecture"], got["resolution"]) == ("dcgan", "16")
    assert got["config"] == '{"z_dim": 3, "widths": [7, 5], "image_channels": 1}'
    assert got["conv0/kernel"] == "4 x 4 x 3 x 7 float32 0 0"


def test_safetensors_of_others_are_described(tmp_path: pathlib.Path) -> None:
    """Foreign metadata is shown as it stands and cannot hide the findings."""
    path = tmp_path / "other.safetensors"
    told = {"made": "by\nSHA-256  0", "SHA-256": "0", "architecture": "dcgan", "arrays": "many"}
    write_arrays(path, ARRAYS, told)
    got = describe(tmp_path, path.read_bytes())
    assert (got["format"], got["architecture"]) == ("safetensors", "unknown")
    assert got["SHA-256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    lines = {" ".join(line.split()) for line in describe_file(path).text.split("\n")}
    assert {"metadata made by SHA-256 0", "metadata SHA-256 0", "metadata arrays many"} < lines
    write_arrays(path, ARRAYS, {"format": "navigan_jax.directions"})
    got = describe(tmp_path, path.read_bytes())
    assert got["format"] == "safetensors, navigan_jax.directions"
    assert "expected format version 1" in got["UNREADABLE"]


def test_directions_are_described_with_the_digest_for_recipes(tmp_path: pathlib.Path) -> None:
    """The digest of the directions and that of their weights are shown; the config is one line."""
    params = testing.draw_params(testing.tiny_generators()["dcgan"], 0)
    found = make_directions(params, "conv1/kernel", "f00")
    path = tmp_path / "d.safetensors"
    write_directions(path, found)
    got = describe(tmp_path, path.read_bytes())
    assert got["digest"] == directions_lib.digest(found)
    assert got["provenance"] == "weights of digest f00"
    assert (got["directions"], got["layers"]) == (str(len(found)), "conv1/kernel")


def test_photographs_are_described_with_the_digest_for_recipes(tmp_path: pathlib.Path) -> None:
    """Names, latents and changed weights are shown; a damaged file is told."""
    found = Inverted(
        names=["me.jpg"],
        sha256=["ab"],
        space="w_plus",
        latents=np.zeros((1, 4, 3), np.float32),
        changes={"conv/kernel": np.ones((1, 2), np.float32)},
        corners=np.zeros((1, 4, 2)),
        measures={},
        provenance={"architecture": "a", "digest": "f00", "method": "adam", "metric": "l2"},
    )
    path = tmp_path / "i.safetensors"
    write_inverted(path, found)
    got = describe(tmp_path, path.read_bytes())
    assert got["digest"] == inverted.digest(found)
    assert (got["photographs"], got["space"]) == ("me.jpg", "w_plus [4, 3]")
    assert (got["changed"], got["method"]) == ("conv/kernel", "adam")
    write_arrays(path, ARRAYS, {"format": "navigan_jax.inverted"})
    assert "UNREADABLE" in describe(tmp_path, path.read_bytes())


def _names(*names: str) -> dict[str, np.ndarray]:
    return {name: np.zeros((1, 1), np.float32) for name in names}


SIX_AXES = np.zeros((4, 1, 2, 2, 3, 3), np.float32)

ARCHITECTURES: dict[str, dict[str, np.ndarray]] = {
    "DCGAN generator": dcgan_state(),
    "DCGAN discriminator": _names("main.0.weight", "main.2.weight", "main.3.running_mean"),
    "StyleGAN2, rosinality": _names(
        "g_ema/input.input", "g_ema/convs.0.conv.weight", "g_ema/style.1.weight"
    ),
    "StyleGAN2, NVIDIA PyTorch": _names("G_ema.synthesis.b4.const", "G_ema.mapping.fc0.weight"),
    "StyleGAN3, NVIDIA PyTorch": _names("G_ema.synthesis.input.freqs", "G_ema.mapping.fc0.weight"),
    "StyleGAN2, NVIDIA TensorFlow": _names(
        "Gs/synthesis/4x4/Const/const", "Gs/mapping/Dense0/weight"
    ),
    "StyleGAN1 or ProgGAN, NVIDIA TensorFlow": _names("Gs/synthesis/ToRGB_lod0/weight"),
    "LPIPS linear weights": linear(1),
    "LPIPS module, backbone and linear weights": linear(1) | _names("net.slice1.0.weight"),
    "torchvision vgg16": backbone("vgg"),
    "torchvision alexnet": backbone("alex"),
    "torchvision squeezenet1_1": backbone("squeeze"),
    "NaviGAN training checkpoint, SVD directions": _names(
        "generator/style_gan2.convs.3.conv.direction_to_eigenvalues_delta"
    ),
    "NaviGAN training checkpoint, directions in a basis": _names(
        "generator/style_gan2.convs.3.conv.direction_to_basis_coefs"
    ),
    "NaviGAN latent deformator": _names("log_mat_half"),
    "NaviGAN deformation, one shift of one layer": {"shift": SIX_AXES[:1]},
    "BigGAN generator of ajbrock": _names("shared.weight", "blocks.0.0.conv1.weight"),
    "BigGAN-deep generator of Hugging Face": _names("generator.gen_z.weight_orig"),
    "SNGAN generator of NaviGAN": _names(
        "model.0.weight", "model.2.conv1.weight", "model.2.model.0.running_mean"
    ),
    "ProgGAN generator of PyTorch": _names("features.0.conv.weight", "features.0.wscale.scale"),
    "pix2pixHD generator with enhancers": _names("model1_1.1.weight", "model.1.weight"),
    "pix2pixHD generator, global": _names("model.1.weight", "model.16.conv_block.1.weight"),
    "unknown": _names("main.weight", "a"),
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_architecture_is_told_by_its_names(architecture: str, tmp_path: pathlib.Path) -> None:
    """Each known network is recognised by its own names only."""
    data = state_dict_file(ARCHITECTURES[architecture])
    assert describe(tmp_path, data)["architecture"] == architecture


def test_tensor_alone_may_be_eigenvectors(tmp_path: pathlib.Path) -> None:
    """The file of NaviGAN's eigenvectors is one tensor of six axes, without a name."""
    content = tensor(
        storage("0", "float32", SIX_AXES.size), SIX_AXES.shape, row_strides(SIX_AXES.shape)
    )
    got = describe(tmp_path, torch_zip(content, {"0": SIX_AXES}))
    assert got["architecture"] == "NaviGAN eigenvectors or basis of one layer"
    assert architectures.guess({"linear.weight": (2, 2), "linear.bias": (2,)}).startswith("NaviGAN")


@pytest.mark.parametrize(
    ("architecture", "shapes", "side"),
    [
        ("DCGAN generator", {"main.0.weight": (), "main.12.weight": (), "main.1.bias": ()}, 64),
        ("DCGAN generator", {"module.main.0.weight": (), "module.main.15.weight": ()}, 128),
        (
            "StyleGAN2, rosinality",
            {"noises.noise_0": (1, 1, 4, 4), "noises.noise_2": (1, 1, 8, 8)},
            8,
        ),
        ("StyleGAN2, rosinality", {"a": (3,)}, None),
        ("StyleGAN2, NVIDIA PyTorch", {"G.synthesis.b4.const": (), "G.synthesis.b256.a": ()}, 256),
        ("StyleGAN2, NVIDIA TensorFlow", {"synthesis/1024x1024/a": (), "lod": ()}, 1024),
        ("unknown", {"main.0.weight": ()}, None),
    ],
)
def test_resolution_is_told_by_names_and_shapes(
    architecture: str, shapes: Any, side: int | None
) -> None:
    """Layers may be numbered or named by their size."""
    assert architectures.resolution(architecture, shapes) == side


def test_pickle_of_networks_shows_their_settings(tmp_path: pathlib.Path) -> None:
    """Each network by its class and the settings it was made with."""
    state = {"version": 4, "variables": [], "components": {}, "static_kwargs": {"resolution": 32}}
    network = Build(New(Global("dnnlib.tflib.network", "Network")), state)
    got = describe(tmp_path, pickled((network, network, network)))
    assert got["format"] == "pickle of NVIDIA, TensorFlow"
    assert got["Gs"] == "dnnlib.tflib.network.Network(resolution=32)"
    module = {"_parameters": {}, "_buffers": {}, "_modules": {}, "_init_kwargs": {"z_dim": 5}}
    meta = {"type": "class", "class_name": "Generator", "state": module}
    rebuilt = Call(Global("torch_utils.persistence", "_reconstruct_persistent_obj"), (meta,))
    got = describe(tmp_path, pickled({"G_ema": rebuilt}))
    assert got["format"] == "pickle of NVIDIA, PyTorch"
    assert got["G_ema"] == "Generator(z_dim=5)"


def _scalar(value: float) -> Call:
    dtype = Call(Global("numpy", "dtype"), ("f8", False, True))
    raw = np.float64(value).tobytes()
    return Call(Global("numpy.core.multiarray", "scalar"), (dtype, raw))


ATTACK = Call(Global("os", "system"), ("touch mark",))


@pytest.mark.parametrize(
    "data",
    [torch_zip(ATTACK, {}), torch_stream(ATTACK, {}), pickled(ATTACK)],
    ids=["zip", "stream", "pickle"],
)
def test_hostile_file_is_called_so(
    data: bytes, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has the name of the function; nothing runs and nothing is raised."""
    monkeypatch.chdir(tmp_path)
    got = describe(tmp_path, data)
    assert not describe_file(tmp_path / "file").is_read
    assert got["HOSTILE"].startswith("refers to 'os.system', which runs code when loaded")
    assert not (tmp_path / "mark").exists()


def _safetensors(arrays: dict[str, np.ndarray], tmp_path: pathlib.Path) -> bytes:
    write_arrays(path := tmp_path / "x.safetensors", arrays, {})
    return path.read_bytes()


@pytest.mark.parametrize("share", [0.02, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("words", [*[*FORMATS][:5], "safetensors"])
def test_half_a_download_is_told_as_such(words: str, share: float, tmp_path: pathlib.Path) -> None:
    """A file cut at any byte is described without an exception and counts as unreadable."""
    arrays = {"a": np.ones((7, 9), np.float32)}
    whole = {
        "PyTorch zip archive": state_dict_file(arrays),
        "PyTorch stream (before version 1.6)": state_dict_file(arrays, legacy=True),
        "NumPy archive": _npz(arrays),
        "NumPy array": _npy(arrays["a"]),
        "pickle of other data": pickled({"a": list(range(50))}),
        "safetensors": _safetensors(arrays, tmp_path),
    }[words]
    path = tmp_path / "file"
    path.write_bytes(whole[: max(9, int(share * len(whole)) - 1)])
    description = describe_file(path)
    assert not description.is_read
    assert re.search("UNREADABLE .*(truncated|incomplete|half a download)", description.text)


UNKNOWN = Build(New(Global("mylib.options", "Options")), {"scale": _scalar(1.5)})


def _module(name: str, parameters: Any, modules: Any) -> Build:
    state = {"_parameters": parameters, "_buffers": {}, "_modules": modules, "training": False}
    return Build(New(Global("torch.nn.modules.container", name)), state)


def test_pickled_module_is_listed_by_the_names_of_its_state(tmp_path: pathlib.Path) -> None:
    """`torch.save(G)`: its unknown classes are harmless, and its arrays are listed."""
    kernel = tensor(storage("0", "float32", 6), (2, 3), (3, 1))
    module = _module("Sequential", {}, {"main": _module("Linear", {"weight": kernel}, {})})
    path = tmp_path / "file"
    path.write_bytes(torch_zip(module, {"0": np.zeros(6, np.float32)}))
    text, is_read = describe_file(path)
    assert is_read
    assert "HOSTILE" not in text
    assert re.search(r"NOT READ +2 objects .*torch\.nn\.modules\.container\.Linear \(1\)", text)
    assert re.search(r"\nmain\.weight +2 x 3 +float32", text)


@pytest.mark.parametrize("as_pickle", [False, True])
def test_stray_object_is_not_read_and_hides_nothing(
    as_pickle: bool, tmp_path: pathlib.Path
) -> None:
    """The arrays beside it and in it are listed."""
    content = {"options": UNKNOWN, "path": Call(Global("pathlib", "PosixPath"), ("a",))}
    path = tmp_path / "file"
    path.write_bytes(pickled(content) if as_pickle else torch_zip(content, {}))
    text, is_read = describe_file(path)
    assert is_read
    assert "NOT READ" in text and "HOSTILE" not in text
    assert re.search(r"\noptions\.scale +scalar", text)


def test_absent_file_is_an_error(tmp_path: pathlib.Path) -> None:
    """There is nothing to describe."""
    with pytest.raises(InputError, match="expected a file; got nothing"):
        describe_file(tmp_path / "absent")


@pytest.mark.golden
@pytest.mark.parametrize("case", ["rosinality", "ada_clamp", "tf_cond"])
def test_stylegan2_of_others_tells_what_it_converts_to(case: str) -> None:
    """The config that the converter infers, the network it takes, and what can be written back."""
    path = golden_case(f"stylegan2_{case}").path("checkpoint")
    config, _, source = read_stylegan2(path)
    text = describe_file(path).text
    assert f"converts to   stylegan2 {json.dumps(config)}\n" in text
    assert re.search(f"from network  {source['network']}\naverage w     in the file\n", text)
    assert f"arrays of {source['network']}" in text and "can be written back" in text


def test_stylegan3_is_told_to_convert_to_nothing(tmp_path: pathlib.Path) -> None:
    """It is recognised by its first layer and not mistaken for StyleGAN2."""
    path = tmp_path / "state.pt"
    path.write_bytes(state_dict_file({"synthesis.input.freqs": np.ones((3, 2), np.float32)}))
    text = describe_file(path).text
    assert re.search(r"converts to +nothing: .* got a StyleGAN3 generator", text)
