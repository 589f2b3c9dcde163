"""What is kept, which is taken first, what expires, and what another run of an event loop finds."""

from __future__ import annotations

import asyncio
import gc
import sys
import warnings
import weakref
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import httpx
import pytest
import uvloop
from tests.support.responses import OK

from chatscope.transport import HTTPTransport, pool, transport
from chatscope.transport.base import SENT_EXTENSION
from chatscope.transport.connect import connect as connect_to
from chatscope.transport.pool import Counts, Origin, Pool, PooledConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.responses import Build
    from tests.support.socket_server import Peer, Serve


class Idle:
    """A `SocketStream` with nothing to say."""

    read_ns = 0
    write_refused = False
    reports = True

    def __init__(self) -> None:
        self.news: bytes | None = None
        self.aborted = 0
        self.on_lost: Callable[[], object] | None = None

    async def receive(self, within: float | None) -> bytes:
        raise AssertionError

    async def pump(self, on_bytes: Callable[[bytes], bool], within: float | None) -> bool:
        raise AssertionError

    def write(self, data: bytes) -> bool:
        raise AssertionError

    async def flush(self, within: float | None) -> bool:
        raise AssertionError

    def unsent(self) -> bool:
        raise AssertionError

    def poll(self) -> bytes | None:
        return self.news

    def is_quiet(self) -> bool:
        return self.poll() is None

    def watch(self, on_lost: Callable[[], object] | None) -> bool:
        self.on_lost = on_lost
        return self.reports

    def abort(self) -> None:
        self.aborted += 1

    def abandon(self) -> None:
        self.aborted += 1


class Clock:
    """The time, and at most one timer."""

    now = 100.0
    timer: tuple[float, Callable[[], object]] | None = None

    def __call__(self) -> float:
        return self.now

    def call_later(self, run: object, delay: float, callback: Callable[[], object]) -> Callable[[], object]:
        assert self.timer is None
        self.timer = (self.now + delay, callback)
        return self.cancel

    def cancel(self) -> None:
        self.timer = None

    def ring(self) -> None:
        """Go on to the moment at which the timer is due."""
        assert self.timer is not None
        (self.now, callback), self.timer = self.timer, None
        callback()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pool, "monotonic", clock)
    monkeypatch.setattr(pool, "call_later", clock.call_later)
    return clock


@pytest.fixture
def origin() -> Origin:
    return Origin(httpx.URL("http://chat.example/"))


def filled(origin: Origin, count: int, **limits: float) -> tuple[Pool, list[PooledConnection], list[Idle]]:
    """A pool to which that many connections were given back, in this order."""
    kept = Pool(None, Counts(), **{"max_idle": 10, "idle_expiry": 30.0, "max_header_bytes": 1000, **limits})  # type: ignore[arg-type]  # an int among floats
    streams = [Idle() for _ in range(count)]
    connections = [kept.add(origin, stream) for stream in streams]
    for connection in connections:
        connection.release()
    return kept, connections, streams


def test_last_in_first_out(clock: Clock, origin: Origin) -> None:
    kept, connections, _ = filled(origin, 3)
    assert [kept.take(origin) for _ in range(4)] == [*reversed(connections), None]


def test_unused_ones_are_taken_in_order_after_used_ones(clock: Clock, origin: Origin) -> None:
    kept, (used,), _ = filled(origin, 1)
    unused = [kept.add(origin, Idle()) for _ in range(2)]
    for connection in unused:
        connection.release(unused=True)
    assert [kept.take(origin) for _ in range(4)] == [used, *unused, None]


def test_origins_do_not_mix(clock: Clock, origin: Origin) -> None:
    kept, *_ = filled(origin, 1)
    assert kept.take(Origin(httpx.URL("https://chat.example/"))) is None


def test_no_more_are_kept_than_asked_for(clock: Clock, origin: Origin) -> None:
    kept, connections, streams = filled(origin, 3, max_idle=2)
    assert [stream.aborted for stream in streams] == [0, 0, 1]
    assert kept.idle == 2
    assert connections[2].closed


def test_connections_expire_from_the_old_end(clock: Clock, origin: Origin) -> None:
    kept, connections, streams = filled(origin, 2)
    clock.now += 20
    newest = kept.take(origin)
    assert newest is connections[1]
    connections[1].release()
    clock.now += 10
    other = kept.add(Origin(httpx.URL("http://other.example/")), Idle())
    other.release()
    assert [stream.aborted for stream in streams] == [1, 0]
    clock.now += 20
    assert kept.take(origin) is None
    assert [stream.aborted for stream in streams] == [1, 1]
    assert kept.idle == 1


def test_connections_expire_without_traffic(clock: Clock, origin: Origin) -> None:
    kept, connections, streams = filled(origin, 2)
    clock.now += 20
    assert kept.take(origin) is connections[1]
    connections[1].release()
    clock.ring()
    assert (clock.now, [stream.aborted for stream in streams]) == (130.0, [1, 0])
    clock.ring()
    assert (clock.now, [stream.aborted for stream in streams]) == (150.0, [1, 1])
    assert clock.timer is None
    other, *_ = filled(origin, 1)
    other.close()
    assert clock.timer is None


def test_closed_ones_are_looked_for_where_the_loop_does_not_report_them(
    clock: Clock, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Idle, "reports", False)
    kept, connections, streams = filled(origin, 3)
    connections[2].is_drained = False  # what came is its end, perhaps
    streams[0].news = streams[2].news = b""
    clock.ring()
    assert (clock.now, [stream.aborted for stream in streams]) == (101.0, [1, 0, 0])
    kept.close()


def test_a_transport_that_nobody_closed_is_collected(clock: Clock, origin: Origin) -> None:
    kept = weakref.ref(filled(origin, 1)[0])
    origin.idle.clear()
    gc.collect()
    assert kept() is None
    clock.ring()


def test_dead_ones_are_passed_over(clock: Clock, origin: Origin) -> None:
    kept, connections, streams = filled(origin, 3)
    streams[1].news, streams[2].news = b"HTTP/1.1 408", b""
    assert kept.take(origin) is connections[0]
    assert [stream.aborted for stream in streams] == [0, 1, 1]


def test_one_that_the_server_closes_leaves_at_once(clock: Clock, origin: Origin) -> None:
    kept, connections, streams = filled(origin, 2)
    assert streams[0].on_lost is not None
    streams[0].on_lost()
    assert (kept.idle, connections[0].closed) == (1, True)
    assert kept.take(origin) is connections[1]


def test_closing(clock: Clock, origin: Origin) -> None:
    kept, connections, streams = filled(origin, 2)
    assert kept.take(origin) is connections[1]
    kept.close()
    kept.close()
    assert [stream.aborted for stream in streams] == [1, 1]
    connections[1].release()
    assert kept.idle == 0
    late = Idle()
    with pytest.raises(RuntimeError, match="closed, or used in another event loop, while it connected"):
        kept.add(origin, late)
    assert late.aborted == 1


async def test_limits_of_a_transport(serve: Serve, request_to: Build) -> None:
    server = serve.responses(OK, OK)
    async with HTTPTransport(max_idle=0) as unkept, HTTPTransport(idle_expiry=0) as expiring:
        for client in (unkept, expiring):
            for _ in range(2):
                await (await client.handle_async_request(request_to(server))).aread()
            assert (client.statistics().open, client.statistics().connects) == (0, 2)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_connections_opened_ahead_are_used_by_requests_and_expire_without(
    serve: Serve, request_to: Build, server_context: Any, client_context: Any, tls: bool
) -> None:
    def script(peer: Peer) -> None:
        if peer.request():
            peer.send(OK)
        peer.wait_closed()

    server = serve(script, context=server_context if tls else None)
    connecting: list[int | None] = []
    async with HTTPTransport(verify=client_context, max_idle=20, idle_expiry=30.0) as client:
        assert [await client.open_connections(server.url, count, within=10) for count in (3, 2, 40)] == [3, 3, 20]
        assert server.requests == []
        request = request_to(server)
        request.extensions[SENT_EXTENSION] = connecting.append
        await (await client.handle_async_request(request)).aread()
        assert (connecting, client.statistics().connects, client.statistics().idle) == ([None], 20, 20)
    async with HTTPTransport(verify=client_context, idle_expiry=0.01) as expiring:
        with anyio.fail_after(10):
            await expiring.open_connections(server.url, 2)
            while expiring.statistics().open:  # noqa: ASYNC110 - nobody tells
                await anyio.sleep(0.01)
    await anyio.to_thread.run_sync(server.wait_closed, 22)
    with pytest.raises(RuntimeError, match="this transport is closed"):
        await client.open_connections(server.url, 1)


async def test_connections_that_cannot_be_opened_ahead(
    serve: Serve, request_to: Build, client_context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first failure no more are tried; those that are open are kept, also by a cancelled call."""
    server, open_ones = serve(lambda peer: peer.wait_closed()), 0

    async def connect(*given: Any, **more: Any) -> Any:
        nonlocal open_ones
        if open_ones == 3:
            if isinstance(obstacle, OSError):
                raise obstacle
            await anyio.sleep_forever()
        open_ones += 1
        return await connect_to(*given, **more)

    monkeypatch.setattr(transport, "connect", connect)
    obstacle: OSError | None = OSError("no more")
    async with HTTPTransport() as client:
        with pytest.raises(httpx.ConnectError, match="no more"):
            await client.open_connections(server.url, 10)
        assert client.statistics().idle <= 3
        obstacle = None
        open_ones = 0
        with anyio.move_on_after(0.1) as scope:
            await client.open_connections(server.url, 6)
        assert scope.cancelled_caught
        assert 3 <= client.statistics().idle == client.statistics().open < 6
        with pytest.raises(httpx.ConnectTimeout):
            await client.open_connections(server.url, 10, within=0.01)


@pytest.mark.parametrize("closes", ["server", "expiry"])
async def test_idle_connections_are_let_go_without_traffic_and_without_a_task(
    serve: Serve, request_to: Build, monkeypatch: pytest.MonkeyPatch, closes: str
) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(OK)
        if closes == "expiry":
            peer.wait_closed()

    monkeypatch.setattr(pool, "SWEEP_INTERVAL", 0.05)
    server = serve(script)
    async with HTTPTransport(idle_expiry=0.05 if closes == "expiry" else 30.0) as client:
        with anyio.fail_after(10):
            await (await client.handle_async_request(request_to(server))).aread()
            tasks = len(anyio.get_running_tasks())
            while client.statistics().open:
                assert len(anyio.get_running_tasks()) == tasks
                await anyio.sleep(0.01)
            await anyio.to_thread.run_sync(server.wait_closed)


async def test_origins_are_forgotten_when_there_are_too_many(
    serve: Serve, request_to: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_ORIGINS", 1)
    servers = [serve.responses(OK, OK), serve.responses(OK)]
    async with HTTPTransport() as client:
        for server in (servers[0], servers[0], servers[1], servers[0]):
            await (await client.handle_async_request(request_to(server))).aread()
        statistics = client.statistics()
        assert (statistics.connects, statistics.reuses, statistics.idle) == (3, 1, 3)
    assert client.statistics().open == 0


RUNS: dict[str, Callable[..., object]] = {
    "asyncio": asyncio.run,
    "uvloop": uvloop.run,
    "trio": lambda coroutine: anyio.run(lambda: coroutine, backend="trio"),
}


@pytest.mark.parametrize("second", RUNS)
@pytest.mark.parametrize("first", RUNS)
def test_a_second_run_of_a_loop_starts_afresh(serve: Serve, request_to: Build, first: str, second: str) -> None:
    server = serve.responses(OK)
    client = HTTPTransport()

    async def call() -> int:
        response = await client.handle_async_request(request_to(server))
        await response.aread()
        return client.statistics().open

    async def call_and_close() -> int:
        try:
            return await call()
        finally:
            await client.aclose()

    with warnings.catch_warnings():
        # What asyncio says about a transport that outlives its loop is true.
        warnings.simplefilter("ignore", ResourceWarning)
        assert RUNS[first](call()) == 1
        assert RUNS[second](call_and_close()) == 1
        gc.collect()
    statistics = client.statistics()
    assert (statistics.connects, statistics.closed, statistics.reuses, statistics.resent) == (2, 2, 0, 0)
    server.wait_closed(2)


def test_closing_in_another_run(serve: Serve, request_to: Build) -> None:
    server = serve.responses(OK)
    client = HTTPTransport()

    async def call() -> None:
        response = await client.handle_async_request(request_to(server))
        await response.aread()

    anyio.run(call, backend="trio")
    anyio.run(client.aclose)
    assert client.statistics().open == 0
    server.wait_closed()


def test_a_loop_that_is_still_alive_closes_its_own_connections(serve: Serve, request_to: Build) -> None:
    """Two loops take turns in one thread: the sockets of the first are its to close."""
    server = serve.responses(OK)
    client = HTTPTransport()

    async def call() -> None:
        response = await client.handle_async_request(request_to(server))
        await response.aread()

    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(call())
        second.run(call())
        first.run(asyncio.sleep(0))
        server.wait_closed()
        second.run(client.aclose())
    server.wait_closed()
    assert client.statistics().open == 0


def test_trio_is_not_imported_for_asyncio(serve: Serve, request_to: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "trio")
    server = serve.responses(OK)

    async def call() -> None:
        async with HTTPTransport() as client:
            await (await client.handle_async_request(request_to(server))).aread()

    asyncio.run(call())
    assert "trio" not in sys.modules
