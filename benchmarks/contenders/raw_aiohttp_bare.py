"""aiohttp and orjson without any timeout: if the server goes silent, the client waits until the connection ends."""

from __future__ import annotations

import aiohttp

from benchmarks.contenders.raw_aiohttp import Client as WithTimeouts


class Client(WithTimeouts):
    """The same session without the timeout."""

    timeout = aiohttp.ClientTimeout(total=None)
