"""The openai SDK on chatscope's transport."""

from __future__ import annotations

import httpx2
import openai

from benchmarks.contenders import openai_sdk
from chatscope.transport import HTTPTransport
from chatscope.transport.httpx2 import HTTPX2Transport


class Client(openai_sdk.Client):
    """The same client on another transport."""

    def http_client(self) -> httpx2.AsyncClient:
        """Return the SDK's own client on chatscope's transport, which has no connection limit."""
        return openai.DefaultAsyncHttpxClient(
            transport=HTTPX2Transport(HTTPTransport(verify=self.address.context or True))
        )
