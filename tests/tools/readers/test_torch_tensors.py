"""Every dense tensor that PyTorch's restricted loader allows is read with PyTorch's values."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from navigan_jax.errors import InputError
from tests.tools.converting import named_arrays
from tests.tools.crafting import (
    Call,
    Global,
    New,
    Persistent,
    numpy_array,
    row_strides,
    storage,
    tensor,
    torch_stream,
    torch_zip,
)
from tools.convert_weights.readers.structure import Record, unknown_classes
from tools.convert_weights.readers.torch_file import read_torch_bytes

LEGACY = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "stream"])
WEIGHTS = np.arange(6, dtype=np.float32).reshape(2, 3)
HOOKS = Call(Global("collections", "OrderedDict"), ())


def rebuild(name: str) -> Global:
    return Global("torch._utils", name)


def read(content: Any, memory: np.ndarray = WEIGHTS, *, legacy: bool = False) -> Any:
    """Returns `w` of a file with this content and one storage, "0"."""
    write = torch_stream if legacy else torch_zip
    return read_torch_bytes(write({"w": content}, {"0": memory}), "file")["w"]


def plain(legacy: bool = False, **options: Any) -> Call:
    return tensor(storage("0", "float32", 6, legacy=legacy), (2, 3), (3, 1), **options)


def marked(memory: np.ndarray, marks: Any) -> Call:
    """Returns a tensor with the marks that PyTorch sets in place of conjugating or negating."""
    fields = (storage("0", memory.dtype.name, memory.size), 0, memory.shape)
    strides = row_strides(memory.shape)
    return Call(rebuild("_rebuild_tensor_v2"), (*fields, strides, False, HOOKS, marks))


def of_type(kind: Any, function: str, arguments: Any, state: Any) -> Call:
    return Call(
        Global("torch._tensor", "_rebuild_from_type_v2"),
        (rebuild(function), kind, arguments, state),
    )


WRAPPED = {
    "parameter": Call(rebuild("_rebuild_parameter"), (plain(), True, HOOKS)),
    "parameter with attributes": Call(
        rebuild("_rebuild_parameter_with_state"), (plain(), True, HOOKS, {"tag": [1]})
    ),
    "parameter by its class": New(Global("torch.nn.parameter", "Parameter"), (plain(), True)),
    "with attributes": of_type(
        Global("torch", "Tensor"), "_rebuild_tensor_v2", plain().arguments, {"tag": "x"}
    ),
    "of an unknown subclass": of_type(
        Global("mylib.tensors", "Named"), "_rebuild_tensor_v2", plain().arguments, None
    ),
    "from NumPy, of Apple's device": Call(
        rebuild("_rebuild_device_tensor_from_numpy"),
        (numpy_array(WEIGHTS, as_text=True), Global("torch", "float32"), "mps:0", False),
    ),
    "from NumPy, of XLA in old files": Call(
        rebuild("_rebuild_xla_tensor"),
        (numpy_array(WEIGHTS), Global("torch", "float32"), "xla:1", False),
    ),
    "from the CPU": Call(
        rebuild("_rebuild_device_tensor_from_cpu_tensor"),
        (plain(), Global("torch", "float32"), "xla:0", True),
    ),
}


@pytest.mark.parametrize("case", WRAPPED)
def test_wrapped_tensor_is_the_array(case: str) -> None:
    """Attributes and wrappers of a tensor leave the numbers of its storage unchanged."""
    got = read(WRAPPED[case])
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, WEIGHTS)


def test_tensor_of_another_device_takes_the_type_told() -> None:
    """NumPy has no bfloat16, so the numbers come as float32 and the type beside them."""
    content = Call(
        rebuild("_rebuild_device_tensor_from_numpy"),
        (numpy_array(WEIGHTS), Global("torch", "bfloat16"), "mps:0", False),
    )
    got = read(content)
    assert got.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(got.astype(np.float32), WEIGHTS)


COMPLEX = np.array([1 + 2j, -3j, 4], np.complex64)


@pytest.mark.parametrize(
    ("memory", "marks", "shown"),
    [
        (COMPLEX, {"conj": True}, COMPLEX.conj()),
        (COMPLEX, {"conj": True, "neg": True}, -COMPLEX.conj()),
        (COMPLEX, {"conj": False}, COMPLEX),
        (WEIGHTS, {"neg": True}, -WEIGHTS),
        (WEIGHTS, {}, WEIGHTS),
    ],
)
def test_marks_of_a_tensor_are_carried_out(memory: Any, marks: Any, shown: Any) -> None:
    """PyTorch conjugates and negates by a mark beside the same memory."""
    np.testing.assert_array_equal(read(marked(memory, marks), memory), shown)


@LEGACY
@pytest.mark.parametrize(
    ("size", "stride", "shown"),
    [
        ((4, 3), (0, 1), np.tile(WEIGHTS[0], (4, 1))),
        ((18, 2, 3), (0, 3, 1), np.broadcast_to(WEIGHTS, (18, 2, 3))),
        ((4, 3), (1, 1), np.lib.stride_tricks.sliding_window_view(WEIGHTS.ravel(), 3)),
    ],
    ids=["row", "all", "windows"],
)
def test_repeated_elements_are_read(size: Any, stride: Any, shown: Any, legacy: bool) -> None:
    """Stride 0 of `expand`, and windows that overlap."""
    content = tensor(storage("0", "float32", 6, legacy=legacy), size, stride)
    np.testing.assert_array_equal(read(content, legacy=legacy), shown)


YOUNG = ["uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz"]


@LEGACY
@pytest.mark.parametrize("dtype", YOUNG)
def test_type_without_a_storage_class_is_read(dtype: str, legacy: bool) -> None:
    """Their storages are bytes, and the tensor tells the type; also at an offset."""
    kind = np.dtype(getattr(ml_dtypes, dtype) if dtype.startswith("float8") else dtype)
    numbers = np.arange(8).astype(kind)
    place = Persistent(
        ("storage", Global("torch.storage", "UntypedStorage"), "0", "cpu", numbers.nbytes)
        + ((None,) if legacy else ())
    )
    content = Call(
        rebuild("_rebuild_tensor_v3"),
        (place, 2, (2, 3), (3, 1), False, HOOKS, Global("torch", dtype)),
    )
    got = read(content, numbers.view(np.uint8), legacy=legacy)
    assert got.dtype == kind
    np.testing.assert_array_equal(got.astype(float), np.arange(2.0, 8).reshape(2, 3))


def _quantised() -> Call:
    parameters = (Global("torch", "per_tensor_affine"), 0.5, 3)
    place = Persistent(("storage", Global("torch", "QUInt8Storage"), "1", "cpu", 6))
    return Call(rebuild("_rebuild_qtensor"), (place, 0, (2, 3), (3, 1), parameters, False, HOOKS))


NOT_DENSE = {
    "sparse": Call(
        rebuild("_rebuild_sparse_tensor"),
        (
            Call(Global("torch.serialization", "_get_layout"), ("torch.sparse_coo",)),
            (plain(), plain(), Call(Global("torch", "Size"), ((5, 5),)), True),
        ),
    ),
    "quantised": _quantised(),
    "nested": Call(rebuild("_rebuild_nested_tensor"), (plain(), plain(), plain(), plain())),
    "without data (meta)": Call(
        rebuild("_rebuild_meta_tensor_no_storage"),
        (Global("torch", "float32"), (2, 3), (3, 1), False),
    ),
    "of torch.complex32": Call(
        rebuild("_rebuild_tensor_v3"),
        (storage("0", "float32", 6), 0, (1,), (1,), False, HOOKS, Global("torch", "complex32")),
    ),
}


@pytest.mark.parametrize("what", NOT_DENSE)
def test_tensor_that_is_not_dense_is_told_and_ends_nothing(what: str) -> None:
    """Its record names its kind, also below a parameter; the weights beside it are read."""
    parameter = Call(rebuild("_rebuild_parameter"), (NOT_DENSE[what], False, HOOKS))
    data = torch_zip({"odd": parameter, "w": plain()}, {"0": WEIGHTS, "1": np.zeros(6, np.uint8)})
    got = read_torch_bytes(data, "file")
    assert isinstance(got["odd"], Record)
    assert unknown_classes(got) == {f"torch.Tensor, {what}": 1}
    np.testing.assert_array_equal(named_arrays(got)["w"], WEIGHTS)


def test_plain_values_of_torch_and_python_are_read() -> None:
    """What the restricted loader allows beside tensors."""
    content = {
        "size": Call(Global("torch", "Size"), ((2, 3),)),
        "device": Call(Global("torch", "device"), ("cuda", 1)),
        "counter": Call(Global("collections", "Counter"), ({"a": 2},)),
        "default": Call(Global("collections", "defaultdict"), (Global("builtins", "list"),)),
        "set": Call(Global("builtins", "set"), ([1, 2],)),
        "bytes": Call(Global("builtins", "bytearray"), ("a\xff", "latin-1")),
        "complex": Call(Global("builtins", "complex"), (1.0, -2.0)),
    }
    got = read(content)
    assert got == {
        "size": (2, 3),
        "device": "cuda:1",
        "counter": {"a": 2},
        "default": {},
        "set": {1, 2},
        "bytes": bytearray(b"a\xff"),
        "complex": 1 - 2j,
    }


REFUSED = {
    "unknown mark": (marked(WEIGHTS, {"transposed": True}), "bits conj and neg"),
    "marks that are none": (marked(WEIGHTS, [1]), "the bits conj and neg of a tensor"),
    "type that is none": (
        Call(rebuild("_rebuild_tensor_v3"), (*plain().arguments, "float32")),
        "a dtype of PyTorch",
    ),
    "text for an array": (
        Call(
            rebuild("_rebuild_device_tensor_from_numpy"),
            ("x", Global("torch", "float32"), "mps", False),
        ),
        "an array, got str",
    ),
    "complex for real": (
        Call(
            rebuild("_rebuild_device_tensor_from_cpu_tensor"),
            (numpy_array(COMPLEX), Global("torch", "float32"), "xla", False),
        ),
        "real numbers",
    ),
    "subclass made by another function": (
        Call(
            Global("torch._tensor", "_rebuild_from_type_v2"),
            (Global("builtins", "bytes"), Global("torch", "Tensor"), (), None),
        ),
        r"a function that makes a tensor, got builtins\.bytes",
    ),
    "subclass made by itself": (
        Call(
            Global("torch._tensor", "_rebuild_from_type_v2"),
            (Global("torch._tensor", "_rebuild_from_type_v2"), None, (), None),
        ),
        "a function that makes a tensor",
    ),
    "layout that is no text": (
        Call(Global("torch.serialization", "_get_layout"), (1,)),
        "the name of a layout",
    ),
    "bytes of a number": (Call(Global("builtins", "bytearray"), (2**40,)), "expected bytes"),
    "complex of a text": (Call(Global("builtins", "complex"), ("1", 2)), "two numbers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_impossible_tensor_is_refused(case: str) -> None:
    """No argument reaches code, or more memory than the file's size justifies."""
    content, message = REFUSED[case]
    with pytest.raises(InputError, match=rf"^file: .*{message}"):
        read(content)
