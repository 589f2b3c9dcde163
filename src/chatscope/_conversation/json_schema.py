"""Converts Python types to JSON schemas, by default those of strict mode. Nothing is sent or decoded here.

Strict mode accepts a part of JSON schema (the endpoint's guide "Structured model outputs", section "Supported schemas";
the same holds for tools with `strict`): every object lists its properties, requires all of them and allows no others,
and every value has a type. Keywords that are not essential are left out, because the response is checked against the
type itself: annotations such as `title`, `default` and `examples`, bounds of strings and sets (`minLength`,
`uniqueItems`, ...), formats other than `_FORMATS`, and patterns with syntax that not every engine supports. `oneOf`
becomes `anyOf`; `allOf` of one schema becomes that schema. Types that cannot be expressed are errors: mappings with
unknown keys, tuples with a type for each place, values of any type. Without strict mode they are not: a schema is then
sent as the libraries derive it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from chatscope._conversation.raw_schema import DEFS, raw_schemas
from chatscope._conversation.type_readers import Field

_BOUNDS: Final = frozenset({"multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})

_KEPT: Final = frozenset({"type", "description", "enum", "const", "minItems", "maxItems"})
"""Keywords that are sent unchanged. Those that hold schemas, patterns, formats and numbers are handled separately."""

_FORMATS: Final = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"},
)
"""The formats that the guide lists."""

_PATTERN_TOKEN: Final = re.compile(
    r"(?P<unsupported>\\[1-9bBAZzGkpP]|\(\?(?!:)|[*+?}]\+)|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL
)
"""One token of a pattern. Unsupported: look-around, back references, named groups, flags, word boundaries, possessive
repetition, Unicode classes. Servers compile patterns into grammars, which cannot express the first ones
(pydantic/pydantic-ai#5508: a server error for a third of all requests), and the engines differ in how they spell the
others."""

_NOT_SENT: Final = frozenset({"discriminator", "title"})
"""Keywords that are not sent in any mode: OpenAPI's own, and names that the model sees anyway."""

_VALUES: Final = frozenset({"const", "default", "enum", "examples"})
"""Keywords that hold values, not schemas."""

_LENIENTLY: Final = ", or strict=False"

_JSON_TYPES: Final = ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (type(None), "null"))


def object_schema(
    fields: Sequence[Field], descriptions: Mapping[str, str], of: str, *, strict: bool = True
) -> dict[str, Any]:
    """Return the schema of an object with these fields and no others.

    Args:
        fields: the fields and their types.
        descriptions: for the fields whose types have no description of their own.
        of: what errors put before a field's name.
        strict: whether it is a schema of strict mode, in which all fields are required.

    Raises:
        ValueError: a type has no such schema. The error names the field, the place in it and the type.
    """
    try:
        nodes, definitions = raw_schemas([field.kind for field in fields], of)  # together: classes of one name differ
    except ValueError:
        for field in fields:  # one by one, so that the error names the field
            raw_schemas([field.kind], f"{of}{field.name}")
        raise
    sent = _Strict(definitions) if strict else _Lenient(definitions)
    properties: dict[str, Any] = {}
    for field, node in zip(fields, nodes, strict=True):
        if field.name in descriptions:
            node = {"description": descriptions[field.name]} | node  # noqa: PLW2901 - the type's own goes first
        properties[field.key] = sent.schema(node, f"{of}{field.name}")
    schema = closed_object(properties)
    if not strict:
        schema["required"] = [field.key for field in fields if field.is_required]
    return sent.finish(schema)


def class_schema(kind: Any, of: str, *, strict: bool = True) -> dict[str, Any]:
    """Return the schema of a type. Its root is not a reference.

    Args:
        kind: the type.
        of: its name in errors.
        strict: whether it is a schema of strict mode.

    Raises:
        ValueError: the type has no such schema. The error names the place and the type.
    """
    (root,), definitions = raw_schemas([kind], of)
    while "$ref" in root:
        root = definitions[root["$ref"].removeprefix(DEFS)] | {key: root[key] for key in root.keys() - {"$ref"}}
    sent = _Strict(definitions) if strict else _Lenient(definitions)
    return sent.finish(sent.schema(root, of))


def closed_object(properties: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an object with these properties, all of them and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


class _Strict:
    """Makes schemas strict, together with the definitions that they need.

    Args:
        definitions: the definitions that the schemas refer to.
    """

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions
        self._names: dict[str, str] = {}
        self._needed: dict[str, Any] = {}

    def finish(self, root: dict[str, Any]) -> dict[str, Any]:
        """Return a root together with the definitions that it needs."""
        return root | {"$defs": self._needed} if self._needed else root

    def schema(self, node: Mapping[str, Any], where: str, inside: frozenset[str] = frozenset()) -> dict[str, Any]:
        """Return the strict form of a schema.

        Args:
            node: the schema.
            where: its place, for errors.
            inside: the definitions that have replaced the references around it.

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
            problem = "strict mode has no mappings with unknown keys; use a class with named fields"
            raise ValueError(f"{where}: {problem}{_LENIENTLY}")
        if node.get("type") == "array":
            return out | self._items(node, where, inside)
        if "type" not in out:
            out["type"] = _type_of_values(node, where)
        return out

    def _items(self, node: Mapping[str, Any], where: str, inside: frozenset[str]) -> dict[str, Any]:
        places = node.get("prefixItems")
        if places and any(place != places[0] for place in places):
            problem = "strict mode has no tuples with a type for each place; use a class, a list"
            raise ValueError(f"{where}: {problem}{_LENIENTLY}")
        items = places[0] if places else node.get("items")
        if not items:
            raise ValueError(f"{where}: strict mode has no values of any type; give the items a type{_LENIENTLY}")
        bounds = {"minItems": len(places), "maxItems": len(places)} if places else {}
        return {"items": self.schema(items, f"{where}[]", inside)} | bounds

    def _reference(self, node: Mapping[str, Any], where: str, inside: frozenset[str]) -> dict[str, Any]:
        key = node["$ref"].removeprefix(DEFS)
        while "$ref" in self._definition(key, where):  # an alias
            key = self._definitions[key]["$ref"].removeprefix(DEFS)
        if "description" in node and key not in inside:
            # A `$ref` cannot have other keywords, so the definition replaces it. Inside the definition, a class that
            # contains itself stays a reference, and loses the description.
            return self.schema(self._definitions[key], where, inside | {key}) | {"description": node["description"]}
        if key not in self._names:
            name = self._names[key] = self._unique(key.rpartition(":")[2])
            self._needed[name] = {}  # before its content, which may refer to it
            self._needed[name] = self.schema(self._definitions[key], where, frozenset({key}))
        return {"$ref": DEFS + self._names[key]}

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


class _Lenient(_Strict):
    """Keeps schemas as the libraries derive them, and gives their definitions the names that are sent."""

    def schema(self, node: Mapping[str, Any], where: str, inside: frozenset[str] = frozenset()) -> dict[str, Any]:
        """Return a schema as it is sent. The arguments are those of strict mode."""
        if len(parts := node.get("allOf", ())) == 1:
            node = parts[0] | {key: value for key, value in node.items() if key != "allOf"}
        if "$ref" in node:
            return self._reference(node, where, inside)
        return {
            key: self._keyword(key, value, where, inside)
            for key, value in node.items()
            if key not in _NOT_SENT and not (key in _BOUNDS and not math.isfinite(value))
        }

    def _keyword(self, key: str, value: Any, where: str, inside: frozenset[str]) -> Any:
        if key in _VALUES:
            return value
        if key in {"properties", "patternProperties"}:
            return {name: self.schema(one, f"{where}.{name}", inside) for name, one in value.items()}
        if isinstance(value, Mapping):
            return self.schema(value, where, inside)
        if isinstance(value, list):
            return [self.schema(one, where, inside) if isinstance(one, Mapping) else one for one in value]
        return value


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
        raise ValueError(f"{where}: strict mode has no values of any type; give it a type{_LENIENTLY}")
    kinds = list(dict.fromkeys(name for name in names if name is not None))
    return kinds if len(kinds) > 1 else kinds[0]
