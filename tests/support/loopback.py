"""Peers on raw sockets, for what the simulator cannot play: it answers requests, these don't even read them."""

from __future__ import annotations

import re
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Any, Protocol

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.tls import TLSStream

Handler = Callable[[Any], Awaitable[None]]


class Server(Protocol):
    """What a client connects to: the simulator, or a peer on raw sockets."""

    @property
    def connections_open(self) -> int: ...

    async def __aenter__(self) -> str: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None: ...


class Listener:
    """A TCP listener that does to each connection what a handler says, and closes it then.

    Args:
        handler: takes the connection's stream.
        context: the handler gets the connection through TLS.
        scheme: what the URL says, whatever is spoken.
    """

    def __init__(self, handler: Handler, *, context: ssl.SSLContext | None = None, scheme: str | None = None) -> None:
        self.connections_open = 0
        self._handler = handler
        self._context = context
        self._scheme = scheme or ("http" if context is None else "https")
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> str:
        listener: Any = await anyio.create_tcp_listener(local_host="127.0.0.1")
        await self._stack.enter_async_context(listener)
        port = listener.extra(SocketAttribute.local_port)
        group = await self._stack.enter_async_context(anyio.create_task_group())
        self._stack.callback(group.cancel_scope.cancel)
        group.start_soon(listener.serve, self._serve)
        return f"{self._scheme}://127.0.0.1:{port}/v1"

    async def __aexit__(self, *exc: object) -> bool | None:
        await self._stack.aclose()
        return None

    async def _serve(self, stream: SocketStream) -> None:
        self.connections_open += 1
        try:
            with suppress(anyio.BrokenResourceError, anyio.EndOfStream, ssl.SSLError):
                if self._context is None:
                    await self._handler(stream)
                else:
                    await self._handler(await TLSStream.wrap(stream, ssl_context=self._context, server_side=True))
        finally:
            await anyio.aclose_forcefully(stream)
            self.connections_open -= 1


async def close(stream: SocketStream) -> None:
    """Do nothing: the connection is closed then."""


async def reset(stream: SocketStream) -> None:
    """Have the closing of the connection reset it."""
    stream.extra(SocketAttribute.raw_socket).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def silence(stream: SocketStream) -> None:
    """Take everything in and say nothing, until the client leaves."""
    while True:
        await stream.receive()


def after_hello(then: Handler) -> Handler:
    """Do something once the first bytes, a TLS client's hello, have come."""

    async def handler(stream: SocketStream) -> None:
        await stream.receive()
        await then(stream)

    return handler


def says(data: bytes) -> Handler:
    """Say something once the first bytes have come, then fall silent."""

    async def handler(stream: SocketStream) -> None:
        await stream.receive()
        await stream.send(data)
        await silence(stream)

    return handler


def says_and_leaves(data: bytes) -> Handler:
    """Say something once the first bytes have come, and cut the connection: through TLS, without its farewell."""

    async def handler(stream: SocketStream) -> None:
        await stream.receive()
        await stream.send(data)

    return handler


def responds(response: bytes) -> Handler:
    """Read one request, however large, without a look at it; say something and wait for the client to leave."""

    async def handler(stream: SocketStream) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            received += await stream.receive()
        head, _, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        assert length is not None
        missing = int(length[1]) - len(body)
        while missing > 0:
            missing -= len(await stream.receive(1024 * 1024))
        await stream.send(response)
        await silence(stream)

    return handler


class Nobody:
    """An address at which no connection comes about.

    Args:
        full: connections are neither accepted nor refused, because the queue of the listener is full; otherwise they
            are refused.
    """

    connections_open = 0

    def __init__(self, *, full: bool = False) -> None:
        self._full = full
        self._sockets: list[socket.socket] = []

    async def __aenter__(self) -> str:
        held = socket.socket()
        self._sockets.append(held)
        held.bind(("127.0.0.1", 0))  # held, so that nobody else gets the port meanwhile
        address = held.getsockname()
        if self._full:
            held.listen(0)
            for _ in range(4):
                filler = socket.socket()
                self._sockets.append(filler)
                filler.setblocking(False)
                filler.connect_ex(address)
        return f"http://127.0.0.1:{address[1]}/v1"

    async def __aexit__(self, *exc: object) -> bool | None:
        for held in self._sockets:
            held.close()
        return None


class Nowhere:
    """A host whose name no resolver knows.

    The system's resolver refuses a label of more than 63 bytes and a name of more than 255 (RFC 1035, section 2.3.4)
    by itself: nobody on any network is asked.
    """

    connections_open = 0

    def __init__(self, *labels: int) -> None:
        self._host = ".".join(["x" * length for length in labels] + ["invalid"])

    async def __aenter__(self) -> str:
        return f"http://{self._host}/v1"

    async def __aexit__(self, *exc: object) -> bool | None:
        return None
