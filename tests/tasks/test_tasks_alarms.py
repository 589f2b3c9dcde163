"""Alarms: in order, exactly in time, removable, and no reason to stay once the adapter is left."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from chatscope._tasks.alarms import STALE, Alarms


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    return virtual_time


async def test_they_ring_in_time_and_in_order_and_not_once_removed() -> None:
    rung: list[tuple[str, float]] = []
    began = anyio.current_time()

    def ring(name: str) -> None:
        rung.append((name, anyio.current_time() - began))

    async with anyio.create_task_group() as group:
        alarms = Alarms(lambda: group.start_soon(alarms.watch))
        alarms.add(began + 3, lambda: ring("third"))
        alarms.add(began + 1, lambda: ring("first"))
        removed = alarms.add(began + 0.5, lambda: ring("removed"))
        alarms.add(began + 2, lambda: alarms.add(began + 2.5, lambda: ring("second")))
        alarms.remove(removed)
        alarms.remove(removed)
        await anyio.sleep(0.1)
        alarms.close()
    assert rung == [("first", 1.0), ("second", 2.5), ("third", 3.0)]


async def test_the_watcher_goes_when_it_is_closed_and_nothing_is_set() -> None:
    began = anyio.current_time()
    async with anyio.create_task_group() as group:
        alarms = Alarms(lambda: group.start_soon(alarms.watch))
        held = [alarms.add(began + 1000 + number, lambda: None) for number in range(10 * STALE)]
        await anyio.wait_all_tasks_blocked()
        alarms.close()
        for alarm in held:
            alarms.remove(alarm)
        assert len(alarms._heap) <= STALE
    assert anyio.current_time() == began
