"""The running of tasks: what a failed submission leaves behind, and what a pending task is."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest

from chatscope import AsyncChatGPTAdapter, ChatTask, Task, TaskConstraints, TaskStatus
from chatscope.simulator import ChatRequest, Reply, ToolCall, faults

if TYPE_CHECKING:
    from tests.support.memory_server import Serve


async def test_from_another_thread_it_says_what_to_use_and_leaves_nothing(serve: Serve) -> None:
    raised: list[BaseException] = []
    async with AsyncChatGPTAdapter("sk-1", transport=serve(), max_concurrency=1) as adapter:
        task = Task("hi")

        def start() -> None:
            try:
                adapter.start_task(task)
            except BaseException as error:  # noqa: BLE001 - which one is what is asked
                raised.append(error)

        thread = threading.Thread(target=start)
        thread.start()
        await anyio.to_thread.run_sync(thread.join)
        assert isinstance(raised[0], RuntimeError)
        assert "anyio.from_thread.run(adapter.submit_task, task)" in str(raised[0])
        assert "BlockingPortal" in str(raised[0])
        assert (adapter.statistics().running, adapter.get_adapter_status()["running"], task.task_id) == (0, 0, None)
        task_id = await anyio.to_thread.run_sync(anyio.from_thread.run, adapter.submit_task, task)
        assert (await adapter.get_result(task_id)).success


async def test_a_start_that_fails_leaves_nothing(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=serve(), max_concurrency=1) as adapter:

        def broken(*_: object) -> None:
            raise MemoryError

        with monkeypatch.context() as patch:
            patch.setattr(type(adapter._tasks), "spawn", broken)
            with pytest.raises(MemoryError):
                adapter.start_task(Task("hi"))
        assert (adapter.statistics().running, adapter.get_adapter_status()["running"]) == (0, 0)
        assert (await adapter.execute(Task("hi"))).success


async def test_a_tool_may_ask_its_own_adapter(serve: Serve) -> None:
    def answer(request: ChatRequest) -> Reply:
        asks = "tools" in request.body and not any(message["role"] == "tool" for message in request.body["messages"])
        return Reply(None, tool_calls=(ToolCall("ask", {}),)) if asks else Reply("well")

    async with AsyncChatGPTAdapter("sk-1", transport=serve(answer), max_concurrency=1, max_pending=2) as adapter:

        async def ask() -> str:
            """Ask another model."""
            return (await adapter.execute(Task("inner"))).output

        with anyio.fail_after(30):
            results = await adapter.gather([Task(f"outer {number}", tools=[ask]) for number in range(3)])
        assert [result.output for result in results] == ["well"] * 3
        assert (adapter.statistics().running, adapter.statistics().queued) == (0, 0)


@pytest.mark.parametrize("how", ["raise", "cancel"])
async def test_nothing_is_sent_for_a_task_whose_block_is_left_in_the_tick_that_grants_its_slot(
    serve: Serve, how: str
) -> None:
    for _ in range(5):
        server = serve()
        second: ChatTask | None = None
        with anyio.CancelScope() as scope:
            try:
                async with AsyncChatGPTAdapter("sk-1", transport=server, max_concurrency=1) as adapter:
                    first, second = adapter.start_task(Task("first")), adapter.start_task(Task("second"))
                    while first.result is None:
                        await anyio.lowlevel.checkpoint()
                    if how == "raise":
                        raise LookupError
                    scope.cancel()
            except LookupError:
                pass
        assert second is not None
        assert (second.status, len(server.requests)) == (TaskStatus.CANCELLED, 1)


@pytest.mark.virtual_time
async def test_a_task_whose_deadline_passes_while_its_cancellation_cleans_up_is_cancelled(serve: Serve) -> None:
    async def slow() -> None:
        """Clean up for a while."""
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(5)

    server = serve(Reply(None, tool_calls=(ToolCall("slow", {}),)))
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        task = adapter.start_task(Task("hi", tools=[slow], constraints=TaskConstraints(timeout_seconds=10)))
        await anyio.sleep(8)
        assert await task.cancel()
    assert task.status is TaskStatus.CANCELLED


async def test_a_pending_task_has_no_coroutine_and_ends_at_once_when_it_is_cancelled(serve: Serve) -> None:
    server = serve(faults.stall())
    async with AsyncChatGPTAdapter("sk-1", transport=server, max_concurrency=1) as adapter:
        running = adapter.start_task(Task("hi"))
        await server.wait_for_requests(1)
        before = len(anyio.get_running_tasks())
        pending = [adapter.start_task(Task("hi")) for _ in range(100)]
        late = adapter.start_task(Task("hi", constraints=TaskConstraints(timeout_seconds=0.05)))
        await anyio.lowlevel.checkpoint()
        assert len(anyio.get_running_tasks()) <= before + 1, "one that watches the deadlines"
        pending[7].request_cancel()
        assert pending[7].status is TaskStatus.CANCELLED
        result = await late.wait()
        assert (result.status, result.exception.phase) == (TaskStatus.FAILED, "queue")  # type: ignore[union-attr]
        for task in (*pending, running):
            await task.cancel()
