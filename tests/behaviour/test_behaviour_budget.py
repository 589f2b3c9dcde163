"""What an adapter's tasks may use in all: who is stopped when it is used up, with which outcome, and who is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from chatscope import AsyncChatGPTAdapter, BudgetExceededError, Result, Task, TaskCancelledError, TaskStatus
from chatscope.simulator import Answer, ChatRequest, Reply, faults, respond

if TYPE_CHECKING:
    from tests.support.memory_server import Serve

TOKENS = 11
"""What `Task("hi")` and `Reply("Hello, world.")` use together."""


def refused(result: Result) -> bool:
    return result.status is TaskStatus.FAILED and isinstance(result.exception, BudgetExceededError)


async def test_a_task_after_the_limit_ends_at_once_and_sends_nothing(serve: Serve) -> None:
    server = serve(Reply("Hello, world."))
    async with AsyncChatGPTAdapter("sk-1", transport=server, max_total_tokens=2 * TOKENS) as adapter:
        assert [(await adapter.execute(Task("hi"))).success for _ in range(2)] == [True, True]
        handle = adapter.start_task(Task("hi"))
        assert handle.result is not None, "it is there at once"
        assert refused(handle.result)
        assert handle.result.error == "max_total_tokens of 22 is reached: 22 are used"
        assert (handle.result.attempts, handle.result.tokens_used, handle.result.cost) == (0, None, None)
        assert await adapter.get_status(handle.id) is TaskStatus.FAILED
        assert refused(await adapter.get_result(await adapter.submit_task(Task("hi"))))
        assert refused(await adapter.execute(Task("hi")))
        with pytest.raises(BudgetExceededError):
            await anext(adapter.execute_streaming(Task("hi")))
        status = adapter.get_adapter_status()
        assert (status["running"], status["pending"], status["finished"], status["tokens"]) == (0, 0, 6, 22)
        assert adapter.statistics().running == 0
    assert len(server.requests) == 2


async def test_tokens_below_nothing_leave_no_more_to_others(serve: Serve) -> None:
    usage = b'{"total_tokens":-9,"prompt_tokens":-9}'
    chunk = b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}],"usage":' + usage + b"}\n\n"
    server = serve(respond(200, chunk + b"data: [DONE]\n\n", "text/event-stream"))
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        result = await adapter.execute(Task("hi"))
        assert (result.output, result.tokens_used, result.cost) == ("a", None, None)
        assert adapter.get_adapter_status()["tokens"] == 0


async def test_the_cost(serve: Serve) -> None:
    async with AsyncChatGPTAdapter(
        "sk-1", transport=serve(), max_cost=0.25, prices=lambda query: 0.1, max_concurrency=1
    ) as adapter:
        results = await adapter.gather([Task("hi") for _ in range(6)])
    assert [result.cost for result in results] == [0.1] * 3 + [None] * 3
    assert [refused(result) for result in results] == [False] * 3 + [True] * 3
    assert "max_cost of 0.25 USD" in (results[3].error or "")


async def test_tasks_that_wait_end_with_it_and_tasks_that_run_do_not(serve: Serve) -> None:
    releases = [anyio.Event(), anyio.Event()]

    def answer(request: ChatRequest) -> Answer:
        return Reply("Hello, world.", faults=(faults.hold(1, releases[int(request.prompt)]),))

    server = serve(answer)
    async with AsyncChatGPTAdapter("sk-1", transport=server, max_total_tokens=1, max_concurrency=2) as adapter:
        running = [adapter.start_task(Task(str(number))) for number in range(2)]
        waiting = [adapter.start_task(Task("0")) for _ in range(5)]
        await server.wait_for_requests(2)
        releases[0].set()
        assert (await running[0].wait()).success
        assert [refused(await handle.wait()) for handle in waiting] == [True] * 5
        assert running[1].status is TaskStatus.RUNNING
        releases[1].set()
        assert (await running[1].wait()).success
    assert len(server.requests) == 2


async def test_running_tasks_too_if_asked_with_their_partial_text(serve: Serve) -> None:
    server = serve([Reply("One two three.", faults=(faults.stall(2),)), Reply("Hello, world.")])
    async with AsyncChatGPTAdapter("sk-1", transport=server, max_total_tokens=5, cancel_over_budget=True) as adapter:
        slow = adapter.start_task(Task("hi"))
        await anext(slow.stream())
        assert (await adapter.execute(Task("hi"))).success
        result = await slow.wait()
        assert refused(result)
        assert result.output != ""
        assert isinstance(result.exception, BudgetExceededError)
        assert result.exception.partial_text == result.output
        assert result.attempts == result.exception.attempts == 1
        assert result.exception.request_id == "req_1"
        assert await slow.cancel() is False
    assert server.open == 0


async def test_a_task_that_was_cancelled_before_stays_cancelled(serve: Serve) -> None:
    release = anyio.Event()
    server = serve(Reply("Hello, world.", faults=(faults.hold(1, release),)))
    async with AsyncChatGPTAdapter("sk-1", transport=server, max_total_tokens=1, max_concurrency=1) as adapter:
        running = adapter.start_task(Task("hi"))
        waiting = adapter.start_task(Task("hi"))
        await server.wait_for_requests(1)
        waiting.request_cancel()
        adapter._tasks.spending.tokens = 1
        adapter._tasks._stop_over_budget()
        assert isinstance((await waiting.wait()).exception, TaskCancelledError)
        release.set()
        assert (await running.wait()).success


async def test_a_map_goes_on_with_refusals(serve: Serve) -> None:
    server = serve(Reply("Hello, world."))
    async with AsyncChatGPTAdapter("sk-1", transport=server, max_total_tokens=5 * TOKENS, max_concurrency=1) as adapter:
        outcomes = []
        async with adapter.map((Task("hi") for _ in range(500)), ordered=True) as results:
            async for result in results:
                outcomes.append(result.success)
                if result.exception is not None:
                    assert refused(result)
    assert outcomes == [True] * 5 + [False] * 495
    assert len(server.requests) == 5


async def test_a_task_that_is_stopped_in_the_moment_of_its_turn_sends_nothing(serve: Serve) -> None:
    release = anyio.Event()
    server = serve(Reply("Hello, world.", faults=(faults.hold(1, release),)))
    async with AsyncChatGPTAdapter("sk-1", transport=server, max_concurrency=1) as adapter:
        first = adapter.start_task(Task("hi"))
        second = adapter.start_task(Task("hi"))
        await server.wait_for_requests(1)
        await anyio.wait_all_tasks_blocked()
        first._state.on_end = lambda _: second.request_cancel()  # its slot was given to the second just before
        release.set()
        assert (await second.wait()).status is TaskStatus.CANCELLED
    assert len(server.requests) == 1


@pytest.mark.parametrize(("name", "value"), [("max_cost", 0), ("max_total_tokens", -1)])
def test_bad_limits(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=name):
        AsyncChatGPTAdapter("sk-1", **{name: value})  # type: ignore[arg-type]  # one of several keywords
