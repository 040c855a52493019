"""Pickles of NVIDIA's StyleGAN2: networks come back as arrays, their source is never executed."""

import pathlib
from typing import Any

import numpy as np
import pytest

from navigan_jax.errors import InputError
from tests.tools.converting import arrays_of, read_nvidia
from tests.tools.crafting import (
    Build,
    Call,
    Global,
    New,
    Raw,
    opcodes,
    pickled,
    row_strides,
    storage,
    tensor,
    torch_stream,
)
from tools.convert_weights.readers.nvidia_file import networks_in
from tools.convert_weights.readers.unpickle import ForbiddenName

LOAD = Global("torch.storage", "_load_from_bytes")
NETWORK = Global("dnnlib.tflib.network", "Network")
EASY = Global("dnnlib.util", "EasyDict")


def _tensor(array: np.ndarray) -> Call:
    """Returns a tensor as such a pickle stores it: its storage is a whole stream, as bytes."""
    memory = storage("0", array.dtype.name, array.size, legacy=True)
    raw = torch_stream(memory, {"0": array})
    return tensor(Call(LOAD, (raw,)), array.shape, row_strides(array.shape))


def _module(name: str, state: dict[str, Any]) -> Call:
    meta = {"type": "class", "version": 6, "class_name": name, "state": state}
    meta["module_src"] = "raise SystemExit('executed')"
    return Call(Global("torch_utils.persistence", "_reconstruct_persistent_obj"), (meta,))


def _state(
    parameters: dict[str, Any], buffers: dict[str, Any], modules: dict[str, Any]
) -> dict[str, Any]:
    return {"_parameters": parameters, "_buffers": buffers, "_modules": modules}


CONST = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
FILTER = np.ones((4, 4), np.float32)


def _generator() -> Call:
    easy = Raw(opcodes(New(EASY)) + b"(" + opcodes("z_dim") + opcodes(7) + b"u")
    block = _module("SynthesisBlock", _state({"const": _tensor(CONST), "bias": None}, {}, {}))
    inner = _state({}, {"resample_filter": _tensor(FILTER)}, {"b4": block, "none": None})
    outer = _state({}, {}, {"synthesis": _module("SynthesisNetwork", inner)})
    return _module("Generator", outer | {"_init_kwargs": easy})


def _write(path: pathlib.Path, content: Any, protocol: int = 3) -> pathlib.Path:
    file = path / "network.pkl"
    file.write_bytes(pickled(content, protocol))
    return file


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pytorch_networks_come_back(protocol: int, tmp_path: pathlib.Path) -> None:
    """Parameters and buffers at all depths by their names; settings are data; no source is kept."""
    content = {"G_ema": _generator(), "augment_pipe": None, "training_set_kwargs": {}}
    networks = read_nvidia(_write(tmp_path, content, protocol))
    assert list(networks) == ["G_ema"]
    record = networks["G_ema"]
    assert (record.name, record.state["_init_kwargs"]) == ("Generator", {"z_dim": 7})
    got = arrays_of(record)
    assert sorted(got) == ["synthesis.b4.const", "synthesis.resample_filter"]
    np.testing.assert_array_equal(got["synthesis.b4.const"], CONST)
    np.testing.assert_array_equal(got["synthesis.resample_filter"], FILTER)
    assert "executed" not in repr(record)


def _tf_network(variables: Any, components: Any) -> Build:
    state = {"version": 4, "variables": variables, "components": components}
    return Build(New(NETWORK), state | {"build_module_src": "raise SystemExit('executed')"})


def _scalar(value: float) -> Call:
    dtype = Build(
        Call(Global("numpy", "dtype"), ("f4", False, True)),
        (3, "<", None, None, None, -1, -1, 0),
    )
    return Call(Global("numpy.core.multiarray", "scalar"), (dtype, np.float32(value).tobytes()))


def test_tensorflow_networks_come_back(tmp_path: pathlib.Path) -> None:
    """Variables of a network and of its components, joined by slashes."""
    mapping = _tf_network([("Dense0/bias", _scalar(2.5))], {})
    network = _tf_network([("lod", _scalar(0.0))], {"mapping": mapping})
    networks = read_nvidia(_write(tmp_path, (network, network, network)))
    assert list(networks) == ["G", "D", "Gs"]
    assert arrays_of(networks["Gs"]) == {"lod": 0, "mapping/Dense0/bias": 2.5}


@pytest.mark.parametrize(
    "content",
    [[1, 2], {"G_ema": {}}, {}, (1, 2, 3), (None,), None],
    ids=["list", "dict", "empty", "numbers", "one", "none"],
)
def test_other_content_has_no_networks(content: Any) -> None:
    assert networks_in(content) == {}


HOSTILE = {
    "command beside a network": {"G_ema": _generator(), "x": Global("os", "system")},
    "command inside a module": _module("Generator", {"x": Global("os", "system")}),
    "command inside a storage": Call(LOAD, (torch_stream(Global("os", "system"), {}),)),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_command_is_named_and_not_run(case: str, tmp_path: pathlib.Path) -> None:
    """In any place, also in the stream of a storage."""
    with pytest.raises(ForbiddenName, match=r"refers to 'os\.system'; nothing was executed"):
        read_nvidia(_write(tmp_path, HOSTILE[case]))


REFUSED = {
    "storage of a text": (Call(LOAD, ("text",)), "the bytes of a storage"),
    "storage that is a list": (
        Call(LOAD, (torch_stream([], {}),)),
        "expected a storage, got another object",
    ),
    "storage in a storage": (
        Call(LOAD, (torch_stream(Call(LOAD, (b"",)), {}),)),
        r"refers to 'torch\.storage\._load_from_bytes'",
    ),
    "storage of many opcodes": (
        Call(LOAD, (torch_stream([None] * 300, {}),)),
        "more than 200 opcodes",
    ),
    "module of no class": (
        Call(Global("torch_utils.persistence", "_reconstruct_persistent_obj"), ({},)),
        "the description of a module",
    ),
    "module of no dict": (
        Call(Global("torch_utils.persistence", "_reconstruct_persistent_obj"), (3,)),
        "the description of a module",
    ),
    "module without a state": (
        Call(
            Global("torch_utils.persistence", "_reconstruct_persistent_obj"),
            ({"type": "class", "class_name": "G"},),
        ),
        "class name and state",
    ),
    "filled EasyDict": (New(EASY, ({"a": 1},)), "wrong arguments for dnnlib"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_impossible_network_is_refused(case: str, tmp_path: pathlib.Path) -> None:
    """A file that the official writers cannot produce is reported as damaged."""
    content, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        read_nvidia(_write(tmp_path, content))


def test_one_storage_loaded_again_and_again_is_refused(tmp_path: pathlib.Path) -> None:
    """Each load reads the whole stream anew: work and memory beyond the size of the file."""
    raw = torch_stream(storage("0", "uint8", 100_000, legacy=True), {"0": np.zeros(100_000, "u1")})
    load = opcodes(LOAD) + b"q\1" + opcodes(raw) + b"q\2\x85R"
    again = b"h\1h\2\x85R"
    file = tmp_path / "network.pkl"
    file.write_bytes(b"\x80\x03](" + load + again * 1_000 + b"e.")
    with pytest.raises(InputError, match="grows to many times the size of the file"):
        read_nvidia(file)
