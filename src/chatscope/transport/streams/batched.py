"""Streams on loops that send at once what is written: what all tasks write in one turn goes out together in the next.

Here: what the streams of a loop share, which is the callback that sends for all of them and, on asyncio's own selector
loop, one buffer to read into; and which loop gets which stream. Not here: waiting, deadlines and backpressure
(`on_asyncio`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import perf_counter_ns
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakKeyDictionary

from chatscope.transport.base import READ_SIZE
from chatscope.transport.streams.on_asyncio import AsyncioStream

if TYPE_CHECKING:
    import socket

__all__ = ["stream_of"]

# asyncio takes this much without asking the writer to pause, so that nobody has to wait until it is sent.
WRITE_LATER = 64 * 1024


class Shared:
    """What the streams of one loop share.

    Attributes:
        writing: the streams that have something to send in the loop's next turn.
    """

    __slots__ = ("_buffer", "writing")

    def __init__(self) -> None:
        self._buffer: memoryview | None = None
        self.writing: deque[BatchedStream] = deque()

    def buffer(self) -> memoryview:
        """Return the buffer into which every socket of a selector loop is read.

        That loop reads without giving up control between asking for the buffer and returning it; others (proactor) read
        while they wait.
        """
        if self._buffer is None:
            self._buffer = memoryview(bytearray(READ_SIZE))
        return self._buffer

    def send(self) -> None:
        """Send for all streams that have something to send."""
        try:
            while self.writing:
                self.writing.popleft().send_kept()
        finally:
            if self.writing:  # a stream's write was interrupted; the others must still send
                asyncio.get_running_loop().call_soon(self.send)


class BatchedStream(AsyncioStream):
    """A stream whose writes go out together with those of other streams.

    What tasks write in one tick of the loop goes out at the beginning of the next one, before anything is read. A
    server on the same machine then wakes once for all of it, not for every request (measured by `python -m benchmarks
    --scenario plain-64`: 86 us of client CPU a request without this, 65 with it, on asyncio; 115 and 75 on uvloop).
    """

    __slots__ = ("_later", "_shared")

    _shared_by: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, Shared]] = WeakKeyDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        super().__init__(loop, sock)
        shared = self._shared_by.get(loop)
        if shared is None:
            shared = self._shared_by[loop] = Shared()
        self._shared = shared
        self._later = b""

    def write(self, data: bytes) -> bool:
        if self._later:
            data = self._later + data
        if len(data) > WRITE_LATER or self._lost or self._transport.is_closing():
            self._later = b""
            return super().write(data)
        if not self._later:
            writing = self._shared.writing
            if not writing:
                self._loop.call_soon(self._shared.send)
            writing.append(self)
        self._later = data
        return not (self._write_paused or self._chunks)

    def unsent(self) -> bool:
        return bool(self._later) or self._transport.get_write_buffer_size() > 0

    def _backlog(self) -> int:
        return len(self._later) + self._transport.get_write_buffer_size()

    def send_kept(self) -> None:
        """Send what was kept for this turn of the loop."""
        data, self._later = self._later, b""
        if data:
            if not self._lost:
                self._transport.write(data)
            # Both loops try to send at once. Where that fails, not a byte was taken, and the transport is closing.
            self.write_refused = self._lost or self._transport.is_closing()


class SelectorStream(BatchedStream, asyncio.BufferedProtocol):
    """A stream of asyncio's own selector loop, whose reads go into the loop's one buffer."""

    __slots__ = ("_buffer",)

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        super().__init__(loop, sock)
        self._buffer = self._shared.buffer()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - this loop gives no hint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._on_read(bytes(self._buffer[:nbytes]), perf_counter_ns())


def stream_of(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> AsyncioStream:
    """Return the best stream for a loop. It is not attached to the loop yet."""
    if isinstance(loop, asyncio.SelectorEventLoop):
        return SelectorStream(loop, sock)
    is_uvloop = type(loop).__module__.partition(".")[0] == "uvloop"
    return (BatchedStream if is_uvloop else AsyncioStream)(loop, sock)
