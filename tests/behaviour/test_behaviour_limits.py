"""How many at a time, in which order, how many are kept, and that ids are unique."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from chatscope import AsyncChatGPTAdapter, Task, TaskStatus
from chatscope.simulator import Reply, error, faults
from chatscope.testing.loops import virtual_time

if TYPE_CHECKING:
    from tests.support.memory_server import Serve


async def test_as_many_at_a_time_as_allowed_and_no_fewer(serve: Serve) -> None:
    release = anyio.Event()
    server = serve(Reply("Hello, world.", faults=(faults.hold(1, release),)))
    async with AsyncChatGPTAdapter("sk-1", transport=server, max_concurrency=3) as adapter:
        handles = [adapter.start_task(Task(str(number))) for number in range(10)]
        await server.wait_for_requests(3)
        await anyio.wait_all_tasks_blocked()
        assert [handle.status for handle in handles] == [TaskStatus.RUNNING] * 3 + [TaskStatus.PENDING] * 7
        release.set()
    assert [handle.status for handle in handles] == [TaskStatus.COMPLETED] * 10
    assert (server.peak, len(server.requests)) == (3, 10)


async def test_first_in_first_out(serve: Serve) -> None:
    server = serve()
    async with AsyncChatGPTAdapter("sk-1", transport=server, max_concurrency=1) as adapter:
        for number in range(20):
            adapter.start_task(Task(str(number)))
    prompts = [body["messages"][-1]["content"] for body in server.bodies]
    assert prompts == [str(number) for number in range(20)]


async def test_a_hundred_at_a_time_by_default(serve: Serve) -> None:
    release = anyio.Event()
    server = serve(Reply("Hello, world.", faults=(faults.hold(1, release),)))
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        for _ in range(130):
            await adapter.submit_task(Task("hi"))
        await server.wait_for_requests(100)
        await anyio.wait_all_tasks_blocked()
        report = adapter.get_adapter_status()
        assert (report["running"], report["pending"]) == (100, 30)
        release.set()
    assert server.peak == 100


async def test_a_slot_is_free_again_however_its_task_ends(serve: Serve) -> None:
    answers = [error(400), Reply("Hello, world.", faults=(faults.end(1),)), faults.stall(1), Reply("Hello, world.")]
    async with AsyncChatGPTAdapter("sk-1", transport=serve(answers), max_concurrency=1) as adapter:
        assert (await adapter.execute(Task("hi"))).status is TaskStatus.FAILED
        assert (await adapter.execute(Task("hi"))).status is TaskStatus.FAILED
        handle = adapter.start_task(Task("hi"))
        await anext(handle.stream())
        assert await handle.cancel() is True
        assert (await adapter.execute(Task("hi"))).status is TaskStatus.COMPLETED


async def test_waiting_tasks_that_are_cancelled_hold_nobody_up(serve: Serve) -> None:
    release = anyio.Event()
    server = serve(Reply("Hello, world.", faults=(faults.hold(1, release),)))
    async with AsyncChatGPTAdapter("sk-1", transport=server, max_concurrency=1) as adapter:
        handles = [adapter.start_task(Task(str(number))) for number in range(5)]
        await server.wait_for_requests(1)
        for handle in handles[1:4]:
            assert await handle.cancel() is True
        release.set()
        assert (await handles[4].wait()).success
    assert [body["messages"][-1]["content"] for body in server.bodies] == ["0", "4"]


@pytest.mark.slow
async def test_ids_are_unique(serve: Serve) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=serve(), keep_finished=10) as adapter:
        ids = [await adapter.submit_task(Task("hi")) for _ in range(100)]
    assert len(set(ids)) == 100


def test_ids_stay_unique_when_the_digits_wrap_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.randbits", lambda bits: 2**bits - 2)
    adapter = AsyncChatGPTAdapter("sk-1")
    digits = [adapter._generate_task_id().rsplit("_", 1)[1] for _ in range(4)]
    assert digits == ["fffffffe", "ffffffff", "00000000", "00000001"]


async def test_the_oldest_finished_tasks_are_forgotten_first(serve: Serve) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=serve(), max_concurrency=1, keep_finished=3) as adapter:
        ids = [await adapter.submit_task(Task("hi")) for _ in range(5)]
        for task_id in ids:
            await adapter.get_result(task_id)
        statuses = [await adapter.get_status(task_id) for task_id in ids]
        assert statuses == [TaskStatus.UNKNOWN] * 2 + [TaskStatus.COMPLETED] * 3
        assert (await adapter.get_result(ids[0])).error == f"Unknown task_id: {ids[0]}"
        assert adapter.get_adapter_status()["finished"] == 5
        assert adapter.get_adapter_status()["tokens"] == 5 * 11


async def test_a_running_task_is_never_forgotten(serve: Serve) -> None:
    release = anyio.Event()
    server = serve([Reply("Hello, world.", faults=(faults.hold(1, release),)), Reply("Hello, world.")])
    async with AsyncChatGPTAdapter("sk-1", transport=server, keep_finished=1) as adapter:
        slow = adapter.start_task(Task("hi"))
        await server.wait_for_requests(1)
        for _ in range(3):
            await adapter.execute(Task("hi"))
        assert adapter.forget(slow.id) is False
        assert await adapter.get_status(slow.id) is TaskStatus.RUNNING
        release.set()
        assert (await adapter.get_result(slow.id)).success


async def test_forget(serve: Serve) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=serve()) as adapter:
        handle = adapter.start_task(Task("hi"))
        result = await handle.wait()
        assert adapter.forget(handle.id) is True
        assert adapter.forget(handle.id) is False
        assert await adapter.get_status(handle.id) is TaskStatus.UNKNOWN
        assert (await adapter.get_result(handle.id)).status is TaskStatus.UNKNOWN
        assert [text async for text in adapter.stream_result(handle.id)] == []
        assert await handle.wait() is result  # who holds the handle still has it all


def test_what_limits_a_client_outlives_the_run_of_its_event_loop() -> None:
    """Each run counts from a time of its own: a pause of the first must not last for days in the second."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "well"}, "finish_reason": "stop"}
    server = httpx.MockTransport(lambda _: httpx.Response(200, json={"choices": [choice]}))
    adapter = AsyncChatGPTAdapter("sk-1", transport=server, requests_per_minute=1)

    async def seconds() -> float:
        async with adapter:
            began = anyio.current_time()
            assert (await adapter.execute(Task("hi", parameters={"stream": False}))).success
            return anyio.current_time() - began

    waits = []
    for starts_at in (1000.0, 5.0, 1e6):
        backend, options = virtual_time()
        options["clock"].jump(starts_at)
        waits.append(anyio.run(seconds, backend=backend, backend_options=options))
    assert waits == pytest.approx([0.0, 60.0, 60.0], abs=1.0)
