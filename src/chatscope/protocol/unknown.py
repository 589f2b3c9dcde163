"""The fields of a response that the structs do not define: whether there are any, and where they are kept.

The structs of `response.py` refuse unknown fields: if they accept a response, nothing is lost. Any other response is
decoded to plain objects, and its unknown fields are stored in the `extra` of the struct that they belong to. For fields
that a server sends in chunk after chunk there are twins of the structs, derived from them, that have them too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from operator import attrgetter
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias, get_args

import msgspec

from chatscope.protocol.coerce import CONTENT_PARTS, IS_WHOLE, fields_of
from chatscope.protocol.error_fields import is_judged
from chatscope.protocol.response import Chunk, ChunkChoice, Delta
from chatscope.protocol.usage import Usage
from chatscope.protocol.usage_reports import reports_usage

_MOST_NAMES: Final = 32
"""The most unknown fields that the decoder of a stream learns."""

_CONTAINERS: Final = (dict, list)
_NoList: TypeAlias = bool | int | float | str | dict[str, Any] | None
_UNKNOWN: Final[Any] = object()
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_][\w.\-]{0,63}", re.ASCII)


class UnknownNames(NamedTuple):
    """The names of the unknown fields in chunks, sorted, by the object that contains them."""

    chunk: tuple[str, ...] = ()
    choice: tuple[str, ...] = ()
    delta: tuple[str, ...] = ()

    def union(self, other: UnknownNames) -> UnknownNames:
        """Return the names of both."""
        return UnknownNames(*(tuple(sorted({*mine, *others})) for mine, others in zip(self, other, strict=True)))


def are_harmless(names: UnknownNames) -> bool:
    """Return whether fields say nothing that `find_error` looks at, and are few enough to be expected."""
    together = [*names.chunk, *names.choice, *names.delta]
    return len(together) <= _MOST_NAMES and all(
        not reports_usage(name) and not is_judged(name) and _PLAIN_NAME.fullmatch(name) for name in together
    )


def unknown_names(chunk: Chunk) -> UnknownNames:
    """Return the names of the unknown fields of a chunk whose `extra` is filled in."""
    choices = chunk.choices
    if len(choices) == 1:
        in_choices, in_deltas = choices[0].extra, choices[0].delta.extra
    else:
        in_choices = {name: None for choice in choices for name in choice.extra}
        in_deltas = {name: None for choice in choices for name in choice.delta.extra}
    return UnknownNames(_names(chunk.extra, Chunk), _names(in_choices, ChunkChoice), _names(in_deltas, Delta))


def _names(extra: dict[str, Any], cls: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the names in an `extra`, without those of defined fields that could not be converted."""
    if not extra:
        return ()
    structs = _structs(cls)
    return tuple(sorted([name for name in extra if name not in structs]))


def learned_chunk(names: UnknownNames) -> type[msgspec.Struct]:
    """Return the twin of a chunk that has fields for some unknown ones, too."""
    delta = _twin(Delta, _types(Delta), dict.fromkeys(names.delta, Any)) if names.delta else Delta
    choice = _twin(ChunkChoice, _types(ChunkChoice) | {"delta": delta}, dict.fromkeys(names.choice, Any))
    types = _types(Chunk) | {"choices": list[choice]}  # type: ignore[valid-type]  # made at run time
    return _twin(Chunk, types, dict.fromkeys(names.chunk, Any))


def text_chunk(names: UnknownNames, kind: str) -> type[msgspec.Struct]:
    """Return a struct for chunks that add text of one kind to the first choice and do nothing else.

    The fields that are the same in every chunk may be there, and usage. Any other field has to be null, also one that
    is added to `response.py` later. All of the unknown fields that are named have to be there, so that the last chunk
    tells all that the chunks before it do; those of the delta have to be null, since they grow, and those of the choice
    cannot be lists.

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
    head = {"id", "created", "model", "system_fingerprint", "service_tier", "obfuscation", "usage"}
    types = dict.fromkeys(Chunk.__struct_fields__, None) | {"object": Literal["chat.completion.chunk", ""]}
    types |= {field.name: field.type for field in fields_of(Chunk) if field.name in head}
    return _twin(Chunk, types, dict.fromkeys(names.chunk, Any), required={"choices": tuple[choice]})  # type: ignore[valid-type]  # made at run time


def fill_extra(made: msgspec.Struct, sent: Mapping[str, Any]) -> None:
    """Store the fields of a decoded object that its struct does not hold in the struct's `extra`, at every depth.

    A defined field whose value could not be converted counts as unknown too.
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
        elif isinstance(inner, str | float) and _is_lost(getattr(made, attribute), inner) and not name.startswith("<"):
            extra[name] = inner
    if hasattr(made, "extra"):
        setattr(made, "extra", extra)  # noqa: B010 - a struct of any kind; replaces a field that the server itself calls `extra`


def _is_lost(value: object, sent: str | float) -> bool:
    """Return whether a field does not hold a text or a number that was sent for it, not even as another type."""
    return bool(sent) and (not value or isinstance(value, msgspec.Struct)) and str(value) != str(sent)


def with_extra(sent: Mapping[str, Any], cls: type[msgspec.Struct]) -> dict[str, Any]:
    """Return a copy of a decoded object whose unknown fields, at every depth, are in a field `<extra>` of their object.

    So `msgspec.convert` takes it, and stores them in the struct's `extra`. Of the names in angle brackets only those
    that `normalized` sets are kept.
    """
    structs = _structs(cls)
    built: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, inner in sent.items():
        struct = structs.get(name, _UNKNOWN)
        kind = type(inner)
        if struct is _UNKNOWN:
            if name in (CONTENT_PARTS, IS_WHOLE):
                built[name] = inner
            elif name not in _attributes(cls):
                extra[name] = inner
        elif struct is None or (kind is not dict and kind is not list):
            built[name] = inner
        elif kind is list:
            built[name] = [with_extra(item, struct) if type(item) is dict else item for item in inner]
        elif struct is not Usage:
            built[name] = with_extra(inner, struct)
        elif unknown := _unknown_counts(inner, Usage):
            built[name] = _known_counts(inner, Usage)
            extra[name] = unknown
        else:
            built[name] = inner
    if extra:
        built["<extra>"] = extra
    return built


def _unknown_counts(sent: Mapping[str, Any], cls: type[msgspec.Struct]) -> dict[str, Any]:
    unknown: dict[str, Any] = {}
    structs = _structs(cls)
    for name, inner in sent.items():
        if name not in structs:
            unknown[name] = inner
        elif isinstance(inner, dict) and (struct := structs[name]) and (more := _unknown_counts(inner, struct)):
            unknown[name] = more
    return unknown


def _known_counts(sent: Any, cls: type[msgspec.Struct]) -> Any:
    """Return counts without those that are unknown."""
    if not isinstance(sent, dict):
        return sent
    structs = _structs(cls)
    return {
        name: _known_counts(inner, struct) if (struct := structs[name]) is not None else inner
        for name, inner in sent.items()
        if name in structs
    }


@cache
def _attributes(cls: type[msgspec.Struct]) -> dict[str, str]:
    """Return the attributes of a struct by their names in the JSON."""
    return {field.encode_name: field.name for field in fields_of(cls)}


@cache
def _structs(cls: type[msgspec.Struct]) -> dict[str, type[msgspec.Struct] | None]:
    """Return the names of a struct's fields that are sent, each with the struct that the field or its items hold."""
    return {
        field.encode_name: _struct_in(field.type) for field in fields_of(cls) if not field.encode_name.startswith("<")
    }


def _struct_in(kind: Any) -> type[msgspec.Struct] | None:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    return next((struct for arm in get_args(kind) if (struct := _struct_in(arm)) is not None), None)


def _twin(
    cls: type[msgspec.Struct],
    types: Mapping[str, Any],
    unknown: Mapping[str, Any] = MappingProxyType({}),
    *,
    required: Mapping[str, Any] | None = None,
) -> type[msgspec.Struct]:
    """Return a struct with other types for the fields of a struct. What is not part of the JSON is left out.

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
    attributes = [(f"unknown_{place}", name) for place, name in enumerate(unknown)]
    for attribute, name in attributes:
        setting = msgspec.field(name=name) if required else msgspec.field(default=msgspec.UNSET, name=name)
        fields.append((attribute, unknown[name], setting))

    return msgspec.defstruct(
        f"Learned{cls.__name__}",
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


def _types(cls: type[msgspec.Struct]) -> dict[str, Any]:
    return {field.name: field.type for field in fields_of(cls)}
