"""The transport below `httpx2.AsyncClient`: its requests go out the same, and its exceptions are httpx2's."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from tests.support.responses import OK, counted
from tests.support.socket_server import PATIENCE, Peer

from chatscope import APIConnectionError, ChatClient, InvalidResponseError, RetryPolicy
from chatscope.simulator import Outcome, Reply, faults, simulator
from chatscope.transport import RESEND_EXTENSION, HTTPTransport

httpx2 = pytest.importorskip("httpx2")

from chatscope.transport.httpx2 import HTTPX2Transport  # noqa: E402 - it needs httpx2

if TYPE_CHECKING:
    from tests.support.socket_server import Serve

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def sends(wire: bytes) -> Callable[[Peer], None]:
    """Receive a request, send this, and close."""

    def script(peer: Peer) -> None:
        if peer.request():
            peer.send(wire)

    return script


@pytest.fixture(params=[HTTPX2Transport, lambda transport: transport], ids=["wrapped", "as-it-is"])
def client_over(request: pytest.FixtureRequest) -> Callable[[HTTPTransport], Any]:
    """Make an httpx2 client over a transport, by either way to pass one."""
    return lambda transport: httpx2.AsyncClient(transport=request.param(transport), timeout=PATIENCE)


async def test_a_request_and_its_response(serve: Serve, client_over: Callable[[HTTPTransport], Any]) -> None:
    body = gzip.compress(b"hello " * 100)
    server = serve.responses(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nX-A: b\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body), OK
    )
    transport = HTTPTransport()
    async with client_over(transport) as client:
        response = await client.post(f"{server.url}?q=1", content=b"abc", headers={"x-key": "v"})
        assert (response.text, response.headers["x-a"], response.http_version) == ("hello " * 100, "b", "HTTP/1.1")
        assert (await client.get(server.url)).content == b"ok"
        assert counted(transport)[2:4] == (1, 1)
    assert counted(transport)[:2] == (0, 0)
    with pytest.raises(RuntimeError, match="closed"):
        await transport.handle_async_request(httpx.Request("GET", server.url))
    first, second = server.requests
    assert first.startswith(b"POST ")
    assert b"?q=1 HTTP/1.1\r\n" in first
    assert b"x-key: v\r\n" in first
    assert first.endswith(b"\r\n\r\nabc")
    assert second.startswith(b"GET ")


@pytest.mark.one_loop
async def test_a_body_that_can_be_read_once(serve: Serve) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    server = serve.responses(OK)
    async with httpx2.AsyncClient(transport=HTTPX2Transport(), timeout=PATIENCE) as client:
        assert (await client.post(server.url, content=parts())).content == b"ok"
        with pytest.raises(TypeError, match="synchronous stream"):
            await HTTPX2Transport().handle_async_request(httpx2.Request("POST", server.url, content=iter([b"x"])))
    assert server.requests[0].endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")


@pytest.mark.one_loop
@pytest.mark.parametrize(
    ("wire", "kind"),
    [
        (b"", "RemoteProtocolError"),
        (b"SSH-2.0\r\n\r\n", "RemoteProtocolError"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhel", "RemoteProtocolError"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nhel", "DecodingError"),
    ],
)
async def test_failures_have_httpx2s_class_and_request(serve: Serve, wire: bytes, kind: str) -> None:
    server = serve(sends(wire))
    async with httpx2.AsyncClient(transport=HTTPX2Transport(), timeout=PATIENCE) as client:
        with pytest.raises(getattr(httpx2, kind)) as caught:
            await client.post(server.url)
    assert type(caught.value) is getattr(httpx2, kind)
    assert str(caught.value.request.url) == server.url
    assert isinstance(caught.value.__cause__, getattr(httpx, kind))
    assert str(caught.value) == str(caught.value.__cause__)


async def test_deadlines_and_connections_that_fail(serve: Serve) -> None:
    silent = serve(Peer.wait_closed)
    async with httpx2.AsyncClient(transport=HTTPX2Transport(), timeout=0.05) as client:
        with pytest.raises(httpx2.ReadTimeout):
            await client.post(silent.url)
    async with httpx2.AsyncClient(transport=HTTPX2Transport()) as client:
        with pytest.raises(httpx2.ConnectError, match=r"127\.0\.0\.1 port 1:"):
            await client.get("http://127.0.0.1:1")
        with pytest.raises(httpx2.UnsupportedProtocol):
            await client.get("ftp://127.0.0.1")


@pytest.mark.one_loop
async def test_an_error_keeps_the_note_of_its_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://user:hunter2@127.0.0.1:1")
    async with httpx2.AsyncClient(transport=HTTPX2Transport()) as client:
        with pytest.raises(httpx2.ConnectError) as caught:
            await client.get("http://chat.example")
    assert caught.value.__notes__ == ["through the environment's proxy 127.0.0.1:1"]


async def test_leaving_a_response_closes_its_connection() -> None:
    server = simulator(Reply("one two three", faults=(faults.stall(2),)))
    transport = HTTPTransport()
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    async with server as base_url, httpx2.AsyncClient(transport=HTTPX2Transport(transport)) as client:
        for leaves in ("by break", "cancelled"):
            with anyio.CancelScope() as scope:
                async with client.stream("POST", f"{base_url}/chat/completions", json=body) as response:
                    read = b""
                    async with aclosing(response.aiter_raw()) as parts:
                        async for part in parts:
                            read += part
                            if b"one" in read and leaves == "by break":
                                break
                            if b"two" in read:
                                scope.cancel()
            await server.wait_until(lambda s: s.connections_open == 0)
            assert transport.statistics().open == 0
    assert [request.outcome for request in server.requests] == [Outcome.DISCONNECTED] * 2


@pytest.mark.one_loop
@pytest.mark.parametrize(
    ("wire", "kind", "attempts"),
    [
        (b"", APIConnectionError, 2),
        (b"SSH-2.0\r\n\r\n", InvalidResponseError, 1),
    ],
)
async def test_a_chat_client_over_an_httpx2_client_over_it_judges_the_same(
    serve: Serve, wire: bytes, kind: type[Exception], attempts: int
) -> None:
    server = serve(sends(wire))
    retry = RetryPolicy(attempts=2, initial=0, jitter=0)
    async with (
        httpx2.AsyncClient(transport=HTTPTransport()) as http_client,
        ChatClient("k", base_url=server.url, http_client=http_client, retry=retry) as client,
    ):
        with pytest.raises(kind):
            await client.complete(**ASK)
    assert len(server.requests) == attempts


@pytest.mark.one_loop
async def test_the_resend_hook_is_asked(serve: Serve) -> None:

    def one_response(peer: Peer) -> None:
        peer.request()
        peer.send(OK)
        peer.request()

    server = serve(one_response)
    asked: list[Exception] = []

    def refuse(error: httpx.TransportError) -> bool:
        asked.append(error)
        return False

    async with httpx2.AsyncClient(transport=HTTPX2Transport(), timeout=PATIENCE) as client:
        await client.post(server.url)
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.post(server.url, extensions={RESEND_EXTENSION: refuse})
    assert len(asked) == 1
