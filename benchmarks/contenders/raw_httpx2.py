"""httpx2 and orjson, with an event stream split by hand."""

from __future__ import annotations

import httpx2
import orjson

from benchmarks.contenders.base import HEADERS, Contender, Received, StreamedText, received_from
from benchmarks.harness.wire import request_body


class Client(Contender):
    """One client."""

    async def open(self) -> None:
        """Open the client."""
        self._client = await self.resources.enter_async_context(
            httpx2.AsyncClient(
                headers=HEADERS,
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
                timeout=None,
                verify=self.address.context or True,
            )
        )
        self._url = httpx2.URL(self.address.url)

    async def stream(self, tokens: int) -> Received:
        """Process the bytes of each socket read as they arrive."""
        text = StreamedText(orjson.loads)
        body = orjson.dumps(request_body(tokens, stream=True))
        async with self._client.stream("POST", self._url, content=body) as response:
            response.raise_for_status()
            async for data in response.aiter_raw():
                text.feed(data)
        return text.received()

    async def complete(self, tokens: int) -> Received:
        """Read the body."""
        response = await self._client.post(self._url, content=orjson.dumps(request_body(tokens, stream=False)))
        response.raise_for_status()
        return received_from(orjson.loads(response.content))
