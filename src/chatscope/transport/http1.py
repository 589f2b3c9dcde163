"""One exchange on one connection: send a request, receive its response, say what becomes of the connection.

Here: the order of events, timeouts' names, and that the connection goes back exactly when both sides are done with it
and is closed in every other case. Not here: bytes of HTTP (`request`, `parser`), sockets (`streams`), connecting and
sending again (`transport`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import anyio
import httpx

from chatscope.transport.base import TimedStream
from chatscope.transport.errors import Operation, translated
from chatscope.transport.response_parser import ResponseParser

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chatscope.transport.pool import Connection
    from chatscope.transport.request_head import PostTemplate, RequestHead

__all__ = ["ResponseStream"]

LAST_CHUNK = b"0\r\n\r\n"


class ResponseStream(TimedStream):
    """A request and its response; once its head is there, the stream of the response's body.

    As a stream it yields what one read of the socket brought of the body, never less. A cancelled or failed read closes
    the connection; so does `aclose` before the end of the body, at once and without waiting.
    """

    def __init__(
        self,
        connection: Connection,
        request: httpx.Request | None,
        timeouts: Mapping[str, float | None],
        *,
        max_header_bytes: int,
    ) -> None:
        self.read_ns = 0
        self.started = False
        # Made when the first bytes are there. It comes with ten objects, and what a thousand waiting requests hold
        # decides how often the garbage collector walks over everything (`python -m benchmarks --scenario plain-1024`).
        self.parser: ResponseParser
        self._max_header_bytes = max_header_bytes
        self._connection = connection
        self._stream = connection.stream
        self._request = request
        self._read_timeout = timeouts.get("read")
        self._write_timeout = timeouts.get("write")
        self._ready = b""
        self._reusable = False
        self._write_error: OSError | None = None
        self._broken = False
        self._reading = False

    async def run(self, head: RequestHead, body: bytes | None) -> None:
        """Send the request (`body` or, if that is `None`, what the request's stream yields) and receive the head.

        Whatever keeps it from succeeding, cancellation included, closes the connection. Raises `httpx.TransportError`s.
        """
        try:
            sent = await (self._send_stream(head) if body is None else self._send(head, body))
            self._reusable = sent and not head.wants_close
            while not (self.started and self.parser.head_complete):
                self._ready = await self._receive_head()
        except BaseException as exc:
            self._break_off(exc)
            raise

    async def run_prepared(self, request: PostTemplate, body: bytes) -> None:
        """Send a request of which all but the body is ready, and receive the head; otherwise as `run`."""
        try:
            sent = self._write_at_once(request.render(body)) or await self._flush(listen=False)
            self._reusable = sent and not request.wants_close
            while not (self.started and self.parser.head_complete):
                self._ready = await self._receive_head()
        except BaseException as exc:
            self._break_off(exc)
            raise

    async def __anext__(self) -> bytes:
        """Return the next bytes of the body, as read from the socket."""
        if self._ready:
            data, self._ready = self._ready, b""
            return data
        if self._broken:
            raise httpx.StreamClosed
        parser, stream = self.parser, self._stream
        try:
            self._begin_reading()
            while not parser.complete:
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

    async def pump(self, take: Callable[[bytes], bool]) -> bool:
        """See `TimedStream`: on asyncio, `take` is called as the bytes arrive, and this task sleeps till the end."""
        if self._broken:
            raise httpx.StreamClosed
        parser, stream = self.parser, self._stream
        is_enough = False

        def on_read(data: bytes) -> bool:
            nonlocal is_enough
            body = self._feed(data)
            if body and take(body):
                is_enough = True
                return True
            return parser.complete or parser.failure is not None

        try:
            self._begin_reading()
            ready, self._ready = self._ready, b""
            is_enough = bool(ready) and take(ready)
            if is_enough or parser.complete:
                return is_enough
            if parser.failure is None and not await stream.pump(on_read, self._read_timeout):
                self._check_open()
                on_read(b"")
            if parser.failure is not None and not is_enough:
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

    def _begin_reading(self) -> None:
        # The stream below refuses a second reader only while the first one sleeps. Between its waking and its running,
        # another might read the end and send the connection on, with a reader still to come.
        if self._reading:
            raise anyio.BusyResourceError("reading from")
        self._reading = True

    @property
    def is_over(self) -> bool:
        """See `TimedStream`."""
        return self.parser.complete and not self._ready

    async def aclose(self, *, complete: bool = False) -> None:
        """Close the connection unless the response has ended and the connection gone its way; never waits.

        With `complete`, it goes its way before the end has come: whoever takes it next reads that, by `endings`. That
        cannot be while a task waits for more.
        """
        if complete and not (self._reading or self._broken or self.parser.complete) and self._may_be_reused():
            self._broken = True
            self._ready = b""
            self._connection.release(undrained=self.parser)
        else:
            self.abort()

    def abort(self) -> None:
        """Close the connection unless the response has ended and the connection gone its way."""
        if not (self._broken or self.parser.complete):
            self._broken = True
            self._ready = b""
            self._connection.close()

    def _break_off(self, exc: BaseException) -> None:
        self._broken = True
        # Cancellation may come after the end: the connection has gone its way then, perhaps to its next user.
        if not (self.started and self.parser.complete):
            self._connection.close()
        if isinstance(exc, httpx.RequestError) and self._request is not None:
            exc.request = self._request

    async def _send(self, head: RequestHead, body: bytes) -> bool:
        if head.chunked:
            body = _chunk(body) + LAST_CHUNK
        return await self._write(head.data + body, listen=False)

    async def _send_stream(self, head: RequestHead) -> bool:
        """Send the body that the request's stream yields; stop where the server has answered already."""
        if self._request is None or not isinstance(self._request.stream, httpx.AsyncByteStream):
            raise TypeError("an asynchronous transport cannot send a synchronous stream")
        if not await self._write(head.data, listen=True):
            return False
        length = 0
        parts = aiter(self._request.stream)
        try:
            async for part in parts:
                length += len(part)
                if head.length is not None and length > head.length:
                    raise httpx.LocalProtocolError(f"the body is longer than its Content-Length of {head.length}")
                # The answer may be there as soon as the last byte is: only before that does it come early.
                data, early = (_chunk(part), True) if head.chunked else (part, length != head.length)
                if part and not await self._write(data, listen=early):
                    return False
        finally:
            # httpx makes an async generator of whatever body it was given; left half-way, it would wait for the
            # garbage collector.
            if isinstance(parts, AsyncGenerator):
                await parts.aclose()
        if head.length is not None and length < head.length:
            raise httpx.LocalProtocolError(f"the body has {length} bytes, its Content-Length is {head.length}")
        return await self._write(LAST_CHUNK, listen=False) if head.chunked else True

    async def _write(self, data: bytes, *, listen: bool) -> bool:
        """Send `data`; `False` if the server has answered or gone before it took everything.

        With `listen`, also if it took everything: there is more to come, which need not be sent then.
        """
        return (self._write_at_once(data) and not listen) or await self._flush(listen=listen)

    def _write_at_once(self, data: bytes) -> bool:
        """Send what the system takes without waiting; return whether that was everything.

        A refusal (413, say) often comes with the end of the connection, and what the server said matters more than that
        it would not listen: the answer is read before a failed write counts.
        """
        try:
            self._stream.write(data)
        except OSError as exc:
            self._write_error = exc
            return False
        return not self._stream.unsent()

    async def _flush(self, *, listen: bool) -> bool:
        """Wait until the rest is sent; `False` as `_write` says."""
        if self._write_error is not None:
            return False
        try:
            return await self._stream.flush(self._write_timeout) or not (listen or self._stream.unsent())
        except TimeoutError as exc:
            raise translated(exc, Operation.WRITE, self._request) from exc
        except OSError as exc:
            self._write_error = exc
            return False

    async def _receive_head(self) -> bytes:
        """Read once, up to the end of the head; return what came of the body."""
        try:
            data = await self._stream.receive(self._read_timeout)
        except OSError as exc:
            if self._write_error is None or self.started:
                raise translated(exc, Operation.READ, self._request) from exc
            data = b""
        if self._write_error is not None and not (data or self.started):
            raise translated(self._write_error, Operation.WRITE, self._request) from self._write_error
        self._check_open()
        if not self.started:
            if not data:
                raise httpx.RemoteProtocolError("the server closed the connection without sending a response")
            self.started = True
            self.parser = ResponseParser(
                head_request=self._request is not None and self._request.method == "HEAD",
                max_header_bytes=self._max_header_bytes,
            )
        return self._feed(data)

    def _check_open(self) -> None:
        # An end that was made here is not the end of a body that lasts until the server closes.
        if self._connection.closed:
            raise httpx.ReadError("the connection was closed while its response was being read")

    def _feed(self, data: bytes) -> bytes:
        """Take in a read, and let go of the connection as soon as the response has ended: nobody need ask for that."""
        self.read_ns = self._stream.read_ns
        parser = self.parser
        body = parser.feed(data)
        if parser.complete:
            self._let_go()
        return body

    def _let_go(self) -> None:
        """Part from the connection: the response has ended."""
        if self._may_be_reused():
            self._connection.release()
        else:
            self._connection.close()

    def _may_be_reused(self) -> bool:
        parser = self.parser
        return self._reusable and parser.keep_alive and parser.failure is None and not self._stream.unsent()


def _chunk(data: bytes) -> bytes:
    # A chunk of length zero would end the body.
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
