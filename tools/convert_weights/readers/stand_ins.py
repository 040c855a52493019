"""Allow-lists: which foreign names a pickle may mention, and the pure functions for them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tools.convert_weights.readers.structure import Record


@dataclasses.dataclass(frozen=True)
class StandIn:
    """What stands for one foreign name.

    name: module and name, joined by a dot.
    call: makes the object from the pickled arguments; None if the name may only be mentioned.
    build: puts the pickled state into an object that `call` made, in place.
    value: what the name means where it is only mentioned, for example the dtype of a storage class.
    """

    name: str
    call: Callable[..., Any] | None = None
    build: Callable[[Any, Any], None] | None = None
    value: Any = None


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

    def make(*arguments: Any) -> Record:
        return Record(f"{modules[0]}.{name}", arguments)

    def set_state(record: Record, state: Any) -> None:
        record.state = state

    return allow(modules, name, make, set_state)


def plain_key(key: Any) -> Any:
    """Returns the key if it is a scalar that is safe to hash: text, bytes, a 64-bit number or None.

    Raises: ValueError otherwise.
    """
    if type(key) is int and -(1 << 63) <= key < 1 << 63:
        return key
    if type(key) in (str, bytes, bool, type(None)):
        return key
    raise ValueError(f"a key of type {type(key).__name__}")
