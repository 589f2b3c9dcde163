"""What the layers of this room hand to each other: a stream of a socket's bytes, and one of a response's.

Here: the two interfaces, and the size of a read. Not here: anything that does something.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Protocol, Self

import httpx

__all__ = ["READ_SIZE", "RESEND_EXTENSION", "ResendHook", "SocketStream", "TimedStream"]

# One read of a socket. From 128 KiB on malloc asks the kernel for every single buffer, which costs more than the read
# (python -m timeit -s "import socket; a, b = socket.socketpair()" "a.send(b'x'); b.recv(262144)", against 65536).
READ_SIZE = 64 * 1024

ResendHook = Callable[[httpx.TransportError], bool]
"""Called with the error of a lost connection before its request is sent again on a fresh one.

Returning `False` forbids that, and the error is raised. It is not called where the lost connection had refused the
request before taking a byte of it: no server can have read anything then, so nothing is sent twice.
"""

RESEND_EXTENSION = "chatscope.on_resend"
"""The key of a `ResendHook` in `httpx.Request.extensions`. Without a hook, such requests are sent again."""


class SocketStream(Protocol):
    """One connected socket, used by one task at a time. Whatever goes wrong with it is an `OSError`.

    `receive` and `flush` may be cancelled without losing bytes. `abort` and `abandon` never wait.
    """

    @property
    def read_ns(self) -> int:
        """`time.perf_counter_ns()` at which the bytes returned last were read from the socket."""
        ...

    async def receive(self, within: float | None) -> bytes:
        """Return what one read of the socket brought, `b""` at its end.

        Raises `TimeoutError` if nothing comes `within` so many seconds.
        """
        ...

    async def pump(self, take: Callable[[bytes], bool], within: float | None) -> bool:
        """Hand over each read as it comes, until `take` says that it is enough or the peer has ended.

        Returns whether it was the former. `take` may be called by the event loop itself, outside of any task, which
        saves waking one for every read. What it raises comes out here. Raises `TimeoutError` as `receive` does.
        """
        ...

    @property
    def write_refused(self) -> bool:
        """Whether the system refused the last write before it took a byte of it. The stream is dead then."""
        ...

    def write(self, data: bytes) -> None:
        """Send what the system takes at once and keep the rest for `flush`."""
        ...

    async def flush(self, within: float | None) -> bool:
        """Wait until the rest is sent, or until something can be received; return whether it was the former.

        Raises `TimeoutError` if there is no progress `within` so many seconds.
        """
        ...

    def unsent(self) -> bool:
        """Say whether something written is still to be sent."""
        ...

    def poll(self) -> bytes | None:
        """Return what `receive` would return at once, `None` if it would wait, `b""` also where it would fail."""
        ...

    def is_quiet(self) -> bool:
        """Say whether nothing has come, nor the end: asked of an idle connection, to which nothing is owed."""
        ...

    def watch(self, on_lost: Callable[[], object] | None) -> bool:
        """Have `on_lost` called when the peer closes or sends without end; at once if it has closed already.

        Returns whether the loop reports that at all. asyncio does; trio reads only in tasks.
        """
        ...

    def abort(self) -> None:
        """Close the socket at once, unsent bytes and all. Calling it again does nothing."""
        ...

    def abandon(self) -> None:
        """Close the socket from outside the event loop run that it belongs to."""
        ...


class TimedStream(httpx.AsyncByteStream):
    """The body of a response, to be iterated over once, that says when its newest bytes arrived.

    A plain iterator, no generator: there is nothing to finalize, and no scope is open while the reader holds a chunk.
    """

    read_ns: int
    """`time.perf_counter_ns()` at which the newest bytes returned were read from the socket."""

    @property
    def is_over(self) -> bool:
        """Whether all of the body has been handed out, as far as that is known without reading on."""
        return False

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    @abstractmethod
    async def __anext__(self) -> bytes:
        """Return the next bytes."""

    async def aclose(self, *, complete: bool = False) -> None:
        """Give up what is left of the body.

        Args:
            complete: nothing of use is left, only the end: the connection may be kept, for when that has come.
        """

    async def pump(self, take: Callable[[bytes], bool]) -> bool:
        """Hand over what is left of the body as it is read, until its end or until `take` says that it is enough.

        Returns whether it was the latter. `take` may be called by the event loop itself, outside of any task: it must
        not need one.
        """
        async for data in self:
            if take(data):
                return True
        return False
