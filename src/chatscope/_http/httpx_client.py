"""Sending through a user's `httpx.AsyncClient`, with all its hooks."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from chatscope._http.base import HTTPResponse, response_of
from chatscope._limits.timeouts import Timeouts
from chatscope.transport.base import RESEND_EXTENSION, SENT_EXTENSION, ResendHook, SentHook
from chatscope.transport.request_head import PostTemplate


@dataclass(frozen=True, slots=True)
class HttpxSender:
    """Send through a user's client: its proxies, event hooks, auth and instrumentation apply. No redirects."""

    client: httpx.AsyncClient

    async def send(
        self,
        request: PostTemplate,
        body: bytes,
        timeouts: Timeouts,
        on_resend: ResendHook,
        on_sent: SentHook,
    ) -> HTTPResponse:
        """Return the response as soon as its headers have arrived. If cancelled, httpx closes what it opened."""
        timeout = httpx.Timeout(**timeouts.for_transport())
        sent = self.client.build_request(
            "POST",
            request.url,
            headers=request.headers,
            content=body,
            timeout=timeout,
            extensions={RESEND_EXTENSION: on_resend, SENT_EXTENSION: on_sent},  # its transport may be the package's own
        )
        return response_of(await self.client.send(sent, stream=True, follow_redirects=False), sent)
