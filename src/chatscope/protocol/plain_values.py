"""Structs of responses to the plain objects that they came from. The structs are in `response.py`."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec


def to_dict(value: Any) -> Any:
    """Return a struct as plain objects, each with its unknown fields in place."""
    if isinstance(value, msgspec.Struct):
        names = _sent_names(type(value))
        built = {name: to_dict(getattr(value, attribute)) for attribute, name in names}
        return built | getattr(value, "extra", {})
    if isinstance(value, list):
        return [to_dict(item) for item in value]
    return value


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


@cache
def _sent_names(cls: type[msgspec.Struct]) -> tuple[tuple[str, str], ...]:
    """Return the attributes of a struct that stand in its JSON, each with its name there."""
    fields = msgspec.structs.fields(cls)
    return tuple((field.name, field.encode_name) for field in fields if not field.encode_name.startswith("<"))
