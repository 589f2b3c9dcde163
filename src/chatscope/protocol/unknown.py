"""The fields of a response that the structs do not define: whether there are any, and where they are kept.

Decoding into the structs of `response.py` drops unknown fields. So each struct has a strict twin, derived from it, that
rejects them: if the twin accepts a response, nothing is lost. Any other response is decoded again, to plain objects,
and its unknown fields are stored in the `extra` of the struct that they belong to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from operator import attrgetter
from types import MappingProxyType, UnionType
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias, Union, get_args, get_origin

import msgspec

from chatscope.protocol.coerce import fields_of
from chatscope.protocol.error_object import is_judged
from chatscope.protocol.response import Chunk, ChunkChoice, Delta
from chatscope.protocol.usage import Usage
from chatscope.protocol.usage_reports import reports_usage

_MOST_NAMES: Final = 32
"""How many unknown fields are learned."""

_PlainReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]
"""The finish reasons that are no error under any name. A strict struct refuses others: they have to be looked at."""

_CONTAINERS: Final = (dict, list)
_NoList: TypeAlias = bool | int | float | str | dict[str, Any] | None
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_][\w.\-]{0,63}", re.ASCII)


class UnknownNames(NamedTuple):
    """The names of fields without a name here that chunks bring, by the object that they stand in; each sorted."""

    chunk: tuple[str, ...] = ()
    choice: tuple[str, ...] = ()
    delta: tuple[str, ...] = ()

    def can_be_learned(self) -> bool:
        """Return whether the fields say nothing that has to be judged in every chunk, and are not too many."""
        names = [*self.chunk, *self.choice, *self.delta]
        return len(names) <= _MOST_NAMES and all(
            not reports_usage(name) and not is_judged(name) and _PLAIN_NAME.fullmatch(name) for name in names
        )

    def union(self, other: UnknownNames) -> UnknownNames:
        """Return the names of both."""
        return UnknownNames(*(tuple(sorted({*mine, *others})) for mine, others in zip(self, other, strict=True)))


def unknown_names(chunk: Chunk) -> UnknownNames:
    """Return the names of the unknown fields of a chunk whose `extra` is filled in."""
    choices = {name for choice in chunk.choices for name in choice.extra}
    deltas = {name for choice in chunk.choices for name in choice.delta.extra}
    return UnknownNames(
        tuple(sorted(chunk.extra.keys() - set(Chunk.__struct_encode_fields__))),
        tuple(sorted(choices - set(ChunkChoice.__struct_encode_fields__))),
        tuple(sorted(deltas - set(Delta.__struct_encode_fields__))),
    )


@cache
def strict(cls: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """Return a struct with the fields of another one, at every depth, that refuses any other field.

    It also rejects an `error` field, which has to be examined.
    """
    return _twin(cls, _strict_types(cls))


def strict_chunk(names: UnknownNames) -> type[msgspec.Struct]:
    """Return the strict twin of a chunk, with some of the fields that are unknown elsewhere."""
    delta = _twin(Delta, _strict_types(Delta), dict.fromkeys(names.delta, Any))
    choice = _twin(ChunkChoice, _strict_types(ChunkChoice) | {"delta": delta}, dict.fromkeys(names.choice, Any))
    types = _strict_types(Chunk) | {"choices": list[choice]}  # type: ignore[valid-type]  # made at run time
    return _twin(Chunk, types, dict.fromkeys(names.chunk, Any))


def text_chunk(names: UnknownNames, kind: str) -> type[msgspec.Struct]:
    """Return a struct for chunks that add text of one kind to the first choice and do nothing else.

    The fields that are the same in every chunk may be there. Any other field has to be null, also one that is added to
    `response.py` later. All of the unknown fields that are named have to be there, so that the last chunk tells all
    that the chunks before it do; those of the delta have to be null, since they grow, and those of the choice cannot be
    lists.

    Args:
        names: the unknown fields.
        kind: the attribute of `Delta` that holds the text.
    """
    types = dict.fromkeys(Delta.__struct_fields__, None)
    types |= {"role": Literal["assistant"] | None, "content": Literal[""] | None}
    delta = _twin(
        Delta, types, dict.fromkeys(names.delta, None), required={kind: Annotated[str, msgspec.Meta(min_length=1)]}
    )
    types = dict.fromkeys(ChunkChoice.__struct_fields__, None) | {"index": Literal[0]}
    choice = _twin(ChunkChoice, types, dict.fromkeys(names.choice, _NoList), required={"delta": delta})
    head = {"id", "created", "model", "system_fingerprint", "service_tier", "obfuscation"}
    types = dict.fromkeys(Chunk.__struct_fields__, None) | {"object": Literal["chat.completion.chunk", ""]}
    types |= {field.name: field.type for field in fields_of(Chunk) if field.name in head}
    return _twin(Chunk, types, dict.fromkeys(names.chunk, Any), required={"choices": tuple[choice]})  # type: ignore[valid-type]  # made at run time


def fill_extra(made: msgspec.Struct, sent: Mapping[str, Any]) -> None:
    """Store the fields of a decoded object that its struct does not hold in the struct's `extra`, at every depth.

    A defined field whose value is an object or a list that could not be converted counts as unknown too.
    """
    attributes = _attributes(type(made))
    extra: dict[str, Any] = {}
    for name, inner in sent.items():
        attribute = attributes.get(name)
        if attribute is None:
            extra[name] = inner
        elif inner and isinstance(inner, _CONTAINERS) and not name.startswith("<"):
            value = getattr(made, attribute)
            if value is None or isinstance(value, str | int):
                extra[name] = inner
            elif isinstance(value, Usage):
                if isinstance(inner, dict) and (unknown := _unknown_counts(inner, Usage)):
                    extra[name] = unknown
            elif isinstance(value, list):
                if isinstance(inner, list):
                    structs = [item for item in value if isinstance(item, msgspec.Struct)]
                    objects = [item for item in inner if isinstance(item, dict)]
                    for struct, item in zip(structs, objects, strict=False):
                        fill_extra(struct, item)
            elif isinstance(value, msgspec.Struct) and isinstance(inner, dict):
                fill_extra(value, inner)
    if hasattr(made, "extra"):
        setattr(made, "extra", extra)  # noqa: B010 - a struct of any kind; replaces a field that the server itself calls `extra`


def _unknown_counts(sent: Mapping[str, Any], cls: type[msgspec.Struct]) -> dict[str, Any]:
    unknown: dict[str, Any] = {}
    details = _details(cls)
    for name, inner in sent.items():
        if name not in details:
            unknown[name] = inner
        elif isinstance(inner, dict) and (struct := details[name]) and (more := _unknown_counts(inner, struct)):
            unknown[name] = more
    return unknown


@cache
def _attributes(cls: type[msgspec.Struct]) -> dict[str, str]:
    """Return the attributes of a struct by their names in the JSON."""
    return {field.encode_name: field.name for field in fields_of(cls)}


@cache
def _details(cls: type[msgspec.Struct]) -> dict[str, type[msgspec.Struct] | None]:
    """Return the names of a struct's fields in the JSON, each with the struct that the field holds, if it does."""
    found: dict[str, type[msgspec.Struct] | None] = {}
    for field in fields_of(cls):
        arms = [arm for arm in get_args(field.type) if isinstance(arm, type) and issubclass(arm, msgspec.Struct)]
        found[field.encode_name] = arms[0] if arms else None
    return found


def _twin(
    cls: type[msgspec.Struct],
    types: Mapping[str, Any],
    unknown: Mapping[str, Any] = MappingProxyType({}),
    *,
    required: Mapping[str, Any] | None = None,
) -> type[msgspec.Struct]:
    """Return a strict struct with other types for the fields of a struct. What is not part of the JSON is left out.

    Args:
        cls: the struct.
        types: the types of its fields, by attribute.
        unknown: the types of fields that it has no name for, by their names. Its method `unknown` returns them.
        required: the types of fields that must be there. The unknown ones are required with them.
    """
    required = required or {}
    fields = [
        (field.name, required[field.name], msgspec.field(name=field.encode_name))
        if field.name in required
        else (field.name, types[field.name], msgspec.field(default=_default(field), name=field.encode_name))
        for field in fields_of(cls)
        if not field.encode_name.startswith("<")
    ]
    if not any(field.name == "error" for field in fields_of(cls)):
        fields.append(("error", None, msgspec.field(default=None, name="error")))
    attributes = [(f"unknown_{place}", name) for place, name in enumerate(unknown)]
    for attribute, name in attributes:
        setting = msgspec.field(name=name) if required else msgspec.field(default=msgspec.UNSET, name=name)
        fields.append((attribute, unknown[name], setting))

    return msgspec.defstruct(
        f"Strict{cls.__name__}",
        fields,
        forbid_unknown_fields=True,
        kw_only=True,
        gc=False,
        namespace={"unknown": _reader(attributes, required=bool(required))},
    )


def _default(field: msgspec.structs.FieldInfo) -> Any:
    return None if field.default is msgspec.NODEFAULT else field.default


def _reader(attributes: list[tuple[str, str]], *, required: bool) -> Callable[[Any], dict[str, Any]]:
    """Return a method that returns the unknown fields of a twin by name; it is called for every chunk."""
    if required and len(attributes) == 1:
        attribute, name = attributes[0]
        get = attrgetter(attribute)
        return lambda twin: {name: get(twin)}

    def read(twin: Any) -> dict[str, Any]:
        fields = [(name, getattr(twin, attribute)) for attribute, name in attributes]
        return {name: value for name, value in fields if value is not msgspec.UNSET}

    return read if attributes else lambda _: {}


def _strict_types(cls: type[msgspec.Struct]) -> dict[str, Any]:
    types = {field.name: _strict_type(field.type) for field in fields_of(cls)}
    if "finish_reason" in types:
        types["finish_reason"] = _PlainReason | None
    return types | {"error": None}


def _strict_type(wanted: Any) -> Any:
    if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
        return strict(wanted)
    if get_origin(wanted) is list:
        return list[_strict_type(get_args(wanted)[0])]  # type: ignore[misc]  # made at run time
    if get_origin(wanted) in {Union, UnionType}:
        return Union[tuple(map(_strict_type, get_args(wanted)))]  # noqa: UP007 - made at run time
    return wanted
