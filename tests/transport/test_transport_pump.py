"""Prepared requests, and bodies that are pumped: handed over as they arrive, without waking a task for each read."""

from __future__ import annotations

import ssl
import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import httpx
import pytest
from anyio.lowlevel import checkpoint

from chatscope.transport import HTTPTransport
from chatscope.transport.http1 import ResponseStream
from chatscope.transport.request_head import PostTemplate

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.socket_server import Peer, Serve, Server

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TIMEOUTS = {"connect": 10.0, "read": 10.0, "write": 10.0}


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def post_to(server: Server) -> PostTemplate:
    return PostTemplate(httpx.URL(server.url), httpx.Headers({"x-key": "1"}))


async def exchange_with(
    transport: HTTPTransport, server: Server, timeouts: dict[str, float | None] | None = None
) -> ResponseStream:
    response = await transport.post(post_to(server), b"hello", TIMEOUTS if timeouts is None else timeouts)
    assert isinstance(response, ResponseStream)
    return response


def keeping(kept: list[bytes]) -> Callable[[bytes], bool]:
    """Take everything, and never have enough."""

    def take(data: bytes) -> bool:
        kept.append(data)
        return False

    return take


class Stepwise:
    """Says one part after the other, each when it is told to."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = parts
        self.go = threading.Semaphore(0)

    def __call__(self, peer: Peer) -> None:
        peer.request()
        for part in self.parts:
            assert self.go.acquire(timeout=10)
            peer.send(part)
        peer.wait_closed()


async def test_a_prepared_request_on_the_wire(serve: Serve) -> None:
    server = serve.responses(HEAD + chunk(b"ok") + b"0\r\n\r\n")
    async with HTTPTransport() as transport:
        exchange = await exchange_with(transport, server)
        assert b"".join([data async for data in exchange]) == b"ok"
    (request,) = server.requests
    assert request.startswith(b"POST / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % server.port)
    assert request.endswith(b"\r\nx-key: 1\r\nContent-Length: 5\r\n\r\nhello")


@pytest.mark.parametrize("name", ["bad name", "x-key"])
def test_what_no_header_can_say_is_refused(name: str) -> None:
    with pytest.raises(httpx.LocalProtocolError):
        PostTemplate(httpx.URL("http://127.0.0.1/"), httpx.Headers([(name.encode(), b"a\r\nb: c")]))


@pytest.mark.parametrize("tls", [False, True])
async def test_each_read_is_handed_over_as_it_comes(
    serve: Serve, server_context: ssl.SSLContext, client_context: ssl.SSLContext, tls: bool
) -> None:
    script = Stepwise(HEAD + chunk(b"one"), chunk(b"two"), chunk(b"three") + chunk(b"four"), b"0\r\n\r\n")
    server = serve(script, context=server_context if tls else None)
    script.go.release()
    taken: list[bytes] = []

    def take(data: bytes) -> bool:
        taken.append(data)
        script.go.release()
        return False

    async with HTTPTransport(verify=client_context) as transport:
        exchange = await exchange_with(transport, server)
        assert not await exchange.pump(take)
        assert taken == [b"one", b"two", b"threefour"]
        assert exchange.is_over
        assert exchange.read_ns > 0
        assert transport.statistics().idle == 1


async def test_enough_is_enough_and_the_rest_can_be_read(serve: Serve) -> None:
    script = Stepwise(HEAD, chunk(b"one"), chunk(b"two") + b"0\r\n\r\n")
    server = serve(script)
    script.go.release(2)
    async with HTTPTransport() as transport:
        exchange = await exchange_with(transport, server)
        assert await exchange.pump(lambda data: data == b"one")
        script.go.release()
        assert [data async for data in exchange] == [b"two"]
        assert not await exchange.pump(lambda _: True), "there is nothing left"


async def test_the_connection_is_another_s_before_the_pump_has_woken(serve: Serve) -> None:
    """With the last read the connection goes back to the pool, at once; nothing of the pump may be in its way."""
    response = HEAD + chunk(b"ok") + b"0\r\n\r\n"
    script = Stepwise(HEAD + chunk(b"first"), b"0\r\n\r\n")

    def serving(peer: Peer) -> None:
        peer.request()
        for part in script.parts:
            assert script.go.acquire(timeout=10)
            peer.send(part)
        while peer.request():
            peer.send(response)

    server = serve(serving)
    script.go.release()
    texts: list[bytes] = []

    async with HTTPTransport() as transport, anyio.create_task_group() as group:
        exchange = await exchange_with(transport, server)

        async def reuse() -> None:
            while not exchange.is_over:
                await checkpoint()
            for _ in range(20):
                other = await exchange_with(transport, server)
                assert not await other.pump(keeping(texts))

        group.start_soon(reuse)
        script.go.release()
        assert not await exchange.pump(keeping(texts))
    assert texts == [b"first", *[b"ok"] * 20]
    assert server.accepted == 1


async def test_what_take_raises_comes_out_and_closes_the_connection(serve: Serve) -> None:
    script = Stepwise(HEAD, chunk(b"one"))
    server = serve(script)
    script.go.release(2)

    def take(data: bytes) -> bool:
        raise ZeroDivisionError(data)

    async with HTTPTransport() as transport:
        exchange = await exchange_with(transport, server)
        with pytest.raises(ZeroDivisionError):
            await exchange.pump(take)
        assert transport.statistics().open == 0
        with pytest.raises(httpx.StreamClosed):
            await exchange.pump(take)
        await anyio.to_thread.run_sync(server.wait_closed)


@pytest.mark.parametrize("tls", [False, True])
async def test_silence(serve: Serve, server_context: ssl.SSLContext, client_context: ssl.SSLContext, tls: bool) -> None:
    server = serve.responses(HEAD + chunk(b"one"), context=server_context if tls else None)
    taken: list[bytes] = []
    async with HTTPTransport(verify=client_context) as transport:
        exchange = await exchange_with(transport, server, {"connect": 10.0, "read": 0.3})
        with pytest.raises(httpx.ReadTimeout, match=r"for 0\.3 s"):
            await exchange.pump(keeping(taken))
        assert taken == [b"one"]
        assert transport.statistics().open == 0


async def test_every_read_begins_the_timeout_anew(serve: Serve) -> None:
    script = Stepwise(HEAD, *[chunk(b"x")] * 6, b"0\r\n\r\n")
    server = serve(script)
    taken: list[bytes] = []
    async with HTTPTransport() as transport, anyio.create_task_group() as group:

        async def pace() -> None:
            for _ in range(8):
                script.go.release()
                await anyio.sleep(0.1)  # in all, longer than the timeout

        group.start_soon(pace)
        exchange = await exchange_with(transport, server, {"connect": 10.0, "read": 0.5})
        assert not await exchange.pump(keeping(taken))
    assert b"".join(taken) == b"x" * 6


@pytest.mark.parametrize("ending", ["close", "reset"])
async def test_a_connection_that_breaks_off(serve: Serve, ending: str) -> None:
    taken = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(HEAD + chunk(b"one"))
        peer.wait(taken)
        getattr(peer, ending)()

    server = serve(script)
    async with HTTPTransport() as transport:
        exchange = await exchange_with(transport, server)

        def take(data: bytes) -> bool:
            taken.set()
            return False

        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await exchange.pump(take)
        assert transport.statistics().open == 0


async def test_a_body_without_a_length(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nto the end")

    async with HTTPTransport() as transport:
        exchange = await exchange_with(transport, serve(script))
        taken: list[bytes] = []
        assert not await exchange.pump(keeping(taken))
        assert b"".join(taken) == b"to the end"
        assert exchange.is_over
        assert transport.statistics().open == 0


async def test_cancelled_it_closes_the_connection(serve: Serve) -> None:
    server = serve.responses(HEAD + chunk(b"one"))
    async with HTTPTransport() as transport:
        exchange = await exchange_with(transport, server)
        with anyio.CancelScope() as scope:

            def take(data: bytes) -> bool:
                scope.cancel()
                return False

            await exchange.pump(take)
        assert scope.cancelled_caught
        assert transport.statistics().open == 0
        await anyio.to_thread.run_sync(server.wait_closed)


async def test_broken_framing_behind_a_part_of_the_body(serve: Serve) -> None:
    server = serve.responses(HEAD + chunk(b"one") + b"nonsense\r\n")
    taken: list[bytes] = []
    async with HTTPTransport() as transport:
        exchange = await exchange_with(transport, server)
        with pytest.raises(httpx.RemoteProtocolError):
            await exchange.pump(keeping(taken))
    assert taken == [b"one"]


@pytest.mark.parametrize("cause", ["cancelled", "raised"])
async def test_what_fails_after_the_end_leaves_the_connection_to_its_next_user(serve: Serve, cause: str) -> None:
    script = Stepwise(HEAD, chunk(b"last") + b"0\r\n\r\n")
    server = serve(script)
    script.go.release(2)
    async with HTTPTransport() as transport:
        exchange = await exchange_with(transport, server)
        connection = exchange._connection
        with anyio.CancelScope() as scope:

            def take(data: bytes) -> bool:
                # The connection is idle already, and in this turn of the loop another request takes it.
                assert connection._pool.take(connection.origin) is connection
                if cause == "raised":
                    raise ZeroDivisionError
                scope.cancel()
                return True

            with pytest.raises(ZeroDivisionError) if cause == "raised" else nullcontext():
                await exchange.pump(take)
        await exchange.aclose()
        statistics = transport.statistics()
        assert (statistics.active, statistics.closed) == (1, 0)


async def test_an_end_that_was_made_here_is_no_end_of_a_body_without_a_length(serve: Serve) -> None:
    server = serve.responses(b"HTTP/1.1 200 OK\r\n\r\nhalf of i")
    taken: list[bytes] = []
    async with HTTPTransport() as transport, anyio.create_task_group() as group:
        exchange = await exchange_with(transport, server)

        async def close() -> None:
            while not taken:
                await checkpoint()
            await transport.aclose()

        group.start_soon(close)
        with pytest.raises(httpx.ReadError, match="closed while"):
            await exchange.pump(keeping(taken))
    assert b"".join(taken) == b"half of i"
