"""Opens connections before any request needs them.

Here: how many are opened at a time, and handling a failure. Not here: connecting (`connect`), and how long connections
are kept (`pool`).
"""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING

import anyio
import httpx

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from chatscope.transport.base import SocketStream
    from chatscope.transport.pool import Origin, Pool

__all__ = ["open_ahead"]

# The queue of a listening socket has 100 places in asyncio's servers. A connection that finds it full is tried again
# after a second.
CONNECTING_AT_ONCE = 16


async def open_ahead(pool: Pool, origin: Origin, count: int, connect: Callable[[], Awaitable[SocketStream]]) -> int:
    """Open connections, a few at a time, until `count` are idle, and return how many are. If cancelled, keep them.

    After the first failure, no further ones are opened.

    Args:
        pool: Keeps the connections.
        origin: The server.
        count: How many should be idle.
        connect: Opens one.

    Raises:
        httpx.TransportError: A connection could not be opened.
        RuntimeError: The pool was closed meanwhile.
    """
    missing = max(0, count - pool.idle_to(origin))
    to_open = repeat(None, missing)
    failures: list[Exception] = []

    async def open_some() -> None:
        for _ in to_open:
            try:
                pool.add(origin, await connect()).release(unused=True)
            except (httpx.TransportError, RuntimeError) as error:  # raised outside the group, which would wrap it
                failures.append(error)
                group.cancel_scope.cancel()
                return

    async with anyio.create_task_group() as group:
        for _ in range(min(missing, CONNECTING_AT_ONCE)):
            group.start_soon(open_some)
    if failures:
        raise failures[0]
    return pool.idle_to(origin)
