"""The openai SDK with its aiohttp backend."""

from __future__ import annotations

import httpx2
import openai

from benchmarks.contenders import openai_sdk


class Client(openai_sdk.Client):
    """The same client on another transport."""

    def http_client(self) -> httpx2.AsyncClient:
        """Return the SDK's own aiohttp backend, without a connection limit."""
        return openai.DefaultAioHttpClient(limits=openai_sdk.LIMITS, verify=self.address.context or True)
