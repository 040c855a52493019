"""Stand-ins for the names that PyTorch uses in pickles of tensors.

These are the names that PyTorch's restricted loader (`weights_only=True`) allows. Every dense
tensor becomes an array with the numbers that PyTorch would show:

1. views of storages, also with repeated elements (stride 0) or a conjugate or negative bit;
2. tensors of other devices, which are pickled as NumPy arrays or as CPU tensors;
3. parameters, tensors of a subclass and tensors with attributes; subclass and attributes are lost.

Sparse, quantised and nested tensors, tensors without data and tensors of a type that NumPy lacks
become records. The record's name says what the tensor is.
"""

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from tools.convert_weights.readers.numpy_names import (
    FOREIGN_DTYPES,
    NUMPY_NAMES,
    PYTHON_NAMES,
    array_shape,
    whole_numbers,
)
from tools.convert_weights.readers.stand_ins import (
    MAX_REPEATED_BYTES,
    StandIn,
    allow,
    allow_record,
)
from tools.convert_weights.readers.structure import Record

_BFLOAT16 = FOREIGN_DTYPES["ml_dtypes.bfloat16"]

_STORAGE_DTYPES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": _BFLOAT16,
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
    "ComplexFloatStorage": np.dtype(np.complex64),
    "ComplexDoubleStorage": np.dtype(np.complex128),
    "QInt8Storage": np.dtype(np.int8),
    "QUInt8Storage": np.dtype(np.uint8),
    "QInt32Storage": np.dtype(np.int32),
    "QUInt4x2Storage": np.dtype(np.uint8),
    "QUInt2x4Storage": np.dtype(np.uint8),
}

_DTYPES = {
    name: np.dtype(name)
    for name in (
        *("float64", "float32", "float16", "complex64", "complex128", "bool"),
        *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
    )
} | {name.removeprefix("ml_dtypes."): dtype for name, dtype in FOREIGN_DTYPES.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class Storage:
    """The flat memory that tensors are views of, as a one-dimensional array."""

    array: np.ndarray


def storage_request(identity: Any, fields: int) -> tuple[str, np.dtype[Any], int]:
    """Returns key, dtype and count of a persistent id ("storage", class, key, device, count).

    fields: 5 in a zip archive; 6 in the old stream, where the last one is for views of storages,
      which files since 2017 do not have. The device is ignored.

    Raises: ValueError if the persistent id has another form.
    """
    if not isinstance(identity, tuple) or len(identity) != fields or identity[0] != "storage":
        raise ValueError(f"a persistent id that is no storage of {fields} fields")
    _, kind, key, _, count, *view = identity
    is_storage = isinstance(kind, StandIn) and kind.name.endswith("Storage")
    if not is_storage or not isinstance(kind.value, np.dtype):
        raise ValueError("a storage without a storage class")
    if type(key) is not str or type(count) is not int or count < 0:
        raise ValueError("a storage without a key or an element count")
    if any(view):
        raise ValueError("a storage that is a view of another one")
    return key, kind.value, count


def _view(flat: np.ndarray, offset: Any, sizes: Any, strides: Any) -> np.ndarray:
    """Returns the tensor as a read-only view of its storage; offset and strides count elements.

    A view may repeat elements up to a limit, because a copy of it takes the memory of all of them.
    """
    (offset,) = whole_numbers((offset,), "offset")
    sizes, strides = array_shape(sizes), whole_numbers(strides, "strides")
    if len(sizes) != len(strides):
        raise ValueError(f"expected one stride for each size, got {sizes} and {strides}")
    last = offset + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
    count = math.prod(sizes)
    if count and last >= flat.size:
        raise ValueError(
            f"expected sizes inside a storage of {flat.size} elements, "
            f"got offset {offset}, sizes {list(sizes)}, strides {list(strides)}"
        )
    if count > flat.size and count * flat.itemsize > MAX_REPEATED_BYTES:
        raise ValueError(
            f"expected up to {MAX_REPEATED_BYTES} bytes of repeated elements, got sizes "
            f"{list(sizes)}, strides {list(strides)}"
        )
    if not count:
        return np.empty(sizes, flat.dtype)
    view = np.ndarray(
        sizes,
        flat.dtype,
        buffer=flat,
        offset=offset * flat.itemsize,
        strides=tuple(step * flat.itemsize for step in strides),
    )
    view.flags.writeable = False
    return view


def _with_marks(view: np.ndarray, marks: Any) -> np.ndarray:
    """Applies the conjugate and negative bits, which PyTorch stores instead of changed numbers."""
    if marks is not None and not isinstance(marks, dict):
        raise TypeError("expected the bits conj and neg of a tensor, in a dict")
    given = {key for key, is_set in (marks or {}).items() if is_set is True}
    if given - {"conj", "neg"}:
        raise ValueError(f"expected the bits conj and neg, got {sorted(map(str, given))}")
    view = np.conj(view) if "conj" in given else view
    return np.negative(view) if "neg" in given else view


def _flat(storage: Any) -> np.ndarray:
    if not isinstance(storage, Storage):
        raise TypeError(f"expected a storage, got {type(storage).__name__}")
    return storage.array


def _tensor(
    storage: Any,
    offset: Any,
    sizes: Any,
    strides: Any,
    requires_grad: Any = False,
    hooks: Any = None,
    marks: Any = None,
) -> np.ndarray:
    return _with_marks(_view(_flat(storage), offset, sizes, strides), marks)


def _typed_tensor(
    storage: Any,
    offset: Any,
    sizes: Any,
    strides: Any,
    requires_grad: Any,
    hooks: Any,
    dtype: Any,
    marks: Any = None,
) -> np.ndarray | Record:
    """Returns a tensor of a newer dtype without a storage class: its storage is raw bytes."""
    kind = _resolve(dtype)
    if kind is None:
        return _not_dense(f"of {dtype.name}", storage, offset, sizes, strides)
    raw = _flat(storage).view(np.uint8)
    flat = raw[: raw.size // kind.itemsize * kind.itemsize].view(kind)
    return _with_marks(_view(flat, offset, sizes, strides), marks)


def _resolve(dtype: Any) -> np.dtype[Any] | None:
    """Returns the NumPy dtype of a PyTorch dtype, or None if NumPy lacks it."""
    if not isinstance(dtype, StandIn) or not dtype.name.startswith("torch."):
        raise TypeError("expected a dtype of PyTorch")
    return dtype.value if isinstance(dtype.value, np.dtype) else None


def _device_tensor(data: Any, dtype: Any, device: Any, requires_grad: Any) -> np.ndarray | Record:
    """Returns a tensor of a device whose storages cannot be pickled; `data` holds its numbers."""
    kind = _resolve(dtype)
    if kind is None or isinstance(data, Record):
        return _not_dense(f"of {dtype.name}", data)
    if not isinstance(data, np.ndarray):
        raise TypeError(f"expected an array, got {type(data).__name__}")
    if data.dtype.kind == "c" and kind.kind != "c":
        raise ValueError(f"expected real numbers for {kind}, got {data.dtype}")
    with np.errstate(all="ignore"):
        return data if data.dtype == kind else data.astype(kind)


def _parameter(tensor: Any, requires_grad: Any = False, *ignored: Any) -> np.ndarray | Record:
    if not isinstance(tensor, np.ndarray | Record):
        raise TypeError(f"expected a tensor, got {type(tensor).__name__}")
    return tensor


def _of_type(function: Any, kind: Any, arguments: Any, state: Any = None) -> Any:
    """Returns a tensor of a subclass or with attributes, made by the call for the plain tensor."""
    if not isinstance(function, StandIn) or not isinstance(arguments, tuple):
        raise TypeError("expected a function and its arguments")
    if not function.name.startswith("torch._utils.") or function.call is None:
        raise ValueError(f"expected a function that makes a tensor, got {function.name}")
    return function.call(*arguments)


def _not_dense(what: str, *arguments: Any) -> Record:
    return Record(f"torch.Tensor, {what}", arguments, is_known=False)


def _layout(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError("expected the name of a layout")
    return name


def _size(items: Any = ()) -> tuple[int, ...]:
    return whole_numbers(items, "torch.Size")


def _device(kind: Any, index: Any = None) -> str:
    if not isinstance(kind, str) or not isinstance(index, int | None):
        raise TypeError("expected the name of a device and its number")
    return kind if index is None else f"{kind}:{index}"


_NOT_DENSE = {
    "_rebuild_sparse_tensor": "sparse",
    "_rebuild_qtensor": "quantised",
    "_rebuild_nested_tensor": "nested",
    "_rebuild_meta_tensor_no_storage": "without data (meta)",
    "_rebuild_wrapper_subclass": "of a subclass without data",
}

TORCH_NAMES = (
    PYTHON_NAMES
    | NUMPY_NAMES
    | allow(["torch._utils"], "_rebuild_tensor", _tensor)
    | allow(["torch._utils"], "_rebuild_tensor_v2", _tensor)
    | allow(["torch._utils"], "_rebuild_tensor_v3", _typed_tensor)
    | allow(["torch._utils"], "_rebuild_parameter", _parameter)
    | allow(["torch._utils"], "_rebuild_parameter_with_state", _parameter)
    | allow(["torch._utils"], "_rebuild_device_tensor_from_numpy", _device_tensor)
    | allow(["torch._utils"], "_rebuild_device_tensor_from_cpu_tensor", _device_tensor)
    | allow(["torch._utils"], "_rebuild_xla_tensor", _device_tensor)
    | allow(["torch._tensor"], "_rebuild_from_type", _of_type)
    | allow(["torch._tensor"], "_rebuild_from_type_v2", _of_type)
    | allow(["torch.nn.parameter", "torch.nn"], "Parameter", _parameter)
    | allow(["torch"], "Size", _size)
    | allow(["torch"], "device", _device)
    | allow(["torch.serialization"], "_get_layout", _layout)
    | allow(["torch.storage", "torch"], "UntypedStorage", value=np.dtype(np.uint8))
    | allow(["torch.storage", "torch"], "_UntypedStorage", value=np.dtype(np.uint8))
    | allow_record(["argparse"], "Namespace")
)
for _name, _dtype in _STORAGE_DTYPES.items():
    TORCH_NAMES |= allow(["torch", "torch.cuda"], _name, value=_dtype)
for _name, _dtype in _DTYPES.items():
    TORCH_NAMES |= allow(["torch"], _name, value=_dtype)
for _name, _what in _NOT_DENSE.items():
    TORCH_NAMES |= allow(["torch._utils"], _name, functools.partial(_not_dense, _what))
