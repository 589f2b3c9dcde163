"""The head of a response as bytes: finding it in what was read, and its headers.

Here: what the status line and the headers say about the body after them. Not here: when a head is complete, and what
becomes of one that is refused (`response_parser`); the meaning of headers for callers.
"""

from __future__ import annotations

import re

import httptools

__all__ = ["has_body", "head_in", "headers_in", "transfer_codings_in"]

END_OF_HEAD = b"\r\n\r\n"
TRANSFER_ENCODING = re.compile(rb"\ntransfer-encoding:[ \t]*([^\r]*)")
LINES = re.compile(rb"[^\r\n]*(?:\r\n[^ \t\r\n][^\r\n]*)*")
NO_CONTENT, NOT_MODIFIED = 204, 304


def has_body(status: int, *, head_request: bool) -> bool:
    """Return whether a body follows the head of a final response (RFC 9112, section 6.3)."""
    return not head_request and status not in {NO_CONTENT, NOT_MODIFIED}


def headers_in(head: bytes) -> list[tuple[bytes, bytes]]:
    """Return the names and values in a head, without the blanks around the values."""
    fields = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
    return [(name, value.strip(b" \t")) for name, _, value in fields]


def transfer_codings_in(lower: bytes) -> bytes:
    """Return the transfer codings in a head in lower case."""
    return b",".join(TRANSFER_ENCODING.findall(lower))


def head_in(reads: list[bytes], interim: int) -> bytes:
    """Return the final head in reads that llhttp has parsed: the status line and the headers.

    Args:
        reads: all reads so far.
        interim: how many interim responses precede it.

    Raises:
        httptools.HttpParserError: it is not made of lines.
    """
    received = reads[0] if len(reads) == 1 else b"".join(reads)
    start = 0 if received[:5] == b"HTTP/" else received.find(b"HTTP/")  # line breaks may precede it
    end = received.find(END_OF_HEAD, start)
    for _ in range(interim):
        start = received.find(b"HTTP/", end + len(END_OF_HEAD))
        end = received.find(END_OF_HEAD, start)
    head = received[start:end]
    if start < 0 or end < 0 or (LLHTTP_IS_LENIENT and LINES.fullmatch(head) is None):
        raise httptools.HttpParserError("the head is not made of lines")
    return head


def _reads_folded_headers() -> bool:
    """Return whether this version of llhttp accepts headers that continue in the next line, and bare line feeds."""
    try:
        httptools.HttpResponseParser(object()).feed_data(b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n")
    except httptools.HttpParserError:
        return False
    return True


LLHTTP_IS_LENIENT = _reads_folded_headers()
