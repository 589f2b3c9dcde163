"""The floor on trio: a bare socket, llhttp, msgspec. It has no timeouts or limits, and only trio's own errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from urllib.parse import urlsplit

import httptools
import trio

from benchmarks.contenders.base import Contender, Received
from benchmarks.contenders.floor_http import Response, request_bytes

READ_SIZE = 64 * 1024


class Connection:
    """A kept connection."""

    def __init__(
        self,
        sock: trio.socket.SocketType,
        receive: Callable[[], Awaitable[bytes | bytearray]],
        send: Callable[[bytes], Awaitable[object]],
    ) -> None:
        self.socket = sock
        self._response = Response(stream=False)
        self._receive = receive
        self._send = send
        self._ended = False
        self._parser = httptools.HttpResponseParser(self)

    async def exchange(self, request: bytes, response: Response) -> None:
        """Send a request and read its response to the end."""
        self._ended = False
        self._response = response
        await self._send(request)
        while not self._ended:
            self._parser.feed_data(await self._receive())

    def on_body(self, data: bytes) -> None:
        """Read a part of the body."""
        self._response.feed(data)

    def on_message_complete(self) -> None:
        """Record the end."""
        self._ended = True


class Client(Contender):
    """Connections in a list."""

    async def open(self) -> None:
        """Find the address to connect to."""
        parts = urlsplit(self.address.url)
        self._host, self._port, self._path = parts.hostname or "", parts.port or 0, parts.path
        self._idle: list[Connection] = []
        self.resources.callback(self._close)

    async def stream(self, tokens: int) -> Received:
        """Read a streamed response as it arrives."""
        return await self._send(tokens, stream=True)

    async def complete(self, tokens: int) -> Received:
        """Read a response that is not streamed."""
        return await self._send(tokens, stream=False)

    async def _send(self, tokens: int, *, stream: bool) -> Received:
        connection = self._idle.pop() if self._idle else await self._connect()
        response = Response(stream=stream)
        try:
            await connection.exchange(request_bytes(self._path, tokens, stream=stream), response)
        except BaseException:
            connection.socket.close()
            raise
        self._idle.append(connection)
        return response.received()

    async def _connect(self) -> Connection:
        sock = trio.socket.socket()
        await sock.connect((self._host, self._port))
        sock.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
        context = self.address.context
        if context is None:
            return Connection(sock, partial(sock.recv, READ_SIZE), sock.send)
        stream = trio.SSLStream(trio.SocketStream(sock), context, server_hostname=self._host, https_compatible=True)
        await stream.do_handshake()
        return Connection(sock, stream.receive_some, stream.send_all)

    def _close(self) -> None:
        for connection in self._idle:
            connection.socket.close()
