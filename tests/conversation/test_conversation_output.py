"""Types to strict JSON schemas, and the text of a response to values of them."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, NamedTuple, Optional, TypedDict, TypeVar

import attrs
import msgspec
import pydantic
import pytest

from chatscope import OutputInvalidError, OutputRefusedError, OutputTruncatedError
from chatscope._conversation.structured_output import Output
from chatscope.protocol.response import Choice, Completion, CompletionMessage, FunctionCall, ToolCall
from chatscope.simulator.schemas import minimal, strict_violation

T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Street(msgspec.Struct):
    """A street and a number."""

    name: str
    number: Annotated[int, msgspec.Meta(ge=1, le=999)]


class Person(msgspec.Struct):
    """Somebody."""

    name: Annotated[str, msgspec.Meta(min_length=2, max_length=40, pattern="^[A-Z]", examples=["Ann"])]
    home: Annotated[Street, msgspec.Meta(description="where they live")]
    work: Street | None = None
    friends: list[Person] = []
    color: Color = Color.RED


@dataclass
class Point:
    x: int
    y: int = 0


class Answer(TypedDict, total=False):
    """An answer."""

    yes: bool


@attrs.define
class Box:
    width: float
    label: str = ""


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: int = pydantic.Field(9, ge=1, description="how many are left")


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]


class Owner(pydantic.BaseModel):
    """Has a pet."""

    name: str = pydantic.Field(min_length=2)
    pet: Cat | Dog = pydantic.Field(discriminator="kind")
    others: list[Owner] = []


class Numbers(pydantic.RootModel[list[int]]):
    pass


class Wrapper(msgspec.Struct, Generic[T]):
    inner: T


class Circle(msgspec.Struct, tag="circle"):
    radius: float


class Square(msgspec.Struct, tag="square"):
    side: float


class Chain(msgspec.Struct):
    next: Chain | None


class Pair(NamedTuple):
    x: int
    y: str


def schema_of(kind: Any) -> dict[str, Any]:
    json_schema: dict[str, Any] = Output.of(kind).response_format["json_schema"]["schema"]
    return json_schema


def response(text: str | None, finish_reason: str = "stop", **message: Any) -> Completion:
    choice = Choice(message=CompletionMessage(role="assistant", content=text, **message), finish_reason=finish_reason)
    return Completion(choices=[choice], request_id="req_7")


# -- the schema --------------------------------------------------------------------------------------------------------


def test_a_class_goes_out_with_its_name_its_docstring_and_a_strict_schema() -> None:
    assert Output.of(Street).response_format == {
        "type": "json_schema",
        "json_schema": {
            "name": "Street",
            "description": "A street and a number.",
            "strict": True,
            "schema": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "number": {"type": "integer", "minimum": 1, "maximum": 999},
                },
                "required": ["name", "number"],
                "additionalProperties": False,
            },
        },
    }


def test_references_nullables_defaults_and_recursion_as_strict_mode_wants_them() -> None:
    street = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "number": {"type": "integer", "minimum": 1, "maximum": 999}},
        "required": ["name", "number"],
        "additionalProperties": False,
    }
    person = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "pattern": "^[A-Z]"},
            "home": street | {"description": "where they live"},
            "work": {"anyOf": [{"$ref": "#/$defs/Street"}, {"type": "null"}]},
            "friends": {"type": "array", "items": {"$ref": "#/$defs/Person"}},
            "color": {"$ref": "#/$defs/Color"},
        },
        "required": ["name", "home", "work", "friends", "color"],
        "additionalProperties": False,
    }
    assert schema_of(Person) == person | {
        "$defs": {
            "Person": person | {"description": "Somebody."},
            "Street": street | {"description": "A street and a number."},
            "Color": {"type": "string", "enum": ["blue", "red"]},
        }
    }


def test_every_kind_of_class_has_a_schema() -> None:
    kinds: list[tuple[Any, dict[str, Any]]] = [
        (Point, {"x": {"type": "integer"}, "y": {"type": "integer"}}),
        (Answer, {"yes": {"type": "boolean"}}),
        (Box, {"width": {"type": "number"}, "label": {"type": "string"}}),
        (Wrapper[int], {"inner": {"type": "integer"}}),
        (
            Cat,
            {
                "kind": {"type": "string", "const": "cat"},
                "lives": {"type": "integer", "minimum": 1, "description": "how many are left"},
            },
        ),
    ]
    for kind, properties in kinds:
        assert schema_of(kind) == {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }, kind


def test_only_a_docstring_that_somebody_wrote_is_a_description() -> None:
    assert "description" not in Output.of(Point).response_format["json_schema"]
    assert Output.of(Answer).response_format["json_schema"]["description"] == "An answer."
    assert Output.of(Owner).response_format["json_schema"]["description"] == "Has a pet."


def test_a_name_is_made_fit_for_the_endpoint() -> None:
    long = msgspec.defstruct("Größe" + "x" * 80, [("a", int)])
    assert Output.of(long).response_format["json_schema"]["name"] == "Gr__e" + "x" * 59


def test_a_pydantic_models_union_has_no_discriminator_and_no_one_of() -> None:
    schema = schema_of(Owner)
    assert schema["properties"]["pet"] == {"anyOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]}
    assert schema["properties"]["name"] == {"type": "string"}
    assert sorted(schema["$defs"]) == ["Cat", "Dog", "Owner"]


def test_what_strict_mode_refuses_is_left_out() -> None:
    kinds: list[tuple[Any, dict[str, Any]]] = [
        (dt.date, {"type": "string", "format": "date"}),
        (uuid.UUID, {"type": "string", "format": "uuid"}),
        (decimal.Decimal, {"type": "string"}),
        (bytes, {"type": "string"}),
        (set[int], {"type": "array", "items": {"type": "integer"}}),
        (Literal["a", 1], {"type": ["integer", "string"], "enum": [1, "a"]}),
        (
            Annotated[list[int], msgspec.Meta(min_length=1)],
            {"type": "array", "items": {"type": "integer"}, "minItems": 1},
        ),
        (tuple[int, int], {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}),
        (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),  # noqa: UP045 - spelled this way by many
    ]
    for kind, schema in kinds:
        assert schema_of(kind)["properties"]["value"] == schema, kind


def test_the_smallest_document_of_a_schema_is_strict_and_can_be_decoded() -> None:
    for kind in (Person, Street, Point, Answer, Box, Owner, Numbers, Wrapper[Person], Circle | Square):
        schema = schema_of(kind)
        assert strict_violation(schema) is None, kind
        text = msgspec.json.encode(minimal(schema)).decode().replace('"name":""', '"name":"Abc"')
        Output.of(kind).decode(text)


def test_a_schema_is_derived_once() -> None:
    assert Output.of(Street) is Output.of(Street)


# -- what has none -----------------------------------------------------------------------------------------------------


class Opaque:
    pass


class Loose(msgspec.Struct):
    tags: dict[str, int]


class Deep(msgspec.Struct):
    items: list[Loose]


class Untyped(msgspec.Struct):
    anything: Any


class Unresolved(msgspec.Struct):
    other: Missing  # type: ignore[name-defined]  # noqa: F821 - what this is about


class Uncallable(pydantic.BaseModel):
    call: Callable[[], int]


def test_a_type_without_a_strict_schema_is_named() -> None:
    kinds: list[tuple[Any, str]] = [
        (Opaque, "Opaque: no schema can be derived from .*Opaque"),
        (complex, "complex: no schema can be derived from .*complex"),
        (Unresolved, "Unresolved: no schema .*Missing"),
        (Uncallable, "Uncallable.call: no schema .*Callable"),
        ("Person", "output: no schema can be derived from 'Person'"),
        (Annotated[int, []], "no schema can be derived from .*unhashable"),
        (Loose, "Loose.tags: strict mode has no mappings"),
        (Deep, r"Deep.items\[\].tags: strict mode has no mappings"),
        (Untyped, "Untyped.anything: strict mode has no values of any type"),
        (list, "list: strict mode has no values of any type"),
        (tuple[int, str], "tuple: strict mode has no tuples"),
        (Pair, "Pair: strict mode has no tuples"),
        (Wrapper[Loose] | None, "output.inner.tags: strict mode has no mappings"),
    ]
    for kind, says in kinds:
        with pytest.raises(ValueError, match=f"^output_type: {says}"):
            Output.of(kind, "output_type")


# -- the value ---------------------------------------------------------------------------------------------------------


def test_a_response_becomes_a_value() -> None:
    responses: list[tuple[Any, str, Any]] = [
        (Street, '{"name": "Main", "number": 3}', Street("Main", 3)),
        (Point, '{"x": 1, "y": 2}', Point(1, 2)),
        (Answer, '{"yes": true}', {"yes": True}),
        (Box, ' {"width": 1.5, "label": "b"}\n', Box(1.5, "b")),
        (Cat, '{"kind": "cat", "lives": 2}', Cat(kind="cat", lives=2)),
        (Circle | Square, '{"value": {"type": "square", "side": 2}}', Square(2)),
        (list[Point], '{"value": [{"x": 1, "y": 2}]}', [Point(1, 2)]),
        (int | str, '{"value": "x"}', "x"),
        (Numbers, '{"value": [1, 2]}', Numbers([1, 2])),
    ]
    for kind, text, value in responses:
        assert Output.of(kind).read(response(text)) == value, kind


def test_a_response_of_another_kind_is_invalid() -> None:
    responses: list[tuple[Any, str, str]] = [
        (
            Street,
            '{"name": "Main", "number": 0}',
            r"the response is not of type Street: Expected `int` >= 1 - at `\$.number`",
        ),
        (Street, '{"name": "Main"}', "the response is not of type Street: Object missing required field `number`"),
        (Street, "Here you are:", "the response is not of type Street: JSON is malformed"),
        (Street, "", "the response is not of type Street: Input data was truncated"),
        (Chain, '{"next":' * 100_000, "the response is not of type Chain: maximum recursion"),
        (Cat, '{"kind": "dog"}', "the response is not of type Cat: 1 validation error for Cat"),
        (list[int], "[1]", "the response is not of type list: Expected `object`, got `array`"),
        (
            list[int],
            '{"value": ["x"]}',
            r"the response is not of type list: Expected `int`, got `str` - at `\$.value\[0\]`",
        ),
    ]
    for kind, text, says in responses:
        with pytest.raises(OutputInvalidError, match=f"^{says}") as caught:
            Output.of(kind).read(response(text))
        assert caught.value.partial_text == caught.value.completion.text == text
        assert caught.value.request_id == "req_7"


def test_a_response_cut_by_its_limit_is_truncated_unless_it_is_whole() -> None:
    with pytest.raises(OutputTruncatedError, match="cut off at the token limit, before the end of its") as caught:
        Output.of(Street).read(response('{"name": "Ma', "length"))
    assert caught.value.partial_text == '{"name": "Ma'
    with pytest.raises(OutputTruncatedError):
        Output.of(Street).read(response('{"name": "Ma', "MAX_TOKENS"))
    assert Output.of(Point).read(response('{"x": 1, "y": 2}  ', "length")) == Point(1, 2)


def test_a_refusal_and_a_filtered_response_are_refused() -> None:
    with pytest.raises(OutputRefusedError, match=re.escape("the model refused: I can't help with that.")):
        Output.of(Street).read(response(None, refusal="I can't help with that."))
    with pytest.raises(OutputRefusedError, match="the server filtered the response") as caught:
        Output.of(Street).read(response('{"na', "content_filter"))
    assert caught.value.partial_text == '{"na'
    for reason in ("SAFETY", "sensitive", "content_filter: RECITATION"):
        with pytest.raises(OutputRefusedError):
            Output.of(Street).read(response("", reason))


def test_a_response_that_calls_tools_is_no_answer_yet_whatever_it_says_beside_the_calls() -> None:
    calls: list[dict[str, Any]] = [{"tool_calls": [ToolCall(id="a")]}, {"function_call": FunctionCall(name="f")}]
    for call in calls:
        for text in (None, "\n\n", "Let me look.", '{"x": 1, "y": 2}'):
            assert Output.of(Point).read(response(text, "tool_calls", **call)) is None


def test_a_parsed_completion_is_a_completion_and_its_json_is_the_servers() -> None:
    completion = response('{"kind": "cat", "lives": 2}')
    parsed = msgspec.structs.replace(completion, parsed=Cat(kind="cat", lives=2))
    assert (parsed.parsed, parsed.text, parsed.request_id) == (Cat(kind="cat", lives=2), completion.text, "req_7")
    assert parsed.to_dict() == completion.to_dict()
    assert completion.parsed is None
