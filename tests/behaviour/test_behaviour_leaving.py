"""execute_streaming: leaving the iterator early, in any way, cancels the task."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest

from chatscope import AsyncChatGPTAdapter, BadRequestError, Task, TaskStatus, TextStream
from chatscope.simulator import Reply, error, faults

if TYPE_CHECKING:
    from tests.support.memory_server import MemoryServer, Serve


@pytest.fixture
def server(serve: Serve) -> MemoryServer:
    """Says two tokens and falls silent."""
    return serve(Reply("Hello, world.", faults=(faults.stall(2),)))


@pytest.fixture
def task() -> Task:
    """What is asked."""
    return Task("hi")


async def check_cancelled(adapter: AsyncChatGPTAdapter, task: Task, server: MemoryServer, text: str = "Hello") -> None:
    """Show that the task is cancelled, by itself, and its connection closed."""
    with anyio.fail_after(5):  # seconds; it takes no time, unless nothing stops the task
        result = await adapter.get_result(task.task_id or "")
    assert (result.status, server.open) == (TaskStatus.CANCELLED, 0)
    assert result.output in {text, "Hello,"}  # whichever had arrived by then


async def test_to_the_end(serve: Serve, task: Task) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=serve()) as adapter:
        texts = [text async for text in adapter.execute_streaming(task)]
        assert "".join(texts) == "Hello, world."
        result = await adapter.get_result(task.task_id or "")
        assert await adapter.get_status(task.task_id or "") is TaskStatus.COMPLETED
    assert result.tokens_used == 11
    assert result.cost == pytest.approx(3.45e-6)
    report = adapter.get_adapter_status()
    assert (report["finished"], report["tokens"], report["cost"]) == (1, 11, pytest.approx(3.45e-6))


async def test_a_failure_is_raised(serve: Serve, task: Task) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=serve(error(400))) as adapter:
        with pytest.raises(BadRequestError):
            async for _ in adapter.execute_streaming(task):
                pass
        assert await adapter.get_status(task.task_id or "") is TaskStatus.FAILED


async def test_break(server: MemoryServer, task: Task) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        async for _ in adapter.execute_streaming(task):
            break
        await check_cancelled(adapter, task, server)


async def test_an_exception_in_the_loop(server: MemoryServer, task: Task) -> None:
    async def read(adapter: AsyncChatGPTAdapter) -> None:
        async for _ in adapter.execute_streaming(task):
            raise LookupError

    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        with pytest.raises(LookupError):
            await read(adapter)
        await check_cancelled(adapter, task, server)


async def test_return(server: MemoryServer, task: Task) -> None:
    async def first(adapter: AsyncChatGPTAdapter) -> str:
        async for text in adapter.execute_streaming(task):
            return text
        return ""

    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        assert await first(adapter) == "Hello"
        await check_cancelled(adapter, task, server)


async def test_aclose_returns_when_the_connection_is_closed(server: MemoryServer, task: Task) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        stream = adapter.execute_streaming(task)
        assert await anext(stream) == "Hello"
        assert server.open == 1
        await stream.aclose()
        assert (server.open, await adapter.get_status(task.task_id or "")) == (0, TaskStatus.CANCELLED)
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_aclose_before_the_first_part(server: MemoryServer, task: Task) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        await adapter.execute_streaming(task).aclose()
        await check_cancelled(adapter, task, server, "")


async def test_the_block_of_the_iterator(server: MemoryServer, task: Task) -> None:
    async def read(adapter: AsyncChatGPTAdapter) -> None:
        async with adapter.execute_streaming(task) as stream:
            async for _ in stream:
                raise LookupError

    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        with pytest.raises(LookupError):
            await read(adapter)
        assert (server.open, await adapter.get_status(task.task_id or "")) == (0, TaskStatus.CANCELLED)


async def test_garbage_collection(server: MemoryServer, task: Task) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        stream = adapter.execute_streaming(task)
        assert await anext(stream) == "Hello"
        del stream
        gc.collect()
        await check_cancelled(adapter, task, server)


async def test_garbage_collection_of_an_iterator_that_was_never_used(server: MemoryServer, task: Task) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        adapter.execute_streaming(task)
        gc.collect()
        await check_cancelled(adapter, task, server, "")


async def test_garbage_collection_of_a_cycle(server: MemoryServer, task: Task) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        cycle: list[object] = [adapter.execute_streaming(task)]
        cycle.append(cycle)
        assert isinstance(cycle[0], TextStream)
        assert await anext(cycle[0]) == "Hello"
        del cycle
        gc.collect()
        await check_cancelled(adapter, task, server)


async def test_garbage_collection_in_another_thread(server: MemoryServer, task: Task) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        holder = [adapter.execute_streaming(task)]
        assert await anext(holder[0]) == "Hello"
        dropped_in: list[int] = []

        def drop() -> None:
            holder.clear()
            gc.collect()
            dropped_in.append(threading.get_ident())

        await anyio.to_thread.run_sync(drop)
        assert dropped_in != [threading.get_ident()]
        await check_cancelled(adapter, task, server)


async def test_garbage_collection_after_the_end_does_nothing(serve: Serve, task: Task) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=serve()) as adapter:
        stream = adapter.execute_streaming(task)
        assert await anext(stream) == "Hello"
        await adapter.get_result(task.task_id or "")
        del stream
        gc.collect()
        assert await adapter.get_status(task.task_id or "") is TaskStatus.COMPLETED


async def test_a_cancelled_reader(server: MemoryServer, task: Task) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        with anyio.CancelScope() as scope:
            async for text in adapter.execute_streaming(task):
                if text == ",":
                    scope.cancel()
        assert scope.cancelled_caught
        await check_cancelled(adapter, task, server)


async def test_a_reader_cancelled_before_the_first_part(serve: Serve, task: Task) -> None:
    server = serve(faults.stall(0))
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        async with anyio.create_task_group() as group:

            async def read() -> None:
                async for _ in adapter.execute_streaming(task):
                    pass

            group.start_soon(read)
            await server.wait_for_requests(1)
            group.cancel_scope.cancel()
        await check_cancelled(adapter, task, server, "")


async def test_outside_the_block_it_is_refused_at_once(server: MemoryServer, task: Task) -> None:
    with pytest.raises(RuntimeError, match="use 'async with'"):
        AsyncChatGPTAdapter("sk-1", transport=server).execute_streaming(task)
