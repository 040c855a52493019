"""Stand-ins for the names that Python's and NumPy's data use in pickles."""

import dataclasses
import math
import re
from collections.abc import Iterable
from typing import Any

import ml_dtypes
import numpy as np

from tools.convert_weights.readers.stand_ins import StandIn, allow, plain_key
from tools.convert_weights.readers.structure import Record

# Booleans, integers, floats, complex numbers and fixed-length texts: no objects, no structures.
_DTYPE_CODE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c8|c16|[SU]\d{1,6})")
# The most elements that a shape may claim; axes of length 0 count as 1.
_MAX_ELEMENTS = 1 << 40

# Types of short floats that NumPy itself lacks, by the names of their scalars' classes.
FOREIGN_DTYPES: dict[str, np.dtype[Any]] = {
    f"ml_dtypes.{kind.__name__}": np.dtype(kind)
    for kind in (
        ml_dtypes.bfloat16,
        ml_dtypes.float8_e4m3fn,
        ml_dtypes.float8_e4m3fnuz,
        ml_dtypes.float8_e5m2,
        ml_dtypes.float8_e5m2fnuz,
        ml_dtypes.float8_e8m0fnu,
    )
}


@dataclasses.dataclass(eq=False)
class PickledDtype:
    """A dtype in a pickle: a type code, and a byte order that a later opcode sets."""

    code: str
    byte_order: str = "="

    def resolve(self) -> np.dtype[Any]:
        if self.code in FOREIGN_DTYPES:
            return FOREIGN_DTYPES[self.code]
        return np.dtype(self.byte_order + self.code.lstrip("<>|="))


def whole_numbers(values: Any, what: str) -> tuple[int, ...]:
    """Returns the values as a tuple of at most 32 non-negative integers.

    Raises: ValueError, which begins with `what`, if they are anything else.
    """
    if not isinstance(values, tuple | list) or len(values) > 32:
        raise ValueError(f"{what}: expected up to 32 whole numbers")
    if any(type(value) is not int or value < 0 for value in values):
        raise ValueError(f"{what}: expected non-negative whole numbers")
    return tuple(values)


def array_shape(values: Any) -> tuple[int, ...]:
    """Returns the values as the shape of an array.

    Raises: ValueError if they are no whole numbers or claim too many elements.
    """
    shape = whole_numbers(values, "shape")
    if math.prod(value or 1 for value in shape) > _MAX_ELEMENTS:
        raise ValueError(f"shape: expected at most {_MAX_ELEMENTS} elements")
    return shape


def _ordered_dict(items: Iterable[Any] = ()) -> dict[Any, Any]:
    return {plain_key(key): value for key, value in items}


def _ignore_attributes(container: Any, state: Any) -> None:
    """Ignores `_metadata`, the version numbers of layers that PyTorch adds to a state dict."""


def _set(items: Iterable[Any] = ()) -> set[Any]:
    return set(map(plain_key, items))


def _frozenset(items: Iterable[Any] = ()) -> frozenset[Any]:
    return frozenset(map(plain_key, items))


def _no_bytes() -> bytes:
    """Returns empty bytes, which protocol 2 writes as a call of `bytes` without arguments."""
    return b""


def _counter(counts: Any = ()) -> dict[Any, Any]:
    return _ordered_dict(counts.items() if isinstance(counts, dict) else counts)


def _default_dict(factory: Any = None, items: Iterable[Any] = ()) -> dict[Any, Any]:
    """Returns a plain dict; its default factory is dropped."""
    return _counter(items)


def _byte_array(data: Any = b"", encoding: Any = None) -> bytearray:
    """Returns a bytearray, which protocol 2 writes as text to be encoded as Latin-1."""
    if encoding is None and not isinstance(data, bytes):
        raise TypeError("expected bytes")
    return bytearray(data if encoding is None else _encode(data, encoding))


def _complex(real: Any, imaginary: Any) -> complex:
    if not (isinstance(real, int | float) and isinstance(imaginary, int | float)):
        raise TypeError("expected two numbers")
    return complex(real, imaginary)


def _reconstructed(kind: Any, base: Any, state: Any) -> Any:
    """Returns an object, which protocols 0 and 1 write as class, built-in base and base value."""
    if not isinstance(kind, StandIn) or kind.call is None:
        raise TypeError("expected a class")
    return kind.call() if state is None else kind.call(state)


def _encode(text: str, encoding: str) -> bytes:
    """Returns bytes, which protocol 2 writes as text to be encoded as Latin-1."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("expected text and the encoding latin1")
    return text.encode("latin1")


def _raw(data: Any) -> bytes | bytearray:
    """Returns pickled bytes; Python 2 pickled them as text, here decoded as Latin-1."""
    if isinstance(data, str):
        return data.encode("latin1")
    if not isinstance(data, bytes | bytearray):
        raise TypeError(f"expected bytes, got {type(data).__name__}")
    return data


def _dtype(code: Any, align: Any = False, copy: Any = True) -> PickledDtype:
    if isinstance(code, StandIn) and code.name in FOREIGN_DTYPES:
        return PickledDtype(code.name)
    if not isinstance(code, str) or not _DTYPE_CODE.fullmatch(code):
        raise ValueError("expected a dtype of plain numbers or texts")
    return PickledDtype(code)


def _set_dtype_state(dtype: PickledDtype, state: Any) -> None:
    if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "="):
        raise ValueError("expected version, byte order and three empty fields")
    if any(field is not None for field in state[2:5]):
        raise ValueError("expected a dtype of plain numbers, got a structured one")
    dtype.byte_order = state[1]


def _resolve(dtype: Any) -> np.dtype[Any]:
    if not isinstance(dtype, PickledDtype):
        raise TypeError(f"expected a dtype, got {type(dtype).__name__}")
    return dtype.resolve()


def _check_size(dtype: np.dtype[Any], shape: tuple[int, ...], data: bytes | bytearray) -> None:
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"expected the bytes of {dtype} {list(shape)}, got {len(data)} bytes")


def _scalar(dtype: Any, data: Any) -> Any:
    raw, kind = _raw(data), _resolve(dtype)
    _check_size(kind, (), raw)
    return np.frombuffer(raw, kind)[0] if kind.itemsize else kind.type()


def _empty_array(kind: Any, shape: Any, code: Any) -> np.ndarray | Record:
    """Returns an array that its later state fills, or a record for a subclass."""
    if not isinstance(kind, StandIn):
        raise ValueError("expected an array of class numpy.ndarray")
    if kind.name == "numpy.ndarray":
        return np.empty(0, np.uint8)
    return Record(kind.name, (shape, code), is_known=False)


def _set_array_state(array: np.ndarray, state: Any) -> None:
    if not isinstance(state, tuple) or len(state) != 5:
        raise ValueError("expected version, shape, dtype, order and data")
    shape, dtype, raw = array_shape(state[1]), _resolve(state[2]), _raw(state[4])
    _check_size(dtype, shape, raw)
    checked: Any = (1, shape, dtype, bool(state[3]), bytes(raw))
    array.__setstate__(checked)


def _array_from_buffer(data: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    raw, kind, sizes = _raw(data), _resolve(dtype), array_shape(shape)
    _check_size(kind, sizes, raw)
    if order not in ("C", "F"):
        raise ValueError("expected order C or F")
    return np.frombuffer(raw, kind).reshape(sizes, order="F" if order == "F" else "C")


_BUILTINS = ("builtins", "__builtin__")

PYTHON_NAMES = (
    allow(["collections", "_collections"], "OrderedDict", _ordered_dict, _ignore_attributes)
    | allow(["collections"], "Counter", _counter, _ignore_attributes)
    | allow(["collections", "_collections"], "defaultdict", _default_dict, _ignore_attributes)
    | allow(_BUILTINS, "bytearray", _byte_array)
    | allow(_BUILTINS, "complex", _complex)
    | allow(_BUILTINS, "set", _set)
    | allow(_BUILTINS, "frozenset", _frozenset)
    | allow(_BUILTINS, "bytes", _no_bytes)
    | allow(["_codecs"], "encode", _encode)
    | allow(["copyreg", "copy_reg"], "_reconstructor", _reconstructed)
)

_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")

NUMPY_NAMES = (
    allow(["numpy"], "dtype", _dtype, _set_dtype_state)
    | allow(["numpy"], "ndarray")
    | allow(_MULTIARRAY, "scalar", _scalar)
    | allow(_MULTIARRAY, "_reconstruct", _empty_array, _set_array_state)
    | allow(["numpy.core.numeric", "numpy._core.numeric"], "_frombuffer", _array_from_buffer)
)
