"""One attempt's way through the limits of a client, and how a failing server is spared, in virtual time."""

from __future__ import annotations

import logging
import math
import time
from functools import partial
from typing import Any

import anyio
import pytest
import stamina

from chatscope._limits.circuit_breaker import DOWN_AFTER, PROBE_FIRST, PROBE_MOST
from chatscope._limits.limiter import Limiter, Statistics
from chatscope._limits.permit import Permit
from chatscope._limits.retry import MAX_RETRY_AFTER, PATIENCE
from chatscope._limits.retry_budget import CAPACITY, RATIO, REFILL_SECONDS, RetryBudget
from chatscope._limits.transient import is_transient
from chatscope.errors import (
    APIConnectionError,
    BadRequestError,
    ChatError,
    InternalServerError,
    QuotaExceededError,
    RateLimitError,
)
from chatscope.protocol.usage import Usage


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    return virtual_time


async def acquire(
    limiter: Limiter, body: bytes = b"", *, retry: bool = False, patience: float = math.inf, model: str = "m"
) -> Permit:
    permit = Permit(limiter, "task", model=model)
    await permit.acquire(body, 0, retry=retry, patience=patience)
    return permit


async def seconds_until_sent(limiter: Limiter, body: bytes = b"", **options: Any) -> float:
    began = anyio.current_time()
    permit = await acquire(limiter, body, **options)
    permit.on_send(time.perf_counter_ns())
    permit.release()
    return anyio.current_time() - began


async def send_times(limiter: Limiter, count: int, **options: Any) -> list[float]:
    """Let attempts ask at once; return after how many seconds each could be sent."""
    times: list[float] = []

    async def attempt() -> None:
        times.append(await seconds_until_sent(limiter, **options))

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(attempt)
    return times


def fail(limiter: Limiter, count: int = DOWN_AFTER) -> InternalServerError:
    """Make the server fail this many consecutive requests; return the last failure."""
    error = InternalServerError("HTTP 500", status=500)
    for _ in range(count):
        Permit(limiter, "task").on_failure(error)
    return error


def respond(limiter: Limiter) -> None:
    Permit(limiter, "task").on_first_output()


# -- permits ---------------------------------------------------------------------------------------------------------


async def test_the_counts() -> None:
    limiter = Limiter("server", max_concurrency=2, requests_per_minute=2)
    assert limiter.statistics() == Statistics(2, 0, 0, 0, 0, 0, 100.0, 0, 0)
    for _ in range(3):
        limiter.slots.reserve()
    permit = await acquire(limiter, retry=True)
    permit.on_send(time.perf_counter_ns())
    assert limiter.statistics() == Statistics(2, 2, 1, 0, 0, 1, 99.0, 0, 1)
    permit.on_failure(InternalServerError(status=500))
    permit.release()
    permit.release()
    assert limiter.statistics() == Statistics(2, 2, 1, 0, 0, 1, 99.0, 1, 0)
    await acquire(limiter)
    async with anyio.create_task_group() as group:
        group.start_soon(acquire, limiter)
        await anyio.wait_all_tasks_blocked()
        assert limiter.statistics().paced == 1
        fail(limiter)
        group.start_soon(acquire, limiter)
        await anyio.wait_all_tasks_blocked()
        assert limiter.statistics().held_back == 1
        group.cancel_scope.cancel()
    assert limiter.statistics().paced == limiter.statistics().held_back == 0
    assert Limiter("server").statistics().concurrency is None


@pytest.mark.parametrize("cancelled", ["while it waits", "before it is sent"])
async def test_an_attempt_that_was_never_sent_gives_everything_back(cancelled: str) -> None:
    limiter = Limiter("server", requests_per_minute=1, tokens_per_minute=60)
    permit = await acquire(limiter, b"x" * 240, retry=True)
    if cancelled == "while it waits":
        permit.on_send(time.perf_counter_ns())
        with anyio.move_on_after(1) as scope:
            await acquire(limiter, retry=True)
        assert scope.cancelled_caught
    permit.release()
    sent = cancelled == "while it waits"
    statistics = limiter.statistics()
    assert (statistics.requests, statistics.in_flight) == (int(sent), 0)
    assert statistics.retry_tokens == 100 - sent
    assert await seconds_until_sent(limiter, b"x" * 240) == pytest.approx(59 if sent else 0)


async def test_what_was_used_settles_the_estimate() -> None:
    limiter = Limiter("server", tokens_per_minute=600)
    permit = await acquire(limiter, b"x" * 2400)  # all 600
    permit.on_headers({})
    permit.on_usage(None)
    permit.release()
    with anyio.move_on_after(10) as scope:
        await acquire(limiter, b"x" * 4)
    assert scope.cancelled_caught
    permit.on_usage(Usage(total_tokens=300, completion_tokens=10))
    assert await seconds_until_sent(limiter, b"x" * 1200) == 0


async def test_what_headers_say_slows_down_the_requests_for_the_model() -> None:
    limiter = Limiter("server")
    permit = await acquire(limiter)
    names = {"limit": "10", "remaining": "0", "reset": "50s"}
    permit.on_headers({f"x-ratelimit-{name}-requests": value for name, value in names.items()})
    permit.on_headers({})  # a second time says nothing
    permit.release()
    assert await seconds_until_sent(limiter, model="another") == 0
    assert await seconds_until_sent(limiter) == pytest.approx(5)


@pytest.mark.parametrize(
    ("error", "pause"),
    [
        (RateLimitError(status=429, retry_after=7.0), 7.0),
        (RateLimitError(status=429, retry_after=MAX_RETRY_AFTER), MAX_RETRY_AFTER),
        (RateLimitError(status=429, retry_after=MAX_RETRY_AFTER + 1), 0.0),
        (RateLimitError(status=429, retry_after=7.0, should_retry=False), 0.0),
        (QuotaExceededError(status=429, retry_after=7.0), 0.0),
        (RateLimitError(status=429), 0.0),
        (InternalServerError(status=503, retry_after=7.0), 0.0),
        (BadRequestError(status=400, retry_after=7.0), 0.0),
    ],
)
async def test_a_refusal_that_names_a_time_is_a_pause_for_the_model(error: ChatError, pause: float) -> None:
    limiter = Limiter("server")
    permit = await acquire(limiter)
    permit.on_send(time.perf_counter_ns())
    permit.on_failure(error)
    permit.release()
    assert await seconds_until_sent(limiter, model="another") == 0
    assert await seconds_until_sent(limiter) == pytest.approx(pause)


async def test_without_backpressure_no_request_waits_for_the_server() -> None:
    """Whatever it says of its limits, and however often it fails."""
    limiter = Limiter("server", backpressure=False)
    failures = [InternalServerError(status=503)] * 20 + [RateLimitError(status=429, retry_after=7.0)]
    for error in failures:
        permit = await acquire(limiter)
        permit.on_send(time.perf_counter_ns())
        permit.on_headers({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "60s"})
        permit.on_failure(error)
        permit.release()
    assert await seconds_until_sent(limiter) == 0
    assert limiter.statistics().in_flight == 0


async def test_in_stamina_s_testing_mode_there_are_no_pauses() -> None:
    limiter = Limiter("server")
    with stamina.set_testing(testing=True, attempts=2):
        (await acquire(limiter)).on_failure(RateLimitError(status=429, retry_after=7.0))
    assert await seconds_until_sent(limiter) == 0


@pytest.mark.parametrize(
    ("error", "concurrency", "failures"),
    [
        (RateLimitError(status=429), 1, 3),
        (QuotaExceededError(status=429), 8, 3),
        (InternalServerError(status=500), 8, 4),
        (APIConnectionError(), 8, 4),
        (BadRequestError(status=400), 8, 0),  # a server that judges requests works
    ],
)
async def test_what_a_failure_says_of_the_server(error: ChatError, concurrency: int, failures: int) -> None:
    limiter = Limiter("server", max_concurrency="auto")
    limiter.slots.reserve()
    permit = await acquire(limiter)
    permit.on_send(time.perf_counter_ns())
    fail(limiter, 3)
    permit.on_failure(error)
    assert limiter.statistics().concurrency == concurrency
    assert limiter.statistics().failures_in_a_row == failures


async def test_a_refused_request_gives_its_tokens_back() -> None:
    limiter = Limiter("server", tokens_per_minute=600)
    permit = await acquire(limiter, b"x" * 2400)
    permit.on_send(time.perf_counter_ns())
    permit.on_failure(RateLimitError(status=429))
    permit.release()
    assert await seconds_until_sent(limiter, b"x" * 2400) == 0


# -- the retry budget ------------------------------------------------------------------------------------------------


def test_a_success_brings_a_part_of_a_retry_back() -> None:
    budget = RetryBudget(capacity=2)
    budget.on_success()
    assert budget.tokens == 2
    assert [budget.try_take() for _ in range(3)] == [True, True, False]
    for _ in range(11):
        budget.on_success()
    assert budget.tokens == pytest.approx(11 * RATIO)
    assert budget.try_take()
    budget.give_back()
    assert budget.tokens == pytest.approx(1.1)
    budget.refill(waiting=5)
    assert budget.try_take()
    budget.give_back()
    assert budget.tokens == 4, "those who waited during an outage keep what is above the capacity"


async def test_an_empty_store_lets_one_retry_go_each_second() -> None:
    limiter = Limiter("server")
    assert await send_times(limiter, 100, retry=True) == [0.0] * 100
    assert not limiter.can_hedge
    times = await send_times(limiter, 3, retry=True)
    assert times == pytest.approx([REFILL_SECONDS, 2 * REFILL_SECONDS, 3 * REFILL_SECONDS])
    assert await send_times(limiter, 3) == [0, 0, 0]  # first attempts need none
    async with anyio.create_task_group() as group:
        group.start_soon(partial(send_times, limiter, 100, retry=True))
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(
            APIConnectionError, match=r"^not sent: too many of the last requests failed, and the retry b"
        ):
            await acquire(limiter, retry=True, patience=PATIENCE)
        group.cancel_scope.cancel()


async def test_successes_let_a_waiting_retry_go() -> None:
    limiter = Limiter("server")
    await send_times(limiter, 100, retry=True)
    fail(limiter, 1)
    async with anyio.create_task_group() as group:

        async def wait() -> None:
            assert await seconds_until_sent(limiter, retry=True) == 0.25

        group.start_soon(wait)
        await anyio.sleep(0.25)
        for _ in range(11):
            respond(limiter)


# -- outages ---------------------------------------------------------------------------------------------------------


async def test_a_server_that_is_down_gets_one_request_at_a_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    limiter = Limiter("api.example")
    fail(limiter, DOWN_AFTER - 1)
    assert limiter.outage is None
    error = fail(limiter, 1)
    assert limiter.outage is error
    times = await send_times(limiter, 5)
    assert times == pytest.approx([PROBE_FIRST, PROBE_FIRST + 1, PROBE_FIRST + 3, PROBE_FIRST + 7, PROBE_FIRST + 11])
    assert times[-1] - times[-2] == pytest.approx(PROBE_MOST)
    respond(limiter)
    fail(limiter)
    assert await send_times(limiter, 1) == pytest.approx([PROBE_FIRST])  # probing begins anew
    assert [(record.levelno, record.getMessage()) for record in caplog.records if record.name == "chatscope.retry"] == [
        (logging.WARNING, "api.example failed 10 consecutive requests: only probes are sent until it works"),
        (logging.INFO, "api.example works again after 10 consecutive failures"),
        (logging.WARNING, "api.example failed 10 consecutive requests: only probes are sent until it works"),
    ]


@pytest.mark.parametrize("error", [None, BadRequestError(status=400)])
async def test_any_response_lets_all_that_wait_go(error: ChatError | None) -> None:
    limiter = Limiter("server")
    fail(limiter)
    async with anyio.create_task_group() as group:

        async def wait() -> None:
            times = await send_times(limiter, int(CAPACITY) + 6, retry=True)
            assert times == pytest.approx([1] + [1.5] * (int(CAPACITY) + 5))

        group.start_soon(wait)
        await anyio.sleep(1.5)
        if error is None:
            respond(limiter)
        else:
            Permit(limiter, "task").on_failure(error)


async def test_without_a_deadline_a_call_is_held_back_for_so_long_in_all() -> None:
    limiter = Limiter("server")
    last = fail(limiter)
    began = anyio.current_time()
    async with anyio.create_task_group() as group:
        group.start_soon(partial(send_times, limiter, 100))  # ahead of it
        await anyio.wait_all_tasks_blocked()
        permit = Permit(limiter, "task")
        with pytest.raises(
            APIConnectionError, match=r"^not sent: the server failed the last 10 requests; held"
        ) as caught:
            await permit.acquire(b"", 0, retry=False, patience=PATIENCE)
        assert anyio.current_time() - began == pytest.approx(PATIENCE)
        assert caught.value.__cause__ is last
        assert not is_transient(caught.value)
        with pytest.raises(APIConnectionError):  # its patience is used up
            await permit.acquire(b"", 0, retry=True, patience=PATIENCE)
        assert anyio.current_time() - began == pytest.approx(PATIENCE)
        assert limiter.statistics().held_back == 91
        group.cancel_scope.cancel()


async def test_with_a_deadline_a_call_waits_on() -> None:
    limiter = Limiter("server")
    fail(limiter)
    assert (await send_times(limiter, 12))[-1] > PATIENCE
