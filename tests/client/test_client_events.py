"""`stream.events()`: the events of a live response, its errors, its cancellation, and the snapshot beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from chatscope import (
    ChatClient,
    ChoiceFinished,
    EventStream,
    OutputInvalidError,
    ReasoningDelta,
    ReasoningDone,
    RetryPolicy,
    StreamEvent,
    StreamTruncatedError,
    TextDelta,
    TextDone,
    ToolArgumentsDelta,
    ToolCallDone,
    ToolCallStarted,
    UsageReported,
)
from chatscope.simulator import Reply, ToolCall, faults

if TYPE_CHECKING:
    from tests.support.memory_server import MemoryServer, Serve

ASK: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}


def client_of(server: MemoryServer) -> ChatClient:
    return ChatClient(api_key="k", transport=server, retry=RetryPolicy(attempts=1))


async def collect(events: EventStream, seen: list[StreamEvent]) -> None:
    """Keep what comes before an error, too."""
    async for event in events:
        seen.append(event)  # noqa: PERF401 - a comprehension would lose it


async def test_every_event_of_a_response_in_order(serve: Serve) -> None:
    reply = Reply("Let me see.", reasoning="Hm.", tool_calls=(ToolCall("weather", {"city": "Oslo"}),))
    async with (
        client_of(serve(reply)) as client,
        client.stream(**ASK, tools=[{"type": "function", "function": {"name": "weather"}}]) as stream,
    ):
        seen = [event async for event in stream.events()]
        completion = stream.completion
    kinds = list(dict.fromkeys(type(event) for event in seen))
    assert kinds == [
        ReasoningDelta,
        ReasoningDone,
        TextDelta,
        TextDone,
        ToolCallStarted,
        ToolArgumentsDelta,
        ToolCallDone,
        ChoiceFinished,
        UsageReported,
    ]
    assert "".join(event.text for event in seen if isinstance(event, TextDelta)) == completion.text == "Let me see."
    assert [event for event in seen if isinstance(event, TextDone)] == [TextDone(0, completion.text)]
    (done,) = (event for event in seen if isinstance(event, ToolCallDone))
    assert [done.tool_call] == completion.message.tool_calls
    assert completion.usage is not None
    assert seen[-1] == UsageReported(completion.usage)


async def test_the_snapshot_grows_with_the_events(serve: Serve) -> None:
    async with client_of(serve(Reply("one two"))) as client, client.stream(**ASK) as stream:
        events = stream.events()
        assert await anext(events) == TextDelta(0, "one")
        assert stream.completion.text.startswith("one")
        [event async for event in events]
        assert stream.completion.text == "one two"
        with pytest.raises(StopAsyncIteration):
            await anext(events)


async def test_a_stream_that_breaks_off_completes_nothing(serve: Serve) -> None:
    seen: list[StreamEvent] = []
    async with client_of(serve(faults.end(2))) as client, client.stream(**ASK) as stream:
        events = stream.events()
        with pytest.raises(StreamTruncatedError):
            await collect(events, seen)
        assert [type(event) for event in seen] == [TextDelta, TextDelta]
        with pytest.raises(StopAsyncIteration):
            await anext(events)


async def test_a_response_that_is_not_of_the_type_raises_after_its_events(serve: Serve) -> None:
    seen: list[StreamEvent] = []
    async with (
        client_of(serve(Reply("no number"))) as client,
        client.stream(**ASK, response_format=list[int]) as stream,
    ):
        with pytest.raises(OutputInvalidError):
            await collect(stream.events(), seen)
    assert ChoiceFinished(0, "stop") in seen


async def test_left_early_it_holds_nothing(serve: Serve) -> None:
    server = serve(Reply("one two three"))
    async with client_of(server) as client, client.stream(**ASK) as stream:
        assert await anext(stream.events()) == TextDelta(0, "one")
    assert server.open == 0


async def test_cancelled_while_waiting(serve: Serve) -> None:
    server = serve(Reply("one two", faults=(faults.stall(1),)))
    async with client_of(server) as client:
        with anyio.CancelScope() as scope:
            async with client.stream(**ASK) as stream:
                async for event in stream.events():
                    assert event == TextDelta(0, "one")
                    scope.cancel()
        assert scope.cancelled_caught
    assert server.open == 0
