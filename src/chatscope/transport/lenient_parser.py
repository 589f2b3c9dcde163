"""A second parser for responses that llhttp refuses: the grammar that h11 (and so httpx) and curl both accept.

Here: bare line feeds, folded headers, control characters in values, a repeated Content-Length, Transfer-Encoding beside
Content-Length, the transfer coding `identity`, padded chunk sizes, and chunk extensions and trailers of any shape.
`tests/transport/test_framing.py` lists what the two were seen to accept. Not here: limits and the meaning of a status
(`response_parser`, whose callbacks this parser calls as llhttp does). It costs many times as much as llhttp, so it is
only used if llhttp fails.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from typing import Protocol, TypeAlias

from httptools import HttpParserError

__all__ = ["LenientParser"]

# RFC 9112, sections 4, 5 and 7.1, with what h11's `_abnf.py` allows beyond them.
HTTP = b"HTTP/"
STATUS_LINE = re.compile(rb"HTTP/([0-9]\.[0-9]) ([0-9]{3})(?: ([^\0\r]*))?")
HEADER_NAME = re.compile(rb"[-!#$%&'*+.^_`|~0-9a-zA-Z]+")
FORBIDDEN_IN_VALUE = re.compile(rb"[\0\r\v\f]")
LENGTH = re.compile(rb"[0-9]{1,20}")
CHUNK_LINE = re.compile(rb"([0-9a-fA-F]{1,20})[ \t]*(?:;.*)?")
CRLF = b"\r\n"
HEX_DIGITS = b"0123456789abcdefABCDEF"
# How much an error quotes of what is not HTTP.
QUOTED = 40

Step: TypeAlias = Generator[None, None, None]
Headers: TypeAlias = list[tuple[bytes, bytes]]


class ParserCallbacks(Protocol):
    """The callbacks that `httptools.HttpResponseParser` and this parser call."""

    @property
    def on_body(self) -> Callable[[bytes], object]:
        """Receive a part of the body."""
        ...

    def on_headers_complete(self) -> None:
        """Receive the end of a head."""

    def on_message_complete(self) -> None:
        """Receive the end of a response, interim or final."""


def codings_in(transfer_encoding: bytes) -> set[bytes]:
    """Return the transfer codings in a header's value. `identity` does not count (RFC 2616, section 3.6; curl)."""
    codings = {coding.strip(b" \t").lower() for coding in transfer_encoding.split(b",")}
    return codings - {b"", b"identity"}


class LenientParser:
    """Parses one response, including interim ones before it, with the interface of `httptools.HttpResponseParser`.

    The connection is never reused afterwards. If the two sides may disagree about the end of a response, the next
    response could belong to another request (RFC 9112, section 11.2).

    Attributes:
        head: the status line and the headers of the current response, each on a line of its own and none folded.
    """

    __slots__ = ("_buffer", "_callbacks", "_scanned", "_status", "_steps", "_version", "head")

    def __init__(self, callbacks: ParserCallbacks) -> None:
        self._callbacks = callbacks
        self._buffer = bytearray()
        self._scanned = 0
        self._status = 0
        self._version = ""
        self.head = b""
        self._steps = self._read_response()

    def feed_data(self, data: bytes) -> None:
        """Process the bytes of a read. Raises `HttpParserError` where they are not HTTP, and after the end."""
        self._buffer += data
        for _ in self._steps:
            return
        if self._buffer:
            raise HttpParserError("there are bytes after the end of the response")

    def get_status_code(self) -> int:
        """Return the status of the current response."""
        return self._status

    def get_http_version(self) -> str:
        """Return the version of the current response, such as "1.1"."""
        return self._version

    def should_keep_alive(self) -> bool:
        """Return `False`, because the connection is never reused."""
        return False

    # The grammar, in the order of the bytes. A generator yields where it needs more of them.

    def _read_response(self) -> Step:
        while True:
            status_line = yield from self._read_status_line()
            headers = yield from self._read_headers()
            self.head = b"\r\n".join([status_line, *[b"%b: %b" % header for header in headers]])
            self._callbacks.on_headers_complete()
            if self._status >= 200:
                break
            self._callbacks.on_message_complete()
        if self._status not in {204, 304}:
            yield from self._read_body(headers)
        self._callbacks.on_message_complete()

    def _read_status_line(self) -> Generator[None, None, bytes]:
        while len(self._buffer) < len(HTTP) and HTTP.startswith(self._buffer):
            yield
        if not self._buffer.startswith(HTTP):
            raise HttpParserError(f"it begins with {bytes(self._buffer[:QUOTED])!r}")
        line = yield from self._read_line()
        match = STATUS_LINE.fullmatch(line)
        if match is None:
            raise HttpParserError(f"its first line is {line[:QUOTED]!r}")
        self._version = match[1].decode("ascii")
        self._status = int(match[2])
        return line

    def _read_headers(self) -> Generator[None, None, Headers]:
        """Read headers or trailers up to the empty line. A line that starts with a blank continues the last one."""
        lines: list[bytearray] = []
        while line := (yield from self._read_line()):
            if line[0] not in b" \t":
                lines.append(bytearray(line))
            elif lines:
                lines[-1] += b" " + line.strip(b" \t")
            else:
                raise HttpParserError("the first header begins with a blank")
        headers: Headers = []
        for unfolded in lines:
            name, colon, value = bytes(unfolded).partition(b":")
            value = value.strip(b" \t")
            if not colon or HEADER_NAME.fullmatch(name) is None or FORBIDDEN_IN_VALUE.search(value):
                raise HttpParserError(f"a header is malformed: {name[:QUOTED]!r}")
            headers.append((name, value))
        return headers

    def _read_body(self, headers: Headers) -> Step:
        # Transfer-Encoding wins over Content-Length (RFC 9112, section 6.3). That it is "chunked" is checked already.
        if any(codings_in(value) for name, value in headers if name.lower() == b"transfer-encoding"):
            yield from self._read_chunks()
            return
        values = [value for name, value in headers if name.lower() == b"content-length"]
        lengths = {length.strip(b" \t") for value in values for length in value.split(b",")}
        if not lengths:
            while True:
                yield from self._read_data(len(self._buffer) or 1)
        length = lengths.pop()
        if lengths or LENGTH.fullmatch(length) is None:
            raise HttpParserError("the Content-Length is not one number")
        yield from self._read_data(int(length))

    def _read_chunks(self) -> Step:
        while True:
            while not self._buffer:
                yield
            if self._buffer[0] not in HEX_DIGITS:  # judged at once: the rest of the line may never come
                raise HttpParserError(f"the size of a chunk is {bytes(self._buffer[:QUOTED])!r}")
            line = yield from self._read_line()
            match = CHUNK_LINE.fullmatch(line.rstrip(b" \t"))
            if match is None:
                raise HttpParserError(f"the size of a chunk is {line[:QUOTED]!r}")
            size = int(match[1], 16)
            if not size:
                break
            yield from self._read_data(size)
            while len(self._buffer) < len(CRLF) and CRLF.startswith(self._buffer):
                yield
            if not self._buffer.startswith(CRLF):
                raise HttpParserError("a chunk is longer than its size")
            del self._buffer[: len(CRLF)]
        yield from self._read_headers()  # trailers, which nothing here uses

    def _read_data(self, length: int) -> Step:
        while length:
            while not self._buffer:
                yield
            data = bytes(self._buffer[:length])
            del self._buffer[:length]
            length -= len(data)
            self._callbacks.on_body(data)

    def _read_line(self) -> Generator[None, None, bytes]:
        while (end := self._buffer.find(b"\n", self._scanned)) < 0:
            self._scanned = len(self._buffer)
            yield
        line = bytes(self._buffer[:end]).removesuffix(b"\r")
        del self._buffer[: end + 1]
        self._scanned = 0
        return line
