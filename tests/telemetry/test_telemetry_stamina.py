"""stamina's own instrumentation and testing mode, for applications that use them: they apply to our retries too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import stamina
from stamina.instrumentation import RetryDetails, get_on_retry_hooks, set_on_retry_hooks

from chatscope import AsyncChatGPTAdapter, ChatClient, RateLimitError, RetryPolicy, Task
from chatscope.simulator import Reply, error

if TYPE_CHECKING:
    from tests.support.memory_server import Serve

QUICK = RetryPolicy(attempts=4, initial=0.001, max=0.001, jitter=0)


@pytest.fixture
def seen() -> Iterator[list[RetryDetails]]:
    """What an application's hook is told."""
    told: list[RetryDetails] = []
    before = get_on_retry_hooks()

    def hook(details: RetryDetails) -> None:
        told.append(details)

    set_on_retry_hooks([hook])
    yield told
    set_on_retry_hooks(before)


@pytest.fixture
def testing_mode() -> Iterator[None]:
    """What an application's tests switch on."""
    stamina.set_testing(True, attempts=2)
    yield
    stamina.set_testing(False)


async def test_a_hook_sees_the_retries_of_a_task(serve: Serve, seen: list[RetryDetails]) -> None:
    server = serve([error(503), error(429), Reply("Hello.")])
    async with AsyncChatGPTAdapter("sk-1", transport=server, retry=QUICK) as adapter:
        assert (await adapter.execute(Task("hi"))).success
    assert [(details.retry_num, type(details.caused_by).__name__) for details in seen] == [
        (1, "InternalServerError"),
        (2, "RateLimitError"),
    ]
    assert [details.wait_for for details in seen] == [0.001, 0.001]


async def test_a_hook_sees_the_retries_of_a_client_and_no_last_failure(serve: Serve, seen: list[RetryDetails]) -> None:
    async with ChatClient("", base_url="http://x/v1", transport=serve(error(429)), retry=QUICK) as client:
        with pytest.raises(RateLimitError):
            await client.complete(model="m", messages=[{"role": "user", "content": "hi"}])
    assert [details.retry_num for details in seen] == [1, 2, 3]


async def test_a_hook_sees_nothing_where_nothing_fails(serve: Serve, seen: list[RetryDetails]) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=serve(), retry=QUICK) as adapter:
        assert (await adapter.execute(Task("hi"))).success
    assert seen == []


async def test_testing_mode_caps_the_attempts_and_waits_for_nothing(serve: Serve, testing_mode: None) -> None:
    server = serve(error(429, retry_after=100))
    async with AsyncChatGPTAdapter("sk-1", transport=server, retry=RetryPolicy(initial=30)) as adapter:
        result = await adapter.execute(Task("hi"))
    assert isinstance(result.exception, RateLimitError)
    assert result.attempts == 2
    assert result.duration_seconds < 30
