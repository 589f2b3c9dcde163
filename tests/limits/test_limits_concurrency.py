"""Whose turn it is: order, cancellation at every point, and limits that are found out."""

from __future__ import annotations

import time
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatscope._limits.concurrency import AUTO_MOST, AUTO_START, Slot, Slots
from chatscope.errors import QueueFullError

HANGS = 30.0
"""Seconds after which a test counts as hanging; none of them waits for anything but the others."""


def counts(slots: Slots) -> tuple[int, int]:
    return slots.taken, slots.waiting


async def test_a_free_slot_is_taken_without_a_task_switch() -> None:
    slots, switched = Slots(1), []

    async def other() -> None:
        switched.append(1)

    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as group:
            group.start_soon(other)
            slot = slots.reserve()
            assert slot.is_granted
            await slot.wait()
            assert not switched
            assert counts(slots) == (1, 0)
            slot.release()
            assert counts(slots) == (0, 0)


async def test_no_limit() -> None:
    slots = Slots(None)
    assert slots.total is None
    reserved = [slots.reserve() for _ in range(1000)]
    assert all(slot.is_granted for slot in reserved)
    assert counts(slots) == (1000, 0)
    for slot in reserved:
        slot.release()
    assert counts(slots) == (0, 0)


async def test_first_in_first_out() -> None:
    slots, served = Slots(2), []

    async def call(number: int) -> None:
        slot = slots.reserve()
        await slot.wait()
        served.append(number)
        assert slots.taken <= 2
        await anyio.lowlevel.checkpoint()
        slot.release()

    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(call, number)
                await anyio.lowlevel.checkpoint()
    assert served == list(range(20))
    assert counts(slots) == (0, 0)


def test_the_place_in_the_queue_is_the_order_of_entering() -> None:
    slots = Slots(1)
    first, *others = [slots.reserve() for _ in range(4)]
    assert counts(slots) == (1, 3)
    assert [slot.is_granted for slot in (first, *others)] == [True, False, False, False]
    first.release()
    assert [slot.is_granted for slot in others] == [True, False, False]
    others[1].release()  # gives up its place
    others[0].release()
    assert [slot.is_granted for slot in others] == [True, False, True]
    assert counts(slots) == (1, 0)


def test_nobody_overtakes() -> None:
    slots = Slots(1)
    first, second = slots.reserve(), slots.reserve()
    first.release()
    third = slots.reserve()  # the slot was given to the second already, though it has not run yet
    assert (second.is_granted, third.is_granted) == (True, False)


def test_higher_priorities_go_first() -> None:
    slots = Slots(1)
    holder = slots.reserve()
    reserved = {name: slots.reserve(priority) for name, priority in (("a", 0), ("b", 5), ("c", -1), ("d", 5), ("e", 0))}
    served = []
    for _ in reserved:
        holder.release()
        name, holder = next((name, slot) for name, slot in reserved.items() if slot.is_granted and not slot.is_released)
        served.append(name)
    assert served == ["b", "d", "a", "e", "c"]


def test_a_queue_that_is_full() -> None:
    slots = Slots(1, most_waiting=1)
    holder, waiter = slots.reserve(), slots.reserve()
    with pytest.raises(QueueFullError, match=r"^1 calls are waiting, as"):
        slots.reserve()
    assert counts(slots) == (1, 1)
    waiter.release()
    again = slots.reserve()
    holder.release()
    assert again.is_granted


def test_a_queue_of_no_places() -> None:
    slots = Slots(1, most_waiting=0)
    slots.reserve()
    with pytest.raises(QueueFullError):
        slots.reserve()


def test_leaving_twice_does_nothing() -> None:
    slots = Slots(1)
    first, second, third = slots.reserve(), slots.reserve(), slots.reserve()
    for slot in (first, first, third, third):
        slot.release()
    assert second.is_granted
    assert counts(slots) == (1, 0)
    second.release()
    second.release()
    assert counts(slots) == (0, 0)


async def test_a_cancelled_waiter_loses_its_place_and_nothing_else() -> None:
    slots, served = Slots(1), []
    holder = slots.reserve()
    scopes = [anyio.CancelScope() for _ in range(4)]

    async def call(number: int) -> None:
        with scopes[number]:
            slot = slots.reserve()
            await slot.wait()
            served.append(number)
            slot.release()

    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(call, number)
                await anyio.wait_all_tasks_blocked()
            assert counts(slots) == (1, 4)
            scopes[0].cancel()
            scopes[2].cancel()
            await anyio.wait_all_tasks_blocked()
            assert counts(slots) == (1, 2)
            holder.release()
    assert served == [1, 3]
    assert [scope.cancelled_caught for scope in scopes] == [True, False, True, False]
    assert counts(slots) == (0, 0)


@pytest.mark.parametrize("cancels_first", [True, False])
async def test_a_slot_handed_to_a_waiter_that_is_cancelled_goes_to_the_next(cancels_first: bool) -> None:
    slots, served = Slots(1), []
    holder = slots.reserve()
    scope = anyio.CancelScope()

    async def call(name: str, scope: anyio.CancelScope) -> None:
        with scope:
            slot = slots.reserve()
            await slot.wait()
            served.append(name)
            slot.release()

    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as group:
            group.start_soon(call, "cancelled", scope)
            await anyio.wait_all_tasks_blocked()
            group.start_soon(call, "next", anyio.CancelScope())
            await anyio.wait_all_tasks_blocked()
            # Both happen before either task runs again.
            if cancels_first:
                scope.cancel()
                holder.release()
            else:
                holder.release()
                scope.cancel()
    assert served[-1] == "next"
    assert counts(slots) == (0, 0)


@pytest.mark.parametrize("after", range(6))
async def test_cancellation_at_every_point_loses_no_slot(after: int) -> None:
    """A chain of callers, one of which is cancelled after so many steps of the loop."""
    slots, served = Slots(1), []

    async def call(number: int, scope: anyio.CancelScope) -> None:
        with scope:
            slot = slots.reserve()
            try:
                await slot.wait()
                await anyio.lowlevel.checkpoint()
                served.append(number)
            finally:
                slot.release()

    for victim in range(4):
        served.clear()
        scopes = [anyio.CancelScope() for _ in range(4)]
        with anyio.fail_after(HANGS):
            async with anyio.create_task_group() as group:
                for number, scope in enumerate(scopes):
                    group.start_soon(call, number, scope)
                for _ in range(after):
                    await anyio.lowlevel.checkpoint()
                scopes[victim].cancel()
        assert counts(slots) == (0, 0)
        assert {0, 1, 2, 3} - {victim} <= {*served}
        last = slots.reserve()
        assert last.is_granted
        last.release()


steps = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.integers(-2, 2)),
        st.tuples(st.just("leave"), st.integers(0, 50)),
    ),
    max_size=120,
)


@given(st.integers(1, 4), steps)
def test_any_order_of_entering_and_leaving(total: int, steps: list[tuple[str, int]]) -> None:
    slots = Slots(total)
    running: list[Slot] = []
    queue: list[tuple[int, int, Slot]] = []
    for number, (step, value) in enumerate(steps):
        present = [*running, *(slot for *_, slot in queue)]
        if step == "enter":
            slot = slots.reserve(value)
            if len(running) < total:
                running.append(slot)
            else:
                queue.append((-value, number, slot))
        elif present:
            slot = present[value % len(present)]
            slot.release()
            running = [other for other in running if other is not slot]
            queue = [entry for entry in queue if entry[2] is not slot]
            if len(running) < total and queue:
                entry = min(queue)
                queue.remove(entry)
                running.append(entry[2])
        assert counts(slots) == (len(running), len(queue))
        assert all(slot.is_granted for slot in running)
        assert not any(slot.is_granted for *_, slot in queue)


def test_places_given_up_do_not_pile_up() -> None:
    slots = Slots(1)
    holder, last = slots.reserve(), slots.reserve(-1)
    for _ in range(5000):
        slots.reserve().release()
    assert len(slots._queue) < 200
    assert counts(slots) == (1, 1)
    holder.release()
    assert last.is_granted


class TestAnAutomaticLimit:
    def test_it_begins_small_and_grows_while_all_are_taken(self) -> None:
        slots = Slots("auto")
        assert slots.total == AUTO_START
        reserved = [slots.reserve() for _ in range(AUTO_START + 3)]
        assert counts(slots) == (AUTO_START, 3)
        slots.on_success()
        assert slots.total == AUTO_START + 1
        assert counts(slots) == (AUTO_START + 1, 2)
        assert [slot.is_granted for slot in reserved] == [True] * (AUTO_START + 1) + [False] * 2

    def test_it_does_not_grow_while_some_are_free(self) -> None:
        slots = Slots("auto")
        for _ in range(AUTO_START - 1):
            slots.reserve()
        slots.on_success()
        assert slots.total == AUTO_START

    def test_a_refusal_halves_it_once_and_slows_it_down(self) -> None:
        slots = Slots("auto")
        reserved = [slots.reserve() for _ in range(AUTO_START + 1)]
        sent_ns = time.perf_counter_ns()
        slots.on_rate_limited(sent_ns)
        assert slots.total == AUTO_START // 2
        slots.on_rate_limited(sent_ns)  # it was under way at that time
        assert slots.total == AUTO_START // 2
        for slot in reserved[: AUTO_START // 2]:
            slot.release()
        assert not reserved[-1].is_granted
        for _ in range(AUTO_START // 2):
            assert slots.total == AUTO_START // 2
            slots.on_success()
        slots.on_success()
        assert slots.total == AUTO_START // 2 + 1
        assert reserved[-1].is_granted

    def test_it_stays_between_one_and_the_most(self) -> None:
        slots = Slots("auto")
        for _ in range(20):
            slots.on_rate_limited(time.perf_counter_ns())
        assert slots.total == 1
        slots = Slots("auto")
        for _ in range(2 * AUTO_MOST):
            slots.reserve()
            slots.on_success()
        assert slots.total == AUTO_MOST
        assert slots.taken == AUTO_MOST

    @pytest.mark.parametrize("total", [3, None])
    def test_a_fixed_limit_stays(self, total: Any) -> None:
        slots = Slots(total)
        for _ in range(3):
            slots.reserve()
        slots.on_success()
        slots.on_rate_limited(time.perf_counter_ns())
        assert slots.total == total


async def test_a_paused_slot_serves_others_and_is_queued_again_ahead_of_later_calls() -> None:
    slots = Slots(1, most_waiting=1)
    first, second = slots.reserve(), slots.reserve()
    first.pause()
    assert (second.is_granted, slots.taken, slots.waiting) == (True, 1, 0)
    third = slots.reserve()
    async with anyio.create_task_group() as group:
        group.start_soon(first.resume)
        await anyio.wait_all_tasks_blocked()
        assert (slots.taken, slots.waiting) == (1, 2), "a call that goes on is not refused"
        second.release()
        assert (first.is_granted, third.is_granted) == (True, False)
    first.pause()
    assert third.is_granted
    with anyio.CancelScope() as scope:
        scope.cancel()
        await first.resume()
    third.release()
    assert (slots.taken, slots.waiting) == (0, 0)


def test_a_function_is_called_when_a_slot_is_granted_later() -> None:
    slots, granted = Slots(1), list[str]()
    slot = slots.reserve(on_grant=lambda: granted.append("first"))
    slots.reserve(on_grant=lambda: granted.append("second"))
    assert granted == []
    slot.release()
    assert granted == ["second"]
