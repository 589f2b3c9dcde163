"""Connection errors as httpx's exceptions.

Here: the one place where socket errors become httpx's. Not here: what is closed or sent again because of an error
(`transport`, `http1`), and how callers translate and judge it (`chatscope._http`, `chatscope._limits`).
"""

from __future__ import annotations

from enum import Enum

import httpx

PROXY_NOTE = "through the environment's proxy "


class MalformedResponseError(httpx.RemoteProtocolError):
    """The server sent something that is not an HTTP/1.1 response, or exceeds a limit. The message says where."""


class UnusableProxyError(httpx.ProxyError):
    """The environment names a proxy that cannot be used at all."""


class Operation(Enum):
    """The current operation, with its exceptions for a timeout and for any other failure."""

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


def note_proxy(error: BaseException, proxy: str) -> None:
    """Note on an error that the request went through the proxy at that host and port."""
    error.add_note(f"{PROXY_NOTE}{proxy}")


def proxy_note(error: BaseException) -> str:
    """Return the note that `note_proxy` made, or `""`."""
    return next((note for note in getattr(error, "__notes__", ()) if note.startswith(PROXY_NOTE)), "")
