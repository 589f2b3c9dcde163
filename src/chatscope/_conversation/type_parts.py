"""Splits a type that neither msgspec nor pydantic reads as a whole into parts that one of them reads.

Schemas (`raw_schema`) and decoders (`decoding`) follow the same parts. Not here: which library reads a type
(`type_readers`).
"""

from __future__ import annotations

import collections.abc
import enum
import sys
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, NamedTuple, get_args, get_origin

from chatscope._conversation.type_readers import UNIONS, Field, fields_of, is_untagged, reader_of, without_metadata

_CONTAINERS: Final[Mapping[Any, type]] = {
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    collections.abc.Sequence: list,
    collections.abc.MutableSequence: list,
    collections.abc.Collection: list,
    collections.abc.Iterable: list,
    collections.abc.Set: set,
    collections.abc.MutableSet: set,
}
"""Types with one type for all items, and the container of a decoded value's items."""


class Leaf(NamedTuple):
    """A type that one library reads as a whole."""

    kind: Any
    is_pydantic: bool


class Items(NamedTuple):
    """A container whose items no library reads.

    Attributes:
        container: the class of the decoded value.
        item: the type of the items.
        bare: the type without that of its items, but with its constraints.
    """

    container: type
    item: Any
    bare: Any


class Values(NamedTuple):
    """A mapping from texts whose values no library reads.

    Attributes:
        item: the type of the values.
    """

    item: Any


class Alternatives(NamedTuple):
    """A union that no library reads. Each member is read by one library, or is split in turn."""

    kinds: tuple[Any, ...]


class MixedEnum(NamedTuple):
    """An enum that no library reads, because its values have several types."""

    cls: type[enum.Enum]


class Record(NamedTuple):
    """A class with named fields that no library reads."""

    cls: type
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Described:
    """A type with a description of its own."""

    kind: Any
    description: str


Part = Leaf | Items | Values | Alternatives | MixedEnum | Record | Described


def type_adapter(kind: Any) -> Any:
    """Return pydantic's `TypeAdapter` of a type that pydantic reads."""
    return sys.modules["pydantic"].TypeAdapter(kind)


def part_of(kind: Any) -> Part:
    """Return a type as one part if a library reads it, else split into its parts.

    Raises:
        TypeError: no library reads the type, and it cannot be split.
    """
    if (reader := reader_of(kind)) is not None:
        return Leaf(kind, reader == "pydantic")
    bare, metadata = without_metadata(kind)
    origin = get_origin(bare)
    if origin in UNIONS:
        part: Part = Alternatives(_grouped(get_args(bare)))
    elif origin in _CONTAINERS and len(args := [arg for arg in get_args(bare) if arg is not ...]) == 1:
        container = _CONTAINERS[origin]
        plain = Annotated[(list[Any], *metadata)] if metadata else list[Any]  # type: ignore[index,misc,unused-ignore]
        return Items(container, args[0], plain)
    elif isinstance(bare, type) and issubclass(bare, enum.Enum):
        part = MixedEnum(bare)
    elif (fields := fields_of(bare)) is not None:
        part = Record(origin or bare, tuple(fields))
    elif isinstance(origin, type) and issubclass(origin, collections.abc.Mapping):
        key, value = get_args(bare)
        if key is not str:
            raise TypeError("neither library reads its values, and its keys are not texts")
        part = Values(value)
    else:
        raise TypeError("it holds classes of pydantic and of msgspec or attrs in a type that neither library reads")
    description = next((text for item in metadata if (text := getattr(item, "description", None))), None)
    return part if description is None else Described(bare, description)


def _grouped(kinds: Sequence[Any]) -> tuple[Any, ...]:
    """Return the members of a union; members that one library reads are grouped in one union."""
    groups: dict[Any, list[Any]] = {}
    for kind in kinds:
        reader = reader_of(kind)
        alone = reader is None or (reader == "msgspec" and is_untagged(without_metadata(kind)[0]))
        groups.setdefault(len(groups) if alone else reader, []).append(kind)
    return tuple(typing.Union[tuple(group)] for group in groups.values())  # noqa: UP007 - made of a tuple
