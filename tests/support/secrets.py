"""The key that must not show, and an adapter that has it."""

from __future__ import annotations

from typing import Any

from tests.support.defaults import BRIEF, MODEL, RETRY

from chatscope import AsyncChatGPTAdapter
from chatscope.transport import HTTPTransport

KEY = "sk-proj/N0body+ever=sees-this-7f3a"
"""With the characters that encoders like to change."""


def adapter_for(base_url: str, **options: Any) -> AsyncChatGPTAdapter:
    """Make an adapter that has the key."""
    options = {"timeout": BRIEF, "retry": RETRY, "transport": HTTPTransport(trust_env=False), **options}
    return AsyncChatGPTAdapter(KEY, MODEL, base_url=base_url, **options)
