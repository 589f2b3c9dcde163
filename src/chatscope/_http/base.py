"""The interface of all senders, and the one place that turns HTTP libraries' errors into this package's.

Here: `Sender`, `HTTPResponse`, content codings, and the translation of errors. Not here: anything specific to one
library's client or transport (`builtin`, `httpx_client`, `httpx2_client`).
"""

from __future__ import annotations

from contextlib import suppress
from math import inf
from typing import Final, Protocol

import anyio
import httpx
import msgspec

from chatscope._limits.connection_errors import is_malformed, is_permanent, reason_for
from chatscope._limits.timeouts import CLOSE_GRACE, Timeouts, transport_timeout
from chatscope.errors import APIConnectionError, ChatError, InvalidResponseError, Phase
from chatscope.protocol.headers import ResponseHeaders
from chatscope.protocol.redaction import is_secret, redact, shows_key
from chatscope.transport.base import ResendHook, SentHook, TimedStream
from chatscope.transport.decoding import DecodedStream, decoders_for
from chatscope.transport.errors import proxy_note
from chatscope.transport.proxies import HttpxBody
from chatscope.transport.request_head import PostTemplate
from chatscope.transport.transport import MAX_DECODED_BYTES

_LIBRARIES: Final = frozenset({"httpx", "httpx2"})
"""Packages whose exceptions are translated, by the class names that they share."""


class HTTPResponse(msgspec.Struct, frozen=True, eq=False):
    """A response whose headers have arrived and whose body has not been read yet.

    Attributes:
        status: its HTTP status.
        headers: its headers, names in lower case.
        stream: its body, decoded.
        is_own: whether the package's own transport reads it.
    """

    status: int
    headers: ResponseHeaders
    stream: TimedStream
    is_own: bool

    async def close(self, *, complete: bool) -> None:
        """Close the response, read or not. Takes at most `CLOSE_GRACE` seconds, even if cancelled.

        Args:
            complete: only the end of the body is still expected, so the connection may be reused. This does not wait
                for that end.
        """
        if self.is_own:
            # Waits only behind a proxy, for the end of the body. If cancelled there, httpx closes its connection.
            await self.stream.aclose(complete=complete)
            return
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLOSE_GRACE):
            try:
                if complete:
                    with suppress(StopAsyncIteration), anyio.CancelScope(deadline=-inf):
                        await self.stream.__anext__()
                await self.stream.aclose()
            except Exception as error:
                if _nearest(error) is None:
                    raise


class Sender(Protocol):
    """Sends a request."""

    async def send(
        self, request: PostTemplate, body: bytes, timeouts: Timeouts, on_resend: ResendHook, on_sent: SentHook
    ) -> HTTPResponse:
        """Return the response as soon as its headers have arrived. If cancelled, nothing stays open.

        Args:
            request: everything but the body.
            body: the body.
            timeouts: for the transport.
            on_resend: called by the package's own transport before it repeats a request that was lost with a reused
                connection; returns whether it may.
            on_sent: called by that transport when it has written the request.

        Raises:
            Exception: the library's own error, to be passed to `translated`.
        """
        ...


def response_of(response: httpx.Response, request: httpx.Request) -> HTTPResponse:
    """Return an httpx response as an `HTTPResponse`. Never raises, so an open response cannot be lost."""
    headers = ResponseHeaders.of(response.headers.raw)
    stream = response.stream
    if isinstance(stream, TimedStream):
        return HTTPResponse(response.status_code, headers, stream, is_own=True)
    # Not httpx's own decoding: that leaves async generators to the garbage collector, and trio warns about them.
    body = decoded(HttpxBody(response, request), headers.listed("content-encoding"), request)
    return HTTPResponse(response.status_code, headers, body, is_own=False)


def decoded(
    stream: TimedStream, codings: str | None, request: httpx.Request | None = None, *, limit: int = MAX_DECODED_BYTES
) -> TimedStream:
    """Return a body decoded according to its `content-encoding`.

    Never raises: an unsupported coding raises when the body is read. Closing the body closes the connection.
    """
    if codings is None:
        return stream
    try:
        decoders = decoders_for(codings.encode("latin-1"), request)
    except httpx.DecodingError as error:
        return _RefusedBody(stream, error)
    return DecodedStream(stream, decoders, limit=limit, request=request) if decoders else stream


class _RefusedBody(TimedStream):
    """A body whose codings are refused: reading it raises the error."""

    def __init__(self, inner: TimedStream, error: httpx.DecodingError) -> None:
        self.read_ns = inner.read_ns
        self._inner = inner
        self._error = error

    async def __anext__(self) -> bytes:
        raise self._error

    async def aclose(self, *, complete: bool = False) -> None:  # noqa: ARG002 - what was not read is not kept
        """Close the stream inside."""
        await self._inner.aclose()


def translated(
    error: Exception, *, phase: Phase, address: str, timeouts: Timeouts, secret: str, has_response: bool
) -> ChatError | None:
    """Return this package's error for one of an HTTP library's; `None` for any other exception.

    Args:
        error: the exception that sending or reading raised.
        phase: the phase that a timeout is reported for.
        address: the server's host and port.
        timeouts: the timeouts passed to the transport.
        secret: the key, which is redacted from the library's messages.
        has_response: whether the response's headers had arrived.
    """
    nearest = _nearest(error)
    if nearest is None:
        return None
    if issubclass(nearest, httpx.TimeoutException):
        _redact(error, secret)
        is_connecting = issubclass(nearest, httpx.ConnectTimeout | httpx.PoolTimeout)
        return transport_timeout(timeouts, "connect" if is_connecting else phase)
    reason = reason_for(error)
    if note := proxy_note(error):
        reason = f"{reason} ({note})"
    _redact(error, secret)
    reason = redact(reason, secret)
    if issubclass(nearest, httpx.DecodingError):
        return InvalidResponseError(f"the response cannot be decoded: {reason}")
    if is_malformed(error):
        return InvalidResponseError(f"the response is not valid HTTP: {reason}")
    if issubclass(nearest, httpx.ConnectError | httpx.ProxyError):
        reason = f"no connection to {address}: {reason}"
    elif not has_response:
        reason = f"no response from {address}: {reason}"
    failure = APIConnectionError(reason)
    if is_permanent(error):
        failure.should_retry = False
    return failure


def _redact(error: BaseException, secret: str) -> None:
    """Redact the key in an error and its causes, because the traceback shows them and a server may repeat the key."""
    link: BaseException | None = error if is_secret(secret) else None
    while link is not None:
        if shows_key(str(link), secret):
            link.args = tuple(redact(arg if isinstance(arg, str) else repr(arg), secret) for arg in link.args)
            if shows_key(str(link), secret):
                link.args = ("***",)
        link = link.__cause__ or link.__context__


def _nearest(error: Exception) -> type[Exception] | None:
    """Return httpx's class for an exception of httpx or httpx2: its own, or its nearest base class in httpx."""
    if isinstance(error, httpx.RequestError | httpx.StreamError):
        return type(error)
    for cls in type(error).__mro__:
        if cls.__module__.partition(".")[0] in _LIBRARIES:
            known = getattr(httpx, cls.__name__, None)
            if isinstance(known, type) and issubclass(known, httpx.RequestError | httpx.StreamError):
                return known
    return None
