"""Reads pickles as data, with our own interpreter of the opcodes; never runs foreign code.

A pickle is a program for a stack machine whose instructions include "import this name" and "call
it". Here nothing is ever imported. There are three kinds of names:

1. A name in the caller's allow-list: a stand-in, a pure function of ours, is called.
2. A name that would run something (foreign_names.py): the pickle is refused with that name.
3. Any other name: an inert record keeps the arguments of the call, the state and the items. A call
   of a record makes another record.

`pickletools` decodes the opcodes of the protocols 0 to 5; it executes nothing.

The work and memory that a file can cause are limited: opcodes, bytes made by stand-ins, repeated
elements, records, and the structure of the result (structure.py). No foreign value is hashed or
compared: keys are scalars or records, because the hash of a deeply nested tuple overflows the C
stack.
"""

import io
import pickletools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from navigan_jax.errors import InputError
from tools.convert_weights.readers.foreign_names import runs_things
from tools.convert_weights.readers.places import Places
from tools.convert_weights.readers.stand_ins import (
    MAX_REPEATED_BYTES,
    AllowList,
    StandIn,
    plain_key,
    unknown,
)
from tools.convert_weights.readers.structure import Record, check_structure

# A 1024 px StyleGAN2-ADA pickle has about 60,000 opcodes; the limit takes about ten seconds.
MAX_OPCODES = 5_000_000
# Stand-ins copy the bytes of a pickle once or twice; a hostile file decodes one text many times.
MAX_COPIES = 4
MAX_SPARE_BYTES = 1 << 20
# An empty record takes about a hundred bytes, and four bytes of opcodes can make one.
_RECORD_BYTES = 64
# Texts of the file in messages are cut to this many characters.
_LONGEST_REASON = 200


class ForbiddenName(InputError):
    """A pickle refers to a name that would run something: `name`."""

    def __init__(self, message: str, name: str):
        super().__init__(message)
        self.name = name


def read_pickle(
    data: bytes,
    allowed: AllowList,
    *,
    name: str,
    start: int = 0,
    persistent: Callable[[Any], Any] | None = None,
    max_opcodes: int = MAX_OPCODES,
    places: Places | None = None,
    beside: int = 0,
) -> tuple[Any, int]:
    """Returns the object pickled at byte `start`, and the position after its last byte.

    name: the file's name in messages. persistent: turns a persistent id into an object. places: of
    the file `data`; receives the places of uncompressed bytes and of the arrays made from them.
    beside: number of bytes of the file outside of `data`, such as storages; the limit of copies
    counts them.

    Raises: ForbiddenName for a name that would run something; InputError if the pickle is damaged,
      needs foreign code or exceeds a limit.
    """
    stream = io.BytesIO(data)
    stream.seek(start)
    spare_bytes = MAX_COPIES * (len(data) + beside) + MAX_SPARE_BYTES
    machine = _Machine(allowed, persistent, spare_bytes, places)
    position = start
    with warnings.catch_warnings():
        # Python warns of invalid escapes in texts of protocol 0; the reader checks what matters.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            for count, (opcode, argument, at) in enumerate(pickletools.genops(stream)):
                position = at or 0
                if count >= max_opcodes:
                    raise ValueError(f"more than {max_opcodes} opcodes")
                if places is not None and opcode.name in _BYTES_OPCODES:
                    _note(places, argument, stream.tell())
                machine.execute(opcode.name, argument)
            result = machine.result()
        except ForbiddenName as error:
            raise ForbiddenName(f"{name}: {error}", error.name) from error
        except InputError:
            raise
        except (ValueError, TypeError, OverflowError) as error:
            if _is_cut(error):
                raise InputError(
                    f"{name}: expected a whole pickle; got one that ends before its last opcode, "
                    f"after {len(data)} bytes; the download or the copy is incomplete: get the "
                    "file again"
                ) from error
            got = f"{str(error)[:_LONGEST_REASON]} (at byte {position})"
            raise InputError(
                f"{name}: expected a pickle of plain data; got {got}; nothing was executed; "
                "the file is damaged or no weight file: download it again"
            ) from error
    check_structure(result, name)
    return result, stream.tell()


def _is_cut(error: Exception) -> bool:
    """Whether an error of pickletools says that bytes are missing at the end."""
    words = ("exhausted before", "not enough data", "remain", "no newline found")
    return any(word in str(error) for word in words)


def _note(places: Places, argument: Any, end: int) -> None:
    """Notes the place of bytes that end at `end`; equal bytes of length 1 are one shared object."""
    if len(argument) > 1:
        places.note(argument, end - len(argument))


class _Machine:
    """The stack, the marks and the memo of one pickle."""

    def __init__(
        self,
        allowed: AllowList,
        persistent: Callable[[Any], Any] | None,
        spare_bytes: int,
        places: Places | None,
    ):
        self.allowed = allowed
        self.persistent = persistent
        self.spare_bytes = spare_bytes
        self.spare_repeats = MAX_REPEATED_BYTES
        self.places = places
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        # Objects made by stand-ins, by identity; the object is kept so that its id stays its own.
        self.made: dict[int, tuple[Any, StandIn]] = {}
        self.unknown: dict[tuple[str, str], StandIn] = {}

    def execute(self, opcode: str, argument: Any) -> None:
        if opcode in _ARGUMENT_OPCODES:
            self.push(argument)
        elif opcode in _CONSTANTS:
            self.push(_CONSTANTS[opcode]())
        elif opcode in _ACTIONS:
            _ACTIONS[opcode](self, argument)
        elif opcode.startswith("EXT"):
            raise _forbidden(f"extension code {argument}")
        else:
            raise ValueError(f"opcode {opcode}, which refers to data outside of the file")

    def result(self) -> Any:
        if self.marked or len(self.stack) != 1:
            raise ValueError("a stack that does not end with one object")
        return self.stack[0]

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise ValueError("an opcode without its operand")
        return self.stack.pop()

    def top(self) -> Any:
        if not self.stack:
            raise ValueError("an opcode without its operand")
        return self.stack[-1]

    def top_container(self, kind: type) -> Any:
        """Returns the container that items are added to: of that kind, or a record."""
        top = self.top()
        if not isinstance(top, kind | Record):
            raise ValueError(f"items for an object that is no {kind.__name__}")
        return top

    def pop_marked(self) -> list[Any]:
        if not self.marked:
            raise ValueError("an opcode without its mark")
        items, self.stack = self.stack, self.marked.pop()
        return items

    def look_up(self, module: Any, name: Any) -> StandIn:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise TypeError("a global whose name is no text")
        if (module, name) in self.allowed:
            return self.allowed[module, name]
        if (module, name) not in self.unknown:
            label = f"{module}.{name}"[:_LONGEST_REASON]
            if runs_things(module, name):
                raise _forbidden(label)
            self.unknown[module, name] = unknown(label)
        return self.unknown[module, name]

    def call(self, function: Any, arguments: Any) -> None:
        label = function.name if isinstance(function, StandIn | Record) else type(function).__name__
        if not isinstance(arguments, tuple):
            raise TypeError(f"a call of {label} without a tuple of arguments")
        if isinstance(function, Record):
            # A call of an object of an unknown class makes another object of an unknown class.
            function, arguments = unknown(label.removesuffix("()") + "()"), (function, arguments)
        if not isinstance(function, StandIn) or function.call is None:
            raise ValueError(f"a call of {label}, which is no function")
        try:
            made = function.call(*arguments)
        except (TypeError, ValueError, OverflowError) as error:
            if isinstance(error, InputError):
                raise
            raise ValueError(f"wrong arguments for {function.name} ({error})") from error
        self._charge(arguments, made)
        if function.build is not None:
            self.made[id(made)] = (made, function)
        self.push(made)

    def _charge(self, given: tuple[Any, ...], made: Any) -> None:
        self.spare_bytes -= sum(map(_made_bytes, given)) + _made_bytes(made)
        if self.spare_bytes < 0:
            raise ValueError("data that grows to many times the size of the file")
        self.spare_repeats -= _repeated_bytes(made)
        if self.spare_repeats < 0:
            raise ValueError(f"more than {MAX_REPEATED_BYTES} bytes of repeated elements")
        if self.places is not None and isinstance(made, np.ndarray):
            self._place(given, made, self.places)

    def _place(self, given: tuple[Any, ...], made: np.ndarray, places: Places) -> None:
        """Notes the place of an array whose bytes NumPy copied: few or unaligned bytes."""
        for raw in given:
            if isinstance(raw, bytes) and len(raw) == made.nbytes:
                offset = places.offset_of_noted(raw)
                if offset is not None and made.base is None and made.flags.forc:
                    places.note(made, offset)

    def build(self) -> None:
        state, target = self.pop(), self.pop()
        if isinstance(target, Record):
            target.state = state
            self.push(target)
            return
        _, function = self.made.get(id(target), (None, None))
        if function is None or function.build is None:
            raise ValueError(f"a state for an object of type {type(target).__name__}")
        try:
            function.build(target, state)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"a wrong state for {function.name} ({error})") from error
        self._charge(state if isinstance(state, tuple) else (), target)
        self.push(target)

    def new_object(self) -> None:
        arguments, kind = self.pop(), self.pop()
        self.call(kind, arguments)

    def new_object_with_names(self) -> None:
        names, arguments, kind = self.pop(), self.pop(), self.pop()
        if not isinstance(names, dict) or not isinstance(arguments, tuple):
            raise TypeError("a call with named arguments that are no dict, or without a tuple")
        if names and isinstance(kind, StandIn) and kind.is_known:
            raise ValueError(f"a call of {kind.name} with named arguments")
        self.call(kind, (*arguments, names) if names else arguments)

    def call_marked(self) -> None:
        items = self.pop_marked()
        if not items:
            raise ValueError("an object without a class")
        self.call(items[0], tuple(items[1:]))

    def instance(self, names: str) -> None:
        self.call(self.look_up(*names.split(" ", 1)), tuple(self.pop_marked()))

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        self.push(self.look_up(module, name))

    def set_items(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise ValueError("a key without a value")
        target = self.top_container(dict)
        entries = target.entries if isinstance(target, Record) else target
        entries.update(zip(self.keys(items[::2]), items[1::2], strict=True))

    def keys(self, items: list[Any]) -> list[Any]:
        keys = list(map(plain_key, items))
        self._charge(tuple(key for key in keys if isinstance(key, Record)), None)
        return keys

    def push_dict(self, items: list[Any]) -> None:
        self.push({})
        self.set_items(items)

    def append(self, items: list[Any]) -> None:
        target = self.top_container(list)
        (target.items if isinstance(target, Record) else target).extend(items)

    def add_members(self, items: list[Any]) -> None:
        target = self.top_container(set)
        if isinstance(target, Record):
            target.items.extend(items)
        else:
            target.update(self.keys(items))

    def push_frozenset(self, items: list[Any]) -> None:
        self.push(frozenset(self.keys(items)))

    def discard(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_marked()

    def discard_marked(self) -> None:
        self.pop_marked()

    def mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def push_tuple(self, size: int) -> None:
        items = [self.pop() for _ in range(size)]
        self.push(tuple(items[::-1]))

    def remember(self, index: int) -> None:
        self.memo[index] = self.top()

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise ValueError(f"memo entry {index}, which was never stored")
        self.push(self.memo[index])

    def push_persistent(self, identity: Any) -> None:
        if self.persistent is None:
            raise ValueError("a persistent id, which this kind of file does not have")
        self.push(self.persistent(identity))


def _made_bytes(value: Any) -> int:
    """Returns the approximate memory of an argument or a result; views of other arrays cost 0."""
    if isinstance(value, np.ndarray):
        return value.nbytes if value.base is None else 0
    if isinstance(value, Record):
        return _RECORD_BYTES
    if isinstance(value, set | frozenset | dict):
        return 64 * len(value)
    if isinstance(value, list | tuple):
        return 8 * len(value)
    return len(value) if isinstance(value, str | bytes | bytearray) else 0


def _repeated_bytes(made: Any) -> int:
    """Returns the size of an array that repeats some of its memory; 0 for any other value."""
    if not isinstance(made, np.ndarray) or made.flags.forc or not made.size:
        return 0
    low, high = np.lib.array_utils.byte_bounds(made)
    return made.nbytes if made.nbytes > high - low else 0


def _forbidden(name: str) -> ForbiddenName:
    return ForbiddenName(
        f"expected weights and plain data; got a pickle that refers to {name!r}; nothing was "
        "executed; allowed: arrays, plain data and objects of classes, but no name that runs, "
        "loads or opens something; if you trust the file, load it with the program that wrote it "
        "and save a plain state_dict",
        name,
    )


# fmt: off
_ARGUMENT_OPCODES = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
})
# fmt: on

_BYTES_OPCODES = frozenset({"BINBYTES", "SHORT_BINBYTES", "BINBYTES8"})

_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "EMPTY_TUPLE": tuple,
}

_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, version: None,
    "FRAME": lambda machine, size: None,
    "STOP": lambda machine, _: None,
    "MARK": lambda machine, _: machine.mark(),
    "POP": lambda machine, _: machine.discard(),
    "POP_MARK": lambda machine, _: machine.discard_marked(),
    "DUP": lambda machine, _: machine.push(machine.top()),
    "PUT": _Machine.remember,
    "BINPUT": _Machine.remember,
    "LONG_BINPUT": _Machine.remember,
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    "GET": _Machine.recall,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_marked())),
    "TUPLE1": lambda machine, _: machine.push_tuple(1),
    "TUPLE2": lambda machine, _: machine.push_tuple(2),
    "TUPLE3": lambda machine, _: machine.push_tuple(3),
    "LIST": lambda machine, _: machine.push(machine.pop_marked()),
    "DICT": lambda machine, _: machine.push_dict(machine.pop_marked()),
    "FROZENSET": lambda machine, _: machine.push_frozenset(machine.pop_marked()),
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_marked()),
    "SETITEM": lambda machine, _: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_marked()),
    "ADDITEMS": lambda machine, _: machine.add_members(machine.pop_marked()),
    "GLOBAL": lambda machine, names: machine.push(machine.look_up(*names.split(" ", 1))),
    "STACK_GLOBAL": lambda machine, _: machine.stack_global(),
    "REDUCE": lambda machine, _: machine.new_object(),
    "NEWOBJ": lambda machine, _: machine.new_object(),
    "NEWOBJ_EX": lambda machine, _: machine.new_object_with_names(),
    "INST": _Machine.instance,
    "OBJ": lambda machine, _: machine.call_marked(),
    "BUILD": lambda machine, _: machine.build(),
    "PERSID": _Machine.push_persistent,
    "BINPERSID": lambda machine, _: machine.push_persistent(machine.pop()),
}
