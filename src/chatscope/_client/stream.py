"""One streamed reply, read by one consumer: attempts until the first token, then chunks to the end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import anyio

from chatscope._client.event_stream import EventStream
from chatscope._client.request import Exchange
from chatscope._client.timings import Timings
from chatscope._http.base import Reply
from chatscope._limits.concurrency import Slot, Slots
from chatscope._limits.timeouts import FINISH_GRACE, CallDeadlines, fail_at
from chatscope.errors import APIConnectionError, APITimeoutError, ChatError
from chatscope.protocol.response import Chunk, Completion
from chatscope.protocol.stream_decoder import StreamDecoder


class ChatStream:
    """A streamed reply: enter it, iterate it, then look at `completion`.

    ::

        async with client.stream(model="gpt-4o-mini", messages=messages) as stream:
            async for chunk in stream:
                print(chunk.text, end="")
        print(stream.completion.usage)

    Entering sends the request, again if the retry policy says so, and returns with the model's first output: from
    then on nothing is tried again. Leaving closes the reply. Cancelled anywhere, the connection is closed. Iterating
    raises the `ChatError` that the stream ends with, after the chunks that came before it; `completion` then holds what
    had arrived.
    """

    __slots__ = (
        "_chunks",
        "_closed",
        "_deadlines",
        "_exchange",
        "_failure",
        "_grace_ends",
        "_over",
        "_reader",
        "_slot",
        "_slots",
        "_started_ns",
        "_submitted_ns",
    )

    def __init__(self, exchange: Exchange, deadlines: CallDeadlines, slots: Slots) -> None:
        self._exchange = exchange
        self._deadlines = deadlines
        self._slots = slots
        self._slot: Slot | None = None
        self._reader = StreamDecoder()
        self._chunks: deque[Chunk] = deque()
        self._failure: ChatError | None = None  # what the stream ended with, until it is raised
        self._grace_ends = 0.0
        self._over = True  # nothing to read before it is entered
        self._closed = False
        self._submitted_ns = time.perf_counter_ns()
        self._started_ns: int | None = None

    async def __aenter__(self) -> Self:
        """Send the request and wait for the model's first output.

        Raises:
            ChatError: what the last attempt failed with.
            RuntimeError: it was entered before.
        """
        if self._slot is not None:
            raise RuntimeError("a stream can be entered once; ask the client for another")
        self._slot = self._slots.reserve()
        if (observed := self._exchange.retrier.observed) is not None:
            observed.start()
        try:
            with fail_at(self._deadlines.queue):
                await self._slot.wait()
            with fail_at(self._deadlines.total):
                await self._exchange.retrier.run(self._attempt)
        except BaseException as error:
            if isinstance(error, ChatError):
                self._note(error)  # the deadline's own knows of no request
            self._report(error)
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, Exception):
            # Cancelled. Any other reason to leave early says nothing about the call.
            self._exchange.on_failure(error)
            self._report(error)
        await self.aclose()

    async def aclose(self) -> None:
        """Close the reply; iterating ends. Closing twice does nothing. It cannot be held up by the server."""
        self._closed = self._over = True
        self._failure = None
        self._chunks.clear()
        if self._slot is not None:
            self._slot.release()
        try:
            await self._exchange.close()
        finally:
            self._report(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        """Return the next chunk. Cancelled while waiting, the connection is closed.

        Raises:
            ChatError: what the stream ended with.
        """
        if self._chunks:
            return self._chunks.popleft()
        self._deadlines.on_chunk()  # a reader that took its time is no silent server
        while not self._chunks:
            if (failure := self._failure) is not None:
                self._failure = None
                await self._abandon(failure)
                self._report(failure)
                raise failure
            if self._over:
                await self._finish()
                raise StopAsyncIteration
            try:
                if (limit := self._deadlines.next_chunk()) is None:
                    await self._more()
                else:
                    with fail_at(limit):
                        await self._more()
            except ChatError as error:
                if not self._closed:
                    await self._abandon(error)
                    self._report(error)
                    raise
            if self._closed:  # by another task, while this one waited
                self._failure = None
                self._chunks.clear()
                raise StopAsyncIteration
            if self._over and self._failure is None:
                await self._finish()
        return self._chunks.popleft()

    def events(self) -> EventStream:
        """Iterate over what the chunks add, by kind, and over the pieces that are complete.

        Read the stream either by events or by chunks. `completion` is the running snapshot of either.
        """
        return EventStream(self)

    @property
    def completion(self) -> Completion:
        """What has arrived so far, put together; after the last chunk, the whole reply."""
        return self._reader.assembler.completion(self.request_id)

    @property
    def pieces(self) -> list[str]:
        """The first choice's text in pieces: a list that grows, and another one after a new attempt."""
        return self._reader.assembler.text_parts

    @property
    def token_ns(self) -> Sequence[int]:
        """For each chunk that carried something written by the model, when it was read (`time.perf_counter_ns`)."""
        return self._reader.token_ns

    @property
    def has_output(self) -> bool:
        """Whether the model has said anything."""
        return bool(self._reader.token_ns)

    @property
    def request_id(self) -> str | None:
        """The id that the server gave the request."""
        return self._exchange.request_id

    @property
    def response(self) -> Reply | None:
        """The reply's `status` and `headers`, while it is open; its body belongs to this stream."""
        return self._exchange.reply

    @property
    def timings(self) -> Timings:
        """When things happened, as far as they did."""
        return Timings(
            submitted_ns=self._submitted_ns,
            started_ns=self._started_ns,
            sent_ns=self._exchange.sent_ns,
            headers_ns=self._exchange.headers_ns,
            token_ns=self.token_ns,
            finished_ns=(self._exchange.read_ns or None) if self._over else None,
        )

    async def _attempt(self) -> None:
        """Send the request and read up to the first output; what is read so is handed out later."""
        await self._exchange.acquire()
        self._started_ns = self._started_ns or time.perf_counter_ns()
        try:
            await self._read_to_output()
            if self._reader.error is not None and not self._reader.token_ns:
                raise self._reader.error
        except BaseException as error:
            await self._abandon(error)
            raise

    async def read_to_end(self, took: Callable[[list[str]], None]) -> None:
        """Send the request, leave to do so given, and read the whole reply: one attempt, for who keeps no chunks.

        Cancelled, the connection is closed.

        Args:
            took: given the pieces of text after each read that brought chunks.

        Raises:
            ChatError: what the stream ended with.
        """
        try:
            await self._read_to_output()
            took(self.pieces)
            self._chunks.clear()
            if not self._over and self._deadlines.timeouts.idle is None:
                await self._pump(took)
            with fail_at(self._deadlines.next_chunk()) as limit:
                while not self._over:
                    self._chunks.clear()
                    await self._more()
                    if self._chunks or self._over:
                        took(self.pieces)
                        self._deadlines.on_chunk()
                        limit.move(self._deadlines.next_chunk())
            if self._reader.error is not None:
                raise self._reader.error
        except BaseException as error:
            await self._abandon(error)
            raise
        await self._exchange.close(complete=True)

    def discard(self) -> None:
        """Forget what has arrived: another attempt begins."""
        self._reader = StreamDecoder()
        self._chunks.clear()
        self._failure = None
        self._grace_ends = 0.0

    async def _read_to_output(self) -> None:
        self.discard()
        self._over = False
        self._deadlines.on_attempt()
        exchange = self._exchange
        with fail_at(self._deadlines.first_token()):
            await exchange.send()
            self._reader = StreamDecoder(exchange.headers.get("content-type", ""), secret=exchange.secret)
            while not self._reader.token_ns and not self._over:
                await self._more()
        if self._reader.error is None:
            exchange.on_first_output()
        self._deadlines.on_chunk()

    async def _more(self) -> None:
        """Read once, and take what it brings."""
        reader = self._reader
        data = b""
        broken: APIConnectionError | None = None
        try:
            if reader.assembler.finished:
                self._grace_ends = self._grace_ends or anyio.current_time() + FINISH_GRACE
                with anyio.CancelScope(deadline=self._grace_ends):
                    data = await self._exchange.receive("idle")
            else:
                data = await self._exchange.receive("idle" if reader.token_ns else "first_token")
        except APITimeoutError:
            if not reader.assembler.finished:
                raise
        except APIConnectionError as error:
            broken = error
        if data:
            self._chunks += reader.feed(data, self._exchange.read_ns)
        self._settle(ended=not data, broken=broken)

    async def _pump(self, took: Callable[[list[str]], None]) -> None:
        """Read on up to the finish_reason, with no need to wake for every read."""
        reader = self._reader
        assembler = reader.assembler
        body = self._exchange.stream

        def take(data: bytes) -> bool:
            at_ns = body.read_ns
            if reader.feed_text(data, at_ns):
                took(assembler.text_parts)
                return False
            if reader.feed(data, at_ns):
                took(assembler.text_parts)
            return reader.done or assembler.finished or reader.error is not None

        ended = True
        broken: APIConnectionError | None = None
        try:
            ended = not await self._exchange.pump(take)
        except APITimeoutError:
            raise
        except APIConnectionError as error:
            broken = error
        self._settle(ended=ended, broken=broken)
        self._chunks.clear()
        took(self.pieces)

    def _settle(self, *, ended: bool, broken: APIConnectionError | None) -> None:
        """Decide whether this is the end, and of what kind.

        Args:
            ended: nothing more comes.
            broken: it broke off rather than ended.
        """
        reader, exchange = self._reader, self._exchange
        if ended:
            self._chunks += reader.end(exchange.read_ns, broken=broken is not None)
            if broken is not None and reader.error is not None:
                reader.error.__cause__ = broken.__cause__
        if ended or reader.done or reader.error is not None:
            self._over = True
            reader.assembler.close()
            self._failure = reader.error
            exchange.on_usage(reader.assembler.usage)

    async def _finish(self) -> None:
        """Close a reply that has come whole."""
        await self._exchange.close(complete=True)
        self._report(None)

    async def _abandon(self, error: BaseException) -> None:
        """Close a reply that is of no more use, and let the error say what had arrived."""
        self._over = True
        self._reader.assembler.close()
        if isinstance(error, ChatError):
            self._note(error)
        self._exchange.on_failure(error)
        await self._exchange.close()

    def _report(self, error: BaseException | None) -> None:
        """Tell whoever observes the call that it is over."""
        if (observed := self._exchange.retrier.observed) is not None:
            observed.end(
                error,
                self._reader.assembler.completion(self.request_id),
                sent_ns=self._exchange.sent_ns,
                token_ns=self.token_ns,
            )

    def _note(self, error: ChatError) -> None:
        error.partial_text = error.partial_text or self._reader.assembler.text
        self._exchange.annotate(error)
