"""JSON to chunks and completions: the fast path, and what is repaired of fields that have another type."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import msgspec
import pytest
from tests.support.tables import each_row

from chatscope.protocol.chunk_decoder import ChunkDecoder
from chatscope.protocol.coerce import choices_of
from chatscope.protocol.decode import chunk_from, completion_from, decode_exact
from chatscope.protocol.loading import load_object
from chatscope.protocol.response import Chunk, Completion, CompletionMessage
from chatscope.protocol.usage import Usage


def chunk_of(data: bytes) -> Chunk:
    """Return the chunk that an event's data holds."""
    return ChunkDecoder().decode(data)[0]


CHUNK: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1700000000,
    "model": "m",
    "system_fingerprint": "fp",
    "service_tier": "default",
    "obfuscation": "x",
    "moderation": {"flagged": False},
    "choices": [
        {"index": 1, "delta": {"role": "assistant", "content": "a"}, "finish_reason": "stop", "logprobs": None}
    ],
    "usage": {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 2},
    },
}


def decode(value: object) -> Chunk:
    return chunk_of(msgspec.json.encode(value))


def with_delta(**delta: object) -> dict[str, Any]:
    return {"choices": [{"delta": delta}]}


def test_every_field_of_a_chunk() -> None:
    chunk = decode(CHUNK)
    assert chunk.id == "chatcmpl-1"
    assert chunk.object == "chat.completion.chunk"
    assert chunk.created == 1700000000
    assert chunk.model == "m"
    assert chunk.system_fingerprint == "fp"
    assert chunk.service_tier == "default"
    assert chunk.obfuscation == "x"
    assert chunk.moderation == {"flagged": False}
    assert chunk.error is None
    assert [choice.index for choice in chunk.choices] == [1]
    assert chunk.choices[0].delta.role == "assistant"
    assert chunk.choices[0].delta.content == "a"
    assert chunk.choices[0].finish_reason == "stop"
    assert chunk.usage is not None
    assert (chunk.usage.prompt_tokens, chunk.usage.completion_tokens, chunk.usage.total_tokens) == (3, 2, 5)
    assert chunk.usage.cached_tokens == 1
    assert chunk.usage.reasoning_tokens == 2
    assert chunk.to_dict() == CHUNK
    assert chunk.extra == {}


REPAIRED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # what the server sent, and what the chunk looks like then: the same as if it had sent the other
    "index null": ({"choices": [{"index": None, "delta": {"content": "a"}}]}, with_delta(content="a")),
    "index as text": ({"choices": [{"index": "1", "delta": {}}]}, {"choices": [{"index": 1, "delta": {}}]}),
    "created as a fraction": ({"created": 1700000000.25}, {"created": 1700000000}),
    "created as text": ({"created": "1700000000"}, {"created": 1700000000}),
    "created as a date": ({"created": "2025-01-01", "id": "x"}, {"id": "x"}),
    "created null": ({"created": None, "id": "x"}, {"id": "x"}),
    "id as a number": ({"id": 7, "created": 0}, {"id": "7"}),
    "id and model null": ({"id": None, "model": None, **with_delta(content="a")}, with_delta(content="a")),
    "choices null": ({"choices": None, "id": "x"}, {"id": "x"}),
    "choices as an object": ({"choices": {"delta": {"content": "a"}}}, with_delta(content="a")),
    "choices with strangers": ({"choices": [None, 1, {"delta": {"content": "a"}}]}, with_delta(content="a")),
    "delta null": ({"choices": [{"delta": None, "index": 1}]}, {"choices": [{"index": 1}]}),
    "delta as a list": ({"choices": [{"delta": [], "index": 1}]}, {"choices": [{"index": 1}]}),
    "message in place of delta": (
        {"id": 1, "choices": [{"message": {"content": "a"}}]},
        {"id": "1", "choices": [{"delta": {"content": "a"}}]},
    ),
    "content as a number": (with_delta(content=1), with_delta(content="1")),
    "content as one part": (with_delta(content={"type": "text", "text": "a"}), with_delta(content="a")),
    "content as an object that is no part": (with_delta(content={"a": 1}), with_delta(content="")),
    "content as parts": (
        with_delta(content=["a", {"type": "text", "text": "b"}, 3, {"text": 4}]),
        with_delta(content="ab"),
    ),
    "content as thinking parts": (
        with_delta(
            content=[{"type": "thinking", "thinking": [{"type": "text", "text": "t"}, {"text": "u"}, 1, {"text": 2}]}]
        ),
        with_delta(content=""),
    ),
    "no parts": (with_delta(content=[]), with_delta(content="")),
    "finish_reason false": ({"choices": [{"finish_reason": False}]}, {"choices": [{}]}),
    "finish_reason as a list": ({"choices": [{"finish_reason": ["stop"]}]}, {"choices": [{}]}),
    "arguments as an object": (
        with_delta(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": {"a": [1]}}}]),
        with_delta(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": '{"a":[1]}'}}]),
    ),
    "a tool call with an index that is none": (
        with_delta(tool_calls=[{"index": "x", "id": 3, "function": {"name": "f"}}]),
        with_delta(tool_calls=[{"id": "3", "function": {"name": "f"}}]),
    ),
    "tool_calls as an object": (
        with_delta(tool_calls={"id": "x", "function": {"arguments": {"a": 1}}}),
        with_delta(tool_calls=[{"id": "x", "function": {"arguments": '{"a":1}'}}]),
    ),
    "annotations as an object": (with_delta(annotations={"type": "x"}), with_delta(annotations=[{"type": "x"}])),
    "usage of absurd size": (
        {"usage": {"prompt_tokens": 10**400, "completion_tokens": 1e300, "total_tokens": 3}},
        {"usage": {"total_tokens": 3}},
    ),
    "created and index of absurd size": (
        {"created": 10**26, "choices": [{"index": 10**26, "delta": {"content": "a"}}]},
        with_delta(content="a"),
    ),
    "finish_reason as text of null": (
        {"choices": [{"finish_reason": "null"}, {"finish_reason": ""}]},
        {"choices": [{}, {}]},
    ),
    "usage in the choice": (
        {"choices": [{"usage": {"total_tokens": 3}}]},
        {"choices": [{}], "usage": {"total_tokens": 3}},
    ),
    "usage under x_groq": (
        {"x_groq": {"usage": {"total_tokens": 3}}},
        {"x_groq": {"usage": {"total_tokens": 3}}, "usage": {"total_tokens": 3}},
    ),
    "tool_calls with strangers": (with_delta(tool_calls=[1, {"id": "x"}]), with_delta(tool_calls=[{"id": "x"}])),
    "usage with nulls": (
        {"usage": {"prompt_tokens": None, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": None}}},
        {"usage": {"completion_tokens": 2, "prompt_tokens_details": {}}},
    ),
    "usage as fractions": (
        {"usage": {"prompt_tokens": 3.0, "total_tokens": "3"}},
        {"usage": {"prompt_tokens": 3, "total_tokens": 3}},
    ),
    "usage as text": ({"usage": "much", "id": "x"}, {"id": "x"}),
    "usage below nothing": (
        {"usage": {"prompt_tokens": -7, "completion_tokens": -1.0, "total_tokens": 3}},
        {"usage": {"total_tokens": 3}},
    ),
    "details below nothing": (
        {"usage": {"total_tokens": 3, "prompt_tokens_details": {"cached_tokens": "-2"}}},
        {"usage": {"total_tokens": 3, "prompt_tokens_details": {}}},
    ),
    "usage true": ({"usage": {"prompt_tokens": [], "total_tokens": 2}}, {"usage": {"total_tokens": 2}}),
    "x_groq of another kind": ({"x_groq": 1, "id": "x"}, {"id": "x"}),
    "logprobs of another kind": ({"choices": [{"logprobs": []}]}, {"choices": [{}]}),
    "a logprob null": (
        {"choices": [{"logprobs": {"content": [{"token": "a", "logprob": None, "bytes": "x"}]}}]},
        {"choices": [{"logprobs": {"content": [{"token": "a"}]}}]},
    ),
    "top_logprobs null": (
        {"choices": [{"logprobs": {"content": [{"token": "a", "top_logprobs": None}]}}]},
        {"choices": [{"logprobs": {"content": [{"token": "a"}]}}]},
    ),
    "a whole completion": (
        {"object": "chat.completion", "choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]},
        {"object": "chat.completion", "choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]},
    ),
}


@each_row(("sent", "meant"), REPAIRED.values(), ids=REPAIRED)
def test_an_odd_type_costs_nothing_but_itself(sent: dict[str, Any], meant: dict[str, Any]) -> None:
    around = {"model": "m", "unknown": [1]}
    chunk = decode(sent | around)
    expected = decode(meant | around)
    assert chunk.to_dict() == sent | around
    assert chunk.extra["unknown"] == [1]
    assert known(msgspec.to_builtins(chunk)) == known(msgspec.to_builtins(expected))
    assert chunk.model == "m"


def known(value: Any) -> Any:
    """Return what is left of a struct without its unknown fields and without the text that it came from."""
    if isinstance(value, dict):
        return {name: known(item) for name, item in value.items() if not name.startswith("<")}
    return [known(item) for item in value] if isinstance(value, list) else value


def test_text_that_looks_like_a_value_stays_text() -> None:
    for text in ("null", "true", "1", "{}", '"'):
        # The odd `created` leads past the fast path.
        assert decode({"created": None, **with_delta(content=text)}).text == text


BROKEN: dict[str, tuple[bytes, str, object]] = {
    "NaN": (b'{"choices":[{"delta":{"content":"a"}}],"x":NaN}', "a", None),
    "infinities": (b'{"choices":[{"delta":{"content":"a"}}],"x":[Infinity,-Infinity]}', "a", [None, None]),
    "half a surrogate pair in the text": (b'{"choices":[{"delta":{"content":"a\\ud83d"}}],"x":1}', "a\ufffd", 1),
    "the other half": (b'{"choices":[{"delta":{"content":"\\ude00a"}}],"x":1}', "\ufffda", 1),
    "a whole pair": (b'{"choices":[{"delta":{"content":"\\ud83d\\ude00"}}],"x":1}', "\U0001f600", 1),
    "half a surrogate pair elsewhere": (
        b'{"choices":[{"delta":{"content":"a"}}],"x":{"\\udc00":["\\ud800"]}}',
        "a",
        {"\ufffd": ["\ufffd"]},
    ),
    "no UTF-8 in the text": (b'{"choices":[{"delta":{"content":"\xffa\xe2\x82"}}],"x":1}', "\ufffda\ufffd", 1),
    "no UTF-8 elsewhere": (b'{"choices":[{"delta":{"content":"a"}}],"x":"\xff"}', "a", "\ufffd"),
    "a raw control character": (b'{"choices":[{"delta":{"content":"a\nb"}}],"x":"\t"}', "a\nb", "\t"),
    "a number beyond floats": (b'{"choices":[{"delta":{"content":"a"}}],"created":1e999,"x":1}', "a", 1),
    "a large number": (
        b'{"choices":[{"delta":{"content":"a"}}],"x":123456789012345678901234567890}',
        "a",
        123456789012345678901234567890,
    ),
    "a byte order mark": (b'\xef\xbb\xbf{"choices":[{"delta":{"content":"a"}}],"x":1}', "a", 1),
}


@each_row(("raw", "text", "unknown"), BROKEN.values(), ids=BROKEN)
def test_json_that_a_strict_decoder_refuses(raw: bytes, text: str, unknown: object) -> None:
    chunk = chunk_of(raw)
    assert chunk.text == text
    assert chunk.raw == raw
    assert chunk.extra == {"x": unknown}


def test_logprobs_as_text() -> None:
    sent = [{"logprob": text} for text in ("-1.5", "-inf", "NaN", "Infinity")]
    logprobs = chunk_from({"choices": [{"logprobs": {"content": sent}}]}, b"").choices[0].logprobs
    assert logprobs is not None
    assert [token.logprob for token in logprobs.content or ()] == [-1.5, -math.inf, None, None]


def test_nan_in_logprobs() -> None:
    chunk = chunk_of(
        b'{"choices":[{"delta":{"content":"a"},"logprobs":{"content":[{"token":"a","logprob":NaN},{"token":"b","logprob":-1}]}}]}'
    )
    assert chunk.choices[0].logprobs is not None
    assert [(entry.token, entry.logprob) for entry in chunk.choices[0].logprobs.content or ()] == [
        ("a", None),
        ("b", -1.0),
    ]


@each_row("raw", [b"", b"[]", b"1", b"null", b'"a"', b"{", b"{}{}", b"nonsense", b"{'a': 1}", b"[" * 100_000])
def test_what_is_no_json_object_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        load_object(raw)
    with pytest.raises(ValueError, match=r".+"):
        chunk_of(raw)


@each_row("opening", [b'{"a":', b'{"a":NaN,"b":'])
def test_json_nested_beyond_the_stack_is_a_value_error(opening: bytes) -> None:
    with pytest.raises(ValueError, match="nested too deep"):
        load_object(opening * 50_000 + b"1" + b"}" * 50_000)


def test_choices_of_whatever_stands_in_their_place() -> None:
    assert choices_of({}) == choices_of({"choices": None}) == choices_of({"choices": "x"}) == []
    assert choices_of({"choices": {"index": 0}}) == [{"index": 0}]
    assert choices_of({"choices": [{"index": 0}, None, "x", []]}) == [{"index": 0}]


COMPLETION: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1700000000,
    "model": "m",
    "system_fingerprint": "fp",
    "service_tier": "default",
    "moderation": None,
    "metadata": {"topic": "demo"},
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "logprobs": {
                "content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}],
                "refusal": None,
            },
            "message": {
                "role": "assistant",
                "content": "a",
                "tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                "annotations": [{"type": "url_citation"}],
                "images": ["data:,"],
            },
        }
    ],
    "usage": msgspec.to_builtins(Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3)),
    "citations": ["https://example.com"],
}


def test_a_completion_with_fields_that_have_no_name() -> None:
    completion = completion_from(COMPLETION)
    assert completion.text == "a"
    assert completion.finish_reason == "tool_calls"
    assert completion.extra == {"citations": ["https://example.com"]}
    assert completion.message.extra == {"images": ["data:,"]}
    assert completion.to_dict() == COMPLETION


def test_a_completion_with_odd_types() -> None:
    completion = completion_from(
        {
            "id": 1,
            "created": 1.5,
            "citations": [],
            "choices": [
                "stranger",
                {
                    "index": None,
                    "message": {"content": [{"type": "text", "text": "a"}], "images": []},
                    "finish_reason": "stop",
                },
                {"index": 1, "message": None},
            ],
            "usage": {"prompt_tokens": None, "completion_tokens": -1, "total_tokens": 2.0},
        }
    )
    assert (completion.id, completion.created) == ("1", 1)
    assert [choice.index for choice in completion.choices] == [0, 1]
    assert completion.text == "a"
    assert completion.finish_reason == "stop"
    assert completion.usage == Usage(total_tokens=2)
    assert completion.extra == {"citations": []}
    assert completion.message.extra == {"images": []}
    assert completion.choices[1].message.content is None


@each_row("choices", [None, "x", 3, []])
def test_a_completion_without_choices(choices: object) -> None:
    completion = completion_from({"choices": choices})
    assert completion.choices == []
    assert completion.text == ""
    assert completion.finish_reason is None
    assert completion.message.to_dict() == {"role": "assistant", "content": None}


def test_numbers_that_are_no_numbers_are_left_out() -> None:
    assert completion_from({"created": math.inf, "id": 1}).created == 0
    assert completion_from({"created": math.nan, "id": 1}).created == 0


def _plain() -> dict[str, Any]:
    response: dict[str, Any] = deepcopy(COMPLETION)
    del response["citations"], response["choices"][0]["message"]["images"]
    return response


def test_a_response_without_surprises_needs_one_look() -> None:
    exact = decode_exact(msgspec.json.encode(_plain()))
    assert exact == completion_from(_plain())
    assert type(exact) is Completion
    assert type(exact.message) is CompletionMessage


def _edited(path: tuple[str | int, ...], value: object) -> bytes:
    response = _plain()
    place: Any = response
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return msgspec.json.encode(response)


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@each_row(
    "body",
    [
        _edited(("provider",), "p"),
        _edited(("usage", "cost"), 0.25),
        _edited(("choices", 0, "native_finish_reason"), "x"),
        _edited(("choices", 0, "message", "images"), []),
        _edited(("choices", 0, "message", "tool_calls"), [CALL | {"extra_content": {}}]),
        _edited(("choices", 0, "index"), "0"),
        _edited(("choices",), []),
        _edited(("error",), {"message": "no"}),
        _edited(("choices", 0, "finish_reason"), "error"),
        _edited(("choices", 0, "finish_reason"), "null"),
        _edited(("choices", 0, "logprobs", "content", 0, "token_id"), 7),
        _edited(("usage", "completion_tokens_details"), {"num_sources": 1}),
        _edited(("choices", 0, "message", "tool_calls", 0, "function", "own"), 1),
        _edited(("object",), "error"),
        b"[]",
        b'{"choices": [{"message": {"content": "\xff"}}]}',
        b"[" * 100_000,
        b"",
    ],
)
def test_a_response_with_surprises_needs_a_closer_look(body: bytes) -> None:
    assert decode_exact(body) is None


def _chunk_of(delta: dict[str, Any], **choice: Any) -> dict[str, Any]:
    return CHUNK | {
        "choices": [{"index": 0, "delta": delta, "finish_reason": None, **choice}],
        "usage": None,
        "moderation": None,
    }


@each_row(
    "chunk",
    [
        _chunk_of({"content": "a"}),
        _chunk_of({"role": "assistant", "content": "a", "refusal": None, "tool_calls": None}),
        {"choices": [{"delta": {"content": "a"}}]},
    ],
)
def test_a_part_of_text_and_nothing_else(chunk: dict[str, Any]) -> None:
    assert ChunkDecoder().decode_text(msgspec.json.encode(chunk)) == "a"


@each_row(
    "chunk",
    [
        _chunk_of({"content": "a", "own": 1}),
        _chunk_of({"content": "a"}, own=2),
        _chunk_of({"content": "a"}) | {"own": 3},
        _chunk_of({"content": "a", "refusal": "b"}),
        _chunk_of({"content": "a", "reasoning": "b"}),
        _chunk_of({"content": "a", "reasoning_content": "b"}),
        _chunk_of({"content": "a", "reasoning_details": []}),
        _chunk_of({"content": "a", "tool_calls": []}),
        _chunk_of({"content": "a", "function_call": {}}),
        _chunk_of({"content": "a", "audio": {}}),
        _chunk_of({"content": "a", "annotations": []}),
        _chunk_of({"content": "a", "role": "tool"}),
        _chunk_of({"content": ["a"]}),
        _chunk_of({"content": None}),
        _chunk_of({"content": ""}),
        _chunk_of({}),
        _chunk_of({"content": "a"}, finish_reason="stop"),
        _chunk_of({"content": "a"}, logprobs={"content": []}),
        _chunk_of({"content": "a"}, index=1),
        _chunk_of({"content": "a"}) | {"usage": {"total_tokens": 1}},
        _chunk_of({"content": "a"}) | {"error": {"message": "no"}},
        _chunk_of({"content": "a"}) | {"object": "error"},
        _chunk_of({"content": "a"}) | {"object": "chat.completion"},
        CHUNK | {"choices": []},
        CHUNK | {"choices": _chunk_of({"content": "a"})["choices"] * 2},
    ],
)
def test_more_than_a_part_of_text(chunk: dict[str, Any]) -> None:
    assert ChunkDecoder().decode_text(msgspec.json.encode(chunk)) is None


@each_row("data", [b"", b"[DONE]", b'{"choices": [{"delta": {"content": "\xff"}}]}', b"[" * 100_000])
def test_no_part_of_text(data: bytes) -> None:
    assert ChunkDecoder().decode_text(data) is None


@each_row(
    "path",
    [
        ("<extra>",),
        ("<parsed>",),
        ("<request_id>",),
        ("choices", 0, "<extra>"),
        ("choices", 0, "message", "<extra>"),
        ("choices", 0, "message", "tool_calls", 0, "<extra>"),
    ],
)
@each_row("value", [{"role": "system"}, None, "x"])
def test_a_server_cannot_set_what_is_not_sent(path: tuple[str | int, ...], value: object) -> None:
    body = _edited(path, value)
    plain = completion_from(_plain())
    assert decode_exact(body) in (None, plain)
    assert completion_from(load_object(body)) == plain
