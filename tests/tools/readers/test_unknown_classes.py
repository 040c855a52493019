"""Objects of unknown classes become inert records and do not stop the reader."""

import os
import pathlib
import pickle
import tracemalloc
from typing import Any

import numpy as np
import pytest

from navigan_jax.errors import InputError
from tests.tools.converting import named_arrays
from tests.tools.crafting import Build, Call, Global, New, Raw, opcodes, pickled, torch_zip
from tools.convert_weights.readers.numpy_names import NUMPY_NAMES, PYTHON_NAMES
from tools.convert_weights.readers.structure import Record, unknown_classes
from tools.convert_weights.readers.torch_file import read_torch_bytes
from tools.convert_weights.readers.unpickle import ForbiddenName, read_pickle

UNKNOWN = Global("training.options", "Options")


def read(data: bytes) -> Any:
    return read_pickle(data, PYTHON_NAMES | NUMPY_NAMES, name="file")[0]


class Odd:
    """A class that the reader does not know."""

    def __init__(self, size: int):
        self.size = size
        self.table = {"weights": np.arange(3)}


class OddDict(dict[Any, Any]):
    """A foreign dict, with an attribute."""


class OddList(list[Any]):
    """A foreign list."""


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_object_beside_plain_data_is_a_record(protocol: int) -> None:
    """Name, state, items and entries are kept; the data beside it are read."""
    odd_dict, odd_list = OddDict(a=1, b=np.arange(2)), OddList([1, 2])
    odd_dict.note = "x"  # type: ignore[attr-defined]
    path = pathlib.PurePosixPath("a/b")
    data = pickle.dumps([Odd(5), odd_dict, odd_list, path, {"w": 3}], protocol)
    odd, entries, items, place, plain = read(data)
    assert plain == {"w": 3}
    assert all(isinstance(value, Record) for value in (odd, entries, items, place))
    assert odd.state["size"] == 5
    np.testing.assert_array_equal(odd.state["table"]["weights"], np.arange(3))
    assert odd.name.endswith(".Odd")
    if protocol >= 2:
        assert place.name.endswith("PurePosixPath")
        assert (entries.entries["a"], entries.state) == (1, {"note": "x"})
        assert items.items == [1, 2]
        assert place.arguments == ("a", "b")
    assert any(name.endswith("weights") for name in named_arrays([odd, entries, items]))


def test_record_made_by_a_record_is_one_as_well() -> None:
    """A call of an unknown object, or of its result, is recorded and not executed."""
    first = Call(UNKNOWN, (1,))
    again = read(pickled(Call(Call(first, ("x",)), (3,))))
    assert again.name == "training.options.Options()"
    assert again.arguments[1] == (3,)
    assert again.arguments[0].arguments[0].arguments == (1,)


def test_named_arguments_are_kept_of_unknown_classes_only() -> None:
    """NEWOBJ_EX: a dict at the end of the arguments; our own functions take none."""
    names = b")}X\1\0\0\0aK\7s\x92"
    assert read(pickled(Raw(opcodes(UNKNOWN) + names))).arguments == ({"a": 7},)
    with pytest.raises(InputError, match=r"builtins\.set with named arguments"):
        read(pickled(Raw(opcodes(Global("builtins", "set")) + names)))


def test_key_of_another_kind_is_a_record() -> None:
    """Tuples, long numbers and objects as keys stay apart and are neither hashed nor compared."""
    keys = [(1, 2), (1, 2), 2**64, "x" * 2000, New(UNKNOWN)]
    content = Raw(b"}(" + b"".join(opcodes(key) + b"K\1" for key in keys) + b"u")
    got = read(pickled({"odd": content, "plain": {1.5: "a", None: "b"}}))
    assert got["plain"] == {1.5: "a", None: "b"}
    assert [type(key) for key in got["odd"]] == [Record] * len(keys)
    assert max(len(str(key)) for key in got["odd"]) < 200
    assert unknown_classes(got) == {"training.options.Options": 1}


# A record whose state leads back to it, straight, through a dict, through a list.
CIRCLES = {
    "state": b"q\0h\0b",
    "dict": b"q\0}X\6\0\0\0parenth\0sX\1\0\0\0wK\7sb",
    "list": b"q\0](h\0K\7eb",
}


@pytest.mark.parametrize("case", CIRCLES)
def test_record_that_knows_its_owner_is_cut_open(case: str) -> None:
    """Settings that refer to their owner get an empty record of the owner's name instead."""
    record = read(pickled({"settings": Raw(opcodes(New(UNKNOWN)) + CIRCLES[case]), "w": 3}))
    assert record["w"] == 3
    state = record["settings"].state
    back = {"state": lambda: state, "dict": lambda: state["parent"], "list": lambda: state[0]}
    end = back[case]()
    assert (end.name, end.state, end.arguments) == ("training.options.Options", None, ())
    if case != "state":
        assert 7 in (state.values() if case == "dict" else state)
    named_arrays(record)


def test_many_ways_back_take_no_longer(tmp_path: pathlib.Path) -> None:
    """Ten thousand parts that refer to one owner take one step each."""
    parts = b"](" + b"}X\1\0\0\0ph\0s" * 10_000 + b"eb"
    owner = read(pickled(Raw(opcodes(New(UNKNOWN)) + b"q\0" + parts)))
    assert len(owner.state) == 10_000


def test_unknown_classes_are_counted_once_each() -> None:
    """However often an object is mentioned."""
    value = Raw(b"](" + opcodes(New(UNKNOWN)) + b"q\1h\1h\1" + opcodes(New(UNKNOWN)) + b"e")
    assert unknown_classes(read(pickled(value))) == {"training.options.Options": 2}


def test_unknown_classes_hide_no_command(tmp_path: pathlib.Path) -> None:
    """In arguments, state, items or entries of a record: the name is reported, nothing runs."""
    mark = tmp_path / "mark"
    command = Call(Global("os", "system"), (f"touch {mark}",))
    hidden = [
        New(UNKNOWN, (command,)),
        Build(New(UNKNOWN), {"a": command}),
        Raw(opcodes(New(UNKNOWN)) + opcodes(command) + b"a"),
        Raw(opcodes(New(UNKNOWN)) + opcodes("a") + opcodes(command) + b"s"),
        Call(New(UNKNOWN), (command,)),
        Call(Global("functools", "partial"), (Global("os", "system"), f"touch {mark}")),
        Build(New(UNKNOWN), Global("builtins", "eval")),
    ]
    for value in hidden:
        with pytest.raises(ForbiddenName, match="nothing was executed"):
            read(pickled(value))
    assert not mark.exists()


def test_records_take_no_more_memory_than_the_file_earns() -> None:
    """Many records made by few bytes are refused before memory runs out."""
    one = opcodes(UNKNOWN) + b"q\0" + b")\x81"
    tracemalloc.start()
    with pytest.raises(InputError, match="grows to many times the size of the file"):
        read(b"\x80\x02](" + one + b"h\0)\x81" * 30_000 + b"e.")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30 << 20


def test_paths_are_bounded() -> None:
    """Long names around many values would make terabytes of paths."""
    deep: Any = {str(index): None for index in range(2_000)}
    for _ in range(150):
        deep = {"x" * 1000: deep}
    with pytest.raises(InputError, match="characters of paths"):
        read(pickle.dumps(deep))


def test_path_among_the_options_of_a_torch_file() -> None:
    """The weights beside it are read."""
    options = Build(
        New(Global("argparse", "Namespace")),
        {"out": Call(Global("pathlib", "PosixPath"), ("a", "b")), "size": 3},
    )
    got = read_torch_bytes(torch_zip({"args": options, "w": 1}, {}), "file")
    assert got["args"].state["size"] == 3
    assert got["args"].state["out"].arguments == ("a", "b")
    assert unknown_classes(got) == {"pathlib.PosixPath": 1}


def test_command_of_python_itself_is_the_control(tmp_path: pathlib.Path) -> None:
    """Python itself runs the commands that the reader refuses."""
    mark = tmp_path / "mark"
    data = pickled(Call(Global("os", "system"), (f"touch {mark}",)))
    assert pickle.loads(data) == 0
    assert mark.exists()
    assert os.path.getsize(mark) == 0
