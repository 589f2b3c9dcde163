"""How a failing server is spared: the store of retries, and the memory for outages, in virtual time."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import anyio
import pytest

from chatscope._limits.retry import is_transient
from chatscope._limits.retry_budget import (
    CAPACITY,
    DOWN_AFTER,
    PATIENCE,
    PROBE_FIRST,
    PROBE_MOST,
    RATIO,
    REFILL_SECONDS,
    RetryBudget,
)
from chatscope.errors import APIConnectionError, InternalServerError


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    return virtual_time


def down(budget: RetryBudget) -> InternalServerError:
    """Let a server fail until it counts as down; return the last failure."""
    error = InternalServerError("HTTP 500", status=500)
    while not budget.is_down:
        budget.on_failure(error)
    return error


async def departures(budget: RetryBudget, count: int, *, retry: bool = False, patient: bool = True) -> list[float]:
    """Let calls ask at once; return after how many seconds each got leave."""
    began, left = anyio.current_time(), []

    async def call() -> None:
        await budget.acquire(retry=retry, patient=patient)
        left.append(anyio.current_time() - began)

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(call)
    return left


async def test_while_all_is_well_nobody_waits() -> None:
    budget = RetryBudget("server")
    assert await departures(budget, 50) == [0.0] * 50
    assert budget.tokens == CAPACITY
    assert await departures(budget, 50, retry=True) == [0.0] * 50
    assert budget.tokens == CAPACITY - 50


async def test_a_success_brings_a_part_of_a_retry_back() -> None:
    budget = RetryBudget("server", capacity=2)
    budget.on_success()
    assert budget.tokens == 2
    assert budget.try_take()
    assert budget.try_take()
    assert not budget.try_take()
    for _ in range(9):
        budget.on_success()
    assert not budget.try_take()
    for _ in range(2):
        budget.on_success()
    assert budget.tokens == pytest.approx(11 * RATIO)
    assert budget.try_take()
    assert budget.tokens == pytest.approx(0.1)


async def test_an_empty_store_lets_one_retry_go_each_second() -> None:
    budget = RetryBudget("server", capacity=1)
    assert await departures(budget, 4, retry=True) == pytest.approx([0, *(n * REFILL_SECONDS for n in (1, 2, 3))])
    assert await departures(budget, 3) == [0, 0, 0]  # first requests need none


async def test_a_success_lets_a_waiting_retry_go() -> None:
    budget = RetryBudget("server", capacity=1, ratio=1.0)
    assert budget.try_take()
    left: list[float] = []
    async with anyio.create_task_group() as group:

        async def wait() -> None:
            left.extend(await departures(budget, 1, retry=True))

        group.start_soon(wait)
        await anyio.sleep(0.25)
        assert budget.waiting == 1
        budget.on_success()
    assert left == [0.25]
    assert budget.waiting == 0


async def test_failures_in_a_row_count() -> None:
    budget = RetryBudget("server")
    for _ in range(DOWN_AFTER - 1):
        budget.on_failure(InternalServerError(status=500))
    assert not budget.is_down
    budget.on_success()
    assert budget.failures == 0
    budget.on_failure(InternalServerError(status=500))
    assert budget.failures == 1


async def test_a_server_that_is_down_gets_one_request_at_a_time() -> None:
    budget = RetryBudget("server")
    down(budget)
    left = await departures(budget, 5)
    assert left == pytest.approx([PROBE_FIRST, PROBE_FIRST + 1, PROBE_FIRST + 3, PROBE_FIRST + 7, PROBE_FIRST + 11])
    assert left[-1] - left[-2] == pytest.approx(PROBE_MOST)


async def test_a_success_lets_everybody_go(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    budget = RetryBudget("api.example", capacity=2)
    down(budget)
    left: list[float] = []
    async with anyio.create_task_group() as group:

        async def wait() -> None:
            left.extend(await departures(budget, 6, retry=True))

        group.start_soon(wait)
        await anyio.sleep(1.5)
        budget.on_success()
    assert left == pytest.approx([1, 1.5, 1.5, 1.5, 1.5, 1.5])
    assert [(record.levelno, record.getMessage()) for record in caplog.records if record.name == "chatscope.retry"] == [
        (logging.WARNING, "api.example failed 10 requests in a row: one at a time tries whether it is back"),
        (logging.INFO, "api.example answers again after 10 failures in a row"),
    ]
    down(budget)
    assert await departures(budget, 1) == pytest.approx([PROBE_FIRST])  # probing begins anew


async def test_without_a_deadline_patience_ends() -> None:
    budget = RetryBudget("server")
    last = down(budget)
    budget._probe_at = anyio.current_time() + 10 * PATIENCE
    began = anyio.current_time()
    with pytest.raises(
        APIConnectionError, match=r"^not sent: the server failed the last 10 requests, and 120 s"
    ) as caught:
        await budget.acquire(retry=False, patient=False)
    assert anyio.current_time() - began == pytest.approx(PATIENCE)
    assert caught.value.__cause__ is last
    assert not is_transient(caught.value)
    assert budget.waiting == 0


async def test_with_a_deadline_it_waits_on() -> None:
    budget = RetryBudget("server")
    down(budget)
    budget._probe_at = anyio.current_time() + 2 * PATIENCE
    assert await departures(budget, 1) == pytest.approx([2 * PATIENCE])


async def test_a_cancelled_call_uses_nothing_up() -> None:
    budget = RetryBudget("server", capacity=0)
    with anyio.move_on_after(0.5) as scope:
        await budget.acquire(retry=True, patient=True)
    assert scope.cancelled_caught
    assert budget.waiting == 0
    assert await departures(budget, 1, retry=True) == pytest.approx([0.5])


async def test_what_one_gives_back_takes_nothing_from_the_others() -> None:
    """After an outage there may be more in store than it holds otherwise: enough for everybody who waited."""
    budget = RetryBudget("server", capacity=1)
    down(budget)
    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(partial(budget.acquire, retry=True, patient=True))
        await anyio.wait_all_tasks_blocked()
        budget.on_success()
        assert budget.try_take()
        budget.refund()
        assert budget.tokens == 3
        group.cancel_scope.cancel()
