"""Stand-ins for foreign names: pure functions of ours, or constructors of inert records."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tools.convert_weights.readers.structure import Record

# The limit in bytes, over all arrays of a file, of views that repeat elements, such as an average w
# repeated for each layer: a copy takes that memory.
MAX_REPEATED_BYTES = 256 << 20
# Names of layers have up to about a hundred characters.
_LONGEST_KEY = 1000


@dataclasses.dataclass(frozen=True, repr=False)
class StandIn:
    """The stand-in for one foreign name.

    name: module and name, joined by a dot.
    call: makes the object from the pickled arguments; None if the pickle must not call the name.
    build: puts the pickled state into an object that `call` made, in place.
    value: the meaning of the name as an argument, for example the dtype of a storage class.
    is_known: whether the name is in an allow-list.
    """

    name: str
    call: Callable[..., Any] | None = None
    build: Callable[[Any, Any], None] | None = None
    value: Any = None
    is_known: bool = True

    def __repr__(self) -> str:
        return self.name


AllowList = Mapping[tuple[str, str], StandIn]


def allow(
    modules: Sequence[str],
    name: str,
    call: Callable[..., Any] | None = None,
    build: Callable[[Any, Any], None] | None = None,
    value: Any = None,
) -> dict[tuple[str, str], StandIn]:
    """Returns the allow-list of one name, which may be in any of the modules."""
    stand_in = StandIn(f"{modules[0]}.{name}", call, build, value)
    return {(module, name): stand_in for module in modules}


def allow_record(modules: Sequence[str], name: str) -> dict[tuple[str, str], StandIn]:
    """Returns the allow-list of one class whose objects become a `Record` of that name."""
    return allow(modules, name, lambda *arguments: Record(f"{modules[0]}.{name}", arguments))


def unknown(name: str) -> StandIn:
    """Returns the stand-in for an unknown name; it makes records only."""
    return StandIn(name, lambda *arguments: Record(name, arguments, is_known=False), is_known=False)


def plain_key(key: Any) -> Any:
    """Returns the key itself if it is a scalar that is safe to hash, else a record that holds it.

    Safe scalars are texts and bytes of usual length, 64-bit integers, floats, booleans and None.
    A record is hashed by its identity: the hash of a deep tuple would overflow the C stack, and the
    hashes of many tuples can be made to collide.

    Raises: ValueError for a type that Python cannot hash either.
    """
    if type(key) is int and -(1 << 63) <= key < 1 << 63:
        return key
    if type(key) in (bool, float, type(None)):
        return key
    if type(key) in (str, bytes) and len(key) <= _LONGEST_KEY:
        return key
    if isinstance(key, dict | list | set | bytearray):
        raise ValueError(f"a key of type {type(key).__name__}")
    return key if isinstance(key, Record) else Record("key", (key,))
