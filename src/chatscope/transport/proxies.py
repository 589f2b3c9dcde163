"""Proxies of the environment: the proxy for each origin, and the httpx transport for it.

Here: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, read as the standard library reads them, and sending through
httpx's transport. Not here: tunnelling, which httpx does. A proxy's URL often contains credentials, so logs and errors
show only its host. httpx closes idle connections to a proxy only at its next request.
"""

from __future__ import annotations

import logging
import urllib.request
from collections.abc import AsyncGenerator
from contextlib import suppress
from time import perf_counter_ns
from typing import TYPE_CHECKING, cast

import anyio
import httpx

from chatscope.transport.base import TimedStream
from chatscope.transport.drain import END_GRACE
from chatscope.transport.errors import UnusableProxyError, note_proxy
from chatscope.transport.httpx_response import decoded_response

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from chatscope.transport.pool import Origin

__all__ = ["HttpxBody", "Proxies"]

logger = logging.getLogger("chatscope.transport")


class Proxies:
    """The environment's proxies, read once, and an httpx transport for each that is used."""

    def __init__(self, context: Callable[[], ssl.SSLContext], *, max_idle: int, idle_expiry: float) -> None:
        self._environment = urllib.request.getproxies()
        # No limit on connections: httpx would queue for them, and it loses slots when a queued request is cancelled.
        self._limits = httpx.Limits(max_keepalive_connections=max_idle, keepalive_expiry=idle_expiry)
        self._context = context
        self._transports: dict[str, httpx.AsyncHTTPTransport] = {}

    def transport_for(self, origin: Origin) -> httpx.AsyncHTTPTransport | None:
        """Return the transport through the proxy for `origin`; `None` if it is reached directly."""
        if not self._environment:
            return None
        proxy = self._environment.get(origin.scheme) or self._environment.get("all")
        if not proxy or urllib.request.proxy_bypass(f"{origin.host}:{origin.port}"):
            return None
        if proxy not in self._transports:
            self._transports[proxy] = self._create(proxy)
        logger.debug(
            "%s://%s:%d goes through the proxy %s of the environment, by httpx's own transport",
            origin.scheme, origin.host, origin.port, _host(proxy),
        )  # fmt: skip
        return self._transports[proxy]

    async def send(
        self, proxy: httpx.AsyncHTTPTransport, request: httpx.Request, *, max_decoded_bytes: int
    ) -> httpx.Response:
        """Send a request through a proxy, and return the response with its body decoded.

        Raises:
            httpx.RequestError: as httpx's transport; an error of the proxy names it.
        """
        try:
            response = await proxy.handle_async_request(request)
        except httpx.RequestError as exc:
            exc.request = request
            note_proxy(exc, self._host_of(proxy))
            raise
        stream = HttpxBody(response, request)
        try:
            return decoded_response(
                response.status_code,
                response.headers.raw,
                stream,
                response.extensions,
                request,
                max_decoded_bytes=max_decoded_bytes,
            )
        except BaseException:
            await stream.aclose()
            raise

    async def aclose(self) -> None:
        """Close the transports."""
        while self._transports:
            await self._transports.popitem()[1].aclose()

    def _host_of(self, transport: httpx.AsyncHTTPTransport) -> str:
        """Return the host and port of the proxy that a transport goes through."""
        return next((_host(proxy) for proxy, known in self._transports.items() if known is transport), "")

    def _create(self, proxy: str) -> httpx.AsyncHTTPTransport:
        url = proxy if "://" in proxy else f"http://{proxy}"
        try:
            return httpx.AsyncHTTPTransport(proxy=url, limits=self._limits, verify=self._context())
        except ImportError as exc:
            raise UnusableProxyError(f"the environment's proxy at {_host(proxy)} cannot be used: {exc}") from exc
        except (ValueError, httpx.InvalidURL):
            # Not chained, because httpx's message quotes the URL.
            raise UnusableProxyError(
                f"the environment's proxy at {_host(proxy)} cannot be used: not a proxy's URL"
            ) from None


class HttpxBody(TimedStream):
    """The body of a response of httpx's own transport, with the time at which each part arrived."""

    def __init__(self, response: httpx.Response, request: httpx.Request) -> None:
        self.read_ns = perf_counter_ns()
        self._request = request
        self._stream = cast("httpx.AsyncByteStream", response.stream)
        self._parts = aiter(self._stream)

    async def __anext__(self) -> bytes:
        """Return the next bytes. If cancelled, httpx closes the connection."""
        try:
            data = await anext(self._parts)
        except httpx.RequestError as exc:
            exc.request = self._request
            raise
        self.read_ns = perf_counter_ns()
        return data

    async def aclose(self, *, complete: bool = False) -> None:
        """Close the stream. With `complete`, read its end first if it arrives soon: httpx keeps no connection else."""
        if complete:
            with suppress(httpx.RequestError, StopAsyncIteration), anyio.move_on_after(END_GRACE):
                while True:
                    await anext(self._parts)
        if isinstance(self._parts, AsyncGenerator):
            await self._parts.aclose()
        await self._stream.aclose()


def _host(proxy: str) -> str:
    """Return the part of a proxy's URL that may be shown."""
    return proxy.rpartition("@")[2].rpartition("//")[2].partition("/")[0]
