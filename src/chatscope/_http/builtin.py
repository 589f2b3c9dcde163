"""Sending by calling a transport directly: the package's own, or one that the user provided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import httpx

from chatscope._http.base import HTTPResponse, decoded, response_of
from chatscope._limits.timeouts import Timeouts
from chatscope.protocol.headers import ResponseHeaders
from chatscope.transport import HTTPTransport
from chatscope.transport.base import RESEND_EXTENSION, SENT_EXTENSION, ResendHook, SentHook
from chatscope.transport.request_head import PostTemplate

_UNPATCHED: Final = HTTPTransport.handle_async_request


def sender_by(transport: httpx.AsyncBaseTransport) -> BuiltinSender | TransportSender:
    """Return the fastest sender for a transport.

    The package's own transport is called without httpx's request and response objects, even if the user created it,
    unless a subclass overrides `handle_async_request`.
    """
    if isinstance(transport, HTTPTransport) and type(transport).handle_async_request is _UNPATCHED:
        return BuiltinSender(transport)
    return TransportSender(transport)


class BuiltinSender:
    """Send through the package's transport, without creating httpx's request and response objects."""

    __slots__ = ("_for_transport", "_timeouts", "transport")

    def __init__(self, transport: HTTPTransport) -> None:
        self.transport = transport
        self._timeouts = Timeouts()
        self._for_transport = self._timeouts.for_transport()

    async def send(
        self, request: PostTemplate, body: bytes, timeouts: Timeouts, on_resend: ResendHook, on_sent: SentHook
    ) -> HTTPResponse:
        """Return the response as soon as its headers have arrived. If cancelled, nothing stays open."""
        if HTTPTransport.handle_async_request is not _UNPATCHED:
            # Code that patches `handle_async_request` (respx, a user's test) expects its patch to be called.
            return await TransportSender(self.transport).send(request, body, timeouts, on_resend, on_sent)
        if timeouts is not self._timeouts:  # nearly all requests have those of the client
            self._timeouts, self._for_transport = timeouts, timeouts.for_transport()
        response = await self.transport.post(request, body, self._for_transport, on_resend, on_sent)
        if isinstance(response, httpx.Response):
            return response_of(response, response.request)
        headers = ResponseHeaders(response.head, response.lower_head)
        if (codings := headers.listed("content-encoding")) is None:
            return HTTPResponse(response.status, headers, response, is_own=True)
        stream = decoded(response, codings, limit=self.transport.max_decoded_bytes)
        return HTTPResponse(response.status, headers, stream, is_own=True)


@dataclass(frozen=True, slots=True)
class TransportSender:
    """Send through a user's transport, which may change the request."""

    transport: httpx.AsyncBaseTransport

    async def send(
        self, request: PostTemplate, body: bytes, timeouts: Timeouts, on_resend: ResendHook, on_sent: SentHook
    ) -> HTTPResponse:
        """Return the response as soon as its headers have arrived. If cancelled, nothing stays open."""
        extensions = {"timeout": timeouts.for_transport(), RESEND_EXTENSION: on_resend, SENT_EXTENSION: on_sent}
        sent = httpx.Request("POST", request.url, headers=request.headers, content=body, extensions=extensions)
        return response_of(await self.transport.handle_async_request(sent), sent)
