"""Recognises event data that is not a chunk: a keep-alive, `[DONE]`, an error, or several events in one."""

from __future__ import annotations

import re
from typing import Final

from chatscope.errors import ChatError, StreamProtocolError
from chatscope.protocol.error_body import body_text, stream_server_error
from chatscope.protocol.error_object import ErrorReport, find_error, read_error
from chatscope.protocol.loading import load, load_object

_KEEP_ALIVE: Final = re.compile(
    rb"\W*(ping|pong|keep[ _-]?alive|heart[ _-]?beat|processing|waiting|queued|alive|tick|hb|no[ _-]?op|comment)"
    rb"[\W\dTZ]*",
    re.IGNORECASE,
)
"""Names and data of events that only keep the connection open. Such data is a comment in disguise, perhaps with the
time."""

_DONE: Final = re.compile(rb'"?\[DONE\]"?', re.IGNORECASE)
"""Gateways' spellings of `[DONE]`: encoded as JSON, or in lower case."""

_NOTHING: Final = frozenset({b"null", b'""', b"None", b"undefined"})
_ERROR_EVENT: Final = re.compile(r"error|exception|fail(ure|ed)", re.IGNORECASE)


def is_done(data: bytes) -> bool:
    """Return whether an event's data is `[DONE]`, whatever lines follow: its blank line may be missing."""
    return _DONE.fullmatch(data.partition(b"\n")[0]) is not None


def is_error_event(name: str) -> bool:
    """Return whether an event's name means that its data reports an error."""
    return name != "message" and _ERROR_EVENT.search(name) is not None


def is_nothing(data: bytes) -> bool:
    """Return whether an event's data is empty or only keeps the connection open."""
    return data in _NOTHING or is_keep_alive(data)


def is_keep_alive(text: bytes) -> bool:
    """Return whether an event's name or data only keeps the connection open."""
    return len(text) < 64 and _KEEP_ALIVE.fullmatch(text) is not None


def unwrapped(data: bytes) -> bytes:
    """Return an event's data without the white space and the second `data:` that some gateways put before it."""
    return data.strip().removeprefix(b"data:").strip()


def event_error(data: bytes) -> ErrorReport:
    """Return the report of an event named `error`, whose data may be plain text."""
    try:
        return read_error(load(data))
    except (ValueError, RecursionError):
        return ErrorReport(message=data.decode("utf-8", "replace"))


def not_a_chunk(data: bytes, secret: str) -> ChatError:
    """Return the error for an event's data that is neither a chunk nor anything else that is known.

    Args:
        data: the event's data.
        secret: the key that was sent; it is redacted.
    """
    if (report := _listed_error(data)) is not None:
        return stream_server_error(report, data, secret=secret)
    body = body_text(data, secret)
    if _is_several_events(data):
        error = StreamProtocolError("the events of the stream are not separated by blank lines", body=body)
        error.should_retry = False  # the server would send the same again
        return error
    return StreamProtocolError("an event of the stream is neither a JSON object nor [DONE]", body=body)


def _listed_error(data: bytes) -> ErrorReport | None:
    """Return the error in data that is a list (Google)."""
    try:
        return find_error(load(data)) if data[:1] == b"[" else None
    except (ValueError, RecursionError):
        return None


def _is_several_events(data: bytes) -> bool:
    """Return whether each line of an event's data would be an event of its own."""
    lines = [line.strip() for line in data.split(b"\n")]
    lines = [line for line in lines if line]
    if len(lines) < 2:
        return False
    try:
        for line in lines:
            if line != b"[DONE]":
                load_object(line)
    except (ValueError, RecursionError):
        return False
    return True
