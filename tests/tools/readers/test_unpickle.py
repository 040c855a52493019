"""The pickle reader returns what was pickled, and always ends."""

import collections
import pickle
import pickletools
import time
from typing import Any

import numpy as np
import pytest

from navigan_jax.errors import InputError
from tests.tools.converting import named_arrays
from tests.tools.crafting import Build, Call, Global, New, Persistent, Raw, opcodes, pickled
from tools.convert_weights.readers import structure
from tools.convert_weights.readers.numpy_names import NUMPY_NAMES, PYTHON_NAMES
from tools.convert_weights.readers.stand_ins import allow_record
from tools.convert_weights.readers.structure import Record
from tools.convert_weights.readers.unpickle import read_pickle

NAMES = PYTHON_NAMES | NUMPY_NAMES | allow_record(["thing"], "Thing")
THING = Global("thing", "Thing")
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
_DTYPE = Call(Global("numpy", "dtype"), ("f4", False, True))
_ORDERED = Call(Global("collections", "OrderedDict"), ())
_EMPTY = Call(
    Global("numpy.core.multiarray", "_reconstruct"), (Global("numpy", "ndarray"), (0,), b"b")
)
_ENCODE = Global("_codecs", "encode")


def read(data: bytes, **options: Any) -> Any:
    return read_pickle(data, NAMES, name="file", **options)[0]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_data_comes_back_equal(protocol: int) -> None:
    """The reader returns the plain data that Python pickled, in any protocol."""
    value = {
        "numbers": [0, 1, -1, 255, 65_536, 2**31, -(2**63), 2**80, -(2**2100), 1.5, -0.0],
        "texts": ["", "a", "ü€𝄞", "x" * 300, "line\nbreak\\", "\0"],
        "bytes": [b"", b"\x00\xff", b"y" * 300],
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "nested": {"a": [{"b": ({"c": None},)}], 3: True, None: False, b"k": 1},
        "sets": [set(), {1, "2"}, frozenset({3}), frozenset()],
        "ordered": collections.OrderedDict([("z", 1), ("a", 2)]),
        "many": list(range(2_500)),
        "table": {str(index): index for index in range(1_500)},
    }
    assert read(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2", "|i1", "<i8", ">u2", "|b1", "<c8"])
def test_arrays_come_back_equal(protocol: int, dtype: str) -> None:
    """Arrays in C and Fortran order, empty and 0-d ones, and scalars keep values and dtype."""
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    value = [array, np.asfortranarray(array), array[:, 1:1], array[0, 0, 0].reshape(()), array[1]]
    for got, want in zip(read(pickle.dumps(value, protocol)), value, strict=True):
        assert got.dtype in (want.dtype, want.dtype.newbyteorder("="))  # NumPy itself swaps some
        np.testing.assert_array_equal(got, want)
    scalar = array[1, 2, 3]
    got = read(pickle.dumps(scalar, protocol))
    assert (got, got.dtype) == (scalar, scalar.dtype)


def test_texts_of_numpy_come_back_equal() -> None:
    """Fixed-length texts, which settings may hold, are read as well."""
    for value in (np.str_("abc"), np.bytes_(b"abc"), np.str_("")):
        assert read(pickle.dumps(value)) == value


def test_array_of_python_2_comes_back_equal() -> None:
    """In pickles of Python 2 the bytes of an array are a text; its numbers are the same."""
    raw = np.array([1.5, -2.0], "<f4").tobytes()
    text = Raw(b"U" + bytes([len(raw)]) + raw)  # SHORT_BINSTRING
    dtype = Build(
        Call(Global("numpy", "dtype"), ("f4", False, True)),
        (3, "<", None, None, None, -1, -1, 0),
    )
    empty = Call(
        Global("numpy.core.multiarray", "_reconstruct"), (Global("numpy", "ndarray"), (0,), b"b")
    )
    np.testing.assert_array_equal(
        read(pickled(Build(empty, (1, (2,), dtype, False, text)))), [1.5, -2]
    )


def test_shared_object_stays_shared() -> None:
    """An object that is mentioned twice is read as one object, also an array with a state."""
    array, items = np.arange(3), [1]
    first, second, third, fourth = read(pickle.dumps([array, array, items, items]))
    assert first is second
    assert third is fourth


def test_concatenated_pickles_are_read_one_after_the_other() -> None:
    """The position returned is where the next pickle begins."""
    data = b"".join(pickle.dumps(value, protocol) for protocol, value in enumerate("abc"))
    found, position = [], 0
    while position < len(data):
        value, position = read_pickle(data, NAMES, name="file", start=position)
        found.append(value)
    assert found == ["a", "b", "c"]


def test_record_keeps_arguments_and_state() -> None:
    """An allowed class becomes a record of its arguments and its state, without behaviour."""
    record = read(pickled(Build(New(THING, (1, "a")), {"x": 2})))
    assert isinstance(record, Record)
    assert (record.name, record.arguments, record.state) == ("thing.Thing", (1, "a"), {"x": 2})


def test_persistent_ids_go_to_the_handler() -> None:
    """Both opcodes pass the id to the handler; without a handler they are refused."""
    handler = {"persistent": lambda identity: ["made from", identity]}
    assert read(pickled(Persistent((1, 2))), **handler) == ["made from", (1, 2)]
    assert read(b"Pabc\n.", **handler) == ["made from", "abc"]
    with pytest.raises(InputError, match="persistent id, which this kind of file does not have"):
        read(pickled(Persistent(1)))


# PUT 0 and GET 0 around an APPEND, and the like.
CYCLES = {
    "list in itself": b"]q\0h\0a.",
    "dict in itself": b"}q\0X\1\0\0\0ah\0s.",
    "list in a tuple in that list": b"]q\0h\0\x85a.",
    "dict in itself below a record": opcodes(New(THING)) + b"}q\0X\1\0\0\0ah\0sb.",
    "record in its own set": opcodes(New(THING)) + b"q\0\x8f(h\0\x90b.",
}


@pytest.mark.parametrize("case", CYCLES)
def test_container_inside_itself_is_refused(case: str) -> None:
    """No walk over such a result would end."""
    with pytest.raises(InputError, match="got a container that contains itself"):
        read(b"\x80\x02" + CYCLES[case])


def _nested(levels: int) -> bytes:
    return b"\x80\x02" + b"]" * levels + b"a" * (levels - 1) + b"."


def test_depth_is_bounded() -> None:
    """The deepest allowed nesting is read; one level more, or a hundred thousand, is refused."""
    value = read(_nested(structure.MAX_DEPTH))
    for _ in range(structure.MAX_DEPTH - 1):
        (value,) = value
    assert value == []
    for levels in (structure.MAX_DEPTH + 1, 100_000):
        with pytest.raises(InputError, match=f"nested more than {structure.MAX_DEPTH} deep"):
            read(_nested(levels))
    tuples = b"\x80\x02)" + b"\x85" * 100_000 + b"."
    with pytest.raises(InputError, match="deep"):
        read(tuples)


def test_depth_counts_through_shared_containers() -> None:
    """A deep container that is repeated at a shallower place still counts in full."""
    half = structure.MAX_DEPTH * 2 // 3
    deep = b"]" * half + b"a" * (half - 1) + b"q\0"
    data = b"\x80\x02](" + deep + b"]" * (half - 1) + b"h\0" + b"a" * (half - 1) + b"e."
    with pytest.raises(InputError, match="deep"):
        read(data)


def test_deep_tuple_as_a_key_is_refused() -> None:
    """Its hash, which would overflow the C stack, is never computed."""
    with pytest.raises(InputError, match="nested more than"):
        read(b"\x80\x02})" + b"\x85" * 200_000 + b"Ns.")


def test_exponential_mentions_are_refused_at_once() -> None:
    """Forty lists, each with the one before twice, would take 2^40 steps to walk."""
    levels = b"".join(
        b"](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) + b"0" for i in range(40)
    )
    begin = time.monotonic()
    with pytest.raises(InputError, match="values and"):
        read(b"\x80\x02]q\x000" + levels + b"h\x28.")
    assert time.monotonic() - begin < 2


def test_one_array_mentioned_too_often_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk over all mentions would see more bytes than a weight file has."""
    value = [np.zeros(1_000)] * 20
    assert len(read(pickle.dumps(value))) == 20
    monkeypatch.setattr(structure, "MAX_BYTES", 100_000)
    with pytest.raises(InputError, match="21 values and 160000 bytes"):
        read(pickle.dumps(value))


def test_opcodes_are_bounded() -> None:
    """A pickle may have as many opcodes as allowed, and not one more."""
    data = pickle.dumps([1, 2, 3], 2)
    count = sum(1 for _ in pickletools.genops(data))
    assert read(data, max_opcodes=count) == [1, 2, 3]
    with pytest.raises(InputError, match=f"more than {count - 1} opcodes"):
        read(data, max_opcodes=count - 1)


def test_copies_are_bounded() -> None:
    """A text that is encoded again and again would grow the memory far beyond the file."""
    text = opcodes("x" * 100_000) + b"q\0" + opcodes("latin1") + b"q\1\x30\x30"
    again = opcodes(_ENCODE) + b"h\0h\1\x86R"
    assert len(read(b"\x80\x02" + text + again * 1 + b".")) == 100_000
    with pytest.raises(InputError, match="grows to many times the size of the file"):
        read(b"\x80\x02](" + text + again * 100 + b"e.")


def test_states_are_bounded() -> None:
    """The text of an array's state, set again and again, is work beyond the size of the file."""
    state = (1, (100_000,), Call(_DTYPE.function, ("u1", False, True)), False, "x" * 100_000)
    build = opcodes(_EMPTY) + opcodes(state) + b"q\0b"
    assert len(read(b"\x80\x02" + build + b"h\0b" * 2 + b".")) == 100_000
    with pytest.raises(InputError, match="grows to many times the size of the file"):
        read(b"\x80\x02" + build + b"h\0b" * 100 + b".")


def _sample() -> bytes:
    value = {
        "a": [np.arange(6.0).reshape(2, 3), np.float32(1.5)],
        "b": collections.OrderedDict(x={1, 2}, y=(b"abc", None, 2**70)),
    }
    return pickle.dumps(value, 2)


def test_every_truncation_is_an_input_error() -> None:
    """A pickle that ends too early is never taken for a complete one."""
    data = _sample()
    for end in range(len(data)):
        with pytest.raises(InputError, match=r"^file: "):
            read(data[:end])


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bytes_are_read_or_refused(seed: int) -> None:
    """Damage gives a result or an InputError: no other exception, no hang, no large memory."""
    random, whole = np.random.RandomState(seed), _sample()
    refused = 0
    for _ in range(1_500):
        data = bytearray(whole)
        for position in random.randint(len(data), size=random.randint(1, 6)):
            data[position] = random.randint(256)
        try:
            named_arrays(read(bytes(data)))
        except InputError:
            refused += 1
    assert refused > 500


@pytest.mark.parametrize("seed", range(2))
def test_random_opcodes_are_read_or_refused(seed: int) -> None:
    """Random opcodes with small arguments give a result or an InputError."""
    random = np.random.RandomState(seed)
    pieces = [opcodes(v) for v in (None, 1, "a", b"b", (), [], {}, THING, _ORDERED, _EMPTY, _DTYPE)]
    pieces += [
        b"q\0",
        b"h\0",
        b"(",
        *(bytes([code]) for code in b"tleasudRbo012\x81\x85\x86\x87\x8f\x90\x91\x93\x94"),
    ]
    for _ in range(3_000):
        chosen = random.randint(len(pieces), size=random.randint(2, 25))
        data = b"\x80\x04" + b"".join(pieces[index] for index in chosen) + b"."
        try:
            read(data)
        except InputError:
            continue
