"""Looks up what the code, type, status or finish reason of an error means. The tables are in `error_codes.py`."""

from __future__ import annotations

import re
from typing import Final

from chatscope.errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    UnprocessableEntityError,
)
from chatscope.protocol.error_codes import (
    FAILED_ENDINGS,
    FAILED_FINISH_REASONS,
    QUOTA_CODES,
    STATUS_OF,
    STATUS_OF_WORDS,
)

_AFFIXES: Final = re.compile(r"(?<=.)(error|exception)$")


def _flat(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name[:100].lower())


def _bare(name: str) -> str:
    """Return a name in the form in which names are compared: `ServiceUnavailableError` is `service_unavailable`."""
    return _AFFIXES.sub("", _flat(name))


_BARE_QUOTA_CODES: Final = frozenset(map(_bare, QUOTA_CODES))
_BARE_STATUS_OF: Final = {_bare(name): status for name, status in STATUS_OF.items()}

_CLASS_OF_STATUS: Final[dict[int, type[APIStatusError]]] = {
    400: BadRequestError,
    401: AuthenticationError,
    402: QuotaExceededError,  # "Payment Required": DeepSeek and OpenRouter send it for an empty balance
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}


def status_error_class(status: int, code: str | None = None, type: str | None = None) -> type[APIStatusError]:  # noqa: A002 - the endpoint's own name for it
    """Return the error class for a status. Codes of exhausted quotas are distinguished from rate limits."""
    if has_quota_code(code, type):
        return QuotaExceededError
    if status >= 500:
        return InternalServerError
    return _CLASS_OF_STATUS.get(status, APIStatusError)


def has_quota_code(*codes: str | None) -> bool:
    """Return whether one of the codes or types means that an account is unpaid or exhausted."""
    return any(code is not None and _bare(code) in _BARE_QUOTA_CODES for code in codes)


def status_meant(name: str | None) -> int | None:
    """Return the HTTP status for a code or type; `None` if it is unknown."""
    if not name:
        return None
    known = STATUS_OF.get(name.lower()) or _BARE_STATUS_OF.get(_bare(name))
    flat = _flat(name)
    return known or next((status for word, status in STATUS_OF_WORDS.items() if word in flat), None)


def failed_status(reason: str) -> int | None:
    """Return the HTTP status for a finish_reason that means a failure; `None` for any other."""
    name = reason.lower()
    return FAILED_FINISH_REASONS.get(name) or (500 if name.endswith(FAILED_ENDINGS) else None)
