"""The kernel's stamps: which connections are watched, what their lag is, and that watching changes nothing else."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

import anyio
import httpx
import pytest
from tests.support.socket_server import Peer, Serve

from chatscope.transport import HTTPTransport, ReadWitness
from chatscope.transport.witness import SO_TIMESTAMPNS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux stamps what is read")

RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
LARGE = 3_000_000
BLOCKED = 0.2
"""Seconds for which a test stops the loop: far more than a busy machine adds."""

MakeRequest = Callable[..., httpx.Request]


@pytest.fixture(scope="module", autouse=True)
def stamping() -> Iterator[None]:
    """Have the kernel stamp from the start: it begins a moment after the first socket has asked, for all of them."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        time.sleep(0.1)
        yield


async def body(transport: HTTPTransport, request: httpx.Request) -> bytes:
    response = await transport.handle_async_request(request)
    return await response.aread()


async def test_the_lag_is_how_long_the_bytes_waited(serve: Serve, request_to: MakeRequest) -> None:
    async def stop_the_loop() -> None:
        await anyio.sleep(0.05)
        time.sleep(BLOCKED)  # noqa: ASYNC251 - that is the fault to be found

    def script(peer: Peer) -> None:
        peer.request()
        time.sleep(0.1)  # the loop has stopped by then
        sent.append(time.perf_counter_ns())
        peer.send(RESPONSE)

    sent: list[int] = []
    witness = ReadWitness()
    transport = HTTPTransport(witness=witness)
    async with anyio.create_task_group() as group:
        group.start_soon(stop_the_loop)
        assert await body(transport, request_to(serve(script))) == b"hello"
    ((read_ns, lag_ns),) = witness.take()
    assert lag_ns == pytest.approx(read_ns - sent[0], abs=20_000_000)
    assert lag_ns > 50_000_000
    assert witness.take() == []
    await transport.aclose()


async def test_four_open_connections_are_watched_and_one_in_sixteen_of_all(
    serve: Serve, request_to: MakeRequest
) -> None:
    """Those that are closed are replaced: a pool lets go of the connections that it needs least."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(RESPONSE[:-1])
        peer.wait_closed()

    witness = ReadWitness()
    transport = HTTPTransport(witness=witness)
    server = serve(script)
    responses = [await transport.handle_async_request(request_to(server)) for _ in range(33)]
    assert witness.connections == 4 + 2
    assert len(witness.take()) == 6
    for response in responses[:6]:
        await response.aclose()
    await anyio.sleep(0.01)  # the loop lets go of the sockets
    responses += [await transport.handle_async_request(request_to(server)) for _ in range(4)]
    assert witness.connections == 6 + 2, "two of the first six were left open"
    await transport.aclose()
    assert transport.statistics().open == 0


async def test_a_watched_connection_is_as_good_as_another(serve: Serve, request_to: MakeRequest) -> None:
    """It is kept alive, and takes bodies that a slow reader makes wait."""

    def script(peer: Peer) -> None:
        while peer.request():
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (LARGE, b"x" * LARGE))

    witness = ReadWitness()
    transport = HTTPTransport(witness=witness)
    server = serve(script)
    for _ in range(2):
        response = await transport.handle_async_request(request_to(server))
        size = 0
        async for data in response.stream:  # type: ignore[union-attr]  # an AsyncByteStream
            size += len(data)
            await anyio.sleep(0.001)
        assert size == LARGE
    assert transport.statistics().connects == 1
    await transport.aclose()


@pytest.mark.parametrize("ending", [Peer.reset, Peer.close])
async def test_the_end_of_a_watched_connection_is_noticed(
    serve: Serve, request_to: MakeRequest, ending: Callable[[Peer], None]
) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello")
        time.sleep(0.05)
        ending(peer)

    transport = HTTPTransport(witness=ReadWitness())
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        await body(transport, request_to(serve(script)))
    assert transport.statistics().open == 0
    await transport.aclose()


async def test_a_cancelled_read_closes_the_connection(serve: Serve, request_to: MakeRequest) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        received.set()
        peer.wait_closed()

    received = threading.Event()
    transport = HTTPTransport(witness=ReadWitness())
    server = serve(script)
    async with anyio.create_task_group() as group:
        group.start_soon(transport.handle_async_request, request_to(server))
        assert await anyio.to_thread.run_sync(received.wait, 5)
        group.cancel_scope.cancel()
    assert await anyio.to_thread.run_sync(lambda: server.closed.acquire(timeout=5)), "the server saw no end"
    await transport.aclose()


async def test_a_system_without_stamps_is_said_to_have_none(
    serve: Serve, request_to: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(RESPONSE)

    monkeypatch.setattr(sys, "platform", "darwin")
    witness = ReadWitness()
    monkeypatch.undo()
    transport = HTTPTransport(witness=witness)
    assert await body(transport, request_to(serve(script))) == b"hello"
    assert (witness.take(), witness.connections) == ([], 0)
    assert "darwin" in (witness.obstacle or "")
    await transport.aclose()
