"""The smallest JSON value that a JSON schema accepts, and the violations of strict mode in a schema.

Used for structured output and tool arguments. Covers what strict mode allows (types, enum, const, anyOf, $ref,
bounds). Patterns and uncommon formats are ignored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

FORMATS = {
    "date-time": "2024-01-01T00:00:00Z",
    "date": "2024-01-01",
    "time": "00:00:00Z",
    "duration": "PT1S",
    "email": "a@example.com",
    "hostname": "example.com",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "uri": "https://example.com/",
}


NOT_PERMITTED = frozenset(
    {"allOf", "oneOf", "not", "if", "then", "else", "dependentRequired", "dependentSchemas", "patternProperties"}
    | {"propertyNames", "uniqueItems", "default"}
)
"""Keywords that the API refuses in strict mode ("'oneOf' is not permitted")."""

LOOK_AROUND = ("(?=", "(?!", "(?<")


class EndlessSchemaError(ValueError):
    """The schema has no finite value on this path, because a `$ref` leads back to itself."""


def minimal(schema: Mapping[str, Any]) -> Any:
    """Return the smallest value that is valid for a schema.

    Raises:
        EndlessSchemaError: Every value of the schema would be infinite.
        KeyError: The target of a `$ref` is missing.
    """
    return _minimal(schema, schema, frozenset())


def _minimal(schema: Mapping[str, Any], root: Mapping[str, Any], open_refs: frozenset[str]) -> Any:
    if "$ref" in schema:
        return _referenced(schema["$ref"], root, open_refs)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for alternatives in ("anyOf", "oneOf"):
        if alternatives in schema:
            return _first_finite(schema[alternatives], root, open_refs)
    if "allOf" in schema:
        return _minimal({key: value for part in schema["allOf"] for key, value in part.items()}, root, open_refs)
    kind = schema.get("type", "object" if "properties" in schema else "null")
    if isinstance(kind, list):
        return _minimal({**schema, "type": kind[0]}, root, open_refs)
    match kind:
        case "object":
            properties = schema.get("properties", {})
            return {name: _minimal(properties.get(name, {}), root, open_refs) for name in schema.get("required", ())}
        case "array":
            count = schema.get("minItems", 0)
            return [_minimal(schema.get("items", {}), root, open_refs) for _ in range(count)]
        case "string":
            return FORMATS.get(schema.get("format", ""), "").ljust(schema.get("minLength", 0), "a")
        case "integer" | "number":
            return _number(schema, whole=kind == "integer")
        case "boolean":
            return False
        case _:
            return None


def _referenced(ref: str, root: Mapping[str, Any], open_refs: frozenset[str]) -> Any:
    if ref in open_refs:
        raise EndlessSchemaError(ref)
    target: Any = root
    for name in ref.removeprefix("#").split("/")[1:]:
        target = target[name]
    return _minimal(target, root, open_refs | {ref})


def _first_finite(alternatives: list[Mapping[str, Any]], root: Mapping[str, Any], open_refs: frozenset[str]) -> Any:
    for alternative in alternatives:
        try:
            return _minimal(alternative, root, open_refs)
        except EndlessSchemaError:
            continue
    raise EndlessSchemaError(alternatives)


def _number(schema: Mapping[str, Any], *, whole: bool) -> Any:
    """Return the number in the schema's range that is nearest to 0."""
    step = schema.get("multipleOf", 1 if whole else 0.5)
    low = schema.get("minimum", -math.inf)
    high = schema.get("maximum", math.inf)
    if "exclusiveMinimum" in schema:
        low = max(low, (math.floor(schema["exclusiveMinimum"] / step) + 1) * step)
    if "exclusiveMaximum" in schema:
        high = min(high, (math.ceil(schema["exclusiveMaximum"] / step) - 1) * step)
    if low > 0:
        return math.ceil(low / step) * step if whole else low
    if high < 0:
        return math.floor(high / step) * step if whole else high
    return 0


def strict_violation(schema: Mapping[str, Any], path: str = "$") -> str | None:
    """Return what strict mode would refuse in a schema: an open object, optional properties, unsupported keywords."""
    if "$ref" in schema and schema.keys() - {"$ref", "$defs"}:
        return f"at {path}: $ref cannot have keywords {sorted(schema.keys() - {'$ref', '$defs'})}"
    if unsupported := sorted(schema.keys() & NOT_PERMITTED):
        return f"at {path}: '{unsupported[0]}' is not permitted"
    if any(token in schema.get("pattern", "") for token in LOOK_AROUND):
        return f"at {path}: 'pattern' must not look around"
    if schema.get("type") == "object":
        if schema.get("additionalProperties") is not False:
            return f"at {path}: 'additionalProperties' is required to be supplied and to be false"
        optional = set(schema.get("properties", ())) - set(schema.get("required", ()))
        if optional:
            return f"at {path}: 'required' must name every property; missing: {sorted(optional)}"
    violations = (strict_violation(child, f"{path}.{name}") for name, child in _children(schema))
    return next((violation for violation in violations if violation), None)


def _children(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for group in ("properties", "$defs", "definitions"):
        yield from schema.get(group, {}).items()
    yield from ((f"anyOf[{index}]", child) for index, child in enumerate(schema.get("anyOf", ())))
    if "items" in schema:
        yield "items", schema["items"]
