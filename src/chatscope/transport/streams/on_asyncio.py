"""Sockets on asyncio and uvloop: a native protocol. anyio's streams pause and resume reading around every receive.

Here: waiting, deadlines of a single wait, backpressure, closing. Not here: which loop runs, connecting (beside this).
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from math import inf
from time import monotonic, perf_counter_ns
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakKeyDictionary

import anyio

from chatscope.transport.base import READ_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["stream_of"]

# A reader that lags stops its socket once this many bytes wait for it. uvloop reads at most 256 KiB at a time, so a
# stream holds less than twice that; a token's chunk is some 200 bytes, so a live chat never comes near it.
HIGH_WATER = 256 * 1024
# ... and starts it again here, so that the loop's selector is not touched for every chunk of a backlog.
LOW_WATER = 64 * 1024
# asyncio takes this much without asking the writer to pause, so that nobody need wait for it to be sent.
WRITE_LATER = 64 * 1024


class AsyncioStream(asyncio.Protocol):
    """A native protocol: `data_received` stamps, keeps and wakes at most one waiting task through one future."""

    __slots__ = (
        "_buffered", "_chunks", "_deadline", "_error", "_loop", "_lost", "_on_lost", "_paused", "_pump_error",
        "_pump_within", "_sock", "_take_read", "_timer", "_timer_due", "_transport", "_waiter", "_write_paused",
        "read_ns", "write_refused",
    )  # fmt: skip

    _transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self.read_ns = 0
        self.write_refused = False
        self._on_lost: Callable[[], object] | None = None
        self._loop = loop
        self._sock = sock
        self._chunks: deque[tuple[int, bytes]] = deque()
        self._buffered = 0
        self._paused = False
        self._write_paused = False
        self._lost = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[bool] | None = None
        self._deadline = inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = inf
        self._take_read: Callable[[bytes], bool] | None = None
        self._pump_error: BaseException | None = None
        self._pump_within: float | None = None

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # the loop's own words: a Transport for sockets

    def data_received(self, data: bytes) -> None:
        if (take := self._take_read) is not None:
            self.read_ns = perf_counter_ns()
            try:
                if take(data):
                    self._end_pump(None)
            except BaseException as exc:  # noqa: BLE001 - raised again in the task that pumps
                self._end_pump(exc)
            return
        self._chunks.append((perf_counter_ns(), data))
        self._buffered += len(data)
        if self._buffered > HIGH_WATER and not self._paused:
            self._paused = True
            self._transport.pause_reading()
            if self._on_lost is not None:
                self._on_lost()
        self._wake()

    def eof_received(self) -> None:
        # Returning None lets the transport close: a server that has ended its side answers nothing more.
        self._lost = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._error = exc
        self._wake()
        if self._on_lost is not None:
            self._on_lost()

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._wake()

    # What the connection calls.

    async def receive(self, within: float | None) -> bytes:
        while not self._chunks:
            if self._lost:
                if self._error is not None:
                    raise ConnectionResetError(*self._error.args) from self._error
                return b""
            if not await self._wait(within) and not self._chunks:
                raise TimeoutError(f"nothing received for {within} s")
        return self._take()

    async def pump(self, take: Callable[[bytes], bool], within: float | None) -> bool:
        while self._chunks:
            if take(self._take()):
                return True
        self._pump_within = within
        self._take_read = take
        try:
            while not self._lost:
                came = await self._wait(within)
                if self._take_read is not take:
                    error, self._pump_error = self._pump_error, None
                    if error is not None:
                        raise error
                    return True
                if not came:
                    raise TimeoutError(f"nothing received for {within} s")
        finally:
            if self._take_read is take:
                self._take_read = None
        if self._error is not None:
            raise ConnectionResetError(*self._error.args) from self._error
        return False

    def _end_pump(self, error: BaseException | None) -> None:
        # With its last read the connection may have gone back to the pool, and to its next user before the task that
        # pumped has woken: nothing of this pump may stay behind.
        self._take_read = None
        self._pump_error = error  # kept here: the waiter may have been woken in this turn already, by its timer say
        self._wake()

    def write(self, data: bytes) -> None:
        self._check_writable()
        self._transport.write(data)

    def _check_writable(self) -> None:
        if self._lost or self._transport.is_closing():
            self.write_refused = True
            raise BrokenPipeError("the server has closed the connection")

    async def flush(self, within: float | None) -> bool:
        while not (self._chunks or self._lost):
            if not self._write_paused:
                return True
            before = self._backlog()
            if not await self._wait(within) and self._backlog() >= before:
                raise TimeoutError(f"nothing could be sent for {within} s")
        return False

    def unsent(self) -> bool:
        return self._backlog() > 0

    def _backlog(self) -> int:
        """Return how many bytes were written and are still to be sent."""
        return self._transport.get_write_buffer_size()

    def poll(self) -> bytes | None:
        if self._chunks:
            return self._take()
        return b"" if self._lost or self._transport.is_closing() else None

    def is_quiet(self) -> bool:
        if self.poll() is not None:
            return False
        try:
            self._sock.recv(1, socket.MSG_PEEK)  # for what the loop has not read yet
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def watch(self, on_lost: Callable[[], object] | None) -> bool:
        self._on_lost = on_lost
        if on_lost is not None and self._lost:
            on_lost()
        return True

    def abort(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._lost = True
        self._transport.abort()

    def abandon(self) -> None:
        if self._loop.is_closed():
            self._sock.close()
        else:
            self._loop.call_soon_threadsafe(self._transport.abort)

    def _take(self) -> bytes:
        self.read_ns, data = self._chunks.popleft()
        self._buffered -= len(data)
        if self._paused and self._buffered <= LOW_WATER and not self._lost:
            self._paused = False
            self._transport.resume_reading()
        return data

    # One future for the one waiting task, and one timer per connection for all its waits.

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(True)

    def _wait(self, within: float | None) -> asyncio.Future[bool]:
        """Return what to await for the next event; `False` if none comes `within` so many seconds."""
        if self._waiter is not None and not self._waiter.done():
            raise anyio.BusyResourceError("reading from")
        self._waiter = waiter = self._loop.create_future()
        self._deadline = inf
        if within is not None:
            self._deadline = deadline = monotonic() + within
            if self._timer is None or deadline < self._timer_due:
                self._arm(within)
        return waiter

    def _arm(self, delay: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = self._deadline
        self._timer = self._loop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        # Setting and cancelling a timer for every read costs more than the read; instead one timer outlives many waits,
        # and when it fires it looks how long the present wait, if any, still has.
        self._timer = None
        if self._waiter is None or self._waiter.done() or self._deadline == inf:
            return
        if self._take_read is not None and self._pump_within is not None:
            # The reads of a pump wake nobody; what it has come to is asked now.
            since_read = (perf_counter_ns() - self.read_ns) / 1e9
            self._deadline = max(self._deadline, monotonic() + self._pump_within - since_read)
        remaining = self._deadline - monotonic()
        if remaining > 0:
            self._arm(remaining)
        else:
            self._waiter.set_result(False)


class SelectorStream(AsyncioStream, asyncio.BufferedProtocol):
    """The same on asyncio's own selector loop, made to read and write as uvloop does.

    All sockets of a loop are read into one buffer: that loop asks for it, reads and hands it back without a pause,
    where others (proactor) read while they wait. And what tasks write in one turn of the loop goes out together at the
    beginning of the next, before anything is read: a server on the same machine then wakes once for all of it, not for
    every request (measured by `python -m benchmarks --scenario plain-64`: 86 us of client CPU a request without this,
    65 with it).
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

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - a hint, which this loop never gives
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._buffer[:nbytes]))

    def write(self, data: bytes) -> None:
        if self._later:
            data = self._later + data
        if len(data) > WRITE_LATER:
            self._later = b""
            super().write(data)
            return
        self._check_writable()
        if not self._later:
            self._loop.call_soon(self._write_later)
        self._later = data

    def _backlog(self) -> int:
        return len(self._later) + super()._backlog()

    def _write_later(self) -> None:
        data, self._later = self._later, b""
        if data:
            if not self._lost:
                self._transport.write(data)
            # This loop tries to send at once. Where that fails, not a byte was taken, and the transport is closing.
            self.write_refused = self._lost or self._transport.is_closing()


def stream_of(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> AsyncioStream:
    """Return the stream that suits a loop best; it is not attached to the loop yet."""
    return (SelectorStream if isinstance(loop, asyncio.SelectorEventLoop) else AsyncioStream)(loop, sock)
