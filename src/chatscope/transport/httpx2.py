"""The transport for httpx2, which has its own classes for requests, streams and exceptions.

Here: the translation of those three. Not here: sending (`transport`). httpx2 is not a dependency. Only this module
needs it, and the package imports this module only when an httpx2 request arrives.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Self

import httpx
import httpx2

from chatscope.transport.base import TimedStream
from chatscope.transport.transport import HTTPTransport

__all__ = ["HTTPX2Transport"]


class HTTPX2Transport(httpx2.AsyncBaseTransport):
    """`HTTPTransport` for an `httpx2.AsyncClient`, and so for the newest `openai.AsyncOpenAI`.

    An `HTTPTransport` also works there as it is. This class has the type that type checkers expect. Its errors are
    httpx2's, caused by httpx's.

    Args:
        transport: The transport that sends. By default, a new `HTTPTransport`. It is closed with this one.
    """

    def __init__(self, transport: HTTPTransport | None = None) -> None:
        self._transport = HTTPTransport() if transport is None else transport

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send `request` as `HTTPTransport.handle_async_request` does. If cancelled, no connection is left behind.

        Raises:
            httpx2.TransportError: The network, the protocol or the encoding of the body failed.
            RuntimeError: The transport is closed.
        """
        try:
            response = await self._transport.handle_async_request(_to_httpx(request))
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise _to_httpx2_error(error, request) from error
        stream = response.stream
        assert isinstance(stream, TimedStream)  # noqa: S101 - `HTTPTransport` returns no other
        body = ResponseBody(stream, request)
        headers = response.headers.raw
        return httpx2.Response(response.status_code, headers=headers, stream=body, extensions=response.extensions)

    async def aclose(self) -> None:
        """Close every connection, as `HTTPTransport.aclose` does."""
        await self._transport.aclose()


class RequestBody(httpx.AsyncByteStream):
    """The body of an httpx2 request that can be read only once."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Return httpx2's iterator. Its reader closes it."""
        return aiter(self._stream)


class ResponseBody(httpx2.AsyncByteStream):
    """The body of a response. Like `TimedStream`, an iterator and not a generator."""

    def __init__(self, stream: TimedStream, request: httpx2.Request) -> None:
        self._stream = stream
        self._request = request

    def __aiter__(self) -> Self:
        """Return itself. A second loop continues where the first one stopped."""
        return self

    async def __anext__(self) -> bytes:
        """Return the next bytes. If cancelled, the connection is closed."""
        try:
            return await self._stream.__anext__()
        except (httpx.RequestError, httpx.StreamError) as error:
            raise _to_httpx2_error(error, self._request) from error

    async def aclose(self) -> None:
        """Close the stream, at once and without waiting, except behind a proxy, where httpx closes its connection."""
        await self._stream.aclose()


def _to_httpx(request: httpx2.Request) -> httpx.Request:
    """Return a request as httpx's. The extensions, with the timeouts and the resend hook, are the same."""
    stream: httpx.AsyncByteStream | httpx.SyncByteStream
    if isinstance(request.stream, httpx2.ByteStream):
        stream = httpx.ByteStream(request.read())
    elif isinstance(request.stream, httpx2.AsyncByteStream):
        stream = RequestBody(request.stream)
    else:
        raise TypeError("an asynchronous transport cannot send a synchronous stream")
    return httpx.Request(
        request.method,
        str(request.url),
        headers=request.headers.raw,
        stream=stream,
        extensions=dict(request.extensions),
    )


def _to_httpx2_error(
    error: httpx.RequestError | httpx.StreamError | httpx.InvalidURL, request: httpx2.Request
) -> Exception:
    """Return httpx2's exception for one of httpx's: the class of the same name, or of its nearest base."""
    translated: Exception
    for cls in type(error).__mro__:
        known = getattr(httpx2, cls.__name__, None) if cls.__module__ == "httpx" else None
        if known is not None and issubclass(known, httpx2.RequestError):
            translated = known(str(error), request=request)
            break
    else:
        translated = httpx2.InvalidURL(str(error)) if isinstance(error, httpx.InvalidURL) else httpx2.StreamClosed()
    for note in getattr(error, "__notes__", ()):  # which proxy it was
        translated.add_note(note)
    return translated
