"""ChatTask and TextStream as objects: what they say about their task, and that they hold nothing."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest

from chatscope import AsyncChatGPTAdapter, ChatTask, Task, TaskStatus, TextStream
from chatscope.simulator import Reply, error, faults

if TYPE_CHECKING:
    from tests.support.memory_server import Serve


async def test_a_handle_from_beginning_to_end(serve: Serve) -> None:
    release = anyio.Event()
    server = serve(Reply("Hello, world.", faults=(faults.hold(1, release),)))
    async with AsyncChatGPTAdapter("sk-1", transport=server, max_concurrency=1) as adapter:
        handle = adapter.start_task(Task("hi", metadata={"mine": 1}))
        assert isinstance(handle, ChatTask)
        assert handle.id.startswith("chatgpt_")
        assert handle.task.metadata == {"mine": 1}
        assert await anext(handle.stream()) == "Hello"
        assert (handle.status, handle.text, handle.result) == (TaskStatus.RUNNING, "Hello", None)
        assert handle.id in repr(handle)
        assert "running" in repr(handle)
        waiting = adapter.start_task(Task("hi"))
        assert (waiting.status, waiting.text) == (TaskStatus.PENDING, "")
        release.set()
        result = await handle.wait()
        assert handle.result is result is await handle.wait()
        assert (handle.status, handle.text) == (TaskStatus.COMPLETED, "Hello, world.")
        assert await handle.cancel() is False


async def test_the_handle_is_what_the_ids_look_up(serve: Serve) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=serve()) as adapter:
        handle = adapter.start_task(Task("hi"))
        assert await adapter.get_result(handle.id) is await handle.wait()
        assert await adapter.get_status(handle.id) is handle.status


async def test_wait_returns_failures_too(serve: Serve) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=serve(error(400))) as adapter:
        handle = adapter.start_task(Task("hi"))
        assert (await handle.wait()).status is handle.status is TaskStatus.FAILED


async def test_many_wait_for_one(serve: Serve) -> None:
    results: list[object] = []
    async with AsyncChatGPTAdapter("sk-1", transport=serve()) as adapter:
        handle = adapter.start_task(Task("hi"))

        async def wait() -> None:
            results.append(await handle.wait())

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(wait)
    assert results == [handle.result] * 5


async def test_a_stream_is_an_async_iterator_that_can_be_closed(serve: Serve) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=serve()) as adapter:
        stream = adapter.start_task(Task("hi")).stream()
        assert isinstance(stream, TextStream)
        assert isinstance(stream, AsyncIterator)
        assert aiter(stream) is stream
        async with stream as entered:
            assert entered is stream
            assert "".join([text async for text in stream]) == "Hello, world."


async def test_a_finished_stream_lets_go_of_its_task(serve: Serve) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=serve()) as adapter:
        handle = adapter.start_task(Task("hi"))
        stream = handle.stream()
        assert "".join([text async for text in stream]) == "Hello, world."
        other = handle.stream()
        await other.aclose()
    assert stream._log is None
    assert other._log is None


async def test_a_reader_that_is_dropped_leaves_the_task_running(serve: Serve) -> None:
    release = anyio.Event()
    server = serve(Reply("Hello, world.", faults=(faults.hold(1, release),)))
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        handle = adapter.start_task(Task("hi"))
        stream = handle.stream()
        assert await anext(stream) == "Hello"
        dropped = weakref.ref(stream)
        del stream
        gc.collect()
        await anyio.wait_all_tasks_blocked()
        assert (dropped(), handle.status) == (None, TaskStatus.RUNNING)
        release.set()
        assert (await handle.wait()).success


async def test_an_owner_that_outlives_its_loop_is_dropped_in_silence(serve: Serve) -> None:
    """Also in a thread: the loop it would call has no use for it any more."""
    async with AsyncChatGPTAdapter("sk-1", transport=serve(faults.stall(1))) as adapter:
        holder = [adapter.execute_streaming(task := Task("hi"))]
        assert await anext(holder[0]) == "You"
        await adapter.cancel_task(task.task_id or "")
    await anyio.to_thread.run_sync(holder.clear)


def test_dropped_in_a_thread_after_the_loop_has_gone(
    serve: Serve, anyio_backend: tuple[str, dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    holder: list[TextStream] = []

    async def leave_one_behind() -> None:
        async with AsyncChatGPTAdapter("sk-1", transport=serve(faults.stall(1))) as adapter:
            stream = adapter.execute_streaming(Task("hi"))
            assert await anext(stream) == "You"
            holder.append(stream)
            (task_id,) = adapter._tasks._running
            await adapter.cancel_task(task_id)

    anyio.run(leave_one_behind, backend=anyio_backend[0], backend_options=anyio_backend[1])
    (stream,) = holder
    assert stream._log is not None
    stream._log.result = None  # as if the loop had been stopped in the middle of the task
    del stream
    holder.clear()
    gc.collect()
