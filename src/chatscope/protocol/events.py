"""Converts chunks to events: what each chunk adds, by kind, and which parts are complete. No I/O.

A run is text of one kind within one choice. It is complete when another kind begins or the choice ends. A tool call is
complete when its choice ends, since servers may interleave the arguments of several calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from chatscope.protocol.response import Chunk, ChunkChoice, Delta, FinishReason, ToolCall, ToolCallDelta
from chatscope.protocol.stream_usage import StreamUsage
from chatscope.protocol.tool_calls import ToolCalls, text_part
from chatscope.protocol.usage import Usage


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A part of the response's text."""

    choice: int
    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A part of the reasoning, under whichever name the server sends it."""

    choice: int
    text: str


@dataclass(frozen=True, slots=True)
class RefusalDelta:
    """A part of a refusal."""

    choice: int
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallStarted:
    """A tool call has started. Its id and name may be incomplete so far."""

    choice: int
    call: int
    """Its place among the calls of the choice."""
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolArgumentsDelta:
    """A part of a tool call's arguments, or of a custom tool's input."""

    choice: int
    call: int
    text: str


@dataclass(frozen=True, slots=True)
class TextDone:
    """A run of text is complete. A choice has several runs if there is reasoning or a tool call between them."""

    choice: int
    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDone:
    """A run of reasoning is complete."""

    choice: int
    text: str


@dataclass(frozen=True, slots=True)
class RefusalDone:
    """A refusal is complete."""

    choice: int
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDone:
    """A tool call is complete."""

    choice: int
    call: int
    tool_call: ToolCall


@dataclass(frozen=True, slots=True)
class ChoiceFinished:
    """A choice is complete; the reason is `None` if the server sent none.

    If the server continues the choice anyway, more events follow, and it finishes again.
    """

    choice: int
    reason: FinishReason | None


@dataclass(frozen=True, slots=True)
class UsageReported:
    """The server has reported the usage. Each report replaces the one before."""

    usage: Usage


StreamEvent: TypeAlias = (
    TextDelta
    | ReasoningDelta
    | RefusalDelta
    | ToolCallStarted
    | ToolArgumentsDelta
    | TextDone
    | ReasoningDone
    | RefusalDone
    | ToolCallDone
    | ChoiceFinished
    | UsageReported
)

_TextKind: TypeAlias = type[TextDelta] | type[ReasoningDelta] | type[RefusalDelta]
_DONE: Final[dict[_TextKind, type[TextDone | ReasoningDone | RefusalDone]]] = {
    TextDelta: TextDone,
    ReasoningDelta: ReasoningDone,
    RefusalDelta: RefusalDone,
}


class EventReader:
    """Converts the chunks of one response, in order, to events."""

    __slots__ = ("_choices", "_usage")

    def __init__(self) -> None:
        self._choices: dict[int, _ChoiceEvents] = {}
        self._usage = StreamUsage()

    def feed(self, chunk: Chunk) -> Iterator[StreamEvent]:
        """Yield the events for what a chunk adds and completes."""
        for part in chunk.choices:
            choice = self._choices.get(part.index)
            if choice is None:
                choice = self._choices[part.index] = _ChoiceEvents(part.index)
            yield from choice.feed(part)
        if chunk.usage is not None:
            before = self._usage.total()
            self._usage.add(chunk)
            usage = self._usage.total()
            if usage is not None and usage != before:
                yield UsageReported(usage)

    def end(self) -> Iterator[StreamEvent]:
        """Yield the events for everything that the end of the response completes."""
        for choice in self._choices.values():
            yield from choice.end(None)


class _ChoiceEvents:
    """One choice: the run of text that is open, and its tool calls."""

    __slots__ = ("_calls", "_complete_calls", "_finished", "_index", "_kind", "_text_parts")

    def __init__(self, index: int) -> None:
        self._index = index
        self._kind: _TextKind | None = None
        self._text_parts: list[str] = []
        self._calls = ToolCalls()
        self._complete_calls = 0  # how many calls, from the first, have been reported as complete
        self._finished = False

    def feed(self, part: ChunkChoice) -> Iterator[StreamEvent]:
        delta = part.delta
        if text := delta.reasoning:
            yield from self._run(ReasoningDelta, text)
        if text := delta.content:
            yield from self._run(TextDelta, text)
        if text := delta.refusal:
            yield from self._run(RefusalDelta, text)
        if call_parts := _call_parts(delta):
            yield from self._add_calls(call_parts)
        if part.finish_reason:
            yield from self.end(part.finish_reason)

    def end(self, reason: str | None) -> Iterator[StreamEvent]:
        if self._finished:
            return  # several servers repeat it
        self._finished = True
        yield from self._close_run()
        for place in range(self._complete_calls, len(self._calls)):
            yield ToolCallDone(self._index, place, self._calls[place].call())
        self._complete_calls = len(self._calls)
        yield ChoiceFinished(self._index, reason)

    def _run(self, kind: _TextKind, text: str) -> Iterator[StreamEvent]:
        self._finished = False
        if self._kind is not kind:
            yield from self._close_run()
            self._kind = kind
        self._text_parts.append(text)
        yield kind(self._index, text)

    def _close_run(self) -> Iterator[StreamEvent]:
        if self._kind is not None:
            yield _DONE[self._kind](self._index, "".join(self._text_parts))
            self._kind = None
            self._text_parts.clear()

    def _add_calls(self, parts: list[ToolCallDelta]) -> Iterator[StreamEvent]:
        yield from self._close_run()
        self._finished = False
        started = len(self._calls)
        for part, place in zip(parts, self._calls.add(parts), strict=True):
            self._complete_calls = min(self._complete_calls, place)
            if place == started:
                started += 1
                yield ToolCallStarted(self._index, place, self._calls[place].id, self._calls[place].name)
            if text := text_part(part):
                yield ToolArgumentsDelta(self._index, place, text)


def _call_parts(delta: Delta) -> list[ToolCallDelta]:
    """Return the parts of tool calls; the deprecated `function_call` is a call without an id."""
    if delta.function_call is not None:
        return [ToolCallDelta(function=delta.function_call)]
    return delta.tool_calls or []
