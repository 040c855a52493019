"""What stands for foreign names: pure functions of ours, or what makes inert records."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tools.convert_weights.readers.structure import Record

# Views with more elements than their memory, such as an average that is repeated for each layer,
# may have this many bytes in all: whoever copies them makes these.
MAX_REPEATED_BYTES = 256 << 20
# Names of layers have up to some hundred characters.
_LONGEST_KEY = 1000


@dataclasses.dataclass(frozen=True, repr=False)
class StandIn:
    """What stands for one foreign name.

    name: module and name, joined by a dot.
    call: makes the object from the pickled arguments; None if the name may only be mentioned.
    build: puts the pickled state into an object that `call` made, in place.
    value: what the name means where it is only mentioned, for example the dtype of a storage class.
    is_known: whether it is in an allow-list.
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
    """Returns the allow-list of one name that different versions keep in different modules."""
    stand_in = StandIn(f"{modules[0]}.{name}", call, build, value)
    return {(module, name): stand_in for module in modules}


def allow_record(modules: Sequence[str], name: str) -> dict[tuple[str, str], StandIn]:
    """Returns the allow-list of one class whose objects become a `Record` of that name."""
    return allow(modules, name, lambda *arguments: Record(f"{modules[0]}.{name}", arguments))


def unknown(name: str) -> StandIn:
    """Returns what stands for a name that we do not know: whatever it makes is a record."""
    return StandIn(name, lambda *arguments: Record(name, arguments, is_known=False), is_known=False)


def plain_key(key: Any) -> Any:
    """Returns the key if it is a scalar that is safe to hash, and that a path may be made of.

    These are texts of usual length, bytes, 64-bit numbers and None. Any other key, such as a tuple,
    becomes a record of its own, which is hashed by its identity: the hash of a deep tuple would
    overflow the C stack, and those of many tuples can be made to collide.

    Raises: ValueError for what Python does not take for a key either.
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
