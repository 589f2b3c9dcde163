"""Rate limits and outages as simulations, exact in virtual time: how long, how many refused, how much more traffic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

import anyio
import httpx
import msgspec
import pytest
from trio.testing import MockClock

from chatscope import AsyncChatGPTAdapter, RetryPolicy, Task, TaskConstraints, TaskStatus

SERVICE_SECONDS = 0.5


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "trio", {"clock": MockClock(autojump_threshold=0)}


@dataclass
class Bucket:
    """What the endpoint allows per minute, as a token bucket that is full at first."""

    per_minute: float
    level: float
    at: float = 0.0

    def refill(self, now: float) -> None:
        self.level = min(self.per_minute, self.level + (now - self.at) * self.per_minute / 60)
        self.at = now

    def seconds_to(self, level: float) -> float:
        return max(0.0, (level - self.level) * 60 / self.per_minute)


class Endpoint(httpx.AsyncBaseTransport):
    """An endpoint with limits, or with an outage. It counts what it is sent."""

    def __init__(self, *, requests: float = 1e9, tokens: float = 1e9, uses: int = 100, down_for: float = 0.0) -> None:
        self.requests = Bucket(requests, requests)
        self.tokens = Bucket(tokens, tokens)
        self.uses = uses
        self.down_for = down_for
        self.began = anyio.current_time()
        self.received = 0
        self.refused = 0
        self.failed = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        now = anyio.current_time() - self.began
        self.received += 1
        if now < self.down_for:
            self.failed += 1
            await anyio.sleep(0.05)
            return httpx.Response(503, json={"error": {"message": "down"}})
        self.requests.refill(now)
        self.tokens.refill(now)
        # A hair of slack: the client's clock and this one add the same seconds up in different orders.
        wait = max(self.requests.seconds_to(1 - 1e-6), self.tokens.seconds_to(self.uses - 1e-3))
        if wait > 0:
            self.refused += 1
            headers = self._headers() | {"retry-after": f"{wait:.6f}"}
            return httpx.Response(429, headers=headers, json={"error": {"message": "slow down"}})
        self.requests.level -= 1
        self.tokens.level -= self.uses
        headers = self._headers()
        await anyio.sleep(SERVICE_SECONDS)
        chunk = {
            "choices": [{"index": 0, "delta": {"content": "ok"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": self.uses - 10, "total_tokens": self.uses},
        }
        content = b"data: " + msgspec.json.encode(chunk) + b"\n\ndata: [DONE]\n\n"
        return httpx.Response(200, headers=headers | {"content-type": "text/event-stream"}, content=content)

    def _headers(self) -> dict[str, str]:
        return {
            "x-ratelimit-limit-requests": f"{self.requests.per_minute:.0f}",
            "x-ratelimit-remaining-requests": f"{max(0, int(self.requests.level))}",
            "x-ratelimit-reset-requests": f"{self.requests.seconds_to(self.requests.per_minute):.3f}s",
            "x-ratelimit-limit-tokens": f"{self.tokens.per_minute:.0f}",
            "x-ratelimit-remaining-tokens": f"{max(0, int(self.tokens.level))}",
            "x-ratelimit-reset-tokens": f"{self.tokens.seconds_to(self.tokens.per_minute):.3f}s",
        }


@pytest.mark.parametrize("uses", [100, 200])
@pytest.mark.parametrize("known", [True, False], ids=["budget given", "learned from headers"])
async def test_tasks_finish_in_the_time_that_the_limits_dictate(
    uses: int, known: bool, record_property: Callable[[str, object], None]
) -> None:
    """190 tasks, 60 requests and 10,000 tokens a minute: at most 1.1 times the time dictated, below 5 % refused.

    The server's limits refill all the time; a budget that is given holds within every minute, so it takes a bit longer.
    """
    endpoint = Endpoint(requests=60, tokens=10_000, uses=uses)
    minutes = max((190 - 60) / 60, (190 * uses - 10_000) / 10_000)
    dictated = (ceil(minutes) if known else minutes) * 60
    concurrency: int | Literal["auto"] = 100 if known else "auto"
    async with AsyncChatGPTAdapter(
        "key",
        transport=endpoint,
        max_concurrency=concurrency,
        requests_per_minute=60 if known else None,
        tokens_per_minute=10_000 if known else None,
    ) as adapter:
        began = anyio.current_time()
        handles = [adapter.start_task(Task("x" * 36, constraints=TaskConstraints(max_tokens=uses))) for _ in range(190)]
        results = [await handle.wait() for handle in handles]
        took = anyio.current_time() - began
    record_property("outcome", f"{took:.1f} s of {dictated:.1f} s dictated, {endpoint.refused} refused")
    assert {result.status for result in results} == {TaskStatus.COMPLETED}
    assert took <= 1.1 * dictated
    assert endpoint.refused < 0.05 * 190


async def test_an_outage_costs_a_fraction_more_traffic_and_no_task(
    record_property: Callable[[str, object], None],
) -> None:
    """The server fails for 30 s: at most 1.2 times the requests, and every task whose deadline is later succeeds."""
    endpoint = Endpoint(down_for=30.0)
    async with AsyncChatGPTAdapter("key", transport=endpoint, retry=RetryPolicy()) as adapter:
        handles = []
        for _ in range(1000):
            handles.append(adapter.start_task(Task("hello", constraints=TaskConstraints(timeout_seconds=60))))
            await anyio.sleep(0.05)
        results = [await handle.wait() for handle in handles]
    record_property("outcome", f"{endpoint.received} requests for 1000 tasks, {endpoint.failed} of them failed")
    assert {result.status for result in results} == {TaskStatus.COMPLETED}
    assert endpoint.received <= 1.2 * 1000
