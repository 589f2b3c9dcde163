"""Python types to the JSON schemas that the endpoint's strict mode takes. Nothing is sent or decoded here.

Strict mode takes a part of JSON schema (the endpoint's guide "Structured model outputs", section "Supported schemas";
the same holds for tools with `strict`). Every object lists its properties, requires all of them and allows no others;
every value has a type. What it refuses and a type can live without is left out, because the reply is checked against
the type itself: `title`, `default`, `examples`, `minLength`, `maxLength`, `uniqueItems`, `contentEncoding`,
`discriminator`, and formats besides those in `_FORMATS`; `oneOf` becomes `anyOf`. What cannot be said at all is an
error: mappings with keys that are not known, tuples with a type for each place, values of any type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

_KEPT: Final = frozenset(
    {"type", "description", "enum", "const", "pattern", "multipleOf", "minItems", "maxItems"}
    | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
)
"""Keywords that go out as they are; those that hold schemas are handled one by one."""

_FORMATS: Final = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"},
)
"""The formats that the guide lists."""

_DEFS: Final = "#/$defs/"

_JSON_TYPES: Final = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}


def object_schema(types: Mapping[str, Any], descriptions: Mapping[str, str], of: str) -> dict[str, Any]:
    """Return the strict schema of an object with a property for each of the types.

    Args:
        types: property names and their types.
        descriptions: of the properties, where the types have none of their own.
        of: what an error calls a property, before its name.

    Raises:
        ValueError: a type has no strict schema; the error names the property and the type.
    """
    for name, kind in types.items():
        try:
            _components([kind])
        except Exception as error:
            raise ValueError(f"{of}{name}: no schema can be derived from {kind!r}: {error}") from error
    nodes, definitions = _components(list(types.values()))  # together, so that classes of one name are told apart
    named: dict[str, dict[str, Any]] = {}
    for name, node in zip(types, nodes, strict=True):
        _check(node, definitions, f"{of}{name}")
        named[name] = {"description": descriptions[name]} | node if name in descriptions else node
    return _finished({"type": "object", "properties": named}, definitions)


def class_schema(kind: Any, of: str) -> dict[str, Any]:
    """Return the strict schema of a type, its root not a reference.

    A class with `model_json_schema` (pydantic's models) says itself what it is; msgspec knows all the others.

    Args:
        kind: the type.
        of: what an error calls it.

    Raises:
        ValueError: it has no strict schema.
    """
    try:
        if is_model(kind):
            root = dict(kind.model_json_schema())
            definitions = root.pop("$defs", {})
        else:
            (root,), definitions = _components([kind])
    except Exception as error:
        raise ValueError(f"{of}: no schema can be derived from {kind!r}: {error}") from error
    while "$ref" in root:
        root = definitions[root["$ref"].removeprefix(_DEFS)]
    _check(root, definitions, of)
    return _finished(root, definitions)


def closed_object(properties: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an object with these properties, all of them and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def is_model(kind: Any) -> bool:
    """Tell whether a type is a pydantic model, or a class that offers the same."""
    return isinstance(kind, type) and hasattr(kind, "model_json_schema") and hasattr(kind, "model_validate_json")


def _components(types: list[Any]) -> tuple[tuple[dict[str, Any], ...], dict[str, Any]]:
    return msgspec.json.schema_components(types, ref_template=_DEFS + "{name}")


def _check(node: Mapping[str, Any], definitions: Mapping[str, Any], where: str) -> None:
    """Refuse what strict mode cannot say, in a schema and in those it refers to.

    Raises:
        ValueError: naming the place.
    """
    seen: set[str] = set()

    def visit(node: Mapping[str, Any], where: str) -> None:
        if "$ref" in node:
            name = node["$ref"].removeprefix(_DEFS)
            if name not in seen:
                seen.add(name)
                visit(definitions[name], where)
        elif alternatives := node.get("anyOf") or node.get("oneOf"):
            for alternative in alternatives:
                visit(alternative, where)
        elif "properties" in node:
            for name, child in node["properties"].items():
                visit(child, f"{where}.{name}")
        elif node.get("type") == "object":
            raise ValueError(f"{where}: strict mode has no mappings with unknown keys; use a class with named fields")
        elif "prefixItems" in node:
            raise ValueError(f"{where}: strict mode has no tuples with a type for each place; use a class, or a list")
        elif node.get("type") == "array" and "items" in node:
            visit(node["items"], f"{where}[]")
        elif node.get("type") == "array" or not node.keys() & {"type", "enum", "const"}:
            raise ValueError(f"{where}: strict mode has no values of any type; say which")

    visit(node, where)


def _finished(root: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the strict form of a schema that was checked, with those definitions that it needs."""
    needed: dict[str, Any] = {}

    def strict(node: Mapping[str, Any]) -> dict[str, Any]:
        if "$ref" in node:
            return reference(node)
        out = {name: value for name, value in node.items() if name in _KEPT}
        if node.get("format") in _FORMATS:
            out["format"] = node["format"]
        if alternatives := node.get("anyOf") or node.get("oneOf"):
            out["anyOf"] = [strict(alternative) for alternative in alternatives]
        if "properties" in node:
            out |= closed_object({name: strict(child) for name, child in node["properties"].items()})
        if "items" in node:
            out["items"] = strict(node["items"])
        if "type" not in out and (values := node.get("enum") or ([node["const"]] if "const" in node else [])):
            kinds = list(dict.fromkeys(_JSON_TYPES[type(value)] for value in values))
            out["type"] = kinds if len(kinds) > 1 else kinds[0]
        return out

    def reference(node: Mapping[str, Any]) -> dict[str, Any]:
        name = node["$ref"].removeprefix(_DEFS)
        if "description" in node:
            # A `$ref` may have no other keyword beside it, so that the definition takes its place. Those within
            # it stay references: a type that contains itself comes to an end.
            return strict(definitions[name]) | {"description": node["description"]}
        if name not in needed:
            needed[name] = {}  # before its content, which may refer to it
            needed[name] = strict(definitions[name])
        return {"$ref": node["$ref"]}

    out = strict(root)
    return out | {"$defs": needed} if needed else out
