"""Sockets on asyncio's own selector loop, which can save copies and system calls that other loops cannot.

Here: one buffer for all sockets of a loop, and one write per tick. Not here: waiting, deadlines and backpressure
(`on_asyncio`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakKeyDictionary

from chatscope.transport.base import READ_SIZE
from chatscope.transport.streams.on_asyncio import AsyncioStream

if TYPE_CHECKING:
    import socket

__all__ = ["stream_of"]

# asyncio takes this much without asking the writer to pause, so that nobody has to wait until it is sent.
WRITE_LATER = 64 * 1024


class SelectorStream(AsyncioStream, asyncio.BufferedProtocol):
    """A stream on asyncio's own selector loop, made to read and write as uvloop does.

    All sockets of a loop are read into one buffer. This loop requests it, reads and returns it without a pause; others
    (proactor) read while they wait. Bytes that tasks write in one tick of the loop are sent together at the start of
    the next one, before anything is read. So a server on the same machine wakes once for all of them, not once per
    request (measured by `python -m benchmarks --scenario plain-64`: 86 us of client CPU per request without this, 65
    with it).
    """

    __slots__ = ("_buffer", "_later")

    _buffers: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview]] = WeakKeyDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        super().__init__(loop, sock)
        buffer = self._buffers.get(loop)
        if buffer is None:
            buffer = self._buffers[loop] = memoryview(bytearray(READ_SIZE))
        self._buffer = buffer
        self._later = b""

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - this loop gives no hint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._buffer[:nbytes]))

    def write(self, data: bytes) -> bool:
        if self._later:
            data = self._later + data
        if len(data) > WRITE_LATER or self._lost or self._transport.is_closing():
            self._later = b""
            return super().write(data)
        if not self._later:
            self._loop.call_soon(self._write_later)
        self._later = data
        return not (self._write_paused or self._chunks)

    def unsent(self) -> bool:
        return bool(self._later) or self._transport.get_write_buffer_size() > 0

    def _backlog(self) -> int:
        return len(self._later) + self._transport.get_write_buffer_size()

    def _write_later(self) -> None:
        data, self._later = self._later, b""
        if data:
            if not self._lost:
                self._transport.write(data)
            # This loop tries to send at once. Where that fails, not a byte was taken, and the transport is closing.
            self.write_refused = self._lost or self._transport.is_closing()


def stream_of(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> AsyncioStream:
    """Return the best stream for a loop. It is not attached to the loop yet."""
    return (SelectorStream if isinstance(loop, asyncio.SelectorEventLoop) else AsyncioStream)(loop, sock)
