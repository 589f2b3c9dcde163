"""The shortest response, how it is requested from a transport, and what the pool counts afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from chatscope.transport import HTTPTransport

Build = Callable[..., httpx.Request]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def answered(transport: HTTPTransport, request: httpx.Request) -> httpx.Response:
    response = await transport.handle_async_request(request)
    await response.aread()
    return response


def counted(transport: HTTPTransport) -> tuple[int, int, int, int, int]:
    """Open, idle, connects, reuses, resent."""
    statistics = transport.statistics()
    assert statistics.open == statistics.active + statistics.idle == statistics.connects - statistics.closed
    return statistics.open, statistics.idle, statistics.connects, statistics.reuses, statistics.resent
