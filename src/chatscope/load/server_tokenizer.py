"""The server's own tokenizer: `POST /tokenize` of vLLM, SGLang and llama.cpp, beside `/v1`.

Here: asking it for the length of a prompt. Not here: the prompts of a run (`calibration`).

vLLM accepts `messages`, and counts the template, too (vllm/entrypoints/serve/tokenize/protocol.py). SGLang accepts
`prompt`, llama.cpp `content`; both count only the text. Each ignores the other's field, so one request suits both.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import httpx
import msgspec

from chatscope.load.plan import LoadPlan
from chatscope.protocol.messages import SentMessage

RESPONSE_SECONDS: Final = 20.0
"""Seconds of silence after which the server counts as having no tokenizer. Counting takes milliseconds."""


class ServerTokenizer:
    """Asks one server for lengths. Any response that is not a length means that it has no tokenizer.

    Args:
        plan: the run's plan. Its key and headers are sent.
        transport: sends the requests.
        base_url: the server's address, with or without `/v1`.
    """

    def __init__(self, plan: LoadPlan, transport: httpx.AsyncBaseTransport, base_url: str) -> None:
        url = httpx.URL(base_url)
        self._url = url.copy_with(path=url.path.rstrip("/").removesuffix("/v1") + "/tokenize")
        self._model = plan.model
        self._transport = transport
        key = os.environ.get("OPENAI_API_KEY") if plan.api_key is None else plan.api_key
        self._headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        extra = plan.parameters.get("extra_headers")
        self._headers |= {str(name): str(value) for name, value in (extra or {}).items()}

    async def count_messages(self, messages: Sequence[SentMessage]) -> int | None:
        """Return the length of a prompt including the template's tokens; `None` if the server does not report it."""
        return await self._count({"model": self._model, "messages": messages})

    async def count_text(self, text: str) -> int | None:
        """Return the length of a text alone; `None` if the server does not report it."""
        return await self._count({"model": self._model, "prompt": text, "content": text})

    async def _count(self, body: Mapping[str, Any]) -> int | None:
        timeout = dict.fromkeys(("connect", "read", "write", "pool"), RESPONSE_SECONDS)
        request = httpx.Request(
            "POST", self._url, headers=self._headers, content=msgspec.json.encode(body), extensions={"timeout": timeout}
        )
        try:
            response = await self._transport.handle_async_request(request)
            try:
                content = await response.aread()
            finally:
                await response.aclose()
            found = msgspec.json.decode(content) if response.status_code == httpx.codes.OK else None
        except (httpx.HTTPError, msgspec.DecodeError):
            return None
        if not isinstance(found, dict):
            return None
        count, tokens = found.get("count"), found.get("tokens")
        if not isinstance(count, int) and isinstance(tokens, list):
            count = len(tokens)
        return count if isinstance(count, int) and count > 0 else None
