"""Real connections, to the simulator on the loopback: what no mock can show."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from chatscope import (
    APIConnectionError,
    APITimeoutError,
    AsyncChatGPTAdapter,
    AuthenticationError,
    ChatTask,
    RetryPolicy,
    Task,
    TaskConstraints,
    TaskStatus,
)
from chatscope.simulator import Config, Outcome, Reply, Simulator, Stage, error, faults, simulator

if TYPE_CHECKING:
    pass

ONCE = RetryPolicy(attempts=1)


def all_closed(server: Simulator) -> bool:
    return server.connections_open == 0


async def seen_leaving(server: Simulator) -> None:
    """Wait until the server has seen the client of its first request leave."""
    with anyio.fail_after(5):  # seconds; loopback needs a millisecond
        await server.wait_until(lambda s: s.requests[0].outcome is not Outcome.RUNNING)
    assert server.requests[0].outcome is Outcome.DISCONNECTED


async def test_live_text_and_a_result() -> None:
    gates = [anyio.Event(), anyio.Event()]
    reply = Reply("Hello, wide world.", faults=(faults.hold(1, gates[0]), faults.hold(3, gates[1])))
    async with simulator(reply) as base_url, AsyncChatGPTAdapter("sk-1", base_url=base_url) as adapter:
        handle = adapter.start_task(Task("Write hello world"))
        early, late = handle.stream(), handle.stream()
        assert await anext(early) == "Hello"
        gates[0].set()
        assert [await anext(early), await anext(early)] == [",", " wide"]
        assert handle.status is TaskStatus.RUNNING
        gates[1].set()
        assert [text async for text in early] == [" world", "."]
        assert [text async for text in late] == ["Hello", ",", " wide", " world", "."]
        result = await handle.wait()
    assert (result.success, result.tokens_used, result.attempts) == (True, 14, 1)
    assert result.cost == pytest.approx((9 * 0.15 + 5 * 0.60) / 1e6)
    assert result.timings is not None
    assert len(result.timings.token_ns) == 5
    assert list(result.timings.token_ns) == sorted(result.timings.token_ns)


async def test_many_tasks_on_a_few_connections() -> None:
    server = simulator(Reply("Hello, world."))
    async with server as base_url:
        async with AsyncChatGPTAdapter("sk-1", base_url=base_url, max_concurrency=4) as adapter:
            handles = [adapter.start_task(Task("hi")) for _ in range(40)]
            results = [await handle.wait() for handle in handles]
        assert all(result.success for result in results)
        assert server.connections_accepted <= 8
        await server.wait_until(all_closed)


async def test_a_key_that_is_refused() -> None:
    config = Config(api_keys=frozenset({"sk-right"}))
    async with simulator(config=config) as base_url, AsyncChatGPTAdapter("sk-wrong", base_url=base_url) as adapter:
        result = await adapter.execute(Task("hi"))
    assert isinstance(result.exception, AuthenticationError)
    assert (result.exception.code, result.attempts) == ("invalid_api_key", 1)


async def test_a_429_and_then_a_success() -> None:
    server = simulator([error(429, retry_after=0.01), Reply("Hello, world.")])
    async with server as base_url, AsyncChatGPTAdapter("sk-1", base_url=base_url) as adapter:
        result = await adapter.execute(Task("hi"))
    assert (result.output, result.attempts) == ("Hello, world.", 2)
    assert result.attempts_log[0].wait_seconds == 0.01
    # Rounded, as the difference of two times in seconds is not exact: 28711.659 - 28711.649 is less than 0.01.
    assert round(server.requests[1].time - server.requests[0].time, 6) >= 0.01


# -- leaving -----------------------------------------------------------------------------------------------------------


async def test_cancelling_a_task_closes_its_connection() -> None:
    server = simulator(faults.stall(2))
    async with server as base_url, AsyncChatGPTAdapter("sk-1", base_url=base_url) as adapter:
        handle = adapter.start_task(Task("hi"))
        assert await anext(handle.stream()) == "You"
        assert await adapter.cancel_task(handle.id) is True
        assert handle.status is TaskStatus.CANCELLED
        await seen_leaving(server)
        assert handle.text.startswith("You")


async def test_cancelling_before_the_response_closes_the_connection() -> None:
    server = simulator(faults.stall(Stage.STATUS))
    async with server as base_url, AsyncChatGPTAdapter("sk-1", base_url=base_url) as adapter:
        handle = adapter.start_task(Task("hi"))
        await server.wait_until(lambda s: s.requests_received == 1)
        assert await handle.cancel() is True
        await seen_leaving(server)


async def test_leaving_execute_streaming_closes_the_connection() -> None:
    server = simulator(faults.stall(2))
    async with server as base_url, AsyncChatGPTAdapter("sk-1", base_url=base_url) as adapter:
        async for _ in adapter.execute_streaming(Task("hi")):
            break
        await seen_leaving(server)


async def test_leaving_the_block_by_an_exception_closes_the_connections() -> None:
    server = simulator(faults.stall(1))
    handles: list[ChatTask] = []

    async def use(base_url: str) -> None:
        async with AsyncChatGPTAdapter("sk-1", base_url=base_url) as adapter:
            handles.extend(adapter.start_task(Task("hi")) for _ in range(3))
            for handle in handles:
                await anext(handle.stream())
            raise LookupError

    async with server as base_url:
        with pytest.raises(LookupError):
            await use(base_url)
        assert [handle.status for handle in handles] == [TaskStatus.CANCELLED] * 3
        with anyio.fail_after(5):  # seconds
            await server.wait_until(all_closed)
        assert {received.outcome for received in server.requests} == {Outcome.DISCONNECTED}


async def test_done_ends_the_task_although_the_server_stays() -> None:
    server = simulator(Reply("Hello, world.", faults=(faults.stall(Stage.END),)))
    async with server as base_url, AsyncChatGPTAdapter("sk-1", base_url=base_url) as adapter:
        assert (await adapter.execute(Task("hi"))).output == "Hello, world."
        # The connection is kept for what its server still has to say, and closed when it turns out not to have.
        assert (await adapter.execute(Task("hi"))).output == "Hello, world."
        await seen_leaving(server)


# -- other endings: the fault catalogue has the rest -------------------------------------------------------------------


async def test_nobody_listens() -> None:
    async with simulator() as base_url:
        pass
    async with AsyncChatGPTAdapter("sk-1", base_url=base_url, retry=ONCE) as adapter:
        result = await adapter.execute(Task("hi"))
    assert type(result.exception) is APIConnectionError
    assert str(result.error).startswith("no connection to 127.0.0.1")


async def test_a_sibling_survives_a_reset() -> None:
    release = anyio.Event()
    server = simulator([Reply("Hello, world.", faults=(faults.hold(1, release),)), faults.reset(1)])
    async with server as base_url, AsyncChatGPTAdapter("sk-1", base_url=base_url, retry=ONCE) as adapter:
        good = adapter.start_task(Task("hi"))
        await anext(good.stream())
        assert (await adapter.execute(Task("hi"))).status is TaskStatus.FAILED
        release.set()
        assert (await good.wait()).success


async def test_the_tasks_own_deadline() -> None:
    server = simulator(faults.endless(seconds=0.001))
    async with server as base_url, AsyncChatGPTAdapter("sk-1", base_url=base_url) as adapter:
        result = await adapter.execute(Task("hi", constraints=TaskConstraints(timeout_seconds=0.05)))
        assert isinstance(result.exception, APITimeoutError)
        assert result.exception.phase == "total"
        await seen_leaving(server)


# -- httpx's own transport, in a client of the user's ------------------------------------------------------------------


async def test_a_plain_httpx_client() -> None:
    """Responses are read to their end, so that httpx keeps the connection and, on trio, leaves no generator behind."""
    server = simulator(Reply("Hello, world."))
    async with server as base_url, httpx.AsyncClient(trust_env=False) as http_client:
        async with AsyncChatGPTAdapter("sk-1", base_url=base_url, http_client=http_client) as adapter:
            results = [await adapter.execute(Task("hi")) for _ in range(3)]
        assert server.connections_accepted == 1
    gc.collect()
    assert [result.output for result in results] == ["Hello, world."] * 3
