"""The one edge at which the errors of sockets become httpx's.

Here: which httpx exception an `OSError` is in each phase of an exchange. Not here: what is closed or sent again because
of it (`transport`, `http1`), and errors of HTTP itself, which are born as httpx exceptions where they are found.
"""

from __future__ import annotations

from enum import Enum

import httpx

__all__ = ["Operation", "translated"]


class Operation(Enum):
    """What was being done: the pair says what a timeout and what any other failure is called there."""

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

    `socket.gaierror`, `ssl.SSLError` and `TimeoutError` are all `OSError`s, so this is everything a socket can raise.
    The message keeps the reason the system gave: an httpx exception with an empty text helps nobody.
    """
    reason = f"{to}: {exc}" if to else str(exc) or type(exc).__name__
    return (operation.on_timeout if isinstance(exc, TimeoutError) else operation.on_error)(reason, request=request)
