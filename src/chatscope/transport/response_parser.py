"""Parses the bytes of one HTTP/1.1 response to a status, headers and a body, without I/O.

Here: llhttp (through httptools) and what it leaves to its user: interim responses, HEAD, limits, a body that ends with
the connection, bytes after the end, and the second reading of what llhttp refuses. Not here: reading and waiting
(`http1`), the wider grammar itself (`lenient_parser`), content-encodings (`decoding`).
"""

from __future__ import annotations

from itertools import chain
from typing import NoReturn

import httptools
import httpx

from chatscope.transport.errors import MalformedResponseError
from chatscope.transport.lenient_parser import LenientParser, codings_in

__all__ = ["MAX_HEADERS", "ResponseParser", "has_body"]

# curl allows 5000. Their bytes are limited too; this bounds the objects made of them.
MAX_HEADERS = 4096
# How many bytes of a chunked response are kept for a second reading. Whatever a server does differently, it does in the
# first chunk already; some responses are over within this.
REREAD_LIMIT = 4096
TRANSFER_ENCODING = len(b"transfer-encoding")
# Some servers, behind gateways, say 2.0 in an HTTP/1.1 response; h11 and curl read it.
HTTP_VERSIONS = {"1.0": b"HTTP/1.0", "1.1": b"HTTP/1.1", "2.0": b"HTTP/2.0"}
OK, NO_CONTENT, NOT_MODIFIED, SWITCHING_PROTOCOLS = 200, 204, 304, 101


def has_body(status: int, *, head_request: bool) -> bool:
    """Return whether a body follows the head of a final response (RFC 9112, section 6.3)."""
    return not head_request and status not in {NO_CONTENT, NOT_MODIFIED}


class ResponseParser:
    """Takes in a response, cut anywhere, up to its end.

    `feed` raises `MalformedResponseError` for anything that is not a response, and `httpx.RemoteProtocolError` where
    the connection ends too early. If the same read brought something of use before the error, `feed` returns that and
    keeps the error in `failure`.
    """

    __slots__ = (
        "_bare",
        "_body",
        "_ended_at",
        "_excess",
        "_head_request",
        "_limit",
        "_parser",
        "_reads",
        "_received",
        "_refusal",
        "_trailer_bytes",
        "_transfer_coding",
        "complete",
        "failure",
        "head_complete",
        "headers",
        "http_version",
        "keep_alive",
        "on_body",
        "reason",
        "status",
    )  # fmt: skip

    def __init__(self, *, head_request: bool, max_header_bytes: int) -> None:
        self.status = 0
        self.reason = b""
        self.http_version = b"HTTP/1.1"
        self.headers: list[tuple[bytes, bytes]] = []
        self.head_complete = False
        self.complete = False
        self.keep_alive = False
        self.failure: httpx.RemoteProtocolError | None = None
        self._bare = 0
        self._head_request = head_request
        self._limit = max_header_bytes
        self._trailer_bytes = 0
        self._received = 0
        self._transfer_coding = b""
        self._body: list[bytes] = []
        self._ended_at = 0  # how many of those parts precede the end
        self.on_body = self._body.append  # called by llhttp; a method of ours would cost one more call for every token
        self._excess = False
        self._refusal = ""
        self._reads: list[bytes] | None = []  # everything received, as long as it may be read a second time
        self._parser: httptools.HttpResponseParser | LenientParser = httptools.HttpResponseParser(self)

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
        if not had_head:
            self._judge_head_of(data)
        if self.complete:
            self._finish()
        elif self.head_complete and self._received > REREAD_LIMIT:
            self._reads = None
        return self._take_body(len(data))

    def _take_body(self, received: int) -> bytes:
        body = self._body
        if not body:
            # Trailers and chunk extensions without end yield nothing that llhttp would report.
            self._bare += received
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
        del self._parser  # it refers back here, and the garbage collector would have to find that out

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
        """Read all that was received by the wider grammar, in the place of what llhttp made of it."""
        reads, self._reads = self._reads or [], None
        returned = _body_length(reads[:-1]) if had_head else 0
        self.headers.clear()
        self.reason = self._transfer_coding = b""
        self.head_complete = False
        self._trailer_bytes = 0
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
        """Check a read that may have ended the head."""
        if not self.head_complete:
            if self._received > self._limit:
                raise MalformedResponseError(f"more than {self._limit} bytes of headers")
        elif self._head_request:
            # No body follows the head of a response to HEAD, but llhttp does not know what was asked.
            self.complete = True
            self._excess = self._excess or bool(self._body) or not data.endswith(b"\r\n\r\n")
            self._body.clear()
        elif not self._transfer_coding:
            self._reads = None  # nothing in a body of this kind can be malformed

    def _end(self) -> bytes:
        self.keep_alive = False
        if not self.head_complete:
            raise httpx.RemoteProtocolError("the server closed the connection within the headers of the response")
        has_length = any(name.lower() == b"content-length" for name, _ in self.headers)
        if has_length or self._transfer_coding:
            raise httpx.RemoteProtocolError("the server closed the connection before the end of the body")
        self.complete = True
        return b""

    # What both parsers call. An exception raised here stops llhttp and comes back without its text, hence _refusal.

    def on_message_begin(self) -> None:
        """Record what comes after the response."""
        if self.complete:
            self._excess = True

    def on_status(self, reason: bytes) -> None:
        """Take a part of the reason phrase."""
        if not self.complete:
            self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header or a trailer. Trailers are dropped; nothing here uses them."""
        if self.head_complete:
            self._trailer_bytes += len(name) + len(value)
            if self._trailer_bytes > self._limit:
                self._refuse(f"more than {self._limit} bytes of trailers")
            return
        self.headers.append((name, value))
        # The length tells most names apart without looking at them.
        if len(name) == TRANSFER_ENCODING and name.lower() == b"transfer-encoding":
            self._transfer_coding += b"," + value if self._transfer_coding else value

    def on_headers_complete(self) -> None:
        """Judge the head."""
        if self.complete:
            return
        if len(self.headers) > MAX_HEADERS:
            self._refuse(f"more than {MAX_HEADERS} headers")
        # What was received may end with a part of the body. If all of it is within the limit, so is the head.
        if self._received > self._limit and sum(map(len, chain(*self.headers))) > self._limit:
            self._refuse(f"more than {self._limit} bytes of headers")
        status = self._parser.get_status_code()
        version = HTTP_VERSIONS.get(self._parser.get_http_version())
        if version is None:
            self._refuse(f"HTTP/{self._parser.get_http_version()} is not supported")
        if status == SWITCHING_PROTOCOLS:
            self._refuse("the server switched to a protocol that was not asked for")
        if status < SWITCHING_PROTOCOLS - 1:
            self._refuse(f"{status} is not a status code")
        if status < OK:
            return  # interim: on_message_complete makes room for the real one
        if self._transfer_coding and has_body(status, head_request=self._head_request):
            self._judge_transfer_coding()
        self.status = status
        self.http_version = version
        # Asked here too: a response to HEAD never comes to the end that llhttp expects.
        self.keep_alive = self._parser.should_keep_alive()
        self.head_complete = True

    def on_message_complete(self) -> None:
        """Take the end of a response, interim or final."""
        if self.head_complete:
            if not self.complete:
                self.complete = True
                self._ended_at = len(self._body)
            self.keep_alive = self._parser.should_keep_alive()
        else:
            self.headers.clear()
            self.reason = self._transfer_coding = b""

    def _judge_transfer_coding(self) -> None:
        coding = self._transfer_coding.lower()
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
