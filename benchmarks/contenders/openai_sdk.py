"""The openai SDK with its default HTTP client."""

from __future__ import annotations

import httpx2
import openai

from benchmarks.contenders.base import Contender, Received
from benchmarks.harness.wire import API_KEY, MODEL, PROMPT

# Not `None`: with that, the aiohttp backend applies aiohttp's own limit of 100.
LIMITS = httpx2.Limits(max_connections=100_000, max_keepalive_connections=100_000)


class Client(Contender):
    """One client, without retries and without a connection limit."""

    async def open(self) -> None:
        """Open the client."""
        self._client = await self.resources.enter_async_context(
            openai.AsyncOpenAI(
                api_key=API_KEY, base_url=self.address.base_url, max_retries=0, http_client=self.http_client()
            )
        )

    def http_client(self) -> httpx2.AsyncClient:
        """Return the SDK's default HTTP client, without a connection limit."""
        return openai.DefaultAsyncHttpxClient(limits=LIMITS, verify=self.address.context or True)

    async def stream(self, tokens: int) -> Received:
        """Iterate over the chunks."""
        parts = []
        completion_tokens = 0
        stream = await self._client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": PROMPT}],
            temperature=0.0,
            max_tokens=tokens,
            stream=True,
            stream_options={"include_usage": True},
        )
        async with stream:
            async for chunk in stream:
                if chunk.choices:
                    parts.append(chunk.choices[0].delta.content or "")
                elif chunk.usage is not None:
                    completion_tokens = chunk.usage.completion_tokens
        return Received("".join(parts), completion_tokens)

    async def complete(self, tokens: int) -> Received:
        """Return the completion."""
        completion = await self._client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": PROMPT}], temperature=0.0, max_tokens=tokens
        )
        usage = completion.usage
        return Received(completion.choices[0].message.content or "", usage.completion_tokens if usage else 0)
