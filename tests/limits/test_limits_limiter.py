"""One attempt's way through what the calls of a client share."""

from __future__ import annotations

from typing import Any, Literal

import anyio
import pytest
import stamina

from chatscope._limits.limiter import Limiter, Permit, Statistics
from chatscope._limits.retry import MAX_RETRY_AFTER
from chatscope.errors import BadRequestError, ChatError, InternalServerError, QuotaExceededError, RateLimitError
from chatscope.protocol.usage import Usage


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    return virtual_time


def traffic(
    max_concurrency: int | Literal["auto"] | None = None,
    *,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
) -> Limiter:
    return Limiter(
        "server",
        max_concurrency=max_concurrency,
        max_pending=None,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
    )


async def acquire(shared: Limiter, body: bytes = b"", max_tokens: int | None = 0, *, retry: bool = False) -> Permit:
    permit = Permit(shared, "task")
    await permit.acquire(body, max_tokens, retry=retry, patient=True)
    return permit


async def seconds_until_sent(shared: Limiter, body: bytes = b"") -> float:
    began = anyio.current_time()
    (await acquire(shared, body)).release()
    return anyio.current_time() - began


async def test_the_counts() -> None:
    shared = traffic(2)
    assert shared.statistics() == Statistics(2, 0, 0, 0, 0, 0, 100.0, 0)
    for _ in range(3):
        shared.slots.reserve()
    permit = await acquire(shared, retry=True)
    permit.on_failure(InternalServerError(status=500))
    assert shared.statistics() == Statistics(2, 2, 1, 0, 0, 1, 99.0, 1)
    permit.on_first_output()
    assert shared.statistics().failures_in_a_row == 0
    assert traffic(None).statistics().concurrency is None


async def test_who_waits_for_what_is_counted() -> None:
    shared = traffic(requests_per_minute=1)
    await acquire(shared)
    async with anyio.create_task_group() as group:
        group.start_soon(acquire, shared)
        await anyio.wait_all_tasks_blocked()
        assert shared.statistics().paced == 1
        for _ in range(10):
            Permit(shared, "task").on_failure(InternalServerError(status=503))
        group.start_soon(acquire, shared)
        await anyio.wait_all_tasks_blocked()
        assert shared.statistics().held_back == 1
        group.cancel_scope.cancel()
    assert shared.statistics().paced == shared.statistics().held_back == 0
    assert shared.requests == 1


async def test_a_cancelled_request_was_not_sent() -> None:
    shared = traffic(requests_per_minute=1)
    await acquire(shared)
    permit = Permit(shared, "task")
    with anyio.move_on_after(1) as scope:
        await permit.acquire(b"", 0, retry=False, patient=True)
    permit.release()
    assert scope.cancelled_caught
    assert shared.requests == 1
    assert await seconds_until_sent(shared) == pytest.approx(59)


async def test_a_retry_that_was_cancelled_before_it_was_sent_stays_in_store() -> None:
    shared = traffic(requests_per_minute=1)
    await acquire(shared)
    with anyio.move_on_after(1) as scope:
        await acquire(shared, retry=True)
    assert scope.cancelled_caught
    assert shared.requests == 1
    assert shared.statistics().retry_tokens == 100


async def test_what_was_used_settles_the_estimate() -> None:
    shared = traffic(tokens_per_minute=600)
    permit = await acquire(shared, b"x" * 2400)  # all 600
    permit.on_headers({})
    permit.on_usage(None)
    assert await seconds_until_sent(shared, b"x" * 4) == pytest.approx(0.1)
    permit.on_usage(Usage(total_tokens=300, completion_tokens=10))
    assert await seconds_until_sent(shared, b"x" * 1200) == pytest.approx(0, abs=0.01)


async def test_what_headers_say_slows_everybody_down() -> None:
    shared = traffic()
    permit = await acquire(shared)
    headers = {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "50s",
    }
    permit.on_headers(headers)
    permit.on_headers({})  # a second time says nothing
    permit.release()
    assert await seconds_until_sent(shared) == pytest.approx(5)


@pytest.mark.parametrize(
    ("error", "pause"),
    [
        (RateLimitError(status=429, retry_after=7.0), 7.0),
        (RateLimitError(status=429, retry_after=MAX_RETRY_AFTER), MAX_RETRY_AFTER),
        (RateLimitError(status=429, retry_after=MAX_RETRY_AFTER + 1), 0.0),
        (RateLimitError(status=429), 0.0),
        (InternalServerError(status=503, retry_after=7.0), 0.0),
        (BadRequestError(status=400, retry_after=7.0), 0.0),
    ],
)
async def test_a_refusal_that_names_a_time_makes_everybody_wait(error: ChatError, pause: float) -> None:
    shared = traffic()
    permit = await acquire(shared)
    permit.on_failure(error)
    permit.release()
    assert await seconds_until_sent(shared) == pytest.approx(pause)


async def test_in_stamina_s_testing_mode_nobody_waits() -> None:
    shared = traffic()
    with stamina.set_testing(testing=True, attempts=2):
        (await acquire(shared)).on_failure(RateLimitError(status=429, retry_after=7.0))
    assert await seconds_until_sent(shared) == 0


@pytest.mark.parametrize(
    ("error", "total", "failures"),
    [
        (RateLimitError(status=429), 1, 0),
        (QuotaExceededError(status=429), 1, 0),
        (InternalServerError(status=500), 8, 1),
        (BadRequestError(status=400), 8, 0),
    ],
)
async def test_who_learns_of_a_failure(error: ChatError, total: int, failures: int) -> None:
    shared = traffic("auto")
    shared.slots.reserve()
    permit = await acquire(shared)
    permit.on_failure(error)
    assert shared.statistics().concurrency == total
    assert shared.statistics().failures_in_a_row == failures


async def test_a_refused_request_gives_its_tokens_back() -> None:
    shared = traffic(tokens_per_minute=600)
    permit = await acquire(shared, b"x" * 2400)
    permit.on_failure(RateLimitError(status=429))
    assert await seconds_until_sent(shared, b"x" * 2400) == 0
