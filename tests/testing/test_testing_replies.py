"""Text in chosen pieces and usage of one's own, the same from the fake and from the simulator."""

from __future__ import annotations

from typing import Any

import pytest

from chatscope import AsyncChatGPTAdapter, ChatClient, StreamTruncatedError, Task
from chatscope.simulator import Reply, UsageIn, faults, simulator
from chatscope.testing import ChatEndpoint

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


async def pieces(client: ChatClient, **parameters: Any) -> list[str]:
    """Return the texts of a stream's chunks."""
    async with client.stream(**ASK, **parameters) as stream:
        return [chunk.text async for chunk in stream if chunk.text]


async def test_a_text_comes_in_the_pieces_that_are_named(chat_endpoint: ChatEndpoint) -> None:
    reply = Reply(("Hel", "lo, wor", "ld", "."))
    chat_endpoint.add(reply, reply)
    async with ChatClient() as client:
        assert await pieces(client) == ["Hel", "lo, wor", "ld", "."]
        assert (await client.complete(**ASK)).text == "Hello, world."


async def test_the_simulator_cuts_it_in_the_same_way() -> None:
    async with simulator(Reply(("Hel", "lo."))) as base_url, ChatClient(base_url, "k") as client:
        assert await pieces(client) == ["Hel", "lo."]


async def test_each_piece_is_a_token(chat_endpoint: ChatEndpoint) -> None:
    text = ("Hel", "lo, wor", "ld.")
    chat_endpoint.add(Reply(text), Reply(text, faults=(faults.end(1),)))
    async with ChatClient() as client:
        assert await pieces(client, max_completion_tokens=2) == ["Hel", "lo, wor"]
        with pytest.raises(StreamTruncatedError) as caught:
            await pieces(client)
    assert caught.value.partial_text == "Hel"


async def test_a_stop_sequence_ends_it_wherever_it_stands(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.add(Reply(("Hel", "lo, wor", "ld.")))
    async with ChatClient() as client:
        assert "".join(await pieces(client, stop="o, w")) == "Hell"


@pytest.mark.parametrize("stream", [True, False])
async def test_the_usage_that_is_named_is_told(chat_endpoint: ChatEndpoint, stream: bool) -> None:
    chat_endpoint.add(Reply("Hello.", usage={"prompt_tokens": 1000, "completion_tokens": 500}))
    async with AsyncChatGPTAdapter(model="gpt-4o-mini") as adapter:
        result = await adapter.execute(Task("hi", parameters={"stream": stream}))
    assert result.usage is not None
    assert (result.usage.prompt_tokens, result.usage.completion_tokens, result.tokens_used) == (1000, 500, 1500)
    assert result.cost == pytest.approx(1000 * 0.15e-6 + 500 * 0.6e-6)


@pytest.mark.parametrize("where", [UsageIn.FINISH, UsageIn.X_GROQ, UsageIn.EVERY])
async def test_it_is_told_wherever_usage_is(chat_endpoint: ChatEndpoint, where: UsageIn) -> None:
    chat_endpoint.add(Reply("Hello.", usage={"total_tokens": 7}, usage_in=where))
    async with ChatClient() as client, client.stream(**ASK) as stream:
        async for _ in stream:
            pass
    assert stream.completion.usage is not None
    assert stream.completion.usage.total_tokens == 7
