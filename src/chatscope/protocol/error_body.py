"""Builds typed errors from what servers send: error statuses with their bodies, and error objects inside successes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chatscope.errors import APIStatusError, QuotaExceededError, StreamServerError
from chatscope.protocol.addresses import visible_words
from chatscope.protocol.endpoint import shown_url
from chatscope.protocol.error_meaning import status_error_class
from chatscope.protocol.error_object import ErrorReport, read_error
from chatscope.protocol.headers import request_id, retry_after, should_retry
from chatscope.protocol.loading import load
from chatscope.protocol.redaction import redact

BODY_LIMIT: Final = 64 * 1024
"""How much of an error body is read, in bytes. Real servers' errors are below 10 KiB. Proxies' HTML pages may have
megabytes, which are useless in a traceback."""

_FIRST_WORDS: Final = 80
"""How much of a success that is not a completion is quoted in the error's message, in characters."""

_TEXT_LIMIT: Final = 500
"""How much of a body without a message is quoted in the error's, in characters: enough to recognise a page."""


def status_error(
    status: int, headers: Mapping[str, str], body: bytes, *, now: float, secret: str = ""
) -> APIStatusError:
    """Return the error for an HTTP error status, or for an error object with a success status.

    Args:
        status: the HTTP status.
        headers: the response's headers, names case-insensitive.
        body: the response's body, cut off at `BODY_LIMIT`.
        now: when the response arrived, in seconds since the epoch; a `retry-after` date is relative to it.
        secret: the key that was sent; it is redacted wherever the server repeats it.
    """
    loaded = _loaded(body)
    text = body_text(body, secret)
    report = read_error(loaded if isinstance(loaded, dict | list) else _gist(text))
    meant = status if status >= 400 or report.status is None else report.status
    wait = retry_after(headers, now)
    is_used_up = report.is_used_up and wait is None and meant in {403, 429}
    is_quota = (report.is_quota or is_used_up) and meant < 500
    error_class = QuotaExceededError if is_quota else status_error_class(meant, report.code, report.type)
    says = redact(report.message, secret) or _gist(text)
    if 300 <= status < 400 and status != 304:
        says = _redirect(headers, secret)
    error = error_class(
        f"HTTP {status}: {says}" if says else f"HTTP {status}",
        **_shown(report, secret),
        status=meant,
        request_id=redact(request_id(headers), secret),
        body=redact(loaded, secret) if isinstance(loaded, dict | list) and loaded else text,
    )
    error.retry_after = wait or report.retry_after
    error.should_retry = should_retry(headers)
    _stop_retries(error, report)
    return error


def stream_server_error(report: ErrorReport, data: bytes, *, secret: str = "") -> StreamServerError:
    """Return the error for an error object inside a stream, given what it reports and the event's data."""
    text = body_text(data, secret)
    loaded = _loaded(data)
    error = StreamServerError(
        f"the server reported an error inside the stream: {redact(report.message, secret) or _gist(text)}",
        **_shown(report, secret),
        status=report.status,
        body=redact(loaded, secret) if isinstance(loaded, dict | list) and loaded else text,
        retry_after=report.retry_after,
    )
    _stop_retries(error, report)
    return error


def body_text(data: bytes, secret: str) -> str:
    """Return the part of a body that an error stores: cut at `BODY_LIMIT`, with the key redacted."""
    return str(redact(data[:BODY_LIMIT].decode("utf-8", "replace"), secret))


def first_words(body: bytes, secret: str) -> str:
    """Return the first words of an unexpected body, or `""`."""
    return _gist(body_text(body, secret))[:_FIRST_WORDS]


def _loaded(body: bytes) -> Any:
    try:
        return load(body[:BODY_LIMIT])
    except (ValueError, RecursionError):
        return None


def _shown(report: ErrorReport, secret: str) -> dict[str, Any]:
    """Return the server's own names for the error. They are redacted only here, after all decisions by them."""
    return {name: redact(getattr(report, name), secret) for name in ("code", "type", "param")}


def _stop_retries(error: APIStatusError | StreamServerError, report: ErrorReport) -> None:
    """Mark an error that no wait can help. For a request that is too large, the server's own order takes precedence."""
    is_hidden_quota = report.is_quota and not isinstance(error, QuotaExceededError)
    is_used_up = report.is_used_up and error.retry_after is None
    if is_hidden_quota or is_used_up or (report.is_too_large and error.should_retry is None):
        error.should_retry = False


def _redirect(headers: Mapping[str, str], secret: str) -> str:
    target = headers.get("location", "").strip()
    where = f" to {redact(shown_url(target), secret)}" if target else ""
    return f"the server redirects{where}; redirects are not followed, set base_url to the right address"


def _gist(text: str) -> str:
    return visible_words(text)[:_TEXT_LIMIT]
