"""Responses that are given up before their end: the next request reads that end, or takes another connection."""

from __future__ import annotations

import ssl
import threading
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import httpx
import pytest
from anyio.lowlevel import checkpoint

from chatscope import ChatClient
from chatscope.transport import HTTPTransport, drain
from chatscope.transport.http1 import ResponseStream
from chatscope.transport.request_head import PostTemplate

if TYPE_CHECKING:
    from tests.support.socket_server import Peer, Serve, Server

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
DONE = HEAD + b"4\r\ndone\r\n"
END = b"0\r\n\r\n"
TIMEOUTS = {"connect": 10.0, "read": 10.0, "write": 10.0}


class Answering:
    """Sends the same to every request of a connection, up to what it is given up after; then, when told to, `rest`."""

    def __init__(self, *rest: bytes) -> None:
        self.rest = rest
        self.go = threading.Semaphore(0)
        self.sent = threading.Semaphore(0)

    def __call__(self, peer: Peer) -> None:
        while peer.request():
            peer.send(DONE)
            for part in self.rest:
                assert self.go.acquire(timeout=10)
                peer.send(part)
                self.sent.release()
            if not self.rest:
                peer.wait_closed()


async def given_up(transport: HTTPTransport, server: Server) -> ResponseStream:
    """Read a response up to the last that is of use."""
    exchange = await transport.post(PostTemplate(httpx.URL(server.url), httpx.Headers()), b"", TIMEOUTS)
    assert isinstance(exchange, ResponseStream)
    assert (await anext(exchange)).startswith(b"done")
    await exchange.aclose(complete=True)
    return exchange


async def taken(transport: HTTPTransport) -> None:
    """Wait until the idle connection is somebody's."""
    while transport.statistics().idle:
        await checkpoint()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no slow machine decide a test."""
    monkeypatch.setattr(drain, "END_GRACE", 10.0)


@pytest.mark.one_loop
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("rest", [(END,), (b"0\r", b"\n\r\n"), (b"2\r\n\n\n\r\n" + END,)])
async def test_an_end_that_has_come_leaves_a_connection_for_others(
    serve: Serve, server_context: ssl.SSLContext, client_context: ssl.SSLContext, rest: tuple[bytes, ...], tls: bool
) -> None:
    script = Answering(*rest)
    server = serve(script, context=server_context if tls else None)
    async with HTTPTransport(verify=client_context) as transport:
        for _ in range(3):
            await given_up(transport, server)
            assert transport.statistics().idle == 1
            for _ in rest:
                script.go.release()
                await anyio.to_thread.run_sync(script.sent.acquire)
        statistics = transport.statistics()
        assert (statistics.connects, statistics.reuses) == (1, 2)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("tls", [False, True])
async def test_an_end_that_is_on_its_way_is_waited_for(
    serve: Serve, server_context: ssl.SSLContext, client_context: ssl.SSLContext, tls: bool
) -> None:
    script = Answering(END)
    server = serve(script, context=server_context if tls else None)
    async with HTTPTransport(verify=client_context) as transport, anyio.create_task_group() as group:
        await given_up(transport, server)
        group.start_soon(given_up, transport, server)
        await taken(transport)
        script.go.release()
        script.go.release()
    assert transport.statistics().connects == 1
    assert len(server.requests) == 2


@pytest.mark.parametrize("moment", ["at once", "later"])
async def test_an_end_that_does_not_come_is_given_up(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.setattr(drain, "END_GRACE", 0.01 if moment == "at once" else 0.0)
    server = serve(Answering())
    async with HTTPTransport() as transport:
        await given_up(transport, server)
        await given_up(transport, server)
        await anyio.to_thread.run_sync(server.wait_closed)
        statistics = transport.statistics()
        assert (statistics.connects, statistics.reuses, statistics.closed) == (2, 0, 1)


async def test_after_one_that_did_not_come_nobody_waits(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "END_GRACE", 0.01)
    go, sent = threading.Event(), threading.Semaphore(0)

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(DONE)
        if peer.number == 3:
            peer.wait(go)
            peer.send(END)
            sent.release()
            while peer.request():
                peer.send(DONE)
        peer.wait_closed()

    server = serve(script)
    async with HTTPTransport() as transport:
        await given_up(transport, server)
        await given_up(transport, server)
        monkeypatch.setattr(drain, "END_GRACE", 1000.0)
        with anyio.fail_after(10):
            await given_up(transport, server)
        assert transport.statistics().connects == 3
        go.set()
        assert await anyio.to_thread.run_sync(sent.acquire)
        await given_up(transport, server)
        statistics = transport.statistics()
        assert (statistics.connects, statistics.reuses) == (3, 1)  # and what has come by then is no loss


async def test_a_stream_whose_chunks_all_came_at_once_leaves_its_connection(serve: Serve) -> None:
    events = b'data: {"choices": [{"index": 0, "delta": {"content": "Hi"}}]}\n\ndata: [DONE]\n\n'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    go, sent = threading.Semaphore(0), threading.Semaphore(0)

    def script(peer: Peer) -> None:
        while peer.request():
            peer.send(head + b"%x\r\n%b\r\n" % (len(events), events))
            assert go.acquire(timeout=10)
            peer.send(END)
            sent.release()

    server = serve(script)
    async with HTTPTransport() as transport, ChatClient("k", base_url=server.url, transport=transport) as client:
        for _ in range(3):
            async with client.stream(model="m", messages=[{"role": "user", "content": "hi"}]) as stream:
                assert [chunk.text async for chunk in stream] == ["Hi"]
            go.release()
            assert await anyio.to_thread.run_sync(sent.acquire)
        statistics = transport.statistics()
        assert (statistics.connects, statistics.reuses) == (1, 2)


@pytest.mark.one_loop
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    "rest",
    [b"nonsense", END + b"HTTP/1.1 200 OK\r\n", b"0\r\n", b"9\r\nhalf"],
    ids=["rubbish", "excess", "cut", "half"],
)
async def test_an_end_that_is_none_closes_the_connection(serve: Serve, rest: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(DONE)
        assert go.acquire(timeout=10)
        peer.send(rest)
        if peer.server.accepted == 1 and rest in {b"0\r\n", b"9\r\nhalf"}:
            return  # which closes it
        peer.wait_closed()

    go = threading.Semaphore(0)
    server = serve(script)
    async with HTTPTransport() as transport:
        await given_up(transport, server)
        go.release()
        await given_up(transport, server)
        statistics = transport.statistics()
        assert (statistics.connects, statistics.reuses, statistics.closed) == (2, 0, 1)
        go.release()


@pytest.mark.usefixtures("patient")
async def test_a_connection_that_was_closed_after_its_end_is_not_used(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(DONE)
        assert go.acquire(timeout=10)
        peer.send(END)
        peer.close()
        closed.release()

    go, closed = threading.Semaphore(0), threading.Semaphore(0)
    server = serve(script)
    async with HTTPTransport() as transport:
        await given_up(transport, server)
        go.release()
        assert closed.acquire(timeout=10)  # blocks the event loop, so that both arrive in one turn of it
        await given_up(transport, server)
        statistics = transport.statistics()
        assert (statistics.connects, statistics.reuses, statistics.resent) == (2, 0, 0)
        go.release()


@pytest.mark.usefixtures("patient")
async def test_a_cancelled_wait_for_an_end_closes_the_connection(serve: Serve) -> None:
    server = serve(Answering())
    async with HTTPTransport() as transport:
        await given_up(transport, server)
        async with anyio.create_task_group() as group:
            group.start_soon(given_up, transport, server)
            await taken(transport)
            group.cancel_scope.cancel()
        await anyio.to_thread.run_sync(server.wait_closed)
        assert transport.statistics().open == 0


async def test_a_server_that_goes_on_and_on_keeps_nobody(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "END_GRACE", 0.05)

    def script(peer: Peer) -> None:
        number = peer.server.accepted
        peer.request()
        peer.send(DONE)
        try:
            while number == 1:
                peer.send(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        except OSError:
            return
        peer.wait_closed()

    server = serve(script)
    async with HTTPTransport() as transport:
        await given_up(transport, server)
        await given_up(transport, server)
        await anyio.to_thread.run_sync(server.wait_closed)
        assert transport.statistics().connects == 2


async def test_what_was_given_up_is_nobodys_any_more(serve: Serve) -> None:
    server = serve(Answering())
    async with HTTPTransport() as transport:
        first = await given_up(transport, server)
        with pytest.raises(httpx.StreamClosed):
            await anext(first)
        await first.aclose()
        await first.aclose(complete=True)
        first.abort()
        statistics = transport.statistics()
        assert (statistics.idle, statistics.closed) == (1, 0)


async def test_a_connection_that_may_not_be_reused_is_closed_at_once(serve: Serve) -> None:
    server = serve(Answering())
    async with HTTPTransport() as transport:
        request = PostTemplate(httpx.URL(server.url), httpx.Headers({"connection": "close"}))
        exchange = await transport.post(request, b"", TIMEOUTS)
        assert isinstance(exchange, ResponseStream)
        await anext(exchange)
        await exchange.aclose(complete=True)
        assert transport.statistics().open == 0
        await anyio.to_thread.run_sync(server.wait_closed)


@pytest.mark.parametrize("head", [b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n", b"\r\n"])
async def test_a_connection_that_the_server_will_close_is_closed_at_once(serve: Serve, head: bytes) -> None:
    """There is no use in waiting for an end after which nothing can follow."""
    server = serve.responses(b"HTTP/1.1 200 OK\r\n" + head + b"done\r\n")
    async with HTTPTransport() as transport:
        await given_up(transport, server)
        assert transport.statistics().open == 0
        await anyio.to_thread.run_sync(server.wait_closed)
