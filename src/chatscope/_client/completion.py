"""One attempt at a request for a whole response: send it, read the body, decode it, now or later."""

from __future__ import annotations

import time
from math import inf
from typing import Final

import msgspec

from chatscope._client.body_reader import read_rest
from chatscope._client.request import ClientRequest
from chatscope._limits.attempts import AttemptRecord
from chatscope._limits.timeouts import NO_DEADLINE, fail_at
from chatscope.errors import InvalidResponseError
from chatscope.protocol.body import decode_inexact
from chatscope.protocol.body_start import MAX_BODY_BYTES
from chatscope.protocol.decode import decode_exact
from chatscope.protocol.headers import ResponseHeaders
from chatscope.protocol.response import Completion

LONG_TEXT: Final = 256
"""The length from which on a text takes more memory than the work of leaving it out of a body is worth."""


class ReceivedBody(msgspec.Struct, frozen=True, gc=False):
    """A response from which its completion can be decoded again, together with its text.

    Attributes:
        data: the body, without a long text.
        gap: where the text is to be inserted, as JSON; -1 if it is in `data`.
        head: the status line and the headers.
    """

    data: bytes
    gap: int
    head: bytes

    @classmethod
    def of(cls, request: ClientRequest, text: str) -> ReceivedBody | None:
        """Return the response of a request that has succeeded with this text, if it can be decoded again."""
        if (data := request.body) is None:
            return None
        gap = -1
        if len(text) > LONG_TEXT:  # which the result has: do not keep it twice
            encoded = _as_json(text)
            gap = data.find(encoded)
            if gap >= 0:
                data = data[:gap] + data[gap + len(encoded) :]
        return cls(data, gap, request.headers.head)

    def completion(self, text: str, record: AttemptRecord) -> Completion:
        """Return the completion with this text that the request with this record received."""
        data, gap = self.data, self.gap
        if gap >= 0:
            data = data[:gap] + _as_json(text) + data[gap:]
        completion = decode_exact(data)
        assert completion is not None  # noqa: S101 - it was decoded before
        return _with_head(completion, ResponseHeaders(self.head), record)


async def fetch(request: ClientRequest, *, holds_permit: bool = False) -> Completion:
    """Make one attempt. If cancelled, the connection is closed.

    Args:
        request: the request.
        holds_permit: whether the caller holds a permit; otherwise one is acquired.

    Raises:
        ChatError: the attempt failed.
    """
    if not holds_permit and (acquiring := request.acquire_permit()) is not None:
        await acquiring
    deadline = request.deadlines.on_attempt()
    try:
        with NO_DEADLINE if deadline is None else fail_at(deadline):
            stream = (await request.send()).stream
            request.read_ns = stream.read_ns
            data = stream.rest()  # nearly always, the whole body has arrived with the headers
            if data is None:
                data = await _read(request, MAX_BODY_BYTES)
        completion = _completion(data, request)
    except BaseException as error:
        request.on_failure(error)
        raise
    finally:
        if (response := request.release()) is not None:
            await response.close(complete=False)
    request.on_whole(completion.usage)
    return completion


async def _read(request: ClientRequest, limit: int) -> bytes:
    """Return the whole body. If cancelled, it is lost.

    Raises:
        InvalidResponseError: it is longer than `limit` bytes.
        APITimeoutError, APIConnectionError: as `receive`.
    """
    data = await request.receive()
    if not request.stream.is_over:
        body = bytearray(data)
        deadlines = [it for it in (request.retrier.deadline, request.deadlines.first_token()) if it is not None]
        await read_rest(
            body,
            request.receive,
            request.headers.get("content-type", ""),
            limit,
            choices=request.prepared.choices,
            ends_by=min((deadline.finish_by for deadline in deadlines), default=inf),
        )
        data = bytes(body)
    if len(data) > limit:
        raise InvalidResponseError(f"the response is larger than {limit} bytes")
    return data


def _completion(data: bytes, request: ClientRequest) -> Completion:
    completion = decode_exact(data)
    if completion is None:
        completion = decode_inexact(
            data,
            request.headers,
            status=request.record.status or 200,
            now=time.time(),
            at_ns=request.read_ns,
            secret=request.secret,
        )
    else:
        request.body = data
    return _with_head(completion, request.headers, request.record)


def _as_json(text: str) -> bytes:
    # Of a copy: Python keeps the UTF-8 of a text in it once it was asked for.
    return msgspec.json.encode(text[:1] + text[1:])


def _with_head(completion: Completion, headers: ResponseHeaders, record: AttemptRecord) -> Completion:
    completion.headers, completion.status, completion.request_id = headers, record.status, record.request_id
    return completion
