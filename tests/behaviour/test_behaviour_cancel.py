"""Cancelling a task stops it. Cancelling a caller that waits for one passes through untouched."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio
import pytest
import trio

from chatscope import AsyncChatGPTAdapter, ChatTask, Result, Task, TaskCancelledError, TaskStatus
from chatscope.simulator import Reply, Stage, faults

if TYPE_CHECKING:
    from tests.support.memory_server import MemoryServer, Serve

Backend = tuple[str, dict[str, object]]
Method = Callable[[AsyncChatGPTAdapter, ChatTask, Task], Awaitable[object]]


@pytest.fixture
def silent(serve: Serve) -> MemoryServer:
    """Says one token and falls silent."""
    return serve(Reply("Hello, world.", faults=(faults.stall(1),)))


async def running_task(adapter: AsyncChatGPTAdapter) -> ChatTask:
    handle = adapter.start_task(Task("hi"))
    assert await anext(handle.stream()) == "Hello"
    return handle


# -- cancelling a task -------------------------------------------------------------------------------------------------


async def test_a_running_task(silent: MemoryServer) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=silent) as adapter:
        task_id = (await running_task(adapter)).id
        assert silent.open == 1
        assert await adapter.cancel_task(task_id) is True
        assert silent.open == 0
        assert await adapter.get_status(task_id) is TaskStatus.CANCELLED
        result = await adapter.get_result(task_id, timeout=0)
        assert (result.success, result.status, result.output) == (False, TaskStatus.CANCELLED, "Hello")
        assert result.error == "the task was cancelled"
        assert isinstance(result.exception, TaskCancelledError)
        assert (result.exception.partial_text, result.exception.attempts) == ("Hello", 1)
        assert result.exception.request_id == result.metadata["request_id"] == "req_1"
        assert (result.tokens_used, result.cost) == (None, None)
        with pytest.raises(TaskCancelledError):
            result.raise_for_error()
        assert await adapter.cancel_task(task_id) is False


async def test_a_pending_task(silent: MemoryServer) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=silent, max_concurrency=1) as adapter:
        running = (await running_task(adapter)).id
        pending = await adapter.submit_task(Task("hi"))
        assert await adapter.get_status(pending) is TaskStatus.PENDING
        assert await adapter.cancel_task(pending) is True
        result = await adapter.get_result(pending, timeout=0)
        assert (result.status, result.output, result.attempts) == (TaskStatus.CANCELLED, "", 0)
        assert result.timings is not None
        assert (result.timings.started_ns, result.timings.sent_ns) == (None, None)
        assert await adapter.cancel_task(running) is True
    assert len(silent.requests) == 1


async def test_a_task_that_has_just_been_submitted(silent: MemoryServer) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=silent) as adapter:
        task_id = await adapter.submit_task(Task("hi"))
        assert await adapter.cancel_task(task_id) is True
        assert await adapter.get_status(task_id) is TaskStatus.CANCELLED
        assert silent.open == 0


async def test_a_finished_task(serve: Serve) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=serve()) as adapter:
        task_id = await adapter.submit_task(Task("hi"))
        result = await adapter.get_result(task_id)
        assert await adapter.cancel_task(task_id) is False
        assert await adapter.get_result(task_id) is result
        assert result.status is TaskStatus.COMPLETED


async def test_before_the_response_has_begun(serve: Serve) -> None:
    server = serve(faults.stall(Stage.STATUS))
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        task_id = await adapter.submit_task(Task("hi"))
        await server.wait_for_requests(1)
        assert await adapter.cancel_task(task_id) is True
        assert server.open == 0
        result = await adapter.get_result(task_id)
        assert (result.attempts, result.metadata["request_id"]) == (1, None)
        assert [attempt.error for attempt in result.attempts_log] in (["Cancelled"], ["CancelledError"])


async def test_from_many_tasks_at_once(silent: MemoryServer) -> None:
    answers: list[bool] = []
    async with AsyncChatGPTAdapter("sk-1", transport=silent) as adapter:
        task_id = (await running_task(adapter)).id

        async def cancel() -> None:
            answers.append(await adapter.cancel_task(task_id))

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(cancel)
        assert silent.open == 0
    assert answers == [True] * 10


async def test_siblings_go_on(serve: Serve) -> None:
    release = anyio.Event()
    server = serve(Reply("Hello, world.", faults=(faults.hold(1, release),)))
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        victim = (await running_task(adapter)).id
        others = [(await running_task(adapter)).id for _ in range(3)]
        assert await adapter.cancel_task(victim) is True
        assert [await adapter.get_status(task_id) for task_id in others] == [TaskStatus.RUNNING] * 3
        release.set()
        assert [(await adapter.get_result(task_id)).output for task_id in others] == ["Hello, world."] * 3


async def test_the_slot_goes_to_the_next(silent: MemoryServer) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=silent, max_concurrency=1) as adapter:
        first = (await running_task(adapter)).id
        second = await adapter.submit_task(Task("hi"))
        await adapter.cancel_task(first)
        assert await anext(adapter.stream_result(second)) == "Hello"
        await adapter.cancel_task(second)


async def test_a_cancelled_canceller_has_cancelled_nevertheless(silent: MemoryServer) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=silent) as adapter:
        task_id = (await running_task(adapter)).id
        with anyio.move_on_after(0) as scope:
            await adapter.cancel_task(task_id)
        assert scope.cancelled_caught
        assert (await adapter.get_result(task_id)).status is TaskStatus.CANCELLED


# -- cancelling a waiting caller ---------------------------------------------------------------------------------------


async def get_result(adapter: AsyncChatGPTAdapter, handle: ChatTask, _: Task) -> object:
    return await adapter.get_result(handle.id)


async def get_result_for_ever(adapter: AsyncChatGPTAdapter, handle: ChatTask, _: Task) -> object:
    return await adapter.get_result(handle.id, timeout=None)


async def get_result_or_cancel(adapter: AsyncChatGPTAdapter, handle: ChatTask, _: Task) -> object:
    return await adapter.get_result(handle.id, cancel_on_timeout=True)


async def stream_result(adapter: AsyncChatGPTAdapter, handle: ChatTask, _: Task) -> object:
    return [text async for text in adapter.stream_result(handle.id)]


async def wait(_: AsyncChatGPTAdapter, handle: ChatTask, __: Task) -> object:
    return await handle.wait()


async def stream(_: AsyncChatGPTAdapter, handle: ChatTask, __: Task) -> object:
    return [text async for text in handle.stream()]


async def execute(adapter: AsyncChatGPTAdapter, _: ChatTask, own: Task) -> object:
    return await adapter.execute(own)


async def execute_streaming(adapter: AsyncChatGPTAdapter, _: ChatTask, own: Task) -> object:
    return [text async for text in adapter.execute_streaming(own)]


METHODS = [
    get_result,
    get_result_for_ever,
    get_result_or_cancel,
    stream_result,
    wait,
    stream,
    execute,
    execute_streaming,
]


async def check_untouched(adapter: AsyncChatGPTAdapter, handle: ChatTask, own: Task, server: MemoryServer) -> None:
    """Show that the task of others goes on, and that a task of the caller's own was cancelled with it."""
    assert handle.status is TaskStatus.RUNNING
    if own.task_id is not None:
        with anyio.fail_after(5):  # seconds; it takes no time, unless nothing stops the task
            result = await adapter.get_result(own.task_id)
        assert (result.status, result.output) == (TaskStatus.CANCELLED, "Hello")
    assert server.open == 1
    assert await handle.cancel() is True


@pytest.mark.parametrize("method", METHODS)
async def test_a_scope_of_anyio(silent: MemoryServer, method: Method) -> None:
    own = Task("hi")
    async with AsyncChatGPTAdapter("sk-1", transport=silent) as adapter:
        handle = await running_task(adapter)
        async with anyio.create_task_group() as group:

            async def call() -> None:
                await method(adapter, handle, own)
                raise AssertionError("not reached")

            group.start_soon(call)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        if method is execute:
            assert await adapter.get_status(own.task_id or "") is TaskStatus.CANCELLED
        await check_untouched(adapter, handle, own, silent)


@pytest.mark.parametrize("method", METHODS)
async def test_the_hosts_own_way(silent: MemoryServer, method: Method, anyio_backend: Backend) -> None:
    own = Task("hi")
    async with AsyncChatGPTAdapter("sk-1", transport=silent) as adapter:
        handle = await running_task(adapter)

        async def call() -> None:
            await method(adapter, handle, own)
            raise AssertionError("not reached")

        if anyio_backend[0] == "asyncio":
            task = asyncio.create_task(call())
            await anyio.wait_all_tasks_blocked()
            task.cancel("by the host")
            with pytest.raises(asyncio.CancelledError):
                await task
            assert task.cancelled()
        else:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call)
                await anyio.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            assert nursery.cancel_scope.cancelled_caught
        await check_untouched(adapter, handle, own, silent)


@pytest.mark.parametrize("method", METHODS)
async def test_the_hosts_own_deadline(silent: MemoryServer, method: Method, anyio_backend: Backend) -> None:
    own = Task("hi")
    async with AsyncChatGPTAdapter("sk-1", transport=silent) as adapter:
        handle = await running_task(adapter)
        if anyio_backend[0] == "asyncio":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):  # seconds: what is waited for never comes
                    await method(adapter, handle, own)
            assert (current := asyncio.current_task()) is not None
            assert current.cancelling() == 0
        else:
            with pytest.raises(trio.TooSlowError), trio.fail_after(0.01):
                await method(adapter, handle, own)
        assert handle.status is TaskStatus.RUNNING
        await handle.cancel()


async def test_a_wait_within_a_wait(silent: MemoryServer) -> None:
    """The deadline of the caller and the one of `get_result` are told apart."""
    async with AsyncChatGPTAdapter("sk-1", transport=silent) as adapter:
        task_id = (await running_task(adapter)).id
        result: Result | None = None
        with anyio.move_on_after(0) as outer:
            result = await adapter.get_result(task_id, timeout=0)
        assert (result, outer.cancelled_caught) == (None, True)
        await adapter.cancel_task(task_id)


async def test_methods_that_do_not_wait_are_not_cancelled_midway(silent: MemoryServer) -> None:
    """What `submit_task` has started is known, whatever happens to its caller."""
    async with AsyncChatGPTAdapter("sk-1", transport=silent) as adapter:
        task = Task("hi")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await adapter.submit_task(task)
            assert await adapter.get_status(task.task_id or "") in {TaskStatus.PENDING, TaskStatus.RUNNING}
        assert await adapter.cancel_task(task.task_id or "") is True


async def test_one_failure_after_another_never_touches_a_sibling(serve: Serve) -> None:
    release = anyio.Event()
    bad = RuntimeError("the transport itself is broken")

    def script(request: object) -> Reply:
        if len(server.requests) % 2 == 0:
            raise bad
        return Reply("Hello, world.", faults=(faults.hold(1, release),))

    server = serve(script)
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        good = (await running_task(adapter)).id
        failed = await adapter.execute(Task("hi"))
        assert (failed.status, failed.exception) == (TaskStatus.FAILED, bad)
        assert failed.error == "the transport itself is broken"
        release.set()
        assert (await adapter.get_result(good)).success
