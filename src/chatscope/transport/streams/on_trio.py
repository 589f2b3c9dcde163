"""Sockets on trio: waits for the plain socket. Imported only while trio runs.

Here: waiting, the deadline of a single wait, closing, and threads instead of timers. Not here: which loop runs (the
package's `__init__`).
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from math import inf
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import anyio
import trio

from chatscope.transport.base import READ_SIZE
from chatscope.transport.streams.arrivals import arrivals_on

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["call_later", "connect", "start_thread", "stream_of"]

# trio raises these if a socket is closed under a task that waits on it, or another task waits on it already.
_REFUSALS = (trio.ClosedResourceError, trio.BusyResourceError)


class TrioStream:
    """The plain non-blocking socket: wait until it is ready, then one system call.

    The wait comes first. A token has seldom arrived already, so reading before waiting would cost a failed system call
    each time. The wait is also the checkpoint that every read must have.
    """

    __slots__ = ("_closed", "_error", "_has_arrived", "_sock", "_token", "_unsent", "read_ns", "write_refused")

    def __init__(self, sock: socket.socket) -> None:
        self.read_ns = 0
        self.write_refused = False
        self._sock = sock
        self._has_arrived = arrivals_on(sock)
        self._token = trio.lowlevel.current_trio_token()
        self._unsent = memoryview(b"")
        self._error: OSError | None = None
        self._closed = False

    async def receive(self, within: float | None) -> bytes:
        while True:
            if self._error is not None:
                raise self._error
            await self._until(trio.lowlevel.wait_readable, within, "received")
            try:
                data = self._sock.recv(READ_SIZE)
            except BlockingIOError:
                continue
            self.read_ns = perf_counter_ns()
            return data

    async def pump(self, on_bytes: Callable[[bytes], bool], within: float | None) -> bool:
        if self._error is not None:
            raise self._error
        if self._closed:
            raise ConnectionAbortedError("the connection is closed")
        read_at = trio.current_time()
        while True:
            # One scope for many reads: one for each costs more than the read, and so does moving its deadline. When it
            # fires, the time since the last read counts, and a wait that was cut short too early starts again.
            deadline = inf if within is None else read_at + within
            with trio.CancelScope(deadline=deadline):
                while True:
                    try:
                        await trio.lowlevel.wait_readable(self._sock)
                        data = self._sock.recv(READ_SIZE)
                    except BlockingIOError:
                        continue
                    except _REFUSALS as exc:
                        raise _translated(exc) from exc
                    self.read_ns = perf_counter_ns()
                    if not data:
                        return False
                    if on_bytes(data):
                        return True
                    read_at = trio.current_time()
            if within is not None and trio.current_time() >= read_at + within:
                raise TimeoutError(f"nothing received for {within} s")

    def write(self, data: bytes) -> bool:
        is_first = not self._unsent
        self._unsent = memoryview(b"".join((self._unsent, data)) if self._unsent else data)
        try:
            self._send()
        except OSError:
            self.write_refused = is_first
            raise
        return not self._unsent

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

    def is_quiet(self) -> bool:
        return not (self._closed or self._error is not None or self._has_arrived())

    def watch(self, on_lost: Callable[[], object] | None) -> bool:  # noqa: ARG002 - see SocketStream
        return False

    def abort(self) -> None:
        if not self._closed:
            self._closed = True
            # A task that waits on the socket is woken, as it would be by the close of a socket of trio's own.
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    def abandon(self) -> None:
        try:
            self._token.run_sync_soon(self.abort)
        except trio.RunFinishedError:
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
            self._error = exc  # the system reports it only once
        return True

    async def _until(
        self,
        ready: Callable[[socket.socket], Awaitable[None]],
        within: float | None,
        done: str,
    ) -> None:
        if self._closed:
            raise ConnectionAbortedError("the connection is closed")
        with trio.move_on_after(inf if within is None else within) as scope:
            try:
                await ready(self._sock)
            except _REFUSALS as exc:
                raise _translated(exc) from exc
        if scope.cancelled_caught:
            raise TimeoutError(f"nothing could be {done} for {within} s")


def _translated(refusal: Exception) -> Exception:
    """Return the exception for a wait that trio refuses."""
    if isinstance(refusal, trio.BusyResourceError):
        return anyio.BusyResourceError("reading from")
    return ConnectionAbortedError("the connection was closed while a task waited on it")


async def _wait_either(sock: socket.socket) -> None:
    """Wait until `sock` can be read or written. Needed only for bodies larger than the system's buffers."""

    async def end_with(wait: Callable[[socket.socket], Awaitable[None]]) -> None:
        # The send that follows reports a closed socket.
        with contextlib.suppress(trio.ClosedResourceError):
            await wait(sock)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_with, trio.lowlevel.wait_readable)
        nursery.start_soon(end_with, trio.lowlevel.wait_writable)


def stream_of(sock: socket.socket) -> TrioStream:
    """Return the stream of a connected socket."""
    return TrioStream(sock)


async def connect(sock: socket.socket, address: Any) -> None:
    """Connect a non-blocking TCP socket."""
    with contextlib.suppress(BlockingIOError):
        sock.connect(address)
    await trio.lowlevel.wait_writable(sock)
    if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(error, os.strerror(error))


def start_thread(token: trio.lowlevel.TrioToken, work: Callable[[], object], then: Callable[[], object]) -> None:
    """Run `work` in a thread, then call `then` in the run of trio that `token` belongs to, unless it has ended.

    It is one of the threads that trio caches for `to_thread`. They are daemons: none prevents the program from ending.
    """

    def run() -> None:
        work()
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(then)

    trio.lowlevel.start_thread_soon(run, lambda _: None, "chatscope")


def call_later(token: trio.lowlevel.TrioToken, delay: float, callback: Callable[[], object]) -> Callable[[], object]:
    """Call `callback` in a run of trio after `delay` seconds, unless the run has ended; return a cancel function.

    trio waits only in tasks, and a task needs an open nursery. So a thread waits here.
    """
    cancelled = threading.Event()
    start_thread(token, lambda: cancelled.wait(delay), lambda: cancelled.is_set() or callback())
    return cancelled.set
