"""One attempt at a request for a whole response: send it, read the body, decode it."""

from __future__ import annotations

import time
from math import inf

from chatscope._client.body_reader import read_rest
from chatscope._client.request import ClientRequest
from chatscope._limits.timeouts import fail_at
from chatscope.errors import InvalidResponseError
from chatscope.protocol.body import decode_body
from chatscope.protocol.response import Completion
from chatscope.protocol.stream_decoder import MAX_BODY_BYTES


async def fetch(request: ClientRequest, *, acquires_permit: bool = False) -> Completion:
    """Make one attempt. If cancelled, the connection is closed.

    Args:
        request: the request.
        acquires_permit: whether a permit has to be acquired; otherwise the caller holds one.

    Raises:
        ChatError: the attempt failed.
    """
    if acquires_permit and (acquiring := request.acquire_permit()) is not None:
        await acquiring
    deadline = request.deadlines.on_attempt()
    try:
        with fail_at(deadline):
            await request.send()
            stream = request.stream
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
    request.on_first_output()
    request.on_usage(completion.usage)
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
    completion = decode_body(
        data,
        request.headers,
        status=request.status or 200,
        now=time.time(),
        at_ns=request.read_ns,
        secret=request.secret,
    )
    completion.request_id, completion.status, completion.headers = request.request_id, request.status, request.headers
    return completion
