"""Parses the bytes of HTTP/1.1 responses to a status, a head and a body, without I/O.

Here: llhttp (through httptools) and what it does not handle: interim responses, HEAD, limits, a body that ends with the
connection, bytes after the end, and parsing again what llhttp refuses. Not here: reading and waiting (`http1`), the
wider grammar itself (`lenient_parser`), content-encodings (`decoding`).
"""

from __future__ import annotations

from typing import NoReturn

import httptools
import httpx

from chatscope.transport.errors import MalformedResponseError
from chatscope.transport.lenient_parser import LenientParser, codings_in
from chatscope.transport.response_head import has_body, head_in, transfer_codings_in

__all__ = ["MAX_HEADERS", "ResponseParser"]

# curl allows 5000. Their bytes are limited too; this bounds the objects made of them.
MAX_HEADERS = 4096
LEAST_OF_MAX_HEADERS = MAX_HEADERS * len(b"a:\r\n")
# How many bytes of a chunked response are kept for a second reading. Whatever a server does differently, it does in the
# first chunk already; some responses are over within this.
REREAD_LIMIT = 4096
# Some servers, behind gateways, say 2.0 in an HTTP/1.1 response; h11 and curl read it.
HTTP_VERSIONS = frozenset({"1.0", "1.1", "2.0"})
OK, SWITCHING_PROTOCOLS = 200, 101


class ResponseParser:
    """Parses the responses of one connection, for any read boundaries. Call `begin` before each further response.

    A head is stored as it arrived, and llhttp only validates it. Callers read only a few of its twenty or thirty
    headers, and having llhttp report each of them takes longer than everything else here.

    `feed` raises `MalformedResponseError` for anything that is not a response, and `httpx.RemoteProtocolError` if the
    connection ends too early. If the same read contains usable bytes before the error, `feed` returns them and stores
    the error in `failure`.

    Attributes:
        status: the HTTP status.
        head, lower_head: the status line and the headers, without the empty line after them; the same in lower case.
        head_complete, complete: whether the head and the whole response have arrived.
        keep_alive: whether the connection can serve another request, once the response is complete.
    """

    __slots__ = (
        "_bare",
        "_body",
        "_ended_at",
        "_excess",
        "_head_request",
        "_interim",
        "_limit",
        "_parser",
        "_reads",
        "_received",
        "_refusal",
        "_transfer_coding",
        "complete",
        "failure",
        "head",
        "head_complete",
        "keep_alive",
        "lower_head",
        "on_body",
        "status",
    )  # fmt: skip

    def __init__(self, *, max_header_bytes: int) -> None:
        self._limit = max_header_bytes
        self._parser: httptools.HttpResponseParser | LenientParser | None = None
        self._body: list[bytes] = []
        self.on_body = self._body.append  # called by llhttp; a method of ours would cost one more call for every token
        self.begin()

    def begin(self, *, head_request: bool = False) -> None:
        """Prepare for the next response.

        Args:
            head_request: whether it answers a request that allows no body.
        """
        self.status = 0
        self.head = self.lower_head = b""
        self.head_complete = self.complete = self.keep_alive = False
        self.failure: httpx.RemoteProtocolError | None = None
        self._head_request = head_request
        self._interim = 0
        self._bare = 0
        self._received = 0
        self._transfer_coding = b""
        self._ended_at = 0  # how many parts of the body precede the end
        self._excess = False
        self._refusal = ""
        self._reads: list[bytes] | None = []  # everything received, as long as it may be read a second time

    def close(self) -> None:
        """Break the reference cycles, so that the garbage collector need not. Nothing may be fed afterwards."""
        self._parser = None

    def feed(self, data: bytes) -> bytes:
        """Parse a read and return the part of the body in it; `b""` means the end of the connection."""
        if not data:
            return self._end()
        had_head = self.head_complete
        if self._reads is not None:
            self._received += len(data)
            self._reads.append(data)
        elif not had_head:
            self._received += len(data)
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._handle_error(exc, had_head=had_head)
        body = self._body
        if had_head and len(body) == 1 and not self.complete:  # a token's chunk, as nearly all reads are
            self._bare = 0
            if self._reads is not None and self._received > REREAD_LIMIT:
                self._reads = None
            return body.pop()
        if not had_head and (self._head_request or not self.head_complete):
            self._judge_head_of(data)
        if self.complete:
            self._finish()
        elif self.head_complete and self._received > REREAD_LIMIT:
            self._reads = None
        if not body:
            # Trailers and chunk extensions without end yield nothing that llhttp would report.
            self._bare += len(data)
            if self._bare > self._limit and not self.complete:
                raise MalformedResponseError(f"more than {self._limit} bytes of a body without any content")
            return b""
        self._bare = 0
        data = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        return data

    def _finish(self) -> None:
        del self._body[self._ended_at :]  # what follows belongs to no response
        if self._excess:
            self.keep_alive = False
        self._reads = None
        if self._head_request or not self.keep_alive:
            self.close()

    def _handle_error(self, exc: Exception, *, had_head: bool) -> None:
        if self.complete:
            self._excess = True
            return
        if self._reads is not None and not self._refusal:
            try:
                self._read_again(had_head=had_head)
                return
            except httptools.HttpParserError as second:
                exc = second
        if self.complete:
            self._excess = True
            return
        error = MalformedResponseError(self._refusal or f"not an HTTP/1.1 response: {exc}")
        # What the same read brought before it is worth as much as if it had come in a read of its own.
        if not self.head_complete or (had_head and not self._body):
            raise error from exc
        self.failure = error

    def _read_again(self, *, had_head: bool) -> None:
        """Parse everything received by the wider grammar, to replace llhttp's result."""
        reads, self._reads = self._reads or [], None
        returned = _body_length(reads[:-1]) if had_head else 0
        self._transfer_coding = b""
        self.head_complete = False
        self._body.clear()
        self._parser = LenientParser(self)
        try:
            self._parser.feed_data(b"".join(reads))
        finally:
            if returned:
                rest = b"".join(self._body)[returned:]
                self._body[:] = [rest] if rest else []
                self._ended_at = len(self._body)

    def _judge_head_of(self, data: bytes) -> None:
        """Check a read after which the head is still incomplete, or complete and not to be followed by a body."""
        if not self.head_complete:
            if self._received > self._limit:
                raise MalformedResponseError(f"more than {self._limit} bytes of headers")
        else:
            # No body follows the head of a response to HEAD, but llhttp does not know what was asked.
            self.complete = True
            self._excess = self._excess or bool(self._body) or not data.endswith(b"\r\n\r\n")
            self._body.clear()

    def _end(self) -> bytes:
        self.keep_alive = False
        if not self.head_complete:
            raise httpx.RemoteProtocolError("the server closed the connection within the headers of the response")
        if b"\ncontent-length:" in self.lower_head or self._transfer_coding:
            raise httpx.RemoteProtocolError("the server closed the connection before the end of the body")
        self.complete = True
        return b""

    # What both parsers call. An exception raised here stops llhttp and comes back without its text, hence _refusal.

    def on_message_begin(self) -> None:
        """Record the bytes after the response."""
        if self.complete:
            self._excess = True

    def on_headers_complete(self) -> None:
        """Check the head."""
        parser = self._parser
        if self.complete or parser is None:
            return
        status = parser.get_status_code()
        if status < OK:
            self._judge_interim(status)
            return  # interim: on_message_complete makes room for the real one
        head = parser.head if isinstance(parser, LenientParser) else head_in(self._reads or [], self._interim)
        if not head.startswith(b"HTTP/1.1 "):
            self._judge_version()
        if len(head) > self._limit or len(head) > LEAST_OF_MAX_HEADERS:
            self._judge_size(head)
        lower = head.lower()
        if b"\ntransfer-encoding:" not in lower:
            self._reads = None  # nothing in a body of this kind can be malformed
        else:
            self._transfer_coding = transfer_codings_in(lower)
            if has_body(status, head_request=self._head_request):
                self._judge_transfer_coding()
        self.status = status
        self.head = head
        self.lower_head = lower
        self.keep_alive = parser.should_keep_alive()
        self.head_complete = True

    def _judge_interim(self, status: int) -> None:
        self._judge_version()
        if status == SWITCHING_PROTOCOLS:
            self._refuse("the server switched to a protocol that was not asked for")
        if status < SWITCHING_PROTOCOLS - 1:
            self._refuse(f"{status} is not a status code")

    def _judge_version(self) -> None:
        if self._parser is not None and (version := self._parser.get_http_version()) not in HTTP_VERSIONS:
            self._refuse(f"HTTP/{version} is not supported")

    def _judge_size(self, head: bytes) -> None:
        if head.count(b"\r\n") > MAX_HEADERS:
            self._refuse(f"more than {MAX_HEADERS} headers")
        if len(head) > self._limit:
            self._refuse(f"more than {self._limit} bytes of headers")

    def on_message_complete(self) -> None:
        """Process the end of a response, interim or final."""
        if not self.head_complete:
            self._interim += 1
        elif not self.complete:
            self.complete = True
            self._ended_at = len(self._body)

    def _judge_transfer_coding(self) -> None:
        coding = self._transfer_coding
        if coding == b"chunked":
            return
        codings = codings_in(coding)
        if not codings:
            self._transfer_coding = b""
            return
        if codings != {b"chunked"}:
            self._refuse(f"the transfer coding {coding[:40].decode('latin-1')!r} is not supported")
        if not isinstance(self._parser, LenientParser):
            # llhttp would read up to the end of the connection: it knows the word only alone.
            raise httptools.HttpParserError("the transfer coding is given twice or padded")

    def _refuse(self, why: str) -> NoReturn:
        self._refusal = why
        raise httptools.HttpParserError(why)


class _BodyLength:
    """Counts the bytes of a body."""

    def __init__(self) -> None:
        self.length = 0

    def on_body(self, data: bytes) -> None:
        self.length += len(data)


def _body_length(reads: list[bytes]) -> int:
    """Return how many bytes of a body llhttp found in these reads, all of them valid."""
    counted = _BodyLength()
    parser = httptools.HttpResponseParser(counted)
    for data in reads:
        parser.feed_data(data)
    return counted.length
