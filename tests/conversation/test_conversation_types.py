"""Classes of pydantic, msgspec, attrs and the standard library inside one another: their schemas and their values."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import uuid
from collections.abc import Callable
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, TypedDict, TypeVar

import attrs
import msgspec
import pydantic
import pytest
import typing_extensions
from typing_extensions import TypeAliasType

from chatscope._conversation.structured_output import Output
from chatscope._conversation.tools import Tool
from chatscope.simulator.schemas import minimal, strict_violation

T = TypeVar("T")


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]


class Street(msgspec.Struct):
    name: str
    number: Annotated[int, msgspec.Meta(ge=1)] = 1


class Circle(msgspec.Struct, tag="circle"):
    radius: float
    cat: Cat | None = None


@attrs.define
class Box:
    cat: Cat
    size: int = 3


@dataclasses.dataclass
class Point:
    x: int


@dataclasses.dataclass
class Point3:
    x: int
    y: int = 0


@dataclasses.dataclass(kw_only=True)
class Price:
    base: int
    tax: dataclasses.InitVar[int | None] = None
    total: int = dataclasses.field(init=False)

    def __post_init__(self, tax: int | None) -> None:
        self.total = self.base + (tax or 0)


PRICE = Price(base=1, tax=2)


@dataclasses.dataclass
class Home(Generic[T]):
    """Where somebody lives."""

    who: T
    street: Street


class Answer(TypedDict):
    cat: Cat | None
    n: NotRequired[int]


class Form(typing_extensions.TypedDict):
    cat: Cat


class Zoo(msgspec.Struct, rename="camel"):
    star_animal: Cat | Dog | Street | None
    all_cats: Annotated[list[Cat], msgspec.Meta(description="all of them")]
    the_one: Annotated[Cat, msgspec.Meta(description="the one")]
    next: Zoo | None = None


class Shop(pydantic.BaseModel):
    model_config = {"arbitrary_types_allowed": True}
    street: Street
    streets: list[Street] = pydantic.Field(description="all streets", alias="allStreets")
    box: Box | None = None
    when: dt.datetime = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


class Node(pydantic.BaseModel):
    children: list[Annotated[Node, pydantic.Field(description="a child")]]


class Tree(msgspec.Struct):
    children: list[Annotated[Tree, msgspec.Meta(description="a child")]]


class Color(enum.Enum):
    RED = "red"
    THREE = 3


class Bill(pydantic.BaseModel):
    amount: decimal.Decimal
    color: Color
    number: uuid.UUID


Name = NewType("Name", str)
Pets = TypeAliasType("Pets", list[Cat | Dog])
CAT = '{"kind":"cat","lives":2}'
TOM = Cat(kind="cat", lives=2)

VALUES: list[tuple[Any, str, Any]] = [
    (list[Cat], f'{{"value":[{CAT}]}}', [TOM]),
    (tuple[Cat, ...], f'{{"value":[{CAT}]}}', (TOM,)),
    (tuple[float, float], '{"value":[1,2]}', (1.0, 2.0)),
    (Cat | None, '{"value":null}', None),
    (Cat | Dog, '{"value":{"kind":"dog"}}', Dog(kind="dog")),
    (Cat | Street, '{"value":{"name":"x","number":3}}', Street("x", 3)),
    (Annotated[Cat | Dog, pydantic.Field(discriminator="kind")], '{"value":{"kind":"dog"}}', Dog(kind="dog")),
    (Annotated[Cat, pydantic.Field(description="one")], CAT, TOM),
    (Circle | Cat | int, '{"value":{"type":"circle","radius":1,"cat":null}}', Circle(1.0)),
    (Circle | Point, f'{{"value":{{"type":"circle","radius":1,"cat":{CAT}}}}}', Circle(1.0, TOM)),
    (Point | Point3 | None, '{"value":{"x":1,"y":2}}', Point3(1, 2)),
    (list[Point | Point3 | str], '{"value":[{"x":1},"a"]}', [Point(1), "a"]),
    (Home[Cat], f'{{"who":{CAT},"street":{{"name":"x","number":3}}}}', Home(TOM, Street("x", 3))),
    (Pets, f'{{"value":[{CAT}]}}', [TOM]),
    (list[Home[Name] | Dog], '{"value":[{"kind":"dog"}]}', [Dog(kind="dog")]),
    (Box, f'{{"cat":{CAT},"size":1}}', Box(TOM, 1)),
    (Price, '{"base":1,"tax":2}', PRICE),
    (list[Price | Street], '{"value":[{"base":1,"tax":2}]}', [PRICE]),
    (Answer, f'{{"cat":{CAT},"n":1}}', {"cat": TOM, "n": 1}),
    (Form, f'{{"cat":{CAT}}}', {"cat": TOM}),
    (
        Zoo,
        (
            f'{{"starAnimal":{{"name":"x","number":2}},"allCats":[{CAT}],"theOne":{CAT},'
            f'"next":{{"starAnimal":{{"kind":"dog"}},"allCats":[],"theOne":{CAT},"next":null}}}}'
        ),
        Zoo(Street("x", 2), [TOM], TOM, Zoo(Dog(kind="dog"), [], TOM)),
    ),
    (
        Shop,
        (
            f'{{"street":{{"name":"x","number":2}},"allStreets":[{{"name":"y","number":1}}],"box":{{"cat":{CAT},"size":1}},'
            '"when":"2021-02-03T04:05:06Z"}'
        ),
        Shop(
            street=Street("x", 2),
            allStreets=[Street("y")],
            box=Box(TOM, 1),
            when=dt.datetime(2021, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
        ),
    ),
    (Color, '{"value":3}', Color.THREE),
    (list[Color | None], '{"value":["red",null]}', [Color.RED, None]),
    (Node, '{"children":[{"children":[]}]}', Node(children=[Node(children=[])])),
    (Tree, '{"children":[{"children":[]}]}', Tree([Tree([])])),
    (
        Bill,
        '{"amount":"12.34","color":3,"number":"00000000-0000-4000-8000-000000000000"}',
        Bill(
            amount=decimal.Decimal("12.34"),
            color=Color.THREE,
            number=uuid.UUID("00000000-0000-4000-8000-000000000000"),
        ),
    ),
]


def test_each_has_a_strict_schema_and_its_text_becomes_a_value() -> None:
    for kind, text, value in VALUES:
        output = Output.of(kind)
        schema = output.response_format["json_schema"]["schema"]
        assert strict_violation(schema) is None, kind
        minimal(schema)
        found = output.decode(text)
        assert (type(found), found) == (type(value), value), kind


def test_each_can_be_the_parameter_of_a_tool() -> None:
    for kind, text, value in VALUES:

        async def tool(given, *, other: int = 1) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001 - set below

        tool.__annotations__["given"] = kind
        made = Tool.of(tool)
        schema = made.definition["function"]["parameters"]
        assert strict_violation(schema) is None, kind
        inner = text if made_of_object(kind) else text.removeprefix('{"value":').removesuffix("}")
        assert made.decode(f'{{"given":{inner}}}') == {"given": value}, kind


def made_of_object(kind: Any) -> bool:
    return "value" not in Output.of(kind).response_format["json_schema"]["schema"]["properties"]


def test_descriptions_and_names_are_kept() -> None:
    zoo = Output.of(Zoo).response_format["json_schema"]["schema"]
    assert zoo["properties"]["theOne"]["description"] == "the one"
    assert zoo["properties"]["allCats"]["description"] == "all of them"
    assert zoo["properties"]["starAnimal"] == {
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in ("Cat", "Dog", "Street")] + [{"type": "null"}]
    }
    shop = Output.of(Shop).response_format["json_schema"]["schema"]
    assert shop["properties"]["allStreets"]["description"] == "all streets"
    assert Output.of(Home[Cat]).response_format["json_schema"]["description"] == "Where somebody lives."
    for recursive in (Node, Tree):
        children = Output.of(recursive).response_format["json_schema"]["schema"]["properties"]["children"]
        assert children["items"]["description"] == "a child"
    both = msgspec.defstruct("Both", [("ours", Cat), ("theirs", msgspec.defstruct("Cat", [("name", str)]))])
    assert set(Output.of(both).response_format["json_schema"]["schema"]["$defs"]) == {"Cat", "Cat_2"}


class Husband(pydantic.BaseModel):
    wife: Wife | None = pydantic.Field(default=None, description="married to")
    children: list[Child] = []


class Wife(pydantic.BaseModel):
    husband: Husband | None = None
    children: list[Child] = []


class Child(pydantic.BaseModel):
    mother: Wife | None = None
    father: Husband | None = None
    siblings: list[Child] = []


def test_classes_that_refer_to_one_another() -> None:
    """Asking each field anew for what it holds took for ever."""
    output: Output[Any] = Output.of(list[Husband])
    assert strict_violation(output.response_format["json_schema"]["schema"]) is None
    assert output.decode('{"value": [{"wife": {"husband": null, "children": []}, "children": []}]}') == [
        Husband(wife=Wife())
    ]


class Opaque:
    pass


class Pair(NamedTuple):
    cat: Cat
    number: int


class Uncallable(pydantic.BaseModel):
    call: Callable[[], int]


class Odd(enum.Enum):
    PAIR = (1, 2)


class Nest(msgspec.Struct):
    colors: list[Odd]
    again: Nest | None


class Keeper(msgspec.Struct):
    nest: Nest | None
    cat: Cat


class Bag(msgspec.Struct):
    cats: dict[str, Cat | Street]


class Dangling(msgspec.Struct):
    text: Annotated[str, msgspec.Meta(extra_json_schema={"$ref": "#/$defs/Missing"})]


class Unfit(pydantic.BaseModel):
    text: Annotated[Any, pydantic.Field(json_schema_extra={"enum": [["a"]]})]


class Whole(msgspec.Struct):
    cat: Cat
    opaque: list[Opaque]


def test_an_error_names_the_place() -> None:
    kinds: list[tuple[Any, str]] = [
        (dict[str, Cat], "dict: strict mode has no mappings"),
        (Pair, "Pair: strict mode has no tuples"),
        (Keeper, r"Keeper.nest.colors\[\]: strict mode has no values of any type"),
        (Whole, r"Whole.opaque\[\]: no schema .*Opaque"),
        (list[Uncallable | Street], r"list\[\].call: no schema .*Callable"),
        (tuple[Cat, Street], "tuple: no schema .*in a type that neither library reads"),
        (Dangling, "Dangling.text: its schema refers to 'Missing', which it does not define"),
        (Unfit, "Unfit.text: strict mode has no values of any type"),
        (Bag, "Bag.cats: strict mode has no mappings"),
    ]
    for kind, says in kinds:
        with pytest.raises(ValueError, match=f"^response_format: {says}"):
            Output.of(kind)


def test_a_value_that_does_not_fit_is_refused_by_the_library_it_belongs_to() -> None:
    for kind, text, says in [
        (
            Zoo,
            f'{{"starAnimal":null,"allCats":[{{"kind":"dog"}}],"theOne":{CAT}}}',
            r"should be 'cat'.*at `\$.allCats\[0\]`",
        ),
        (
            Zoo,
            f'{{"starAnimal":{{"name":"x","number":0}},"allCats":[],"theOne":{CAT}}}',
            r">= 1 - at `\$.starAnimal.num",
        ),
        (Home[Cat], f'{{"who":{CAT},"street":{{"name":1}}}}', r"Expected `str`, got `int` - at `\$.street.name`"),
        (Home[Cat], f'{{"who":{CAT}}}', r"missing required field `street` - at `\$`"),
        (list[Cat | Street], '{"value":[1]}', r"be an object.*at `\$.value\[0\]`; Expected `object`, got `int`"),
        (Annotated[list[Cat | Street], msgspec.Meta(min_length=1)], '{"value":[]}', r"length >= 1 - at `\$.value`"),
        (list[Color], '{"value":["red",4]}', r"4 is not a valid .*Color - at `\$.value\[1\]`"),
        (Shop, '{"street":{"name":"x"},"allStreets":[],"when":"soon"}', r"valid datetime"),
    ]:
        with pytest.raises(ValueError, match=f"(?s){says}"):
            Output.of(kind).decode(text)


def test_only_patterns_that_every_engine_reads_are_sent() -> None:
    patterns = [
        ("^[A-Z](?:a|b)+?[(?=]$", True),
        (r"^\(\?=\d{2}$", True),
        (r"^(?=.*\d).+$", False),
        ("(?!x)y", False),
        ("(?<=x)y", False),
        (r"(a)\1", False),
        ("(?P<n>a)", False),
        ("(?i)a", False),
        (r"\bword\b", False),
        ("a++", False),
    ]
    for pattern, is_sent in patterns:
        extra: dict[str, Any] = {"pattern": pattern, "default": "", "not": {}, "maxLength": 3}
        meta = msgspec.Meta(extra_json_schema=extra)
        struct = msgspec.defstruct("Struct", [("text", Annotated[str, meta])])
        model = pydantic.create_model("Model", text=(str, pydantic.Field(json_schema_extra=extra)))
        expected = {"type": "string", "pattern": pattern} if is_sent else {"type": "string"}
        for kind in (struct, model):
            schema = Output.of(kind).response_format["json_schema"]["schema"]
            assert schema["properties"]["text"] == expected, pattern
