"""The bytes of one HTTP/1.1 response as a status, headers and a body; no I/O.

Here: llhttp (through httptools) and what it leaves to its user: interim responses, HEAD, limits, a body that the end of
the connection ends, bytes that belong to no response. Not here: reading and waiting (`http1`), content-encodings
(`decoding`).
"""

from __future__ import annotations

from itertools import chain
from typing import NoReturn

import httptools
import httpx

__all__ = ["MAX_HEADERS", "ResponseParser", "has_body"]

# nginx, Apache and llama.cpp allow 100 or fewer request headers; nothing a chat server sends comes near this many.
MAX_HEADERS = 256
TRANSFER_ENCODING = len(b"transfer-encoding")
HTTP_VERSIONS = {"1.0": b"HTTP/1.0", "1.1": b"HTTP/1.1"}
OK, NO_CONTENT, NOT_MODIFIED, SWITCHING_PROTOCOLS = 200, 204, 304, 101


def has_body(status: int, *, head_request: bool) -> bool:
    """Say whether a body follows the head of a final response (RFC 9112, section 6.3)."""
    return not head_request and status not in {NO_CONTENT, NOT_MODIFIED}


class ResponseParser:
    """Takes in a response, in any pieces, up to its end.

    `feed` raises `httpx.RemoteProtocolError` for whatever is no response to this request; where something of use came
    before it in the same read, the error is kept in `failure` instead.
    """

    __slots__ = (
        "_bare",
        "_body",
        "_ended_at",
        "_excess",
        "_head_request",
        "_limit",
        "_llhttp",
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
        self._ended_at = 0  # how many of those pieces came before the end
        self.on_body = self._body.append  # called by llhttp; a method of ours would cost one more call for every token
        self._excess = False
        self._refusal = ""
        self._llhttp = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> bytes:
        """Take in what was read and return the part of the body in it; `b""` is the end of the connection."""
        if not data:
            return self._end()
        had_head = self.head_complete
        if not had_head:
            self._received += len(data)
        try:
            self._llhttp.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._fail(exc, had_head=had_head)
        body = self._body
        if had_head and len(body) == 1 and not self.complete:  # a token's chunk, as nearly all reads are
            self._bare = 0
            return body.pop()
        if not had_head:
            self._judge_head_of(data)
        if self.complete:
            del body[self._ended_at :]  # what follows belongs to no response
            if self._excess:
                self.keep_alive = False
            del self._llhttp  # it refers back here, and the garbage collector would have to find that out
        if not body:
            # Trailers and chunk extensions without end come to nothing that llhttp would report.
            self._bare += len(data)
            if self._bare > self._limit and not self.complete:
                raise httpx.RemoteProtocolError(f"more than {self._limit} bytes of a body without any content")
            return b""
        self._bare = 0
        data = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        return data

    def _fail(self, exc: Exception, *, had_head: bool) -> None:
        if self.complete:
            self._excess = True
            return
        error = httpx.RemoteProtocolError(self._refusal or f"not an HTTP/1.1 response: {exc}")
        # What came before it in the same read is worth as much as if it had come in a read of its own.
        if not self.head_complete or (had_head and not self._body):
            raise error from exc
        self.failure = error

    def _judge_head_of(self, data: bytes) -> None:
        """Look at what a read has brought that may have ended the head."""
        if not self.head_complete:
            if self._received > self._limit:
                raise httpx.RemoteProtocolError(f"more than {self._limit} bytes of headers")
        elif self._head_request:
            # No body follows the head of a response to HEAD, but llhttp does not know what was asked.
            self.complete = True
            self._excess = self._excess or bool(self._body) or not data.endswith(b"\r\n\r\n")
            self._body.clear()

    def _end(self) -> bytes:
        self.keep_alive = False
        if not self.head_complete:
            raise httpx.RemoteProtocolError("the server closed the connection within the headers of the response")
        has_length = any(name.lower() == b"content-length" for name, _ in self.headers)
        if has_length or self._transfer_coding:
            raise httpx.RemoteProtocolError("the server closed the connection before the end of the body")
        self.complete = True
        return b""

    # What llhttp calls. An exception raised here stops it and comes back without its type, hence _refusal.

    def on_message_begin(self) -> None:
        """Notice what comes after the response."""
        if self.complete:
            self._excess = True

    def on_status(self, reason: bytes) -> None:
        """Take a piece of the reason phrase."""
        if not self.complete:
            self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header or trailer."""
        if self.head_complete:  # trailers, which nothing here has a use for
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
        # What was received may end with a part of the body; as long as all of it is little enough, so is the head.
        if self._received > self._limit and sum(map(len, chain(*self.headers))) > self._limit:
            self._refuse(f"more than {self._limit} bytes of headers")
        status = self._llhttp.get_status_code()
        version = HTTP_VERSIONS.get(self._llhttp.get_http_version())
        if version is None:
            self._refuse(f"HTTP/{self._llhttp.get_http_version()} is not spoken here")
        if status == SWITCHING_PROTOCOLS:
            self._refuse("the server switched to a protocol that was not asked for")
        if status < SWITCHING_PROTOCOLS - 1:
            self._refuse(f"{status} is no status code")
        if status < OK:
            return  # interim: on_message_complete makes room for the real one
        coding = self._transfer_coding.strip().lower()
        if coding not in {b"", b"chunked"} and has_body(status, head_request=self._head_request):
            self._refuse("the transfer coding is not spoken here")
        self.status = status
        self.http_version = version
        # Asked here too: a response to HEAD never comes to the end that llhttp expects.
        self.keep_alive = self._llhttp.should_keep_alive()
        self.head_complete = True

    def on_message_complete(self) -> None:
        """Take the end of a response, interim or final."""
        if self.head_complete:
            if not self.complete:
                self.complete = True
                self._ended_at = len(self._body)
            self.keep_alive = self._llhttp.should_keep_alive()
        else:
            self.headers.clear()
            self.reason = self._transfer_coding = b""

    def _refuse(self, why: str) -> NoReturn:
        self._refusal = why
        raise httpx.RemoteProtocolError(why)
