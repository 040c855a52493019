"""Stand-ins for the names that PyTorch uses in pickles of tensors."""

import dataclasses
import math
from typing import Any

import ml_dtypes
import numpy as np

from tools.convert_weights.readers.numpy_names import (
    NUMPY_NAMES,
    PYTHON_NAMES,
    array_shape,
    whole_numbers,
)
from tools.convert_weights.readers.stand_ins import StandIn, allow, allow_record

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

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
}

_DTYPES = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": _BFLOAT16,
    "int64": np.dtype(np.int64),
    "int32": np.dtype(np.int32),
    "int16": np.dtype(np.int16),
    "int8": np.dtype(np.int8),
    "uint8": np.dtype(np.uint8),
    "bool": np.dtype(np.bool_),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Storage:
    """The flat memory that tensors are views of, as a one-dimensional array."""

    array: np.ndarray


def storage_request(identity: Any, fields: int) -> tuple[str, np.dtype[Any], int]:
    """Returns key, dtype and element count of a persistent id: storage, class, key, place, count.

    fields: 5 in a zip archive; 6 in the old stream, the last one for views of storages, which
      files since 2017 do not have. The place, a device, does not matter here.

    Raises: ValueError if it is anything else.
    """
    if not isinstance(identity, tuple) or len(identity) != fields or identity[0] != "storage":
        raise ValueError(f"a persistent id that is no storage of {fields} fields")
    _, kind, key, _, count, *view = identity
    if not isinstance(kind, StandIn) or not kind.name.endswith("Storage"):
        raise ValueError("a storage without a storage class")
    if type(key) is not str or type(count) is not int or count < 0:
        raise ValueError("a storage without a key or an element count")
    if any(view):
        raise ValueError("a storage that is a view of another one")
    return key, kind.value, count


def _tensor(storage: Any, offset: Any, sizes: Any, strides: Any, *ignored: Any) -> np.ndarray:
    """Returns the tensor as a read-only view of its storage; offset and strides count elements.

    Views with more elements than the storage has are refused: copied, they would grow at will.
    """
    if not isinstance(storage, Storage):
        raise TypeError(f"expected a storage, got {type(storage).__name__}")
    (offset,) = whole_numbers((offset,), "offset")
    sizes, strides = array_shape(sizes), whole_numbers(strides, "strides")
    if len(sizes) != len(strides):
        raise ValueError(f"expected one stride for each size, got {sizes} and {strides}")
    flat = storage.array
    last = offset + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
    count = math.prod(sizes)
    if count and (last >= flat.size or count > flat.size):
        raise ValueError(
            f"expected sizes inside a storage of {flat.size} elements, "
            f"got offset {offset}, sizes {list(sizes)}, strides {list(strides)}"
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


def _parameter(tensor: Any, requires_grad: Any = False, *ignored: Any) -> np.ndarray:
    if not isinstance(tensor, np.ndarray):
        raise TypeError(f"expected a tensor, got {type(tensor).__name__}")
    return tensor


def _size(items: Any = ()) -> tuple[int, ...]:
    return whole_numbers(items, "torch.Size")


def _device(kind: Any, index: Any = None) -> str:
    if not isinstance(kind, str) or not isinstance(index, int | None):
        raise TypeError("expected the name of a device and its number")
    return kind if index is None else f"{kind}:{index}"


TORCH_NAMES = (
    PYTHON_NAMES
    | NUMPY_NAMES
    | allow(["torch._utils"], "_rebuild_tensor", _tensor)
    | allow(["torch._utils"], "_rebuild_tensor_v2", _tensor)
    | allow(["torch._utils"], "_rebuild_parameter", _parameter)
    | allow(["torch._utils"], "_rebuild_parameter_with_state", _parameter)
    | allow(["torch"], "Size", _size)
    | allow(["torch"], "device", _device)
    | allow_record(["argparse"], "Namespace")
)
for _name, _dtype in _STORAGE_DTYPES.items():
    TORCH_NAMES |= allow(["torch", "torch.cuda"], _name, value=_dtype)
for _name, _dtype in _DTYPES.items():
    TORCH_NAMES |= allow(["torch"], _name, value=_dtype)
