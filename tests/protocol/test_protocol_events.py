"""Chunks to events: every kind is distinguished, every part completed once, in the order of the wire."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.support.tables import each_row

from chatscope.protocol.chunk_decoder import ChunkDecoder
from chatscope.protocol.events import (
    ChoiceFinished,
    EventReader,
    ReasoningDelta,
    ReasoningDone,
    RefusalDelta,
    RefusalDone,
    StreamEvent,
    TextDelta,
    TextDone,
    ToolArgumentsDelta,
    ToolCallDone,
    ToolCallStarted,
    UsageReported,
)
from chatscope.protocol.response import Chunk, CustomCall, FunctionCall, ToolCall
from chatscope.protocol.usage import Usage


def chunk_of(data: bytes) -> Chunk:
    """Return the chunk that an event's data holds."""
    return ChunkDecoder().decode(data)[0]


def delta(finish_reason: str | None = None, index: int = 0, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": fields, "finish_reason": finish_reason}]}


def call(index: int | None = 0, arguments: str | None = None, **fields: Any) -> dict[str, Any]:
    function = {"arguments": arguments} | ({"name": fields.pop("name")} if "name" in fields else {})
    return delta(tool_calls=[fields | {"index": index, "function": function}])


def events(*chunks: dict[str, Any]) -> list[StreamEvent]:
    reader = EventReader()
    seen: list[StreamEvent] = []
    for chunk in chunks:
        seen += reader.feed(chunk_of(msgspec.json.encode(chunk)))
    return [*seen, *reader.end()]


def test_text() -> None:
    assert events(
        delta(role="assistant", content=""), delta(content="Hel"), delta(content="lo"), delta("stop"), {"choices": []}
    ) == [
        TextDelta(0, "Hel"),
        TextDelta(0, "lo"),
        TextDone(0, "Hello"),
        ChoiceFinished(0, "stop"),
    ]


@each_row(
    "spoken",
    [
        {"reasoning_content": "Hm."},
        {"reasoning": "Hm."},
        {"reasoning_details": [{"type": "reasoning.text", "text": "Hm."}]},
        {"reasoning": "Hm.", "reasoning_details": [{"type": "reasoning.text", "text": "Hm."}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]},
    ],
)
def test_reasoning_under_each_of_its_names(spoken: dict[str, Any]) -> None:
    assert events(delta(**spoken), delta(content="Yes."), delta("stop")) == [
        ReasoningDelta(0, "Hm."),
        ReasoningDone(0, "Hm."),
        TextDelta(0, "Yes."),
        TextDone(0, "Yes."),
        ChoiceFinished(0, "stop"),
    ]


def test_kinds_that_take_turns_come_in_runs() -> None:
    runs = [event for event in events(
        delta(reasoning="a"), delta(content="b"), delta(reasoning="c"), call(id="1", name="f", arguments="{}"),
        delta(content="d"), delta("stop"),
    ) if isinstance(event, TextDone | ReasoningDone | ToolCallDone)]  # fmt: skip
    assert runs == [
        ReasoningDone(0, "a"),
        TextDone(0, "b"),
        ReasoningDone(0, "c"),
        TextDone(0, "d"),
        ToolCallDone(0, 0, ToolCall(id="1", function=FunctionCall(name="f", arguments="{}"))),
    ]


def test_a_refusal() -> None:
    assert events(delta(refusal="I w"), delta(refusal="ill not."), delta("stop")) == [
        RefusalDelta(0, "I w"),
        RefusalDelta(0, "ill not."),
        RefusalDone(0, "I will not."),
        ChoiceFinished(0, "stop"),
    ]


def test_tool_calls_that_take_turns() -> None:
    first = ToolCall(id="1", function=FunctionCall(name="f", arguments='{"a":1}'))
    second = ToolCall(id="2", function=FunctionCall(name="g", arguments="{}"))
    assert events(
        call(0, "", id="1", type="function", name="f"),
        call(0, '{"a"'),
        call(1, "{", id="2", name="g"),
        call(0, ":1}"),
        call(1, "}"),
        delta("tool_calls"),
    ) == [
        ToolCallStarted(0, 0, "1", "f"),
        ToolArgumentsDelta(0, 0, '{"a"'),
        ToolCallStarted(0, 1, "2", "g"),
        ToolArgumentsDelta(0, 1, "{"),
        ToolArgumentsDelta(0, 0, ":1}"),
        ToolArgumentsDelta(0, 1, "}"),
        ToolCallDone(0, 0, first),
        ToolCallDone(0, 1, second),
        ChoiceFinished(0, "tool_calls"),
    ]


def test_tool_calls_without_index_and_with_the_arguments_before_the_name() -> None:
    assert events(
        call(None, '{"a":', id="1"), call(None, "1}", name="f"), call(None, "{}", name="g", id="2"), delta("tool_calls")
    ) == [
        ToolCallStarted(0, 0, "1", ""),
        ToolArgumentsDelta(0, 0, '{"a":'),
        ToolArgumentsDelta(0, 0, "1}"),
        ToolCallStarted(0, 1, "2", "g"),
        ToolArgumentsDelta(0, 1, "{}"),
        ToolCallDone(0, 0, ToolCall(id="1", function=FunctionCall(name="f", arguments='{"a":1}'))),
        ToolCallDone(0, 1, ToolCall(id="2", function=FunctionCall(name="g", arguments="{}"))),
        ChoiceFinished(0, "tool_calls"),
    ]


def test_a_custom_tool_and_the_deprecated_function_call() -> None:
    part = {"index": 0, "id": "1", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}
    assert events(delta(tool_calls=[part]), delta("tool_calls")) == [
        ToolCallStarted(0, 0, "1", "sql"),
        ToolArgumentsDelta(0, 0, "SELECT 1"),
        ToolCallDone(0, 0, ToolCall(id="1", type="custom", custom=CustomCall(name="sql", input="SELECT 1"))),
        ChoiceFinished(0, "tool_calls"),
    ]
    assert events(
        delta(function_call={"name": "f", "arguments": "{"}), delta("function_call", function_call={"arguments": "}"})
    ) == [
        ToolCallStarted(0, 0, "", "f"),
        ToolArgumentsDelta(0, 0, "{"),
        ToolArgumentsDelta(0, 0, "}"),
        ToolCallDone(0, 0, ToolCall(function=FunctionCall(name="f", arguments="{}"))),
        ChoiceFinished(0, "function_call"),
    ]


def test_choices_are_told_apart_and_end_on_their_own() -> None:
    assert events(
        delta(content="a", index=0), delta(content="b", index=1), delta("stop", index=1), delta(content="c", index=0)
    ) == [
        TextDelta(0, "a"),
        TextDelta(1, "b"),
        TextDone(1, "b"),
        ChoiceFinished(1, "stop"),
        TextDelta(0, "c"),
        TextDone(0, "ac"),
        ChoiceFinished(0, None),
    ]


def test_a_finish_that_is_repeated_counts_once() -> None:
    assert events(delta("stop", content="a"), delta("stop"), delta()) == [
        TextDelta(0, "a"),
        TextDone(0, "a"),
        ChoiceFinished(0, "stop"),
    ]


def test_nothing_is_lost_of_a_choice_that_goes_on_after_its_finish() -> None:
    assert events(delta("stop", content="a"), delta("stop", content="b"), call(id="1", name="f"), call(0, "{}")) == [
        TextDelta(0, "a"),
        TextDone(0, "a"),
        ChoiceFinished(0, "stop"),
        TextDelta(0, "b"),
        TextDone(0, "b"),
        ChoiceFinished(0, "stop"),
        ToolCallStarted(0, 0, "1", "f"),
        ToolArgumentsDelta(0, 0, "{}"),
        ToolCallDone(0, 0, ToolCall(id="1", function=FunctionCall(name="f", arguments="{}"))),
        ChoiceFinished(0, None),
    ]


def test_a_call_that_goes_on_after_it_was_complete_is_completed_again() -> None:
    seen = events(call(0, "{", id="1", name="f"), delta("tool_calls"), call(0, "}"))
    done = [event.tool_call.function.arguments for event in seen if isinstance(event, ToolCallDone)]
    assert done == ["{", "{}"]


def test_usage_wherever_it_comes() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    told = UsageReported(Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3))
    assert events({"choices": [], "usage": usage}, {"choices": [], "usage": usage}) == [told]
    assert events({"choices": [], "x_groq": {"usage": usage}}, {"choices": [], "x_groq": {"id": "r"}}) == [told]
    more = usage | {"total_tokens": 4}
    assert events(delta(content="a") | {"usage": usage}, {"choices": [], "usage": more})[1:3] == [
        told,
        UsageReported(Usage(prompt_tokens=1, completion_tokens=2, total_tokens=4)),
    ]


def test_a_whole_completion_in_one_event() -> None:
    message = {"role": "assistant", "content": "Hi", "tool_calls": [{"id": "1", "function": {"name": "f"}}]}
    completion = {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    assert events(completion) == [
        TextDelta(0, "Hi"),
        TextDone(0, "Hi"),
        ToolCallStarted(0, 0, "1", "f"),
        ToolCallDone(0, 0, ToolCall(id="1", function=FunctionCall(name="f", arguments=""))),
        ChoiceFinished(0, "stop"),
    ]


def test_events_are_values() -> None:
    event = TextDelta(0, "a")
    with pytest.raises(AttributeError):
        event.text = "b"  # type: ignore[misc]
    assert {event, TextDelta(0, "a")} == {event}
