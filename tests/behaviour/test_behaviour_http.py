"""Whose HTTP it is: a transport, a client of the user's, respx's router, respx's own mock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest
import respx

import chatscope.testing.respx  # noqa: F401 - so that respx.mock covers the default transport
from chatscope import APIConnectionError, APIStatusError, AsyncChatGPTAdapter, RetryPolicy, Task, TaskStatus
from chatscope.simulator import Reply, error, faults, respond

if TYPE_CHECKING:
    from tests.support.memory_server import Serve

URL = "https://api.openai.com/v1/chat/completions"

COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-4o-mini",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}

STREAM = (
    b'data: {"choices": [{"index": 0, "delta": {"content": "Hel"}}]}\n\n'
    b'data: {"choices": [{"index": 0, "delta": {"content": "lo"}, "finish_reason": "stop"}]}\n\n'
    b"data: [DONE]\n\n"
)
EVENTS = {"content-type": "text/event-stream"}

ONCE = RetryPolicy(attempts=1)

# -- transport= --------------------------------------------------------------------------------------------------------


async def test_a_transport_is_closed_at_the_end_of_the_block(serve: Serve) -> None:
    server = serve()
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        await adapter.execute(Task("hi"))
        assert not server.closed
    assert server.closed


async def test_every_response_is_closed(serve: Serve) -> None:
    answers = [Reply("Hello"), error(400), faults.end(1), faults.stream_error(0), respond(200, b"<html>", "text/html")]
    server = serve([*answers, *answers])
    async with AsyncChatGPTAdapter("sk-1", transport=server, retry=ONCE) as adapter:
        for stream in (True, False):
            for _ in answers:
                await adapter.execute(Task("hi", parameters={"stream": stream}))
                assert server.open == 0


async def test_redirects_are_not_followed(serve: Serve) -> None:
    moved = respond(307, headers=(("location", "https://elsewhere.example/v1/chat/completions"),))
    server = serve(moved)
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        result = await adapter.execute(Task("hi"))
    assert isinstance(result.exception, APIStatusError)
    assert (result.exception.status, len(server.requests)) == (307, 1)


# -- http_client= ------------------------------------------------------------------------------------------------------


async def test_a_client_of_the_users_runs_with_all_it_has(serve: Serve) -> None:
    seen: list[str] = []

    async def on_request(request: httpx.Request) -> None:
        seen.append(f"request to {request.url.path}")
        request.headers["x-hook"] = "ran"

    async def on_response(response: httpx.Response) -> None:
        seen.append(f"response {response.status_code}")

    server = serve()
    async with httpx.AsyncClient(
        transport=server,
        headers={"x-mine": "yes", "user-agent": "mine/1"},
        event_hooks={"request": [on_request], "response": [on_response]},
        follow_redirects=True,
        timeout=3,
    ) as http_client:
        async with AsyncChatGPTAdapter("sk-1", http_client=http_client) as adapter:
            result = await adapter.execute(Task("hi"))
        assert not http_client.is_closed
        assert not server.closed
    assert (result.output, seen) == ("Hello, world.", ["request to /v1/chat/completions", "response 200"])
    (request,) = server.requests
    assert (request.headers["x-mine"], request.headers["x-hook"]) == ("yes", "ran")
    assert request.headers["authorization"] == "Bearer sk-1"
    assert request.request.extensions["timeout"] == {"connect": 60.0, "read": 60.0, "write": 60.0, "pool": 60.0}


async def test_the_users_own_auth_goes_before_the_key(serve: Serve) -> None:
    server = serve()
    async with (
        httpx.AsyncClient(transport=server, auth=("me", "pass")) as http_client,
        AsyncChatGPTAdapter("sk-1", http_client=http_client) as adapter,
    ):
        await adapter.execute(Task("hi"))
    assert server.requests[0].headers["authorization"].startswith("Basic ")


async def test_the_clients_redirects_are_off(serve: Serve) -> None:
    server = serve(respond(307, headers=(("location", "https://elsewhere.example/"),)))
    async with (
        httpx.AsyncClient(transport=server, follow_redirects=True) as http_client,
        AsyncChatGPTAdapter("sk-1", http_client=http_client) as adapter,
    ):
        result = await adapter.execute(Task("hi"))
    assert isinstance(result.exception, APIStatusError)
    assert len(server.requests) == 1


async def test_a_hook_that_raises_fails_its_task_alone(serve: Serve) -> None:
    async def refuse(response: httpx.Response) -> None:
        response.raise_for_status()

    server = serve([error(418), Reply("Hello, world.")])
    async with (
        httpx.AsyncClient(transport=server, event_hooks={"response": [refuse]}) as http_client,
        AsyncChatGPTAdapter("sk-1", http_client=http_client, retry=ONCE) as adapter,
    ):
        failed = await adapter.execute(Task("hi"))
        assert (failed.status, type(failed.exception)) == (TaskStatus.FAILED, httpx.HTTPStatusError)
        assert (await adapter.execute(Task("hi"))).success
    assert server.open == 0


async def test_a_client_that_is_closed_fails_the_task(serve: Serve) -> None:
    http_client = httpx.AsyncClient(transport=serve())
    async with AsyncChatGPTAdapter("sk-1", http_client=http_client, retry=ONCE) as adapter:
        await http_client.aclose()
        result = await adapter.execute(Task("hi"))
    assert result.status is TaskStatus.FAILED
    assert "closed" in str(result.error)


async def test_cancelling_closes_the_response_of_the_users_client(serve: Serve) -> None:
    server = serve(faults.stall(1))
    async with (
        httpx.AsyncClient(transport=server) as http_client,
        AsyncChatGPTAdapter("sk-1", http_client=http_client) as adapter,
    ):
        handle = adapter.start_task(Task("hi"))
        await anext(handle.stream())
        assert server.open == 1
        assert await handle.cancel() is True
        assert server.open == 0


async def test_transport_and_client_exclude_each_other(serve: Serve) -> None:
    server = serve()
    async with httpx.AsyncClient(transport=server) as http_client:
        with pytest.raises(ValueError, match="transport and http_client"):
            AsyncChatGPTAdapter("sk-1", transport=server, http_client=http_client)


# -- respx -------------------------------------------------------------------------------------------------------------


async def test_what_a_transport_of_ones_own_raises_comes_out_as_it_is() -> None:
    async def fails(_: httpx.Request) -> httpx.Response:
        raise LookupError("mine") from KeyError("its own cause")

    async with AsyncChatGPTAdapter("sk-1", transport=httpx.MockTransport(fails)) as adapter:
        failure = (await adapter.execute(Task("hi"))).exception
    assert isinstance(failure, LookupError)
    assert isinstance(failure.__cause__, KeyError), "not itself, which would be an endless chain"


async def test_respx_as_a_router_behind_a_transport() -> None:
    router = respx.MockRouter(assert_all_called=True)
    route = router.post(URL).mock(
        side_effect=[httpx.Response(503), httpx.Response(200, headers=EVENTS, content=STREAM)]
    )
    async with AsyncChatGPTAdapter(
        "sk-1", transport=httpx.MockTransport(router.async_handler), retry=RetryPolicy(initial=0, jitter=0)
    ) as adapter:
        handle = adapter.start_task(Task("hi"))
        assert [text async for text in handle.stream()] == ["Hel", "lo"]
        assert (await handle.wait()).attempts == 2
    assert route.call_count == 2


@respx.mock
async def test_respx_by_its_global_mock() -> None:
    route = respx.post(URL).respond(200, json=COMPLETION)
    async with AsyncChatGPTAdapter("sk-1") as adapter:
        result = await adapter.execute(Task("hi", parameters={"stream": False}))
    assert (result.output, result.tokens_used) == ("Hello", 2)
    assert route.calls.last.request.headers["authorization"] == "Bearer sk-1"


async def test_respx_streams_lazily(respx_mock: respx.MockRouter) -> None:
    release = anyio.Event()

    async def body() -> AsyncIterator[bytes]:
        at = STREAM.index(b"\n\n") + 2
        yield STREAM[:at]
        await release.wait()
        yield STREAM[at:]

    respx_mock.post(URL).mock(return_value=httpx.Response(200, headers=EVENTS, content=body()))
    async with AsyncChatGPTAdapter("sk-1") as adapter:
        stream = adapter.start_task(Task("hi")).stream()
        assert await anext(stream) == "Hel"
        release.set()
        assert [text async for text in stream] == ["lo"]


async def test_respx_errors(respx_mock: respx.MockRouter) -> None:
    respx_mock.post(URL).mock(side_effect=httpx.ConnectError("no route"))
    async with AsyncChatGPTAdapter("sk-1", retry=ONCE) as adapter:
        result = await adapter.execute(Task("hi"))
    assert isinstance(result.exception, APIConnectionError)
    assert "no route" in str(result.error)
