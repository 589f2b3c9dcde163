"""ToolStream: a conversation with tools, as it happens. A plain iterator that holds no cancel scope between two events.

Not here: what a turn sends and when the conversation is over (`chatscope._conversation.loop`).
"""

from __future__ import annotations

from collections import deque
from contextlib import nullcontext
from types import TracebackType
from typing import Generic, Self, TypeAlias

from chatscope._client.event_stream import EventStream
from chatscope._client.stream import NOT_ENTERED, ChatStream
from chatscope._client.turns import Turns
from chatscope._conversation.loop import RunResult, StepDone, ToolResult
from chatscope.errors import ChatError
from chatscope.protocol.events import StreamEvent
from chatscope.protocol.response import Completion, OutputT

RunEvent: TypeAlias = StreamEvent | StepDone | ToolResult
"""What happens in a conversation with tools."""


class _TurnStream(ChatStream):
    """The stream of one turn. The conversation as a whole is one call for its observer."""

    __slots__ = ()

    def _begin(self) -> None: ...

    def _report(self, error: BaseException | None) -> None: ...


class ToolStream(Generic[OutputT]):
    """A conversation with tools, as it happens: enter it, iterate over its events, then look at `result`.

    ::

        async with client.stream_tools(model="gpt-4o-mini", messages=messages, tools=[search]) as run:
            async for event in run:
                if isinstance(event, TextDelta):
                    print(event.text, end="")
        print(run.result.usage)

    Each turn has the events of its stream, then a `StepDone` with its completion, then a `ToolResult` for each call.
    Functions run while the loop waits for the next event. They have all ended when the wait ends, so a loop may stop
    anywhere. If cancelled while waiting, the connection is closed, running calls are cancelled, and the conversation is
    over. A failure is raised after the events before it.
    """

    __slots__ = ("_completion", "_events", "_is_entered", "_is_left", "_ready", "_stream", "_turns")

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._is_entered = False
        self._is_left = False
        self._stream: ChatStream | None = None
        self._events: EventStream | None = None
        self._completion: Completion | None = None  # of the turn that has just ended
        self._ready: deque[RunEvent] = deque()

    async def __aenter__(self) -> Self:
        """Send the first request and wait for the model's first output. If cancelled, the connection is closed.

        Raises:
            ChatError: the error of the last attempt.
            RuntimeError: it was entered before.
        """
        if self._is_entered:
            raise RuntimeError("a conversation can be entered once; ask the client for another")
        self._is_entered = True
        if (observed := self._turns.request.observed) is not None:
            observed.start()
        try:
            await self._open()
        except BaseException as error:
            await self._leave(error)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # If the block is left for another reason than a cancellation, the conversation itself has not failed.
        await self._leave(None if isinstance(error, Exception) else error)

    async def aclose(self) -> None:
        """End the conversation and close its connection. Closing twice does nothing.

        This takes at most `CLOSE_GRACE` seconds, even if cancelled.
        """
        await self._leave(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RunEvent:
        """Return the next event; functions run in here. If cancelled while waiting, the conversation is over.

        Raises:
            ToolLoopError: the model still called functions after `max_turns` calls.
            OutputError: the last response does not fit the type.
            ChatError: the error of a turn.
            Exception: with `on_tool_error="raise"`, what a function raised.
            RuntimeError: it was not entered.
        """
        while not self._ready:
            if not self._is_entered:
                raise RuntimeError(NOT_ENTERED)
            if self._is_left:
                raise StopAsyncIteration
            try:
                await self._advance()
            except BaseException as error:
                if isinstance(error, ChatError):
                    self._turns.request.annotate(error)
                await self._leave(error)
                raise
        return self._ready.popleft()

    @property
    def result(self) -> RunResult[OutputT]:
        """The outcome, once all events have been read.

        Raises:
            RuntimeError: the conversation is not over, or has failed.
        """
        conversation = self._turns.conversation
        if not conversation.is_over:
            raise RuntimeError("the conversation has no result yet: read its events to the end")
        return conversation.result()

    async def _advance(self) -> None:
        """Make the next step: read an event, end a turn, make its calls, or start the next turn."""
        conversation = self._turns.conversation
        if self._stream is not None and self._events is not None:
            try:
                self._ready.append(await anext(self._events))
            except StopAsyncIteration:
                self._completion = self._stream.completion
                await self._close_turn()
                self._ready.append(StepDone(self._completion))
        elif self._completion is not None:
            completion, self._completion = self._completion, None
            conversation.add(completion)
        elif conversation.calls:
            request = self._turns.request
            with nullcontext() if request.observed is None else request.observed.current():
                self._ready.extend(await conversation.call_tools(request.deadlines.total))
        elif conversation.is_over:
            await self._leave(None)
        else:
            await self._open()

    async def _open(self) -> None:
        """Start the next turn. If cancelled, its connection is closed."""
        stream = _TurnStream(self._turns.next_request())
        await stream.__aenter__()
        self._stream = stream
        self._events = stream.events()

    async def _close_turn(self) -> None:
        stream, self._stream = self._stream, None
        self._events = None
        if stream is not None:
            await stream.aclose()

    async def _leave(self, error: BaseException | None) -> None:
        """End the conversation. Its connection is closed within `CLOSE_GRACE` seconds, even if cancelled."""
        if self._is_left:
            return
        self._is_left = True
        self._ready.clear()
        stream = self._stream
        token_ns = () if stream is None else stream.token_ns
        try:
            await self._close_turn()
        finally:
            if self._is_entered and (observed := self._turns.request.observed) is not None:
                completions = self._turns.conversation.completions
                completion = self._turns.conversation.parsed_completion() if completions else None
                observed.end(error, completion, sent_ns=self._turns.request.record.sent_ns, token_ns=token_ns)
