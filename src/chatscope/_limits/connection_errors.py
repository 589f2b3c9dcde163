"""Which failures of a connection are permanent. Pure functions of an exception and its causes.

HTTP libraries are recognised by the names of their classes, so none is imported, and httpx2 need not be installed. Not
here: which of this package's own errors are transient (`transient`), and how an exception is translated into one of
them (`chatscope._http`).
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from typing import Final

_LIBRARIES: Final = frozenset({"chatscope", "httpcore", "httpx", "httpx2"})

_PASSING_LOOKUP_ERRORS: Final = frozenset(
    getattr(socket, name) for name in ("EAI_AGAIN", "EAI_FAIL", "EAI_MEMORY", "EAI_SYSTEM") if hasattr(socket, name)
)
"""Transient errors of name resolution: the name server does not respond, or this machine lacks resources."""

_LOST_TLS: Final = (
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
    ssl.SSLSyscallError,
    ssl.SSLWantReadError,
    ssl.SSLWantWriteError,
)
"""TLS errors that mean that the connection was lost. The last two mean that a record was incomplete; they are in the
context of the exception that was raised while waiting for the rest."""

_CORRUPTED_TLS: Final = re.compile(r"BAD_RECORD_MAC|DECRYPTION_FAILED")
"""TLS errors that mean that bytes were corrupted in transit."""

_LOST_PEER: Final = re.compile(r"clos|disconnect|terminat|reset|incomplete|lost|eof|goaway", re.IGNORECASE)
"""Words by which a `RemoteProtocolError` reports a lost connection. Other such errors mean that the bytes are not HTTP,
such as the greeting of another service on the same port."""

_MISUSED: Final = frozenset(
    {
        "DecodingError",
        "InvalidURL",
        "LocalProtocolError",
        "TooManyRedirects",
        "UnsupportedProtocol",
        "UnusableProxyError",
    }
)
"""Errors that the same request would get again."""

_LOST_CONNECTION: Final = frozenset({"TimeoutException", "NetworkError", "ProxyError", "RemoteProtocolError"})

_MOST_CAUSES: Final = 16
"""How many causes of an error are examined; libraries wrap an error three or four times."""


def is_refused(error: BaseException) -> bool:
    """Return whether a connection was refused. The server is then probably restarting."""
    return any(isinstance(cause, ConnectionRefusedError) for cause in _causes(error))


def is_malformed(error: BaseException) -> bool:
    """Return whether an error means that the server sent something other than HTTP.

    A connection that closed early is not malformed.
    """
    names = _library_names(error)
    if "MalformedResponseError" in names:
        return True
    # After the colon are the server's own bytes.
    return "RemoteProtocolError" in names and not _LOST_PEER.search(str(error).partition(":")[0])


def is_permanent(error: BaseException) -> bool:
    """Return whether the same request would fail in the same way.

    These failures are permanent: host names that do not exist, certificates and TLS versions that are not accepted
    (including TLS spoken to a plain port), responses that are not HTTP, requests that HTTP cannot express, and proxies
    that cannot be used or refuse with a 4xx. All others are transient: a refused or lost connection, a name server that
    does not respond.
    """
    return any(_is_permanent_cause(cause) for cause in _causes(error))


def is_lost_connection(error: Exception) -> bool:
    """Return whether an error from outside this package is a failed connection or a timeout, and transient."""
    is_lost = isinstance(error, ConnectionError | TimeoutError) or not _LOST_CONNECTION.isdisjoint(
        _library_names(error)
    )
    return is_lost and not is_permanent(error)


def reason_for(error: BaseException) -> str:
    """Return the first text in an error's chain of causes, or the name of its class. On trio, httpx's may be empty."""
    return next(filter(None, map(str, _causes(error))), type(error).__name__)


def _is_permanent_cause(cause: BaseException) -> bool:
    if isinstance(cause, ssl.SSLError):
        return not isinstance(cause, _LOST_TLS) and not _CORRUPTED_TLS.search(str(cause))
    if isinstance(cause, socket.gaierror):
        return cause.errno not in _PASSING_LOOKUP_ERRORS
    if isinstance(cause, UnicodeError):  # a host that no DNS name can have
        return True
    names = _library_names(cause)
    if is_malformed(cause) or not _MISUSED.isdisjoint(names):
        return True
    return "ProxyError" in names and str(cause).startswith("4")  # httpcore's text is the proxy's status and reason


def _library_names(error: BaseException) -> set[str]:
    """Return the names of those of an error's classes that belong to an HTTP library."""
    return {cls.__name__ for cls in type(error).__mro__ if cls.__module__.partition(".")[0] in _LIBRARIES}


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Iterate over an error and what it was raised from, groups included. httpcore does not always set a cause."""
    pending = [error]
    for _ in range(_MOST_CAUSES):
        if not pending:
            return
        cause = pending.pop(0)
        yield cause
        if isinstance(cause, BaseExceptionGroup):
            pending += cause.exceptions
        following = cause.__cause__ or cause.__context__
        if following is not None:
            pending.append(following)
