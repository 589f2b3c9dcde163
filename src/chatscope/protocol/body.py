"""Decodes the body of a response that was not streamed, to a completion or to the error that it reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chatscope.errors import InvalidResponseError
from chatscope.protocol.body_start import BEFORE_TEXT
from chatscope.protocol.coerce import choices_of
from chatscope.protocol.decode import completion_from
from chatscope.protocol.error_body import body_text, first_words, status_error
from chatscope.protocol.error_object import find_error
from chatscope.protocol.loading import load
from chatscope.protocol.response import Completion
from chatscope.protocol.stream_decoder import StreamDecoder

_EVENT_STARTS: Final = (b"data:", b"event:", b"error:", b"id:", b"retry:", b":")


def decode_inexact(
    data: bytes, headers: Mapping[str, str], *, status: int = 200, now: float, at_ns: int = 0, secret: str = ""
) -> Completion:
    """Return the completion in the body of a success that `decode_exact` does not accept.

    Some servers stream although no stream was requested. Their chunks are assembled.

    Args:
        data: the whole body.
        headers: the response's headers, names case-insensitive.
        status: the HTTP status.
        now: when the response arrived, in seconds since the epoch.
        at_ns: when it arrived, by `time.perf_counter_ns`.
        secret: the key that was sent; it is redacted from errors.

    Raises:
        APIStatusError: the body reports an error; the model's output so far is in its `partial_text`.
        InvalidResponseError: the body is not a completion.
        StreamError: the body is a stream that did not end well.
    """
    start = data[:256].lstrip(BEFORE_TEXT)
    if start.startswith(_EVENT_STARTS) or (
        "event-stream" in headers.get("content-type", "") and start[:1] not in b"{["
    ):
        return _streamed(data, at_ns, secret)
    loaded = _loaded(data)
    report = find_error(loaded)
    completion = completion_from(loaded) if isinstance(loaded, dict) and choices_of(loaded) else None
    if report is not None:
        error = status_error(status, headers, data, now=now, secret=secret)
        error.partial_text = "" if completion is None else completion.text
        raise error
    if completion is None or _is_cut(completion):
        what = "a JSON object without choices" if isinstance(loaded, dict) else "not a JSON completion"
        if completion is not None:
            what = "only the first chunk of a stream"
        excerpt = "" if isinstance(loaded, dict) else first_words(data, secret)
        message = f"the response is {what}: {excerpt}" if excerpt else f"the response is {what}"
        raise InvalidResponseError(message, status=status, body=body_text(data, secret))
    return completion


def _streamed(data: bytes, at_ns: int, secret: str) -> Completion:
    decoder = StreamDecoder(secret=secret)
    decoder.feed(data, at_ns)
    if not decoder.done:
        decoder.end(at_ns)
    decoder.assembler.close()
    if decoder.error is not None:
        raise decoder.error
    return decoder.assembler.completion()


def _is_cut(completion: Completion) -> bool:
    """Return whether a body is one chunk of a stream without the rest."""
    return completion.object == "chat.completion.chunk" and completion.finish_reason is None


def _loaded(data: bytes) -> Any:
    try:
        return load(data)
    except (ValueError, RecursionError):
        return None
