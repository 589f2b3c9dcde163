"""chatscope without tasks: `ChatClient.stream` and `ChatClient.complete`."""

from __future__ import annotations

from benchmarks.contenders.base import Contender, Received
from benchmarks.harness.wire import API_KEY, MODEL, PROMPT
from chatscope import ChatClient, Completion
from chatscope.transport import HTTPTransport


class Client(Contender):
    """Requests of one client."""

    async def open(self) -> None:
        """Open the client."""
        address = self.address
        transport = HTTPTransport(verify=address.context) if address.context else None
        self._client = await self.resources.enter_async_context(
            ChatClient(api_key=API_KEY, base_url=address.base_url, transport=transport)
        )

    async def stream(self, tokens: int) -> Received:
        """Iterate over the chunks."""
        parts = []
        messages = [{"role": "user", "content": PROMPT}]
        async with self._client.stream(model=MODEL, messages=messages, temperature=0.0, max_tokens=tokens) as stream:
            async for chunk in stream:
                parts.append(chunk.text)  # noqa: PERF401 - the loop that everybody writes
            return _received("".join(parts), stream.completion)

    async def complete(self, tokens: int) -> Received:
        """Return the completion."""
        messages = [{"role": "user", "content": PROMPT}]
        completion = await self._client.complete(model=MODEL, messages=messages, temperature=0.0, max_tokens=tokens)
        return _received(completion.text, completion)


def _received(text: str, completion: Completion) -> Received:
    return Received(text, completion.usage.completion_tokens if completion.usage else 0)
