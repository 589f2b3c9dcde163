"""The events of a stream: a plain iterator that holds no cancel scope and no task between two events."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import Self

from chatscope.protocol.events import EventReader, StreamEvent
from chatscope.protocol.response import Chunk


class EventStream:
    """The events of a stream. Made by `ChatStream.events`.

    It reads the stream's chunks, so do not iterate over those as well.
    """

    __slots__ = ("_chunks", "_over", "_reader", "_ready")

    def __init__(self, chunks: AsyncIterator[Chunk]) -> None:
        self._chunks = chunks
        self._reader = EventReader()
        self._ready: deque[StreamEvent] = deque()
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        """Return the next event. If cancelled while waiting, the stream's connection is closed.

        Raises:
            ChatError: the stream's error, after the events of the chunks before it. No part counts as complete then.
        """
        while not self._ready:
            if self._over:
                raise StopAsyncIteration
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                self._over = True
                self._ready.extend(self._reader.end())
            except Exception:
                self._over = True
                raise
            else:
                self._ready.extend(self._reader.feed(chunk))
        return self._ready.popleft()
