"""How fast requests go out: budgets, what headers say, and pauses, in virtual time."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatscope._limits.rate_limit import CHARACTERS_PER_TOKEN, FIRST_GUESS, LONGEST_LEARNED_WAIT, Bucket, Meter, Pacer


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    return virtual_time


async def departures(pacer: Pacer, *amounts: float) -> list[float]:
    """Let requests for so many tokens each wait at once; return after how many seconds each was admitted."""
    began, left = anyio.current_time(), [0.0] * len(amounts)

    async def request(number: int, tokens: float) -> None:
        await pacer.acquire(tokens)
        left[number] = anyio.current_time() - began

    async with anyio.create_task_group() as group:
        for number, tokens in enumerate(amounts):
            group.start_soon(request, number, tokens)
            await anyio.wait_all_tasks_blocked()
    return left


def limits(
    *, limit: int | None = None, remaining: int | None = None, reset: str | None = None, what: str = "requests"
) -> dict[str, str]:
    given = {"limit": limit, "remaining": remaining, "reset": reset}
    return {f"x-ratelimit-{name}-{what}": str(value) for name, value in given.items() if value is not None}


def test_a_bucket() -> None:
    bucket = Bucket(10, 2, now=0)
    assert bucket.wait_for(10, 0) == 0
    bucket.take(10)
    assert bucket.wait_for(3, 0) == pytest.approx(1.5)
    assert bucket.wait_for(3, 1) == pytest.approx(0.5)
    assert bucket.wait_for(3, 1.5) == 0
    bucket.settle(10, 2)
    assert bucket.level == 10
    bucket.settle(5, 20)  # more was used than reserved
    assert bucket.wait_for(1, 1.5) == pytest.approx(3)


def test_more_than_a_bucket_holds_counts_as_all_of_it() -> None:
    bucket = Bucket(10, 1, now=0)
    assert bucket.wait_for(1000, 0) == 0
    bucket.take(1000)
    assert bucket.level == 0
    assert bucket.wait_for(1000, 0) == pytest.approx(10)


@given(st.lists(st.floats(0.01, 50), min_size=1, max_size=20))
def test_who_waits_as_told_need_not_wait_again(amounts: list[float]) -> None:
    bucket, now = Bucket(20, 0.7, now=0), 0.0
    for amount in amounts:
        now += bucket.wait_for(amount, now)
        assert bucket.wait_for(amount, now) == 0
        bucket.take(amount)


async def test_no_limit_is_no_wait() -> None:
    pacer = Pacer("server")
    assert await departures(pacer, *[1e9] * 50) == [0.0] * 50
    assert pacer.waiting == 0


async def test_a_budget_of_requests() -> None:
    left = await departures(Pacer("server", requests_per_minute=3), *[1.0] * 6)
    assert left == pytest.approx([0, 0, 0, 20, 40, 60])


async def test_a_budget_of_tokens() -> None:
    left = await departures(Pacer("server", tokens_per_minute=600), 500, 100, 50, 5)
    assert left == pytest.approx([0, 0, 5, 5.5])


async def test_the_scarcer_of_two_budgets_counts() -> None:
    left = await departures(Pacer("server", requests_per_minute=2, tokens_per_minute=600), 600, 60, 0)
    assert left == pytest.approx([0, 6, 30])


async def test_what_a_request_really_used_settles_its_estimate() -> None:
    pacer = Pacer("server", tokens_per_minute=600)
    assert await departures(pacer, 600) == [0]
    pacer.on_usage(600, total_tokens=100, completion_tokens=50)
    assert await departures(pacer, 500) == [0]
    pacer.on_usage(500, total_tokens=560, completion_tokens=50)
    assert await departures(pacer, 60) == pytest.approx([12])


async def test_a_request_beyond_the_budget_leaves_the_debt_that_it_has_made() -> None:
    pacer = Pacer("server", tokens_per_minute=60)
    assert await departures(pacer, 300) == [0]
    pacer.on_usage(300, total_tokens=76, completion_tokens=1)
    assert await departures(pacer, 1) == pytest.approx([17])
    pacer.on_usage(1, total_tokens=1, completion_tokens=1)
    assert await departures(pacer, 300) == pytest.approx([60])
    pacer.on_usage(300, total_tokens=10, completion_tokens=1)
    assert await departures(pacer, 50) == [0]


async def test_what_comes_back_lets_the_first_go_earlier() -> None:
    pacer = Pacer("server", tokens_per_minute=60)
    left: list[float] = []
    async with anyio.create_task_group() as group:

        async def wait() -> None:
            left.extend(await departures(pacer, 60, 60))

        group.start_soon(wait)
        await anyio.sleep(10)
        assert pacer.waiting == 1
        pacer.on_usage(60, total_tokens=10, completion_tokens=5)
    assert left == pytest.approx([0, 10])


async def test_a_cancelled_request_takes_nothing() -> None:
    pacer = Pacer("server", requests_per_minute=1)
    assert await departures(pacer, 1) == [0]
    with anyio.move_on_after(30) as scope:
        await pacer.acquire(1)
    assert scope.cancelled_caught
    assert pacer.waiting == 0
    assert await departures(pacer, 1) == pytest.approx([30])


async def test_the_estimate_learns_from_replies() -> None:
    pacer = Pacer("server")
    body = b"x" * 400
    assert pacer.estimate(body, None) == 400 / CHARACTERS_PER_TOKEN + FIRST_GUESS
    assert pacer.estimate(body, 10) == 110
    assert pacer.estimate(body, 100_000) == 100 + FIRST_GUESS
    pacer.on_usage(1, total_tokens=1, completion_tokens=0)
    assert pacer.estimate(b"", None) == FIRST_GUESS
    for _ in range(100):
        pacer.on_usage(1, total_tokens=1, completion_tokens=8)
    assert pacer.estimate(b"", None) == pytest.approx(8, rel=0.01)


async def test_plenty_left_is_nothing_learned() -> None:
    pacer = Pacer("server")
    await pacer.acquire(1)
    pacer.on_response(1, limits(limit=10, remaining=9, reset="6s"))
    assert await departures(pacer, *[1.0] * 20) == [0.0] * 20


async def test_little_left_slows_down() -> None:
    pacer = Pacer("server")
    await pacer.acquire(1)
    pacer.on_response(1, limits(limit=10, remaining=2, reset="16s"))  # 8 come back within 16 s: one every 2 s
    assert await departures(pacer, *[1.0] * 5) == pytest.approx([0, 0, 2, 4, 6])


async def test_what_is_under_way_is_taken_from_what_is_left() -> None:
    pacer = Pacer("server")
    for _ in range(4):
        await pacer.acquire(1)
    pacer.on_response(1, limits(limit=10, remaining=4, reset="60s"))
    # Three more are under way, so one may go at once; six come back within 60 s.
    assert await departures(pacer, 1, 1, 1) == pytest.approx([0, 10, 20])


async def test_a_request_without_a_reply_is_under_way_no_longer() -> None:
    pacer = Pacer("server")
    for _ in range(4):
        await pacer.acquire(1)
    for _ in range(3):
        pacer.on_no_response(1)
    pacer.on_response(1, limits(limit=10, remaining=4, reset="60s"))
    assert await departures(pacer, 1, 1, 1, 1, 1) == pytest.approx([0, 0, 0, 0, 10])


async def test_limits_of_tokens() -> None:
    pacer = Pacer("server")
    await pacer.acquire(100)
    pacer.on_response(100, limits(limit=1000, remaining=100, reset="90s", what="tokens"))
    assert await departures(pacer, 100, 50) == pytest.approx([0, 5])


async def test_a_later_reply_corrects_what_was_learned() -> None:
    pacer = Pacer("server")
    await pacer.acquire(1)
    pacer.on_response(1, limits(limit=10, remaining=0, reset="100s"))
    left: list[float] = []
    async with anyio.create_task_group() as group:

        async def wait() -> None:
            left.extend(await departures(pacer, 1))

        group.start_soon(wait)
        await anyio.sleep(3)
        pacer.on_response(0, limits(limit=10, remaining=5, reset="50s"))
    assert left == pytest.approx([3])


async def test_a_learned_wait_that_is_too_long_is_not_believed() -> None:
    pacer = Pacer("server")
    await pacer.acquire(1)
    pacer.on_response(1, limits(limit=1, remaining=0, reset=f"{LONGEST_LEARNED_WAIT + 1}s"))
    assert await departures(pacer, 1, 1) == [0, 0]


async def test_a_learned_wait_that_is_just_short_enough() -> None:
    pacer = Pacer("server")
    await pacer.acquire(1)
    pacer.on_response(1, limits(limit=1, remaining=0, reset=f"{LONGEST_LEARNED_WAIT}s"))
    assert await departures(pacer, 1) == pytest.approx([LONGEST_LEARNED_WAIT])


@pytest.mark.parametrize(
    "headers",
    [
        {},
        limits(limit=10),
        limits(remaining=0),
        limits(limit=-1, remaining=0),
        limits(limit=0, remaining=0),
        limits(limit=10, remaining=-1),
        limits(limit=10, remaining=11, reset="60s"),
    ],
)
async def test_headers_that_say_nothing(headers: dict[str, str]) -> None:
    pacer = Pacer("server")
    await pacer.acquire(1)
    pacer.on_response(1, headers)
    assert await departures(pacer, 1, 1, 1) == [0, 0, 0]


async def test_limits_without_a_reset_come_back_within_a_minute() -> None:
    meter = Meter(None)
    meter.learn(limit=6, remaining=0, reset=None, now=0)
    assert meter.wait_for(1, 0) == pytest.approx(10)
    meter.learn(limit=6, remaining=6, reset=5, now=0)
    assert meter.wait_for(1, 0) == 0


async def test_a_pause_holds_everybody(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    pacer = Pacer("api.example")
    pacer.pause(5, "task 1")
    pacer.pause(3, "task 2")  # it is over before the first one
    assert await departures(pacer, 1, 1) == pytest.approx([5, 5])
    assert await departures(pacer, 1) == [0]
    assert [
        (record.levelno, record.getMessage()) for record in caplog.records if record.name == "chatscope.pacing"
    ] == [(logging.INFO, "task 1: api.example asks for a pause; all its requests wait 5 s")]


async def test_a_pause_can_be_prolonged_while_somebody_waits() -> None:
    pacer = Pacer("server")
    pacer.pause(5, "task 1")
    left: list[float] = []
    async with anyio.create_task_group() as group:

        async def wait() -> None:
            left.extend(await departures(pacer, 1))

        group.start_soon(wait)
        await anyio.sleep(4)
        pacer.pause(10, "task 2")
    assert left == pytest.approx([14])


async def test_a_pause_and_a_budget() -> None:
    pacer = Pacer("server", requests_per_minute=1)
    assert await departures(pacer, 1) == [0]
    pacer.pause(70, "task")
    assert await departures(pacer, 1, 1) == pytest.approx([70, 130])
