"""Idle connections, by origin: the last one in is the first one out.

Here: what may be reused, for how long and how many. It never queues and never waits: who finds nothing here connects,
and the limiter above decides how many may. Every step is O(1) in the number of connections.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from chatscope.transport.base import SocketStream
    from chatscope.transport.response_parser import ResponseParser

__all__ = ["Connection", "Counts", "Origin", "Pool", "TransportStatistics"]

DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(slots=True)
class Counts:
    """What one transport has done so far, over all its pools."""

    connects: int = 0
    reuses: int = 0
    resent: int = 0
    closed: int = 0
    proxied: int = 0


@dataclass(frozen=True, slots=True)
class TransportStatistics:
    """Counts of one transport at one moment.

    `connects`, `reuses`, `resent` (requests sent again because a pooled connection turned out to be dead), `closed` and
    `proxied` (requests that went through a proxy of the environment, on connections not counted here) only grow.
    """

    open: int
    active: int
    idle: int
    connects: int
    reuses: int
    resent: int
    closed: int
    proxied: int


class Origin:
    """Scheme, host and port: what a connection may be reused for (RFC 9110, section 4.3.1), and those that may be."""

    __slots__ = ("ends_in_time", "host", "host_header", "idle", "port", "proxy", "scheme")

    def __init__(self, url: httpx.URL) -> None:
        if url.scheme not in DEFAULT_PORTS:
            raise httpx.UnsupportedProtocol(f"the scheme of the URL is {url.scheme!r}, not 'http' or 'https'")
        if not url.raw_host:
            raise httpx.UnsupportedProtocol("the URL names no host")
        self.scheme = url.scheme
        self.host = url.raw_host.decode("ascii")
        self.port = url.port or DEFAULT_PORTS[url.scheme]
        self.host_header = b"Host: " + url.netloc
        self.idle: OrderedDict[Connection, None] = OrderedDict()
        self.proxy: httpx.AsyncHTTPTransport | None = None
        self.ends_in_time = True
        """Whether the last response given up before its end had ended when the connection was wanted, or soon after."""


class Connection:
    """A socket that serves one exchange at a time, and the pool that it goes back to."""

    __slots__ = ("_pool", "closed", "ending", "idle_since", "origin", "stream")

    def __init__(self, pool: Pool, origin: Origin, stream: SocketStream) -> None:
        self._pool = pool
        self.origin = origin
        self.stream = stream
        self.closed = False
        self.idle_since = 0.0
        self.ending: ResponseParser | None = None
        """What the end of its last response is to be read by, if that has not come yet."""

    def release(self, *, ending: ResponseParser | None = None) -> None:
        """Give the connection back after an exchange of which nothing is unsent, and unread at most its end.

        Where it was closed before the last bytes were looked at, it stays closed.
        """
        if not self.closed:
            self.ending = ending
            self._pool.put(self)

    def close(self) -> None:
        """Close the socket at once, never waiting. Calling it again does nothing."""
        if not self.closed:
            self._pool.forget(self)
            self.stream.abort()


class Pool:
    """The connections of one transport within one run of one event loop."""

    def __init__(self, run: object, counts: Counts, *, max_idle: int, idle_expiry: float) -> None:
        self.run = run
        self._counts = counts
        self._shut = False
        self._max_idle = max_idle
        self._idle_expiry = idle_expiry
        self._open: set[Connection] = set()
        self._oldest_first: OrderedDict[Connection, None] = OrderedDict()

    @property
    def idle(self) -> int:
        """How many connections wait to be reused."""
        return len(self._oldest_first)

    def add(self, origin: Origin, stream: SocketStream) -> Connection:
        """Take in a fresh stream as an active connection."""
        connection = Connection(self, origin, stream)
        self._counts.connects += 1
        self._open.add(connection)
        if self._shut:
            connection.close()
            raise RuntimeError("the transport was closed, or used in another event loop, while it connected")
        return connection

    def take(self, origin: Origin) -> Connection | None:
        """Return the idle connection to `origin` that was used last, if there is a live one.

        The end of its last response may be still to be read; `Connection.ending` tells.
        """
        self._expire()
        while origin.idle:
            connection, _ = origin.idle.popitem()
            del self._oldest_first[connection]
            connection.stream.watch(None)
            if connection.ending is not None or connection.stream.is_quiet():
                return connection
            connection.close()
        return None

    def put(self, connection: Connection) -> None:
        """Keep a connection for its origin, or close it where there are enough."""
        idle = connection.origin.idle
        if self._shut or len(idle) >= self._max_idle:
            connection.close()
            return
        connection.idle_since = monotonic()
        idle[connection] = self._oldest_first[connection] = None
        connection.stream.watch(connection.close)
        self._expire()

    def forget(self, connection: Connection) -> None:
        """Strike out a connection whose socket is about to be closed."""
        connection.closed = True
        connection.stream.watch(None)
        self._counts.closed += 1
        self._open.discard(connection)
        if connection in self._oldest_first:
            del self._oldest_first[connection]
            del connection.origin.idle[connection]

    def close(self) -> None:
        """Close every connection, idle or active, and every one that is still to come."""
        self._shut = True
        for connection in list(self._open):
            connection.close()

    def abandon(self) -> None:
        """Drop every connection from outside the run of the event loop that they belong to."""
        self._shut = True
        for connection in list(self._open):
            self.forget(connection)
            connection.stream.abandon()

    def _expire(self) -> None:
        # Reused last-in-first-out, so the connections that nobody needs gather at the old end and leave from there.
        latest = monotonic() - self._idle_expiry
        while self._oldest_first and (oldest := next(iter(self._oldest_first))).idle_since <= latest:
            oldest.close()
