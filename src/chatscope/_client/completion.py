"""One attempt at a request for a whole reply: sent, read, and decoded or refused."""

from __future__ import annotations

import time

from chatscope._client.request import Exchange
from chatscope._limits.timeouts import CallDeadlines, fail_at
from chatscope.errors import InvalidResponseError
from chatscope.protocol.decode import completion_from, decode_exact
from chatscope.protocol.error_body import body_text, is_error, status_error
from chatscope.protocol.loading import load_object
from chatscope.protocol.response import Completion
from chatscope.protocol.stream_decoder import MAX_BODY_BYTES, StreamDecoder


async def fetch(exchange: Exchange, deadlines: CallDeadlines) -> Completion:
    """Make one attempt at a plain request, leave to do so given. Cancelled, the connection is closed.

    Raises:
        ChatError: no completion came of it.
    """
    deadlines.on_attempt()
    try:
        with fail_at(deadlines.first_token()):
            await exchange.send()
            data = await exchange.read(MAX_BODY_BYTES)
        completion = _completion(data, exchange)
    except BaseException as error:
        exchange.on_failure(error)
        raise
    finally:
        await exchange.close()
    exchange.on_first_output()
    exchange.on_usage(completion.usage)
    return completion


def _completion(data: bytes, exchange: Exchange) -> Completion:
    request_id = exchange.request_id
    if (completion := decode_exact(data)) is not None:
        completion.request_id = request_id
        return completion
    if "event-stream" in exchange.headers.get("content-type", ""):  # though none was asked for
        reader = StreamDecoder(secret=exchange.secret)
        reader.feed(data, exchange.read_ns)
        if not reader.done and reader.error is None:
            reader.end(exchange.read_ns)
        if reader.error is not None:
            raise reader.error
        return reader.assembler.completion(request_id)
    try:
        loaded = load_object(data)
    except ValueError:
        loaded = {}
    if is_error(loaded):
        raise status_error(200, exchange.headers, data, now=time.time(), secret=exchange.secret)
    if "choices" not in loaded:
        raise InvalidResponseError(
            "the reply is no JSON completion",
            status=exchange.status,
            body=body_text(data, exchange.secret),
            request_id=request_id,
        )
    completion = completion_from(loaded)
    completion.request_id = request_id
    return completion
