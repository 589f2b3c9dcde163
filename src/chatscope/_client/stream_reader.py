"""StreamReader: reads the streamed response to one request, attempt by attempt, for a `ChatStream` or for a task.

Here: sending, reading within the deadlines, and closing. Not here: when a stream is over (`stream_state`), and the
public view of it (`stream`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import anyio

from chatscope._client.attempt_observer import NO_OBSERVER, AttemptObserver
from chatscope._client.request import ClientRequest
from chatscope._client.stream_state import StreamState
from chatscope._limits.timeouts import fail_at
from chatscope.errors import ChatError, Phase
from chatscope.protocol.response import Chunk, Completion
from chatscope.protocol.stream_decoder import StreamDecoder


class StreamReader:
    """Reads the streamed response of a request's latest attempt.

    Args:
        request: the request.

    Attributes:
        request: as given.
        state: the state of the latest attempt's stream.
        chunks: the chunks that have arrived and are not delivered yet.
    """

    __slots__ = ("_has_begun", "_is_closed", "chunks", "request", "state")

    def __init__(self, request: ClientRequest) -> None:
        self.request = request
        self.chunks: deque[Chunk] = deque()
        self.state = StreamState(StreamDecoder())
        self._has_begun = False
        self._is_closed = False

    @property
    def completion(self) -> Completion:
        """What has arrived so far, assembled."""
        request = self.request
        completion = self.state.decoder.assembler.completion(request.record.request_id)
        completion.status, completion.headers = request.record.status, request.headers
        return completion

    @property
    def text_parts(self) -> list[str]:
        """The first choice's text: a list that grows. A new attempt has a new list."""
        return self.state.decoder.assembler.text_parts

    @property
    def token_ns(self) -> Sequence[int]:
        """For each chunk with output of the model, when it was read (`time.perf_counter_ns`)."""
        return self.state.decoder.token_ns

    @property
    def has_output(self) -> bool:
        """Whether the model has written anything."""
        return self.state.has_output

    def discard(self) -> None:
        """Discard what has arrived, before another attempt."""
        self.state = StreamState(StreamDecoder())
        self.chunks.clear()

    async def read_to_output(self) -> None:
        """Send the request and read up to the first output, and keep its chunks. The caller holds a permit.

        If cancelled, the connection is closed.

        Raises:
            ChatError: the attempt failed before any output.
        """
        try:
            await self._begin()
            if self.state.error is not None and not self.state.has_output:
                await self._read_tail()
                raise self.state.error
        except BaseException as error:
            await self.abandon(error)
            raise

    async def read_to_end(self, observer: AttemptObserver = NO_OBSERVER) -> Completion:
        """Make one attempt: send the request and read the whole response, without keeping chunks.

        The caller holds a permit. If cancelled, the connection is closed.

        Args:
            observer: called at the first output, and after each read with text.

        Raises:
            ChatError: the stream's error.
        """
        try:
            await self._begin()
            if self.state.has_output:
                observer.on_first_output()
            observer.on_text(self.text_parts)
            await self._read_rest(observer)
            if self.state.error is not None:
                raise self.state.error
        except BaseException as error:
            await self.abandon(error)
            raise
        await self.request.close(complete=True)
        return self.completion

    async def next_chunk(self) -> Chunk | None:
        """Return the next chunk, `None` after the last. If cancelled while waiting, the connection is closed.

        Raises:
            ChatError: the stream's error. It is raised once.
        """
        if self.chunks:
            return self.chunks.popleft()
        if self._is_closed:
            return None
        deadlines, state = self.request.deadlines, self.state
        has_deadlines = deadlines.limits_chunks  # usually not, and each deadline takes a call
        if has_deadlines:
            deadlines.on_chunk()  # a slow consumer is not a silent server
        try:
            while not (self.chunks or state.is_over):
                deadline = None
                if has_deadlines:
                    deadline = deadlines.next_chunk() if state.is_open else deadlines.total
                if deadline is None:
                    await self._read_once("idle")
                else:
                    with fail_at(deadline):
                        await self._read_once("idle")
            if self._is_closed:  # closed by another task while this one waited
                self.chunks.clear()
                return None
            if self.chunks:
                return self.chunks.popleft()
            if state.error is not None:
                raise state.error
        except ChatError as error:
            if self._is_closed:
                return None
            self._is_closed = True
            await self.abandon(error)
            raise
        self._is_closed = True
        await self.request.close(complete=True)
        return None

    async def abandon(self, error: BaseException) -> None:
        """Close a response that failed or was cancelled, and add what has arrived to the error.

        Takes at most `CLOSE_GRACE` seconds, even if cancelled.
        """
        self.state.give_up()
        if isinstance(error, ChatError):
            self.annotate(error)
        self.request.on_failure(error)
        await self.request.close()

    async def aclose(self) -> None:
        """Close the response and end every `next_chunk`. Closing twice does nothing."""
        self._is_closed = True
        self.state.give_up()
        self.chunks.clear()
        await self.request.close()

    def annotate(self, error: ChatError) -> None:
        """Add the request's data and the partial text to an error."""
        error.partial_text = error.partial_text or self.state.decoder.assembler.text
        self.request.annotate(error)

    async def _begin(self) -> None:
        if self._has_begun:
            self.discard()
        self._has_begun = True
        request = self.request
        deadlines = request.deadlines
        with fail_at(deadlines.on_attempt()):
            await request.send()
            decoder = StreamDecoder(request.headers.get("content-type", ""), secret=request.secret)
            state = self.state = StreamState(decoder, request.prepared.choices)
            while state.is_open and not decoder.token_ns:
                await self._read_once("first_token")
        while not (decoder.token_ns or state.is_over or decoder.error is not None):
            await self._read_once("idle")  # finished without output: that limit no longer counts
        if decoder.error is None:
            request.on_first_output()
        deadlines.on_chunk()

    async def _read_tail(self) -> None:
        while not self.state.is_over:
            await self._read_once("idle")

    async def _read_rest(self, observer: AttemptObserver) -> None:
        state, deadlines = self.state, self.request.deadlines
        self.chunks.clear()
        state.decoder.builds_text_chunks = False
        with fail_at(deadlines.total):
            while not state.is_over:
                if not state.is_open:
                    await self._read_once("idle")
                elif deadlines.timeouts.idle is None:
                    await self._pump(observer)
                else:
                    await self._read_while_open(observer)
                self.chunks.clear()
                observer.on_text(self.text_parts)

    async def _read_while_open(self, observer: AttemptObserver) -> None:
        """Read as long as the stream is open, and enforce the idle limit between chunks."""
        state, deadlines = self.state, self.request.deadlines
        with fail_at(deadlines.next_chunk()) as deadline:
            while state.is_open:
                await self._read_once("idle")
                if self.chunks:
                    self.chunks.clear()
                    observer.on_text(self.text_parts)
                    deadlines.on_chunk()
                    deadline.move(deadlines.next_chunk())

    async def _read_once(self, phase: Phase) -> None:
        """Read once, within the time that the state allows, and pass the result to the state."""
        request, state = self.request, self.state
        body = request.stream
        data = None
        try:
            # Not `request.receive`: a coroutine less for every chunk.
            if state.is_open:
                data = await body.__anext__()
            else:
                with anyio.CancelScope(deadline=self._patience_ends()):
                    data = await body.__anext__()
        except StopAsyncIteration:
            pass
        except Exception as error:  # noqa: BLE001 - raised again, unless it only ends the stream
            self._on_failure(error, phase)
            return
        request.read_ns = at_ns = body.read_ns
        self.chunks += state.end(at_ns) if data is None else state.feed(data, at_ns)
        if state.is_over:
            request.on_usage(state.decoder.assembler.usage)

    def _on_failure(self, error: Exception, phase: Phase) -> None:
        """Pass an error of the HTTP library to the state. It is raised unless it only means that the stream ended."""
        request, state = self.request, self.state
        try:
            request.raise_translated(error, phase)
        except ChatError as failure:
            self.chunks += state.on_failure(failure, request.read_ns)
        request.on_usage(state.decoder.assembler.usage)

    def _patience_ends(self) -> float:
        """Return when to stop waiting for the tail of a finished or failed stream, never after the call's deadline."""
        now = anyio.current_time()
        ends = now + (self.state.patience(now) or 0.0)
        deadline = self.request.retrier.deadline
        return ends if deadline is None else min(ends, deadline.finish_by)

    async def _pump(self, observer: AttemptObserver) -> None:
        """Read as long as the stream is open, without waking a task for every read."""
        request, state = self.request, self.state
        body = request.stream
        parts = self.text_parts
        feed_text = state.decoder.feed_text  # while the stream is open, text alone does not change its state

        def take(data: bytes) -> bool:
            at_ns = body.read_ns
            if feed_text(data, at_ns):
                observer.on_text(parts)
                return False
            if state.feed(data, at_ns):
                observer.on_text(parts)
            return not state.is_open

        try:
            if not await request.pump(take):
                state.end(request.read_ns)
        except ChatError as error:
            state.on_failure(error, request.read_ns)
        if state.is_over:
            request.on_usage(state.decoder.assembler.usage)
