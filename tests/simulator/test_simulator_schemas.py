"""The smallest value of a schema, and what strict mode forbids."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.tables import row

from chatscope.simulator.schemas import EndlessSchemaError, minimal, strict_violation

NODE = {
    "type": "object",
    "properties": {"next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}, "name": {"type": "string"}},
    "required": ["next", "name"],
    "additionalProperties": False,
}


def test_the_smallest_value() -> None:
    rows: list[tuple[dict[str, Any], Any]] = [
        ({}, None),
        ({"type": "null"}, None),
        ({"type": "boolean"}, False),
        ({"type": "string"}, ""),
        ({"type": "string", "minLength": 3}, "aaa"),
        ({"type": "string", "format": "date"}, "2024-01-01"),
        ({"type": "string", "format": "of no known kind"}, ""),
        ({"type": "integer"}, 0),
        ({"type": "integer", "minimum": 3}, 3),
        ({"type": "integer", "minimum": 3, "multipleOf": 5}, 5),
        ({"type": "integer", "exclusiveMinimum": 3}, 4),
        ({"type": "integer", "maximum": -2}, -2),
        ({"type": "integer", "exclusiveMaximum": 0}, -1),
        ({"type": "number", "minimum": 0.25}, 0.25),
        ({"type": "number", "exclusiveMinimum": 0}, 0.5),
        ({"type": "number", "maximum": -1.5}, -1.5),
        ({"type": "array", "items": {"type": "integer"}}, []),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [0, 0]),
        ({"type": "object"}, {}),
        ({"type": "object", "properties": {"a": {"type": "string"}, "b": {}}, "required": ["a"]}, {"a": ""}),
        ({"properties": {"a": {"const": 7}}, "required": ["a"]}, {"a": 7}),
        ({"type": "object", "required": ["undeclared"]}, {"undeclared": None}),
        ({"enum": ["red", "green"]}, "red"),
        ({"type": ["string", "null"]}, ""),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 0),
        ({"oneOf": [{"type": "string"}]}, ""),
        ({"allOf": [{"type": "integer"}, {"minimum": 2}]}, 2),
        ({"$ref": "#/$defs/Node", "$defs": {"Node": NODE}}, {"next": None, "name": ""}),
        ({"$ref": "#/definitions/A", "definitions": {"A": {"type": "boolean"}}}, False),
    ]
    for schema, value in rows:
        with row(schema, value):
            found = minimal(schema)
            assert found == value
            assert type(found) is type(value)


def test_a_schema_without_finite_values() -> None:
    endless = {"type": "object", "properties": {"again": {"$ref": "#"}}, "required": ["again"]}
    with pytest.raises(EndlessSchemaError):
        minimal(endless)
    with pytest.raises(EndlessSchemaError):
        minimal({"anyOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}]}}})


def test_a_reference_to_nowhere() -> None:
    with pytest.raises(KeyError):
        minimal({"$ref": "#/$defs/Missing"})


CLOSED = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}


def test_strict_mode() -> None:
    rows: list[tuple[dict[str, Any], str | None]] = [
        (CLOSED, None),
        ({"type": "array", "items": CLOSED}, None),
        ({**CLOSED, "properties": {"a": NODE}, "$defs": {"Node": NODE}}, None),
        ({"type": "object"}, "at $: 'additionalProperties' is required to be supplied and to be false"),
        ({**CLOSED, "required": []}, "at $: 'required' must name every property; missing: ['a']"),
        (
            {"type": "array", "items": {"anyOf": [CLOSED, {"type": "object"}]}},
            "at $.items.anyOf[1]: 'additionalProperties' is required to be supplied and to be false",
        ),
        ({"oneOf": [CLOSED]}, "at $: 'oneOf' is not permitted"),
        ({"items": {"$ref": "#/$defs/A", "description": "a"}}, "at $.items: $ref cannot have keywords ['description']"),
        ({"anyOf": [{"type": "string", "pattern": "^(?=a)"}]}, "at $.anyOf[0]: 'pattern' must not look around"),
    ]
    for schema, violation in rows:
        with row(schema, violation):
            assert strict_violation(schema) == violation
