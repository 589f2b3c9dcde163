"""Bodies of requests: large ones, streamed ones, and those that the server answers before it has them."""

from __future__ import annotations

import threading
from contextlib import aclosing
from typing import TYPE_CHECKING

import httpx
import pytest
from tests.support.responses import OK, answered, counted

from chatscope.transport import HTTPTransport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from tests.support.responses import Build
    from tests.support.socket_server import Peer, Serve


@pytest.mark.parametrize("size", [10, 8_000_000], ids=["small", "large"])
async def test_a_response_before_the_body_is_sent(serve: Serve, request_to: Build, size: int) -> None:
    """As large uploads are refused: answered on the strength of the headers, then closed without reading further."""

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")

    async with HTTPTransport() as transport:
        response = await answered(transport, request_to(serve(script), content=b"x" * size))
        assert (response.status_code, response.content) == (413, b"no")


@pytest.mark.parametrize("framing", [{}, {"Content-Length": "100000000"}], ids=["chunked", "length"])
async def test_a_response_before_a_streamed_body_is_sent(
    serve: Serve, request_to: Build, framing: dict[str, str]
) -> None:
    """The server neither reads on nor closes: the rest of the body must not be waited for."""
    sent = 0

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
        peer.wait(done)

    async def body() -> AsyncGenerator[bytes, None]:
        nonlocal sent
        while sent < 100_000_000:
            sent += 1_000_000
            yield b"x" * 1_000_000

    done = threading.Event()
    async with HTTPTransport() as transport:
        try:
            async with aclosing(body()) as content:
                response = await answered(transport, request_to(serve(script), content=content, headers=framing))
        finally:
            done.set()
        assert (response.status_code, response.content) == (413, b"no")
        assert counted(transport) == (0, 0, 1, 0, 0)
    assert sent < 100_000_000


@pytest.mark.slow
async def test_a_large_body(serve: Serve, request_to: Build) -> None:
    body = b"x" * 20_000_000
    server = serve.responses(OK, OK)
    async with HTTPTransport() as transport:
        for _ in range(2):
            assert (await answered(transport, request_to(server, content=body))).content == b"ok"
        assert counted(transport) == (1, 1, 1, 1, 0)
    assert [request.partition(b"\r\n\r\n")[2] == body for request in server.requests] == [True, True]


async def test_the_server_goes_while_the_body_is_being_sent(serve: Serve, request_to: Build) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.reset()

    async with HTTPTransport() as transport:
        request = request_to(serve(script), content=b"x" * 8_000_000)
        with pytest.raises((httpx.WriteError, httpx.ReadError)) as caught:
            await answered(transport, request)
        assert caught.value.request is request
        assert isinstance(caught.value.__cause__, OSError)
        assert counted(transport) == (0, 0, 1, 0, 0)


async def test_streamed_bodies(serve: Serve, request_to: Build) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"hel"
        yield b""
        yield b"lo"

    server = serve.responses(OK, OK, OK)
    async with HTTPTransport() as transport:
        await answered(transport, request_to(server, content=body()))
        await answered(transport, request_to(server, content=body(), headers={"Content-Length": "5"}))
        chunked = {"content": None, "stream": httpx.ByteStream(b"hello"), "headers": {"Transfer-Encoding": "chunked"}}
        await answered(transport, request_to(server, **chunked))
        assert counted(transport) == (1, 1, 1, 2, 0)
    bodies = [request.partition(b"\r\n\r\n")[2] for request in server.requests]
    assert bodies == [b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", b"hello", b"5\r\nhello\r\n0\r\n\r\n"]


class Parts(httpx.AsyncByteStream):
    """A body that is an iterator, and no generator."""

    def __init__(self) -> None:
        self._parts = iter([b"hel", b"lo"])

    def __aiter__(self) -> Parts:
        return self

    async def __anext__(self) -> bytes:
        for part in self._parts:
            return part
        raise StopAsyncIteration


async def test_a_streamed_body_that_is_no_generator(serve: Serve, request_to: Build) -> None:
    server = serve.responses(OK)
    async with HTTPTransport() as transport:
        await answered(transport, request_to(server, content=None, stream=Parts()))
        assert counted(transport) == (1, 1, 1, 0, 0)
    assert server.requests[0].endswith(b"\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n")


@pytest.mark.one_loop
@pytest.mark.parametrize(("length", "message"), [("4", "longer than"), ("6", "has 5 bytes")])
async def test_a_streamed_body_of_another_length(serve: Serve, request_to: Build, length: str, message: str) -> None:
    async def body() -> AsyncGenerator[bytes, None]:
        yield b"hello"

    async with HTTPTransport() as transport:
        async with aclosing(body()) as content:
            request = request_to(serve.responses(), content=content, headers={"Content-Length": length})
            with pytest.raises(httpx.LocalProtocolError, match=message):
                await answered(transport, request)
        assert counted(transport) == (0, 0, 1, 0, 0)


async def test_a_body_that_raises(serve: Serve, request_to: Build) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"hello"
        raise FileNotFoundError("the caller's own affair")

    async with HTTPTransport() as transport:
        with pytest.raises(FileNotFoundError):
            await answered(transport, request_to(serve.responses(), content=body()))
        assert counted(transport) == (0, 0, 1, 0, 0)


async def test_a_synchronous_stream_is_refused(serve: Serve, request_to: Build) -> None:
    async with HTTPTransport() as transport:
        with pytest.raises(TypeError, match="synchronous stream"):
            await answered(transport, request_to(serve.responses(), content=iter([b"hello"])))
        assert counted(transport) == (0, 0, 1, 0, 0)
