"""One request and its response on one connection, and what becomes of the connection.

Here: the order of events, the names of timeouts, and returning the connection to the pool. That happens exactly when
both sides have finished; otherwise it is closed. Not here: bytes of HTTP (`request_head`, `response_parser`), writing
(`request_writer`), sockets (`streams`), connecting and sending again (`transport`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import httpx

from chatscope.transport.base import TimedStream
from chatscope.transport.errors import Operation, translated
from chatscope.transport.request_head import RequestHead
from chatscope.transport.request_writer import RequestWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chatscope.transport.base import SentHook
    from chatscope.transport.pool import PooledConnection
    from chatscope.transport.request_head import PostTemplate

__all__ = ["ResponseStream"]


class ResponseStream(TimedStream):
    """Sends a request and, once the response's head has arrived, is the stream of the response's body.

    Each item is the part of the body in one read of the socket. A cancelled or failed read closes the connection. So
    does `aclose` before the end of the body, at once and without waiting.

    Args:
        connection: Serves this request alone until its end.
        request: The request as an httpx object, if there is one.
        timeouts: In seconds, by httpx's names.
        on_sent: Called when the request has been written.
        connect_ns: How long connecting took; `None` on a connection that is used again.

    Attributes:
        started: Whether any byte of the response has arrived.
        status: The response's HTTP status, once its head has arrived.
        head, lower_head: Its status line and headers, then too; the same in lower case.
    """

    status: int
    head: bytes
    lower_head: bytes

    def __init__(
        self,
        connection: PooledConnection,
        request: httpx.Request | None,
        timeouts: Mapping[str, float | None],
        on_sent: SentHook | None,
        connect_ns: int | None = None,
    ) -> None:
        self.read_ns = 0
        self.started = False
        self._on_sent = on_sent
        self._connect_ns = connect_ns
        self._connection = connection
        self._stream = connection.stream
        self._parser = connection.parser
        self._request = request
        self._read_timeout = timeouts.get("read")
        self._write_timeout = timeouts.get("write")
        self._ready = b""
        self._reusable = False
        self._complete = False  # from then on, the connection and its parser may serve another request
        self._broken = False
        self._reading = False

    async def run(self, head: RequestHead | PostTemplate, body: bytes | None) -> None:
        """Send a request and receive the response's head. If `body` is `None`, the request's stream is the body.

        Any failure, including cancellation, closes the connection. Raises `httpx.TransportError`.
        """
        parser, stream, write_error = self._parser, self._stream, None
        try:
            if self._request is None:
                parser.begin()
            else:
                parser.begin(head_request=self._request.method == "HEAD")
            sent = False
            if body is not None:
                try:
                    sent = stream.write(head.render(body))  # in no variable: tracebacks show those
                except OSError as exc:
                    write_error = exc
            if not sent and write_error is None:
                writer = RequestWriter(stream, self._request, self._write_timeout)
                sent = await (writer.send(head) if isinstance(head, RequestHead) and body is None else writer.flush())
                write_error = writer.error
            self._reusable = sent and not head.wants_close
            if sent and self._on_sent is not None:
                self._on_sent(self._connect_ns)
            while not parser.head_complete:
                try:
                    data = await stream.receive(self._read_timeout)
                except OSError as exc:
                    if write_error is None or self.started:
                        raise translated(exc, Operation.READ, self._request) from exc
                    data = b""
                if not data or self._connection.closed:
                    self._check_read(data, write_error)
                self.started = True
                self._ready = self._feed(data)
        except BaseException as exc:
            self._break_off(exc)
            raise
        self.status, self.head, self.lower_head = parser.status, parser.head, parser.lower_head

    async def __anext__(self) -> bytes:
        """Return the next bytes of the body, as read from the socket."""
        if self._ready:
            data, self._ready = self._ready, b""
            return data
        if self._broken:
            raise httpx.StreamClosed
        parser, stream = self._parser, self._stream
        try:
            self._begin_reading()
            while not self._complete:
                if parser.failure is not None:
                    raise parser.failure
                data = await stream.receive(self._read_timeout)
                if not data:
                    self._check_open()
                if body := self._feed(data):
                    return body
        except OSError as exc:
            self._break_off(exc)
            raise translated(exc, Operation.READ, self._request) from exc
        except BaseException as exc:
            self._break_off(exc)
            raise
        finally:
            self._reading = False
        raise StopAsyncIteration

    async def pump(self, on_bytes: Callable[[bytes], bool]) -> bool:
        """See `TimedStream`. On asyncio, `on_bytes` is called as the bytes arrive; this task sleeps until the end."""
        if self._broken:
            raise httpx.StreamClosed
        parser, stream = self._parser, self._stream
        is_enough = False

        def on_read(data: bytes) -> bool:
            nonlocal is_enough
            self.read_ns = stream.read_ns  # as `_feed`, without a call: this runs for every token
            body = parser.feed(data)
            if parser.complete:
                self._complete_response()
            if body and on_bytes(body):
                is_enough = True
                return True
            return self._complete or parser.failure is not None

        try:
            self._begin_reading()
            ready, self._ready = self._ready, b""
            is_enough = bool(ready) and on_bytes(ready)
            if is_enough or self._complete:
                return is_enough
            if parser.failure is None and not await stream.pump(on_read, self._read_timeout):
                self._check_open()
                on_read(b"")
            if not (is_enough or self._complete) and parser.failure is not None:
                raise parser.failure
        except OSError as exc:
            self._break_off(exc)
            raise translated(exc, Operation.READ, self._request) from exc
        except BaseException as exc:
            self._break_off(exc)
            raise
        finally:
            self._reading = False
        return is_enough

    @property
    def is_over(self) -> bool:
        """See `TimedStream`."""
        return self._complete and not self._ready

    def rest(self) -> bytes | None:
        """See `TimedStream`."""
        if not self._complete:
            return None
        data, self._ready = self._ready, b""
        return data

    async def aclose(self, *, complete: bool = False) -> None:
        """Close the connection, unless the response has ended and the connection was returned; never wait.

        With `complete`, the connection is returned before the end of the response, and the next request on it reads
        that end (`drain`). This is impossible while a task is reading.
        """
        if complete and not (self._reading or self._broken or self._complete) and self._may_be_reused():
            self._broken = True
            self._ready = b""
            self._connection.release(is_drained=False)
        else:
            self.abort()

    def abort(self) -> None:
        """Close the connection, unless the response has ended and the connection was returned."""
        if not (self._broken or self._complete):
            self._broken = True
            self._ready = b""
            self._connection.close()
            if not self._reading:  # else a read is under way, which fails and closes the parser
                self._parser.close()

    def _check_read(self, data: bytes, write_error: OSError | None) -> None:
        """Raise what it means that the head ends here. If there is no response, it is the error of a failed write."""
        if write_error is not None and not (data or self.started):
            raise translated(write_error, Operation.WRITE, self._request) from write_error
        self._check_open()
        if not self.started:
            raise httpx.RemoteProtocolError("the server closed the connection without sending a response")

    def _feed(self, data: bytes) -> bytes:
        """Parse a read. The connection is released when the response has ended, before the caller reads the end."""
        parser = self._parser
        self.read_ns = self._stream.read_ns
        body = parser.feed(data)
        if parser.complete:
            self._complete_response()
        return body

    def _complete_response(self) -> None:
        self._complete = True
        if self._may_be_reused():
            self._connection.release()
        else:
            self._connection.close()

    def _may_be_reused(self) -> bool:
        parser = self._parser
        return self._reusable and parser.keep_alive and parser.failure is None and not self._stream.unsent()

    def _begin_reading(self) -> None:
        # The socket stream refuses a second reader only while the first one sleeps. Between its waking and its running,
        # another could read the end and return the connection while the first one is still to read from it.
        if self._reading:
            raise anyio.BusyResourceError("reading from")
        self._reading = True

    def _check_open(self) -> None:
        # An end that this side made does not end a body that lasts until the server closes.
        if self._connection.closed:
            raise httpx.ReadError("the connection was closed while its response was being read")

    def _break_off(self, exc: BaseException) -> None:
        self._broken = True
        # Cancellation may come after the end. The connection was returned then, and may be serving its next request.
        if not self._complete:
            self._connection.close()
            self._parser.close()
        if isinstance(exc, httpx.RequestError) and self._request is not None:
            exc.request = self._request
