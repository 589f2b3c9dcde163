"""aiohttp and orjson without any timeout: a peer that falls silent is waited for until the connection ends."""

from __future__ import annotations

import aiohttp

from benchmarks.contenders.raw_aiohttp import Client as WithTimeouts


class Client(WithTimeouts):
    """The same session but for that."""

    timeout = aiohttp.ClientTimeout(total=None)
