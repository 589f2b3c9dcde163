"""Decodes JSON to values of Python types, with the library that reads each part. Nothing is sent here.

A type that one library reads as a whole is decoded by that library alone. If both are needed (`type_parts.py`), JSON
objects are checked field by field, each field by the library that reads its type.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import msgspec

from chatscope._conversation.type_parts import (
    Alternatives,
    Described,
    Items,
    Leaf,
    MixedEnum,
    Record,
    Values,
    part_of,
    type_adapter,
)
from chatscope._conversation.type_readers import Field, classes_in, fields_of, is_pydantic_class

Converter: TypeAlias = Callable[[Any, str], Any]
"""Converts plain JSON values to a value; the second argument is the place, for errors. Raises `ValueError`."""


def text_decoder(kind: Any) -> Callable[[str | bytes], Any]:
    """Return a function that decodes JSON text to a value of a type. It raises `ValueError` if text does not fit."""
    part = part_of(kind)
    if isinstance(part, Leaf):
        return type_adapter(kind).validate_json if part.is_pydantic else msgspec.json.Decoder(kind).decode
    return partial(_decode_and_convert, _Converters().of(kind))


def arguments_decoder(name: str, fields: Sequence[Field]) -> Callable[[str | bytes], dict[str, Any]]:
    """Return a function that decodes the JSON text of an object to the values of its fields, without missing ones.

    Args:
        name: the object's name in errors.
        fields: all fields that it may have.
    """
    record, parts = _Converters().record(name, fields, forbid_unknown_fields=True)
    decode = msgspec.json.Decoder(record).decode
    return lambda text: _values(decode(text), fields, parts, "$")


def _decode_and_convert(convert: Converter, text: str | bytes) -> Any:
    return convert(msgspec.json.decode(text), "$")


class _Converters:
    """Creates the converters for a type and all its parts. A class that contains itself gets only one."""

    def __init__(self) -> None:
        self._by_kind: dict[Any, Converter] = {}

    def of(self, kind: Any) -> Converter:
        part = part_of(kind)
        match part:
            case Leaf(is_pydantic=True):
                return partial(_convert_by_pydantic, type_adapter(kind).validate_json)
            case Leaf():
                return partial(_convert_by_msgspec, kind)
            case Described():
                return self.of(part.kind)
            case Items():
                return partial(_convert_items, part, self.of(part.item))
            case Values():
                return partial(_convert_values, self.of(part.item))
            case Alternatives():
                return partial(_convert_to_first, [(self.of(one), _keys(one)) for one in part.kinds])
            case MixedEnum():
                return partial(_convert_mixed_enum, part)
            case Record():
                return self._of_record(kind, part)

    def _of_record(self, kind: Any, part: Record) -> Converter:
        if kind not in self._by_kind:
            self._by_kind[kind] = partial(self._convert_later, kind)  # for parts that contain it
            is_pydantic = is_pydantic_class(part.cls)
            config: Any = getattr(part.cls, "__struct_config__", None)
            options = {name: getattr(config, name, None) for name in ("tag", "tag_field")}
            forbids = bool(config and config.forbid_unknown_fields)
            record, parts = self.record(
                part.cls.__name__, part.fields, by_msgspec=not is_pydantic, forbid_unknown_fields=forbids, **options
            )
            make: Callable[..., Any] = part.cls
            if is_pydantic:
                validate = type_adapter(kind).validate_python
                keys = {field.name: field.key for field in part.fields}
                make = lambda **values: validate({keys[name]: value for name, value in values.items()})  # noqa: E731
            self._by_kind[kind] = partial(_convert_record, record, part.fields, parts, make)
        return self._by_kind[kind]

    def _convert_later(self, kind: Any, value: Any, place: str) -> Any:
        return self._by_kind[kind](value, place)

    def record(
        self, name: str, fields: Sequence[Field], *, by_msgspec: bool = True, **config: Any
    ) -> tuple[type[msgspec.Struct], dict[str, Converter]]:
        """Return a Struct that accepts the fields as they are, and converters for those that msgspec does not read.

        Args:
            name: the Struct's name.
            fields: its fields. Those with defaults are `UNSET` if they are missing, since a Struct may not support
                their defaults.
            by_msgspec: whether msgspec checks the fields that both libraries can read.
            config: the Struct's options.
        """
        parts: dict[str, Converter] = {}
        declared: list[Any] = []
        for field in fields:
            part, kind = part_of(field.kind), field.kind
            is_pydantic = isinstance(part, Leaf) and part.is_pydantic
            if is_pydantic or not isinstance(part, Leaf) or not by_msgspec:
                kind = Any
                if by_msgspec or not is_pydantic:
                    parts[field.name] = self.of(field.kind)
            declared.append(
                (field.name, kind) if field.is_required else (field.name, kind | msgspec.UnsetType, msgspec.UNSET)
            )
        rename = {field.name: field.key for field in fields}
        return msgspec.defstruct(name, declared, kw_only=True, rename=rename, **config), parts


def _values(given: Any, fields: Sequence[Field], parts: dict[str, Converter], place: str) -> dict[str, Any]:
    values = {field.name: value for field in fields if (value := getattr(given, field.name)) is not msgspec.UNSET}
    for field in fields:
        if field.name in parts and field.name in values:
            values[field.name] = parts[field.name](values[field.name], f"{place}.{field.key}")
    return values


def _convert_by_msgspec(kind: Any, value: Any, place: str) -> Any:
    try:
        return msgspec.convert(value, kind, str_keys=True)
    except msgspec.ValidationError as error:
        what, _, inner = str(error).partition(" - at `$")
        raise ValueError(f"{what} - at `{place}{inner.rstrip('`')}`") from error


def _convert_by_pydantic(validate_json: Callable[[bytes], Any], value: Any, place: str) -> Any:
    # As JSON: given plain values, pydantic's strict mode would demand types that JSON does not have.
    try:
        return validate_json(msgspec.json.encode(value))
    except ValueError as error:
        raise ValueError(f"{error} - at `{place}`") from error


def _convert_items(part: Items, convert: Converter, value: Any, place: str) -> Any:
    items = _convert_by_msgspec(part.bare, value, place)
    return part.container([convert(item, f"{place}[{index}]") for index, item in enumerate(items)])


def _convert_values(convert: Converter, value: Any, place: str) -> Any:
    values = _convert_by_msgspec(dict[str, Any], value, place)
    return {key: convert(item, f"{place}.{key}") for key, item in values.items()}


def _convert_mixed_enum(part: MixedEnum, value: Any, place: str) -> Any:
    try:
        return part.cls(value)
    except ValueError as error:
        raise ValueError(f"{error} - at `{place}`") from error


def _convert_record(
    record: Any,
    fields: Sequence[Field],
    parts: dict[str, Converter],
    make: Callable[..., Any],
    value: Any,
    place: str,
) -> Any:
    values = _values(_convert_by_msgspec(record, value, place), fields, parts, place)
    try:
        return make(**values)
    except (TypeError, ValueError) as error:  # of the class's own checks
        raise ValueError(f"{error} - at `{place}`") from error


def _convert_to_first(
    alternatives: Sequence[tuple[Converter, Sequence[frozenset[str]]]], value: Any, place: str
) -> Any:
    """Convert to the first alternative that fits. Alternatives with exactly the object's fields are tried first.

    In strict mode a model writes all fields of a class and no others. A class with defaults would accept fewer.
    """
    problems: list[str] = []
    keys = value.keys() if isinstance(value, dict) else None
    for convert, _ in sorted(alternatives, key=lambda one: keys not in one[1]):
        try:
            return convert(value, place)
        except ValueError as error:
            problems.append(str(error))
    raise ValueError("; ".join(problems))


def _keys(kind: Any) -> list[frozenset[str]]:
    """Return the names of the fields of each class in a union."""
    found = []
    for one in classes_in(kind):
        if (fields := fields_of(one)) is not None:
            config = getattr(one, "__struct_config__", None)
            tag = [config.tag_field] if config is not None and config.tag is not None else []
            found.append(frozenset([field.key for field in fields] + tag))
    return found
