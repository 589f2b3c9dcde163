"""Replies with chosen text parts and a chosen usage."""

from __future__ import annotations

from typing import Any

import pytest

from chatscope import AsyncChatGPTAdapter, ChatClient, StreamTruncatedError, Task
from chatscope.simulator import Reply, UsageIn, faults, simulator
from chatscope.testing import ChatEndpoint

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


async def texts(client: ChatClient, **parameters: Any) -> list[str]:
    """Return the texts of a stream's chunks."""
    async with client.stream(**ASK, **parameters) as stream:
        return [chunk.text async for chunk in stream if chunk.text]


async def test_text_parts_are_tokens(chat_endpoint: ChatEndpoint) -> None:
    parts = ("Hel", "lo, wor", "ld", ".")
    chat_endpoint.add(*[Reply(parts)] * 4, Reply(parts, faults=(faults.end(1),)))
    async with ChatClient() as client:
        assert await texts(client) == [*parts]
        assert (await client.complete(**ASK)).text == "Hello, world."
        assert await texts(client, max_completion_tokens=2) == ["Hel", "lo, wor"]
        assert "".join(await texts(client, stop="o, w")) == "Hell"
        with pytest.raises(StreamTruncatedError) as caught:
            await texts(client)
    assert caught.value.partial_text == "Hel"


async def test_the_simulator_sends_the_same_text_parts() -> None:
    async with simulator(Reply(("Hel", "lo."))) as base_url, ChatClient("k", base_url=base_url) as client:
        assert await texts(client) == ["Hel", "lo."]


async def test_a_scripted_usage_is_reported(chat_endpoint: ChatEndpoint) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 500}
    for where in (UsageIn.ASKED, UsageIn.FINISH, UsageIn.X_GROQ, UsageIn.EVERY):
        chat_endpoint.add(Reply("Hello.", usage=usage, usage_in=where))
    chat_endpoint.add(Reply("Hello.", usage=usage))
    async with AsyncChatGPTAdapter(model="gpt-4o-mini") as adapter:
        for stream in (True, True, True, True, False):
            result = await adapter.execute(Task("hi", parameters={"stream": stream}))
            assert result.usage is not None
            assert (result.usage.prompt_tokens, result.usage.completion_tokens) == (1000, 500)
            assert result.tokens_used == 1500
            assert result.cost == pytest.approx(1000 * 0.15e-6 + 500 * 0.6e-6)
