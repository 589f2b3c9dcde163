"""Idle connections, by origin. The most recently used one is reused first, unused ones in the order of opening.

Here: which connections may be reused, for how long, and how many are kept. The pool never queues and never waits: a
request that finds no connection here opens one, and the limiter above decides how many requests may run. Every step of
a request is O(1) in the number of connections.

Idle connections expire even without traffic. No task may outlive the caller's task group, so the pool has none. On
asyncio it uses one timer of the event loop. trio has no timers outside of tasks, so a thread from trio's own cache
sleeps there, and then re-enters the run by its token (`streams.call_later`). The timer or thread exists only while
connections are idle. On trio it also checks, once every `SWEEP_INTERVAL`, for connections that the server has closed;
asyncio reports those itself.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import asdict, dataclass
from time import monotonic
from typing import TYPE_CHECKING
from weakref import WeakMethod

import httpx

from chatscope.transport.response_parser import ResponseParser
from chatscope.transport.streams import call_later

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatscope.transport.base import SocketStream

__all__ = ["Counts", "Origin", "Pool", "PooledConnection", "TransportStatistics"]

DEFAULT_PORTS = {"http": 80, "https": 443}
# Seconds. A look at a socket costs about a microsecond, so that a thousand idle ones cost a thousandth of a core.
SWEEP_INTERVAL = 1.0


@dataclass(slots=True)
class Counts:
    """Counts of one transport so far, over all its pools."""

    connects: int = 0
    reuses: int = 0
    resent: int = 0
    closed: int = 0
    proxied: int = 0

    def statistics(self, *, idle: int) -> TransportStatistics:
        """Return them as a value, with a number of idle connections."""
        open_ = self.connects - self.closed
        return TransportStatistics(open=open_, active=open_ - idle, idle=idle, **asdict(self))


@dataclass(frozen=True, slots=True)
class TransportStatistics:
    """Counts of one transport at one moment.

    `connects`, `reuses`, `resent` (requests sent twice because a pooled connection was lost before the response),
    `closed` and `proxied` (requests that went through a proxy of the environment, on connections not counted here) only
    grow.
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
    """A scheme, host and port, the unit of reuse (RFC 9110, section 4.3.1), and the idle connections to it."""

    __slots__ = ("drains_in_time", "host", "host_header", "idle", "port", "proxy", "scheme")

    def __init__(self, url: httpx.URL) -> None:
        if url.scheme not in DEFAULT_PORTS:
            raise httpx.UnsupportedProtocol(f"the scheme of the URL is {url.scheme!r}, not 'http' or 'https'")
        if not url.raw_host:
            raise httpx.UnsupportedProtocol("the URL names no host")
        self.scheme = url.scheme
        self.host = url.raw_host.decode("ascii")
        self.port = url.port or DEFAULT_PORTS[url.scheme]
        self.host_header = b"Host: " + url.netloc
        self.idle: OrderedDict[PooledConnection, None] = OrderedDict()
        self.proxy: httpx.AsyncHTTPTransport | None = None
        self.drains_in_time = True
        """Whether the last response that was given up early ended soon enough for its connection to be reused."""


class PooledConnection:
    """A socket that serves one request at a time, the parser of its responses, and the pool that it returns to.

    Attributes:
        is_drained: whether the end of the last response has been read, while the connection is idle.
    """

    __slots__ = ("_pool", "closed", "idle_since", "is_drained", "origin", "parser", "stream")

    def __init__(self, pool: Pool, origin: Origin, stream: SocketStream, parser: ResponseParser) -> None:
        self._pool = pool
        self.origin = origin
        self.stream = stream
        self.parser = parser
        self.closed = False
        self.idle_since = 0.0
        self.is_drained = True

    def release(self, *, is_drained: bool = True, unused: bool = False) -> None:
        """Return the connection to the pool, with nothing unsent and at most the end of a response unread.

        A connection that was closed before its last bytes were read stays closed. One that is still `unused` is reused
        after all others.
        """
        if not self.closed:
            self.is_drained = is_drained
            self._pool.put(self, last=unused)

    def on_lost(self) -> None:
        """Close the connection if it is idle. Otherwise, its request will notice."""
        if self._pool.is_idle(self):
            self.close()

    def close(self) -> None:
        """Close the socket at once, without waiting. Calling it again does nothing."""
        if not self.closed:
            self._pool.forget(self)
            self.stream.abort()


class Pool:
    """The connections of one transport within one run of one event loop.

    Args:
        run: The identity of that run, from `streams.current_run`.
        counts: The transport's counts.
        max_idle: How many idle connections to keep per origin.
        idle_expiry: Seconds after which an idle connection is closed.
        max_header_bytes: The size that a response's status line and headers may have.
    """

    def __init__(
        self, run: object, counts: Counts, *, max_idle: int, idle_expiry: float, max_header_bytes: int
    ) -> None:
        self.run = run
        self._counts = counts
        self._shut = False
        self._max_idle = max_idle
        self._idle_expiry = idle_expiry
        self._max_header_bytes = max_header_bytes
        self._open: set[PooledConnection] = set()
        self._oldest_first: OrderedDict[PooledConnection, None] = OrderedDict()
        self._reports_closing = True
        self._cancel_timer: Callable[[], object] | None = None

    @property
    def idle(self) -> int:
        """The number of idle connections."""
        return len(self._oldest_first)

    def add(self, origin: Origin, stream: SocketStream) -> PooledConnection:
        """Add a fresh stream as an active connection."""
        connection = PooledConnection(self, origin, stream, ResponseParser(max_header_bytes=self._max_header_bytes))
        self._counts.connects += 1
        self._open.add(connection)
        if self._shut:
            connection.close()
            raise RuntimeError("the transport was closed, or used in another event loop, while it connected")
        return connection

    def take(self, origin: Origin) -> PooledConnection | None:
        """Return the live idle connection to `origin` that was used last, if there is one.

        The end of its last response may still have to be read: see `PooledConnection.is_drained`.
        """
        expired = monotonic() - self._idle_expiry
        while origin.idle:
            connection, _ = origin.idle.popitem()
            del self._oldest_first[connection]
            if connection.idle_since > expired and (not connection.is_drained or connection.stream.is_quiet()):
                return connection
            connection.close()
        return None

    def is_idle(self, connection: PooledConnection) -> bool:
        """Return whether a connection is idle."""
        return connection in self._oldest_first

    def idle_to(self, origin: Origin) -> int:
        """Return the number of idle connections to `origin`."""
        self._expire(monotonic())
        return len(origin.idle)

    def put(self, connection: PooledConnection, *, last: bool = False) -> None:
        """Keep a connection for its origin, or close it if there are enough. With `last`, it is reused last."""
        idle = connection.origin.idle
        if self._shut or len(idle) >= self._max_idle:
            connection.close()
            return
        now = connection.idle_since = monotonic()
        idle[connection] = self._oldest_first[connection] = None
        if last:
            idle.move_to_end(connection, last=False)
        self._reports_closing = connection.stream.watch(connection.on_lost)
        if next(iter(self._oldest_first)).idle_since <= now - self._idle_expiry:
            self._expire(now)
        if self._cancel_timer is None and self._oldest_first:
            self._start_timer()

    def forget(self, connection: PooledConnection) -> None:
        """Remove a connection whose socket is about to be closed."""
        connection.closed = True
        connection.stream.watch(None)
        self._counts.closed += 1
        self._open.discard(connection)
        if connection in self._oldest_first:
            del self._oldest_first[connection]
            del connection.origin.idle[connection]
            connection.parser.close()

    def close(self) -> None:
        """Close every connection: idle, active, or still being opened."""
        self._shut = True
        for connection in list(self._open):
            connection.close()
        if self._cancel_timer is not None:
            self._cancel_timer()

    def abandon(self) -> None:
        """Drop every connection from outside the run of the event loop that they belong to."""
        self._shut = True
        for connection in list(self._open):
            self.forget(connection)
            connection.stream.abandon()

    def _expire(self, now: float) -> None:
        # Reuse is last in, first out, so connections that are not needed collect at the old end.
        latest = now - self._idle_expiry
        while self._oldest_first and (oldest := next(iter(self._oldest_first))).idle_since <= latest:
            oldest.close()

    def _start_timer(self) -> None:
        oldest = next(iter(self._oldest_first))
        delay = oldest.idle_since + self._idle_expiry - monotonic()
        if not self._reports_closing:
            delay = min(delay, SWEEP_INTERVAL)
        # Weak, so that a transport that nobody closed is collected, and its sockets report that.
        sweep = WeakMethod(self._sweep)
        self._cancel_timer = call_later(self.run, max(delay, 0), lambda: (method := sweep()) and method())

    def _sweep(self) -> None:
        """Close connections that have expired or that the server has closed; repeat as long as any are idle."""
        self._cancel_timer = None
        self._expire(monotonic())
        if not self._reports_closing:
            for connection in list(self._oldest_first):
                if connection.is_drained and not connection.stream.is_quiet():
                    connection.close()
        if self._oldest_first:
            self._start_timer()
