"""How fast requests go out: budgets, what headers say of each model, pauses and priorities, in virtual time."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from time import perf_counter_ns
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatscope import RateLimitError
from chatscope._limits.budget_window import BudgetWindow
from chatscope._limits.learned_limits import LONGEST_LEARNED_WAIT, ModelLimit
from chatscope._limits.model_limits import ModelLimits
from chatscope._limits.pacer import BudgetPacer
from chatscope._limits.rate_limit import (
    CHARACTERS_PER_TOKEN,
    FIRST_GUESS,
    MOST_MODELS,
    RateLimiter,
    Reservation,
)
from chatscope.protocol.usage import Usage


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    return virtual_time


async def send_times(limiter: RateLimiter, *amounts: float, model: str = "m") -> list[float]:
    """Let requests for so many tokens each ask at once; return after how many seconds each could be sent."""
    began, times = anyio.current_time(), [0.0] * len(amounts)

    async def request(number: int, tokens: float) -> None:
        limiter.on_no_response(await limiter.acquire(model, tokens))
        times[number] = anyio.current_time() - began

    async with anyio.create_task_group() as group:
        for number, tokens in enumerate(amounts):
            group.start_soon(request, number, tokens)
            await anyio.wait_all_tasks_blocked()
    return times


def limits(
    *, limit: int | None = None, remaining: int | None = None, reset: str | None = None, what: str = "requests"
) -> dict[str, str]:
    given = {"limit": limit, "remaining": remaining, "reset": reset}
    return {f"x-ratelimit-{name}-{what}": str(value) for name, value in given.items() if value is not None}


async def respond(limiter: RateLimiter, model: str = "m", **reported: Any) -> Reservation:
    """Send a request for a model at once and have it answered with headers."""
    reservation = await limiter.acquire(model, reported.pop("tokens", 1.0))
    limiter.on_response(reservation, limits(**reported))
    return reservation


# -- budgets ---------------------------------------------------------------------------------------------------------


def test_a_use_that_has_expired_is_not_settled() -> None:
    budget = BudgetWindow(100)
    use = budget.take(100, 0.0)
    assert budget.wait_for(100, 61.0) == 0
    budget.settle(use, 100, 10, 61.0)
    budget.take(100, 61.0)
    assert budget.wait_for(1, 61.0) == 60


def test_refusals_of_requests_that_were_under_way_together_count_once() -> None:
    limits, refusal = ModelLimits(ModelLimit({}), ModelLimit({})), RateLimitError(status=429)
    sent_ns = perf_counter_ns()
    for _ in range(3):
        limits.on_refusal(refusal, sent_ns)
    assert limits.refusals == 1
    limits.on_refusal(refusal, perf_counter_ns() + 1)
    assert limits.refusals == 2


@given(
    st.floats(0.05, 50),
    st.lists(st.tuples(st.floats(0, 30), st.floats(0.01, 60), st.floats(0, 60)), min_size=1, max_size=30),
)
def test_no_minute_ever_holds_more_than_the_budget(
    per_minute: float, requests: list[tuple[float, float, float]]
) -> None:
    budget, now, used = BudgetWindow(per_minute), 0.0, []
    window = max(60.0, 60.0 / per_minute)
    most = max(per_minute, 1.0)
    for pause, amount, _ in requests:
        now += pause
        wait = budget.wait_for(amount, now)
        assert wait >= 0
        now += wait
        assert budget.wait_for(amount, now) == 0  # who waited as told need not wait again
        budget.take(amount, now)
        used.append((now, min(amount, most)))
    for end, _ in used:
        assert sum(amount for at, amount in used if end - window + 1e-6 < at <= end) <= most + 1e-3


@pytest.mark.parametrize(
    ("per_minute", "times"),
    [
        (3, [0, 0, 0, 60, 60, 60]),
        (1, [0, 60, 120]),
        (0.5, [0, 120, 240]),
        (0.1, [0, 600]),
        (1.5, [0, 60]),
    ],
)
async def test_a_budget_of_requests(per_minute: float, times: list[float]) -> None:
    limiter = RateLimiter("server", requests_per_minute=per_minute)
    assert await send_times(limiter, *[1.0] * len(times)) == pytest.approx(times)


async def test_a_budget_of_tokens_and_the_scarcer_of_two() -> None:
    assert await send_times(RateLimiter("server", tokens_per_minute=600), 500, 100, 50, 5) == pytest.approx(
        [0, 0, 60, 60]
    )
    limiter = RateLimiter("server", requests_per_minute=2, tokens_per_minute=600)
    assert await send_times(limiter, 500, 50, 0) == pytest.approx([0, 0, 60])
    assert limiter.waiting == 0


async def test_an_estimate_is_settled_by_what_was_used() -> None:
    limiter = RateLimiter("server", tokens_per_minute=600)
    reservation = await limiter.acquire("m", 600)
    async with anyio.create_task_group() as group:

        async def wait() -> None:
            assert await send_times(limiter, 500) == pytest.approx([10])

        group.start_soon(wait)
        await anyio.sleep(10)
        assert limiter.waiting == 1
        limiter.settle(reservation, Usage(prompt_tokens=50, completion_tokens=50, total_tokens=100))
        limiter.settle(reservation, Usage(total_tokens=600))  # only the first counts
    later = await limiter.acquire("m", 0)
    limiter.settle(later, Usage())  # a server that does not count
    limiter.settle(later, Usage(prompt_tokens=3, completion_tokens=1))  # settled already
    assert await send_times(limiter, 1) == pytest.approx([50])


@pytest.mark.parametrize(
    ("estimate", "used", "wait"),
    [
        (300, None, 120),  # more than the whole budget holds back for as long as it takes to make up for it ...
        (300, 76, 76),
        (1, 90, 90),
        (1, 2**31, 120),  # ... but no longer than two minutes
        (60, 30, 0),
    ],
)
async def test_debt_is_bounded(estimate: float, used: int | None, wait: float) -> None:
    limiter = RateLimiter("server", tokens_per_minute=60)
    reservation = await limiter.acquire("m", estimate)
    if used is not None:
        limiter.settle(reservation, Usage(total_tokens=used))
    assert await send_times(limiter, 20) == pytest.approx([wait])


async def test_requests_close_together_are_settled_one_by_one() -> None:
    limiter = RateLimiter("server", tokens_per_minute=60)
    first, second = await limiter.acquire("m", 20), await limiter.acquire("m", 20)
    limiter.settle(first, Usage(total_tokens=100))
    limiter.settle(second, Usage(total_tokens=10))
    assert await send_times(limiter, 50) == pytest.approx([100])


async def test_a_request_that_was_never_sent_gives_everything_back() -> None:
    limiter = RateLimiter("server", requests_per_minute=1, tokens_per_minute=60)
    limiter.cancel(await limiter.acquire("m", 60))
    assert limiter.in_flight == 0
    assert await send_times(limiter, 60) == [0]
    with anyio.move_on_after(30) as scope:
        await limiter.acquire("m", 1)
    assert scope.cancelled_caught
    assert limiter.waiting == 0
    assert await send_times(limiter, 1) == pytest.approx([30])


@pytest.mark.parametrize("step", ["wait_for", "take", "settle", "cancel", "on_pause"])
async def test_a_pacer_that_fails_fails_at_most_the_request_that_asks(
    step: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> float:
        raise LookupError

    pacer = BudgetPacer(100, 6000)
    monkeypatch.setattr(BudgetPacer, step, fail)
    limiter = RateLimiter("server", pacer=pacer)
    fails_request = step in {"wait_for", "take"}
    with pytest.raises(LookupError) if fails_request else nullcontext():
        limiter.cancel(await limiter.acquire("m", 1))
        reservation = await respond(limiter)
        limiter.pause("m", 1, "task")
        limiter.settle(reservation, Usage(total_tokens=2))
    assert (limiter.in_flight, limiter.waiting) == (0, 0)
    logged = {record.name for record in caplog.records if record.exc_info}
    assert logged == (set() if fails_request else {"chatscope.callbacks"})


async def test_the_estimate_learns_from_responses() -> None:
    limiter = RateLimiter("server")
    body = b"x" * 400
    assert limiter.estimate(body, None) == 400 / CHARACTERS_PER_TOKEN + FIRST_GUESS
    assert limiter.estimate(body, 10) == 110
    assert limiter.estimate(body, 100_000) == 100 + FIRST_GUESS
    reservation = await limiter.acquire("m", 1)
    for _ in range(100):
        limiter.settle(reservation, Usage(total_tokens=8, completion_tokens=8))
    assert limiter.estimate(b"", None) == pytest.approx(8, rel=0.01)


# -- priorities ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["m", "another model"])
async def test_priorities_hold_where_the_budget_is_scarce(other: str) -> None:
    limiter, began, sent = RateLimiter("server", requests_per_minute=1), anyio.current_time(), []

    async def request(name: str, model: str, priority: float) -> None:
        await limiter.acquire(model, 1, priority)
        sent.append((name, anyio.current_time() - began))

    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(request, f"low {number}", "m", 0.0)
            await anyio.wait_all_tasks_blocked()
        await anyio.sleep(1)
        group.start_soon(request, "high", other, 10.0)
        group.start_soon(request, "lowest", other, -1.0)
    assert [name for name, _ in sent] == ["low 0", "high", "low 1", "low 2", "low 3", "lowest"]
    assert [at for _, at in sent] == pytest.approx([0, 60, 120, 180, 240, 300])


async def test_a_model_that_is_blocked_holds_up_no_other() -> None:
    limiter = RateLimiter("server", requests_per_minute=100)
    limiter.pause("a", 50, "task")
    async with anyio.create_task_group() as group:
        group.start_soon(limiter.acquire, "a", 1, 10.0)
        await anyio.wait_all_tasks_blocked()
        assert await send_times(limiter, 1, 1, model="b") == [0, 0]


async def test_a_waiter_that_becomes_blocked_lets_the_others_go() -> None:
    limiter = RateLimiter("server", requests_per_minute=1)
    await limiter.acquire("a", 1)
    times: list[float] = []
    async with anyio.create_task_group() as group:
        group.start_soon(limiter.acquire, "a", 1, 10.0)

        async def other() -> None:
            times.extend(await send_times(limiter, 1, model="b"))

        group.start_soon(other)
        await anyio.sleep(30)
        limiter.pause("a", 100, "task")
        await anyio.sleep(40)
    assert times == pytest.approx([60])


# -- what headers say ------------------------------------------------------------------------------------------------


async def test_no_limit_is_no_wait() -> None:
    limiter = RateLimiter("server")
    assert limiter.acquire_nowait("m", 1e9) is not None
    await respond(limiter, limit=10, remaining=9, reset="6s")  # plenty is left
    assert await send_times(limiter, *[1e9] * 50) == [0.0] * 50


async def test_little_left_slows_down() -> None:
    limiter = RateLimiter("server")
    await respond(limiter, limit=10, remaining=2, reset="16s")  # 8 come back within 16 s: one every 2 s
    assert limiter.acquire_nowait("m", 1) is None
    assert await send_times(limiter, *[1.0] * 5) == pytest.approx([0, 0, 2, 4, 6])
    limiter = RateLimiter("server")
    await respond(limiter, tokens=100, limit=1000, remaining=100, reset="90s", what="tokens")
    assert await send_times(limiter, 100, 50) == pytest.approx([0, 5])


@pytest.mark.parametrize("answered", [False, True])
async def test_what_is_in_flight_may_not_be_counted_yet(answered: bool) -> None:
    limiter = RateLimiter("server")
    first, *others = [await limiter.acquire("m", 1) for _ in range(4)]
    for reservation in others if answered else ():
        limiter.on_no_response(reservation)
    limiter.on_response(first, limits(limit=10, remaining=4, reset="60s"))
    # Six come back within 60 s; of the four that are left, three may be used up by what is in flight.
    assert await send_times(limiter, 1, 1, 1, 1, 1) == pytest.approx(
        [0, 0, 0, 0, 10] if answered else [0, 10, 20, 30, 40]
    )


async def test_a_later_response_corrects_what_was_learned() -> None:
    limiter = RateLimiter("server")
    later = await limiter.acquire("m", 1)
    await respond(limiter, limit=10, remaining=0, reset="100s")
    async with anyio.create_task_group() as group:

        async def wait() -> None:
            assert await send_times(limiter, 1) == pytest.approx([3])

        group.start_soon(wait)
        await anyio.sleep(3)
        limiter.on_response(later, limits(limit=10, remaining=5, reset="50s"))


async def test_one_model_s_limits_hold_up_that_model_only() -> None:
    limiter = RateLimiter("server")
    await respond(limiter, "rare", limit=3, remaining=0, reset="300s")
    limiter.pause("paused", 50, "task")
    for _ in range(5):
        assert await send_times(limiter, 1, model="common") == [0]
        await respond(limiter, "common", limit=10_000, remaining=4999, reset="6ms")
    assert await send_times(limiter, 1, model="rare") == pytest.approx([100])
    assert await send_times(limiter, 1, model="paused") == [0]


async def test_models_that_share_a_limit_share_what_is_left_of_it() -> None:
    limiter = RateLimiter("server")
    await respond(limiter, "a", limit=4, remaining=1, reset="90s")
    await respond(limiter, "b", limit=4, remaining=0, reset="120s")  # b used the one that a had left
    assert await send_times(limiter, 1, model="a") == pytest.approx([30])


async def test_models_with_equal_limits_of_their_own_do_not_share_them() -> None:
    limiter = RateLimiter("server")
    await respond(limiter, "a", limit=3, remaining=1, reset="200s")
    await respond(limiter, "b", limit=3, remaining=1, reset="200s")  # not what a would have left
    await respond(limiter, "a", limit=3, remaining=0, reset="300s")
    assert await send_times(limiter, 1, model="b") == [0]


async def test_models_that_turn_out_not_to_share_a_limit_part() -> None:
    limiter = RateLimiter("server")
    await respond(limiter, "a", limit=9, remaining=4, reset="60s")
    await respond(limiter, "b", limit=9, remaining=3, reset="60s")  # so it may be the same
    await respond(limiter, "b", limit=9, remaining=0, reset="60s")  # but a has not used those
    assert await send_times(limiter, 1, 1, model="a") == [0, 0]


async def test_what_was_learned_expires() -> None:
    limiter = RateLimiter("server")
    await respond(limiter, limit=3, remaining=0, reset="90s")
    assert await send_times(limiter, 1, 1) == pytest.approx([30, 60])
    await anyio.sleep(30)
    assert await send_times(limiter, *[1.0] * 9) == [0] * 9
    await respond(limiter, limit=6, remaining=0)  # without a reset, all comes back within a minute
    assert await send_times(limiter, 1) == pytest.approx([10])


@pytest.mark.parametrize(("seconds", "wait"), [(LONGEST_LEARNED_WAIT, LONGEST_LEARNED_WAIT), (121, 0)])
async def test_a_learned_wait_that_is_too_long_is_not_believed(seconds: float, wait: float) -> None:
    limiter = RateLimiter("server")
    await respond(limiter, limit=1, remaining=0, reset=f"{seconds}s")
    assert await send_times(limiter, 1) == pytest.approx([wait])


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"limit": 10},
        {"remaining": 0},
        {"limit": -1, "remaining": 0},
        {"limit": 0, "remaining": 0},
        {"limit": 10, "remaining": -1},
        {"limit": 10, "remaining": 11, "reset": "60s"},
    ],
)
async def test_headers_that_say_nothing(headers: dict[str, Any]) -> None:
    limiter = RateLimiter("server")
    await respond(limiter, **headers)
    assert await send_times(limiter, 1, 1, 1) == [0, 0, 0]


async def test_models_are_not_remembered_without_need() -> None:
    limiter = RateLimiter("server")
    for number in range(10 * MOST_MODELS):
        await respond(limiter, f"model {number}", limit=10, remaining=1, reset="1s")
        await anyio.sleep(0.1)
    assert len(limiter._models) <= MOST_MODELS + 1
    assert len(limiter._shared_requests) <= 1


# -- pauses ----------------------------------------------------------------------------------------------------------


async def test_a_pause_holds_all_requests_for_a_model(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    limiter = RateLimiter("api.example")
    limiter.pause("m", 5, "task 1")
    limiter.pause("m", 3, "task 2")  # it is over before the first one
    assert await send_times(limiter, 1, 1) == pytest.approx([5, 5])
    assert await send_times(limiter, 1) == [0]
    assert [record.getMessage() for record in caplog.records if record.name == "chatscope.pacing"] == [
        "task 1: api.example asks for a pause; requests for m wait 5 s"
    ]


@pytest.mark.parametrize("budget", [None, 100])
async def test_a_pause_can_be_prolonged_while_requests_wait(budget: float | None) -> None:
    limiter = RateLimiter("server", requests_per_minute=budget)
    limiter.pause("m", 5, "task 1")
    async with anyio.create_task_group() as group:

        async def wait() -> None:
            assert await send_times(limiter, 1) == pytest.approx([14])

        group.start_soon(wait)
        await anyio.sleep(4)
        limiter.pause("m", 10, "task 2")


async def test_a_pause_and_a_budget() -> None:
    limiter = RateLimiter("server", requests_per_minute=1)
    assert await send_times(limiter, 1) == [0]
    limiter.pause("m", 70, "task")
    assert await send_times(limiter, 1, 1) == pytest.approx([70, 130])
