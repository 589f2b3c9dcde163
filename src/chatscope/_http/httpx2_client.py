"""Sending through a user's `httpx2.AsyncClient`, which has httpx's interface in another package.

httpx2 is not a dependency and is not imported here: callers that pass its client have already imported it.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, Protocol

import httpx

from chatscope._http.base import HTTPResponse, Sender, decoded
from chatscope._http.httpx_client import HttpxSender
from chatscope._limits.timeouts import Timeouts
from chatscope.protocol.headers import ResponseHeaders
from chatscope.transport.base import RESEND_EXTENSION, SENT_EXTENSION, ResendHook, SentHook, TimedStream
from chatscope.transport.request_head import PostTemplate


class HTTPClient(Protocol):
    """The argument `http_client=`: an `httpx.AsyncClient` or an `httpx2.AsyncClient`."""

    def build_request(
        self,
        method: str,
        url: str,
        *,
        content: bytes,
        headers: Sequence[tuple[bytes, bytes]],
        timeout: tuple[float | None, float | None, float | None, float | None],
        extensions: Mapping[str, Any],
    ) -> Any:
        """Return a request, with everything that the client adds to it."""

    async def send(self, request: Any, *, stream: bool, follow_redirects: bool) -> Any:
        """Return the response."""


def sender_through(client: HTTPClient) -> Sender:
    """Return a sender that sends through a user's client.

    Raises:
        ValueError: the client is neither httpx's nor httpx2's.
    """
    if isinstance(client, httpx.AsyncClient):
        return HttpxSender(client)
    httpx2 = sys.modules.get("httpx2")
    if httpx2 is not None and isinstance(client, httpx2.AsyncClient):
        return Httpx2Sender(client)
    raise ValueError(f"http_client must be an httpx.AsyncClient or an httpx2.AsyncClient, not {type(client).__name__}")


@dataclass(frozen=True, slots=True)
class Httpx2Sender:
    """Send through a user's client: its proxies, event hooks, auth and instrumentation apply. No redirects."""

    client: HTTPClient

    async def send(
        self,
        request: PostTemplate,
        body: bytes,
        timeouts: Timeouts,
        on_resend: ResendHook,
        on_sent: SentHook,
    ) -> HTTPResponse:
        """Return the response as soon as its headers have arrived. If cancelled, httpx2 closes what it opened."""
        timeout = timeouts.for_transport()
        sent = self.client.build_request(
            "POST",
            str(request.url),
            content=body,
            headers=request.headers.raw,
            timeout=(timeout["connect"], timeout["read"], timeout["write"], timeout["pool"]),
            extensions={RESEND_EXTENSION: on_resend, SENT_EXTENSION: on_sent},  # its transport may be the package's own
        )
        response = await self.client.send(sent, stream=True, follow_redirects=False)
        headers = ResponseHeaders.of(response.headers.raw)
        stream = decoded(_Body(response.stream), headers.listed("content-encoding"))
        return HTTPResponse(response.status_code, headers, stream, is_own=False)


class _Body(TimedStream):
    """The body of a response, with the time at which each part arrived."""

    def __init__(self, stream: Any) -> None:
        self.read_ns = perf_counter_ns()
        self._stream = stream
        self._parts = aiter(stream)

    async def __anext__(self) -> bytes:
        """Return the next bytes. If cancelled, httpx2 closes the connection."""
        data: bytes = await anext(self._parts)
        self.read_ns = perf_counter_ns()
        return data

    async def aclose(self, *, complete: bool = False) -> None:  # noqa: ARG002 - httpx2 decides what becomes of its connection
        """Close the stream."""
        if isinstance(self._parts, AsyncGenerator):
            await self._parts.aclose()
        await self._stream.aclose()
