"""Cancellation at every await point: a call that is cancelled after n steps, for every n, leaves nothing behind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from chatscope import AsyncChatGPTAdapter, ChatClient, RetryPolicy, Task, TaskStatus
from chatscope.simulator import Reply, error

if TYPE_CHECKING:
    from tests.support.memory_server import MemoryServer, Serve

STEPS = 60
"""More than the longest of these calls takes on any loop, retry included: shown by the last row's having returned."""

ASK: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}

ANSWERS = [error(503), Reply("Hello, world.")]

POLICY = RetryPolicy(attempts=3, initial=0, jitter=0)


async def cancelled_after(steps: int, call: Callable[[], Awaitable[object]]) -> bool:
    """Call something, cancel it after so many steps, and tell whether it had returned by then."""
    returned = False

    async def run() -> None:
        nonlocal returned
        await call()
        returned = True

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        for _ in range(steps):
            await checkpoint()
        group.cancel_scope.cancel()
    return returned


async def execute(adapter: AsyncChatGPTAdapter, task: Task) -> object:
    return await adapter.execute(task)


async def execute_streaming(adapter: AsyncChatGPTAdapter, task: Task) -> object:
    return [text async for text in adapter.execute_streaming(task)]


async def submit_and_wait(adapter: AsyncChatGPTAdapter, task: Task) -> object:
    return await adapter.get_result(await adapter.submit_task(task))


@pytest.mark.parametrize("call", [execute, execute_streaming, submit_and_wait])
async def test_of_the_adapter(serve: Serve, call: Callable[[AsyncChatGPTAdapter, Task], Awaitable[object]]) -> None:
    returned = False
    for steps in range(STEPS):
        server: MemoryServer = serve(ANSWERS)
        task = Task("hi")
        async with AsyncChatGPTAdapter("sk-1", transport=server, retry=POLICY, max_concurrency=1) as adapter:
            returned = await cancelled_after(steps, partial(call, adapter, task))
            after = await adapter.execute(Task("hi"))  # a slot that was lost would keep it waiting for ever
            assert (after.success, after.output) == (True, "Hello, world.")
            if task.task_id is not None:
                result = await adapter.get_result(task.task_id)
                assert result.status in {TaskStatus.CANCELLED, TaskStatus.COMPLETED}
                assert result.status is TaskStatus.COMPLETED or not (returned or call is submit_and_wait)
                assert "Hello, world.".startswith(result.output)
        assert server.open == 0
        report = adapter.get_adapter_status()
        assert (report["pending"], report["running"]) == (0, 0)
    assert returned


@pytest.mark.parametrize("streams", [False, True])
async def test_of_the_client(serve: Serve, streams: bool) -> None:
    async def call(client: ChatClient) -> None:
        if not streams:
            await client.complete(**ASK)
            return
        async with client.stream(**ASK) as stream:
            async for _ in stream:
                pass

    returned = False
    for steps in range(STEPS):
        server: MemoryServer = serve(ANSWERS)
        async with ChatClient(api_key="k", transport=server, retry=POLICY, max_concurrency=1) as client:
            returned = await cancelled_after(steps, partial(call, client))
            assert server.open == 0
            assert (await client.complete(**ASK)).text == "Hello, world."
        assert server.open == 0
    assert returned


async def test_of_the_block(serve: Serve) -> None:
    """Host cancellation while tasks run, wait, retry and while the block is being left."""
    returned = False
    for steps in range(STEPS):
        server: MemoryServer = serve(ANSWERS)
        adapter = AsyncChatGPTAdapter("sk-1", transport=server, retry=POLICY, max_concurrency=1)
        tasks = [Task("hi"), Task("hi")]

        async def use(adapter: AsyncChatGPTAdapter = adapter, tasks: list[Task] = tasks) -> None:
            async with adapter:
                for task in tasks:
                    await adapter.submit_task(task)

        returned = await cancelled_after(steps, use)
        assert server.open == 0
        assert server.closed or not server.requests
        for task in tasks:
            if task.task_id is not None:
                result = await adapter.get_result(task.task_id, timeout=0)
                assert result.status in {TaskStatus.CANCELLED, TaskStatus.COMPLETED}
        report = adapter.get_adapter_status()
        assert (report["pending"], report["running"]) == (0, 0)
    assert returned
