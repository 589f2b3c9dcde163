"""A streamed reply whose text is a value of a type, once it is whole."""

from __future__ import annotations

from typing import Generic

from chatscope._client.request import Exchange
from chatscope._client.stream import ChatStream
from chatscope._conversation.structured_output import Output, ParsedCompletion, T
from chatscope._limits.concurrency import Slots
from chatscope._limits.timeouts import CallDeadlines
from chatscope.errors import OutputError
from chatscope.protocol.response import Chunk


class ParsedStream(ChatStream, Generic[T]):
    """A streamed reply of a type: like `ChatStream`, and iterating to the end leaves its value in `completion.parsed`.

    Where the whole reply is not of the type, iterating raises the `OutputError` after the last chunk.
    """

    __slots__ = ("_output", "_parsed")

    def __init__(self, exchange: Exchange, deadlines: CallDeadlines, slots: Slots, output: Output[T]) -> None:
        super().__init__(exchange, deadlines, slots)
        self._output = output
        self._parsed: T | None = None

    async def __anext__(self) -> Chunk:
        """Return the next chunk. Cancelled while waiting, the connection is closed.

        Raises:
            ChatError: what the stream ended with.
            OutputError: the whole reply is not of the type.
        """
        try:
            return await super().__anext__()
        except StopAsyncIteration:
            if self._reader.done:
                try:
                    self._parsed = self._output.read(super().completion)
                except OutputError as error:
                    self._note(error)
                    self._report(error)
                    raise
            self._report(None)
            raise

    async def _finish(self) -> None:
        # Not reported here: whether the call has succeeded is not known before its text is a value.
        await self._exchange.close(complete=True)

    @property
    def completion(self) -> ParsedCompletion[T]:
        """What has arrived so far, put together; `parsed` is `None` until the reply was iterated to its end."""
        return ParsedCompletion.of(super().completion, self._parsed)
