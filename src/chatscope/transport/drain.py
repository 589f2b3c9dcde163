"""The end of a response that was given up before it: read by whoever takes the connection next.

Here: how long it is waited for, and what it says of the connection. Not here: who gives up a response, and when
(`http1`), and what is done with a connection that is no good (`transport`).
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from chatscope.transport.pool import Connection
    from chatscope.transport.response_parser import ResponseParser

__all__ = ["ends"]

# Seconds. The end of a body comes with the last of its content or in the next packet; to open a new connection costs
# more than this where it is encrypted.
END_GRACE = 0.05
# ... and it comes in one read or two. A server that goes on sending does not keep the event loop here.
MOST_READS_AT_ONCE = 16


async def ends(connection: Connection, parser: ResponseParser) -> bool:
    """Read the end of a response that was given up before it; return whether the connection is good for another.

    It is waited for until `END_GRACE` seconds after it was given up, as long as the last one from there came in time.
    Cancelled, the connection is closed.
    """
    stream, origin = connection.stream, connection.origin
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
