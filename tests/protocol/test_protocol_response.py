"""The structs' own properties, and the way back to JSON."""

from __future__ import annotations

from typing import Any

import msgspec
from tests.support.tables import each_row

from chatscope.protocol.chunk_decoder import ChunkDecoder
from chatscope.protocol.decode import completion_from
from chatscope.protocol.response import (
    Choice,
    Chunk,
    ChunkChoice,
    Completion,
    CompletionMessage,
    CustomCall,
    Delta,
    FunctionCall,
    ToolCall,
)
from chatscope.protocol.usage import CompletionTokensDetails, PromptTokensDetails, Usage, add_usage, merge_usage


def chunk_of(data: bytes) -> Chunk:
    """Return the chunk that an event's data holds."""
    return ChunkDecoder().decode(data)[0]


def test_tokens_that_the_details_tell() -> None:
    assert (Usage().cached_tokens, Usage().reasoning_tokens) == (0, 0)
    usage = Usage(
        prompt_tokens_details=PromptTokensDetails(cached_tokens=3),
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=4),
    )
    assert (usage.cached_tokens, usage.reasoning_tokens) == (3, 4)


def test_every_detail_of_usage_has_its_name() -> None:
    prompt = {"cached_tokens": 1, "cache_write_tokens": 2, "audio_tokens": 3, "image_tokens": 4, "text_tokens": 5}
    completion = {
        "reasoning_tokens": 1,
        "audio_tokens": 2,
        "accepted_prediction_tokens": 3,
        "rejected_prediction_tokens": 4,
        "text_tokens": 5,
    }
    usage = msgspec.convert({"prompt_tokens_details": prompt, "completion_tokens_details": completion}, Usage)
    assert msgspec.to_builtins(usage.prompt_tokens_details) == prompt
    assert msgspec.to_builtins(usage.completion_tokens_details) == completion


def test_the_sum_of_what_several_requests_used() -> None:
    one = Usage(
        prompt_tokens=1,
        completion_tokens=2,
        total_tokens=3,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=1, audio_tokens=4),
    )
    other = Usage(
        prompt_tokens=10,
        completion_tokens=20,
        total_tokens=30,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=10),
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=5),
    )
    assert add_usage(one) is one
    for unknown in ([], [None], [None, one], [one, None, other]):
        assert add_usage(*unknown) is None, unknown
    assert add_usage(one, other) == Usage(
        prompt_tokens=11,
        completion_tokens=22,
        total_tokens=33,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=11, audio_tokens=4),
        completion_tokens_details=None,  # those of one request are unknown
    )
    assert add_usage(Usage(total_tokens=1), Usage(total_tokens=2)) == Usage(total_tokens=3)


@each_row(
    ("delta", "reasoning"),
    [
        ({}, None),
        ({"reasoning_content": "a"}, "a"),
        ({"reasoning": "b"}, "b"),
        ({"reasoning_content": "a", "reasoning": "b"}, "a"),
        ({"reasoning_content": "", "reasoning": "b"}, "b"),
        ({"reasoning": "b", "reasoning_details": [{"text": "c"}]}, "b"),
        ({"reasoning_details": [{"text": "c"}, {"summary": "d"}, "stranger", {"data": "encrypted"}]}, "cd"),
        ({"reasoning_details": [{"text": None, "data": "encrypted"}]}, None),
        ({"reasoning_details": []}, None),
    ],
)
def test_reasoning_under_its_three_names(delta: dict[str, Any], reasoning: str | None) -> None:
    assert msgspec.convert(delta, Delta).reasoning == reasoning
    assert msgspec.convert(delta, CompletionMessage).reasoning == reasoning


def test_the_text_of_a_chunk_is_the_first_choice_s() -> None:
    other = ChunkChoice(index=1, delta=Delta(content="other"))
    assert Chunk().text == ""
    assert Chunk(choices=[other]).text == ""
    assert Chunk(choices=[other, ChunkChoice(delta=Delta(content="a"))]).text == "a"
    assert Chunk(choices=[ChunkChoice()]).text == ""


def test_unknown_fields_of_a_chunk() -> None:
    sent = {"choices": [{"delta": {"content": "a", "token_id": 5}}], "provider": "p", "x": {"y": 1}}
    chunk = chunk_of(msgspec.json.encode(sent))
    assert chunk.extra == {"provider": "p", "x": {"y": 1}}
    assert chunk.to_dict() == sent


def test_unknown_fields_go_by_the_names_on_the_wire() -> None:
    sent = {"reasoning": "r", "reasoning_text": 2, "extra": 3, "raw": 4}
    message = completion_from({"choices": [{"message": sent}]}).message
    assert message.extra == {"reasoning_text": 2, "extra": 3, "raw": 4}


def test_the_parts_of_content_go_back_as_they_came() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "t"}]}, {"type": "text", "text": "a"}]
    message = completion_from({"choices": [{"message": {"content": parts}}]}).message
    assert (message.content, message.reasoning, message.reasoning_content) == ("a", "t", None)
    assert message.to_dict() == {"role": "assistant", "content": parts}


def test_fields_named_like_ours_are_not_mixed_up_with_them() -> None:
    sent = {
        "request_id": "theirs",
        "raw": "theirs",
        "extra": {"theirs": 1},
        "choices": [{"message": {"content": "a", "extra": "theirs"}}],
    }
    completion = completion_from(sent)
    completion.request_id = "ours"
    assert completion.extra == {"request_id": "theirs", "raw": "theirs", "extra": {"theirs": 1}}
    assert completion.message.extra == {"extra": "theirs"}
    assert completion.to_dict()["request_id"] == "theirs"
    chunk = chunk_of(b'{"raw":"theirs","choices":[]}')
    assert chunk.raw == b'{"raw":"theirs","choices":[]}'
    assert chunk.extra == {"raw": "theirs"}


def test_a_message_can_be_sent_back() -> None:
    assert CompletionMessage().to_dict() == {"role": "assistant", "content": None}
    assert CompletionMessage(role="assistant", content="a").to_dict() == {"role": "assistant", "content": "a"}
    message = CompletionMessage(
        content="a",
        refusal="r",
        reasoning_content="c",
        reasoning_text="t",
        reasoning_details=[{"type": "x"}],
        annotations=[],
        audio={"id": "a"},
        extra={"images": []},
        tool_calls=[
            ToolCall(id="1", function=FunctionCall(name="f", arguments="{}")),
            ToolCall(id="2", type="custom", custom=CustomCall(name="g", input="text")),
        ],
    )
    assert message.to_dict() == {
        "role": "assistant",
        "content": "a",
        "refusal": "r",
        "reasoning_content": "c",
        "reasoning": "t",
        "reasoning_details": [{"type": "x"}],
        "annotations": [],
        "audio": {"id": "a"},
        "images": [],
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            {"id": "2", "type": "custom", "custom": {"name": "g", "input": "text"}},
        ],
    }


def test_two_reports_of_usage_are_merged() -> None:
    def usage(prompt: int, completion: int, total: int | None = None, cached: int | None = None) -> Usage:
        details = None if cached is None else PromptTokensDetails(cached_tokens=cached)
        total = prompt + completion if total is None else total
        return Usage(
            prompt_tokens=prompt, completion_tokens=completion, total_tokens=total, prompt_tokens_details=details
        )

    assert merge_usage(None, None) is None
    assert merge_usage(usage(1, 1), None) == merge_usage(None, usage(1, 1)) == usage(1, 1)
    assert merge_usage(usage(10, 0, cached=4), usage(0, 5)) == usage(10, 5, cached=4), "told in halves"
    assert merge_usage(usage(10, 3), usage(10, 5, cached=2)) == usage(10, 5, cached=2), "cumulative"
    assert merge_usage(usage(10, 3, cached=2), usage(0, 0, cached=0)) == usage(10, 3, cached=2), "zeros"
    assert merge_usage(usage(10, 3), usage(10, 5, total=20)) == usage(10, 5, total=20), "with hidden reasoning"


def test_a_message_survives_the_way_there_and_back() -> None:
    sent = {
        "role": "assistant",
        "content": None,
        "function_call": {"name": "f", "arguments": "{}"},
        "tool_calls": [{"id": "1", "type": "custom", "custom": {"name": "g", "input": ""}}],
        "provider_field": {"a": [1]},
    }
    assert completion_from({"choices": [{"message": sent}]}).message.to_dict() == sent


def test_a_tool_call_of_an_unknown_kind_keeps_its_function() -> None:
    assert CompletionMessage(tool_calls=[ToolCall(id="1", type="custom")]).to_dict()["tool_calls"] == [
        {"id": "1", "type": "custom", "function": {"name": "", "arguments": ""}}
    ]


def test_a_completion_as_json_names_nothing_of_ours() -> None:
    built = Completion(
        id="c", choices=[Choice(message=CompletionMessage(content="a"))], request_id="r", extra={"citations": [1]}
    ).to_dict()
    assert not [name for name in built if name.startswith("<")]
    assert built["id"] == "c"
    assert built["citations"] == [1]
    assert built["choices"][0]["message"] == {"role": "assistant", "content": "a"}
    assert msgspec.json.decode(msgspec.json.encode(built)) == built
