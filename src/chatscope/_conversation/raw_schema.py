"""Derives the JSON schemas of types, each part by the library that reads it. Not here: the form in which they are sent.

Definitions are named `m:...`, `p:...` or `r:...`, depending on what derived them, so that no two share a name.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any, Final, get_args, get_origin

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
from chatscope._conversation.type_readers import classes_in, fields_of

DEFS: Final = "#/$defs/"
"""What references to definitions begin with."""


def raw_schemas(kinds: Sequence[Any], of: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the schemas of types as the libraries derive them, and the definitions that they refer to.

    Raises:
        ValueError: a type has no schema. The error names the place and the type.
    """
    try:
        raw = _Raw()
        nodes = [raw.schema(kind) for kind in kinds]
        raw.fill_in()
    except Exception as error:
        if len(kinds) == 1:
            _check_parts(kinds[0], of)
        which = kinds[0] if len(kinds) == 1 else kinds
        raise ValueError(f"{of}: no schema can be derived from {which!r}: {error}") from error
    return nodes, raw.definitions


def _check_parts(kind: Any, of: str) -> None:
    """Derive the schema of each part of a type that has none, so that an error names the place.

    Raises:
        ValueError: as `raw_schemas`.
    """
    bare, *rest = classes_in(kind)
    if rest:
        parts = [(of, one) for one in (bare, *rest)]
    elif isinstance(origin := get_origin(bare), type) and issubclass(origin, Iterable):
        parts = [(f"{of}[]", one) for one in get_args(bare) if one is not ...]
    else:
        try:
            parts = [(f"{of}.{field.key}", field.kind) for field in fields_of(bare) or ()]
        except Exception:  # noqa: BLE001 - its annotations cannot be read: the error is about all of it
            parts = []
    for where, part in parts:
        if kind not in classes_in(part):
            raw_schemas([part], where)


class _Raw:
    """Derives the schemas of types, each part by the library that reads it.

    Each library derives its schemas at the end, all at once, so that it distinguishes classes with the same name.
    """

    def __init__(self) -> None:
        self.definitions: dict[str, Any] = {}
        self._by_msgspec: list[tuple[dict[str, Any], Any]] = []
        self._by_pydantic: list[tuple[dict[str, Any], Any]] = []
        self._records: dict[Any, str] = {}

    def schema(self, kind: Any) -> dict[str, Any]:
        part = part_of(kind)
        match part:
            case Leaf():
                node: dict[str, Any] = {}
                (self._by_pydantic if part.is_pydantic else self._by_msgspec).append((node, kind))
                return node
            case Described():
                return {"allOf": [self.schema(part.kind)], "description": part.description}
            case Items():
                bare = msgspec.json.schema(part.bare)
                return bare | {"items": self.schema(part.item)}
            case Values():
                return {"type": "object", "additionalProperties": self.schema(part.item)}
            case Alternatives():
                return {"anyOf": [self.schema(one) for one in part.kinds]}
            case MixedEnum():
                return {"enum": [member.value for member in part.cls]}
            case Record():
                return {"$ref": DEFS + self._definition(kind, part)}

    def _definition(self, kind: Any, part: Record) -> str:
        if kind not in self._records:
            name = self._records[kind] = f"r:{len(self._records)}:{part.cls.__name__}"
            properties = {field.key: self.schema(field.kind) for field in part.fields}
            config = getattr(part.cls, "__struct_config__", None)
            if config is not None and config.tag is not None:
                properties = {config.tag_field: {"const": config.tag}} | properties
            required = [field.key for field in part.fields if field.is_required]
            definition = self.definitions[name] = {"type": "object", "properties": properties, "required": required}
            doc = part.cls.__dict__.get("__doc__")
            if doc and not doc.startswith(f"{part.cls.__name__}("):  # which is what dataclasses write themselves
                definition["description"] = inspect.cleandoc(doc)
        return self._records[kind]

    def fill_in(self) -> None:
        if self._by_msgspec:
            kinds = [kind for _, kind in self._by_msgspec]
            schemas, definitions = msgspec.json.schema_components(kinds, ref_template=DEFS + "m:{name}")
            for (node, _), schema in zip(self._by_msgspec, schemas, strict=True):
                node.update(schema)
            self.definitions |= {f"m:{name}": schema for name, schema in definitions.items()}
        if self._by_pydantic:
            adapters = [(index, "validation", type_adapter(kind)) for index, (_, kind) in enumerate(self._by_pydantic)]
            by_adapter, whole = adapters[0][2].json_schemas(adapters, ref_template=DEFS + "p:{model}")
            for index, (node, _) in enumerate(self._by_pydantic):
                node.update(by_adapter[index, "validation"])
            self.definitions |= {f"p:{name}": schema for name, schema in whole.get("$defs", {}).items()}
