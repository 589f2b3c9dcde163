"""Sockets on asyncio and uvloop: a native protocol, because anyio's streams pause and resume reading around each read.

Here: waiting, the deadline of a single wait, backpressure, closing. Not here: which loop runs, and connecting (the
package's `__init__`); writes that go out together (`batched`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf
from time import monotonic, perf_counter_ns
from typing import TYPE_CHECKING

import anyio

from chatscope.transport.base import READ_SIZE
from chatscope.transport.streams.arrivals import arrivals_on

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

__all__ = ["AsyncioWaiter"]

# A slow reader's socket is paused once this many bytes wait. uvloop reads at most 256 KiB at a time, so a stream holds
# less than twice that. A token's chunk is about 200 bytes, so a live chat never comes near it.
HIGH_WATER = 256 * 1024
# It is resumed here, so that the loop's selector is not touched for every chunk of a backlog.
LOW_WATER = 64 * 1024


class AsyncioWaiter:
    """A `Waiter`."""

    __slots__ = ("_future",)

    def __init__(self) -> None:
        self._future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def set(self) -> None:
        """Wake the task, or prevent it from waiting."""
        if not self._future.done():
            self._future.set_result(None)

    def wait(self) -> Awaitable[None]:
        """Wait until `set` is called."""
        return self._future


class AsyncioStream(asyncio.Protocol):
    """A native protocol. `data_received` stamps and stores the bytes, and wakes the waiting task, if there is one."""

    __slots__ = (
        "_buffered",
        "_chunks",
        "_deadline",
        "_error",
        "_has_arrived",
        "_loop",
        "_lost",
        "_on_bytes",
        "_on_lost",
        "_paused",
        "_pump_error",
        "_pump_within",
        "_sock",
        "_timer",
        "_timer_due",
        "_transport",
        "_waiter",
        "_write_paused",
        "read_ns",
        "write_refused",
    )  # fmt: skip

    _transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self.read_ns = 0
        self.write_refused = False
        self._on_lost: Callable[[], object] | None = None
        self._loop = loop
        self._sock = sock
        self._has_arrived = arrivals_on(sock)
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
        self._on_bytes: Callable[[bytes], bool] | None = None
        self._pump_error: BaseException | None = None
        self._pump_within: float | None = None

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # sockets get a Transport, as asyncio documents

    def data_received(self, data: bytes) -> None:
        at_ns = perf_counter_ns()
        if len(data) <= READ_SIZE:
            self._on_read(data, at_ns)
            return
        # uvloop reads up to 256 KiB at a time. Buffers of that size are slow (see `READ_SIZE`), and each step from here
        # to the chunks makes another one.
        for start in range(0, len(data), READ_SIZE):
            self._on_read(data[start : start + READ_SIZE], at_ns)

    def _on_read(self, data: bytes, at_ns: int) -> None:
        """Pass on what was read at `at_ns`, at most `READ_SIZE` bytes, or keep it until it is asked for."""
        if (on_bytes := self._on_bytes) is not None:
            self.read_ns = at_ns
            try:
                if on_bytes(data):
                    self._end_pump(None)
            except BaseException as exc:  # noqa: BLE001 - raised again in the task that pumps
                self._end_pump(exc)
            return
        self._chunks.append((at_ns, data))
        self._buffered += len(data)
        if self._buffered > HIGH_WATER and not self._paused:
            self._paused = True
            self._pause_reading()
            if self._on_lost is not None:
                self._on_lost()
        if (waiter := self._waiter) is not None and not waiter.done():
            waiter.set_result(True)  # as `_wake` does

    def eof_received(self) -> None:
        # Returning None lets the transport close: a server that has ended its side sends no more responses.
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
        return self._pop()

    async def pump(self, on_bytes: Callable[[bytes], bool], within: float | None) -> bool:
        while self._chunks:
            if on_bytes(self._pop()):
                return True
        self._pump_within = within
        self._on_bytes = on_bytes
        try:
            while not self._lost:
                in_time = await self._wait(within)
                if self._on_bytes is not on_bytes:
                    error, self._pump_error = self._pump_error, None
                    if error is not None:
                        raise error
                    return True
                if not in_time:
                    raise TimeoutError(f"nothing received for {within} s")
        finally:
            if self._on_bytes is on_bytes:
                self._on_bytes = None
        if self._error is not None:
            raise ConnectionResetError(*self._error.args) from self._error
        return False

    def _end_pump(self, error: BaseException | None) -> None:
        # With its last read the connection may have returned to the pool, and gone to its next request, before the task
        # that pumped wakes. Nothing of this pump may stay behind.
        self._on_bytes = None
        self._pump_error = error  # not in the waiter, which its timer may have woken in this tick already
        self._wake()

    def write(self, data: bytes) -> bool:
        if self._lost or self._transport.is_closing():
            self.write_refused = True
            raise BrokenPipeError("the server has closed the connection")
        self._transport.write(data)
        return not (self._write_paused or self._chunks or self._lost)

    async def flush(self, within: float | None) -> bool:
        while not (self._chunks or self._lost):
            if not self._write_paused:
                return True
            before = self._backlog()
            if not await self._wait(within) and self._backlog() >= before:
                raise TimeoutError(f"nothing could be sent for {within} s")
        return False

    def unsent(self) -> bool:
        return self._transport.get_write_buffer_size() > 0

    def _backlog(self) -> int:
        """Return how many written bytes have not been sent yet."""
        return self._transport.get_write_buffer_size()

    def poll(self) -> bytes | None:
        if self._chunks:
            return self._pop()
        return b"" if self._lost or self._transport.is_closing() else None

    def is_quiet(self) -> bool:
        # Bytes may have arrived that the loop has not read yet.
        return not (self._chunks or self._lost or self._transport.is_closing() or self._has_arrived())

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

    def _pop(self) -> bytes:
        self.read_ns, data = self._chunks.popleft()
        self._buffered -= len(data)
        if self._paused and self._buffered <= LOW_WATER and not self._lost:
            self._paused = False
            self._resume_reading()
        return data

    def _pause_reading(self) -> None:
        self._transport.pause_reading()

    def _resume_reading(self) -> None:
        self._transport.resume_reading()

    # One future for the one waiting task, and one timer per connection for all its waits.

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(True)

    def _wait(self, within: float | None) -> asyncio.Future[bool]:
        """Return a future for the next event. Its result is `False` if there is none `within` that many seconds."""
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
        # Setting and cancelling a timer for every read costs more than the read. One timer outlives many waits instead,
        # and when it fires it checks how much time the current wait, if any, still has.
        self._timer = None
        if self._waiter is None or self._waiter.done() or self._deadline == inf:
            return
        if self._on_bytes is not None and self._pump_within is not None:
            # The reads of a pump wake nobody, so they count only now.
            since_read = (perf_counter_ns() - self.read_ns) / 1e9
            self._deadline = max(self._deadline, monotonic() + self._pump_within - since_read)
        remaining = self._deadline - monotonic()
        if remaining > 0:
            self._arm(remaining)
        else:
            self._waiter.set_result(False)
