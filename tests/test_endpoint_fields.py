"""The endpoint's reply, field by field as in FACTS: each of them reachable, of whole replies, chunks and streams.

`COMPLETION` and `CHUNK` are the tables: every field that FACTS names, with a value. Each leaf is one row of a test.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import Any

import httpx
import msgspec
import pytest

from chatscope import ChatClient, Chunk, Completion, RetryPolicy
from chatscope.protocol.decode import decode_chunk

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}

TOP = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}
LOGPROBS = {
    "content": [TOP | {"top_logprobs": [TOP, {"token": "Ho", "logprob": -1.5, "bytes": None}]}],
    "refusal": [{"token": "No", "logprob": -2.5, "bytes": [78, 111], "top_logprobs": []}],
}
USAGE = {
    "prompt_tokens": 1,
    "completion_tokens": 2,
    "total_tokens": 3,
    "prompt_tokens_details": {
        "cached_tokens": 4,
        "cache_write_tokens": 5,
        "audio_tokens": 6,
        "image_tokens": 7,
        "text_tokens": 8,
    },
    "completion_tokens_details": {
        "reasoning_tokens": 9,
        "audio_tokens": 10,
        "accepted_prediction_tokens": 11,
        "rejected_prediction_tokens": 12,
        "text_tokens": 13,
    },
}
SPOKEN = {
    "role": "assistant",
    "content": "Hi",
    "refusal": "No.",
    "audio": {"id": "audio_1", "data": "AAAA", "expires_at": 5, "transcript": "Hi"},
    "function_call": {"name": "f", "arguments": "{}"},
}
CALLS = [
    {"id": "call_1", "type": "function", "function": {"name": "g", "arguments": '{"a":1}'}},
    {"id": "call_2", "type": "custom", "custom": {"name": "c", "input": "text"}},
]
ANNOTATIONS = [{"type": "url_citation", "url_citation": {"url": "https://a.example", "start_index": 0}}]
HEAD = {
    "id": "chatcmpl-1",
    "created": 1700000000,
    "model": "gpt-4o-mini-2024",
    "moderation": {"flagged": False},
    "service_tier": "flex",
    "system_fingerprint": "fp_1",
    "usage": USAGE,
}
COMPLETION: dict[str, Any] = HEAD | {
    "object": "chat.completion",
    "metadata": {"a": "b"},
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "logprobs": LOGPROBS,
            "message": SPOKEN | {"annotations": ANNOTATIONS, "tool_calls": CALLS},
        }
    ],
}
CHUNK: dict[str, Any] = HEAD | {
    "object": "chat.completion.chunk",
    "obfuscation": "xyz",
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "logprobs": LOGPROBS,
            "delta": SPOKEN | {"tool_calls": [call | {"index": index} for index, call in enumerate(CALLS)]},
        }
    ],
}

Path = tuple[str | int, ...]


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every leaf of a JSON value with the way to it."""
    if isinstance(value, dict | list) and value:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))
    else:
        yield path, value


def reached(value: Any, path: Path) -> Any:
    """Go that way through attributes, lists and dicts."""

    def step(at: Any, key: str | int) -> Any:
        return at[key] if type(at) in {dict, list} else getattr(at, str(key))

    return reduce(step, path, value)


def rows(table: dict[str, Any], *without: str) -> list[Any]:
    found = [row for row in leaves(table) if row[0][0] not in without]
    return [pytest.param(path, leaf, id=".".join(map(str, path))) for path, leaf in found]


def answering(content: bytes, kind: str = "application/json") -> httpx.MockTransport:
    return httpx.MockTransport(lambda _: httpx.Response(200, headers={"content-type": kind}, content=content))


def events(*chunks: dict[str, Any]) -> httpx.MockTransport:
    data = [b"data: %b\n\n" % msgspec.json.encode(chunk) for chunk in chunks]
    return answering(b"".join([*data, b"data: [DONE]\n\n"]), "text/event-stream")


async def ask(transport: httpx.MockTransport, stream: bool) -> tuple[Completion, list[Chunk]]:
    """Return the completion by one of the ways to it, and the chunks if that way has them."""
    async with ChatClient(api_key="k", transport=transport, retry=RetryPolicy(attempts=1)) as client:
        if not stream:
            return await client.complete(**ASK), []
        async with client.stream(**ASK) as reply:
            chunks = [chunk async for chunk in reply]
        return reply.completion, chunks


def test_the_tables_have_every_field() -> None:
    ours = {"request_id", "extra", "parsed", "raw", "error", "x_groq", "reasoning_content", "reasoning_text"}
    ours |= {"reasoning_details"}

    def fields(value: Any) -> set[str]:
        return set(value.__struct_fields__) - ours

    completion = msgspec.convert(COMPLETION, Completion)
    chunk = decode_chunk(msgspec.json.encode(CHUNK))
    assert fields(completion) == COMPLETION.keys()
    assert fields(chunk) == CHUNK.keys()
    assert fields(completion.choices[0]) == COMPLETION["choices"][0].keys()
    assert fields(chunk.choices[0]) == CHUNK["choices"][0].keys()
    assert fields(completion.message) == COMPLETION["choices"][0]["message"].keys()
    assert fields(chunk.choices[0].delta) - {"annotations"} == CHUNK["choices"][0]["delta"].keys()
    assert fields(completion.usage) == USAGE.keys()


@pytest.mark.parametrize(("path", "leaf"), rows(COMPLETION))
async def test_each_field_of_a_whole_reply(path: Path, leaf: Any) -> None:
    completion, _ = await ask(answering(msgspec.json.encode(COMPLETION)), stream=False)
    assert reached(completion, path) == leaf
    assert reached(completion.to_dict(), path) == leaf


@pytest.mark.parametrize(("path", "leaf"), rows(CHUNK))
async def test_each_field_of_a_chunk(path: Path, leaf: Any) -> None:
    _, (chunk,) = await ask(events(CHUNK), stream=True)
    assert reached(chunk, path) == leaf
    assert reached(chunk.to_dict(), path) == leaf


@pytest.mark.parametrize(("path", "leaf"), rows(COMPLETION, "metadata"))
async def test_each_field_of_a_stream_put_together(path: Path, leaf: Any) -> None:
    """Chunks have no metadata, and annotations are a field that some servers add to the delta."""
    annotated = {"choices": [{"index": 0, "delta": {"annotations": ANNOTATIONS}}]}
    completion, _ = await ask(events(annotated, CHUNK), stream=True)
    assert reached(completion, path) == leaf


# -- what servers add or do otherwise ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "spoken",
    [
        {"reasoning_content": "Hm."},
        {"reasoning": "Hm."},
        {"reasoning_details": [{"type": "reasoning.text", "text": "Hm."}]},
        {"reasoning_details": [{"type": "reasoning.summary", "summary": "Hm."}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]},
    ],
)
async def test_reasoning_is_one_text_under_each_of_its_names(spoken: dict[str, Any], stream: bool) -> None:
    choice = {"index": 0, "delta" if stream else "message": spoken, "finish_reason": "stop"}
    reply = {"choices": [choice]}
    completion, _ = await ask(events(reply) if stream else answering(msgspec.json.encode(reply)), stream)
    assert completion.message.reasoning == "Hm."
    assert not completion.text


@pytest.mark.parametrize("stream", [False, True])
async def test_unknown_fields_stay_reachable(stream: bool) -> None:
    choice = {"index": 0, "delta" if stream else "message": {"content": "Hi", "mood": "good"}, "finish_reason": "stop"}
    reply = {"provider": "p", "choices": [choice]}
    completion, chunks = await ask(events(reply) if stream else answering(msgspec.json.encode(reply)), stream)
    assert completion.extra == {"provider": "p"}
    assert completion.message.extra == {"mood": "good"}
    assert [chunk.extra for chunk in chunks] == [{"provider": "p"}] * stream


@pytest.mark.parametrize("stream", [False, True])
async def test_several_choices_each_with_its_own(stream: bool) -> None:
    spoken = "delta" if stream else "message"
    choices = [
        {"index": index, spoken: {"content": text}, "finish_reason": reason, "logprobs": LOGPROBS}
        for index, text, reason in ((1, "b", "length"), (0, "a", "stop"))
    ]
    reply = {"choices": choices if stream else choices[::-1]}
    completion, _ = await ask(events(reply) if stream else answering(msgspec.json.encode(reply)), stream)
    assert [(choice.index, choice.message.content, choice.finish_reason) for choice in completion.choices] == [
        (0, "a", "stop"),
        (1, "b", "length"),
    ]
    assert all(choice.logprobs is not None and choice.logprobs.content for choice in completion.choices)
    assert completion.text == "a"


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "content_filter", "function_call", "eos_token"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_finish_reason_is_an_open_text(reason: str, stream: bool) -> None:
    reply = {"choices": [{"index": 0, "delta" if stream else "message": {"content": "a"}, "finish_reason": reason}]}
    completion, _ = await ask(events(reply) if stream else answering(msgspec.json.encode(reply)), stream)
    assert completion.finish_reason == reason
