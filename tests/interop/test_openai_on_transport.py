"""The official `openai` package on this package's transport: same results, its own errors, connections kept and closed.

It works with versions of the package that use httpx and with those that use httpx2 (from 3 on).
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import openai
import pytest
from openai import AsyncOpenAI

from chatscope.simulator import Answer, Outcome, Reply, Simulator, error, faults, simulator
from chatscope.transport import HTTPTransport

# The package leaves its generators half read at `[DONE]`, which only trio complains about.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator '(openai|httpx2?)[.]:ResourceWarning")

ASK: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
# Before version 3 the package lets httpx's exceptions through once a stream has begun.
BROKEN_STREAM: dict[type[Exception], type[Exception]] = (
    {openai.APIConnectionError: httpx.ReadError, openai.APITimeoutError: httpx.ReadTimeout}
    if openai.__version__ < "3"
    else {kind: kind for kind in (openai.APIConnectionError, openai.APITimeoutError)}
)
Make = Callable[[HTTPTransport], Any]


def by_httpx(transport: HTTPTransport) -> Any:
    """Make an httpx client, which every version accepts."""
    return httpx.AsyncClient(transport=transport)


def by_the_package(transport: HTTPTransport) -> Any:
    """Make the client of the package, httpx's or httpx2's, with its own timeouts and limits."""
    given: Any = transport
    return openai.DefaultAsyncHttpxClient(transport=given)


def by_httpx2(transport: HTTPTransport) -> Any:
    """Make an httpx2 client with the class that has the right type."""
    if "httpx2" not in sys.modules:
        pytest.skip("this version of openai uses httpx")
    import httpx2

    from chatscope.transport.httpx2 import HTTPX2Transport

    return httpx2.AsyncClient(transport=HTTPX2Transport(transport))


@pytest.fixture(params=[by_httpx, by_the_package, by_httpx2], ids=lambda make: make.__name__)
def make(request: pytest.FixtureRequest) -> Make:
    """Make an HTTP client on a transport."""
    made: Make = request.param
    return made


@asynccontextmanager
async def connect(server: Simulator, http_client: Any, **options: Any) -> AsyncIterator[AsyncOpenAI]:
    """Run a simulator with a client of it."""
    async with (
        server as base_url,
        AsyncOpenAI(api_key="k", base_url=base_url, http_client=http_client, **{"max_retries": 0, **options}) as client,
    ):
        yield client


async def text_of(client: AsyncOpenAI) -> str:
    """Stream a response to its end."""
    stream = await client.chat.completions.create(**ASK, stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])


async def test_whole_and_streamed_responses_share_one_connection(make: Make) -> None:
    transport = HTTPTransport()
    async with connect(simulator(Reply("Hello, wörld.")), make(transport)) as client:
        for _ in range(3):
            completion = await client.chat.completions.create(**ASK)
            assert completion.choices[0].message.content == "Hello, wörld."
            assert await text_of(client) == "Hello, wörld."
        assert (transport.statistics().connects, transport.statistics().reuses) == (1, 5)
    assert transport.statistics().open == 0


async def test_its_errors_are_its_own(make: Make) -> None:
    server = simulator()
    async with connect(server, make(HTTPTransport())) as client:
        server.script = error(429, "Slow down.", code="rate_limit_exceeded")
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(**ASK)
        assert refused.value.code == "rate_limit_exceeded"
        server.script = faults.reset(1)
        with pytest.raises(BROKEN_STREAM[openai.APIConnectionError]):
            await text_of(client)
        server.script = faults.stall(0)
        with pytest.raises(BROKEN_STREAM[openai.APITimeoutError]):
            await text_of(client.with_options(timeout=0.1))
        server.script = Reply("Recovered.")
        assert await text_of(client) == "Recovered."


@pytest.mark.one_loop
async def test_its_own_retries(make: Make) -> None:
    script: list[Answer] = [error(503, retry_after=0.01), faults.reset(0), Reply("At last.")]
    async with connect(simulator(script), make(HTTPTransport()), max_retries=2) as client:
        assert (await client.chat.completions.create(**ASK)).choices[0].message.content == "At last."


async def test_leaving_and_cancelling_close_the_connection_at_once(make: Make) -> None:
    server = simulator(Reply("one two three", faults=(faults.stall(2),)))
    transport = HTTPTransport()
    async with connect(server, make(transport)) as client:
        async with await client.chat.completions.create(**ASK, stream=True) as stream:
            async for chunk in stream:
                if chunk.choices[0].delta.content == "one":
                    break
        await server.wait_until(lambda s: s.connections_open == 0)
        seen = anyio.Event()

        async def read() -> None:
            async for _ in await client.chat.completions.create(**ASK, stream=True):
                seen.set()

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await seen.wait()
            group.cancel_scope.cancel()
        await server.wait_until(lambda s: s.connections_open == 0)
        assert transport.statistics().open == 0
    assert [request.outcome for request in server.requests] == [Outcome.DISCONNECTED] * 2
