"""The errors of a request: from HTTP failures and error responses to this package's errors, with the server's address.

Not here: what is recorded about an error, and when it is raised (`request`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NoReturn

import httpx

from chatscope._client.body_reader import read_rest
from chatscope._http.base import HTTPResponse, translated
from chatscope._limits.timeouts import Timeouts
from chatscope.errors import (
    APIConnectionError,
    APIStatusError,
    ChatError,
    InvalidResponseError,
    Phase,
    StreamError,
)
from chatscope.protocol.addresses import locate
from chatscope.protocol.error_body import BODY_LIMIT, status_error

_LOCATED: Final = (APIConnectionError, APIStatusError, InvalidResponseError, StreamError)
"""Errors that concern the server, so their messages name its address."""


async def status_error_of(
    response: HTTPResponse, receive: Callable[[], Awaitable[bytes]], secret: str
) -> APIStatusError:
    """Read the body of an error response, as much of it as arrives, and return the error.

    If cancelled, the rest of the body is lost.

    Args:
        response: the response.
        receive: returns the next bytes of its body, `b""` at the end.
        secret: the key, which is redacted from the error.
    """
    body = bytearray()
    try:
        body += await receive()
        if not response.stream.is_over:
            await read_rest(body, receive, response.headers.get("content-type", ""), BODY_LIMIT)
    except (APIConnectionError, InvalidResponseError):
        pass  # the status matters more than why its body is incomplete
    return status_error(response.status, response.headers, bytes(body[:BODY_LIMIT]), now=time.time(), secret=secret)


def translated_for(
    url: httpx.URL, error: Exception, phase: Phase, timeouts: Timeouts, secret: str, has_response: bool
) -> Exception:
    """Return this package's error for one of an HTTP library's, and any other exception unchanged."""
    chat_error = translated(
        error,
        phase=phase,
        address=f"{url.host}:{url.port or (443 if url.scheme == 'https' else 80)}",
        timeouts=timeouts,
        secret=secret,
        has_response=has_response,
    )
    return chat_error or error


def raise_from(error: Exception, cause: Exception) -> NoReturn:
    """Raise an error from its cause; if both are the same, as it is: it would be its own cause, an endless chain."""
    if error is cause:
        raise error
    raise error from cause


def locate_error(error: ChatError, url: httpx.URL, headers: Mapping[str, str]) -> None:
    """Add the address of its request to an error that concerns the server.

    Args:
        error: the error.
        url: the address of the request.
        headers: the response's; empty if there was none.
    """
    if isinstance(error, _LOCATED):
        locate(error, str(url), headers)
