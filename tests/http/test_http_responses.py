"""Each way to a wire: which one is taken; refused responses are closed; a request that is sent again is counted."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import anyio
import httpx
import httpx2
import pytest
from tests.support.socket_server import Peer, Serve

from chatscope import AsyncChatGPTAdapter, ChatClient, InvalidResponseError, RetryPolicy, Task
from chatscope._http.builtin import BuiltinSender, TransportSender
from chatscope.transport import HTTPTransport

ASK: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
ONCE = RetryPolicy(attempts=1)
BODY = b'{"choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}]}'
RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:
        yield Serve(stack)


class Wrapping(HTTPTransport):
    """A transport of a user's that is built on the package's own."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await super().handle_async_request(request)


WAYS: dict[str, Callable[[], dict[str, Any]]] = {
    "nothing": dict,
    "transport": lambda: {"transport": HTTPTransport()},
    "subclass": lambda: {"transport": Wrapping()},
    "httpx's transport": lambda: {"transport": httpx.AsyncHTTPTransport()},
    "httpx": lambda: {"http_client": httpx.AsyncClient(limits=httpx.Limits(max_connections=1))},
    "httpx2": lambda: {"http_client": httpx2.AsyncClient(limits=httpx2.Limits(max_connections=1))},
    "httpx over the transport": lambda: {"http_client": httpx.AsyncClient(transport=HTTPTransport())},
}


@asynccontextmanager
async def handed_in(way: str) -> AsyncIterator[dict[str, Any]]:
    """Make what a user hands in, and close what is the user's to close."""
    options = WAYS[way]()
    try:
        yield options
    finally:
        if "http_client" in options:
            await options["http_client"].aclose()


async def test_only_the_packages_own_transport_is_called_directly() -> None:
    senders: dict[str, type] = {"nothing": BuiltinSender, "transport": BuiltinSender, "subclass": TransportSender}
    for name, kind in senders.items():
        async with ChatClient("k", base_url="http://x/v1", **WAYS[name]()) as client:
            assert type(client._core.sender) is kind, name


@pytest.mark.one_loop
@pytest.mark.parametrize("streams", [True, False], ids=["stream", "plain"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_response_with_too_many_codings_is_closed(serve: Serve, way: str, streams: bool) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-encoding: %b\r\n\r\nx" % b",".join([b"gzip"] * 6))
        peer.wait_closed()

    server = serve(script)
    async with (
        handed_in(way) as options,
        ChatClient("k", base_url=f"{server.url}v1", retry=ONCE, timeout=3, **options) as client,
    ):
        for _ in range(2):  # through a client of one connection, too
            with pytest.raises(InvalidResponseError, match="6 content-encodings"):
                await (client.stream(**ASK).__aenter__() if streams else client.complete(**ASK))
        await anyio.to_thread.run_sync(server.wait_closed, 2)


@pytest.mark.one_loop
@pytest.mark.parametrize("way", ["nothing", "httpx over the transport"])
@pytest.mark.parametrize("attempts", [1, 2])
async def test_a_request_that_a_kept_connection_lost_is_an_attempt(
    serve: Serve, attempts: int, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(RESPONSE)
        peer.request()  # the second one is read, and lost

    caplog.set_level(logging.INFO, "chatscope.retry")
    server = serve(script)
    task = Task("hi", parameters={"stream": False})
    policy = RetryPolicy(attempts=attempts, initial=30)
    async with (
        handed_in(way) as options,
        AsyncChatGPTAdapter("k", base_url=f"{server.url}v1", retry=policy, **options) as adapter,
    ):
        assert (await adapter.execute(task)).attempts == 1
        result = await adapter.execute(task)
    assert (result.success, result.attempts, len(result.attempts_log)) == (attempts == 2, attempts, attempts)
    assert len(server.requests) == 1 + attempts
    assert [attempt.error for attempt in result.attempts_log] == ["APIConnectionError", None][:attempts]
    assert ("sent again at once" in caplog.text) is (attempts == 2)
