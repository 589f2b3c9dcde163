"""The transport itself: chooses the connection of a request, and decides whether to send it again.

Here: `HTTPTransport`, the only entry point. It owns the pool of its current event-loop run, the TLS context and the
proxies. Not here: one request on its connection (`http1`), connecting (`connect`), idle connections (`pool`),
the response that httpx gets (`httpx_response`).
"""

from __future__ import annotations

import ssl
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import anyio
import httpx
from anyio.lowlevel import cancel_shielded_checkpoint

from chatscope.transport.ahead import open_ahead
from chatscope.transport.base import RESEND_EXTENSION, SENT_EXTENSION
from chatscope.transport.connect import connect
from chatscope.transport.drain import drain
from chatscope.transport.errors import Operation, translated
from chatscope.transport.http1 import ResponseStream
from chatscope.transport.httpx_response import response_from
from chatscope.transport.pool import Counts, Origin, Pool, TransportStatistics
from chatscope.transport.proxies import Proxies
from chatscope.transport.request_head import PostTemplate, RequestHead
from chatscope.transport.resolver import Resolver
from chatscope.transport.streams import current_run
from chatscope.transport.tls import default_context

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from chatscope.transport.base import ResendHook, SentHook, SocketStream
    from chatscope.transport.witness import ReadWitness

__all__ = ["HTTPTransport"]

# A thousand concurrent calls, the most that this package is measured with, find their connections again afterwards.
MAX_IDLE = 1024
# Seconds. Half of the 60 after which common balancers (nginx, AWS) drop a silent connection without a word.
IDLE_EXPIRY = 30.0
# llama.cpp, nginx and hyper send about 1 KiB. Browsers and Go's client accept about this much.
MAX_HEADER_BYTES = 256 * 1024
# The largest known response is an image in base64, about 10 MiB.
MAX_DECODED_BYTES = 128 * 1024 * 1024
# A client talks to a handful of origins.
MAX_ORIGINS = 256
# Seconds that closing a proxy's connections may take. TLS closes them politely, for which nobody waits here.
PROXY_CLOSE_TIMEOUT = 1.0


class HTTPTransport(httpx.AsyncBaseTransport):
    """An HTTP/1.1 transport for asyncio, uvloop and trio, for any `httpx.AsyncClient` or called directly.

    It also serves an `httpx2.AsyncClient`, whose types `chatscope.transport.httpx2.HTTPX2Transport` has.

    It keeps connections, but a request never waits for one: limit concurrency in the caller. It follows no redirects.
    One transport serves one event loop at a time. If used in a second run, it drops the connections of the first.

    Args:
        verify: The TLS context, used as it is; `True` for the system's trust store, `False` to accept any certificate.
        uds: The path of a Unix socket to connect to, whatever host a request names.
        max_idle: How many idle connections to keep for each origin.
        idle_expiry: Seconds after which an idle connection is closed.
        max_header_bytes: The size that a response's status line, headers and trailers may have.
        max_decoded_bytes: The size that a body with a Content-Encoding may have when decoded.
        trust_env: Whether to use the proxies that the environment names (`HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`, ...),
            through httpx's own transport.
        witness: Records when the kernel received what some connections read.
    """

    def __init__(
        self,
        *,
        verify: ssl.SSLContext | bool = True,
        uds: str | None = None,
        max_idle: int = MAX_IDLE,
        idle_expiry: float = IDLE_EXPIRY,
        max_header_bytes: int = MAX_HEADER_BYTES,
        max_decoded_bytes: int = MAX_DECODED_BYTES,
        trust_env: bool = True,
        witness: ReadWitness | None = None,
    ) -> None:
        self._verify = verify
        self._uds = uds
        self._max_idle = max_idle
        self._idle_expiry = idle_expiry
        self._max_header_bytes = max_header_bytes
        self._max_decoded_bytes = max_decoded_bytes
        self._trust_env = trust_env and uds is None
        self._witness = witness
        self._closed = False
        self._counts = Counts()
        self._context: ssl.SSLContext | None = None
        self._pool: Pool | None = None
        self._resolver = Resolver()
        self._proxies: Proxies | None = None
        self._origins: dict[tuple[str, bytes, int | None], Origin] = {}

    @property
    def max_decoded_bytes(self) -> int:
        """The largest decoded size of a body with a Content-Encoding."""
        return self._max_decoded_bytes

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request` and return the response as soon as its head has arrived.

        The body is read on demand from `response.stream`, whose `read_ns` says when its newest bytes arrived. It is
        decoded, and the headers that described its encoding are removed. A request whose pooled connection is lost
        before the response begins is sent once more on a fresh one, unless its body can be read only once, or the hook
        in `extensions["chatscope.on_resend"]` (a `ResendHook`) returns `False`.

        If cancelled, no connection is left behind. The timeouts are the request's (`extensions["timeout"]`, in seconds:
        `connect` covers everything up to the end of the TLS handshake, `read` and `write` one wait each; `pool` is
        ignored).

        Raises:
            httpx.TransportError: The network, the protocol or the encoding of the body failed.
            RuntimeError: The transport is closed.
        """
        if not isinstance(request, httpx.Request):
            return await self._handle_httpx2(request)
        pool = self._open_pool()
        try:
            url = request.url
            origin = self._origin((url.scheme, url.raw_host, url.port), url)
            if origin.proxy is not None:
                return await self._send_by_proxy(origin.proxy, request)
            body = request.read() if isinstance(request.stream, httpx.ByteStream) else None
            head = RequestHead(request, origin.host_header, body)
        except httpx.RequestError as exc:
            exc.request = request
            raise
        response = await self._send(
            pool,
            origin,
            head,
            body,
            request.extensions.get("timeout") or {},
            request.extensions.get(RESEND_EXTENSION),
            request.extensions.get(SENT_EXTENSION),
            request,
        )
        return response_from(response, request, max_decoded_bytes=self._max_decoded_bytes)

    async def _handle_httpx2(self, request: Any) -> Any:
        from chatscope.transport.httpx2 import HTTPX2Transport  # noqa: PLC0415 - only an httpx2 client's request needs it

        return await HTTPX2Transport(self).handle_async_request(request)

    def post(
        self,
        template: PostTemplate,
        body: bytes,
        timeouts: Mapping[str, float | None],
        on_resend: ResendHook | None = None,
        on_sent: SentHook | None = None,
    ) -> Coroutine[Any, Any, ResponseStream | httpx.Response]:
        """Send a prepared request, like `handle_async_request` but without httpx's objects, for clients that send many.

        The result is the response with its head; its body must still be read and decoded. If the environment names a
        proxy for this address, the result is httpx's response. Errors and cancellation are as for
        `handle_async_request`.
        """
        pool = self._open_pool()
        origin = self._origins.get(template.key) or self._origin(template.key, template.url)
        if origin.proxy is not None:
            request = httpx.Request("POST", template.url, headers=template.headers, content=body)
            request.extensions["timeout"] = timeouts
            return self._send_by_proxy(origin.proxy, request)
        return self._send(pool, origin, template, body, timeouts, on_resend, on_sent)

    async def open_connections(self, url: httpx.URL | str, count: int, *, within: float | None = None) -> int:
        """Open connections ahead of the requests that will need them, and return how many of them are now idle.

        Requests take them in the order of opening, after used ones. They expire like others. Through a proxy of the
        environment none can be opened. If cancelled, those that are open are kept.

        Args:
            url: An address on the server; only its scheme, host and port count.
            count: How many idle connections to have, at most `max_idle`. Those that are missing are opened.
            within: Seconds that each may take, up to the end of the TLS handshake.

        Raises:
            httpx.TransportError: One could not be opened, so no more were. Those that are open are kept.
        """
        pool, url = self._open_pool(), httpx.URL(url)
        origin = self._origin((url.scheme, url.raw_host, url.port), url)
        if origin.proxy is not None:
            return 0
        count = min(count, self._max_idle)
        return await open_ahead(pool, origin, count, lambda: self._connect(origin, within, None))

    async def _send(
        self,
        pool: Pool,
        origin: Origin,
        head: RequestHead | PostTemplate,
        body: bytes | None,
        timeouts: Mapping[str, float | None],
        on_resend: ResendHook | None,
        on_sent: SentHook | None,
        request: httpx.Request | None = None,
    ) -> ResponseStream:
        """Run a request on an idle connection or on a new one; a second time if the idle one turns out to be dead."""
        connection = pool.take(origin)
        while connection is not None and not connection.is_drained:
            connection.is_drained = True
            if not await drain(connection):
                connection.close()
                connection = pool.take(origin)
        if connection is not None:
            self._counts.reuses += 1
            response = ResponseStream(connection, request, timeouts, on_sent)
            try:
                await response.run(head, body)
                return response
            except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError) as error:
                is_replayable = request is None or isinstance(request.stream, httpx.ByteStream)
                if not is_replayable or response.started or self._closed:
                    raise
                if not connection.stream.write_refused:  # a server may have read it
                    if on_resend is not None and not on_resend(error):
                        raise
                    self._counts.resent += 1
        began_ns = perf_counter_ns()
        connection = pool.add(origin, await self._connect(origin, timeouts.get("connect"), request))
        response = ResponseStream(connection, request, timeouts, on_sent, perf_counter_ns() - began_ns)
        await response.run(head, body)
        return response

    async def aclose(self) -> None:
        """Close every connection, even those in use. Requests are refused from then on.

        Waits only for the loop's next tick, in which the loop releases the sockets, and ignores cancellation there.
        """
        self._closed = True
        if self._pool is not None:
            if self._pool.run is current_run():
                self._pool.close()
            else:
                self._pool.abandon()
        if self._proxies is not None:
            with anyio.move_on_after(PROXY_CLOSE_TIMEOUT, shield=True):
                await self._proxies.aclose()
        await cancel_shielded_checkpoint()

    def statistics(self) -> TransportStatistics:
        """Return counts of connections and requests so far."""
        return self._counts.statistics(idle=0 if self._pool is None else self._pool.idle)

    def _enter_run(self) -> Pool:
        """Start again in this run of an event loop: connections of an earlier run cannot be used here."""
        if self._pool is not None:
            self._pool.abandon()
        self._origins.clear()
        self._pool = Pool(
            current_run(),
            self._counts,
            max_idle=self._max_idle,
            idle_expiry=self._idle_expiry,
            max_header_bytes=self._max_header_bytes,
        )
        self._resolver = Resolver()
        self._proxies = Proxies(self._tls_context, max_idle=self._max_idle, idle_expiry=self._idle_expiry)
        return self._pool

    def _open_pool(self) -> Pool:
        pool = self._pool
        if pool is None or pool.run is not current_run():
            pool = self._enter_run()
        if self._closed:
            raise RuntimeError("this transport is closed")
        return pool

    def _origin(self, key: tuple[str, bytes, int | None], url: httpx.URL) -> Origin:
        origin = self._origins.get(key)
        if origin is not None:
            return origin
        origin = Origin(url)
        if self._trust_env and self._proxies is not None:
            origin.proxy = self._proxies.transport_for(origin)
        if len(self._origins) >= MAX_ORIGINS:
            self._origins.clear()  # their idle connections still expire
        self._origins[key] = origin
        return origin

    def _tls_context(self) -> ssl.SSLContext:
        # Made at the first use, because reading the system's certificates takes about 20 ms. Plain HTTP needs none.
        if self._context is None:
            self._context = default_context(verify=self._verify) if isinstance(self._verify, bool) else self._verify
        return self._context

    def _send_by_proxy(
        self, proxy: httpx.AsyncHTTPTransport, request: httpx.Request
    ) -> Coroutine[Any, Any, httpx.Response]:
        self._counts.proxied += 1
        assert self._proxies is not None  # noqa: S101 - the origin has its proxy from there
        return self._proxies.send(proxy, request, max_decoded_bytes=self._max_decoded_bytes)

    async def _connect(self, origin: Origin, timeout: float | None, request: httpx.Request | None) -> SocketStream:  # noqa: ASYNC109 - httpx's own name for it
        try:
            with anyio.move_on_after(timeout):
                context = self._tls_context() if origin.scheme == "https" else None
                return await connect(
                    origin.host,
                    origin.port,
                    resolver=self._resolver,
                    uds=self._uds,
                    context=context,
                    witness=self._witness,
                )
        except (OSError, ValueError) as exc:  # ValueError: a host that no DNS name or certificate can have
            raise translated(exc, Operation.CONNECT, request, to=f"{origin.host} port {origin.port}") from exc
        raise httpx.ConnectTimeout(f"no connection to {origin.host} port {origin.port} in {timeout} s", request=request)
