"""The interfaces between the layers of this package: a socket's stream of bytes, and the body of a response.

Here: the interfaces, the resend hook and the size of a read. Not here: implementations.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Protocol, Self

import httpx

__all__ = ["READ_SIZE", "RESEND_EXTENSION", "SENT_EXTENSION", "ResendHook", "SentHook", "SocketStream", "TimedStream"]

# One read of a socket. From 128 KiB on malloc asks the kernel for every single buffer, which costs more than the read
# (python -m timeit -s "import socket; a, b = socket.socketpair()" "a.send(b'x'); b.recv(262144)", against 65536).
READ_SIZE = 64 * 1024

ResendHook = Callable[[httpx.TransportError], bool]
"""Called with the error of a lost connection before its request is sent again on a fresh one.

If it returns `False`, the request is not sent again, and the error is raised. The hook is not called if the lost
connection accepted no byte of the request: no server can have read anything then, so nothing is sent twice.
"""

RESEND_EXTENSION = "chatscope.on_resend"
"""The key of a `ResendHook` in `httpx.Request.extensions`. Without a hook, such requests are sent again."""


SentHook = Callable[[int | None], object]
"""Called when a request has been written, before its response: with the nanoseconds that connecting took, or `None` if
a kept connection was used. The event loop waits for it, so it must be quick."""

SENT_EXTENSION = "chatscope.on_sent"
"""The key of a `SentHook` in `httpx.Request.extensions`."""


class SocketStream(Protocol):
    """One connected socket, used by one task at a time. Every failure is an `OSError`.

    `receive` and `flush` lose no bytes if cancelled. `abort` and `abandon` never wait.
    """

    @property
    def read_ns(self) -> int:
        """`time.perf_counter_ns()` at which the bytes returned last were read from the socket."""
        ...

    async def receive(self, within: float | None) -> bytes:
        """Return the bytes of one read of the socket, `b""` at its end.

        Raises `TimeoutError` if nothing arrives `within` that many seconds.
        """
        ...

    async def pump(self, on_bytes: Callable[[bytes], bool], within: float | None) -> bool:
        """Pass each read to `on_bytes` until that returns `True`, or the peer has ended.

        Returns whether it returned `True`. The event loop may call `on_bytes` itself, outside of any task, which saves
        waking one for every read. An exception of `on_bytes` is raised here. Raises `TimeoutError` as `receive` does.
        """
        ...

    @property
    def write_refused(self) -> bool:
        """Whether the system refused the last write without accepting a byte. The stream is then dead."""
        ...

    def write(self, data: bytes) -> bool:
        """Send as much as the system accepts at once, and keep the rest for `flush`.

        Returns `True` if `flush` would not wait and nothing has been received.
        """
        ...

    async def flush(self, within: float | None) -> bool:
        """Wait until the rest is sent, or until something can be received; return whether the rest was sent.

        Raises `TimeoutError` if there is no progress `within` that many seconds.
        """
        ...

    def unsent(self) -> bool:
        """Return whether written bytes have not been sent yet."""
        ...

    def poll(self) -> bytes | None:
        """Return what `receive` would return at once, `None` if it would wait, and `b""` also if it would fail."""
        ...

    def is_quiet(self) -> bool:
        """Return whether neither bytes nor the end have arrived. For idle connections, on which nothing is expected."""
        ...

    def watch(self, on_lost: Callable[[], object] | None) -> bool:
        """Call `on_lost` when the peer closes or sends endlessly; at once if it has closed already.

        Returns whether the loop can report that. asyncio can; trio reads only in tasks.
        """
        ...

    def abort(self) -> None:
        """Close the socket at once, and drop unsent bytes. Calling it again does nothing."""
        ...

    def abandon(self) -> None:
        """Close the socket from outside the event loop run that it belongs to."""
        ...


class TimedStream(httpx.AsyncByteStream):
    """The body of a response, to be iterated over once, with the time at which its newest bytes arrived.

    It is a plain iterator and not a generator: there is nothing to finalize, and no scope is open while the reader
    holds a chunk.
    """

    read_ns: int
    """`time.perf_counter_ns()` at which the newest bytes returned were read from the socket."""

    @property
    def is_over(self) -> bool:
        """Whether the whole body has been returned, as far as is known without reading further."""
        return False

    def rest(self) -> bytes | None:
        """Return the rest of the body if it has arrived. Nearly every body that is not streamed has."""
        return None

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    @abstractmethod
    async def __anext__(self) -> bytes:
        """Return the next bytes."""

    async def aclose(self, *, complete: bool = False) -> None:
        """Give up the rest of the body.

        Args:
            complete: Only the end of the body is still expected, and the connection may be kept for when it arrives.
        """

    async def pump(self, on_bytes: Callable[[bytes], bool]) -> bool:
        """Pass the rest of the body to `on_bytes` as it is read, up to its end or until that returns `True`.

        Returns whether it returned `True`. The event loop may call `on_bytes` itself, outside of any task.
        """
        async for data in self:
            if on_bytes(data):
                return True
        return False
