"""The public views of a streamed response: `ChatStream`, and `ParsedStream` for one whose text is a value of a type."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Generic, Self

from chatscope._client.call import run_call
from chatscope._client.event_stream import EventStream
from chatscope._client.request import ClientRequest
from chatscope._client.stream_reader import StreamReader
from chatscope._client.timings import Timings
from chatscope._conversation.structured_output import Output, T
from chatscope._http.base import HTTPResponse
from chatscope._validation import unknown_attribute
from chatscope.errors import ChatError, OutputError
from chatscope.protocol.response import Chunk, Completion

NOT_ENTERED: Final = "the stream is not open: use 'async with client.stream(...) as stream' around the loop"

_INSTEAD: Final = {
    "get_final_completion": "completion, after the last chunk",
    "text_stream": "chunk.text, or events()",
}
"""Names that users of other packages look for, and their equivalents here."""


class ChatStream:
    """A streamed response: enter it, iterate over it, then look at `completion`.

    ::

        async with client.stream(model="gpt-4o-mini", messages=messages) as stream:
            async for chunk in stream:
                print(chunk.text, end="")
        print(stream.completion.usage)

    Entering sends the request, retries it by the retry policy, and returns at the model's first output. From then on
    nothing is retried. Leaving closes the response. A cancellation at any point closes the connection. If the stream
    fails, iterating raises the `ChatError` after the chunks that arrived before it; `completion` then holds everything
    that has arrived.
    """

    __slots__ = ("_is_entered", "_reader", "_request", "_started_ns", "_submitted_ns")

    def __init__(self, request: ClientRequest) -> None:
        self._request = request
        self._reader = StreamReader(request)
        self._is_entered = False
        self._submitted_ns = time.perf_counter_ns()
        self._started_ns: int | None = None

    if not TYPE_CHECKING:  # a checker would take any name

        def __getattr__(self, name: str) -> object:
            """Refuse a name that does not exist. For names of other libraries, the error says what to use instead."""
            raise unknown_attribute(self, name, _INSTEAD)

    async def __aenter__(self) -> Self:
        """Send the request and wait for the model's first output. If cancelled, the connection is closed.

        Raises:
            ChatError: the error of the last attempt.
            RuntimeError: the stream was entered before.
        """
        if self._is_entered:
            raise RuntimeError("a stream can be entered once; ask the client for another")
        self._is_entered = True
        self._begin()
        try:
            await run_call(self._request, self._attempt, keeps_slot=True)
        except BaseException as error:
            if isinstance(error, ChatError):
                self._reader.annotate(error)
            self._report(error)
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, Exception):
            # Cancelled. If the block is left for any other reason, the call itself has not failed.
            self._request.on_failure(error)
            self._report(error)
        await self.aclose()

    async def aclose(self) -> None:
        """Close the response and end the iteration. Closing twice does nothing.

        This does not wait for the server, and takes at most `CLOSE_GRACE` seconds, even if cancelled.
        """
        self._request.release_slot()
        try:
            await self._reader.aclose()
        finally:
            self._report(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        """Return the next chunk. If cancelled while waiting, the connection is closed.

        Raises:
            ChatError: the stream's error.
            RuntimeError: the stream was not entered.
        """
        reader = self._reader
        if reader.chunks:
            return reader.chunks.popleft()
        if not self._is_entered:
            raise RuntimeError(NOT_ENTERED)
        try:
            chunk = await reader.next_chunk()
            if chunk is None:
                self._on_end()
        except ChatError as error:
            self._report(error)
            raise
        if chunk is None:
            self._report(None)
            raise StopAsyncIteration
        return chunk

    def events(self) -> EventStream:
        """Iterate over events: what each chunk adds, by kind, and each part that is complete.

        Read the stream either as events or as chunks. `completion` is a snapshot of what has arrived in both cases.
        """
        return EventStream(self)

    @property
    def completion(self) -> Completion:
        """What has arrived so far, assembled; after the last chunk, the whole response."""
        return self._reader.completion

    @property
    def token_ns(self) -> Sequence[int]:
        """For each chunk with output of the model, when it was read (`time.perf_counter_ns`)."""
        return self._reader.token_ns

    @property
    def has_output(self) -> bool:
        """Whether the model has written anything."""
        return self._reader.has_output

    @property
    def request_id(self) -> str | None:
        """The id that the server gave the request."""
        return self._request.record.request_id

    @property
    def response(self) -> HTTPResponse | None:
        """The response's `status` and `headers`, while it is open. Its body belongs to this stream."""
        return self._request.response

    @property
    def timings(self) -> Timings:
        """The timings so far."""
        record = self._request.record
        return Timings(
            submitted_ns=self._submitted_ns,
            started_ns=self._started_ns,
            sent_ns=record.sent_ns,
            headers_ns=record.headers_ns,
            token_ns=self.token_ns,
            finished_ns=(self._request.read_ns or None) if self._reader.state.is_over else None,
            written_ns=record.written_ns,
            connect_ns=record.connect_ns,
        )

    async def _attempt(self) -> None:
        if (acquiring := self._request.acquire_permit()) is not None:
            await acquiring
        self._started_ns = self._started_ns or time.perf_counter_ns()
        await self._reader.read_to_output()

    def _on_end(self) -> None:
        """Called once the whole response has arrived."""

    def _begin(self) -> None:
        """Report the start of the call to its observer, if there is one."""
        if (observed := self._request.observed) is not None:
            observed.start()

    def _report(self, error: BaseException | None) -> None:
        """Report the end of the call to its observer, if there is one."""
        if (observed := self._request.observed) is not None:
            sent_ns = self._request.record.sent_ns
            observed.end(error, self._reader.completion, sent_ns=sent_ns, token_ns=self.token_ns)


class ParsedStream(ChatStream, Generic[T]):
    """A streamed response of a type: iterating to the end leaves its value in `completion.parsed`.

    If the whole response is not of the type, iterating raises the `OutputError` after the last chunk.
    """

    __slots__ = ("_output", "_parsed")

    def __init__(self, request: ClientRequest, output: Output[T]) -> None:
        super().__init__(request)
        self._output = output
        self._parsed: T | None = None

    def _on_end(self) -> None:
        if not self._reader.state.decoder.done:
            return  # closed early
        try:
            self._parsed = self._output.read(self._reader.completion)
        except OutputError as error:
            self._reader.annotate(error)
            raise

    @property
    def completion(self) -> Completion[T]:
        """What has arrived so far, assembled; `parsed` is `None` until the response was iterated to its end."""
        completion = super().completion
        completion.parsed = self._parsed
        return completion
