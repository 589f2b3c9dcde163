"""What other tasks and threads do in the very turn in which a response comes in: nobody else's request is touched."""

from __future__ import annotations

import asyncio
import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import httpx
import pytest
import trio
import trio.testing
from tests.support.responses import OK, answered, counted

from chatscope.transport import HTTPTransport
from chatscope.transport.http1 import ResponseStream
from chatscope.transport.request_head import PostTemplate

if TYPE_CHECKING:
    from tests.support.responses import Build
    from tests.support.socket_server import Peer, Serve, Server

HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nabcd"
TIMEOUTS = {"connect": 10.0, "read": 10.0, "write": 10.0}


class Halves:
    """Sends to each of two connections half a response, and the rest when told to; then short responses."""

    def __init__(self) -> None:
        self.go = [threading.Event(), threading.Event()]
        self.sent = threading.Semaphore(0)

    def __call__(self, peer: Peer) -> None:
        if peer.number <= len(self.go):
            peer.request()
            peer.send(HALF)
            peer.wait(self.go[peer.number - 1])
            peer.send(b"efgh")
            self.sent.release()
        while peer.request():
            peer.send(OK)

    def finish(self) -> None:
        """Send both rests, one after the other, while the event loop stands still: it finds them in one turn."""
        for go in self.go:
            go.set()
            assert self.sent.acquire(timeout=10)


async def begun(transport: HTTPTransport, server: Server, *, read: float | None = 10.0) -> ResponseStream:
    """Send a request and read the first half of its response."""
    prepared = PostTemplate(httpx.URL(server.url), httpx.Headers())
    exchange = await transport.post(prepared, b"", {**TIMEOUTS, "read": read})
    assert isinstance(exchange, ResponseStream)
    assert await anext(exchange) == b"abcd"
    return exchange


async def outcome(exchange: ResponseStream) -> object:
    """Read on, whatever comes."""
    try:
        return await anext(exchange)
    except (httpx.TransportError, httpx.StreamError, anyio.BusyResourceError, StopAsyncIteration) as exc:
        return exc


async def test_closing_what_has_just_ended_keeps_no_closed_connection(serve: Serve, request_to: Build) -> None:
    script = Halves()
    server = serve(script)
    async with HTTPTransport(idle_expiry=0.0) as transport:
        first, second = await begun(transport, server), await begun(transport, server)

        async def close() -> None:
            await anext(first)
            await second.aclose()

        async with anyio.create_task_group() as group:
            group.start_soon(outcome, second)
            group.start_soon(close)
            await anyio.wait_all_tasks_blocked()
            script.finish()
        assert counted(transport)[0] <= 1
        response = await answered(transport, request_to(server))
        assert response.content == b"ok"
        assert counted(transport)[0] == transport.statistics().idle <= 1


async def test_a_second_reader_takes_nothing_from_anybody(serve: Serve, request_to: Build) -> None:
    script = Halves()
    server = serve(script)
    outcomes: list[object] = []
    texts: list[bytes] = []
    async with HTTPTransport() as transport:
        first, second = await begun(transport, server), await begun(transport, server)

        async def read() -> None:
            outcomes.append(await outcome(second))

        async def read_as_well() -> None:
            await anext(first)
            outcomes.append(await outcome(second))

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            group.start_soon(read_as_well)
            await anyio.wait_all_tasks_blocked()
            script.finish()
            await anyio.wait_all_tasks_blocked()
            texts += [(await answered(transport, request_to(server))).content for _ in range(3)]
        assert texts == [b"ok"] * 3
        assert transport.statistics().active == 0
        assert sum(isinstance(each, Exception) for each in outcomes) >= 1, "two readers cannot both be served"


async def test_what_a_task_still_waits_for_is_not_given_to_others(serve: Serve) -> None:
    server = serve.responses(HALF)
    async with HTTPTransport() as transport:
        exchange = await begun(transport, server)
        async with anyio.create_task_group() as group:

            async def read() -> None:
                assert isinstance(await outcome(exchange), httpx.ReadError)

            group.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            await exchange.aclose(complete=True)
        assert counted(transport)[0] == 0


async def test_two_that_pump_one_body(serve: Serve) -> None:
    server = serve.responses(HALF)
    errors = []
    async with HTTPTransport() as transport:
        exchange = await begun(transport, server)

        async def pump() -> None:
            try:
                await exchange.pump(lambda _: False)
            except (httpx.ReadError, anyio.BusyResourceError) as exc:
                errors.append(type(exc).__name__)

        async with anyio.create_task_group() as group:
            group.start_soon(pump)
            group.start_soon(pump)
        assert sorted(errors) == ["BusyResourceError", "ReadError"]
        assert counted(transport)[0] == 0


@pytest.mark.parametrize(
    "news", [b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", b""], ids=["408", "end"]
)
async def test_what_came_unasked_is_no_response(serve: Serve, request_to: Build, news: bytes) -> None:
    """The event loop had no turn since it came: only the system knows of it."""
    go, sent = threading.Event(), threading.Semaphore(0)

    def script(peer: Peer) -> None:
        if peer.number == 1:
            peer.request()
            peer.send(OK)
            peer.wait(go)
            if news:
                peer.send(news)
            else:
                peer.close()
            sent.release()
        while peer.request():
            peer.send(OK)

    server = serve(script)
    async with HTTPTransport() as transport:
        await answered(transport, request_to(server))
        go.set()
        assert sent.acquire(timeout=10)
        response = await answered(transport, request_to(server))
        assert (response.status_code, response.content) == (200, b"ok")
        assert counted(transport) == (1, 1, 2, 0, 0)


def test_a_trio_task_notices_that_another_thread_closes_its_connection(serve: Serve) -> None:
    """Closed from outside, the socket would vanish under trio, and who waits for it would wait for ever."""
    server = serve.responses(HALF)
    transport = HTTPTransport()

    async def main() -> None:
        exchange = await begun(transport, server, read=None)
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                with trio.fail_after(10):
                    assert isinstance(await outcome(exchange), httpx.ReadError)

            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            await trio.to_thread.run_sync(anyio.run, transport.aclose)

    trio.run(main)
    assert transport.statistics().open == 0


def test_trio_half_imported_by_another_thread(serve: Serve, request_to: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trio", ModuleType("trio"))
    server = serve.responses(OK)

    async def call() -> bytes:
        async with HTTPTransport() as transport:
            return (await answered(transport, request_to(server))).content

    assert asyncio.run(call()) == b"ok"
