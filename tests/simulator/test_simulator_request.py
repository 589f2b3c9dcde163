"""What the simulator refuses, in the endpoint's own words: status, code, param; and what it reads from a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.support.tables import row

from chatscope.simulator import ChatRequest
from chatscope.simulator.request import Headers, RefusedError
from chatscope.simulator.tokens import stretch, tokenize

Body = Callable[..., dict[str, Any]]
Chat = Callable[..., ChatRequest]

TOOL = {"type": "function", "function": {"name": "look_up"}}
CALLING = {"role": "assistant", "tool_calls": [{"id": "c1"}, {"id": "c2"}]}
OPEN_SCHEMA = {"type": "object", "properties": {}, "required": []}


def answered(call: str) -> dict[str, str]:
    return {"role": "tool", "tool_call_id": call, "content": "42"}


def refusal(content: bytes) -> dict[str, Any]:
    with pytest.raises(RefusedError) as caught:
        ChatRequest.parse(content)
    assert caught.value.response.status == 400
    problem: dict[str, Any] = msgspec.json.decode(caught.value.response.content)["error"]
    assert problem["type"] == "invalid_request_error"
    return problem


def test_malformed_json() -> None:
    rows: list[bytes] = [b"", b"{", b'{"model": "\xff"}', b"not json"]
    for content in rows:
        with row(content):
            problem = refusal(content)
            assert (problem["param"], problem["code"]) == (None, None)
            assert problem["message"] == "We could not parse the JSON body of your request."


def test_refusals(body: Body) -> None:
    rows: list[tuple[dict[str, Any], str, str | None]] = [
        ({"messages": "hi"}, "messages", "invalid_type"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [{"role": "owner", "content": "hi"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content", "invalid_type"),
        ({"model": 7}, "model", "invalid_type"),
        ({"temperature": "warm"}, "temperature", "invalid_type"),
        ({"temperature": 2.5}, "temperature", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "invalid_value"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": True}}, "stream_options", None),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens", None),
        ({"model": "o3-mini", "max_tokens": 5}, "max_tokens", "unsupported_parameter"),
        ({"model": "gpt-5.1", "max_tokens": 5}, "max_tokens", "unsupported_parameter"),
        ({"model": "gpt-10", "max_tokens": 5}, "max_tokens", "unsupported_parameter"),
        ({"top_logprobs": 3}, "top_logprobs", None),
        ({"tool_choice": "required"}, "tool_choice", None),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice", None),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", None),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": OPEN_SCHEMA, "strict": True},
                }
            },
            "response_format",
            None,
        ),
        ({"messages": [answered("c1")]}, "messages.[0].role", None),
        ({"messages": [CALLING, answered("c1")]}, "messages", None),
        ({"messages": [CALLING, answered("c1"), {"role": "user", "content": "and?"}]}, "messages", None),
    ]
    for parameters, param, code in rows:
        with row(parameters, param, code):
            problem = refusal(msgspec.json.encode(body(**parameters)))
            assert (problem["param"], problem["code"]) == (param, code)


def test_missing_parameters(body: Body) -> None:
    rows: list[str] = ["model", "messages"]
    for name in rows:
        with row(name):
            parameters = body()
            del parameters[name]
            problem = refusal(msgspec.json.encode(parameters))
            assert problem["message"] == f"Missing required parameter: '{name}'."
            assert (problem["param"], problem["code"]) == (name, "missing_required_parameter")


def test_a_body_that_is_no_object() -> None:
    assert refusal(b"[]") == {
        "message": "Invalid type for '': Expected `object`, got `array`.",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_type",
    }


def test_valid_requests(body: Body) -> None:
    rows: list[dict[str, Any]] = [
        {"model": "gpt-4o", "max_tokens": 5},
        {"model": "o3", "max_completion_tokens": 5},
        {"messages": [CALLING, answered("c2"), answered("c1")]},
        {"messages": [CALLING, answered("c2"), answered("c1"), {"role": "user", "content": "so?"}]},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "look_up"}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": OPEN_SCHEMA}}},
        {"stream": True, "stream_options": None, "temperature": None, "vendor_parameter": {"any": "thing"}},
    ]
    for parameters in rows:
        with row(parameters):
            request = ChatRequest.parse(msgspec.json.encode(body(**parameters)))
            assert request.body == body(**parameters)


def test_tokens_join_to_the_text() -> None:
    text = "  Hello,\tworld!  It's \N{EURO SIGN}5 \n"
    assert tokenize(text) == ["  Hello", ",", "\tworld", "!", "  It", "'", "s", " \N{EURO SIGN}", "5", " \n"]
    assert tokenize("") == []


def test_a_stretched_text_has_exactly_the_tokens() -> None:
    rows: list[str] = ["Hello, world.", "word", "", "  (so) it goes "]
    counts: list[int] = [1, 7, 50]
    for text in rows:
        for count in counts:
            with row(text, count):
                assert len(tokenize(stretch(text, count))) == count


def test_prompt_tokens(chat: Chat) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]},
    ]
    request = chat(messages=messages)
    assert request.prompt == "What is this?"
    assert request.prompt_tokens == 3 + 4 + 85 + 3 * 3
    assert chat(messages=[{"role": "system", "content": "x"}]).prompt == ""


def test_limits_of_the_reply(chat: Chat) -> None:
    rows: list[tuple[dict[str, Any], int | None, list[str]]] = [
        ({}, None, []),
        ({"max_tokens": 3, "stop": "x"}, 3, ["x"]),
        ({"max_completion_tokens": 4, "stop": ["x", "", "y"]}, 4, ["x", "y"]),
    ]
    for parameters, limit, stop in rows:
        with row(parameters, limit, stop):
            request = chat(**parameters)
            assert (request.token_limit, request.stop) == (limit, stop)


def test_keys_are_not_in_a_repr() -> None:
    headers = Headers({"authorization": "Bearer sk-secret", "api-key": "sk-secret", "accept": "*/*"})
    assert repr(headers) == "{'authorization': '...', 'api-key': '...', 'accept': '*/*'}"
    assert headers["authorization"] == "Bearer sk-secret"
