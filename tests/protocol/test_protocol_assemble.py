"""Chunks to a completion: tool calls in all their disguises, merged fields, and the verdict at the end."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.tables import each_row

from chatscope.errors import StreamTruncatedError
from chatscope.protocol.assemble import Assembler
from chatscope.protocol.chunk_decoder import ChunkDecoder
from chatscope.protocol.events import EventReader, UsageReported
from chatscope.protocol.merge import GrowingValue
from chatscope.protocol.response import Chunk, Completion, CompletionMessage, FunctionDelta
from chatscope.protocol.usage import Usage


def chunk_of(data: bytes) -> Chunk:
    """Return the chunk that an event's data holds."""
    return ChunkDecoder().decode(data)[0]


def assemble(*chunks: dict[str, Any]) -> Assembler:
    assembler = Assembler()
    for chunk in chunks:
        assembler.add(chunk_of(msgspec.json.encode(chunk)))
    return assembler


def chunk(index: int = 0, *, finish: str | None = None, logprobs: object = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
    return {"id": "c", "model": "m", "choices": [choice]}


def spoken(*deltas: dict[str, Any]) -> CompletionMessage:
    """Return the message that deltas make; each is sure not to be the first, whose fields are all read."""
    return assemble(chunk(role="assistant", content=""), *(chunk(**delta) for delta in deltas)).completion().message


def call(
    index: int | None = None,
    call_id: str | None = None,
    name: str | None = None,
    arguments: str | None = None,
) -> dict[str, Any]:
    """Return a part of a tool call, with what is given and nothing else."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    part: dict[str, Any] = {"function": function} if function else {}
    return part | {key: value for key, value in (("index", index), ("id", call_id)) if value is not None}


Calls = list[tuple[str, str, str]]
PARIS, ROME = '{"city": "Paris"}', '{"city": "Rome"}'

TOOL_CALLS: dict[str, tuple[list[dict[str, Any]], Calls]] = {
    "as the endpoint sends it": (
        [call(0, "a", "f", ""), call(0, None, None, '{"city"'), call(0, None, None, ': "Paris"}')],
        [("a", "f", PARIS)],
    ),
    "two, one after the other": (
        [call(0, "a", "f", ""), call(0, None, None, PARIS), call(1, "b", "g", ""), call(1, None, None, ROME)],
        [("a", "f", PARIS), ("b", "g", ROME)],
    ),
    "two, interleaved": (
        [
            call(0, "a", "f"),
            call(1, "b", "g"),
            call(0, arguments=PARIS[:5]),
            call(1, arguments=ROME),
            call(0, arguments=PARIS[5:]),
        ],
        [("a", "f", PARIS), ("b", "g", ROME)],
    ),
    "indexes that do not begin at 0": (
        [call(3, "a", "f", PARIS), call(5, "b", "g", ROME)],
        [("a", "f", PARIS), ("b", "g", ROME)],
    ),
    "Ollama: whole calls without index": (
        [call(None, "a", "f", PARIS), call(None, "b", "f", ROME)],
        [("a", "f", PARIS), ("b", "f", ROME)],
    ),
    "whole calls without index and id": (
        [call(None, None, "f", PARIS), call(None, None, "f", ROME)],
        [("", "f", PARIS), ("", "f", ROME)],
    ),
    "Gemini: whole calls, all with index 0": (
        [call(0, "a", "f", PARIS), call(0, "b", "f", ROME)],
        [("a", "f", PARIS), ("b", "f", ROME)],
    ),
    "all with index 0, without id": (
        [call(0, None, "f", PARIS), call(0, None, "g", ROME)],
        [("", "f", PARIS), ("", "g", ROME)],
    ),
    "all with index 0, in parts": (
        [
            call(0, "a", "f"),
            call(0, None, None, PARIS),
            call(0, "b", "g"),
            call(0, None, None, ROME[:4]),
            call(0, None, None, ROME[4:]),
        ],
        [("a", "f", PARIS), ("b", "g", ROME)],
    ),
    "without index, in parts": (
        [call(None, "a", "f"), call(None, None, None, PARIS), call(None, "b", "g"), call(None, "b", None, ROME)],
        [("a", "f", PARIS), ("b", "g", ROME)],
    ),
    "an index only at first": ([call(0, "a", "f"), call(None, None, None, PARIS)], [("a", "f", PARIS)]),
    "an index only later": ([call(None, "a", "f"), call(0, None, None, PARIS)], [("a", "f", PARIS)]),
    "SGLang: no id after the first": (
        [call(0, "a", "f", ""), call(0, None, None, PARIS), call(1, None, "g", ""), call(1, None, None, ROME)],
        [("a", "f", PARIS), ("", "g", ROME)],
    ),
    "an id that comes late": ([call(0, None, "f"), call(0, "a", None, PARIS)], [("a", "f", PARIS)]),
    "an empty id after the first": ([call(0, "a", "f", ""), call(0, "", "", PARIS)], [("a", "f", PARIS)]),
    "arguments before the name": (
        [call(0, "a", None, PARIS[:6]), call(0, "a", None, PARIS[6:]), call(0, "a", "f")],
        [("a", "f", PARIS)],
    ),
    "the name repeated": (
        [call(0, "a", "f", PARIS[:6]), call(0, "a", "f", PARIS[6:]), call(0, "a", "f")],
        [("a", "f", PARIS)],
    ),
    "the name repeated, without id": (
        [call(0, None, "f", PARIS[:6]), call(0, None, "f", PARIS[6:])],
        [("", "f", PARIS)],
    ),
    "the name repeated, without index and id": (
        [call(None, None, "f", PARIS[:6]), call(None, None, "f", PARIS[6:])],
        [("", "f", PARIS)],
    ),
    "the name in parts": (
        [call(0, "a", "get_"), call(0, None, "wea"), call(0, None, "ther"), call(0, None, None, PARIS)],
        [("a", "get_weather", PARIS)],
    ),
    "the name letter by letter": (
        [call(0, "a", letter) for letter in "add_book"] + [call(0, None, None, PARIS)],
        [("a", "add_book", PARIS)],
    ),
    "the name growing": (
        [call(0, "a", "get"), call(0, "a", "get_weather"), call(0, None, None, PARIS)],
        [("a", "get_weather", PARIS)],
    ),
    "another id with every part": (
        [call(0, "a", "f"), call(0, "b", None, PARIS[:6]), call(0, "c", None, PARIS[6:])],
        [("a", "f", PARIS)],
    ),
    "no arguments at all": ([call(0, "a", "f"), call(1, "b", "g", "")], [("a", "f", ""), ("b", "g", "")]),
    "the same id for all": (
        [call(0, "a", "f", PARIS), call(0, "a", "f", ROME)],
        [("a", "f", PARIS), ("a", "f", ROME)],
    ),
    "several in one chunk": (
        [{"several": [call(0, "a", "f", PARIS), call(1, "b", "g", ROME)]}],
        [("a", "f", PARIS), ("b", "g", ROME)],
    ),
    "arguments as an object": (
        [{"index": 0, "id": "a", "function": {"name": "f", "arguments": {"city": "Paris"}}}],
        [("a", "f", '{"city":"Paris"}')],
    ),
    "arguments that are no JSON": ([call(0, "a", "f", "Par"), call(0, None, None, "is")], [("a", "f", "Paris")]),
    "two in one list, names alone": ([{"several": [call(name="f"), call(name="f")]}], [("", "f", ""), ("", "f", "")]),
    "two one after the other, names alone": ([call(name="f"), call(name="g")], [("", "f", ""), ("", "g", "")]),
    "a name alone, repeated": ([call(name="f"), call(name="f"), call(arguments=PARIS)], [("", "f", PARIS)]),
    "a name repeated alone within its arguments": (
        [call(0, None, "f", PARIS[:6]), call(0, None, "f"), call(0, None, None, PARIS[6:])],
        [("", "f", PARIS)],
    ),
    "the function's fields beside the index": (
        [{"index": 0, "id": "a", "name": "f"}, {"index": 0, "arguments": PARIS[:6]}, {"arguments": PARIS[6:]}],
        [("a", "f", PARIS)],
    ),
    "the same with arguments as an object": (
        [{"index": 0, "name": "f", "arguments": {"city": "Paris"}}],
        [("", "f", '{"city":"Paris"}')],
    ),
    "the function as its name": ([{"index": 0, "function": "f", "arguments": PARIS}], [("", "f", PARIS)]),
    "whole calls once more at the end": (
        [
            call(0, "a", "f", ""),
            call(0, None, None, PARIS),
            call(1, "b", "g", ROME),
            {"several": [call(0, "a", "f", PARIS), call(1, "b", "g", ROME)]},
        ],
        [("a", "f", PARIS), ("b", "g", ROME)],
    ),
    "all arguments so far in every part": (
        [call(0, "a", "f", PARIS[:size]) for size in (2, 8, len(PARIS), len(PARIS))],
        [("a", "f", PARIS)],
    ),
    "all arguments so far, without name and index": (
        [call(0, "a", "f", ""), *(call(None, None, None, PARIS[:size]) for size in (2, 8, len(PARIS)))],
        [("a", "f", PARIS)],
    ),
    "all arguments so far, cut where an object may follow": (
        [call(0, "a", "f", text) for text in ('{"a":', '{"a":1,', '{"a":1,"b":', '{"a":1,"b":2}')],
        [("a", "f", '{"a":1,"b":2}')],
    ),
    "objects within each other, cut before each": (
        [call(0, "a", "f", '{"a":'), call(0, arguments='{"a":'), call(0, arguments='{"a":1}'), call(0, arguments="}}")],
        [("a", "f", '{"a":{"a":{"a":1}}}')],
    ),
    "empty arguments first": ([call(0, "a", "f", "{}"), call(0, arguments=PARIS)], [("a", "f", PARIS)]),
    "a part with nothing in it": ([call(0, "a", "f", PARIS), {}, call(0)], [("a", "f", PARIS)]),
}


@each_row(("parts", "calls"), TOOL_CALLS.values(), ids=TOOL_CALLS)
def test_tool_calls(parts: list[dict[str, Any]], calls: Calls) -> None:
    deltas = [{"tool_calls": part.get("several", [part])} for part in parts]
    message = spoken(*deltas)
    assert [(made.id, made.function.name, made.function.arguments) for made in message.tool_calls or ()] == calls
    assert {made.type for made in message.tool_calls or ()} == {"function"}
    assert [made.custom for made in message.tool_calls or ()] == [None] * len(calls)
    assert message.content is None


MESSAGE = {
    "role": "assistant",
    "content": "I look.",
    "reasoning": "hm",
    "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": PARIS}}],
    "note": "x",
}


@each_row(
    "deltas",
    [
        [
            {"content": "I "},
            {"content": "look.", "note": "x"},
            {"reasoning": "hm"},
            {"tool_calls": [call(0, "a", "f", PARIS)]},
        ],
        [{"reasoning_content": "hm"}, {"content": "I "}, {"tool_calls": [call(0, "a", "f", PARIS)]}],
        [{"content": "I look."}],
        [],
    ],
)
@each_row("empty", [{}, {"delta": {}}, {"delta": {"role": "assistant", "content": ""}}])
def test_a_message_after_deltas_adds_only_what_is_new(deltas: list[dict[str, Any]], empty: dict[str, Any]) -> None:
    last = chunk_of(
        msgspec.json.encode({"choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"} | empty]})
    )
    assembler = assemble(*(chunk(**delta) for delta in deltas))
    parts, calls = list(assembler.text_parts), bool(deltas and "tool_calls" in deltas[-1])
    assembler.add(last)
    message = assembler.completion().message
    assert (message.content, message.reasoning) == ("I look.", "hm")
    assert [(made.id, made.function.arguments) for made in message.tool_calls or ()] == [("a", PARIS)]
    assert message.extra["note"] == "x"
    assert "".join(parts) + last.text == "I look.", "what readers of chunks see"
    assert bool(last.choices[0].delta.tool_calls) is not calls


def test_messages_in_place_of_deltas() -> None:
    sent = [{"choices": [{"index": 0, "message": {"content": text}}]} for text in ("ha", "ha", "!")]
    assert assemble(*sent).text == "haha!"


def test_lists_of_a_choice_are_continued() -> None:
    sent: list[dict[str, Any]] = [
        {"token_ids": [5], "sources": ["a"], "stop_reason": None},
        {"token_ids": [5, 6], "sources": ["a", "b"], "stop_reason": 7},
        {"token_ids": None, "sources": ["c"]},
    ]
    chunks = [{"model": "m", "choices": [{"index": 0, "delta": {"content": "a"}} | more]} for more in sent]
    assert assemble(*chunks[:2]).completion().choices[0].extra["token_ids"] == [5, 5, 6], "numbers repeat by chance"
    early = assemble(*chunks).completion().choices[0].extra
    assert early == {"token_ids": None, "sources": ["a", "b", "c"], "stop_reason": 7}


def test_custom_tools_beside_functions() -> None:
    message = spoken(
        {"tool_calls": [{"index": 0, "id": "a", "type": "custom", "custom": {"name": "sql", "input": "SEL"}}]},
        {"tool_calls": [{"index": 0, "custom": {"input": "ECT 1"}}]},
        {"tool_calls": [{"index": 1, "id": "b", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"tool_calls": [{"index": 2, "id": "c", "custom": {"name": "untyped"}}]},
    )
    assert message.to_dict()["tool_calls"] == [
        {"id": "a", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}},
        {"id": "b", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "c", "type": "custom", "custom": {"name": "untyped", "input": ""}},
    ]


def test_the_older_function_call() -> None:
    message = spoken(
        {"function_call": {"name": "get_"}},
        {"function_call": {"name": "weather", "arguments": ""}},
        {"function_call": {"arguments": PARIS[:7]}},
        {"function_call": {"name": "get_weather", "arguments": PARIS[7:]}},
    )
    assert message.function_call == FunctionDelta(name="get_weather", arguments=PARIS)


@each_row(
    ("delta", "gains"),
    [
        ({}, False),
        ({"role": "assistant"}, False),
        ({"content": ""}, False),
        ({"content": None, "refusal": None, "tool_calls": None}, False),
        ({"tool_calls": []}, False),
        ({"reasoning_content": ""}, False),
        ({"images": ["x"]}, False),
        ({"content": "a"}, True),
        ({"refusal": "a"}, True),
        ({"reasoning_content": "a"}, True),
        ({"reasoning": "a"}, True),
        ({"reasoning_details": [{"text": "a"}]}, True),
        ({"tool_calls": [{"index": 0}]}, True),
        ({"function_call": {"name": "f"}}, True),
        ({"audio": {"data": "YQ=="}}, True),
        ({"annotations": [{"type": "url_citation"}]}, True),
    ],
)
def test_whether_a_chunk_carries_something_that_the_model_wrote(delta: dict[str, Any], gains: bool) -> None:
    assembler = assemble(chunk(role="assistant"))
    assert assembler.add(chunk_of(msgspec.json.encode(chunk(**delta)))) is gains


def test_text_reasoning_and_refusal_are_put_together() -> None:
    message = spoken(
        {"reasoning_content": "one", "reasoning": "eins"},
        {"reasoning_content": " two", "reasoning": " zwei", "content": "a"},
        {"refusal": "n", "content": "b"},
        {"refusal": "o", "role": "system"},
    )
    assert message.content == "ab"
    assert message.reasoning_content == "one two"
    assert message.reasoning_text == "eins zwei"
    assert message.reasoning == "one two"
    assert message.refusal == "no"
    assert message.role == "assistant"


def test_the_role_is_the_first_that_is_named() -> None:
    assert assemble(chunk(content="a"), chunk(role="tool"), chunk(role="user")).completion().message.role == "tool"
    assert assemble(chunk(content="a")).completion().message.role == "assistant"


def test_reasoning_details_are_merged_by_index_and_type() -> None:
    message = spoken(
        {"reasoning_details": [{"index": 0, "type": "reasoning.text", "text": "a", "format": "x", "id": None}]},
        {"reasoning_details": [{"index": 0, "type": "reasoning.text", "text": "b", "format": "x", "signature": None}]},
        {"reasoning_details": [{"index": 0, "type": "reasoning.text", "signature": "s"}]},
        {"reasoning_details": [{"index": 0, "type": "reasoning.encrypted", "data": "e"}]},
        {
            "reasoning_details": [
                {"index": 1, "type": "reasoning.encrypted", "data": "f"},
                {"type": "loose"},
                {"type": "loose"},
            ]
        },
    )
    assert message.reasoning_details == [
        {"index": 0, "type": "reasoning.text", "text": "ab", "format": "x", "id": None, "signature": "s"},
        {"index": 0, "type": "reasoning.encrypted", "data": "e"},
        {"index": 1, "type": "reasoning.encrypted", "data": "f"},
        {"type": "loose"},
        {"type": "loose"},
    ]
    assert message.reasoning == "ab"


def test_audio_and_annotations() -> None:
    message = spoken(
        {"audio": {"id": "audio_1", "transcript": "He"}},
        {"audio": {"id": "audio_1", "transcript": "llo"}},
        {"audio": {"data": "YWJj"}},
        {"audio": {"data": "ZGVm"}},
        {"audio": {"expires_at": 1700000000}, "annotations": [{"type": "url_citation", "n": 1}]},
        {"annotations": [{"type": "url_citation", "n": 2}]},
    )
    assert message.audio == {"id": "audio_1", "transcript": "Hello", "data": "YWJjZGVm", "expires_at": 1700000000}
    assert message.annotations == [{"type": "url_citation", "n": 1}, {"type": "url_citation", "n": 2}]


def test_logprobs_are_put_together() -> None:
    def token(text: str) -> dict[str, Any]:
        return {"token": text, "logprob": -0.5, "bytes": [*text.encode()], "top_logprobs": [], "token_id": 7}

    completion = assemble(
        chunk(content="a", logprobs={"content": [token("a")], "refusal": None}),
        chunk(content="b"),
        chunk(content="cd", logprobs={"content": [token("c"), token("d")]}),
        chunk(refusal="n", logprobs={"content": None, "refusal": [token("n")]}),
        chunk(refusal="o", logprobs={"refusal": [token("o")]}),
    ).completion()
    assert completion.to_dict()["choices"][0]["logprobs"] == {
        "content": [token("a"), token("c"), token("d")],
        "refusal": [token("n"), token("o")],
    }


def test_choices_are_kept_apart_and_in_order() -> None:
    assembler = assemble(
        chunk(1, content="b1", finish="length"),
        chunk(0, content="a1"),
        {"choices": [{"index": 1, "delta": {"content": "b2"}}, {"index": 0, "delta": {"content": "a2"}}]},
        chunk(0, finish="stop"),
        chunk(2),
    )
    choices = assembler.completion().choices
    assert [(choice.index, choice.message.content, choice.finish_reason) for choice in choices] == [
        (0, "a1a2", "stop"),
        (1, "b1b2", "length"),
        (2, None, None),
    ]
    assert assembler.text == "a1a2"
    assert assembler.text_parts == ["a1", "a2"]


def test_text_parts_are_a_log_that_readers_keep_their_place_in() -> None:
    assembler = Assembler()
    parts = assembler.text_parts
    for text in ("a", "", "b"):
        assembler.add(chunk_of(msgspec.json.encode(chunk(content=text))))
    assert parts is assembler.text_parts
    assert parts == ["a", "b"]


def test_a_response_without_a_choice_0_has_a_first_choice_at_its_end() -> None:
    assembler = assemble(chunk(2, content="c"), chunk(1, content="a"), chunk(1, content="b"))
    parts = assembler.text_parts
    assert (parts, assembler.completion().text) == ([], "ab"), "a choice 0 may still come"
    for _ in range(2):
        assembler.close()
        assert parts == ["a", "b"]
    assert (assembler.text, assembler.completion().text) == ("ab", "ab")
    assembler = assemble(chunk(1, content="b"), chunk(0, content="a"))
    assembler.close()
    assert assembler.text_parts == ["a"]


def test_a_completion_taken_early_does_not_change() -> None:
    assembler = assemble(chunk(content="a", tool_calls=[call(0, "i", "f", "{")]))
    early = assembler.completion("req_1")
    assembler.add(chunk_of(msgspec.json.encode(chunk(content="b", tool_calls=[call(0, arguments="}")], finish="stop"))))
    assert early.text == "a"
    assert early.request_id == "req_1"
    assert early.finish_reason is None
    assert early.message.tool_calls is not None
    assert early.message.tool_calls[0].function.arguments == "{"
    assert assembler.completion().text == "ab"


USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
SPENT = Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3)


@each_row(
    "chunks",
    [
        [chunk(content="a"), chunk(finish="stop") | {"usage": USAGE}],
        [chunk(content="a"), chunk(finish="stop"), {"choices": [], "usage": USAGE}],
        [chunk(content="a"), {"choices": [], "usage": USAGE}, {"choices": [], "moderation": {}}],
        [chunk(content="a"), {"choices": [{"index": 0, "delta": {}}], "usage": USAGE}],
        [
            chunk(content="a") | {"usage": {"total_tokens": 1}},
            chunk(content="b") | {"usage": USAGE},
            chunk() | {"usage": None},
        ],
        [
            chunk(role="assistant") | {"x_groq": {"id": "r"}},
            chunk(content="a"),
            chunk(finish="stop") | {"x_groq": {"usage": USAGE}},
        ],
        [chunk(content="a"), chunk() | {"x_groq": {"usage": {"total_tokens": 9}}, "usage": USAGE}],
        [chunk(content="a", finish="stop") | {"usage": USAGE}],
        [chunk(content="a", finish="stop") | {"prompt_eval_count": 1, "eval_count": 2}],  # Ollama
        [chunk(content="a", finish="stop") | {"timings": {"prompt_n": 1, "predicted_n": 2}}],  # llama.cpp
        [chunk(content="a", finish="stop") | {"usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 2}}],
        [chunk(content="a", finish="stop") | {"usage": {"promptTokens": 1, "completionTokens": 2}}],
        [chunk(content="a", finish="stop") | {"usage": {"inputTokens": "1", "outputTokens": 2.0}}],
        [*[chunk(content="a") | {"timings": {"prompt_n": 1, "predicted_n": n}} for n in (1, 1, 1, 2)]],
        [
            chunk() | {"usage": {"input_tokens": 1, "output_tokens": 1}},
            chunk(content="a") | {"usage": {"output_tokens": 2}},
        ],
    ],
)
def test_usage_wherever_it_comes(chunks: list[dict[str, Any]]) -> None:
    assembler = assemble(*chunks)
    assert assembler.usage == SPENT
    assert assembler.completion().usage == SPENT


@each_row(
    ("counts", "usage"),
    [
        ({"timings": {"prompt_n": 7, "cache_n": 3, "predicted_n": 5}}, (10, 5, 3, 0)),
        (
            {
                "usageMetadata": {
                    "promptTokenCount": 9,
                    "candidatesTokenCount": 2,
                    "thoughtsTokenCount": 4,
                    "cachedContentTokenCount": 1,
                }
            },
            (9, 6, 1, 4),
        ),
        ({"usage": {"input_tokens": 7, "output_tokens": 5, "cache_read_input_tokens": 3}}, (10, 5, 3, 0)),
        ({"usage": {"prompt_tokens": 7, "completion_tokens": 5, "prompt_cache_hit_tokens": 3}}, (7, 5, 3, 0)),
        (
            {"usage": {"prompt_tokens": 7, "completion_tokens": 5}, "timings": {"prompt_n": 1, "predicted_n": 5}},
            (7, 5, 0, 0),
        ),
        ({"usage": {"billed_units": {}, "tokens": {"input_tokens": 7, "output_tokens": 5}}}, (7, 5, 0, 0)),  # Cohere
        ({"usage": {"text": {"prompt_tokens": 7, "completion_tokens": 5}}}, (7, 5, 0, 0)),  # Spark
        ({"message": {"usage": {"input_tokens": 7, "output_tokens": 5}}}, (7, 5, 0, 0)),  # Anthropic
        ({"usage": {"prompt_tokens": -1, "completion_tokens": -1}}, None),
        ({"usage": {}, "eval_count": "many", "timings": {"prompt_ms": 2.5}}, None),
    ],
)
def test_usage_under_the_names_of_other_protocols(counts: dict[str, Any], usage: tuple[int, ...] | None) -> None:
    made = assemble(chunk(content="a", finish="stop") | counts).usage
    assert (made and (made.prompt_tokens, made.completion_tokens, made.cached_tokens, made.reasoning_tokens)) == usage
    if made is not None:
        assert made.total_tokens == made.prompt_tokens + made.completion_tokens


def test_choices_that_report_their_own_usage_share_the_prompt() -> None:
    chunks = [chunk(index, content="a", finish="stop") for index in (0, 1, 0)]
    for sent, count in zip(chunks, (1, 7, 5), strict=True):
        sent["choices"][0]["usage"] = {"prompt_tokens": 10, "completion_tokens": count}
    together = {"choices": [chunks[1]["choices"][0], chunks[2]["choices"][0]]}
    for made in (
        assemble(*chunks),
        assemble(together),
        assemble(*chunks, {"choices": [], "usage": {"total_tokens": 1}}),
    ):
        assert made.usage == made.completion().usage
        assert made.usage is not None
        assert (made.usage.prompt_tokens, made.usage.completion_tokens, made.usage.total_tokens) == (10, 12, 22)
    reader = EventReader()
    events = [event for sent in chunks for event in reader.feed(chunk_of(msgspec.json.encode(sent)))]
    assert [event.usage for event in events if isinstance(event, UsageReported)][-1] == made.usage


def test_what_is_said_once_per_response() -> None:
    completion = assemble(
        {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": [1]},
        {
            "id": "c1",
            "created": 5,
            "model": "m",
            "system_fingerprint": "fp",
            "service_tier": "auto",
            **only(chunk(content="a")),
        },
        {
            "id": "c2",
            "created": 6,
            "model": "other",
            "service_tier": "flex",
            "obfuscation": "zz",
            **only(chunk(finish="stop")),
        },
        {"id": "c3", "choices": [], "moderation": {"flagged": False}, "citations": ["x"], "usage": USAGE},
    ).completion()
    assert (completion.id, completion.created, completion.model) == ("c1", 5, "m")
    assert completion.object == "chat.completion"
    assert completion.system_fingerprint == "fp"
    assert completion.service_tier == "flex"  # the latest: the first chunks may repeat what was requested
    assert completion.moderation == {"flagged": False}
    assert completion.extra == {"prompt_filter_results": [1], "citations": ["x"]}


def only(made: dict[str, Any]) -> dict[str, Any]:
    return {"choices": made["choices"]}


def test_unknown_fields_of_deltas_are_merged_into_the_message() -> None:
    message = spoken(
        {"images": [{"index": 0, "url": "a"}], "note": "x"},
        {"images": [{"index": 1, "url": "b"}], "note": "y", "content": "", "thought_signature": "s"},
        {"images": None, "thought_signature": "s"},
        {"thought_signature": None},
    )
    images = [{"index": 0, "url": "a"}, {"index": 1, "url": "b"}]
    assert message.extra == {"images": images, "note": "xy", "thought_signature": "s"}
    assert message.to_dict()["note"] == "xy"


def test_nothing_at_all() -> None:
    assert Assembler().completion() == Completion(object="chat.completion")
    assert Assembler().text == ""
    assert Assembler().usage is None


@each_row(
    ("chunks", "done", "broken", "says"),
    [
        ([chunk(content="a")], True, False, None),
        ([chunk(finish="stop")], True, False, None),
        ([{"choices": []}], True, False, "without a choice"),
        ([{"choices": []}], False, False, "without a choice"),
        ([], True, False, "nothing but [DONE]"),
        ([chunk(content="a", finish="stop")], False, False, None),
        ([chunk(content="a"), chunk(1, finish="stop")], False, False, None),
        ([chunk(content="a")], False, False, "without a finish_reason and without [DONE]"),
        ([chunk(content="a", finish="")], False, False, "without a finish_reason"),
        ([], False, False, "before its first event"),
        ([chunk(content="a", finish="stop")], False, True, "broke off"),
        ([chunk(content="a")], False, True, "broke off"),
        ([], False, True, "broke off"),
    ],
)
def test_the_verdict(chunks: list[dict[str, Any]], done: bool, broken: bool, says: str | None) -> None:
    error = assemble(*chunks).verdict(done=done, broken=broken)
    if says is None:
        assert error is None
    else:
        assert type(error) is StreamTruncatedError
        assert says in str(error)
        assert error.partial_text == assemble(*chunks).text


@each_row(
    ("so_far", "new", "merged"),
    [
        (None, "a", "a"),
        ("a", None, "a"),
        (None, None, None),
        ("a", "b", "ab"),
        (1, 2, 2),
        ("a", 2, 2),
        ([1], [2], [1, 2]),
        (
            [{"type": "thinking", "thinking": "a"}],
            [{"type": "thinking", "thinking": "b"}],
            [{"type": "thinking", "thinking": "ab"}],
        ),
        (
            [{"type": "thinking", "thinking": "a", "signature": "s"}],
            [{"type": "thinking", "thinking": "b"}],
            [{"type": "thinking", "thinking": "a", "signature": "s"}, {"type": "thinking", "thinking": "b"}],
        ),
        ([{"index": 0, "a": "x"}], [{"index": 0, "a": "y"}], [{"index": 0, "a": "xy"}]),
        ([{"index": 0, "a": "x"}], [{"index": 1, "a": "y"}], [{"index": 0, "a": "x"}, {"index": 1, "a": "y"}]),
        (
            [{"index": 0, "type": "t"}],
            [{"index": 0, "type": "u"}],
            [{"index": 0, "type": "t"}, {"index": 0, "type": "u"}],
        ),
        ([{"a": "x"}], [{"a": "y"}], [{"a": "x"}, {"a": "y"}]),
        (["x"], [{"index": 0}], ["x", {"index": 0}]),
        ([], [{"index": 0}], [{"index": 0}]),
        ({"a": "x", "b": 1}, {"a": "y", "c": []}, {"a": "xy", "b": 1, "c": []}),
        ({"id": "x", "type": "t"}, {"id": "y", "type": "t"}, {"id": "y", "type": "t"}),
        ({"signature": "x", "format": "f"}, {"signature": "y", "format": "f"}, {"signature": "y", "format": "f"}),
        ({"thoughtSignature": "x"}, {"thoughtSignature": "x"}, {"thoughtSignature": "x"}),
        ({"id": "x"}, {"id": None}, {"id": "x"}),
        ({"a": 1}, "b", "b"),
    ],
)
def test_merging(so_far: object, new: object, merged: object) -> None:
    value = GrowingValue()
    value.add(so_far)
    early = value.value()
    value.add(new)
    assert value.value() == merged
    assert early == so_far, "what was handed out stays as it was"


@pytest.mark.slow
@given(st.text(max_size=30), st.lists(st.integers(min_value=0), max_size=8))
def test_any_cut_of_text_and_arguments_gives_the_same_message(text: str, where: list[int]) -> None:
    ends = [*sorted(place % (len(text) + 1) for place in where), len(text)]
    parts = [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    message = spoken(
        *({"content": part, "reasoning": part, "refusal": part} for part in parts),
        *(
            {"tool_calls": [call(0, "a" if not place else None, "f" if not place else None, part)]}
            for place, part in enumerate(parts)
        ),
    )
    assert (message.content or "", message.reasoning_text or "", message.refusal or "") == (text, text, text)
    assert message.tool_calls is not None
    assert [(made.id, made.function.name, made.function.arguments) for made in message.tool_calls] == [("a", "f", text)]


@each_row("kind", [[], {}, ["text"], 1, None])
def test_parts_whose_type_is_no_text_are_kept_as_they_are(kind: object) -> None:
    parts = [{"type": kind, "text": "a"}, {"type": kind, "text": "b"}]
    message = spoken({"content": parts, "own": parts})
    assert message.content_parts == parts
    assert message.extra == {"own": parts}
