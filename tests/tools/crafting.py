"""Writes pickles, PyTorch files and archives byte by byte, also impossible ones."""

import dataclasses
import io
import itertools
import struct
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

STORAGE_CLASSES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
    "complex64": "ComplexFloatStorage",
    "complex128": "ComplexDoubleStorage",
}


@dataclasses.dataclass(frozen=True)
class Global:
    """The opcode GLOBAL."""

    module: str
    name: str


@dataclasses.dataclass(frozen=True)
class Call:
    """The opcode REDUCE."""

    function: Any
    arguments: Any


@dataclasses.dataclass(frozen=True)
class New:
    """The opcode NEWOBJ."""

    kind: Any
    arguments: tuple[Any, ...] = ()


@dataclasses.dataclass(frozen=True)
class Build:
    """The opcode BUILD."""

    target: Any
    state: Any


@dataclasses.dataclass(frozen=True)
class Persistent:
    """The opcode BINPERSID."""

    identity: Any


@dataclasses.dataclass(frozen=True)
class Raw:
    """Raw opcodes."""

    opcodes: bytes


def opcodes(value: Any) -> bytes:
    """Returns the opcodes that push a value."""
    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + struct.pack("<B", len(raw)) + raw
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case bytes():
            return b"B" + struct.pack("<I", len(value)) + value
        case tuple():
            return b"(" + b"".join(map(opcodes, value)) + b"t"
        case list():
            return b"](" + b"".join(map(opcodes, value)) + b"e"
        case dict():
            items = (opcodes(key) + opcodes(item) for key, item in value.items())
            return b"}(" + b"".join(items) + b"u"
        case Global(module, name):
            return f"c{module}\n{name}\n".encode()
        case Call(function, arguments):
            return opcodes(function) + opcodes(arguments) + b"R"
        case New(kind, arguments):
            return opcodes(kind) + opcodes(arguments) + b"\x81"
        case Build(target, state):
            return opcodes(target) + opcodes(state) + b"b"
        case Persistent(identity):
            return opcodes(identity) + b"Q"
        case Raw(raw):
            return raw
    raise TypeError(type(value))


def pickled(value: Any, protocol: int = 2) -> bytes:
    """Returns a whole pickle."""
    return b"\x80" + bytes([protocol]) + opcodes(value) + b"."


def storage(key: Any, dtype: str, count: Any, *, legacy: bool = False, place: Any = "cpu") -> Any:
    """Returns the reference to a storage of the zip archive, or of the old stream."""
    kind = Global("torch", STORAGE_CLASSES[dtype])
    return Persistent(("storage", kind, key, place, count, *([None] if legacy else [])))


def tensor(
    memory: Any, size: Any, stride: Any, offset: Any = 0, function: str = "_rebuild_tensor_v2"
) -> Call:
    """Returns a view of a storage."""
    hooks = Call(Global("collections", "OrderedDict"), ())
    return Call(Global("torch._utils", function), (memory, offset, size, stride, False, hooks))


def row_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the strides, in elements, of a contiguous array."""
    return tuple(int(np.prod(shape[axis + 1 :], dtype=int)) for axis in range(len(shape)))


def zip_archive(members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """Returns a zip archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def torch_zip(
    content: Any, storages: Mapping[str, np.ndarray], extra: Mapping[str, bytes] | None = None
) -> bytes:
    """Returns a zip archive as torch.save makes it."""
    members = {"archive/data.pkl": pickled(content), "archive/version": b"3\n"}
    members |= {f"archive/data/{key}": array.tobytes() for key, array in storages.items()}
    return zip_archive(members | dict(extra or {}))


MAGIC = 0x1950A86A20F9469CFC6C
PROPERTIES = {
    "protocol_version": 1001,
    "little_endian": True,
    "type_sizes": {"short": 2, "int": 4, "long": 4},
}


def torch_stream(
    content: Any,
    storages: Mapping[str, np.ndarray],
    *,
    version: Any = 1001,
    properties: Any = PROPERTIES,
    keys: Any = None,
) -> bytes:
    """Returns an old stream as torch.save makes it."""
    head = (MAGIC, version, properties, content, list(storages) if keys is None else keys)
    raw = (struct.pack("<q", array.size) + array.tobytes() for array in storages.values())
    return b"".join([*map(pickled, head), *raw])


def state_dict(arrays: Mapping[str, np.ndarray], *, legacy: bool = False) -> tuple[Any, Any]:
    """Returns (content, storages) of a state dict in which each array has its own storage."""
    memories = {str(index): array for index, array in enumerate(arrays.values())}
    content = {
        name: tensor(
            storage(key, array.dtype.name, array.size, legacy=legacy),
            array.shape,
            row_strides(array.shape),
        )
        for (name, array), key in zip(arrays.items(), memories, strict=True)
    }
    return content, memories


def state_dict_file(arrays: Mapping[str, np.ndarray], *, legacy: bool = False) -> bytes:
    """Returns a whole file with a state dict."""
    content, memories = state_dict(arrays, legacy=legacy)
    return (torch_stream if legacy else torch_zip)(content, memories)


def dcgan_state(
    z_dim: int = 5, widths: Sequence[int] = (7, 3), image_channels: int = 3, seed: int = 0
) -> dict[str, np.ndarray]:
    """Returns the state dict of a small DCGAN, in PyTorch's names and layout."""
    random = np.random.RandomState(seed)
    sizes = (z_dim, *widths, image_channels)
    state: dict[str, np.ndarray] = {}
    for index, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        state[f"main.{3 * index}.weight"] = random.standard_normal((inputs, outputs, 4, 4))
        if index < len(widths):
            for part in ("weight", "bias", "running_mean"):
                state[f"main.{3 * index + 1}.{part}"] = random.standard_normal(outputs)
            state[f"main.{3 * index + 1}.running_var"] = 0.5 + random.random_sample(outputs)
    state = {key: array.astype(np.float32) for key, array in state.items()}
    return state | {"main.1.num_batches_tracked": np.array(9, np.int64)}


def by_module(state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Returns a module's own values, and the state dict of each of its submodules."""
    own: dict[str, Any] = {}
    below: dict[str, dict[str, Any]] = {}
    for name, value in state.items():
        child, dot, rest = name.partition(".")
        if dot:
            below.setdefault(child, {})[rest] = value
        else:
            own[name] = value
    return own, below


def resnet18_shapes() -> dict[str, tuple[int, ...]]:
    """Returns the names and shapes of the weights of torchvision's ResNet-18."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7)}
    shapes |= {"fc.weight": (1000, 512), "fc.bias": (1000,)}
    norms, inputs = {"bn1": 64}, 64
    for layer, features in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            name = f"layer{layer}.{block}"
            shapes[f"{name}.conv1.weight"] = (features, inputs, 3, 3)
            shapes[f"{name}.conv2.weight"] = (features, features, 3, 3)
            norms |= {f"{name}.bn1": features, f"{name}.bn2": features}
            if inputs != features:
                shapes[f"{name}.downsample.0.weight"] = (features, inputs, 1, 1)
                norms[f"{name}.downsample.1"] = features
            inputs = features
    for name, features in norms.items():
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (features,)
    return shapes


def numpy_array(array: np.ndarray, *, as_text: bool = False) -> Build:
    """Returns an array as NumPy pickles it; `as_text` is protocol 2, which has no bytes."""
    empty = Call(
        Global("numpy.core.multiarray", "_reconstruct"), (Global("numpy", "ndarray"), (0,), b"b")
    )
    kind = Call(Global("numpy", "dtype"), (array.dtype.str[1:], False, True))
    dtype = Build(kind, (3, "<", None, None, None, -1, -1, 0))
    data: Any = array.tobytes()
    if as_text:
        data = Call(Global("_codecs", "encode"), (data.decode("latin1"), "latin1"))
    return Build(empty, (1, array.shape, dtype, False, data))


def tensorflow_file(networks: Mapping[str, Any], *, as_text: bool = False) -> bytes:
    """Returns a pickle of NVIDIA's TensorFlow programs with the networks that a reader found."""

    def network(record: Any) -> Build:
        state = dict(record.state)
        state["variables"] = [
            (name, numpy_array(np.asarray(array), as_text=as_text))
            for name, array in state["variables"]
        ]
        state["components"] = {key: network(x) for key, x in state["components"].items()}
        return Build(New(Global("dnnlib.tflib.network", "Network")), state)

    return pickled(tuple(network(networks[name]) for name in ("G", "D", "Gs")), 3)
