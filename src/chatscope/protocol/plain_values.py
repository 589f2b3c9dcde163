"""Converts the structs of responses (`response.py`) back to the plain objects from which they were decoded."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import msgspec

_ATOMS: Final = frozenset({str, int, float, bool, type(None)})
"""Most values of a response; they stay as they are."""


def to_dict(value: Any) -> Any:
    """Return a struct as plain objects, each with its unknown fields in place."""
    if isinstance(value, msgspec.Struct):
        if "extra" not in value.__struct_fields__:
            return msgspec.to_builtins(value)  # nor has any struct within it
        return struct_to_dict(value, {})
    if isinstance(value, list):
        return [to_dict(item) for item in value]
    return value


def struct_to_dict(value: msgspec.Struct, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a struct as a plain object.

    Args:
        value: the struct.
        given: the fields that are plain already, by attribute.
    """
    built: dict[str, Any] = {}
    for attribute, name in _sent_names(type(value)):
        sent = given[attribute] if attribute in given else getattr(value, attribute)
        built[name] = sent if type(sent) in _ATOMS or attribute in given else to_dict(sent)
    built.update(getattr(value, "extra", ()))
    return built


def fields_set(value: msgspec.Struct, leave_out: frozenset[str]) -> dict[str, Any]:
    """Return the fields of a struct that are set, as plain objects."""
    names = [(attribute, name) for attribute, name in _sent_names(type(value)) if attribute not in leave_out]
    return {name: to_dict(sent) for attribute, name in names if (sent := getattr(value, attribute)) is not None}


def overlaid(built: dict[str, Any], unknown: dict[str, Any]) -> dict[str, Any]:
    """Return an object with unknown fields put in, at every depth."""
    for name, value in unknown.items():
        inner = built.get(name)
        built[name] = overlaid(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return built


def sent_fields(cls: type[msgspec.Struct], leave_out: str = "") -> tuple[str, ...]:
    """Return the attributes of a struct that are in its JSON, except for one."""
    return tuple(attribute for attribute, _ in _sent_names(cls) if attribute != leave_out)


def encode_name(cls: type[msgspec.Struct], attribute: str) -> str:
    """Return the name in the JSON of an attribute of a struct."""
    return dict(_sent_names(cls))[attribute]


@cache
def _sent_names(cls: type[msgspec.Struct]) -> tuple[tuple[str, str], ...]:
    """Return the attributes of a struct that are in its JSON, each with its name there."""
    fields = msgspec.structs.fields(cls)
    return tuple((field.name, field.encode_name) for field in fields if not field.encode_name.startswith("<"))
