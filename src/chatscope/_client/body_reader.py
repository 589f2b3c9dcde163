"""Reads the body of a response that was not streamed, until it is complete, even if the server does not end it.

Not here: the grace after which it counts as complete (`stream_state`), and its meaning (`completion`,
`request_errors`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf

import anyio

from chatscope._client.stream_state import StreamState
from chatscope.errors import APITimeoutError, ChatError
from chatscope.protocol.error_body import BODY_LIMIT
from chatscope.protocol.stream_decoder import StreamDecoder


async def read_rest(
    body: bytearray,
    receive: Callable[[], Awaitable[bytes]],
    content_type: str,
    limit: int,
    *,
    choices: int = 1,
    ends_by: float = inf,
) -> None:
    """Read the rest of a body. If cancelled, it is lost.

    A body without a length ends when the server closes the connection, and some servers do not. So a whole JSON
    document counts as the body if nothing follows it for the grace that also ends streams.

    Args:
        body: what the first read returned; the rest is appended.
        receive: returns the next bytes of the body, `b""` at its end.
        content_type: the response's content type.
        limit: how many bytes are enough.
        choices: how many choices were requested.
        ends_by: the latest end of the grace, on the event loop's clock.

    Raises:
        ChatError: as `receive`.
    """
    state = StreamState(StreamDecoder(content_type), choices)
    data = bytes(body)
    while data:
        if state.decoder.reads_events or len(body) <= BODY_LIMIT:
            state.feed(data, 0)
        else:
            state.is_open = True  # a large body is not examined after every read
        if state.is_over or len(body) > limit:
            break
        try:
            data = await receive() if state.is_open else await _last(state, receive, ends_by)
        except ChatError as error:
            error.partial_text = state.decoder.assembler.text  # of a stream that was not requested
            raise
        body += data


async def _last(state: StreamState, receive: Callable[[], Awaitable[bytes]], ends_by: float) -> bytes:
    """Return what still arrives within the grace, or `b""`."""
    now = anyio.current_time()
    with suppress(APITimeoutError), anyio.CancelScope(deadline=min(ends_by, now + (state.patience(now) or 0.0))):
        return await receive()
    return b""
