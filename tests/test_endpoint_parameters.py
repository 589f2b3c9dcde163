"""The endpoint's 37 parameters: each goes out as it was given, through `complete`, `stream` and `Task.parameters`.

`PARAMETERS` is the table.
"""

from __future__ import annotations

from typing import Any

import httpx
import msgspec

from chatscope import AsyncChatGPTAdapter, ChatClient, ChatParameters, Task

HI = [{"role": "user", "content": "hi"}]
FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}, "strict": True}

PARAMETERS: dict[str, list[Any]] = {
    "messages": [
        [
            {"role": "developer", "content": "Be brief."},
            {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
            {
                "role": "user",
                "name": "ann",
                "content": [
                    {"type": "text", "text": "See."},
                    {"type": "image_url", "image_url": {"url": "https://a.example/a.png", "detail": "low"}},
                    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                    {"type": "file", "file": {"file_id": "file-1"}},
                    {"type": "video_url", "video_url": {"url": "https://a.example/a.mp4"}},
                ],
            },
            {
                "role": "assistant",
                "content": [{"type": "refusal", "refusal": "No."}],
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "1", "content": "42"},
            {"role": "function", "name": "f", "content": "42"},
        ]
    ],
    "model": ["gpt-4o-mini"],
    "audio": [{"voice": "alloy", "format": "wav"}, None],
    "frequency_penalty": [0.5],
    "function_call": ["auto", {"name": "f"}],
    "functions": [[FUNCTION]],
    "logit_bias": [{"50256": -100}],
    "logprobs": [True],
    "max_completion_tokens": [100],
    "max_tokens": [50],
    "metadata": [{"a": "b"}],
    "modalities": [["text", "audio"]],
    "moderation": [{"input": True}],
    "n": [2],
    "parallel_tool_calls": [False],
    "prediction": [{"type": "content", "content": "x"}],
    "presence_penalty": [-0.5],
    "prompt_cache_key": ["k"],
    "prompt_cache_options": [{"ttl": "30m"}],
    "prompt_cache_retention": ["in_memory", "24h"],
    "reasoning_effort": ["none", "minimal", "low", "medium", "high", "xhigh", "max", "of tomorrow"],
    "response_format": [
        {"type": "text"},
        {"type": "json_object"},
        {
            "type": "json_schema",
            "json_schema": {"name": "x", "description": "d", "schema": {"type": "object"}, "strict": True},
        },
        {"type": "grammar", "grammar": "..."},
    ],
    "safety_identifier": ["u1"],
    "seed": [7],
    "service_tier": ["auto", "default", "flex", "scale", "priority", "fast", "of tomorrow"],
    "stop": ["a", ["a", "b"]],
    "store": [False],
    "stream": [True],
    "stream_options": [{"include_usage": False, "include_obfuscation": False}],
    "temperature": [0],
    "tool_choice": [
        "none",
        "auto",
        "required",
        {"type": "function", "function": {"name": "f"}},
        {"type": "custom", "custom": {"name": "c"}},
        {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
        },
    ],
    "tools": [[{"type": "function", "function": FUNCTION}, {"type": "custom", "custom": {"name": "c"}}]],
    "top_logprobs": [3],
    "top_p": [0.9],
    "user": ["u"],
    "verbosity": ["low", "medium", "high", "of tomorrow"],
    "web_search_options": [{"search_context_size": "low"}],
}
"""Every parameter with the values, or kinds of values, that the endpoint documents."""

OF_THEIR_OWN = {"messages", "model", "stream"}
"""Those that the methods have as arguments, or imply."""

EVENTS = b'data: {"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'


class Recorder(httpx.AsyncBaseTransport):
    """Takes whatever comes and answers it."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(msgspec.json.decode(request.content))
        if self.bodies[-1].get("stream"):
            return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=EVENTS)
        return httpx.Response(200, json={"choices": [{"message": {"content": "Hi"}}]})


def test_the_table_has_every_parameter() -> None:
    assert len(PARAMETERS) == 37
    assert ChatParameters.__annotations__.keys() == PARAMETERS.keys() - OF_THEIR_OWN


def requests() -> list[dict[str, Any]]:
    """Return requests that have every value of the table between them; each has every parameter."""
    return [
        {name: values[min(number, len(values) - 1)] for name, values in PARAMETERS.items() if name != "stream"}
        for number in range(max(map(len, PARAMETERS.values())))
    ]


async def test_each_parameter_goes_out_as_given() -> None:
    transport = Recorder()
    for given in requests():
        parameters = {name: value for name, value in given.items() if name != "messages"}
        async with ChatClient(api_key="k", transport=transport) as client:
            await client.complete(**given)
            async with client.stream(**given) as stream:
                assert [chunk.text async for chunk in stream] == ["Hi"]
        async with AsyncChatGPTAdapter("k", transport=transport) as adapter:
            live = await adapter.execute(Task(messages=given["messages"], parameters=parameters))
            whole = await adapter.execute(Task(messages=given["messages"], parameters=parameters | {"stream": False}))
        assert (live.output, whole.output) == ("Hi", "Hi")
        streamed = given | {"stream": True}
        assert transport.bodies == [given, streamed, streamed, given]
        transport.bodies.clear()


async def test_a_parameter_that_is_not_given_is_not_sent() -> None:
    """Apart from the usage, which streams are asked to report."""
    transport = Recorder()
    given: dict[str, Any] = {"model": "m", "messages": HI}
    async with ChatClient(api_key="k", transport=transport) as client:
        await client.complete(**given)
        async with client.stream(**given) as stream:
            assert [chunk.text async for chunk in stream] == ["Hi"]
    assert transport.bodies == [given, given | {"stream": True, "stream_options": {"include_usage": True}}]
