"""Sending through a transport that is called directly: the package's own, or one that the user provided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import httpx

from chatscope._http.base import HTTPResponse, decoded, response_of
from chatscope._limits.timeouts import Timeouts
from chatscope.protocol.headers import ResponseHeaders
from chatscope.transport import HTTPTransport
from chatscope.transport.base import RESEND_EXTENSION, ResendHook
from chatscope.transport.request_head import PostTemplate

_UNPATCHED: Final = HTTPTransport.handle_async_request


def sender_by(transport: httpx.AsyncBaseTransport) -> BuiltinSender | TransportSender:
    """Return the shortest way through a transport.

    The package's own is called past httpx's objects, whoever made it, unless a subclass handles requests itself.
    """
    if isinstance(transport, HTTPTransport) and type(transport).handle_async_request is _UNPATCHED:
        return BuiltinSender(transport)
    return TransportSender(transport)


@dataclass(frozen=True, slots=True)
class BuiltinSender:
    """Send by the package's transport, without httpx's requests and responses, which nothing here needs."""

    transport: HTTPTransport

    async def send(self, request: PostTemplate, body: bytes, timeouts: Timeouts, on_resend: ResendHook) -> HTTPResponse:
        """Return the response as soon as its headers have arrived. If cancelled, nothing stays open."""
        if HTTPTransport.handle_async_request is not _UNPATCHED:
            # Code that patches httpx's entry to a transport (respx, a user's test) means this transport, too.
            return await TransportSender(self.transport).send(request, body, timeouts, on_resend)
        received = await self.transport.post(request, body, timeouts.for_transport(), on_resend)
        if isinstance(received, httpx.Response):
            return response_of(received, received.request)
        headers = ResponseHeaders(received.parser.headers)
        stream = decoded(received, headers, limit=self.transport.max_decoded_bytes)
        return HTTPResponse(received.parser.status, headers, stream, is_own=True)


@dataclass(frozen=True, slots=True)
class TransportSender:
    """Send by a transport of the user's, which may do anything to the request."""

    transport: httpx.AsyncBaseTransport

    async def send(self, request: PostTemplate, body: bytes, timeouts: Timeouts, on_resend: ResendHook) -> HTTPResponse:
        """Return the response as soon as its headers have arrived. If cancelled, nothing stays open."""
        extensions = {"timeout": timeouts.for_transport(), RESEND_EXTENSION: on_resend}
        sent = httpx.Request("POST", request.url, headers=request.headers, content=body, extensions=extensions)
        return response_of(await self.transport.handle_async_request(sent), sent)
