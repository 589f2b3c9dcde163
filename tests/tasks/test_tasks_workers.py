"""Workers: which tasks share one, what they see of each other, and what is left when one is cancelled."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from itertools import pairwise
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest
from anyio.lowlevel import checkpoint

from chatscope import AsyncChatGPTAdapter, ChatTask, Task, TaskCounts, TaskStatus
from chatscope._tasks.workers import LINGER
from chatscope.pricing import PriceQuery

if TYPE_CHECKING:
    from tests.support.memory_server import Serve

pytestmark = pytest.mark.two_loops

tenant: ContextVar[object] = ContextVar("tenant", default=None)


class Seen:
    """Prices tasks, and notes who asks: the price of a task is asked for where it runs."""

    def __init__(self, *, sets: object = None) -> None:
        self.workers: list[int] = []
        self.names: list[str | None] = []
        self.tenants: list[object] = []
        self._sets = sets

    def __call__(self, query: PriceQuery) -> float:
        worker = anyio.get_current_task()
        self.workers.append(worker.id)
        self.names.append(worker.name)
        self.tenants.append(tenant.get())
        if self._sets is not None:
            tenant.set(self._sets)
        return 0.0


async def test_a_task_submitted_for_each_result_runs_in_the_same_worker(serve: Serve) -> None:
    seen = Seen()
    async with AsyncChatGPTAdapter("sk-1", transport=serve(), prices=seen) as adapter:
        before = len(anyio.get_running_tasks())
        results = [await adapter.execute(Task("hi")) for _ in range(5)]
        assert len(set(seen.workers)) == 1
        assert seen.names == [result.task.task_id for result in results if result.task]
        for _ in range(LINGER + 2):
            await checkpoint()
        assert len(anyio.get_running_tasks()) == before, "the worker has ended"


async def test_a_task_that_waited_runs_in_the_worker_whose_slot_it_gets(serve: Serve) -> None:
    seen = Seen()
    async with AsyncChatGPTAdapter("sk-1", transport=serve(), prices=seen, max_concurrency=2) as adapter:
        assert all(result.success for result in await adapter.gather(["hi"] * 20))
    assert len(seen.workers) == 20
    assert len(set(seen.workers)) <= 4


@pytest.mark.parametrize("slots", [1, 4])
async def test_every_task_sees_the_context_of_its_submission(serve: Serve, slots: int) -> None:
    seen = Seen(sets="of an earlier task")
    async with AsyncChatGPTAdapter("sk-1", transport=serve(), prices=seen, max_concurrency=slots) as adapter:
        expected: list[object] = [[1], [1], "two", [], None]  # equal, but not the same
        tasks: list[ChatTask] = []
        for value in expected:
            tenant.set(value)
            tasks.append(adapter.start_task(Task("hi")))
            if slots > 1:
                await tasks[-1].wait()
        for task in tasks:
            await task.wait()
    assert len(seen.tenants) == len(expected)
    assert all(one is other for one, other in zip(seen.tenants, expected, strict=True))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_asyncio_cancels_a_worker_before_its_next_task(serve: Serve, anyio_backend: str) -> None:
    """As `asyncio.run` does at its end. The task that the worker was to run next has a result all the same."""
    server, before = serve(), asyncio.all_tasks()
    async with AsyncChatGPTAdapter("sk-1", transport=server, max_concurrency=1) as adapter:
        await adapter.execute(Task("hi"))
        (worker,) = asyncio.all_tasks() - before
        task = adapter.start_task(Task("hi"))
        assert asyncio.all_tasks() - before == {worker}
        worker.cancel()
    assert (task.status, len(server.requests)) == (TaskStatus.CANCELLED, 1)
    assert (adapter.counts(), adapter.statistics().running) == (TaskCounts(0, 0, 1, 0, 1), 0)


async def test_nothing_is_sent_for_the_next_task_of_a_worker_whose_block_is_left(serve: Serve) -> None:
    server = serve()
    tasks: list[ChatTask] = []

    async def leave() -> None:
        async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
            await adapter.execute(Task("hi"))
            tasks.append(adapter.start_task(Task("hi")))
            raise LookupError

    with pytest.raises(LookupError):
        await leave()
    assert (tasks[0].status, len(server.requests)) == (TaskStatus.CANCELLED, 1)


async def test_an_exception_that_ends_the_block_loses_no_task() -> None:
    """One that is not an `Exception` passes through the task that it was raised in, as through any task group."""
    tasks: list[ChatTask] = []

    class StopAll(BaseException):
        pass

    class Stopping(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            raise StopAll

    async def run() -> None:
        async with AsyncChatGPTAdapter("sk-1", transport=Stopping(), max_concurrency=1) as adapter:
            tasks.extend(adapter.start_task(Task("hi")) for _ in range(3))

    with pytest.raises(BaseExceptionGroup) as caught:
        await run()
    assert caught.group_contains(StopAll)
    assert [task.status for task in tasks] == [TaskStatus.CANCELLED] * 3


async def test_tasks_that_never_wait_do_not_block_the_event_loop() -> None:
    class Broken(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            raise httpx.UnsupportedProtocol("no")

    turns: list[int] = []
    async with AsyncChatGPTAdapter("sk-1", transport=Broken(), max_concurrency=1, retry=1) as adapter:
        tasks = [adapter.start_task(Task("hi")) for _ in range(50)]
        while tasks[-1].result is None:
            turns.append(sum(task.result is not None for task in tasks))
            await checkpoint()
    assert max(after - before for before, after in pairwise(turns)) <= 2


async def test_a_waiting_task_interrupted_as_it_ends_leaves_the_queue(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    server = serve()
    async with AsyncChatGPTAdapter("sk-1", transport=server, max_concurrency=1) as adapter:
        running, waiting = adapter.start_task("runs"), adapter.start_task("waits")
        with monkeypatch.context() as patch:
            patch.setattr("chatscope._tasks.runner._log.debug", interrupt)  # as Ctrl-C there would
            with pytest.raises(KeyboardInterrupt):
                await waiting.cancel()
        assert adapter.statistics().queued == 0
        assert (await running.wait()).success
        assert (await waiting.wait()).status is TaskStatus.CANCELLED
    assert len(server.requests) == 1
    assert adapter.counts() == TaskCounts(pending=0, running=0, succeeded=1, failed=0, cancelled=1)
