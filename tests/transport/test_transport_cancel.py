"""Cancellation at every place that waits, and at random: no descriptor and no connection is lost."""

from __future__ import annotations

import contextlib
import gc
import random
import threading
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import httptools
import httpx
import pytest
from tests.support.responses import OK

from chatscope.transport import HTTPTransport, resolver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.support.responses import Build
    from tests.support.socket_server import Peer, Serve, Server


def descriptors() -> set[str]:
    """The sockets that are open in this process: each has a name of its own."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(str(path.readlink()))
    return {name for name in found if name.startswith("socket:")}


async def exchange(transport: HTTPTransport, request: httpx.Request) -> bytes:
    response = await transport.handle_async_request(request)
    try:
        return await response.aread()
    finally:
        await response.aclose()


def silent(peer: Peer) -> None:
    peer.wait_closed()


def after_the_request(peer: Peer) -> None:
    peer.request()
    peer.wait_closed()


def within_the_head(peer: Peer) -> None:
    peer.request()
    peer.send(b"HTTP/1.1 200 OK\r\nCont")
    peer.wait_closed()


def within_the_body(peer: Peer) -> None:
    peer.request()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    peer.wait_closed()


def within_the_second(peer: Peer) -> None:
    peer.request()
    peer.send(OK)
    peer.wait_closed()


@pytest.mark.parametrize("script", [silent, after_the_request, within_the_head, within_the_body])
@pytest.mark.parametrize("size", [5, 20_000_000], ids=["", "while sending"])
async def test_cancelled_in_an_exchange(
    serve: Serve, request_to: Build, script: Callable[[Peer], None], size: int
) -> None:
    server = serve(script)
    async with HTTPTransport() as transport:
        await cancelled_while_it_waits(transport, server, request_to(server, content=b"x" * size))


@pytest.mark.parametrize("leaves", ["closed", "cancelled"])
async def test_a_response_that_was_given_up_leaves_no_parser_to_the_collector(
    serve: Serve, request_to: Build, leaves: str
) -> None:
    def parsers() -> int:
        return sum(isinstance(it, httptools.HttpResponseParser) for it in gc.get_objects())

    server = serve(within_the_body)
    gc.collect()
    gc.disable()
    before = parsers()
    try:
        async with HTTPTransport() as transport:
            if leaves == "cancelled":
                await cancelled_while_it_waits(transport, server, request_to(server))
            else:
                await (await transport.handle_async_request(request_to(server))).aclose()
            assert parsers() == before
    finally:
        gc.enable()


async def test_cancelled_while_the_body_is_produced(serve: Serve, request_to: Build) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"hello"
        await anyio.sleep_forever()

    server = serve(silent)
    async with HTTPTransport() as transport:
        await cancelled_while_it_waits(transport, server, request_to(server, content=body()))


async def test_cancelled_in_a_tls_handshake(serve: Serve, request_to: Build, client_context: Any) -> None:
    server = serve(silent)
    async with HTTPTransport(verify=client_context) as transport:
        await cancelled_while_it_waits(transport, server, request_to(server.url.replace("http", "https")))


async def test_cancelled_in_an_exchange_over_tls(
    serve: Serve, request_to: Build, server_context: Any, client_context: Any
) -> None:
    server = serve(within_the_body, context=server_context)
    async with HTTPTransport(verify=client_context) as transport:
        await cancelled_while_it_waits(transport, server, request_to(server))


async def cancelled_while_it_waits(transport: HTTPTransport, server: Server, request: httpx.Request) -> None:
    """Cancel an exchange once nothing moves any more, and show that the server saw its end."""
    async with anyio.create_task_group() as group:
        group.start_soon(exchange, transport, request)
        while not server.accepted:  # noqa: ASYNC110  # threads know nothing of anyio's events
            await anyio.sleep(0.001)
        for _ in range(20):
            await anyio.wait_all_tasks_blocked()
            await anyio.sleep(0.001)
        group.cancel_scope.cancel()
    statistics = transport.statistics()
    assert (statistics.open, statistics.idle) == (0, 0)
    await anyio.to_thread.run_sync(server.wait_closed)


async def test_cancelled_on_a_reused_connection(serve: Serve, request_to: Build) -> None:
    server = serve(within_the_second)
    async with HTTPTransport() as transport:
        assert await exchange(transport, request_to(server)) == b"ok"
        async with anyio.create_task_group() as group:
            group.start_soon(exchange, transport, request_to(server))
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        statistics = transport.statistics()
        assert (statistics.open, statistics.idle, statistics.reuses, statistics.resent) == (0, 0, 1, 0)
        await anyio.to_thread.run_sync(server.wait_closed)


async def test_cancelled_before_it_begins(serve: Serve, request_to: Build) -> None:
    server = serve.responses(OK)
    async with HTTPTransport() as transport:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await exchange(transport, request_to(server))
        assert scope.cancelled_caught
        assert transport.statistics().open == 0


async def test_cancelled_while_a_name_is_looked_up(request_to: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "start_thread", lambda *args: None)
    async with HTTPTransport() as transport, anyio.create_task_group() as group:
        group.start_soon(exchange, transport, request_to("http://chat.example/"))
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert transport.statistics().connects == 0


async def test_a_wait_for_the_next_bytes_loses_none_to_a_cancellation_elsewhere(
    serve: Serve, request_to: Build
) -> None:
    """A scope that is cancelled in the same turn in which the bytes arrive closes the connection, once."""
    go = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        peer.wait(go)
        peer.send(b"ok")
        peer.wait_closed()

    server = serve(script)
    async with HTTPTransport() as transport:
        response = await transport.handle_async_request(request_to(server))
        with anyio.CancelScope() as scope:
            go.set()
            scope.cancel()
            await response.aread()
        statistics = transport.statistics()
        assert statistics.open == statistics.idle == (0 if scope.cancelled_caught else 1)


@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_random_cancellation(
    serve: Serve, request_to: Build, server_context: Any, client_context: Any, tls: bool
) -> None:
    """60 tasks, 12 rounds (6 over TLS) and 5 connections that are limited above the transport, as they always are."""
    rounds = 6 if tls else 12
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

    def script(peer: Peer) -> None:
        while peer.request():
            peer.send(chunked)
            for _ in range(3):
                peer.send(b"2\r\nok\r\n")
            peer.send(b"0\r\n\r\n")

    server = serve(script, context=server_context if tls else None)
    chance = random.Random(3)
    outcomes = {"finished": 0, "cancelled": 0}
    before = descriptors()
    async with HTTPTransport(verify=client_context) as transport:
        limiter = anyio.CapacityLimiter(5)

        async def work() -> None:
            for _ in range(rounds):
                # A third is left alone, some give up waiting for their turn, most while they connect, send or read.
                turn = chance.uniform(0, 0.05) if chance.random() < 0.1 else inf
                patience = chance.uniform(0, 0.004) if chance.random() < 0.7 else inf
                with anyio.move_on_after(turn):
                    async with limiter:
                        with anyio.move_on_after(patience) as scope:
                            assert await exchange(transport, request_to(server)) == b"okokok"
                            outcomes["finished"] += 1
                        outcomes["cancelled"] += scope.cancelled_caught

        async with anyio.create_task_group() as group:
            for _ in range(60):
                group.start_soon(work)

        statistics = transport.statistics()
        assert statistics.active == 0
        assert statistics.open <= 5
        assert outcomes["finished"] > 100
        assert outcomes["cancelled"] > 100

        async with anyio.create_task_group() as group:
            ready = anyio.Event()
            waiting = 0

            async def serve_all() -> None:
                nonlocal waiting
                response = await transport.handle_async_request(request_to(server))
                waiting += 1
                if waiting == 5:
                    ready.set()
                await ready.wait()
                assert await response.aread() == b"okokok"

            for _ in range(5):
                group.start_soon(serve_all)
        assert transport.statistics().active == 0
    assert transport.statistics().open == 0
    # The server's ends are descriptors of this process too.
    while any(thread.is_alive() for thread in server._threads):  # noqa: ASYNC110  # as above
        await anyio.sleep(0.01)
    assert descriptors() <= before
