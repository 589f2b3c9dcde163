"""The head of a request as bytes.

Here: which headers are added (Host, and the length of a body) and which are refused. Not here: sending
(`request_writer`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import httpx

__all__ = ["LAST_CHUNK", "PostTemplate", "RequestHead", "chunk_of"]

# RFC 9110, section 5.6.2.
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# Methods and header names come from a small vocabulary, and one that was seen before needs no regular expression. Only
# made-up names go beyond this many, and then each is checked every time.
MAX_KNOWN_TOKENS = 1024
METHODS_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})

LAST_CHUNK = b"0\r\n\r\n"

_lowered: dict[bytes, bytes] = {}


def chunk_of(data: bytes) -> bytes:
    """Return `data` as a chunk of a body."""
    # One of length zero would end the body.
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


class RequestHead:
    """A request line and headers, checked and rendered, and how the body after them is delimited.

    Attributes:
        data: The bytes of the head.
        length: The Content-Length, if there is one.
        chunked: Whether the body has to be sent in chunks.
        wants_close: Whether the connection cannot be reused afterwards.
    """

    __slots__ = ("chunked", "data", "length", "wants_close")

    def __init__(self, request: httpx.Request, host_header: bytes, body: bytes | None) -> None:
        """Render the head of `request`. `body` is its body, or `None` if that has to be iterated over.

        Raises `httpx.LocalProtocolError` for a method or header that HTTP cannot express. A value that could end its
        header and start another one is never sent.
        """
        self.chunked = False
        self.wants_close = False
        self.length: int | None = None
        method = request.method.encode()
        _lower(method)
        lines = [b"%b %b HTTP/1.1" % (method, request.url.raw_path)]
        has_host = False
        for name, value in request.headers.raw:
            lower = _lowered.get(name) or _lower(name)
            lines.append(b"%b: %b" % (name, value))
            if lower == b"host":
                has_host = True
            elif lower in {b"content-length", b"transfer-encoding", b"connection"}:
                self._apply(lower, value)
        if not has_host:
            lines.insert(1, host_header)
        if header := self._delimit(request.method, body):
            lines.append(header)
        lines += [b"", b""]
        self.data = b"\r\n".join(lines)
        # If there are exactly as many line breaks as were added here, no name or value contains one.
        breaks = len(lines) - 1
        if self.data.count(b"\r") != breaks or self.data.count(b"\n") != breaks or b"\0" in self.data:
            raise httpx.LocalProtocolError(f"line break or NUL in {_offending_header(lines)}")

    def render(self, body: bytes) -> bytes:
        """Return the bytes of the whole request."""
        return self.data + (chunk_of(body) + LAST_CHUNK if self.chunked else body)

    def _apply(self, name: bytes, value: bytes) -> None:
        """Record a header that concerns the body or the connection."""
        if name == b"connection":
            self.wants_close = b"close" in value.lower()
        elif name == b"content-length":
            if not value.isdigit() or self.length is not None:
                raise httpx.LocalProtocolError("Content-Length must be one number")
            self.length = int(value)
        elif value.lower() == b"chunked":
            self.chunked = True
        else:
            raise httpx.LocalProtocolError("the only supported Transfer-Encoding is 'chunked'")

    def _delimit(self, method: str, body: bytes | None) -> bytes | None:
        """Decide how the body is delimited, and return the header for that, if it is missing."""
        if self.chunked:
            if self.length is not None:
                raise httpx.LocalProtocolError("Content-Length and Transfer-Encoding exclude each other")
            return None
        if self.length is not None:
            if body is not None and self.length != len(body):
                raise httpx.LocalProtocolError(f"Content-Length is {self.length}, the body has {len(body)} bytes")
            return None
        if body is None:
            self.chunked = True
            return b"Transfer-Encoding: chunked"
        self.length = len(body)
        return b"Content-Length: %d" % len(body) if body or method in METHODS_WITH_BODY else None


def _lower(token: bytes) -> bytes:
    if TOKEN.fullmatch(token) is None:
        raise httpx.LocalProtocolError(f"{token!r} is not a valid method or header name")
    lower = token.lower()
    if len(_lowered) < MAX_KNOWN_TOKENS:
        _lowered[token] = lower
    return lower


def _offending_header(lines: list[bytes]) -> str:
    """Name the offending header without its value, which may be a key."""
    line = next(line for line in lines if not {0, 10, 13}.isdisjoint(line))
    return repr(line.partition(b":")[0].decode("latin-1"))


class PostTemplate:
    """A POST request without its body, checked and rendered once, for clients that send the same request often.

    Args:
        url: Its address.
        headers: Its headers. Host and Content-Length are added.
    """

    __slots__ = ("_prefix", "headers", "key", "url", "wants_close")

    def __init__(self, url: httpx.URL, headers: httpx.Headers) -> None:
        self.url = url
        self.headers = headers
        self.key = (url.scheme, url.raw_host, url.port)
        request = httpx.Request("POST", url, headers=headers, stream=httpx.ByteStream(b""))
        head = RequestHead(request, b"Host: " + url.netloc, b"")
        self.wants_close = head.wants_close
        self._prefix = head.data.removesuffix(b"0\r\n\r\n")

    def with_headers(self, headers: Mapping[str, str]) -> PostTemplate:
        """Return the same template with these headers. They replace headers of the same names."""
        merged = self.headers.copy()
        merged.update(headers)
        return PostTemplate(self.url, merged)

    def render(self, body: bytes) -> bytes:
        """Return the bytes of the whole request."""
        return b"%b%d\r\n\r\n%b" % (self._prefix, len(body), body)
