"""Deadlines: their check, their error, and a block that must end by one."""

from __future__ import annotations

import asyncio
import math
from typing import Any, get_args

import anyio
import anyio.lowlevel
import pytest
from tests.support.tables import each_row

from chatscope._limits.timeouts import CallDeadlines, Deadline, Timeouts, fail_at, transport_timeout
from chatscope._validation import check_count, check_rate, check_seconds, check_wait
from chatscope.errors import APITimeoutError, InternalServerError, Phase

NO_NUMBERS = ["1", None, True, [1], 1j, math.nan]


@each_row("field", ["connect", "first_token", "idle", "total", "read"])
def test_a_timeout_that_is_none_is_named(field: str) -> None:
    for wrong in (0, 0.0, -1, -0.5, math.nan, -math.inf, "1", True, [1]):
        given: dict[str, Any] = {field: wrong}
        with pytest.raises(ValueError, match=rf"^timeout\.{field} must be a positive number of seconds, not "):
            Timeouts(**given)
    for right in (None, 1, 0.001, math.inf, 10**400):
        given = {field: right}
        assert getattr(Timeouts(**given), field) == right


@each_row("value", [0, -1, math.nan, "60", False, (1, 2)])
def test_a_timeout_argument_that_is_none(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^timeout must be a positive number of seconds, not "):
        Timeouts.of(value)


def test_what_a_timeout_argument_means() -> None:
    own = Timeouts(idle=3)
    assert Timeouts.of(own) is own
    assert Timeouts.of(5) == Timeouts(read=5)
    assert Timeouts.of(None) == Timeouts(read=None)
    assert Timeouts() == Timeouts(connect=None, first_token=None, idle=None, total=None, read=60.0)


@each_row(
    ("timeouts", "connect", "read"),
    [
        (Timeouts(), 60.0, 60.0),
        (Timeouts(connect=5), 5, 60.0),
        (Timeouts(connect=5, read=None), 5, None),
        (Timeouts(read=7), 7, 7),
        (Timeouts(read=math.inf), None, None),
        (Timeouts(connect=math.inf, read=7), None, 7),
        (Timeouts(total=1, idle=2, first_token=3), 60.0, 60.0),
    ],
)
def test_what_the_transport_is_told(timeouts: Timeouts, connect: float | None, read: float | None) -> None:
    assert timeouts.for_transport() == {"connect": connect, "read": read, "write": read, "pool": read}


def test_the_checks_name_what_they_check() -> None:
    check_seconds(None, "x")
    check_rate(None, "x")
    check_rate(0.5, "x")
    check_wait(0, "x")
    check_count(1, "x")
    for wrong in (0, -1, math.inf, *NO_NUMBERS):
        if wrong is not None:
            with pytest.raises(ValueError, match=r"^x must be a positive number, not "):
                check_rate(wrong, "x")
    for wrong in (-1, math.inf, *NO_NUMBERS):
        with pytest.raises(ValueError, match=r"^x must be a number of seconds, not "):
            check_wait(wrong, "x")
    for wrong in (0, -1, 1.0, *NO_NUMBERS):
        with pytest.raises(ValueError, match=r"^x must be a whole number of at least 1, not "):
            check_count(wrong, "x")


@each_row("phase", get_args(Phase))
def test_the_error_names_the_phase_and_the_seconds(phase: Phase) -> None:
    error = Deadline(0.0, phase, 2.5).error()
    assert type(error) is APITimeoutError
    assert error.phase == phase
    assert "2.5 s" in str(error)
    assert str(error).endswith(f"({phase})")


def test_a_transport_s_own_timeout() -> None:
    assert str(transport_timeout(Timeouts(connect=3), "connect")) == "no connection within 3 s (connect)"
    assert str(transport_timeout(Timeouts(), "connect")) == "no connection within 60 s (connect)"
    assert str(transport_timeout(Timeouts(connect=3, read=7), "headers")) == "no response within 7 s (headers)"
    assert transport_timeout(Timeouts(read=7), "idle").phase == "idle"
    assert (
        transport_timeout(Timeouts(read=None), "idle").phase == "idle"
    )  # a user's own client may have timeouts of its own


async def test_no_deadline_is_no_scope() -> None:
    with fail_at(None) as block:
        block.move(Deadline(anyio.current_time() - 1, "idle", 1))
        await anyio.lowlevel.checkpoint()
    with pytest.raises(KeyError, match="own"), fail_at(None):
        raise KeyError("own")


async def test_a_deadline_that_does_not_pass() -> None:
    for deadline in (Deadline(anyio.current_time() + 1000, "total", 1000), Deadline(math.inf, "total", math.inf)):
        with fail_at(deadline):
            await anyio.lowlevel.checkpoint()
    with fail_at(Deadline(anyio.current_time() - 1, "total", 3)):
        pass  # over before anything could be cancelled
    error = ValueError("own")
    with pytest.raises(ValueError, match="own") as caught, fail_at(Deadline(anyio.current_time() - 1, "total", 3)):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (None, "not finished within 3 s (total)"),
        (
            InternalServerError("HTTP 503: down"),
            "not finished within 3 s (total); last failure: HTTP 503: down",
        ),
        (KeyError(), "not finished within 3 s (total); last failure: KeyError"),
    ],
)
async def test_a_deadline_that_passes_becomes_its_error(failure: Exception | None, message: str) -> None:
    later, passed = Deadline(anyio.current_time() + 1000, "total", 1000), Deadline(anyio.current_time() - 1, "total", 3)
    with pytest.raises(APITimeoutError) as caught, fail_at(later), fail_at(passed, lambda: failure):
        await anyio.sleep_forever()
    assert caught.value.phase == "total"
    assert str(caught.value) == message
    assert caught.value.__cause__ is failure


async def test_cancellation_from_outside_passes_through_untouched() -> None:
    now = anyio.current_time()
    for deadline in (
        Deadline(now + 1000, "idle", 1000),
        Deadline(math.inf, "idle", 1),
        Deadline(now - 1, "idle", 1),
        None,
    ):
        with anyio.CancelScope() as scope:
            scope.cancel()
            with fail_at(deadline):
                await anyio.sleep_forever()
            pytest.fail("cancellation was swallowed")
        assert scope.cancelled_caught


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})])
async def test_a_host_s_own_cancellation_on_asyncio() -> None:
    async def work() -> None:
        with fail_at(Deadline(anyio.current_time() + 1000, "total", 1000)):
            await anyio.sleep_forever()

    task = asyncio.create_task(work())
    await anyio.wait_all_tasks_blocked()
    task.cancel("by the host")
    with pytest.raises(asyncio.CancelledError, match="by the host"):
        await task


class TestInVirtualTime:
    """Exact moments."""

    @pytest.fixture
    def anyio_backend(self, virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
        return virtual_time

    async def test_a_deadline_passes_at_its_moment(self) -> None:
        began = anyio.current_time()
        with pytest.raises(APITimeoutError), fail_at(Deadline(began + 2.5, "total", 2.5)):
            await anyio.sleep(1000)
        assert anyio.current_time() - began == pytest.approx(2.5)

    async def test_a_deadline_can_be_moved(self) -> None:
        began = anyio.current_time()

        async def work() -> None:
            with fail_at(Deadline(began + 2, "first_token", 2)) as block:
                await anyio.sleep(1.5)
                block.move(Deadline(began + 4.5, "idle", 3))
                await anyio.sleep(1.5)
                block.move(None)  # nothing further: it stays as it is
                await anyio.sleep(1000)

        with pytest.raises(APITimeoutError) as caught:
            await work()
        assert anyio.current_time() - began == pytest.approx(4.5)
        assert (caught.value.phase, str(caught.value)) == ("idle", "nothing received for 3 s (idle)")

    async def test_the_deadlines_of_a_call(self) -> None:
        began = anyio.current_time()
        deadlines = CallDeadlines(Timeouts(first_token=5, idle=3, total=20))
        assert deadlines.total == Deadline(began + 20, "total", 20)
        assert deadlines.queue == Deadline(began + 20, "queue", 20)
        await anyio.sleep(1)
        deadlines.on_attempt()
        assert deadlines.first_token() == Deadline(began + 6, "first_token", 5)
        await anyio.sleep(2)
        deadlines.on_chunk()
        assert deadlines.next_chunk() == Deadline(began + 6, "idle", 3)
        await anyio.sleep(15)
        deadlines.on_chunk()
        assert deadlines.next_chunk() == Deadline(began + 20, "total", 20)
        deadlines.on_attempt()
        assert deadlines.first_token() == Deadline(began + 23, "first_token", 5)

    async def test_a_call_with_one_deadline_or_none(self) -> None:
        began = anyio.current_time()
        deadlines = CallDeadlines(Timeouts())
        deadlines.on_attempt()
        deadlines.on_chunk()
        assert deadlines.total is deadlines.queue is deadlines.first_token() is deadlines.next_chunk() is None
        deadlines = CallDeadlines(Timeouts(total=4))
        assert deadlines.next_chunk() == deadlines.total == Deadline(began + 4, "total", 4)
        deadlines = CallDeadlines(Timeouts(idle=4))
        await anyio.sleep(1)
        deadlines.on_chunk()
        assert deadlines.next_chunk() == Deadline(began + 5, "idle", 4)
        assert deadlines.total is None
