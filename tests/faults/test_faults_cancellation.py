"""Cancellation at every checkpoint: each scenario again and again, cancelled one checkpoint later each time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import NamedTuple

import anyio
import pytest
import sniffio
from tests.faults.scenarios import SCENARIOS, Scenario, World
from tests.support.certificates import Certificates
from tests.support.checkpoints import WATCH, Watch, checkpoints_counted
from tests.support.checks import check_consistent, check_returned, nothing_left_behind, until
from tests.support.figures import Figures
from tests.support.loopback import Server

from chatscope import AsyncChatGPTAdapter, ChatClient, TaskStatus
from chatscope._tasks.handle import TaskState
from chatscope.simulator import simulator

MOST_POINTS = 2000
"""A scenario with more checkpoints than this never ends."""

SECONDS = 10.0
"""For one run of a scenario, which takes some milliseconds; a hang fails here."""


async def by_scope(scenario: Scenario, world: World, watch: Watch) -> bool:
    """Cancel the scope that the scenario runs in; return whether it came out as a cancellation."""
    with anyio.CancelScope() as scope:
        watch.act = scope.cancel
        value = await watched(scenario, world, watch)
        assert value == scenario.expected
        assert not watch.delivered, "the cancellation was swallowed"
    return scope.cancelled_caught


async def by_the_loop(scenario: Scenario, world: World, watch: Watch) -> bool:
    """Cancel the scenario's task by the event loop's own means."""
    task = asyncio.get_running_loop().create_task(watched(scenario, world, watch))
    watch.act = task.cancel
    await asyncio.wait({task})
    if task.cancelled():
        return True
    assert task.result() == scenario.expected
    assert not watch.delivered, "the cancellation was swallowed"
    return False


async def by_cancel_task(scenario: Scenario, world: World, watch: Watch) -> bool:
    """Cancel the scenario's tasks through `cancel_task`; return whether there was one to be stopped.

    The order is given at the very checkpoint; `cancel_task` then waits for what becomes of it.
    """
    stopped = False
    acted = anyio.Event()
    handles: list[TaskState] = []

    def act() -> None:
        for adapter in world.adapters:
            handles.extend(run.state for run in adapter._tasks._running.values())
        for handle in handles:
            handle.request_cancel()
        acted.set()

    async def stop() -> None:
        nonlocal stopped
        await acted.wait()
        (adapter,) = world.adapters
        for handle in handles:
            ended = handle.result is not None
            was_stopped = await adapter.cancel_task(handle.id)
            assert handle.result is not None
            assert was_stopped is (not ended and handle.status is TaskStatus.CANCELLED)
            stopped |= handle.status is TaskStatus.CANCELLED

    watch.act = act
    async with anyio.create_task_group() as group:
        group.start_soon(stop)
        await watched(scenario, world, watch)
        if not watch.acted:
            group.cancel_scope.cancel()
    return stopped


async def watched(scenario: Scenario, world: World, watch: Watch) -> object:
    """Run the scenario; its checkpoints, and those of the tasks that it starts, count."""
    token = WATCH.set(watch)
    try:
        return await watch.watched(scenario.run(world))
    finally:
        WATCH.reset(token)


Way = Callable[[Scenario, World, Watch], Awaitable[bool]]


class Run(NamedTuple):
    """What came of one run of a scenario."""

    reached: bool
    """Whether there was such a checkpoint."""
    cancelled: bool
    """Whether it was still early enough to be cancelled there."""
    fates: set[TaskStatus]
    """How its tasks ended."""


async def cancelled_at(at: int, scenario: Scenario, way: Way, certificates: Certificates) -> Run:
    """Run a scenario once, cancelled at a checkpoint."""
    watch = Watch(at)
    cancelled = False
    server: Server = simulator(scenario.script, ssl_context=certificates.right if scenario.tls else None)
    if scenario.server is not None:
        server = scenario.server()
    async with nothing_left_behind(), server as base_url:
        world = World(base_url.replace("127.0.0.1", "localhost") if scenario.by_name else base_url, certificates.client)
        world.outer = world.adapter() if scenario.outside else None

        async def run() -> None:
            nonlocal cancelled
            cancelled = await way(scenario, world, watch)

        # A task of its own, made while checkpoints are counted; the context of this one stays as it is.
        async with world.outer or nullcontext(), anyio.create_task_group() as group:
            group.start_soon(run)
        fates = await check_the_world(world)
        await until(lambda: server.connections_open == 0)
    assert watch.acted or not cancelled
    return Run(watch.acted, cancelled, fates)


async def check_the_world(world: World) -> set[TaskStatus]:
    """Show that all is over, consistent and given back, whatever happened; return how tasks ended."""
    fates = set()
    for adapter in world.adapters:
        assert not adapter._tasks._running
        results = []
        for task_id in adapter._tasks._finished:
            handle = adapter._tasks.find(task_id)
            assert handle is not None
            result = await handle.wait()
            results.append(result)
            assert handle.status is result.status is await adapter.get_status(handle.id)
            assert handle.text == result.output
            check_consistent(result)
            fates.add(result.status)
        check_returned(adapter.statistics(), results)
    owners: list[AsyncChatGPTAdapter | ChatClient] = [*world.clients, *world.adapters]
    for owner in owners:
        statistics = owner.statistics()
        assert (statistics.running, statistics.queued, statistics.paced, statistics.held_back) == (0, 0, 0, 0)
        assert statistics.in_flight == 0
    for transport in world.transports:
        held = transport.statistics()
        assert (held.open, held.active, held.idle) == (0, 0, 0)
    return fates


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
async def test_every_checkpoint(
    scenario: Scenario, certificates: Certificates, figures: Figures, loop: str, record_property: Callable[..., None]
) -> None:
    if loop == "asyncio-eager":
        pytest.skip("steps are counted by a task factory, and eager tasks are made by another one")
    ways: list[Way] = [by_scope]
    if sniffio.current_async_library() == "asyncio":
        ways.append(by_the_loop)
    if not scenario.name.startswith("ChatClient") and scenario.name != "inside cancel_task":
        ways.append(by_cancel_task)
    for way in ways:
        points = 0
        fates: set[TaskStatus] = set()
        for at in range(1, MOST_POINTS):
            try:
                with anyio.fail_after(SECONDS), checkpoints_counted():
                    run = await cancelled_at(at, scenario, way, certificates)
            except BaseException as error:
                error.add_note(f"{way.__name__} at checkpoint {at}")
                raise
            if not run.reached:
                break
            points += run.cancelled
            fates |= run.fates
        else:
            pytest.fail("the scenario has no end")
        assert points > 0
        if fates:
            assert (TaskStatus.CANCELLED in fates) is (way is by_cancel_task or not scenario.goes_on)
        figures.points[scenario.name, way.__name__, loop] += points
        record_property(f"points_{way.__name__}", points)
