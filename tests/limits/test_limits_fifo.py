"""WaiterQueue: order, waking, and cancellation at every point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from chatscope._limits.fifo import Order, WaiterQueue


class Gate:
    """Grants a number of times; the rest are told to ask again later."""

    def __init__(self, grants: int = 0, wait: float = 1000.0) -> None:
        self.grants = grants
        self.wait = wait
        self.asked: list[str] = []

    def try_acquire(self, name: str) -> Callable[[], float]:
        def try_acquire() -> float:
            self.asked.append(name)
            if not self.grants:
                return self.wait
            self.grants -= 1
            return 0.0

        return try_acquire


async def test_an_empty_queue_is_passed_without_a_task_switch() -> None:
    queue, gate, switched = WaiterQueue(), Gate(1), []

    async def other() -> None:
        switched.append(1)

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        await queue.acquire(gate.try_acquire("a"), Order(0, 0))
        assert not switched
    assert (gate.grants, len(queue), queue.first) == (0, 0, None)
    queue.wake()  # there is nobody to wake


async def test_nobody_overtakes_except_by_priority() -> None:
    queue, gate, passed = WaiterQueue(), Gate(), []

    async def acquire(name: str, number: int, priority: float = 0.0) -> None:
        await queue.acquire(gate.try_acquire(name), Order(-priority, number))
        passed.append(name)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            for number, name in enumerate("abc"):
                group.start_soon(acquire, name, number)
                await anyio.wait_all_tasks_blocked()
            assert {*gate.asked} == {"a"}  # only the first asks
            gate.grants = 1
            group.start_soon(acquire, "late", 3)
            await anyio.wait_all_tasks_blocked()
            assert passed == []  # it waits its turn
            gate.grants = 0
            group.start_soon(acquire, "urgent", 4, 1.0)
            await anyio.wait_all_tasks_blocked()
            assert gate.asked[-1] == "urgent"
            assert (queue.first, len(queue)) == (Order(-1.0, 4), 5)
            gate.grants = 1
            queue.wake()
            await anyio.wait_all_tasks_blocked()
            assert passed == ["urgent"]
            gate.grants = 4
            queue.wake()
    assert passed == ["urgent", "a", "b", "c", "late"]


@pytest.mark.parametrize("victim", range(3))
@pytest.mark.parametrize("wakes", ["before", "after", "never"])
async def test_a_cancelled_waiter_acquires_nothing_and_holds_nobody_up(victim: int, wakes: str) -> None:
    queue, gate, passed = WaiterQueue(), Gate(), []
    scopes = [anyio.CancelScope() for _ in range(3)]

    async def acquire(number: int) -> None:
        with scopes[number]:
            await queue.acquire(gate.try_acquire(str(number)), Order(0, number))
            passed.append(number)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(acquire, number)
                await anyio.wait_all_tasks_blocked()
            gate.grants = 3
            if wakes == "before":
                queue.wake()
            scopes[victim].cancel()
            if wakes == "after":
                queue.wake()
            await anyio.wait_all_tasks_blocked()
            queue.wake()
    # A first one that was woken before it was cancelled may have gone through.
    assert passed in (
        [number for number in range(3) if number != victim],
        [0, 1, 2] if (victim, wakes) == (0, "before") else [],
    )
    assert gate.grants == 3 - len(passed)
    assert len(queue) == 0


async def test_a_waiter_that_raises_leaves_the_queue() -> None:
    queue, gate, passed = WaiterQueue(), Gate(), []
    gives_up = False

    def impatient() -> float:
        if gives_up:
            raise LookupError("enough")
        return 1000.0

    async def first() -> None:
        with pytest.raises(LookupError, match="enough"):
            await queue.acquire(impatient, Order(0, 0))

    async def second() -> None:
        await queue.acquire(gate.try_acquire("second"), Order(0, 1))
        passed.append("second")

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(first)
            await anyio.wait_all_tasks_blocked()
            group.start_soon(second)
            await anyio.wait_all_tasks_blocked()
            gives_up, gate.grants = True, 1
            queue.wake()
    assert passed == ["second"]
    assert len(queue) == 0


class TestInVirtualTime:
    """The seconds after which a waiter asks again."""

    @pytest.fixture
    def anyio_backend(self, virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
        return virtual_time

    async def test_each_waits_from_when_it_is_first(self) -> None:
        queue, began, asked, passed = WaiterQueue(), anyio.current_time(), [], []
        free_at = began

        def try_acquire() -> float:
            nonlocal free_at
            asked.append(anyio.current_time() - began)
            wait = free_at - anyio.current_time()
            if wait <= 0:
                free_at = anyio.current_time() + 10
            return wait

        async def acquire(number: int) -> None:
            await queue.acquire(try_acquire, Order(0, number))
            passed.append(anyio.current_time() - began)

        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(acquire, number)
        assert passed == pytest.approx([0, 10, 20, 30])
        assert set(asked) == {0, 10, 20, 30}
