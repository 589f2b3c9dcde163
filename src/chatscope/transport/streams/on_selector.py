"""Sockets on asyncio's own selector loop, which can save copies and system calls that other loops cannot.

Here: what all streams of a loop share, which is one buffer and the callback that sends for all of them. Not here:
waiting, deadlines and backpressure (`on_asyncio`).
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
        buffer: every socket is read into it. This loop reads without giving up control between asking for the buffer
            and returning it; others (proactor) read while they wait.
        writing: the streams that have something to send in the loop's next turn.
    """

    __slots__ = ("buffer", "writing")

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(READ_SIZE))
        self.writing: deque[SelectorStream] = deque()

    def send(self) -> None:
        """Send for all streams that have something to send."""
        try:
            while self.writing:
                self.writing.popleft().send_kept()
        finally:
            if self.writing:  # a stream's write was interrupted; the others must still send
                asyncio.get_running_loop().call_soon(self.send)


class SelectorStream(AsyncioStream, asyncio.BufferedProtocol):
    """A stream whose reads go into its loop's one buffer, and whose writes go out together with those of other streams.

    What tasks write in one tick of the loop goes out at the beginning of the next one, before anything is read. A
    server on the same machine then wakes once for all of it, not for every request (measured by `python -m benchmarks
    --scenario plain-64`: 86 us of client CPU a request without this, 65 with it).
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

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - this loop gives no hint
        return self._shared.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._on_read(bytes(self._shared.buffer[:nbytes]), perf_counter_ns())

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
            # This loop tries to send at once. Where that fails, not a byte was taken, and the transport is closing.
            self.write_refused = self._lost or self._transport.is_closing()


def stream_of(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> AsyncioStream:
    """Return the best stream for a loop. It is not attached to the loop yet."""
    return (SelectorStream if isinstance(loop, asyncio.SelectorEventLoop) else AsyncioStream)(loop, sock)
