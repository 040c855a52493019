"""Foreign safetensors files are read as views of their bytes, or refused in clear words."""

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from navigan_jax.errors import InputError
from tools.convert_weights.readers.safetensors_file import read_metadata, read_safetensors


def craft(header: Any, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


NUMBERS = np.arange(6)
DTYPES = {
    "F32": np.dtype(np.float32),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "U16": np.dtype(np.uint16),
    "C64": np.dtype(np.complex64),
}


@pytest.mark.parametrize("dtype", DTYPES)
def test_array_is_a_view_of_the_file(dtype: str) -> None:
    """Values, shape and type, of types that NumPy lacks too; the texts beside it."""
    raw = NUMBERS.astype(DTYPES[dtype]).tobytes()
    header = {"a": entry(dtype, [2, 3], 0, len(raw)), "__metadata__": {"by": "me"}}
    data = craft(header, raw)
    got = read_safetensors(data, "file")["a"]
    assert got.dtype == DTYPES[dtype]
    assert got.base is not None
    np.testing.assert_array_equal(got, NUMBERS.astype(DTYPES[dtype]).reshape(2, 3))
    assert read_metadata(data, "file") == {"by": "me"}


DAMAGED = {
    "cut": (craft({"a": entry("U8", [6], 0, 6)}, b"12345"), "the bytes 0 to 6"),
    "cut in the header": (craft({"a": entry("U8", [6], 0, 6)}, b"")[:20], "a header of"),
    "no JSON": (craft(b"{x", b""), "no JSON"),
    "deep JSON": (craft(b"[" * 100_000, b""), "no JSON"),
    "list": (craft([1], b""), "no JSON object"),
    "no description": (craft({"a": 1}, b""), "describes no array"),
    "negative": (
        craft({"a": entry("U8", [2], -2, 0)}, b"12"),
        "offsets: expected non-negative whole numbers",
    ),
    "other size": (craft({"a": entry("F32", [2], 0, 4)}, b"1234"), "the bytes 0 to 4"),
    "unknown type": (craft({"a": entry("F4", [2], 0, 1)}, b"1"), "the type 'F4'"),
    "overlap": (
        craft({name: entry("U8", [2], 0, 2) for name in "ab"}, b"12"),
        "arrays that overlap",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_file_is_refused(case: str) -> None:
    """No header makes an array reach outside of the file."""
    data, message = DAMAGED[case]
    with pytest.raises(InputError, match=rf"^file(: a)?: expected .*{message}"):
        read_safetensors(data, "file")


def test_metadata_are_texts() -> None:
    """As the format's own library writes them."""
    with pytest.raises(InputError, match="metadata that are not all texts"):
        read_metadata(craft({"__metadata__": {"a": [1]}}, b""), "file")
