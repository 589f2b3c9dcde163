"""A race by itself: who wins, what becomes of the others, whose error comes out, and what cancellation does."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest

from chatscope._tasks.hedging import Race

HANGS = 30.0
"""Seconds after which a test counts as hanging; none of them waits for anything but the others."""


class Attempt:
    """An attempt that goes as far as a test lets it.

    Args:
        name: what it makes.
        log: what happened to all of them.
        error: what it ends with instead.

    Attributes:
        begun: whether it has begun.
        show: lets it show something; `won` says what it was told then.
        end: lets it end.
    """

    def __init__(self, name: str, log: list[str], *, error: Exception | None = None) -> None:
        self.name = name
        self.log = log
        self.error = error
        self.won: bool | None = None
        self.begun = anyio.Event()
        self.show = anyio.Event()
        self.end = anyio.Event()

    async def __call__(self, wins: Callable[[], bool]) -> str:
        self.begun.set()
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._shows, wins)
                await self.end.wait()
                group.cancel_scope.cancel()
        except BaseException:
            self.log.append(f"{self.name} is cancelled")
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            self.log.append(f"{self.name} has cleaned up")
            raise
        if self.error is not None:
            raise self.error
        return self.name

    async def _shows(self, wins: Callable[[], bool]) -> None:
        await self.show.wait()
        self.won = wins()


async def enter(race: Race[str], *attempts: Attempt) -> None:
    """Enter attempts, and let each begin."""
    for attempt in attempts:
        race.enter(attempt)
        with anyio.fail_after(HANGS):
            await attempt.begun.wait()


async def outcome(race: Race[str]) -> str | Exception:
    """Return what the race comes to; an error raised in its group's block would be wrapped there."""
    try:
        with anyio.fail_after(HANGS):
            return await race.result()
    except Exception as error:  # noqa: BLE001 - which one is what the tests ask
        return error


async def ended(race: Race[str], number: int, attempt: Attempt) -> None:
    """Let the attempt of that number end, and wait until it has."""
    attempt.end.set()
    with anyio.fail_after(HANGS):
        while not race._lanes[number].is_over:
            await anyio.lowlevel.checkpoint()


async def test_an_attempt_alone() -> None:
    attempt = Attempt("first", [])
    async with anyio.create_task_group() as group:
        race = Race[str](group)
        await enter(race, attempt)
        assert race.is_open
        attempt.end.set()
        await race.decision()
        assert not race.is_open
        assert await outcome(race) == "first"


async def test_an_error_stays_out_of_the_group() -> None:
    failure = ValueError("no")
    async with anyio.create_task_group() as group:
        race = Race[str](group)
        await enter(race, attempt := Attempt("first", [], error=failure))
        attempt.end.set()
        await race.decision()
        assert not race.is_open
        assert await outcome(race) is failure
        assert not group.cancel_scope.cancel_called


@pytest.mark.parametrize("winner", [0, 1])
async def test_the_first_to_show_something_wins_and_the_other_has_cleaned_up_before_the_result(winner: int) -> None:
    log: list[str] = []
    attempts = [Attempt("first", log), Attempt("second", log)]
    wins, loses = attempts[winner], attempts[1 - winner]
    async with anyio.create_task_group() as group:
        race = Race[str](group)
        await enter(race, *attempts)
        wins.show.set()
        await race.decision()
        assert not race.is_open
        wins.end.set()
        assert await outcome(race) == wins.name
        assert log == [f"{loses.name} is cancelled", f"{loses.name} has cleaned up"]
        assert (wins.won, loses.won) == (True, None)


async def test_ending_well_wins_without_having_shown_anything() -> None:
    log: list[str] = []
    first, second = Attempt("first", log), Attempt("second", log)
    async with anyio.create_task_group() as group:
        race = Race[str](group)
        await enter(race, first, second)
        second.end.set()
        assert await outcome(race) == "second"
    assert log == ["first is cancelled", "first has cleaned up"]


async def test_who_comes_second_in_the_same_moment_is_told_so() -> None:
    log: list[str] = []
    first, second = Attempt("first", log), Attempt("second", log)
    told: list[bool] = []

    async def too_late(wins: Callable[[], bool]) -> str:
        with anyio.CancelScope(shield=True):  # its bytes were on their way when the other won
            await second.end.wait()
            told.append(wins())
        return "too late"

    async with anyio.create_task_group() as group:
        race = Race[str](group)
        race.enter(too_late)
        await enter(race, first, second)
        second.show.set()
        await race.decision()
        second.end.set()
        assert await outcome(race) == "second"
    assert told == [False]


async def test_one_that_has_lost_before_its_first_step_does_nothing() -> None:
    first, second = Attempt("first", []), Attempt("second", [])
    async with anyio.create_task_group() as group:
        race = Race[str](group)

        async def enters_another(wins: Callable[[], bool]) -> str:
            race.enter(second)
            assert wins()
            return await first(wins)

        race.enter(enters_another)
        first.end.set()
        assert await outcome(race) == "first"
    assert not second.begun.is_set()


async def test_the_second_goes_on_when_the_first_fails() -> None:
    log: list[str] = []
    first, second = Attempt("first", log, error=ValueError("no")), Attempt("second", log)
    async with anyio.create_task_group() as group:
        race = Race[str](group)
        await enter(race, first, second)
        await ended(race, 0, first)
        assert race.is_open
        second.end.set()
        assert await outcome(race) == "second"
    assert log == []


@pytest.mark.parametrize("fails_first", [0, 1])
async def test_when_both_fail_the_error_is_that_of_the_first(fails_first: int) -> None:
    errors = [ValueError("one"), ValueError("two")]
    attempts = [Attempt("first", [], error=errors[0]), Attempt("second", [], error=errors[1])]
    async with anyio.create_task_group() as group:
        race = Race[str](group)
        await enter(race, *attempts)
        await ended(race, fails_first, attempts[fails_first])
        assert race.is_open
        attempts[1 - fails_first].end.set()
        await race.decision()
        assert not race.is_open
        assert await outcome(race) is errors[0]


async def test_a_winner_that_fails_after_all_fails_the_race() -> None:
    log: list[str] = []
    failure = ValueError("two")
    first, second = Attempt("first", log, error=ValueError("one")), Attempt("second", log, error=failure)
    async with anyio.create_task_group() as group:
        race = Race[str](group)
        await enter(race, first, second)
        second.show.set()
        await race.decision()
        second.end.set()
        assert await outcome(race) is failure
    assert log == ["first is cancelled", "first has cleaned up"]


async def test_cancellation_from_outside_reaches_every_attempt_and_passes_through() -> None:
    log: list[str] = []
    first, second = Attempt("first", log), Attempt("second", log)
    passed: list[str] = []
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            race = Race[str](group)
            await enter(race, first, second)
            scope.cancel()
            try:
                await race.result()
            except anyio.get_cancelled_exc_class():
                passed.append("cancelled")
                raise
    assert scope.cancelled_caught
    assert passed == ["cancelled"]
    assert sorted(log) == [
        "first has cleaned up",
        "first is cancelled",
        "second has cleaned up",
        "second is cancelled",
    ]


async def test_a_wait_for_the_decision_that_is_given_up_leaves_the_race_as_it_is() -> None:
    attempt = Attempt("first", [])
    async with anyio.create_task_group() as group:
        race = Race[str](group)
        await enter(race, attempt)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await race.decision()
        assert scope.cancelled_caught
        assert race.is_open
        attempt.end.set()
        assert await outcome(race) == "first"


async def test_what_is_no_failure_of_the_attempt_ends_the_whole_group() -> None:
    class Interrupt(BaseException):
        pass

    async def interrupted(_: Callable[[], bool]) -> str:
        raise Interrupt

    log: list[str] = []
    caught: list[BaseExceptionGroup[BaseException]] = []
    try:
        async with anyio.create_task_group() as group:
            race = Race[str](group)
            await enter(race, Attempt("first", log))
            race.enter(interrupted)
            await race.result()
    except BaseExceptionGroup as raised:
        caught.append(raised)
    assert [type(error) for error in caught[0].exceptions] == [Interrupt]
    assert log == ["first is cancelled", "first has cleaned up"]
