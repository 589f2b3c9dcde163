"""Builds httpx's responses: the body is decoded, and the headers that described its encoding are removed.

Here: `response_from`, for the transport's own response; `decoded_response`, for one that a proxy's transport read.
Not here: the decoders and the stream that applies them (`decoding`), splitting the head (`response_head`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

from chatscope.transport.decoding import DecodedStream, decoders_for
from chatscope.transport.response_head import has_body, headers_in

if TYPE_CHECKING:
    from chatscope.transport.base import TimedStream
    from chatscope.transport.http1 import ResponseStream

# Headers that are no longer true of a decoded body.
ENCODED_ONLY = frozenset({b"content-encoding", b"content-length"})


def response_from(response: ResponseStream, request: httpx.Request, *, max_decoded_bytes: int) -> httpx.Response:
    """Return httpx's form of a response whose head has arrived.

    Raises:
        httpx.DecodingError: The body has more codings than anybody uses. The connection is closed.
    """
    status_line = response.head.partition(b"\r\n")[0]
    extensions = {"http_version": status_line[:8], "reason_phrase": status_line[13:]}  # HTTP/1.1 200 OK
    try:
        return decoded_response(
            response.status,
            headers_in(response.head),
            response,
            extensions,
            request,
            max_decoded_bytes=max_decoded_bytes,
        )
    except BaseException:
        response.abort()
        raise


def decoded_response(
    status: int,
    headers: list[tuple[bytes, bytes]],
    stream: TimedStream,
    extensions: dict[str, Any],
    request: httpx.Request,
    *,
    max_decoded_bytes: int,
) -> httpx.Response:
    """Return a response with its body decoded and the headers of its encoding removed.

    Raises:
        httpx.DecodingError: The body has more codings than anybody uses. The caller closes `stream`.
    """
    codings = b",".join([value for name, value in headers if name.lower() == b"content-encoding"])
    if codings and has_body(status, head_request=request.method == "HEAD"):
        decoders = decoders_for(codings, request)
        if decoders:
            stream = DecodedStream(stream, decoders, limit=max_decoded_bytes, request=request)
            headers = [header for header in headers if header[0].lower() not in ENCODED_ONLY]
    return httpx.Response(status, headers=headers, stream=stream, extensions=extensions, request=request)
