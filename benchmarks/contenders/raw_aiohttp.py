"""aiohttp and orjson, with an event stream split by hand.

This is the fastest configuration that was tried (client CPU on asyncio). A request costs 93 us without timeouts, and
102 with `total` or `sock_read`. A token of a burst costs 2.7 us with `iter_any`, 2.8 with `iter_chunked`, and 6.6 line
by line. For paced tokens the three cost the same, and `sock_read` adds about 3 us. So this contender uses `iter_any`,
no cookies, and only the timeout that chatscope also has by default: 60 s without a byte. `aiohttp-bare` omits that,
too. To try something else, change `Client` and run `python -m benchmarks --only aiohttp --loop asyncio`.
"""

from __future__ import annotations

import aiohttp
import orjson

from benchmarks.contenders.base import HEADERS, Contender, Received, StreamedText, received_from
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

    async def stream(self, tokens: int) -> Received:
        """Process the bytes of each socket read as they arrive."""
        text = StreamedText(orjson.loads)
        async with self._session.post(self._url, data=orjson.dumps(request_body(tokens, stream=True))) as response:
            response.raise_for_status()
            async for data in response.content.iter_any():
                text.feed(data)
        return text.received()

    async def complete(self, tokens: int) -> Received:
        """Read the body."""
        async with self._session.post(self._url, data=orjson.dumps(request_body(tokens, stream=False))) as response:
            response.raise_for_status()
            return received_from(orjson.loads(await response.read()))
