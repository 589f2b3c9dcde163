"""How tests of the test kit run a test file in a pytest of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Run = Callable[..., pytest.RunResult]

HEAD = """
import httpx
import pytest
from chatscope import AsyncChatGPTAdapter, ChatClient, RetryPolicy, Task
from chatscope.simulator import Plan, Reply, error, faults
from chatscope.testing import UnexpectedRequestError

ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}

async def ask(**fields):
    async with ChatClient(retry=RetryPolicy(attempts=1)) as client:
        return (await client.complete(**{**ASK, **fields})).text

async def ask_and_forget(**fields):
    try:
        return await ask(**fields)
    except Exception:
        return "nothing"
"""
