"""Sockets as streams of bytes: a native protocol on asyncio and uvloop, the plain socket on trio.

The only module of the package that may import asyncio or trio; trio is imported only while trio runs. Here: waiting,
deadlines of a single wait, backpressure, closing. Not here: addresses and TLS (`connect`, `tls`), HTTP (`http1`).

Everything raises `OSError` (`TimeoutError` where a wait took too long); nothing here knows httpx.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections import deque
from math import inf
from time import monotonic, perf_counter_ns
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    import trio

    from chatscope.transport.base import Stream

__all__ = ["attach", "connect_socket", "current_run"]

# A reader that lags stops its socket once this many bytes wait for it. uvloop reads at most 256 KiB at a time, so a
# stream holds less than twice that; a token's chunk is some 200 bytes, so a live chat never comes near it.
HIGH_WATER = 256 * 1024
# ... and starts it again here, so that the loop's selector is not touched for every chunk of a backlog.
LOW_WATER = 64 * 1024
# One read. From 128 KiB on malloc asks the kernel for every single buffer, which costs more than the read (measured:
# 8.5 us for asyncio's own 256 KiB, 0.6 for this).
READ_SIZE = 64 * 1024
# asyncio takes this much without asking the writer to pause, so that nobody need wait for it to be sent.
WRITE_LATER = 64 * 1024
# A Unix socket whose server has a full backlog refuses at once and tells nobody when there is room again.
UNIX_BACKLOG_WAIT = 0.01


class AsyncioStream(asyncio.Protocol):
    """A native protocol: `data_received` stamps, keeps and wakes at most one waiting task through one future."""

    __slots__ = (
        "_buffered", "_chunks", "_deadline", "_error", "_loop", "_lost", "_on_lost", "_paused", "_pump_within", "_sock",
        "_take_read", "_timer", "_timer_due", "_transport", "_waiter", "_write_paused", "read_ns",
    )  # fmt: skip

    _transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self.read_ns = 0
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
        waiter, self._waiter = self._waiter, None
        self._deadline = inf
        if waiter is not None and not waiter.done():
            if error is None:
                waiter.set_result(True)
            else:
                waiter.set_exception(error)

    def write(self, data: bytes) -> None:
        if self._lost or self._transport.is_closing():
            raise BrokenPipeError("the server has closed the connection")
        self._transport.write(data)

    async def flush(self, within: float | None) -> bool:
        while not (self._chunks or self._lost):
            if not self._write_paused:
                return True
            before = self._transport.get_write_buffer_size()
            if not await self._wait(within) and self._transport.get_write_buffer_size() >= before:
                raise TimeoutError(f"nothing could be sent for {within} s")
        return False

    def unsent(self) -> bool:
        return self._transport.get_write_buffer_size() > 0

    def poll(self) -> bytes | None:
        if self._chunks:
            return self._take()
        return b"" if self._lost or self._transport.is_closing() else None

    def watch(self, on_lost: Callable[[], object] | None) -> None:
        self._on_lost = on_lost

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

    async def _wait(self, within: float | None) -> bool:
        """Wait for the next event; `False` if none came `within` so many seconds."""
        if self._waiter is not None:
            raise anyio.BusyResourceError("reading from")
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self._waiter = waiter
        if within is not None:
            self._deadline = deadline = monotonic() + within
            if self._timer is None or deadline < self._timer_due:
                self._arm(within)
        try:
            return await waiter
        finally:
            if self._waiter is waiter:
                self._waiter = None
                self._deadline = inf

    def _arm(self, delay: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = self._deadline
        self._timer = self._loop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        # Setting and cancelling a timer for every read costs more than the read; instead one timer outlives many waits,
        # and when it fires it looks how long the present wait, if any, still has.
        self._timer = None
        if self._waiter is None or self._deadline == inf:
            return
        if self._take_read is not None and self._pump_within is not None:
            # The reads of a pump wake nobody; what it has come to is asked now.
            since_read = (perf_counter_ns() - self.read_ns) / 1e9
            self._deadline = max(self._deadline, monotonic() + self._pump_within - since_read)
        remaining = self._deadline - monotonic()
        if remaining > 0:
            self._arm(remaining)
        elif not self._waiter.done():
            self._waiter.set_result(False)


class SelectorStream(AsyncioStream, asyncio.BufferedProtocol):
    """The same on asyncio's own selector loop, made to read and write as uvloop does.

    All sockets of a loop are read into one buffer: that loop asks for it, reads and hands it back without a pause,
    where others (proactor) read while they wait. And what tasks write in one turn of the loop goes out together at the
    beginning of the next, before anything is read: a server on the same machine then wakes once for all of it, not for
    every request (measured with 64 at once: 86 us of client CPU a request without this, 65 with it).
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
        if self._lost or self._transport.is_closing():
            raise BrokenPipeError("the server has closed the connection")
        if not self._later:
            self._loop.call_soon(self._write_later)
        self._later = data

    def _write_later(self) -> None:
        data, self._later = self._later, b""
        if data and not self._lost:
            self._transport.write(data)


class TrioStream:
    """The plain non-blocking socket: wait until it is ready, then one system call.

    Waiting comes first: a token is seldom there already, so trying to read before waiting costs a failed system call
    each time (measured: 9.6 against 8.6 us), and the wait is also the checkpoint that every read owes the other tasks.
    """

    __slots__ = ("_closed", "_error", "_sock", "_unsent", "read_ns")

    def __init__(self, sock: socket.socket) -> None:
        self.read_ns = 0
        self._sock = sock
        self._unsent = memoryview(b"")
        self._error: OSError | None = None
        self._closed = False

    async def receive(self, within: float | None) -> bytes:
        while True:
            if self._error is not None:
                raise self._error
            await self._until(trio.lowlevel.wait_readable, within, "received")
            with contextlib.suppress(BlockingIOError):
                data = self._sock.recv(READ_SIZE)
                self.read_ns = perf_counter_ns()
                return data

    async def pump(self, take: Callable[[bytes], bool], within: float | None) -> bool:
        if self._error is not None:
            raise self._error
        if self._closed:
            raise ConnectionAbortedError("the connection is closed")
        read_at = trio.current_time()
        while True:
            # One scope for many reads: one for each costs more than the read, and so does moving its deadline. When it
            # fires, what counts is how long the last read is ago; a wait that was cut short for nothing is begun anew.
            deadline = inf if within is None else read_at + within
            with trio.CancelScope(deadline=deadline), _translated_waits():
                while True:
                    await trio.lowlevel.wait_readable(self._sock)
                    try:
                        data = self._sock.recv(READ_SIZE)
                    except BlockingIOError:
                        continue
                    self.read_ns = perf_counter_ns()
                    if not data:
                        return False
                    if take(data):
                        return True
                    read_at = trio.current_time()
            if within is not None and trio.current_time() >= read_at + within:
                raise TimeoutError(f"nothing received for {within} s")

    def write(self, data: bytes) -> None:
        self._unsent = memoryview(b"".join((self._unsent, data)) if self._unsent else data)
        self._send()

    async def flush(self, within: float | None) -> bool:
        while not self._readable():
            if not self._unsent:
                return True
            await self._until(_wait_either, within, "sent")
            self._send()
        return False

    def unsent(self) -> bool:
        return bool(self._unsent)

    def poll(self) -> bytes | None:
        try:
            data = self._sock.recv(READ_SIZE)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        self.read_ns = perf_counter_ns()
        return data

    def watch(self, on_lost: Callable[[], object] | None) -> None:
        pass

    def abort(self) -> None:
        if not self._closed:
            self._closed = True
            # A task that waits on the socket is woken, as it would be by the close of a socket of trio's own.
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    def abandon(self) -> None:
        self._closed = True
        self._sock.close()

    def _send(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._unsent = self._unsent[self._sock.send(self._unsent) :]

    def _readable(self) -> bool:
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError as exc:
            self._error = exc  # the system tells it only once
        return True

    async def _until(
        self,
        ready: Callable[[socket.socket], Awaitable[None]],
        within: float | None,
        done: str,
    ) -> None:
        if self._closed:
            raise ConnectionAbortedError("the connection is closed")
        with trio.move_on_after(inf if within is None else within) as scope, _translated_waits():
            await ready(self._sock)
        if scope.cancelled_caught:
            raise TimeoutError(f"nothing could be {done} for {within} s")


class _translated_waits:  # noqa: N801 - used as a statement; contextlib's generators cost more than the wait
    """Turn what trio raises for a socket that is closed or waited on already into what is raised here."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, trio.ClosedResourceError):
            raise ConnectionAbortedError("the connection was closed while a task waited on it") from error
        if isinstance(error, trio.BusyResourceError):
            raise anyio.BusyResourceError("reading from") from error


async def _wait_either(sock: socket.socket) -> None:
    """Wait until `sock` can be read or written; only a body larger than the system's buffers ever comes here."""

    async def end_with(wait: Callable[[socket.socket], Awaitable[None]]) -> None:
        # A closed socket shows in the send that follows.
        with contextlib.suppress(trio.ClosedResourceError):
            await wait(sock)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_with, trio.lowlevel.wait_readable)
        nursery.start_soon(end_with, trio.lowlevel.wait_writable)


def _on_trio() -> bool:
    """Say whether the running task is trio's.

    trio is asked first: in its guest mode the host's asyncio loop counts as running too.
    """
    module = sys.modules.get("trio")
    if module is None or not module.lowlevel.in_trio_task():
        return False
    globals()["trio"] = module
    return True


def current_run() -> object:
    """Return what identifies the running event loop run: sockets of one run are of no use to another."""
    return trio.lowlevel.current_trio_token() if _on_trio() else asyncio.get_running_loop()


def _is_unix(sock: socket.socket) -> bool:
    return sock.family == getattr(socket, "AF_UNIX", None)


async def attach(sock: socket.socket) -> Stream:
    """Return the stream of a connected non-blocking socket, which it owns from here on.

    Cancelled or failed, it has closed the socket.
    """
    if _on_trio():
        return TrioStream(sock)
    loop = asyncio.get_running_loop()
    stream = (SelectorStream if isinstance(loop, asyncio.SelectorEventLoop) else AsyncioStream)(loop, sock)
    if _is_unix(sock):
        await loop.create_unix_connection(lambda: stream, sock=sock)
    else:
        await loop.create_connection(lambda: stream, sock=sock)
    return stream


async def connect_socket(sock: socket.socket, address: Any) -> None:
    """Connect a non-blocking socket; `address` is of the form its family wants. The caller closes it on any failure."""
    if _is_unix(sock):
        while True:
            try:
                sock.connect(address)
            except BlockingIOError:
                await anyio.sleep(UNIX_BACKLOG_WAIT)
            else:
                return
    elif _on_trio():
        with contextlib.suppress(BlockingIOError):
            sock.connect(address)
        await trio.lowlevel.wait_writable(sock)
        if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, os.strerror(error))
    else:
        await asyncio.get_running_loop().sock_connect(sock, address)
