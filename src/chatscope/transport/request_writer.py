"""Sends a request on a connection whose server may respond or disconnect before it has read everything.

Here: writing bytes, waiting, and giving up. Not here: their format (`request_head`), the response (`http1`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import httpx

from chatscope.transport.errors import Operation, translated
from chatscope.transport.request_head import LAST_CHUNK, chunk_of

if TYPE_CHECKING:
    from chatscope.transport.base import SocketStream
    from chatscope.transport.request_head import RequestHead

__all__ = ["RequestWriter"]


class RequestWriter:
    """Writes one request.

    A server often refuses a body (413, say) by responding and closing, and its response matters more than the failed
    write. So a failed write is kept in `error`, and the reader raises it only if there is no response.
    """

    __slots__ = ("_request", "_stream", "_timeout", "error")

    def __init__(self, stream: SocketStream, request: httpx.Request | None, timeout: float | None) -> None:
        self._stream = stream
        self._request = request
        self._timeout = timeout
        self.error: OSError | None = None

    async def write(self, data: bytes, *, listen: bool = False) -> bool:
        """Send `data`; return `False` if the server responded or disconnected before it was all sent.

        With `listen`, return `False` also if the server has responded after it: the rest need not be sent then.
        """
        try:
            is_sent = self._stream.write(data)
        except OSError as exc:
            self.error = exc
            return False
        return (is_sent and not listen) or await self.flush(listen=listen)

    async def flush(self, *, listen: bool = False) -> bool:
        """Wait until everything written is sent; return `False` as `write` does."""
        try:
            return await self._stream.flush(self._timeout) or not (listen or self._stream.unsent())
        except TimeoutError as exc:
            raise translated(exc, Operation.WRITE, self._request) from exc
        except OSError as exc:
            self.error = exc
            return False

    async def send(self, head: RequestHead) -> bool:
        """Send a request, with what its stream yields as the body.

        Returns whether all of it was sent; otherwise the server has responded or disconnected. If cancelled, the
        connection cannot be used further. Raises `httpx.TransportError`.
        """
        if self._request is None or not isinstance(self._request.stream, httpx.AsyncByteStream):
            raise TypeError("an asynchronous transport cannot send a synchronous stream")
        if not await self.write(head.data, listen=True):
            return False
        length = 0
        parts = aiter(self._request.stream)
        try:
            async for part in parts:
                length += len(part)
                if head.length is not None and length > head.length:
                    raise httpx.LocalProtocolError(f"the body is longer than its Content-Length of {head.length}")
                # A response may follow the last byte at once. Only before that is it early.
                data, early = (chunk_of(part), True) if head.chunked else (part, length != head.length)
                if part and not await self.write(data, listen=early):
                    return False
        finally:
            # httpx makes an async generator of any body. Left half-way, it would wait for the garbage collector.
            if isinstance(parts, AsyncGenerator):
                await parts.aclose()
        if head.length is not None and length < head.length:
            raise httpx.LocalProtocolError(f"the body has {length} bytes, its Content-Length is {head.length}")
        return await self.write(LAST_CHUNK) if head.chunked else True
