"""The environment's proxies: whose origins go through them, and that nobody learns their credentials."""

from __future__ import annotations

import gzip
import logging
import threading
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import httpx
import pytest
from tests.support.responses import OK

from chatscope.transport import HTTPTransport, proxies
from chatscope.transport.base import TimedStream

if TYPE_CHECKING:
    from tests.support.responses import Build
    from tests.support.socket_server import Peer, Serve, Server


def with_credentials(server: Server) -> str:
    return f"http://user:hunter2@127.0.0.1:{server.port}"


@pytest.mark.one_loop
@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
async def test_an_origin_with_a_proxy(
    serve: Serve, request_to: Build, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    proxy = serve.responses(OK, OK, OK)
    monkeypatch.setenv(name, with_credentials(proxy))
    with caplog.at_level(logging.DEBUG, "chatscope"):
        async with HTTPTransport() as transport:
            for host in ("chat.example", "chat.example", "other.example"):
                response = await transport.handle_async_request(request_to(f"http://{host}/v1"))
                assert await response.aread() == b"ok"
                assert response.stream.read_ns > 0  # type: ignore[union-attr]  # what this transport's streams have
                await response.aclose()
            assert await transport.open_connections("http://chat.example/", 2) == 0
            assert (transport.statistics().proxied, transport.statistics().connects) == (3, 0)
    assert proxy.requests[0].startswith(b"POST http://chat.example/v1 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic dXNlcjpodW50ZXIy" in proxy.requests[0]
    own = [record for record in caplog.records if record.name == "chatscope.transport"]
    through = f"goes through the proxy 127.0.0.1:{proxy.port} of the environment, by httpx's own transport"
    assert [record.getMessage() for record in own] == [
        f"http://chat.example:80 {through}",
        f"http://other.example:80 {through}",
    ]
    await anyio.to_thread.run_sync(proxy.wait_closed)


async def test_https_goes_through_a_tunnel(serve: Serve, request_to: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    proxy = serve(refuse)
    monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{proxy.port}")
    request = request_to("https://chat.example/v1")
    async with HTTPTransport() as transport:
        with pytest.raises(httpx.ProxyError, match="403") as caught:
            await transport.handle_async_request(request)
        assert caught.value.request is request
    assert proxy.requests[0].startswith(b"CONNECT chat.example:443 HTTP/1.1\r\n")


@pytest.mark.one_loop
@pytest.mark.parametrize(
    "environment",
    [{"NO_PROXY": "localhost,127.0.0.1"}, {"NO_PROXY": "*"}, {"HTTP_PROXY": "", "HTTPS_PROXY": "http://127.0.0.1:1"}],
)
async def test_an_origin_without_one(
    serve: Serve, request_to: Build, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in ({"HTTP_PROXY": "http://127.0.0.1:1"} | environment).items():
        monkeypatch.setenv(name, value)
    async with HTTPTransport() as transport:
        response = await transport.handle_async_request(request_to(serve.responses(OK)))
        assert await response.aread() == b"ok"
        assert (transport.statistics().proxied, transport.statistics().connects) == (0, 1)


async def test_proxies_are_ignored_if_asked(serve: Serve, request_to: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with HTTPTransport(trust_env=False) as transport:
        response = await transport.handle_async_request(request_to(serve.responses(OK)))
        assert await response.aread() == b"ok"


@pytest.mark.one_loop
@pytest.mark.parametrize(
    "url",
    ["gopher://user:hunter2@127.0.0.1:1", "socks5://user:hunter2@127.0.0.1:1", "http://user:hunter2@127.0.0.1:port"],
)
async def test_a_proxy_that_cannot_be_used(request_to: Build, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("ALL_PROXY", url)
    async with HTTPTransport() as transport:
        with pytest.raises(httpx.ProxyError, match="cannot be used") as caught:
            await transport.handle_async_request(request_to("http://chat.example/"))
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in str(caught.value.__cause__)


async def test_a_body_that_breaks_off(serve: Serve, request_to: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")

    monkeypatch.setenv("HTTP_PROXY", with_credentials(serve(script)))
    request = request_to("http://chat.example/")
    async with HTTPTransport() as transport:
        response = await transport.handle_async_request(request)
        with pytest.raises(httpx.RemoteProtocolError) as caught:
            await response.aread()
        assert caught.value.request is request
        await response.aclose()


async def test_its_responses_are_decoded_too(serve: Serve, request_to: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    body = gzip.compress(b"hello")
    proxy = serve.responses(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: " + b"gzip," * 6 + b"\r\nContent-Length: 2\r\n\r\nok",
    )
    monkeypatch.setenv("HTTP_PROXY", with_credentials(proxy))
    async with HTTPTransport() as transport:
        response = await transport.handle_async_request(request_to("http://chat.example/"))
        assert await response.aread() == b"hello"
        await response.aclose()
        with pytest.raises(httpx.DecodingError):
            await transport.handle_async_request(request_to("http://chat.example/"))


async def test_an_end_that_follows_what_is_of_use_is_read(
    serve: Serve, request_to: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tunnel costs more to build than the wait for it."""

    def script(peer: Peer) -> None:
        while peer.request():
            peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndone\r\n")
            assert go.acquire(timeout=10)
            peer.send(b"0\r\n\r\n")

    go = threading.Semaphore(0)
    proxy = serve(script)
    monkeypatch.setattr(proxies, "END_GRACE", 10.0)
    monkeypatch.setenv("HTTP_PROXY", with_credentials(proxy))
    async with HTTPTransport() as transport:
        for _ in range(2):
            response = await transport.handle_async_request(request_to("http://chat.example/"))
            assert isinstance(response.stream, TimedStream)
            assert await anext(response.stream) == b"done"
            go.release()
            await response.stream.aclose(complete=True)
    assert proxy.accepted == 1


async def test_cancelled_while_it_waits_for_an_end_it_leaves_no_connection(
    serve: Serve, request_to: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serve.responses(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndone\r\n")
    monkeypatch.setattr(proxies, "END_GRACE", 10.0)
    monkeypatch.setenv("HTTP_PROXY", with_credentials(proxy))
    async with HTTPTransport() as transport:
        response = await transport.handle_async_request(request_to("http://chat.example/"))
        assert isinstance(response.stream, TimedStream)
        assert await anext(response.stream) == b"done"
        async with anyio.create_task_group() as group:

            async def close(stream: TimedStream) -> None:
                await stream.aclose(complete=True)

            group.start_soon(close, response.stream)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        await anyio.to_thread.run_sync(proxy.wait_closed)


async def test_an_end_that_does_not_follow_is_not_waited_for(
    serve: Serve, request_to: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serve.responses(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndone\r\n")
    monkeypatch.setattr(proxies, "END_GRACE", 0.01)
    monkeypatch.setenv("HTTP_PROXY", with_credentials(proxy))
    async with HTTPTransport() as transport:
        response = await transport.handle_async_request(request_to("http://chat.example/"))
        assert isinstance(response.stream, TimedStream)
        assert await anext(response.stream) == b"done"
        await response.stream.aclose(complete=True)
        await anyio.to_thread.run_sync(proxy.wait_closed)
