"""Which errors are transient, so that another attempt is worthwhile. Pure functions of an error.

Not here: how often to try and how long to wait (`retry`). Nor what servers' codes and messages mean, and which
connection failures are permanent: the code that creates this package's errors sets `should_retry` for those.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from typing import Final

from chatscope.errors import (
    APIConnectionError,
    APIStatusError,
    ChatError,
    QuotaExceededError,
    StreamServerError,
    StreamTruncatedError,
)
from chatscope.protocol.error_codes import has_quota_code

_TRANSIENT_STATUSES: Final = frozenset({408, 409, 425, 429})
"""Transient statuses below 500. 409 is the endpoint's lock timeout; 425 is "Too Early", RFC 8470."""

_UNKNOWN_HOST: Final = frozenset(
    getattr(socket, name)
    for name in ("EAI_NONAME", "EAI_NODATA", "EAI_FAIL", "EAI_ADDRFAMILY", "EAI_FAMILY", "EAI_SERVICE", "EAI_SOCKTYPE")
    if hasattr(socket, name)
)
"""Permanent errors of the resolver: the host name does not exist. `EAI_AGAIN` is transient."""

_LOST_TLS: Final = (
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
    ssl.SSLSyscallError,
    ssl.SSLWantReadError,
    ssl.SSLWantWriteError,
)
"""TLS errors that only mean that the connection was lost."""

_CORRUPTED_TLS: Final = re.compile(r"BAD_RECORD_MAC|DECRYPTION_FAILED")
"""TLS errors that mean that bytes were corrupted in transit."""

_MISUSED: Final = frozenset({"LocalProtocolError", "UnsupportedProtocol", "TooManyRedirects", "DecodingError"})
"""Errors of httpx and httpx2 that the same request would get again; by name, since no HTTP library is imported here."""

_LOST_PEER: Final = re.compile(r"clos|disconnect|terminat|reset|incomplete|lost|eof|goaway", re.IGNORECASE)
"""Words in a `RemoteProtocolError` by which HTTP libraries report a lost connection. The other such errors are about
bytes that are not HTTP, such as the greeting of another service on the same port."""

_LOST_CONNECTION: Final = frozenset({"TimeoutException", "NetworkError", "ProxyError", "RemoteProtocolError"})
"""httpx's and httpx2's connection errors, by name."""

_LIBRARIES: Final = frozenset({"httpx", "httpx2"})

_MOST_CAUSES: Final = 16
"""How many causes of an error are examined; libraries wrap an error three or four times."""


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


def is_refused(error: Exception) -> bool:
    """Return whether a connection was refused. The server is then probably restarting."""
    return any(isinstance(cause, ConnectionRefusedError) for cause in _causes(error))


def is_lost_connection(error: Exception) -> bool:
    """Return whether an error from outside this package is a failed connection or a timeout, and transient."""
    names = _library_names(error)
    is_lost = isinstance(error, ConnectionError | TimeoutError) or not _LOST_CONNECTION.isdisjoint(names)
    return is_lost and not _has_lasting_cause(error)


def _has_lasting_cause(error: Exception) -> bool:
    """Return whether the next connection would fail in the same way."""
    return any(_lasts(cause) for cause in _causes(error))


def _lasts(cause: BaseException) -> bool:
    if isinstance(cause, ssl.SSLError):
        return not isinstance(cause, _LOST_TLS) and not _CORRUPTED_TLS.search(str(cause))
    if isinstance(cause, socket.gaierror):
        return cause.errno in _UNKNOWN_HOST
    names = _library_names(cause)
    if "RemoteProtocolError" in names:
        return not _LOST_PEER.search(str(cause))
    return not _MISUSED.isdisjoint(names)


def _library_names(error: BaseException) -> set[str]:
    """Return the names of those of an error's classes that belong to an HTTP library."""
    return {cls.__name__ for cls in type(error).__mro__ if cls.__module__.partition(".")[0] in _LIBRARIES}


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Iterate over an error and what it was raised from, groups included."""
    pending = [error]
    for _ in range(_MOST_CAUSES):
        if not pending:
            return
        cause = pending.pop(0)
        yield cause
        if isinstance(cause, BaseExceptionGroup):
            pending += cause.exceptions
        following = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
        if following is not None:
            pending.append(following)
