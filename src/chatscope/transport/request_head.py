"""The head of a request as bytes.

Here: which headers are added (Host, and the length of a body) and which are refused. Not here: sending (`http1`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import httpx

__all__ = ["PostTemplate", "RequestHead"]

# RFC 9110, section 5.6.2.
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# Methods and header names come from a small vocabulary: those seen before need no regular expression. Beyond this many,
# which only made-up names reach, each is checked every time.
MAX_KNOWN_TOKENS = 1024
METHODS_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})

_lowered: dict[bytes, bytes] = {}


class RequestHead:
    """A request line and headers, checked and rendered, and how the body after them is delimited."""

    __slots__ = ("chunked", "data", "length", "wants_close")

    def __init__(self, request: httpx.Request, host_header: bytes, body: bytes | None) -> None:
        """Render the head of `request`; `body` is its body, `None` if that has to be iterated over.

        Raises `httpx.LocalProtocolError` for a method or header that HTTP has no way to say: what would let one value
        end its header and begin another never leaves this process.
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
            elif lower == b"content-length":
                if not value.isdigit() or self.length is not None:
                    raise httpx.LocalProtocolError("Content-Length must be one number")
                self.length = int(value)
            elif lower == b"transfer-encoding":
                if value.lower() != b"chunked":
                    raise httpx.LocalProtocolError("the only Transfer-Encoding spoken here is 'chunked'")
                self.chunked = True
            elif lower == b"connection":
                self.wants_close = b"close" in value.lower()
        if not has_host:
            lines.insert(1, host_header)
        if self.chunked and self.length is not None:
            raise httpx.LocalProtocolError("Content-Length and Transfer-Encoding exclude each other")
        if body is None:
            if self.length is None and not self.chunked:
                self.chunked = True
                lines.append(b"Transfer-Encoding: chunked")
        elif self.length is None and not self.chunked:
            self.length = len(body)
            if body or request.method in METHODS_WITH_BODY:
                lines.append(b"Content-Length: %d" % len(body))
        elif not self.chunked and self.length != len(body):
            raise httpx.LocalProtocolError(f"Content-Length is {self.length}, the body has {len(body)} bytes")
        lines += [b"", b""]
        self.data = b"\r\n".join(lines)
        # As many line breaks as were put in, and none of them came with a name or a value.
        breaks = len(lines) - 1
        if self.data.count(b"\r") != breaks or self.data.count(b"\n") != breaks or b"\0" in self.data:
            raise httpx.LocalProtocolError(f"line break or NUL in {_culprit(lines)}")


def _lower(token: bytes) -> bytes:
    if TOKEN.fullmatch(token) is None:
        raise httpx.LocalProtocolError(f"{token!r} is no method or header name")
    lower = token.lower()
    if len(_lowered) < MAX_KNOWN_TOKENS:
        _lowered[token] = lower
    return lower


def _culprit(lines: list[bytes]) -> str:
    """Name the offending header without its value, which may be a key."""
    line = next(line for line in lines if not {0, 10, 13}.isdisjoint(line))
    return repr(line.partition(b":")[0].decode("latin-1"))


class PostTemplate:
    """A POST of which all but the body is known, checked and rendered: what a client that asks one thing sends often.

    Args:
        url: Where it goes.
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
        """Return the same with more headers, or with others in the place of those of the same name."""
        merged = self.headers.copy()
        merged.update(headers)
        return PostTemplate(self.url, merged)

    def render(self, body: bytes) -> bytes:
        """Return the whole request."""
        return b"%b%d\r\n\r\n%b" % (self._prefix, len(body), body)
