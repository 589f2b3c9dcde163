"""How the test kit's tests run a test file in a pytest of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

# pytester forgets what its runs import: what this process shares with them has to be there before.
import chatscope
import chatscope.testing.simulating  # noqa: F401

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


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a test file, which begins with `HEAD`; warnings are errors there, too."""
    for name in ("CI", "BUILD_NUMBER"):  # where pytest tells every message once more, whole, in its summary
        monkeypatch.delenv(name, raising=False)
    # Hypothesis is imported anew by each run, for nothing.
    options = "--strict-markers --tb=short -p no:hypothesispytest"
    pytester.makeini(f"[pytest]\nanyio_mode = auto\nfilterwarnings = error\naddopts = {options}\n")

    def run(source: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(HEAD + source)
        return pytester.runpytest_inprocess(*options)

    return run
