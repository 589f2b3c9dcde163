"""A queue whose first waiter asks again: order, waking, and cancellation at every point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from chatscope._limits.fifo import WaiterQueue

HANGS = 30.0
"""Seconds after which a test counts as hanging; none of them waits for anything but the others."""


class Gate:
    """Grants a number of claims; the rest are told to ask again later."""

    def __init__(self, grants: int = 0, wait: float = 1000.0) -> None:
        self.grants = grants
        self.wait = wait
        self.asked: list[str] = []

    def claim(self, name: str) -> Callable[[], float]:
        def claim() -> float:
            self.asked.append(name)
            if not self.grants:
                return self.wait
            self.grants -= 1
            return 0.0

        return claim


async def test_an_empty_line_is_passed_without_a_task_switch() -> None:
    line, gate, switched = WaiterQueue(), Gate(1), []

    async def other() -> None:
        switched.append(1)

    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as group:
            group.start_soon(other)
            await line.acquire(gate.claim("a"))
            assert not switched
    assert gate.grants == 0
    assert len(line) == 0


async def test_nobody_overtakes() -> None:
    line, gate, passed = WaiterQueue(), Gate(), []

    async def acquire(name: str) -> None:
        await line.acquire(gate.claim(name))
        passed.append(name)

    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as group:
            for name in "abc":
                group.start_soon(acquire, name)
                await anyio.wait_all_tasks_blocked()
            assert {*gate.asked} == {"a"}  # only the first asks
            gate.grants = 1
            group.start_soon(acquire, "late")
            await anyio.wait_all_tasks_blocked()
            assert passed == []  # what it could have had is not its turn to take
            assert len(line) == 4
            line.wake()
            await anyio.wait_all_tasks_blocked()
            assert passed == ["a"]
            gate.grants = 3
            line.wake()
    assert passed == ["a", "b", "c", "late"]
    assert len(line) == 0


async def test_waking_an_empty_line_does_nothing() -> None:
    line = WaiterQueue()
    line.wake()
    assert len(line) == 0


@pytest.mark.parametrize("victim", range(3))
@pytest.mark.parametrize("wakes", ["before", "after", "never"])
async def test_a_cancelled_waiter_claims_nothing_and_holds_nobody_up(victim: int, wakes: str) -> None:
    line, gate, passed = WaiterQueue(), Gate(), []
    scopes = [anyio.CancelScope() for _ in range(3)]

    async def acquire(number: int) -> None:
        with scopes[number]:
            await line.acquire(gate.claim(str(number)))
            passed.append(number)

    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(acquire, number)
                await anyio.wait_all_tasks_blocked()
            gate.grants = 3
            if wakes == "before":
                line.wake()
            scopes[victim].cancel()
            if wakes == "after":
                line.wake()
            await anyio.wait_all_tasks_blocked()
            line.wake()
    # A first one that was woken before it was cancelled may have gone through.
    assert passed in (
        [number for number in range(3) if number != victim],
        [0, 1, 2] if (victim, wakes) == (0, "before") else [],
    )
    assert gate.grants == 3 - len(passed)
    assert len(line) == 0


async def test_a_claim_that_raises_leaves_the_line() -> None:
    line, gate, passed = WaiterQueue(), Gate(), []
    gives_up = False

    def impatient() -> float:
        if gives_up:
            raise LookupError("enough")
        return 1000.0

    async def first() -> None:
        with pytest.raises(LookupError, match="enough"):
            await line.acquire(impatient)

    async def second() -> None:
        await line.acquire(gate.claim("second"))
        passed.append("second")

    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as group:
            group.start_soon(first)
            await anyio.wait_all_tasks_blocked()
            group.start_soon(second)
            await anyio.wait_all_tasks_blocked()
            gives_up, gate.grants = True, 1
            line.wake()
    assert passed == ["second"]
    with pytest.raises(LookupError):
        await line.acquire(impatient)
    assert len(line) == 0


class TestInVirtualTime:
    """The seconds that a claim names."""

    @pytest.fixture
    def anyio_backend(self, virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
        return virtual_time

    async def test_the_first_asks_again_after_the_time_it_was_told(self) -> None:
        line, began, asked = WaiterQueue(), anyio.current_time(), []

        def claim() -> float:
            asked.append(anyio.current_time() - began)
            return [2.5, 4.0, 0.0][min(len(asked) - 2, 2)] if len(asked) > 1 else 2.5

        await line.acquire(claim)
        assert asked == pytest.approx([0, 0, 2.5, 6.5])

    async def test_each_waits_from_when_it_is_first(self) -> None:
        line, began, passed = WaiterQueue(), anyio.current_time(), []
        free_at = began

        def claim() -> float:
            nonlocal free_at
            wait = free_at - anyio.current_time()
            if wait <= 0:
                free_at = anyio.current_time() + 10
            return wait

        async def acquire() -> None:
            await line.acquire(claim)
            passed.append(anyio.current_time() - began)

        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(acquire)
        assert passed == pytest.approx([0, 10, 20, 30])
