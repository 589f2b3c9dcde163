"""The adapter's block: what leaving it does, in every way there is, and what stays readable."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import httpx
import pytest
import trio

from chatscope import AsyncChatGPTAdapter, ChatTask, Task, TaskCancelledError, TaskStatus
from chatscope.simulator import Reply, faults

if TYPE_CHECKING:
    from tests.support.memory_server import MemoryServer, Serve

Backend = tuple[str, dict[str, object]]


@pytest.fixture
def silent(serve: Serve) -> MemoryServer:
    """Says one token and falls silent."""
    return serve(Reply("Hello, world.", faults=(faults.stall(1),)))


async def read_one(adapter: AsyncChatGPTAdapter, task_id: str) -> None:
    assert await anext(adapter.stream_result(task_id)) == "Hello"


async def test_leaving_waits_for_the_tasks(serve: Serve) -> None:
    release = anyio.Event()
    server = serve(Reply("Hello, world.", faults=(faults.hold(1, release),)))
    left: list[bool] = []
    adapter = AsyncChatGPTAdapter("sk-1", transport=server, max_concurrency=2)
    task_ids: list[str] = []

    async def use() -> None:
        async with adapter:
            task_ids.extend([await adapter.submit_task(Task("hi")) for _ in range(5)])
        left.append(True)

    async with anyio.create_task_group() as group:
        group.start_soon(use)
        await server.wait_for_requests(2)
        await anyio.wait_all_tasks_blocked()
        assert not left
        assert not server.closed
        release.set()
    assert left
    assert server.closed
    assert [(await adapter.get_result(task_id)).output for task_id in task_ids] == ["Hello, world."] * 5


async def test_everything_stays_readable_afterwards(serve: Serve) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=serve()) as adapter:
        handle = adapter.start_task(Task("Write hello world"))
    assert await adapter.get_status(handle.id) is TaskStatus.COMPLETED
    assert (await adapter.get_result(handle.id)).output == "Hello, world."
    assert "".join([text async for text in adapter.stream_result(handle.id)]) == "Hello, world."
    assert await adapter.cancel_task(handle.id) is False
    assert adapter.get_adapter_status()["finished"] == 1
    assert adapter.forget(handle.id) is True
    assert await adapter.get_status(handle.id) is TaskStatus.UNKNOWN


@pytest.mark.parametrize("opened_before", [False, True], ids=["never opened", "closed again"])
async def test_outside_the_block_what_needs_it_is_refused(serve: Serve, opened_before: bool) -> None:
    adapter = AsyncChatGPTAdapter("sk-1", transport=serve())
    if opened_before:
        async with adapter:
            pass
    with pytest.raises(RuntimeError, match="use 'async with'"):
        await adapter.submit_task(Task("hi"))
    with pytest.raises(RuntimeError, match="use 'async with'"):
        adapter.start_task(Task("hi"))
    with pytest.raises(RuntimeError, match="use 'async with'"):
        await adapter.execute(Task("hi"))
    with pytest.raises(RuntimeError, match="use 'async with'"):
        adapter.execute_streaming(Task("hi"))
    with pytest.raises(RuntimeError, match="use 'async with'"):
        await adapter.__aexit__(None, None, None)


async def test_a_block_is_not_opened_twice(serve: Serve) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=serve()) as adapter:
        with pytest.raises(RuntimeError, match="open already"):
            await adapter.__aenter__()
        assert (await adapter.execute(Task("hi"))).success


async def test_an_adapter_is_used_again(serve: Serve) -> None:
    async with httpx.AsyncClient(transport=serve()) as http_client:
        adapter = AsyncChatGPTAdapter("sk-1", http_client=http_client)
        async with adapter:
            first = await adapter.submit_task(Task("hi"))
        async with adapter:
            second = await adapter.submit_task(Task("hi"))
            assert await adapter.get_status(first) is TaskStatus.COMPLETED
    assert await adapter.get_status(second) is TaskStatus.COMPLETED


@pytest.mark.parametrize("error", [LookupError("mine"), KeyboardInterrupt(), ExceptionGroup("mine", [ValueError()])])
async def test_an_exception_cancels_the_tasks_and_comes_out_as_it_is(
    silent: MemoryServer, error: BaseException
) -> None:
    adapter = AsyncChatGPTAdapter("sk-1", transport=silent, max_concurrency=1)
    running, pending = Task("hi"), Task("hi")

    async def use() -> None:
        async with adapter:
            await read_one(adapter, await adapter.submit_task(running))
            await adapter.submit_task(pending)
            raise error

    with pytest.raises(type(error)) as caught:
        await use()
    assert caught.value is error
    assert silent.open == 0
    assert silent.closed
    for task, text, attempts in ((running, "Hello", 1), (pending, "", 0)):
        result = await adapter.get_result(task.task_id or "")
        assert (result.status, result.output, result.attempts) == (TaskStatus.CANCELLED, text, attempts)
        assert isinstance(result.exception, TaskCancelledError)


async def test_tasks_that_had_no_chance_to_begin_are_cancelled_too(silent: MemoryServer) -> None:
    adapter = AsyncChatGPTAdapter("sk-1", transport=silent)
    handles: list[ChatTask] = []

    async def use() -> None:
        async with adapter:
            handles.extend(adapter.start_task(Task("hi")) for _ in range(3))
            raise LookupError

    with pytest.raises(LookupError):
        await use()
    assert [handle.status for handle in handles] == [TaskStatus.CANCELLED] * 3
    assert silent.open == 0
    report = adapter.get_adapter_status()
    assert (report["pending"], report["running"], report["finished"]) == (0, 0, 3)


async def test_a_task_submitted_while_leaving_is_waited_for(serve: Serve) -> None:
    release = anyio.Event()
    server = serve(Reply("Hello, world.", faults=(faults.hold(1, release),)))
    adapter = AsyncChatGPTAdapter("sk-1", transport=server)
    late: list[str] = []

    async def submit_late() -> None:
        await server.wait_for_requests(1)
        await anyio.wait_all_tasks_blocked()
        late.append(await adapter.submit_task(Task("hi")))
        release.set()

    async with anyio.create_task_group() as group, adapter:
        group.start_soon(submit_late)
        await adapter.submit_task(Task("hi"))
    assert [await adapter.get_status(task_id) for task_id in late] == [TaskStatus.COMPLETED]


# -- the host cancels --------------------------------------------------------------------------------------------------


async def test_a_cancelled_scope_around_the_body(silent: MemoryServer) -> None:
    adapter, task = AsyncChatGPTAdapter("sk-1", transport=silent), Task("hi")
    with anyio.CancelScope() as scope:
        async with adapter:
            await read_one(adapter, await adapter.submit_task(task))
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    result = await adapter.get_result(task.task_id or "")
    assert (result.status, result.output, silent.open) == (TaskStatus.CANCELLED, "Hello", 0)


async def test_a_cancelled_scope_around_the_wait_at_the_end(silent: MemoryServer) -> None:
    adapter, task = AsyncChatGPTAdapter("sk-1", transport=silent), Task("hi")
    async with anyio.create_task_group() as group:

        async def use() -> None:
            async with adapter:
                await adapter.submit_task(task)
                await read_one(adapter, task.task_id or "")
            raise AssertionError("not reached")

        group.start_soon(use)
        await silent.wait_for_requests(1)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    result = await adapter.get_result(task.task_id or "")
    assert (result.status, result.output, silent.open, silent.closed) == (TaskStatus.CANCELLED, "Hello", 0, True)


@pytest.mark.parametrize("at_the_end", [False, True])
async def test_the_hosts_own_way(silent: MemoryServer, at_the_end: bool, anyio_backend: Backend) -> None:
    adapter, task = AsyncChatGPTAdapter("sk-1", transport=silent), Task("hi")
    blocked = anyio.Event()

    async def use() -> None:
        async with adapter:
            await read_one(adapter, await adapter.submit_task(task))
            blocked.set()
            if not at_the_end:
                await anyio.sleep_forever()
        raise AssertionError("not reached")

    if anyio_backend[0] == "asyncio":
        user = asyncio.create_task(use())
        await blocked.wait()
        await anyio.wait_all_tasks_blocked()
        user.cancel("by the host")
        with pytest.raises(asyncio.CancelledError):
            await user
        assert user.cancelled()
    else:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(use)
                await blocked.wait()
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
    status = await adapter.get_status(task.task_id or "")
    assert (status, silent.open, silent.closed) == (TaskStatus.CANCELLED, 0, True)


@pytest.mark.parametrize("at_the_end", [False, True])
async def test_the_hosts_own_deadline(silent: MemoryServer, at_the_end: bool, anyio_backend: Backend) -> None:
    async def use() -> None:
        async with AsyncChatGPTAdapter("sk-1", transport=silent) as adapter:
            await read_one(adapter, await adapter.submit_task(Task("hi")))
            if not at_the_end:
                await anyio.sleep_forever()

    if anyio_backend[0] == "asyncio":
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):  # seconds: the task never ends
                await use()
        assert (current := asyncio.current_task()) is not None
        assert current.cancelling() == 0
    else:
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.01):
            await use()
    await anyio.lowlevel.checkpoint()  # nothing of the cancellation is left behind
    assert silent.closed
    assert silent.open == 0


@pytest.mark.filterwarnings("ignore:coroutine '_Worker.work' was never awaited:RuntimeWarning")  # anyio's wrapper of it
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_asyncio_cancels_a_task_before_its_first_step(serve: Serve, anyio_backend: str) -> None:
    """As `asyncio.run` does at its end. The coroutine then never runs, and still there is a result for who waits."""
    server = serve()
    adapter = AsyncChatGPTAdapter("sk-1", transport=server, max_concurrency=1)
    async with adapter:
        before = asyncio.all_tasks()
        handle = adapter.start_task(Task("hi"))
        for task in asyncio.all_tasks() - before:
            task.cancel()
    gc.collect()  # so that the warning comes here
    assert (handle.status, server.requests) == (TaskStatus.CANCELLED, [])
    assert isinstance((await handle.wait()).exception, TaskCancelledError)
    report = adapter.get_adapter_status()
    assert (report["pending"], report["running"], report["finished"]) == (0, 0, 1)
