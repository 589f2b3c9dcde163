"""The floor on asyncio and uvloop: a bare protocol, llhttp, msgspec.

It is not a client: it has no timeouts or limits, and only asyncio's own errors. A streamed response is read inside
`data_received`; no task is woken before its end.
"""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import httptools

from benchmarks.contenders.base import Contender, Received
from benchmarks.contenders.floor_http import Response, request_bytes


class Connection(asyncio.Protocol):
    """A kept connection."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.response = Response(stream=False)
        self.ended: asyncio.Future[None] | None = None
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = transport  # type: ignore[assignment]  # the loop's own words: a Transport for sockets

    def data_received(self, data: bytes) -> None:
        """Parse the bytes of one read."""
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        """Read a part of the body."""
        self.response.feed(data)

    def on_message_complete(self) -> None:
        """Wake the task that waits for the response."""
        if self.ended is not None and not self.ended.done():
            self.ended.set_result(None)


class Client(Contender):
    """Connections in a list."""

    async def open(self) -> None:
        """Find the address to connect to."""
        parts = urlsplit(self.address.url)
        self._host, self._port, self._path = parts.hostname or "", parts.port or 0, parts.path
        self._loop = asyncio.get_running_loop()
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
        connection.response = response = Response(stream=stream)
        connection.ended = self._loop.create_future()
        connection.transport.write(request_bytes(self._path, tokens, stream=stream))
        try:
            await connection.ended
        except BaseException:
            connection.transport.abort()
            raise
        self._idle.append(connection)
        return response.received()

    async def _connect(self) -> Connection:
        context = self.address.context
        _, connection = await self._loop.create_connection(Connection, self._host, self._port, ssl=context)
        return connection

    def _close(self) -> None:
        for connection in self._idle:
            connection.transport.abort()
