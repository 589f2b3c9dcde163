"""The endpoint's response: every field can be read, in whole responses, chunks and assembled streams.

`COMPLETION` and `CHUNK` are the tables: every field that the endpoint documents, with a value.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import Any

import httpx
import msgspec

from chatscope import ChatClient, Chunk, Completion, RetryPolicy
from chatscope.protocol.chunk_decoder import ChunkDecoder

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


def lost(value: Any, table: dict[str, Any], *without: str) -> dict[str, Any]:
    """Return what a value has, by its path, wherever that is not what the table says."""
    wanted = {path: leaf for path, leaf in leaves(table) if path[0] not in without}
    assert len(wanted) > 40
    found = {path: reached(value, path) for path in wanted}
    return {".".join(map(str, path)): found[path] for path in wanted if found[path] != wanted[path]}


def responding(content: bytes, kind: str = "application/json") -> httpx.MockTransport:
    return httpx.MockTransport(lambda _: httpx.Response(200, headers={"content-type": kind}, content=content))


def events(*chunks: dict[str, Any]) -> httpx.MockTransport:
    data = [b"data: %b\n\n" % msgspec.json.encode(chunk) for chunk in chunks]
    return responding(b"".join([*data, b"data: [DONE]\n\n"]), "text/event-stream")


async def ask(transport: httpx.MockTransport, stream: bool) -> tuple[Completion, list[Chunk]]:
    """Return the completion by one of the ways to it, and the chunks if that way has them."""
    async with ChatClient(api_key="k", transport=transport, retry=RetryPolicy(attempts=1)) as client:
        if not stream:
            return await client.complete(**ASK), []
        async with client.stream(**ASK) as opened:
            chunks = [chunk async for chunk in opened]
        return opened.completion, chunks


def test_the_tables_have_every_field() -> None:
    ours = {
        "request_id",
        "extra",
        "parsed",
        "raw",
        "status",
        "headers",
        "error",
        "x_groq",
        "reasoning_content",
        "reasoning_text",
        "content_parts",
        "is_whole",
    }
    ours |= {"reasoning_details"}

    def fields(value: Any) -> set[str]:
        return set(value.__struct_fields__) - ours

    completion = msgspec.convert(COMPLETION, Completion)
    chunk = ChunkDecoder().decode(msgspec.json.encode(CHUNK))[0]
    assert fields(completion) == COMPLETION.keys()
    assert fields(chunk) == CHUNK.keys()
    assert fields(completion.choices[0]) == COMPLETION["choices"][0].keys()
    assert fields(chunk.choices[0]) == CHUNK["choices"][0].keys()
    assert fields(completion.message) == COMPLETION["choices"][0]["message"].keys()
    assert fields(chunk.choices[0].delta) - {"annotations"} == CHUNK["choices"][0]["delta"].keys()
    assert fields(completion.usage) == USAGE.keys()


async def test_every_field_of_a_whole_response() -> None:
    completion, _ = await ask(responding(msgspec.json.encode(COMPLETION)), stream=False)
    assert lost(completion, COMPLETION) == {}
    assert lost(completion.to_dict(), COMPLETION) == {}


async def test_every_field_of_a_chunk() -> None:
    _, (chunk,) = await ask(events(CHUNK), stream=True)
    assert lost(chunk, CHUNK) == {}
    assert lost(chunk.to_dict(), CHUNK) == {}


async def test_every_field_of_an_assembled_stream() -> None:
    """Chunks have no metadata, and annotations are a field that some servers add to the delta."""
    annotated = {"choices": [{"index": 0, "delta": {"annotations": ANNOTATIONS}}]}
    completion, _ = await ask(events(annotated, CHUNK), stream=True)
    assert lost(completion, COMPLETION, "metadata") == {}


# -- what servers add or do otherwise ----------------------------------------------------------------------------------


async def both_ways(spoken: dict[str, Any], *, top: dict[str, Any] | None = None, **choice: Any) -> list[Completion]:
    """Return the completion of one choice, received whole and as a stream."""
    whole = {"choices": [{"index": 0, "message": spoken, "finish_reason": "stop"} | choice]} | (top or {})
    chunk = {"choices": [{"index": 0, "delta": spoken, "finish_reason": "stop"} | choice]} | (top or {})
    received, _ = await ask(responding(msgspec.json.encode(whole)), stream=False)
    assembled, (only,) = await ask(events(chunk), stream=True)
    assert only.extra == (top or {})
    return [received, assembled]


async def test_reasoning_is_one_text_under_each_of_its_names() -> None:
    for spoken in (
        {"reasoning_content": "Hm."},
        {"reasoning": "Hm."},
        {"reasoning_details": [{"type": "reasoning.text", "text": "Hm."}]},
        {"reasoning_details": [{"type": "reasoning.summary", "summary": "Hm."}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]},
    ):
        for completion in await both_ways(spoken):
            assert (completion.message.reasoning, completion.text) == ("Hm.", ""), spoken


async def test_unknown_fields_stay_reachable() -> None:
    for completion in await both_ways({"content": "Hi", "mood": "good"}, top={"provider": "p"}):
        assert completion.extra == {"provider": "p"}
        assert completion.message.extra == {"mood": "good"}


async def test_a_finish_reason_is_an_open_text() -> None:
    for reason in ("stop", "length", "tool_calls", "content_filter", "function_call", "eos_token"):
        for completion in await both_ways({"content": "a"}, finish_reason=reason):
            assert completion.finish_reason == reason


async def test_several_choices_each_with_its_own() -> None:
    choices = {
        spoken: [
            {"index": index, spoken: {"content": text}, "finish_reason": reason, "logprobs": LOGPROBS}
            for index, text, reason in ((1, "b", "length"), (0, "a", "stop"))
        ]
        for spoken in ("delta", "message")
    }
    whole, _ = await ask(responding(msgspec.json.encode({"choices": choices["message"][::-1]})), stream=False)
    assembled, _ = await ask(events({"choices": choices["delta"]}), stream=True)
    for completion in (whole, assembled):
        assert [(choice.index, choice.message.content, choice.finish_reason) for choice in completion.choices] == [
            (0, "a", "stop"),
            (1, "b", "length"),
        ]
        assert all(choice.logprobs is not None and choice.logprobs.content for choice in completion.choices)
        assert completion.text == "a"
