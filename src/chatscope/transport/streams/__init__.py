"""Sockets as streams of bytes: a native protocol on asyncio and uvloop, the plain socket on trio.

The only place in the package that may import asyncio or trio. Here: which loop runs, connecting, the choice of the
stream, timers, waits and threads. Not here: addresses and TLS (`resolver`, `connect`, `tls`), HTTP (`http1`).

Every failure is an `OSError` (`TimeoutError` if a wait took too long). Nothing here knows httpx.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from chatscope.transport.streams.batched import stream_of
from chatscope.transport.streams.on_asyncio import AsyncioWaiter
from chatscope.transport.streams.witnessed import witnessed_stream_of
from chatscope.transport.witness import WitnessedSocket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from chatscope.transport.base import SocketStream

__all__ = [
    "Waiter",
    "attach",
    "call_later",
    "connect_socket",
    "current_run",
    "current_time",
    "name_current_task",
    "new_waiter",
    "start_thread",
]

# Seconds. A Unix socket whose server has a full backlog refuses at once, and nothing reports when there is room again.
UNIX_BACKLOG_WAIT = 0.01


def _trio() -> Any:
    """Return trio if the running task is one of its tasks, else `None`.

    trio is asked before asyncio: in its guest mode the host's asyncio loop counts as running, too.
    """
    trio = sys.modules.get("trio")
    lowlevel = getattr(trio, "lowlevel", None)  # missing while another thread imports trio for the first time
    return trio if lowlevel is not None and lowlevel.in_trio_task() else None


def _on_trio() -> Any:
    # Imported late, because trio need not be installed.
    return import_module("chatscope.transport.streams.on_trio")


def current_run() -> object:
    """Return an object that identifies the current run of an event loop. Sockets of one run are useless in another."""
    if "trio" not in sys.modules:  # most programs' case, without a call
        return asyncio.get_running_loop()
    trio = _trio()
    return asyncio.get_running_loop() if trio is None else trio.lowlevel.current_trio_token()


def current_time() -> float:
    """Return the running loop's time, as `anyio.current_time` does for several times the cost."""
    trio = _trio()
    now: float = asyncio.get_running_loop().time() if trio is None else trio.current_time()
    return now


def name_current_task(name: str) -> None:
    """Change the name of the running task, which debuggers show."""
    trio = _trio()
    if trio is not None:
        trio.lowlevel.current_task().name = name
    elif (task := asyncio.current_task()) is not None:
        task.set_name(name)


class Waiter(Protocol):
    """One task's wait for one event."""

    def set(self) -> None:
        """Wake the task, or prevent it from waiting. A second call does nothing."""

    def wait(self) -> Awaitable[object]:
        """Wait until `set` is called. One task may await this, once."""
        ...


def new_waiter() -> Waiter:
    """Return a waiter for the running loop. It costs half as much as `anyio.Event`, which many tasks may await."""
    trio = _trio()
    waiter: Waiter = AsyncioWaiter() if trio is None else trio.Event()
    return waiter


def call_later(run: Any, delay: float, callback: Callable[[], object]) -> Callable[[], object]:
    """Call `callback` in the event loop run `run` after `delay` seconds, unless it has ended; return a cancel function.

    Call this and the cancel function in that run. No task is started.
    """
    if isinstance(run, asyncio.AbstractEventLoop):
        return run.call_later(delay, callback).cancel
    cancel: Callable[[], object] = _on_trio().call_later(run, delay, callback)
    return cancel


def start_thread(run: Any, work: Callable[[], object], then: Callable[[], object]) -> None:
    """Run `work`, which must not raise, in a thread; then call `then` in the event loop run `run`, unless it has ended.

    The thread is a daemon: neither the event loop nor the program waits for it when they end.
    """
    if not isinstance(run, asyncio.AbstractEventLoop):
        _on_trio().start_thread(run, work, then)
        return

    def work_and_report() -> None:
        work()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            run.call_soon_threadsafe(then)

    threading.Thread(target=work_and_report, name="chatscope", daemon=True).start()


def _is_unix(sock: socket.socket) -> bool:
    return sock.family == getattr(socket, "AF_UNIX", None)


async def attach(sock: socket.socket) -> SocketStream:
    """Return the stream of a connected non-blocking socket. The stream owns the socket from now on.

    If cancelled or failed, the socket is closed.
    """
    if _trio() is not None:
        stream_on_trio: SocketStream = _on_trio().stream_of(sock)
        return stream_on_trio
    loop = asyncio.get_running_loop()
    if isinstance(sock, WitnessedSocket):
        witnessed = witnessed_stream_of(loop, sock)
        await loop.create_connection(lambda: witnessed, sock=sock)
        witnessed.start_reading()
        return witnessed
    stream = stream_of(loop, sock)
    if _is_unix(sock):
        await loop.create_unix_connection(lambda: stream, sock=sock)
    else:
        await loop.create_connection(lambda: stream, sock=sock)
    return stream


async def connect_socket(sock: socket.socket, address: Any) -> None:
    """Connect a non-blocking socket to an `address` of its family. The caller closes it on any failure."""
    if _is_unix(sock):
        while True:
            try:
                sock.connect(address)
            except BlockingIOError:
                await anyio.sleep(UNIX_BACKLOG_WAIT)
            else:
                return
    elif _trio() is not None:
        await _on_trio().connect(sock, address)
    else:
        await asyncio.get_running_loop().sock_connect(sock, address)
