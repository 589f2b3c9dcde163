"""The senders' common interface: a request goes in, a response with an unread body comes out."""

from __future__ import annotations

from contextlib import suppress
from math import inf
from typing import Protocol

import anyio
import httpx

from chatscope._limits.timeouts import CLOSE_GRACE, Timeouts
from chatscope.protocol.headers import ResponseHeaders
from chatscope.transport.base import TimedStream
from chatscope.transport.decoding import DecodedStream, decoders_for
from chatscope.transport.proxies import HttpxBody
from chatscope.transport.request_head import PostTemplate
from chatscope.transport.transport import MAX_DECODED_BYTES


class Reply:
    """A reply whose headers are there and whose body is still to be read.

    Attributes:
        status: its HTTP status.
        headers: its headers, names in lower case.
        stream: its body, decoded.
    """

    __slots__ = ("_is_own", "headers", "status", "stream")

    def __init__(self, status: int, headers: ResponseHeaders, stream: TimedStream, *, is_own: bool) -> None:
        self.status = status
        self.headers = headers
        self.stream = stream
        self._is_own = is_own

    async def close(self, *, complete: bool) -> None:
        """Close it, whatever is left of it. It takes `CLOSE_GRACE` seconds at most, also when cancelled.

        Args:
            complete: nothing more is expected but the end of the body, after which the connection can be used again.
                It is not waited for.
        """
        if self._is_own:
            # Waits for nothing but, behind a proxy, the end; cancelled there, httpx closes its connection by itself.
            await self.stream.aclose(complete=complete)
            return
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLOSE_GRACE):
            if complete:
                with suppress(httpx.RequestError, StopAsyncIteration), anyio.CancelScope(deadline=-inf):
                    await self.stream.__anext__()
            with suppress(httpx.RequestError):
                await self.stream.aclose()


class Sender(Protocol):
    """Whatever sends a request."""

    async def send(self, request: PostTemplate, body: bytes, timeouts: Timeouts) -> Reply:
        """Return the reply as soon as its headers are there. Cancelled, nothing of it stays open.

        Raises:
            httpx.RequestError: no reply came.
        """
        ...


def reply_of(response: httpx.Response, request: httpx.Request) -> Reply:
    """Return the reply that an httpx response is."""
    headers = ResponseHeaders(response.headers.raw)
    stream = response.stream
    if isinstance(stream, TimedStream):
        return Reply(response.status_code, headers, stream, is_own=True)
    body: TimedStream = HttpxBody(response, request)
    if codings := headers.get("content-encoding"):
        # Not httpx's own decoding: its generators would be left to the garbage collector, of which trio warns.
        body = decoded(body, codings, request)
    return Reply(response.status_code, headers, body, is_own=False)


def decoded(stream: TimedStream, codings: str, request: httpx.Request | None) -> TimedStream:
    """Return a body without the codings that its `content-encoding` names, as far as they are known."""
    decoders = decoders_for(codings.encode("latin-1"), request)
    return DecodedStream(stream, decoders, limit=MAX_DECODED_BYTES, request=request) if decoders else stream
