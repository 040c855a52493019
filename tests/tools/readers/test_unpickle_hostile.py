"""The pickle reader names what is code or damaged, in every spelling, and runs nothing."""

import os
import pathlib
import pickle
from typing import Any

import pytest

from navigan_jax.errors import InputError
from tests.tools.crafting import Build, Call, Global, New, Raw, opcodes, pickled
from tools.convert_weights.readers.numpy_names import NUMPY_NAMES, PYTHON_NAMES
from tools.convert_weights.readers.stand_ins import allow_record
from tools.convert_weights.readers.unpickle import ForbiddenName, read_pickle

NAMES = PYTHON_NAMES | NUMPY_NAMES | allow_record(["thing"], "Thing")
THING = Global("thing", "Thing")
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def read(data: bytes) -> Any:
    return read_pickle(data, NAMES, name="file")[0]


class _Attack:
    """Runs a command when unpickled by Python."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_command_in_a_pickle_is_named_and_not_run(protocol: int, tmp_path: pathlib.Path) -> None:
    """The reader names the function and runs nothing; Python itself does run it."""
    mark = tmp_path / "mark"
    data = pickle.dumps({"weights": [_Attack(f"touch {mark}")]}, protocol)
    with pytest.raises(
        ForbiddenName, match=r"refers to 'posix\.system'; nothing was executed"
    ) as info:
        read(data)
    assert info.value.name == "posix.system"
    assert not mark.exists()
    pickle.loads(data)
    assert mark.exists()


HOSTILE = {
    "GLOBAL": (b"cos\nsystem\n(S'x'\ntR.", "os.system"),
    "STACK_GLOBAL": (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.", "builtins.eval"),
    "INST": (b"(S'x'\nios\nsystem\n.", "os.system"),
    "inside the arguments": (
        pickled(Call(Global("collections", "OrderedDict"), ([Global("os", "system")],))),
        "os.system",
    ),
    "after data": (pickled([1, 2, Call(Global("builtins", "exec"), ("x",))]), "builtins.exec"),
    "attribute of an allowed module": (pickled(Global("numpy", "load")), "numpy.load"),
    "dotted name": (
        pickled(Raw(b"\x8c\x05numpy\x8c\x0ef2py.os.system\x93")),
        "numpy.f2py.os.system",
    ),
    "getattr": (pickled(Global("builtins", "getattr")), "builtins.getattr"),
    "copyreg": (pickled(Global("copyreg", "add_extension")), "copyreg.add_extension"),
    "EXT1": (b"\x80\x02\x82\x01.", "extension code 1"),
    "EXT2": (b"\x80\x02\x83\x01\x01.", "extension code 257"),
    "EXT4": (b"\x80\x02\x84\x01\x00\x00\x00.", "extension code 1"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_foreign_name_is_refused_in_every_way_to_mention_it(case: str) -> None:
    """Any opcode that refers to code, at any place: the name is reported, nothing is executed."""
    data, name = HOSTILE[case]
    with pytest.raises(ForbiddenName, match="nothing was executed; allowed: arrays") as info:
        read(data)
    assert info.value.name == name


_DTYPE = Call(Global("numpy", "dtype"), ("f4", False, True))
_ORDERED = Call(Global("collections", "OrderedDict"), ())
_EMPTY = Call(
    Global("numpy.core.multiarray", "_reconstruct"), (Global("numpy", "ndarray"), (0,), b"b")
)
_SCALAR = Global("numpy.core.multiarray", "scalar")
_FROM_BUFFER = Global("numpy.core.numeric", "_frombuffer")
_ENCODE = Global("_codecs", "encode")


def _dtype(code: str) -> Call:
    return Call(Global("numpy", "dtype"), (code, False, True))


REFUSED = {
    "call of a text": (Call("text", ()), "a call of str"),
    "call of a record without a tuple": (Call(New(THING), [1]), "a call of thing.Thing without"),
    "call of a class that is only mentioned": (
        Call(Global("numpy", "ndarray"), ()),
        r"a call of numpy\.ndarray, which is no function",
    ),
    "call without a tuple": (Call(THING, [1]), "without a tuple"),
    "too many arguments": (Call(Global("builtins", "bytes"), (7,)), "wrong arguments for builtins"),
    "state of a dict": (Build({}, {"__class__": 1}), "a state for an object of type dict"),
    "state of a list": (Build([], [1]), "a state for an object of type list"),
    "state of a class": (Build(THING, {"call": 1}), "a state for an object of type StandIn"),
    "state of a number": (Build(3, {"real": 1}), "a state for an object of type int"),
    "state of a set": (
        Build(Call(Global("builtins", "set"), ([1],)), {}),
        "a state for an object of type set",
    ),
    "named arguments that are no dict": (Raw(opcodes(THING) + b")]\x92"), "named arguments"),
    "object without a class": (Raw(b"(o"), "an object without a class"),
    "object of a text": (Raw(b"(X\1\0\0\0ao"), "a call of str"),
    "items for a text": (Raw(opcodes("a") + b"Na"), "items for an object that is no list"),
    "items for a list": (Raw(b"]" + opcodes("a") + b"Ns"), "items for an object that is no dict"),
    "members for a list": (Raw(b"](K\1\x90"), "items for an object that is no set"),
    "key without a value": (Raw(b"}(K\1u"), "a key without a value"),
    "list as a key": (Raw(b"}]Ns"), "a key of type list"),
    "list as a member": (Call(Global("builtins", "set"), ([[1]],)), "a key of type list"),
    "dict as a member": (Raw(b"(}\x91"), "a key of type dict"),
    "out-of-band buffer": (Raw(b"\x97"), "opcode NEXT_BUFFER"),
    "memo entry that is not there": (Raw(b"h\7"), "memo entry 7"),
    "array of objects": (Build(_EMPTY, (1, (1,), _dtype("O8"), False, [1])), "plain numbers"),
    "array of a structure": (
        Build(_DTYPE, (3, "|", None, ("a",), {"a": 1}, -1, -1, 0)),
        "a structured one",
    ),
    "array of no class": (Call(_EMPTY.function, ("x", (0,), b"b")), r"class numpy\.ndarray"),
    "array with too few bytes": (
        Build(_EMPTY, (1, (3,), _DTYPE, False, b"\0" * 8)),
        r"the bytes of float32 \[3\], got 8 bytes",
    ),
    "array of negative size": (
        Build(_EMPTY, (1, (-1,), _DTYPE, False, b"")),
        "non-negative whole numbers",
    ),
    "array of overflowing size": (
        Build(_EMPTY, (1, (2**62, 2**62, 0), _DTYPE, False, b"")),
        "at most",
    ),
    "array of many axes": (Build(_EMPTY, (1, (1,) * 40, _DTYPE, False, b"")), "up to 32"),
    "array of a short state": (Build(_EMPTY, (1, (1,))), "version, shape, dtype, order and data"),
    "array without bytes": (
        Build(_EMPTY, (1, (0,), _DTYPE, False, [])),
        "expected bytes, got list",
    ),
    "array without a dtype": (Build(_EMPTY, (1, (0,), "f4", False, b"")), "a dtype, got str"),
    "dtype without a code": (Call(Global("numpy", "dtype"), ([1], False, True)), "plain numbers"),
    "dtype of a wrong state": (Build(_DTYPE, (3, "?")), "version, byte order"),
    "scalar of too many bytes": (Call(_SCALAR, (_DTYPE, b"\0" * 8)), "got 8 bytes"),
    "buffer in an unknown order": (
        Call(_FROM_BUFFER, (b"\0" * 4, _DTYPE, (1,), "K")),
        "order C or F",
    ),
    "text in another encoding": (Call(_ENCODE, ("a", "rot13")), "the encoding latin1"),
    "encoded number": (Call(_ENCODE, (1, "latin1")), "the encoding latin1"),
    "text that is not Latin-1": (Call(_ENCODE, ("€", "latin1")), "wrong arguments for _codecs"),
    "pairs that are none": (Call(_ORDERED.function, ([1],)), "wrong arguments for collections"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_plain_data_is_refused(case: str) -> None:
    """Only stand-ins may be called or given a state, and only in valid ways."""
    value, message = REFUSED[case]
    with pytest.raises(InputError, match=rf"^file: .*{message}.*nothing was executed"):
        read(pickled(value))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "ends before its last opcode"),
        (b"\x80\x02.", "does not end with one object"),
        (b"NN.", "does not end with one object"),
        (b"(N.", "does not end with one object"),
        (b"R.", "an opcode without its operand"),
        (b"t.", "an opcode without its mark"),
        (b"\x80\x02\xff.", "opcode"),
        (b"cos.", "file"),
        (b"\x93.", "an opcode without its operand"),
        (b"NN\x93.", "a global whose name is no text"),
        (b"I" + b"9" * 5_000 + b"\n.", "file"),
        (b"X\xff\xff\xff\x7fabc.", "file"),
        (b"\x8e" + b"\xff" * 8 + b"abc.", "file"),
    ],
)
def test_broken_opcodes_are_one_message(data: bytes, message: str) -> None:
    """A stack that does not fit, an unknown opcode, an impossible length: InputError."""
    with pytest.raises(InputError, match=message):
        read(data)


@pytest.mark.parametrize("data", [pickled(Global("os", "n" * 10**6)), b"F" + b"x" * 10**6 + b"\n."])
def test_long_text_is_cut(data: bytes) -> None:
    """A name or number of a megabyte does not become a message of a megabyte."""
    with pytest.raises(InputError, match="nothing was executed") as info:
        read(data)
    assert len(str(info.value)) < 1_000
