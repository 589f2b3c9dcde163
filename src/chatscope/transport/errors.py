"""Connection errors as httpx's exceptions, and whether trying again can help.

Here: the one place where socket errors become httpx's, and `is_permanent`. Not here: what is closed or sent again
because of an error (`transport`, `http1`), and how callers translate it (`chatscope._http`).
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from enum import Enum

import httpx

__all__ = [
    "MalformedResponseError",
    "Operation",
    "UnusableProxyError",
    "is_malformed",
    "is_permanent",
    "note_proxy",
    "proxy_note",
    "reason_for",
    "translated",
]

# Transient errors of name resolution: the name server does not respond, or this machine lacks resources.
PASSING_LOOKUP_ERRORS = {
    getattr(socket, name, None) for name in ("EAI_AGAIN", "EAI_FAIL", "EAI_MEMORY", "EAI_SYSTEM")
} - {None}
# TLS errors that mean that the connection broke, not that the two sides disagree. The last two mean that a record was
# incomplete; they are in the context of the exception that was raised while waiting for the rest.
LOST_TLS_CONNECTIONS = (
    *(ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError),
    *(ssl.SSLWantReadError, ssl.SSLWantWriteError),
)
# How messages of httpcore and h11 begin if a server closed the connection. Any other RemoteProtocolError of theirs is a
# malformed response.
CLOSED = ("Server disconnected", "peer closed connection", "peer unexpectedly closed")

# Classes of httpx, httpx2 and this module, by name: httpx2 need not be installed.
PERMANENT = frozenset({"InvalidURL", "LocalProtocolError", "UnsupportedProtocol", "UnusableProxyError"})

PROXY_NOTE = "through the environment's proxy "


class MalformedResponseError(httpx.RemoteProtocolError):
    """What the server sent is not an HTTP/1.1 response, or exceeds a limit. The message says where."""


class UnusableProxyError(httpx.ProxyError):
    """The environment names a proxy that cannot be used at all."""


class Operation(Enum):
    """What was being done: the pair holds the exceptions for a timeout and for any other failure."""

    def __init__(self, on_timeout: type[httpx.TransportError], on_error: type[httpx.TransportError]) -> None:
        self.on_timeout = on_timeout
        self.on_error = on_error

    CONNECT = (httpx.ConnectTimeout, httpx.ConnectError)
    WRITE = (httpx.WriteTimeout, httpx.WriteError)
    READ = (httpx.ReadTimeout, httpx.ReadError)


def translated(
    exc: Exception, operation: Operation, request: httpx.Request | None, *, to: str = ""
) -> httpx.TransportError:
    """Return the httpx exception for `exc`; raise it `from exc`.

    `socket.gaierror`, `ssl.SSLError` and `TimeoutError` are all `OSError`s, so this covers everything that a socket can
    raise. The message keeps the system's reason, because an httpx exception with an empty text helps nobody.
    """
    reason = f"{to}: {exc}" if to else str(exc) or type(exc).__name__
    return (operation.on_timeout if isinstance(exc, TimeoutError) else operation.on_error)(reason, request=request)


def is_malformed(error: BaseException) -> bool:
    """Return whether an error means that the server sent something other than HTTP.

    Errors of httpx's and httpx2's own transports are recognised too. A connection that closed early is not malformed.
    """
    if type(error).__name__ == "RemoteProtocolError":
        return error.__cause__ is not None and not str(error).startswith(CLOSED)
    return isinstance(error, MalformedResponseError)


def is_permanent(error: BaseException) -> bool:
    """Return whether sending a request again cannot help, judged by an error of this or of httpx's own transports.

    Permanent are host names that do not exist, certificates and TLS versions that are not accepted (also TLS spoken to
    a plain port), responses that are not HTTP, requests that HTTP cannot express, and proxies that cannot be used or
    refuse with a 4xx. Everything else may pass: a refused or lost connection, a name server without an answer.
    """
    names = {cls.__name__ for cls in type(error).__mro__}
    if is_malformed(error) or not PERMANENT.isdisjoint(names):
        return True
    if "ProxyError" in names:
        return str(error).startswith("4")  # httpcore's text is the status and the reason of the proxy's response
    return any(_is_permanent_cause(cause) for cause in _causes(error))


def reason_for(error: BaseException) -> str:
    """Return the first text in an error's chain of causes, or the name of its class. On trio, httpx's may be empty."""
    return next(filter(None, map(str, _causes(error))), type(error).__name__)


def note_proxy(error: BaseException, proxy: str) -> None:
    """Note on an error that the request went through the proxy at that host and port."""
    error.add_note(f"{PROXY_NOTE}{proxy}")


def proxy_note(error: BaseException) -> str:
    """Return the note that `note_proxy` made, or `""`."""
    return next((note for note in getattr(error, "__notes__", ()) if note.startswith(PROXY_NOTE)), "")


def _is_permanent_cause(error: BaseException) -> bool:
    if isinstance(error, socket.gaierror):
        return error.errno not in PASSING_LOOKUP_ERRORS
    if isinstance(error, ssl.SSLError):
        return not isinstance(error, LOST_TLS_CONNECTIONS)
    return isinstance(error, UnicodeError)  # a host that no DNS name can have


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its chain of causes or contexts, since httpcore does not always set a cause."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
