"""The fields of a response that no struct has a name for: whether there are any, and where they are kept.

Decoding into the structs of `response.py` drops what they do not name. So each struct has a strict twin, derived from
it, that refuses unknown fields: what a twin accepts has lost nothing. Anything else is decoded a second time, to plain
objects, and the unknown fields are put into the `extra` of the struct that they belong to.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import msgspec

from chatscope.protocol.response import Chunk, ChunkChoice, Completion, Delta
from chatscope.protocol.usage import Usage


@cache
def strict(cls: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """Return a struct with the fields of another one, at every depth, that refuses any other field.

    It refuses an `error` too: whether that is one has to be looked at.
    """
    types = {field.name: _strict_type(field.type) for field in msgspec.structs.fields(cls)}
    return _twin(cls, types | {"error": None})


def text_chunk() -> type[msgspec.Struct]:
    """Return a struct for chunks that add text to the first choice and do nothing else.

    The fields that are the same in every chunk may be there. Any other field has to be null, also one that is added to
    `response.py` later.
    """
    delta = _twin(Delta, dict.fromkeys(Delta.__struct_fields__, None) | {"role": Literal["assistant"] | None})
    delta = _with_required(delta, content=str)
    choice = _twin(ChunkChoice, dict.fromkeys(ChunkChoice.__struct_fields__, None) | {"index": Literal[0]})
    choice = _with_required(choice, delta=delta)
    head = {"id", "created", "model", "system_fingerprint", "service_tier", "obfuscation"}
    fields: dict[str, Any] = dict.fromkeys(Chunk.__struct_fields__, None)
    fields |= {field.name: field.type for field in msgspec.structs.fields(Chunk) if field.name in head}
    chunk = _twin(Chunk, fields | {"object": Literal["chat.completion.chunk", ""]})
    return _with_required(chunk, choices=tuple[choice])  # type: ignore[valid-type]  # made at run time


def fill_extra(made: msgspec.Struct, sent: Mapping[str, Any]) -> None:
    """Put the fields of a decoded object that the struct made of it does not hold into its `extra`, at every depth.

    A field that has a name but came as an object or a list that could not be taken counts as unknown too.
    """
    names, nested = _shape(type(made))
    extra = {name: value for name, value in sent.items() if name not in names}
    for attribute, name in nested:
        value, inner = getattr(made, attribute), sent.get(name)
        if inner is None:
            continue
        if value is None:
            if inner and isinstance(inner, dict | list):
                extra[name] = inner
        elif isinstance(value, Usage):
            if isinstance(inner, Mapping) and (unknown := _unknown_counts(inner, Usage)):
                extra[name] = unknown
        elif isinstance(value, msgspec.Struct):
            if isinstance(inner, Mapping):
                fill_extra(value, inner)
        elif isinstance(value, list) and isinstance(inner, list):
            structs = [item for item in value if isinstance(item, msgspec.Struct)]
            objects = [item for item in inner if isinstance(item, Mapping)]
            for struct, item in zip(structs, objects, strict=False):
                fill_extra(struct, item)
    if hasattr(made, "extra"):
        made.extra = extra  # whatever the server itself may have called so


def _unknown_counts(sent: Mapping[str, Any], cls: type[msgspec.Struct]) -> dict[str, Any]:
    names, nested = _shape(cls)
    unknown = {name: value for name, value in sent.items() if name not in names}
    details = {field.encode_name: field.type for field in msgspec.structs.fields(cls)}
    for _, name in nested:
        inner = sent.get(name)
        struct = next((arm for arm in get_args(details[name]) if arm is not NoneType), None)
        if isinstance(inner, Mapping) and struct is not None and (more := _unknown_counts(inner, struct)):
            unknown[name] = more
    return unknown


@cache
def _shape(cls: type[msgspec.Struct]) -> tuple[frozenset[str], tuple[tuple[str, str], ...]]:
    """Return the names that a struct knows, and its fields that may hold something unknown or be left out."""
    fields = [field for field in msgspec.structs.fields(cls) if not field.encode_name.startswith("<")]
    nested = [field for field in fields if NoneType in get_args(field.type) or _holds_structs(field.type)]
    return frozenset(cls.__struct_encode_fields__), tuple((field.name, field.encode_name) for field in nested)


def _holds_structs(wanted: Any) -> bool:
    if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
        return True
    return any(map(_holds_structs, get_args(wanted)))


def _twin(cls: type[msgspec.Struct], types: Mapping[str, Any]) -> type[msgspec.Struct]:
    """Return a strict struct with other types for the fields of a struct. What is not part of the JSON is left out."""
    fields = [
        (field.name, types[field.name], msgspec.field(default=None, name=field.encode_name))
        for field in msgspec.structs.fields(cls)
        if not field.encode_name.startswith("<")
    ]
    return msgspec.defstruct(f"Strict{cls.__name__}", fields, forbid_unknown_fields=True, kw_only=True, gc=False)


def _with_required(cls: type[msgspec.Struct], **required: Any) -> type[msgspec.Struct]:
    return msgspec.defstruct(
        cls.__name__, [*required.items()], bases=(cls,), forbid_unknown_fields=True, kw_only=True, gc=False
    )


def _strict_type(wanted: Any) -> Any:
    if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
        return strict(wanted)
    if get_origin(wanted) is list:
        return list[_strict_type(get_args(wanted)[0])]  # type: ignore[misc]  # made at run time
    if get_origin(wanted) in {Union, UnionType}:
        return Union[tuple(map(_strict_type, get_args(wanted)))]  # noqa: UP007 - made at run time
    return wanted


STRICT_CHUNK = strict(Chunk)
STRICT_COMPLETION = strict(Completion)
