"""One attempt at a request for a whole response: sent, read, and decoded or refused."""

from __future__ import annotations

import time

from chatscope._client.request import ClientRequest
from chatscope._limits.timeouts import fail_at
from chatscope.errors import InvalidResponseError
from chatscope.protocol.decode import completion_from, decode_exact
from chatscope.protocol.error_body import body_text, is_error, status_error
from chatscope.protocol.loading import load_object
from chatscope.protocol.response import Completion
from chatscope.protocol.stream_decoder import MAX_BODY_BYTES, StreamDecoder


async def fetch(request: ClientRequest, *, acquires_permit: bool = False) -> Completion:
    """Make one attempt. If cancelled, the connection is closed.

    Args:
        request: the request.
        acquires_permit: whether a permit has to be acquired; otherwise the caller holds one.

    Raises:
        ChatError: the attempt brought no completion.
    """
    if acquires_permit:
        await request.acquire_permit()
    deadlines = request.deadlines
    deadlines.on_attempt()
    try:
        with fail_at(deadlines.first_token()):
            await request.send()
            data = await request.read(MAX_BODY_BYTES)
        completion = _completion(data, request)
    except BaseException as error:
        request.on_failure(error)
        raise
    finally:
        await request.close()
    request.on_first_output()
    request.on_usage(completion.usage)
    return completion


def _completion(data: bytes, request: ClientRequest) -> Completion:
    request_id = request.request_id
    if (completion := decode_exact(data)) is not None:
        completion.request_id = request_id
        return completion
    if "event-stream" in request.headers.get("content-type", ""):  # though none was asked for
        decoder = StreamDecoder(secret=request.secret)
        decoder.feed(data, request.read_ns)
        if not decoder.done and decoder.error is None:
            decoder.end(request.read_ns)
        if decoder.error is not None:
            raise decoder.error
        return decoder.assembler.completion(request_id)
    try:
        loaded = load_object(data)
    except ValueError:
        loaded = {}
    if is_error(loaded):
        raise status_error(200, request.headers, data, now=time.time(), secret=request.secret)
    if "choices" not in loaded:
        raise InvalidResponseError(
            "the response is not a JSON completion",
            status=request.status,
            body=body_text(data, request.secret),
            request_id=request_id,
        )
    completion = completion_from(loaded)
    completion.request_id = request_id
    return completion
