"""Waiting for a server: timeouts, backpressure, and who closes what while somebody waits."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import httpx
import pytest
from tests.support.responses import OK, answered, counted

from chatscope.transport import HTTPTransport

if TYPE_CHECKING:
    from tests.support.responses import Build
    from tests.support.socket_server import Peer, Serve


async def test_the_head_takes_too_long(serve: Serve, request_to: Build) -> None:
    async with HTTPTransport() as transport:
        request = request_to(serve.responses(b""), extensions={"timeout": {"read": 0.05}})
        with pytest.raises(httpx.ReadTimeout, match=r"for 0\.05 s") as caught:
            await answered(transport, request)
        assert caught.value.request is request
        assert counted(transport) == (0, 0, 1, 0, 0)


async def test_the_body_takes_too_long(serve: Serve, request_to: Build) -> None:
    server = serve.responses(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    async with HTTPTransport() as transport:
        response = await transport.handle_async_request(request_to(server, extensions={"timeout": {"read": 0.05}}))
        with pytest.raises(httpx.ReadTimeout):
            await response.aread()
        assert counted(transport) == (0, 0, 1, 0, 0)
        await anyio.to_thread.run_sync(server.wait_closed)


async def test_a_shorter_timeout_counts_on_a_connection_that_had_a_longer_one(serve: Serve, request_to: Build) -> None:
    async with HTTPTransport() as transport:
        server = serve.responses(OK, b"")
        await answered(transport, request_to(server))
        with pytest.raises(httpx.ReadTimeout):
            await answered(transport, request_to(server, extensions={"timeout": {"read": 0.05}}))


async def test_silence_is_timed_from_one_read_to_the_next(serve: Serve, request_to: Build) -> None:
    """Many reads, each well within the timeout, take longer than it together."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
        for _ in range(8):
            threading.Event().wait(0.1)
            peer.send(b"x")
        peer.wait_closed()

    async with HTTPTransport() as transport:
        response = await answered(transport, request_to(serve(script), extensions={"timeout": {"read": 0.6}}))
        assert response.content == b"x" * 8


async def test_a_timer_that_outlives_its_wait_does_no_harm(serve: Serve, request_to: Build) -> None:
    timeout = {"timeout": {"read": 0.01}}
    server = serve.responses(OK, OK)
    async with HTTPTransport() as transport:
        await answered(transport, request_to(server))
        await anyio.sleep(0.03)
        assert (await answered(transport, request_to(server, extensions=timeout))).content == b"ok"
        await anyio.sleep(0.03)
        assert counted(transport) == (1, 1, 1, 1, 0)


async def test_the_server_does_not_take_the_body(serve: Serve, request_to: Build) -> None:
    def script(peer: Peer) -> None:
        peer.wait(done)

    done = threading.Event()
    async with HTTPTransport() as transport:
        request = request_to(serve(script), content=b"x" * 20_000_000, extensions={"timeout": {"write": 0.05}})
        with pytest.raises(httpx.WriteTimeout) as caught:
            await answered(transport, request)
        done.set()
        assert caught.value.request is request
        assert counted(transport) == (0, 0, 1, 0, 0)


@pytest.mark.slow
async def test_a_reader_that_stops_stops_the_server(serve: Serve, request_to: Build) -> None:
    sent = 0
    size = 64_000_000
    stuck = threading.Event()

    def script(peer: Peer) -> None:
        nonlocal sent
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            burst = 100_000
            timer = threading.Timer(0.5, stuck.set)
            timer.start()
            peer.send(b"x" * burst)
            timer.cancel()
            sent += burst
        peer.wait_closed()

    async with HTTPTransport() as transport:
        response = await transport.handle_async_request(request_to(serve(script)))
        assert await anyio.to_thread.run_sync(stuck.wait, 10)
        # Kernel buffers of both ends, and at most twice the high-water mark here.
        assert sent < 16_000_000
        assert isinstance(response.stream, httpx.AsyncByteStream)
        received = 0
        async for part in response.stream:
            received += len(part)
        assert received == size
        assert counted(transport) == (1, 1, 1, 0, 0)


async def test_two_readers_of_one_body(serve: Serve, request_to: Build) -> None:
    server = serve.responses(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
    async with HTTPTransport() as transport:
        response = await transport.handle_async_request(request_to(server))
        assert isinstance(response.stream, httpx.AsyncByteStream)
        parts = aiter(response.stream)
        errors: list[BaseException] = []

        async def read() -> None:
            try:
                await anext(parts)
            except (httpx.ReadError, anyio.BusyResourceError) as exc:
                errors.append(exc)

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            group.start_soon(read)
        assert sorted(type(error).__name__ for error in errors) == ["BusyResourceError", "ReadError"]
        assert counted(transport)[:2] == (0, 0)


async def test_a_reader_is_woken_when_another_task_closes_the_body(serve: Serve, request_to: Build) -> None:
    """A body without a length, whose end must not be mistaken for the real one."""
    server = serve.responses(b"HTTP/1.1 200 OK\r\n\r\n")
    async with HTTPTransport() as transport:
        response = await transport.handle_async_request(request_to(server))
        assert isinstance(response.stream, httpx.AsyncByteStream)

        async def read() -> None:
            assert isinstance(response.stream, httpx.AsyncByteStream)
            with pytest.raises(httpx.ReadError, match="closed while"):
                await anext(aiter(response.stream))

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            await response.aclose()


async def test_closing_the_transport_closes_what_is_in_use(serve: Serve, request_to: Build) -> None:
    server = serve.responses(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    async with HTTPTransport() as transport:
        response = await transport.handle_async_request(request_to(server))
    assert counted(transport) == (0, 0, 1, 0, 0)
    with pytest.raises(httpx.TransportError):
        await response.aread()
    with pytest.raises(RuntimeError, match="closed"):
        await transport.handle_async_request(request_to(server))
    await transport.aclose()
