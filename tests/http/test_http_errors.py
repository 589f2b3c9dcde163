"""Which failures of a connection are tried again, and what they are called, through each way to a wire."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from tests.support.certificates import Certificates
from tests.support.socket_server import Peer, Serve

from chatscope import APIConnectionError, ChatClient, ChatError, InvalidResponseError, RetryPolicy
from chatscope.testing.loops import Backend

ASK: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
TRUSTED = ssl.create_default_context()
THRICE = RetryPolicy(attempts=3, initial=0, max=0, jitter=0)


@pytest.fixture(params=["own", "transport", "client"])
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the user hands in: nothing, httpx's transport or httpx's client."""
    if request.param == "transport":
        return {"transport": httpx.AsyncHTTPTransport(verify=TRUSTED)}
    return {"http_client": httpx.AsyncClient(verify=TRUSTED)} if request.param == "client" else {}


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:
        yield Serve(stack)


async def failure(base_url: str, way: dict[str, Any]) -> tuple[ChatError, int]:
    """Return the error that a request ends with, and how many requests were made for it."""
    async with ChatClient("key", base_url=base_url, retry=THRICE, **way) as client:
        with pytest.raises(ChatError) as caught:
            await client.complete(**ASK)
    return caught.value, caught.value.attempts


@pytest.mark.one_loop
@pytest.mark.parametrize("then", ["<html>\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n\r\n"])
async def test_a_server_that_does_not_speak_http_is_asked_once(serve: Serve, way: dict[str, Any], then: str) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(then.encode())
        peer.wait_closed()

    server = serve(script)
    error, attempts = await failure(server.url, way)
    assert isinstance(error, InvalidResponseError)
    assert str(error).startswith("the response is not valid HTTP: ")
    assert attempts == len(server.requests) == 1


@pytest.mark.one_loop
async def test_a_server_that_closes_is_asked_again(serve: Serve, way: dict[str, Any]) -> None:
    def script(peer: Peer) -> None:
        peer.request()

    server = serve(script)
    error, attempts = await failure(server.url, way)
    assert isinstance(error, APIConnectionError)
    assert attempts == len(server.requests) == 3


@pytest.mark.one_loop
async def test_a_refused_connection_is_tried_again(way: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    error, attempts = await failure(f"http://127.0.0.1:{port}/", way)
    assert isinstance(error, APIConnectionError)
    assert f"no connection to 127.0.0.1:{port}" in str(error)
    assert attempts == 3


@pytest.mark.one_loop
async def test_tls_spoken_to_a_plain_port_is_tried_once(serve: Serve, way: dict[str, Any]) -> None:
    def script(peer: Peer) -> None:
        peer._more()
        peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    server = serve(script)
    error, attempts = await failure(server.url.replace("http", "https"), way)
    assert isinstance(error, APIConnectionError)
    assert attempts == server.accepted == 1


@pytest.mark.parametrize(("code", "attempts"), [(socket.EAI_NONAME, 1), (socket.EAI_AGAIN, 3)])
async def test_a_host_that_does_not_exist_is_tried_once(
    way: dict[str, Any], anyio_backend: Backend, monkeypatch: pytest.MonkeyPatch, code: int, attempts: int
) -> None:
    if way and anyio_backend[1].get("use_uvloop"):
        pytest.skip("uvloop's own resolver cannot be replaced")

    def getaddrinfo(*args: object, **kwargs: object) -> list[Any]:
        raise socket.gaierror(code, "no such host")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    error, made = await failure("http://chat.example/v1", way)
    assert isinstance(error, APIConnectionError)
    assert made == attempts


@pytest.mark.one_loop
async def test_a_certificate_that_is_not_trusted_is_tried_once(serve: Serve, way: dict[str, Any]) -> None:
    server = serve(lambda peer: peer.wait_closed(), context=Certificates().right)
    error, attempts = await failure(server.url, way)
    assert isinstance(error, APIConnectionError)
    assert "certificate" in str(error)
    assert attempts == server.accepted == 1
