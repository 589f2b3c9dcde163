"""aiohttp and orjson, with an event stream split by hand.

The fastest of what was tried, client CPU on asyncio: per request 93 us without timeouts, 102 with `total` or
`sock_read`; per token of a burst 2.7 us by `iter_any`, 2.8 by `iter_chunked`, 6.6 line by line; per paced token all
three ways of reading are alike, and `sock_read` costs some 3 us more. So: `iter_any`, no cookies, and of the timeouts
only the one that chatscope has by default as well, 60 s without a byte. `aiohttp-bare` goes without that one, too. For
another look, change `Client` and run `python -m benchmarks --only aiohttp --loop asyncio`.
"""

from __future__ import annotations

import aiohttp
import orjson

from benchmarks.contenders.base import HEADERS, Contender, Reply, StreamedText, reply_of
from benchmarks.harness.wire import request_body


class Client(Contender):
    """One session."""

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=60, sock_read=60)

    async def open(self) -> None:
        """Open the session."""
        connector = aiohttp.TCPConnector(limit=0, ssl=self.address.context or True)
        self._session = await self.resources.enter_async_context(
            aiohttp.ClientSession(
                connector=connector,
                headers=HEADERS,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=self.timeout,
            )
        )
        self._url = self.address.url

    async def stream(self, tokens: int) -> Reply:
        """Read whatever each read of the socket brings."""
        text = StreamedText(orjson.loads)
        async with self._session.post(self._url, data=orjson.dumps(request_body(tokens, stream=True))) as response:
            response.raise_for_status()
            async for data in response.content.iter_any():
                text.feed(data)
        return text.reply()

    async def complete(self, tokens: int) -> Reply:
        """Read the body."""
        async with self._session.post(self._url, data=orjson.dumps(request_body(tokens, stream=False))) as response:
            response.raise_for_status()
            return reply_of(orjson.loads(await response.read()))
