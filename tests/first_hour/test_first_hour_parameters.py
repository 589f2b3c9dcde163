"""Parameters with a typing error or another library's name: one check for client and task, with the nearest name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from chatscope import AsyncChatGPTAdapter, ChatClient, Task

if TYPE_CHECKING:
    from tests.support.memory_server import Serve

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}

BOTH = {
    "temprature": "unknown parameter 'temprature': did you mean 'temperature'?",
    "max_completion_token": "unknown parameter 'max_completion_token': did you mean 'max_completion_tokens'?",
    "top_k": "unknown parameter 'top_k': .*pass parameters that the endpoint does not list in extra_body",
    "max_retries": "unknown parameter 'max_retries': use retry=, the number of attempts",
}


@pytest.mark.one_loop
@pytest.mark.parametrize("name", BOTH)
async def test_a_name_that_nobody_knows(serve: Serve, name: str) -> None:
    server = serve()
    client: Any  # the mistakes are type errors, too
    async with ChatClient("k", transport=server) as client:
        with pytest.raises(TypeError, match=BOTH[name]):
            await client.complete(**ASK, **{name: 1})
        with pytest.raises(TypeError, match=BOTH[name]):
            client.stream(**ASK, **{name: 1})
    async with AsyncChatGPTAdapter("k", transport=server) as adapter:
        with pytest.raises(ValueError, match=BOTH[name]):
            await adapter.submit_task(Task("hi", parameters={name: 1}))
    assert not server.requests


async def test_what_the_endpoint_does_not_list_goes_through_extra_body(serve: Serve) -> None:
    server = serve()
    async with AsyncChatGPTAdapter("k", transport=server) as adapter:
        assert (await adapter.execute(Task("hi", parameters={"extra_body": {"top_k": 1}}))).success
    assert server.requests[0].json["top_k"] == 1


async def test_a_completion_that_is_asked_to_stream(serve: Serve) -> None:
    async with ChatClient("k", transport=serve()) as client:
        with pytest.raises(TypeError, match=r"'stream': use client\.stream\(\.\.\.\) for a streamed response"):
            await client.complete(**ASK, stream=True)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
