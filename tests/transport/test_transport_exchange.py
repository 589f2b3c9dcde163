"""One exchange after another against a raw-socket server: what HTTP/1.1 asks of a client, row by row."""

from __future__ import annotations

import contextlib
import threading
from time import perf_counter_ns
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import httpx
import pytest
from tests.support.responses import OK, answered, counted

from chatscope.transport import RESEND_EXTENSION, SENT_EXTENSION, HTTPTransport, TransportStatistics
from chatscope.transport.pool import PooledConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.responses import Build
    from tests.support.socket_server import Peer, Serve


@pytest.mark.one_loop
@pytest.mark.parametrize(
    ("method", "wire", "status", "body", "kept"),
    [
        ("POST", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", True),
        ("POST", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 200, b"hello", True),
        (
            "POST",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\n",
            200,
            b"hello",
            True,
        ),
        ("POST", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b"", True),
        ("POST", b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", True),
        ("POST", b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
        ("POST", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b"", True),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200, b"", True),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nConnection: close\r\n\r\n", 200, b"", False),
        ("POST", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", True),
        ("POST", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\nContent-Length: 9\r\n\r\n" + OK, 200, b"ok", True),
        ("POST", b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", 302, b"", True),
        ("POST", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", True),
        ("POST", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", False),
        ("POST", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", False),
        ("POST", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more", 200, b"ok", False),
        ("POST", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + OK, 200, b"ok", False),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"", False),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n", 200, b"", False),
    ],
)
async def test_responses(
    serve: Serve, request_to: Build, method: str, wire: bytes, status: int, body: bytes, kept: bool
) -> None:
    server = serve.responses(wire, OK)
    async with HTTPTransport() as transport:
        response = await answered(transport, request_to(server, method))
        assert (response.status_code, response.content) == (status, body)
        assert counted(transport) == ((1, 1, 1, 0, 0) if kept else (0, 0, 1, 0, 0))
        if kept:
            assert (await answered(transport, request_to(server))).content == b"ok"
            assert counted(transport) == (1, 1, 1, 1, 0)
    assert counted(transport)[:2] == (0, 0)


@pytest.mark.one_loop
@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
async def test_a_body_that_the_end_of_the_connection_ends(serve: Serve, request_to: Build, version: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(version + b" 200 OK\r\n\r\nhello")

    async with HTTPTransport() as transport:
        response = await answered(transport, request_to(serve(script)))
        assert response.content == b"hello"
        assert response.http_version == version.decode()
        assert counted(transport) == (0, 0, 1, 0, 0)


@pytest.mark.one_loop
@pytest.mark.parametrize(
    ("wire", "message"),
    [
        (b"<html>", "not an HTTP/1.1 response: it begins with b'<html>'"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", "switched"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "transfer coding"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "before the end of the body"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "before the end of the body"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno number", "not an HTTP/1.1 response"),
        (b"HTTP/1.1 200 OK\r\nContent-", "within the headers"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "within the headers"),
        (b"", "without sending a response"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 4097 + b"\r\n", "more than 4096 headers"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * 20000 + b"\r\n\r\n", "more than 20000 bytes of headers"),
        (b"HTTP/1.1 200 " + b"b" * 20000, "more than 20000 bytes of headers"),
        (b"HTTP/1.1 103 Hints\r\nA: 1234567890\r\n\r\n" * 1000, "more than 20000 bytes of headers"),
    ],
)
async def test_what_is_no_response(serve: Serve, request_to: Build, wire: bytes, message: str) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(wire)

    async with HTTPTransport(max_header_bytes=20_000) as transport:
        request = request_to(serve(script))
        with pytest.raises(httpx.RemoteProtocolError, match=message) as caught:
            await answered(transport, request)
        assert caught.value.request is request
        assert counted(transport) == (0, 0, 1, 0, 0)


async def test_the_connection_is_back_before_anybody_asks_for_the_end(serve: Serve, request_to: Build) -> None:
    rest = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        peer.wait(rest)
        peer.send(b"world")
        peer.wait_closed()

    async with HTTPTransport() as transport:
        before = perf_counter_ns()
        response = await transport.handle_async_request(request_to(serve(script)))
        assert isinstance(response.stream, httpx.AsyncByteStream)
        parts = aiter(response.stream)
        assert await anext(parts) == b"hello"
        first = response.stream.read_ns  # type: ignore[attr-defined]  # what this transport's streams have
        assert counted(transport) == (1, 0, 1, 0, 0)
        rest.set()
        assert await anext(parts) == b"world"
        assert counted(transport) == (1, 1, 1, 0, 0)
        assert before < first < response.stream.read_ns < perf_counter_ns()  # type: ignore[attr-defined]
        with pytest.raises(StopAsyncIteration):
            await anext(parts)


async def test_one_read_is_one_item_however_many_chunks(serve: Serve, request_to: Build) -> None:
    server = serve.responses(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100 + b"0\r\n\r\n"
    )
    async with HTTPTransport() as transport:
        response = await transport.handle_async_request(request_to(server))
        assert isinstance(response.stream, httpx.AsyncByteStream)
        assert [part async for part in response.stream] == [b"x" * 100]


async def test_closing_an_unfinished_body_closes_the_connection(serve: Serve, request_to: Build) -> None:
    server = serve.responses(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    async with HTTPTransport() as transport:
        response = await transport.handle_async_request(request_to(server))
        with anyio.CancelScope() as scope:
            scope.cancel()
            await response.aclose()
        await response.aclose()
        assert counted(transport) == (0, 0, 1, 0, 0)
        await anyio.to_thread.run_sync(server.wait_closed)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        with pytest.raises(httpx.StreamClosed):
            await anext(aiter(response.stream))


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("allows", [None, True, False])
async def test_a_request_lost_with_its_pooled_connection_is_sent_again_if_its_hook_allows(
    serve: Serve, request_to: Build, allows: bool | None, end: str
) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(OK)
        peer.request()
        if peer.number == 1:
            getattr(peer, end)()

    lost: list[httpx.TransportError] = []

    def on_resend(error: httpx.TransportError) -> bool:
        lost.append(error)
        return bool(allows)

    server = serve(script)
    async with HTTPTransport() as transport:
        await answered(transport, request_to(server))
        request = request_to(server, content=b"again")
        if allows is not None:
            request.extensions[RESEND_EXTENSION] = on_resend
        if allows is False:
            with pytest.raises(httpx.TransportError) as raised:
                await transport.handle_async_request(request)
            assert lost == [raised.value]
        else:
            assert (await answered(transport, request)).content == b"ok"
            assert len(lost) == bool(allows)
        assert counted(transport) == ((0, 0, 1, 1, 0) if allows is False else (1, 1, 2, 1, 1))
    assert [request[-5:] for request in server.requests] == [b"hello", b"again", b"again"][: 2 + (allows is not False)]


async def test_the_sent_hook_is_called_between_connecting_and_the_response(serve: Serve, request_to: Build) -> None:
    def script(peer: Peer) -> None:
        while peer.request():
            responded.append(perf_counter_ns())
            peer.send(OK)

    sent: list[tuple[int, int | None]] = []
    responded: list[int] = []
    server = serve(script)
    async with HTTPTransport() as transport:
        began = perf_counter_ns()
        for _ in range(2):
            request = request_to(server)
            request.extensions[SENT_EXTENSION] = lambda connect_ns: sent.append((perf_counter_ns(), connect_ns))
            await answered(transport, request)
    (first_ns, connect_ns), (second_ns, reused) = sent
    assert connect_ns is not None
    assert 0 < connect_ns < first_ns - began
    assert responded[0] < second_ns
    assert reused is None, "a kept connection needs no connecting"


async def test_a_request_that_no_server_can_have_read_needs_no_leave_to_be_sent_again(
    serve: Serve, request_to: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection dies between the look at it and the write. The look and the notice are suppressed here."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(OK)
        if peer.number == 1:
            peer.reset()
        else:
            peer.request()

    server = serve(script)
    async with HTTPTransport() as transport:
        monkeypatch.setattr(PooledConnection, "close", lambda self: None)
        await answered(transport, request_to(server))
        await anyio.to_thread.run_sync(server.wait_closed)
        await anyio.sleep(0.01)
        (connection,) = transport._origins.popitem()[1].idle
        monkeypatch.undo()
        monkeypatch.setattr(type(connection.stream), "is_quiet", lambda self: True)
        request = request_to(server)
        transport._origins[request.url.scheme, request.url.raw_host, request.url.port] = connection.origin
        request.extensions[RESEND_EXTENSION] = lambda error: False
        if type(connection.stream).__name__ == "TrioStream":  # it learns of a reset by its first failing call
            with contextlib.suppress(OSError):
                connection.stream._sock.send(b"")  # type: ignore[attr-defined]
        assert (await answered(transport, request)).content == b"ok"
        assert transport.statistics().resent == 0
    assert len(server.requests) == 2


async def test_it_is_sent_again_only_once(serve: Serve, request_to: Build) -> None:
    def script(peer: Peer) -> None:
        if peer.number == 1:
            peer.request()
            peer.send(OK)
        peer.request()
        peer.reset()

    server = serve(script)
    async with HTTPTransport() as transport:
        await answered(transport, request_to(server))
        with pytest.raises(httpx.TransportError):
            await answered(transport, request_to(server))
        assert counted(transport) == (0, 0, 2, 1, 1)


async def test_nothing_is_sent_again_once_the_response_has_begun(serve: Serve, request_to: Build) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(OK)
        peer.request()
        peer.send(b"HTTP/1.1 2")

    server = serve(script)
    async with HTTPTransport() as transport:
        await answered(transport, request_to(server))
        with pytest.raises(httpx.RemoteProtocolError, match="within the headers"):
            await answered(transport, request_to(server))
        assert counted(transport) == (0, 0, 1, 1, 0)


async def test_a_body_that_can_be_read_only_once_is_not_sent_again(serve: Serve, request_to: Build) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(OK)
        peer.request()

    async def body() -> AsyncIterator[bytes]:
        yield b"hello"

    server = serve(script)
    async with HTTPTransport() as transport:
        await answered(transport, request_to(server))
        with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
            await answered(transport, request_to(server, content=body()))
        assert counted(transport) == (0, 0, 1, 1, 0)


async def test_an_idle_connection_that_the_server_closed_is_not_used(serve: Serve, request_to: Build) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(OK)

    server = serve(script)
    async with HTTPTransport() as transport:
        await answered(transport, request_to(server))
        await anyio.to_thread.run_sync(server.wait_closed)
        await anyio.wait_all_tasks_blocked()
        await answered(transport, request_to(server))
        assert counted(transport)[2:] == (2, 0, 0)


async def test_an_idle_connection_that_says_something_is_not_used(serve: Serve, request_to: Build) -> None:
    timed_out = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(OK)
        if peer.number == 1:
            peer.send(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
            timed_out.set()
        peer.wait_closed()

    server = serve(script)
    async with HTTPTransport() as transport:
        await answered(transport, request_to(server))
        await anyio.to_thread.run_sync(timed_out.wait)
        await anyio.wait_all_tasks_blocked()
        assert (await answered(transport, request_to(server))).status_code == 200
        assert counted(transport)[2:] == (2, 0, 0)


async def test_a_request_that_asks_for_the_end_gets_it(serve: Serve, request_to: Build) -> None:
    async with HTTPTransport() as transport:
        await answered(transport, request_to(serve.responses(OK), headers={"Connection": "Close"}))
        assert counted(transport) == (0, 0, 1, 0, 0)


async def test_statistics_are_a_frozen_snapshot() -> None:
    async with HTTPTransport() as transport:
        statistics = transport.statistics()
    assert statistics == TransportStatistics(
        open=0, active=0, idle=0, connects=0, reuses=0, resent=0, closed=0, proxied=0
    )
    with pytest.raises(AttributeError):
        statistics.open = 1  # type: ignore[misc]


async def test_closing_a_transport_that_was_never_used() -> None:
    await HTTPTransport().aclose()


async def test_in_a_plain_httpx_client(serve: Serve) -> None:
    server = serve.responses(OK, b"HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n", OK, OK)
    transport = HTTPTransport()
    async with httpx.AsyncClient(transport=transport, base_url=server.url, headers={"X-A": "b"}) as client:
        assert (await client.get("/a?b=c d")).text == "ok"
        assert (await client.get("/a", follow_redirects=True)).text == "ok"
        async with client.stream("POST", "/", json={"a": 1}) as response:
            assert [part async for part in response.aiter_bytes()] == [b"ok"]
            assert response.reason_phrase == "OK"
        assert counted(transport) == (1, 1, 1, 3, 0)
    assert counted(transport)[:2] == (0, 0)
    lines = [request.partition(b"\r\n")[0] for request in server.requests]
    assert lines == [b"GET /a?b=c%20d HTTP/1.1", b"GET /a HTTP/1.1", b"GET /b HTTP/1.1", b"POST / HTTP/1.1"]
