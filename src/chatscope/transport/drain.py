"""Reads the end of a response that was closed early, before the next request uses the connection.

Here: how long to wait for that end, and whether the connection can be reused. Not here: closing a response early
(`http1`), and connections that cannot be reused (`transport`).
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from chatscope.transport.pool import PooledConnection

__all__ = ["END_GRACE", "drain"]

# Seconds. The end of a body arrives with the last of its content or in the next packet, and a new connection costs more
# than this if it is encrypted.
END_GRACE = 0.05
# The end arrives in one read or two. A server that keeps sending does not occupy the event loop here.
MOST_READS_AT_ONCE = 16


async def drain(connection: PooledConnection) -> bool:
    """Read the end of a response that was given up; return whether the connection can serve another request.

    Waits until `END_GRACE` seconds after the response was given up, and only if the last such response of this origin
    ended in time. If cancelled, the connection is closed.
    """
    stream, parser, origin = connection.stream, connection.parser, connection.origin
    try:
        for _ in range(MOST_READS_AT_ONCE):
            data = None if parser.complete else stream.poll()
            if data is None:
                break
            parser.feed(data)
        while not parser.complete:
            within = connection.idle_since + END_GRACE - monotonic()
            if within <= 0 or not origin.drains_in_time:
                raise TimeoutError
            parser.feed(await stream.receive(within))
        origin.drains_in_time = True
    except TimeoutError:
        origin.drains_in_time = False
        return False
    except (OSError, httpx.RemoteProtocolError):
        return False
    except BaseException:
        connection.close()
        raise
    return parser.keep_alive and parser.failure is None and stream.is_quiet()
