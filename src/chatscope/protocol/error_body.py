"""A reply that says no: error bodies and error objects, in all the shapes servers give them, to typed errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from chatscope.errors import APIStatusError, StreamServerError, status_error_class
from chatscope.protocol.headers import request_id, retry_after, should_retry
from chatscope.protocol.loading import load_object

BODY_LIMIT: Final = 64 * 1024
"""How much of an error body is read, in bytes. Errors of real servers are below 10 KiB; HTML pages of proxies may be
megabytes, and nobody reads them in a traceback."""

_TEXT_LIMIT: Final = 500
"""How much of a body without a message goes into the error's own, in characters: enough to recognise an HTML page."""

_STATUS_OF_TYPE: Final = {
    "server_error": 500,
    "internal_server_error": 500,
    "InternalServerError": 500,
    "overloaded_error": 503,
    "service_unavailable": 503,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
}
"""What an error object without a status means, so that it is retried like its plain HTTP counterpart."""


def status_error(
    status: int, headers: Mapping[str, str], body: bytes, *, now: float, secret: str = ""
) -> APIStatusError:
    """Return the error for an HTTP error status, or for an error object that came with a success status.

    Args:
        status: the HTTP status.
        headers: the reply's headers, names case-insensitive.
        body: the reply's body, cut at `BODY_LIMIT`.
        now: the time of the reply, in seconds since the epoch; a `retry-after` date is counted from it.
        secret: the key that was sent; it is blotted out where the server repeats it.
    """
    text = body_text(body, secret)
    loaded = _loaded(body, secret)
    message, known = _fields(loaded)
    message = message or _gist(text)
    if status >= 400 or known["status"] is None:
        known["status"] = status
    return status_error_class(known["status"], known["code"], known["type"])(
        f"HTTP {status}: {message}" if message else f"HTTP {status}",
        **known,
        request_id=redact(request_id(headers), secret),
        body=loaded or text,
        retry_after=retry_after(headers, now),
        should_retry=should_retry(headers),
    )


def stream_server_error(data: bytes, *, secret: str = "") -> StreamServerError:
    """Return the error for an error object inside a stream, given the event's data."""
    text = body_text(data, secret)
    loaded = _loaded(data, secret)
    message, known = _fields(loaded if is_error(loaded) else {"error": loaded})
    return StreamServerError(
        f"the server reported an error inside the stream: {message or _gist(text)}", **known, body=loaded or text
    )


def is_error(loaded: Mapping[str, Any]) -> bool:
    """Tell whether a JSON object that came with a success status reports a failure."""
    return loaded.get("error") is not None or loaded.get("object") == "error"


def body_text(data: bytes, secret: str) -> str:
    """Return what an error keeps of a body: cut at `BODY_LIMIT`, the key blotted out."""
    text = data[:BODY_LIMIT].decode("utf-8", "replace")
    # Where the text is JSON after all, the key stands in it as JSON says it, and a slash may have come as "\/".
    escaped = msgspec.json.encode(str(secret)).decode()[1:-1]
    for form in (secret, escaped, escaped.replace("/", "\\/")):
        text = redact(text, form)
    return text


def redact(value: Any, secret: str) -> Any:
    """Return a JSON value with the key blotted out of every text in it."""
    if not secret:
        return value
    if isinstance(value, str):
        return value.replace(secret, "***")
    if isinstance(value, list):
        return [redact(item, secret) for item in value]
    if isinstance(value, dict):
        return {redact(name, secret): redact(item, secret) for name, item in value.items()}
    return value


def _loaded(body: bytes, secret: str) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = redact(load_object(body[:BODY_LIMIT]), secret)
    except (ValueError, RecursionError):
        return {}
    return loaded


def _fields(loaded: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Find message, status, code, type and param, wherever this server puts them nested, flat or as text."""
    error = loaded.get("error")
    if not isinstance(error, dict):
        error = loaded if error is None else loaded | {"message": error}
    message = error.get("message") or error.get("detail")
    code = error.get("code")
    kind = _text(error.get("type"))
    status = next((n for n in map(_status, (error.get("status_code"), error.get("status"), code)) if n), None)
    return _text(message) or "", {
        "status": status or _STATUS_OF_TYPE.get(kind or "") or _STATUS_OF_TYPE.get(str(code)),
        "code": _text(code),
        "type": kind,
        "param": _text(error.get("param")),
    }


def _gist(text: str) -> str:
    return " ".join(text.split())[:_TEXT_LIMIT]


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


def _status(value: object) -> int | None:
    number = int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()) else 0
    return number if 400 <= number <= 599 else None
