"""`strict=False`: types that strict mode cannot express, for output and for tools."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jsonschema  # type: ignore[import-untyped]
import msgspec
import pydantic
import pytest

from chatscope import AsyncChatGPTAdapter, ChatClient, OutputInvalidError, Task
from chatscope._conversation.structured_output import Output
from chatscope.protocol.response import Choice, Completion, CompletionMessage
from chatscope.simulator import Reply, ToolCall

if TYPE_CHECKING:
    from tests.support.memory_server import Serve

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def response(text: str) -> Completion:
    return Completion(choices=[Choice(message=CompletionMessage(content=text), finish_reason="stop")])


@dataclass
class Ranked:
    scores: dict[str, int]
    pair: tuple[int, str]
    note: str = "none"


class Tagged(pydantic.BaseModel):
    tags: dict[str, list[int]] = pydantic.Field(default={})
    anything: Any = None


class Both(msgspec.Struct):
    ranked: dict[str, Ranked]
    tagged: dict[str, Tagged]


LENIENT: list[tuple[Any, dict[str, Any], str, Any]] = [
    (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}, '{"a": 1}', {"a": 1}),
    (
        Ranked,
        {
            "type": "object",
            "properties": {
                "scores": {"type": "object", "additionalProperties": {"type": "integer"}},
                "pair": {
                    "type": "array",
                    "prefixItems": [{"type": "integer"}, {"type": "string"}],
                    "items": False,
                    "minItems": 2,
                    "maxItems": 2,
                },
                "note": {"type": "string", "default": "none"},
            },
            "required": ["scores", "pair"],
        },
        '{"scores": {"x": 2}, "pair": [1, "b"]}',
        Ranked({"x": 2}, (1, "b")),
    ),
    (
        Tagged,
        {
            "type": "object",
            "properties": {
                "tags": {
                    "type": "object",
                    "additionalProperties": {"type": "array", "items": {"type": "integer"}},
                    "default": {},
                },
                "anything": {"default": None},
            },
        },
        '{"anything": [1]}',
        Tagged(anything=[1]),
    ),
]


@pytest.mark.parametrize(("kind", "schema", "text", "value"), LENIENT, ids=lambda one: getattr(one, "__name__", ""))
def test_without_strict_mode_more_types_have_a_schema(
    kind: Any, schema: dict[str, Any], text: str, value: object
) -> None:
    output = Output.of(kind, strict=False)
    asked = output.response_format["json_schema"]
    assert (asked["strict"], asked["schema"]) == (False, schema)
    assert output.read(response(text)) == value
    with pytest.raises(OutputInvalidError):
        output.read(response('{"scores": 1, "tags": 1, "a": "x"}'))


def test_without_strict_mode_a_mapping_may_hold_what_two_libraries_read() -> None:
    output: Output[dict[str, Both]] = Output.of(dict[str, Both], strict=False)
    schema = output.response_format["json_schema"]["schema"]
    jsonschema.Draft202012Validator.check_schema(schema)
    text = '{"a": {"ranked": {"r": {"scores": {}, "pair": [1, "b"]}}, "tagged": {"t": {"tags": {"u": [1]}}}}}'
    jsonschema.validate(json.loads(text), schema)
    assert output.read(response(text)) == {"a": Both({"r": Ranked({}, (1, "b"))}, {"t": Tagged(tags={"u": [1]})})}
    assert "p:" not in json.dumps(schema)
    with pytest.raises(OutputInvalidError, match=r"a\.tagged"):
        output.read(response(text.replace("[1]", '["x"]')))
    assert Output.of(int, strict=False).read(response('{"value": 3}')) == 3
    with pytest.raises(ValueError, match="or strict=False"):
        Output.of(dict[str, int])


async def test_an_output_that_is_not_strict_everywhere(serve: Serve) -> None:
    kind = dict[str, int]
    server = serve(Reply('{"a": 1}'))
    async with ChatClient("k", transport=server) as client:
        assert (await client.complete(**ASK, response_format=kind, strict=False)).parsed == {"a": 1}
        async with client.stream(**ASK, response_format=kind, strict=False) as stream:
            assert [chunk async for chunk in stream]
        assert stream.completion.parsed == {"a": 1}
        assert (await client.run_tools(**ASK, tools=[], response_format=kind, strict=False)).parsed == {"a": 1}
    again = serve(Reply('{"a": 1}'))
    async with AsyncChatGPTAdapter("k", transport=again) as adapter:
        assert (await adapter.execute(Task("hi", output_type=kind, strict=False))).parsed == {"a": 1}
        with pytest.raises(ValueError, match="strict must be a bool, not int"):
            await adapter.execute(Task("hi", output_type=kind, strict=0))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        with pytest.raises(ValueError, match="strict=False needs a type as output_type, or tools"):
            await adapter.execute(Task("hi", strict=False))
    sent = [*server.bodies, *again.bodies]
    assert [body["response_format"]["json_schema"]["strict"] for body in sent] == [False] * 4


async def test_a_tool_that_is_not_strict(serve: Serve) -> None:
    given: list[tuple[dict[str, int], int]] = []

    def count(words: dict[str, int], most: int = 3) -> str:
        """Count words."""
        given.append((words, most))
        return "done"

    server = serve([Reply(tool_calls=(ToolCall("count", {"words": {"a": 1}}),)), Reply("yes")])
    async with ChatClient("k", transport=server) as client:
        with pytest.raises(ValueError, match=r"tool count: parameter words: .* or strict=False"):
            await client.run_tools(**ASK, tools=[count])
        await client.run_tools(**ASK, tools=[count], strict=False)
    assert given == [({"a": 1}, 3)]
    function = server.bodies[0]["tools"][0]["function"]
    assert function["strict"] is False
    assert function["parameters"]["required"] == ["words"]
