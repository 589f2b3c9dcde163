"""Which errors are transient, so that another attempt is worthwhile. Pure functions of an error.

Not here: how often to try and how long to wait (`retry`); what servers' codes and messages mean (`protocol`); which
failures of a connection are permanent (`connection_errors`). The code that creates this package's errors sets
`should_retry` for those.
"""

from __future__ import annotations

from typing import Final

from chatscope.errors import (
    APIConnectionError,
    APIStatusError,
    ChatError,
    QuotaExceededError,
    StreamServerError,
    StreamTruncatedError,
)
from chatscope.protocol.error_meaning import has_quota_code

_TRANSIENT_STATUSES: Final = frozenset({408, 409, 425, 429})
"""Transient statuses below 500. 409 is the endpoint's lock timeout; 425 is "Too Early", RFC 8470."""


def is_transient(error: Exception) -> bool:
    """Return whether an error is transient. A server's `x-should-retry` overrides its status.

    Only this package's own errors can be: stamina passes every exception to its predicate, including cancellation.
    """
    if not isinstance(error, ChatError):
        return False
    if isinstance(error, QuotaExceededError) or has_quota_code(error.code, error.type):
        return False
    if error.should_retry is not None:
        return error.should_retry
    if isinstance(error, APIStatusError | StreamServerError):
        status = error.status or 0
        return status in _TRANSIENT_STATUSES or status >= 500
    return isinstance(error, APIConnectionError | StreamTruncatedError)
