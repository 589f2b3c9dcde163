"""A hedge by itself: who wins, what becomes of the other, whose error comes out, and what cancellation does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import pytest

from chatscope._tasks.hedging import Hedge

HANGS = 30.0
"""Seconds after which a test counts as hanging; none of them waits for anything but the others."""


class Attempt:
    """An attempt that goes as far as a test lets it.

    Args:
        name: what it returns.
        log: what happened to all of them.
        error: what it ends with instead.

    Attributes:
        begun: set when it has begun.
        show: lets it show output; `won` is what it was told then.
        end: lets it end.
        over: set when it has ended.
    """

    def __init__(self, name: str, log: list[str], *, error: Exception | None = None) -> None:
        self.name = name
        self.log = log
        self.error = error
        self.won: bool | None = None
        self.begun = anyio.Event()
        self.show = anyio.Event()
        self.end = anyio.Event()
        self.over = anyio.Event()

    async def __call__(self, claim: Callable[[], bool]) -> str:
        self.begun.set()
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._show, claim)
                await self.end.wait()
                group.cancel_scope.cancel()
        except BaseException:
            self.log.append(f"{self.name} is cancelled")
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            self.log.append(f"{self.name} has cleaned up")
            raise
        finally:
            self.over.set()
        if self.error is not None:
            raise self.error
        return self.name

    async def _show(self, claim: Callable[[], bool]) -> None:
        await self.show.wait()
        self.won = claim()


class Run:
    """A hedge that runs beside the test."""

    def __init__(self, first: Attempt, second: Attempt | None, after: float = 0.0) -> None:
        self.scope = anyio.CancelScope()
        self.ended = anyio.Event()
        self.outcome: str | Exception | None = None
        self._attempts = first, second
        self._after = after

    async def __call__(self) -> None:
        first, second = self._attempts
        with self.scope:
            try:
                self.outcome = await Hedge[str]().run(first, self._after, lambda: second)
            except Exception as error:  # noqa: BLE001 - which one is what the tests ask
                self.outcome = error
        self.ended.set()


async def both_begun(first: Attempt, second: Attempt) -> None:
    await first.begun.wait()
    await second.begun.wait()


@pytest.mark.parametrize("error", [None, ValueError("no")])
async def test_an_attempt_that_ends_in_time_needs_no_second(error: Exception | None) -> None:
    first, second = Attempt("first", [], error=error), Attempt("second", [])
    run = Run(first, second, after=HANGS)
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            first.end.set()
    assert run.outcome == (error or "first")
    assert not second.begun.is_set()


async def test_without_leave_for_a_second_the_first_goes_on() -> None:
    first = Attempt("first", [])
    run = Run(first, None)
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await anyio.wait_all_tasks_blocked()
            first.end.set()
    assert run.outcome == "first"


@pytest.mark.parametrize("shows", [True, False], ids=["by output", "by its end"])
@pytest.mark.parametrize("winner", [0, 1])
async def test_the_first_to_deliver_wins_and_the_other_has_cleaned_up_before_the_result(
    winner: int, shows: bool
) -> None:
    log: list[str] = []
    attempts = [Attempt("first", log), Attempt("second", log)]
    wins, loses = attempts[winner], attempts[1 - winner]
    run = Run(attempts[0], attempts[1])
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await both_begun(*attempts)
            if shows:
                wins.show.set()
                await loses.over.wait()
                assert run.outcome is None
            wins.end.set()
    assert run.outcome == wins.name
    assert log == [f"{loses.name} is cancelled", f"{loses.name} has cleaned up"]
    assert (wins.won, loses.won) == (True if shows else None, None)


async def test_a_second_attempt_whose_first_step_comes_after_the_end_is_not_begun() -> None:
    """It would send a request, which is paid for, only to be cancelled. trio chooses the order of the two."""

    async def begins_late() -> bool:
        output, won, is_late = anyio.Event(), False, False

        async def first(claim: Callable[[], bool]) -> None:
            nonlocal won
            await output.wait()
            won = claim()

        async def second(_claim: Callable[[], bool]) -> None:
            nonlocal is_late
            is_late = won
            await anyio.sleep_forever()

        def start_second() -> Callable[[Callable[[], bool]], Awaitable[None]]:
            output.set()
            return second

        await Hedge[None]().run(first, 0.0, start_second)
        return is_late

    with anyio.fail_after(HANGS):
        assert not any([await begins_late() for _ in range(20)])


async def test_an_attempt_that_claims_too_late_is_told_so() -> None:
    log: list[str] = []
    second = Attempt("second", log)
    claims: list[bool] = []

    async def too_late(claim: Callable[[], bool]) -> str:
        with anyio.CancelScope(shield=True):  # its bytes were on their way when the other won
            await second.end.wait()
            claims.append(claim())
        return "too late"

    outcomes: list[str] = []
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as group:

            async def run() -> None:
                outcomes.append(await Hedge[str]().run(too_late, 0.0, lambda: second))

            group.start_soon(run)
            await second.begun.wait()
            second.show.set()
            await anyio.wait_all_tasks_blocked()
            second.end.set()
    assert outcomes == ["second"]
    assert claims == [False]


@pytest.mark.parametrize("fails_first", [0, 1])
@pytest.mark.parametrize("other_fails", [True, False])
async def test_an_attempt_that_fails_leaves_the_other_running(fails_first: int, other_fails: bool) -> None:
    errors = [ValueError("one"), ValueError("two")]
    attempts = [
        Attempt(str(number), [], error=error if other_fails or number == fails_first else None)
        for number, error in enumerate(errors)
    ]
    run = Run(attempts[0], attempts[1])
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await both_begun(*attempts)
            attempts[fails_first].end.set()
            await attempts[fails_first].over.wait()
            await anyio.wait_all_tasks_blocked()
            assert run.outcome is None
            attempts[1 - fails_first].end.set()
    assert run.outcome == (errors[0] if other_fails else str(1 - fails_first))


async def test_a_winner_that_fails_after_all_fails_the_hedge() -> None:
    failure = ValueError("two")
    first, second = Attempt("first", [], error=ValueError("one")), Attempt("second", [], error=failure)
    run = Run(first, second)
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await both_begun(first, second)
            second.show.set()
            await first.over.wait()
            second.end.set()
    assert run.outcome is failure


@pytest.mark.parametrize("shows", [True, False])
async def test_cancellation_reaches_both_and_passes_through(shows: bool) -> None:
    """Also in the tick in which the first output arrives."""
    log: list[str] = []
    first, second = Attempt("first", log), Attempt("second", log)
    run = Run(first, second)
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await both_begun(first, second)
            if shows:
                first.show.set()
            run.scope.cancel()
            await run.ended.wait()
    assert (run.outcome, run.scope.cancelled_caught) == (None, True)
    assert sorted(log) == sorted(
        f"{name} {end}" for name in ("first", "second") for end in ("is cancelled", "has cleaned up")
    )
