"""How a request gets onto the wire: by a transport called directly, or through a user's client with all its hooks."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Final, Protocol

import anyio
import httpx

from chatscope.policy.deadlines import CLOSE_GRACE, Timeouts
from chatscope.protocol.headers import Headers
from chatscope.transport import HTTPTransport
from chatscope.transport.base import TimedStream
from chatscope.transport.decoding import DecodedStream, decoders_for
from chatscope.transport.proxies import TimedBody
from chatscope.transport.request import PreparedPost
from chatscope.transport.transport import MAX_DECODED_BYTES


class Reply:
    """A reply whose headers are there and whose body is still to be read.

    Attributes:
        status: its HTTP status.
        headers: its headers, names in lower case.
        stream: its body, decoded.
    """

    __slots__ = ("_is_own", "headers", "status", "stream")

    def __init__(self, status: int, headers: Headers, stream: TimedStream, *, is_own: bool) -> None:
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

    async def send(self, request: PreparedPost, body: bytes, timeouts: Timeouts) -> Reply:
        """Return the reply as soon as its headers are there. Cancelled, nothing of it stays open.

        Raises:
            httpx.RequestError: no reply came.
        """
        ...


_UNPATCHED: Final = HTTPTransport.handle_async_request


@dataclass(frozen=True, slots=True)
class OwnTransport:
    """Send by the default transport, past httpx's requests and responses: nothing here has a use for them."""

    transport: HTTPTransport

    async def send(self, request: PreparedPost, body: bytes, timeouts: Timeouts) -> Reply:
        """Return the reply as soon as its headers are there."""
        if HTTPTransport.handle_async_request is not _UNPATCHED:
            # Whoever patches httpx's way into a transport (respx, a user's test) means this transport, too.
            return await UsersTransport(self.transport).send(request, body, timeouts)
        answer = await self.transport.post(request, body, timeouts.for_transport())
        if isinstance(answer, httpx.Response):
            return _reply(answer, answer.request)
        headers = Headers(answer.parser.headers)
        stream: TimedStream = answer
        if "content-encoding" in headers:
            stream = decoded(stream, headers["content-encoding"], None)
        return Reply(answer.parser.status, headers, stream, is_own=True)


@dataclass(frozen=True, slots=True)
class UsersTransport:
    """Send by a transport of the user's, which may do to the request whatever it likes."""

    transport: httpx.AsyncBaseTransport

    async def send(self, request: PreparedPost, body: bytes, timeouts: Timeouts) -> Reply:
        """Return the reply as soon as its headers are there."""
        extensions = {"timeout": timeouts.for_transport()}
        sent = httpx.Request("POST", request.url, headers=request.headers, content=body, extensions=extensions)
        return _reply(await self.transport.handle_async_request(sent), sent)


@dataclass(frozen=True, slots=True)
class UsersClient:
    """Send through a user's client: its proxies, event hooks, auth and instrumentation apply. No redirects."""

    client: httpx.AsyncClient

    async def send(self, request: PreparedPost, body: bytes, timeouts: Timeouts) -> Reply:
        """Return the reply as soon as its headers are there."""
        timeout = httpx.Timeout(**timeouts.for_transport())
        sent = self.client.build_request("POST", request.url, headers=request.headers, content=body, timeout=timeout)
        return _reply(await self.client.send(sent, stream=True, follow_redirects=False), sent)


def _reply(response: httpx.Response, request: httpx.Request) -> Reply:
    headers = Headers(response.headers.raw)
    stream = response.stream
    if isinstance(stream, TimedStream):
        return Reply(response.status_code, headers, stream, is_own=True)
    body: TimedStream = TimedBody(response, request)
    if codings := headers.get("content-encoding"):
        # Not httpx's own decoding: its generators would be left to the garbage collector, of which trio warns.
        body = decoded(body, codings, request)
    return Reply(response.status_code, headers, body, is_own=False)


def decoded(stream: TimedStream, codings: str, request: httpx.Request | None) -> TimedStream:
    """Return a body without the codings that its `content-encoding` names, as far as they are known."""
    decoders = decoders_for(codings.encode("latin-1"), request)
    return DecodedStream(stream, decoders, limit=MAX_DECODED_BYTES, request=request) if decoders else stream
