"""Sending by a transport called directly: the default one, or one that the user handed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import httpx

from chatscope._http.base import Reply, decoded, reply_of
from chatscope._limits.timeouts import Timeouts
from chatscope.protocol.headers import ResponseHeaders
from chatscope.transport import HTTPTransport
from chatscope.transport.base import TimedStream
from chatscope.transport.request_head import PostTemplate

_UNPATCHED: Final = HTTPTransport.handle_async_request


@dataclass(frozen=True, slots=True)
class OwnTransport:
    """Send by the default transport, past httpx's requests and responses: nothing here has a use for them."""

    transport: HTTPTransport

    async def send(self, request: PostTemplate, body: bytes, timeouts: Timeouts) -> Reply:
        """Return the reply as soon as its headers are there."""
        if HTTPTransport.handle_async_request is not _UNPATCHED:
            # Whoever patches httpx's way into a transport (respx, a user's test) means this transport, too.
            return await UsersTransport(self.transport).send(request, body, timeouts)
        answer = await self.transport.post(request, body, timeouts.for_transport())
        if isinstance(answer, httpx.Response):
            return reply_of(answer, answer.request)
        headers = ResponseHeaders(answer.parser.headers)
        stream: TimedStream = answer
        if "content-encoding" in headers:
            stream = decoded(stream, headers["content-encoding"], None)
        return Reply(answer.parser.status, headers, stream, is_own=True)


@dataclass(frozen=True, slots=True)
class UsersTransport:
    """Send by a transport of the user's, which may do to the request whatever it likes."""

    transport: httpx.AsyncBaseTransport

    async def send(self, request: PostTemplate, body: bytes, timeouts: Timeouts) -> Reply:
        """Return the reply as soon as its headers are there."""
        extensions = {"timeout": timeouts.for_transport()}
        sent = httpx.Request("POST", request.url, headers=request.headers, content=body, extensions=extensions)
        return reply_of(await self.transport.handle_async_request(sent), sent)
