"""Converts Python types to the JSON schemas that the endpoint's strict mode accepts. Nothing is sent or decoded here.

Strict mode accepts a part of JSON schema (the endpoint's guide "Structured model outputs", section "Supported schemas";
the same holds for tools with `strict`): every object lists its properties, requires all of them and allows no others,
and every value has a type. Keywords that are not essential are left out, because the response is checked against the
type itself: annotations such as `title`, `default` and `examples`, bounds of strings and sets (`minLength`,
`uniqueItems`, ...), formats other than `_FORMATS`, and patterns with syntax that not every engine supports. `oneOf`
becomes `anyOf`; `allOf` of one schema becomes that schema. Types that cannot be expressed are errors: mappings with
unknown keys, tuples with a type for each place, values of any type.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, get_args, get_origin

import msgspec

from chatscope._conversation.type_parts import (
    Alternatives,
    Described,
    Field,
    Items,
    Leaf,
    MixedEnum,
    Record,
    classes_in,
    fields_of,
    part_of,
    type_adapter,
)

_BOUNDS: Final = frozenset({"multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})

_KEPT: Final = frozenset({"type", "description", "enum", "const", "minItems", "maxItems"})
"""Keywords that are sent as they are. Those that hold schemas, patterns, formats and numbers are handled one by one."""

_FORMATS: Final = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"},
)
"""The formats that the guide lists."""

_PATTERN_TOKEN: Final = re.compile(
    r"(?P<unsupported>\\[1-9bBAZzGkpP]|\(\?(?!:)|[*+?}]\+)|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL
)
"""One token of a pattern. Unsupported: look-around, back references, named groups, flags, word boundaries, possessive
repetition, Unicode classes. Servers compile patterns into grammars, which have no way to express the first ones
(pydantic/pydantic-ai#5508: a server error for a third of all requests), and the engines differ in how they spell the
others."""

_DEFS: Final = "#/$defs/"

_JSON_TYPES: Final = ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (type(None), "null"))


def object_schema(fields: Sequence[Field], descriptions: Mapping[str, str], of: str) -> dict[str, Any]:
    """Return the strict schema of an object with these fields.

    Args:
        fields: the fields and their types.
        descriptions: for the fields whose types have no description of their own.
        of: what errors put before a field's name.

    Raises:
        ValueError: a type has no strict schema. The error names the field, the place in it and the type.
    """
    try:
        nodes, definitions = _raw_schemas([field.kind for field in fields], of)  # together: classes of one name differ
    except ValueError:
        for field in fields:  # one by one, so that the error names the field
            _raw_schemas([field.kind], f"{of}{field.name}")
        raise
    strict = _Strict(definitions)
    properties: dict[str, Any] = {}
    for field, node in zip(fields, nodes, strict=True):
        if field.name in descriptions:
            node = {"description": descriptions[field.name]} | node  # noqa: PLW2901 - the type's own goes first
        properties[field.key] = strict.schema(node, f"{of}{field.name}")
    return strict.finish(closed_object(properties))


def class_schema(kind: Any, of: str) -> dict[str, Any]:
    """Return the strict schema of a type. Its root is not a reference.

    Args:
        kind: the type.
        of: its name in errors.

    Raises:
        ValueError: the type has no strict schema. The error names the place and the type.
    """
    (root,), definitions = _raw_schemas([kind], of)
    while "$ref" in root:
        root = definitions[root["$ref"].removeprefix(_DEFS)] | {key: root[key] for key in root.keys() - {"$ref"}}
    strict = _Strict(definitions)
    return strict.finish(strict.schema(root, of))


def closed_object(properties: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an object with these properties, all of them and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _raw_schemas(kinds: Sequence[Any], of: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the schemas of types as the libraries derive them, and the definitions that they refer to."""
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
        ValueError: as `_raw_schemas`.
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
            _raw_schemas([part], where)


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
            case Alternatives():
                return {"anyOf": [self.schema(one) for one in part.kinds]}
            case MixedEnum():
                return {"enum": [member.value for member in part.cls]}
            case Record():
                return {"$ref": _DEFS + self._definition(kind, part)}

    def _definition(self, kind: Any, part: Record) -> str:
        if kind not in self._records:
            name = self._records[kind] = f"r:{len(self._records)}:{part.cls.__name__}"
            properties = {field.key: self.schema(field.kind) for field in part.fields}
            config = getattr(part.cls, "__struct_config__", None)
            if config is not None and config.tag is not None:
                properties = {config.tag_field: {"const": config.tag}} | properties
            definition = self.definitions[name] = {"type": "object", "properties": properties}
            doc = part.cls.__dict__.get("__doc__")
            if doc and not doc.startswith(f"{part.cls.__name__}("):  # which is what dataclasses write themselves
                definition["description"] = inspect.cleandoc(doc)
        return self._records[kind]

    def fill_in(self) -> None:
        if self._by_msgspec:
            kinds = [kind for _, kind in self._by_msgspec]
            schemas, definitions = msgspec.json.schema_components(kinds, ref_template=_DEFS + "m:{name}")
            for (node, _), schema in zip(self._by_msgspec, schemas, strict=True):
                node.update(schema)
            self.definitions |= {f"m:{name}": schema for name, schema in definitions.items()}
        if self._by_pydantic:
            adapters = [(index, "validation", type_adapter(kind)) for index, (_, kind) in enumerate(self._by_pydantic)]
            by_adapter, whole = adapters[0][2].json_schemas(adapters, ref_template=_DEFS + "p:{model}")
            for index, (node, _) in enumerate(self._by_pydantic):
                node.update(by_adapter[index, "validation"])
            self.definitions |= {f"p:{name}": schema for name, schema in whole.get("$defs", {}).items()}


class _Strict:
    """Makes schemas strict, and the definitions that they need.

    Args:
        definitions: those that the schemas refer to.
    """

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions
        self._names: dict[str, str] = {}
        self._needed: dict[str, Any] = {}

    def finish(self, root: dict[str, Any]) -> dict[str, Any]:
        """Return a root together with the definitions that are needed."""
        return root | {"$defs": self._needed} if self._needed else root

    def schema(self, node: Mapping[str, Any], where: str, inside: frozenset[str] = frozenset()) -> dict[str, Any]:
        """Return the strict form of a schema.

        Args:
            node: the schema.
            where: its place, for errors.
            inside: the definitions that take the place of references around it.

        Raises:
            ValueError: strict mode cannot express it. The error names the place.
        """
        if len(parts := node.get("allOf", ())) == 1:
            node = parts[0] | {key: value for key, value in node.items() if key != "allOf"}
        if "$ref" in node:
            return self._reference(node, where, inside)
        out = {key: value for key, value in node.items() if key in _KEPT}
        out |= {key: node[key] for key in node.keys() & _BOUNDS if math.isfinite(node[key])}
        if "pattern" in node and _is_portable(node["pattern"]):
            out["pattern"] = node["pattern"]
        if node.get("format") in _FORMATS:
            out["format"] = node["format"]
        if alternatives := node.get("anyOf") or node.get("oneOf"):
            return out | {"anyOf": _flat([self.schema(one, where, inside) for one in alternatives])}
        if "properties" in node:
            properties = node["properties"].items()
            return out | closed_object({name: self.schema(one, f"{where}.{name}", inside) for name, one in properties})
        if node.get("type") == "object":
            raise ValueError(f"{where}: strict mode has no mappings with unknown keys; use a class with named fields")
        if node.get("type") == "array":
            return out | self._items(node, where, inside)
        if "type" not in out:
            out["type"] = _type_of_values(node, where)
        return out

    def _items(self, node: Mapping[str, Any], where: str, inside: frozenset[str]) -> dict[str, Any]:
        places = node.get("prefixItems")
        if places and any(place != places[0] for place in places):
            raise ValueError(f"{where}: strict mode has no tuples with a type for each place; use a class, or a list")
        items = places[0] if places else node.get("items")
        if not items:
            raise ValueError(f"{where}: strict mode has no values of any type; give the items a type")
        bounds = {"minItems": len(places), "maxItems": len(places)} if places else {}
        return {"items": self.schema(items, f"{where}[]", inside)} | bounds

    def _reference(self, node: Mapping[str, Any], where: str, inside: frozenset[str]) -> dict[str, Any]:
        key = node["$ref"].removeprefix(_DEFS)
        while "$ref" in self._definition(key, where):  # an alias
            key = self._definitions[key]["$ref"].removeprefix(_DEFS)
        if "description" in node and key not in inside:
            # A `$ref` cannot have other keywords, so the definition replaces it. Inside the definition, a class that
            # contains itself stays a reference, and loses the description.
            return self.schema(self._definitions[key], where, inside | {key}) | {"description": node["description"]}
        if key not in self._names:
            name = self._names[key] = self._unique(key.rpartition(":")[2])
            self._needed[name] = {}  # before its content, which may refer to it
            self._needed[name] = self.schema(self._definitions[key], where, frozenset({key}))
        return {"$ref": _DEFS + self._names[key]}

    def _definition(self, key: str, where: str) -> Mapping[str, Any]:
        if key not in self._definitions:
            raise ValueError(f"{where}: its schema refers to {key!r}, which it does not define")
        definition: Mapping[str, Any] = self._definitions[key]
        return definition

    def _unique(self, name: str) -> str:
        taken, number = name, 1
        while taken in self._needed:
            number += 1
            taken = f"{name}_{number}"
        return taken


def _flat(alternatives: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return alternatives with nested unions flattened."""
    return [
        one
        for alternative in alternatives
        for one in (alternative["anyOf"] if alternative.keys() == {"anyOf"} else (alternative,))
    ]


def _is_portable(pattern: str) -> bool:
    return all(match["unsupported"] is None for match in _PATTERN_TOKEN.finditer(pattern))


def _type_of_values(node: Mapping[str, Any], where: str) -> str | list[str]:
    values = node["enum"] if "enum" in node else [node["const"]] if "const" in node else []
    names = [next((name for kind, name in _JSON_TYPES if isinstance(value, kind)), None) for value in values]
    if not names or None in names:
        raise ValueError(f"{where}: strict mode has no values of any type; give it a type")
    kinds = list(dict.fromkeys(name for name in names if name is not None))
    return kinds if len(kinds) > 1 else kinds[0]
