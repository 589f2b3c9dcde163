"""`http_client=` as an `httpx2.AsyncClient`: all it has applies, and its exceptions become this package's."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from chatscope import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncChatGPTAdapter,
    ChatClient,
    ChatError,
    InvalidResponseError,
    RetryPolicy,
    StreamTruncatedError,
    Task,
    Timeouts,
)
from chatscope.simulator import Reply, faults, simulator

httpx2 = pytest.importorskip("httpx2")

ASK: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
ONCE = RetryPolicy(attempts=1)
DONE = b'{"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}'


class Parts(httpx2.AsyncByteStream):  # type: ignore[misc, name-defined]  # httpx2 is there, or this module is skipped
    """A body that comes in parts; an exception among them is raised."""

    def __init__(self, *parts: bytes | Exception) -> None:
        self.parts = parts
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            if isinstance(part, Exception):
                raise part
            yield part

    async def aclose(self) -> None:
        self.closed = True


def responding(respond: Any, **options: Any) -> Any:
    """Return a client whose requests are answered by a function, or fail with an exception."""

    def handle(request: Any) -> Any:
        if isinstance(respond, Exception):
            raise respond
        return respond(request)

    return httpx2.AsyncClient(transport=httpx2.MockTransport(handle), **options)


async def test_all_the_client_has_applies() -> None:
    requests = []

    def respond(request: Any) -> Any:
        requests.append(request)
        return httpx2.Response(200, headers={"x-request-id": "req_1"}, content=DONE)

    async def hook(request: Any) -> None:
        request.headers["x-hook"] = "ran"

    async with responding(respond, headers={"x-mine": "yes"}, event_hooks={"request": [hook]}) as http_client:
        timeout = Timeouts(connect=3, read=7)
        async with ChatClient(api_key="sk-1", http_client=http_client, timeout=timeout) as client:
            completion = await client.complete(**ASK, extra_query={"a": "b"})
        assert not http_client.is_closed
    assert (completion.text, completion.request_id) == ("Hello", "req_1")
    (request,) = requests
    assert str(request.url) == "https://api.openai.com/v1/chat/completions?a=b"
    assert request.headers["authorization"] == "Bearer sk-1"
    assert (request.headers["x-mine"], request.headers["x-hook"]) == ("yes", "ran")
    assert request.extensions["timeout"] == {"connect": 3, "read": 7, "write": 7, "pool": 7}


async def test_redirects_are_not_followed() -> None:
    def respond(_: Any) -> Any:
        return httpx2.Response(307, headers={"location": "https://elsewhere.example/"})

    async with (
        responding(respond, follow_redirects=True) as http_client,
        ChatClient(api_key="k", http_client=http_client) as client,
    ):
        with pytest.raises(APIStatusError) as caught:
            await client.complete(**ASK)
    assert caught.value.status == 307


async def test_a_compressed_response() -> None:
    def respond(_: Any) -> Any:
        body = gzip.compress(DONE)
        return httpx2.Response(200, headers={"content-encoding": "gzip"}, stream=Parts(body[:9], body[9:]))

    async with responding(respond) as http_client, ChatClient(api_key="k", http_client=http_client) as client:
        assert (await client.complete(**ASK)).text == "Hello"


@pytest.mark.one_loop
@pytest.mark.parametrize(
    ("failure", "kind", "phase"),
    [
        (httpx2.ConnectError("refused"), APIConnectionError, None),
        (httpx2.ReadError("reset"), APIConnectionError, None),
        (httpx2.RemoteProtocolError("closed"), APIConnectionError, None),
        (httpx2.ProxyError("407"), APIConnectionError, None),
        (httpx2.DecodingError("no gzip"), InvalidResponseError, None),
        (httpx2.ConnectTimeout("slow"), APITimeoutError, "connect"),
        (httpx2.PoolTimeout("full"), APITimeoutError, "connect"),
        (httpx2.ReadTimeout("slow"), APITimeoutError, "headers"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_its_errors_become_this_packages(failure: Exception, kind: type[ChatError], phase: str | None) -> None:
    async with (
        responding(failure) as http_client,
        ChatClient(api_key="k", http_client=http_client, retry=ONCE) as client,
    ):
        with pytest.raises(kind) as caught:
            await client.complete(**ASK)
    assert type(caught.value) is kind
    assert caught.value.phase == phase
    assert caught.value.__cause__ is failure


@pytest.mark.one_loop
@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (httpx2.ReadError("reset"), StreamTruncatedError),
        (httpx2.StreamClosed(), StreamTruncatedError),
        (httpx2.ReadTimeout("slow"), APITimeoutError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_errors_within_a_stream(failure: Exception, kind: type[ChatError]) -> None:
    stream = Parts(b'data: {"choices": [{"delta": {"content": "Hel"}}]}\n\n', failure)

    def respond(_: Any) -> Any:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=stream)

    async with (
        responding(respond) as http_client,
        ChatClient(api_key="k", http_client=http_client, retry=ONCE) as client,
    ):
        with pytest.raises(kind) as caught:
            async with client.stream(**ASK) as opened:
                [chunk async for chunk in opened]
    assert (type(caught.value), caught.value.partial_text) == (kind, "Hel")
    assert stream.closed


async def test_what_is_not_its_comes_out_as_it_is() -> None:
    class MineError(Exception):
        pass

    failure = MineError()
    async with responding(failure) as http_client, ChatClient(api_key="k", http_client=http_client) as client:
        with pytest.raises(MineError) as caught:
            await client.complete(**ASK)
    assert caught.value is failure


async def test_against_a_server() -> None:
    async with (
        simulator(Reply("Hello, world.")) as base_url,
        httpx2.AsyncClient() as http_client,
        AsyncChatGPTAdapter("sk-1", base_url=base_url, http_client=http_client) as adapter,
    ):
        result = await adapter.execute(Task("hi"))
        plain = await adapter.execute(Task("hi", parameters={"stream": False}))
    assert (result.output, plain.output) == ("Hello, world.", "Hello, world.")
    assert result.tokens_used == plain.tokens_used == 11


async def test_a_cancelled_stream_leaves_nothing_open() -> None:
    server = simulator(Reply("one two three", faults=(faults.stall(2),)))
    async with (
        server as base_url,
        httpx2.AsyncClient() as http_client,
        AsyncChatGPTAdapter("sk-1", base_url=base_url, http_client=http_client) as adapter,
    ):
        handle = adapter.start_task(Task("hi"))
        texts = handle.stream()
        assert await anext(texts) == "one"
        assert await handle.cancel()
        await server.wait_until(lambda s: s.connections_open == 0)
    assert (await handle.wait()).output.startswith("one")


@pytest.mark.parametrize("client", [object(), "https://proxy", httpx2])
def test_no_client(client: Any) -> None:
    with pytest.raises(ValueError, match=r"http_client must be an httpx\.AsyncClient or an httpx2\.AsyncClient, not "):
        ChatClient(api_key="k", http_client=client)


def test_httpx2_is_not_imported() -> None:
    code = "import sys, chatscope; chatscope.ChatClient(api_key='k'); sys.exit('httpx2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
