"""Live text: any number of readers, early and late, of tasks that succeed, fail and are cancelled."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint

from chatscope import (
    AsyncChatGPTAdapter,
    BadRequestError,
    ChatError,
    RetryPolicy,
    StreamServerError,
    StreamTruncatedError,
    Task,
    TaskStatus,
)
from chatscope.simulator import ErrorShape, Reply, error, faults

if TYPE_CHECKING:
    from tests.support.memory_server import Serve

PARTS = ["Hello", ",", " wide", " world", "."]


async def read_into(texts: list[str], stream: AsyncIterator[str]) -> None:
    async for text in stream:
        texts.append(text)  # noqa: PERF401 - what has come must show before the end


async def test_it_is_live(serve: Serve) -> None:
    gates = [anyio.Event() for _ in PARTS]
    held = Reply("".join(PARTS), faults=tuple(faults.hold(at, gate) for at, gate in enumerate(gates)))
    async with AsyncChatGPTAdapter("sk-1", transport=serve(held)) as adapter:
        task_id = await adapter.submit_task(Task("hi"))
        stream = adapter.stream_result(task_id)
        for number, gate in enumerate(gates):
            assert await adapter.get_status(task_id) is not TaskStatus.COMPLETED
            gate.set()
            assert await anext(stream) == PARTS[number]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert await adapter.get_status(task_id) is TaskStatus.COMPLETED


async def test_readers_early_and_late_get_the_same_parts(serve: Serve) -> None:
    first, second = anyio.Event(), anyio.Event()
    held = Reply("".join(PARTS), faults=(faults.hold(1, first), faults.hold(3, second)))
    early: list[str] = []
    twin: list[str] = []
    midway: list[str] = []
    async with AsyncChatGPTAdapter("sk-1", transport=serve(held)) as adapter:
        handle = adapter.start_task(Task("hi"))
        async with anyio.create_task_group() as readers:
            readers.start_soon(read_into, early, handle.stream())
            readers.start_soon(read_into, twin, adapter.stream_result(handle.id))
            while early != PARTS[:1]:
                await checkpoint()
            await anyio.wait_all_tasks_blocked()
            assert early == twin == PARTS[:1]
            first.set()
            while early != PARTS[:3]:
                await checkpoint()
            readers.start_soon(read_into, midway, handle.stream())
            await anyio.wait_all_tasks_blocked()
            assert early == twin == midway == PARTS[:3]
            assert handle.text == "Hello, wide"
            second.set()
        assert early == twin == midway == PARTS
    assert [text async for text in adapter.stream_result(handle.id)] == PARTS
    assert [text async for text in handle.stream()] == PARTS


async def test_a_failed_task_raises_after_its_text_to_every_reader(serve: Serve) -> None:
    release = anyio.Event()
    failing = Reply("".join(PARTS), faults=(faults.stream_error(3), faults.hold(1, release)))
    early: list[str] = []
    caught: list[Exception] = []

    async def read(stream: AsyncIterator[str]) -> None:
        with pytest.raises(StreamServerError) as raised:
            await read_into(early, stream)
        caught.append(raised.value)

    async with AsyncChatGPTAdapter("sk-1", transport=serve(failing)) as adapter:
        handle = adapter.start_task(Task("hi"))
        async with anyio.create_task_group() as readers:
            readers.start_soon(read, handle.stream())
            while not early:
                await checkpoint()
            release.set()
    late: list[str] = []
    with pytest.raises(StreamServerError) as raised:
        await read_into(late, handle.stream())
    assert early == late == PARTS[:3]
    assert handle.result is not None
    assert caught == [raised.value] == [handle.result.exception]
    assert raised.value.partial_text == handle.result.output == "Hello, wide"
    assert handle.status is TaskStatus.FAILED


async def test_an_error_is_raised_once_per_iterator(serve: Serve) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=serve(error(400))) as adapter:
        stream = adapter.start_task(Task("hi")).stream()
        with pytest.raises(BadRequestError):
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_a_cancelled_task_ends_its_streams_quietly(serve: Serve) -> None:
    held = Reply("".join(PARTS), faults=(faults.stall(2),))
    early: list[str] = []
    async with AsyncChatGPTAdapter("sk-1", transport=serve(held)) as adapter:
        handle = adapter.start_task(Task("hi"))
        async with anyio.create_task_group() as readers:
            readers.start_soon(read_into, early, handle.stream())
            while early != PARTS[:2]:
                await checkpoint()
            assert await handle.cancel() is True
    assert early == PARTS[:2]
    assert [text async for text in handle.stream()] == PARTS[:2]


async def test_a_cancelled_read_loses_nothing(serve: Serve) -> None:
    release = anyio.Event()
    held = Reply("".join(PARTS), faults=(faults.hold(1, release),))
    async with AsyncChatGPTAdapter("sk-1", transport=serve(held)) as adapter:
        stream = adapter.start_task(Task("hi")).stream()
        assert await anext(stream) == PARTS[0]
        with anyio.move_on_after(0) as scope:
            await anext(stream)
        assert scope.cancelled_caught
        release.set()
        assert [text async for text in stream] == PARTS[1:]


async def test_leaving_a_reader_leaves_the_task_running(serve: Serve) -> None:
    release = anyio.Event()
    held = Reply("".join(PARTS), faults=(faults.hold(2, release),))
    async with AsyncChatGPTAdapter("sk-1", transport=serve(held)) as adapter:
        handle = adapter.start_task(Task("hi"))
        async for _ in handle.stream():
            break
        async with handle.stream() as stream:
            assert await anext(stream) == PARTS[0]
        stream = adapter.stream_result(handle.id)
        assert await anext(stream) == PARTS[0]
        await stream.aclose()
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        del stream
        await anyio.wait_all_tasks_blocked()
        assert handle.status is TaskStatus.RUNNING
        release.set()
        assert (await handle.wait()).output == "".join(PARTS)


async def test_a_task_without_text_has_no_parts(serve: Serve) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=serve(Reply(""))) as adapter:
        handle = adapter.start_task(Task("hi"))
        assert [text async for text in handle.stream()] == []
        assert (handle.status, handle.text) == (TaskStatus.COMPLETED, "")


async def test_the_text_of_a_task_that_waits_for_its_turn(serve: Serve) -> None:
    release = anyio.Event()
    held = Reply("".join(PARTS), faults=(faults.hold(1, release),))
    async with AsyncChatGPTAdapter("sk-1", transport=serve(held), max_concurrency=1) as adapter:
        adapter.start_task(Task("hi"))
        waiting = adapter.start_task(Task("hi"))
        stream = waiting.stream()
        with anyio.move_on_after(0):
            await anext(stream)
        assert (waiting.status, waiting.text) == (TaskStatus.PENDING, "")
        release.set()
        assert [text async for text in stream] == PARTS


# -- starting over -----------------------------------------------------------------------------------------------------

CUT = Reply("Draft one", faults=(faults.end(1),))


async def test_text_that_arrived_is_final(serve: Serve) -> None:
    server = serve([CUT, Reply("Another")])
    async with AsyncChatGPTAdapter("sk-1", transport=server, retry=RetryPolicy(initial=0, jitter=0)) as adapter:
        handle = adapter.start_task(Task("hi"))
        result = await handle.wait()
    assert (result.status, result.output, result.attempts) == (TaskStatus.FAILED, "Draft", 1)
    assert isinstance(result.exception, StreamTruncatedError)


async def test_restart_unread_starts_over_while_nobody_has_read(serve: Serve) -> None:
    server = serve([CUT, Reply("Another try")])
    policy = RetryPolicy(initial=0, jitter=0, restart_unread=True)
    async with AsyncChatGPTAdapter("sk-1", transport=server, retry=policy) as adapter:
        handle = adapter.start_task(Task("hi"))
        result = await handle.wait()
        assert [text async for text in handle.stream()] == ["Another", " try"]
    assert (result.status, result.output, result.attempts) == (TaskStatus.COMPLETED, "Another try", 2)
    assert result.timings is not None
    assert len(result.timings.token_ns) == 2


async def test_restart_unread_does_not_start_over_once_somebody_has_read(serve: Serve) -> None:
    release = anyio.Event()
    server = serve([Reply("Draft one", faults=(faults.end(1), faults.hold(1, release))), Reply("Another try")])
    policy = RetryPolicy(initial=0, jitter=0, restart_unread=True)
    async with AsyncChatGPTAdapter("sk-1", transport=server, retry=policy) as adapter:
        stream = (handle := adapter.start_task(Task("hi"))).stream()
        assert await anext(stream) == "Draft"
        release.set()
        with pytest.raises(StreamTruncatedError):
            await anext(stream)
    assert (handle.text, len(server.requests)) == ("Draft", 1)


async def test_who_begins_to_read_between_two_attempts_reads_the_second(serve: Serve) -> None:
    release = anyio.Event()
    server = serve([CUT, Reply("Another try", faults=(faults.hold(0, release),))])
    policy = RetryPolicy(initial=0, jitter=0, restart_unread=True)
    async with AsyncChatGPTAdapter("sk-1", transport=server, retry=policy) as adapter:
        handle = adapter.start_task(Task("hi"))
        await server.wait_for_requests(2)
        texts: list[str] = []
        async with anyio.create_task_group() as readers:
            readers.start_soon(read_into, texts, handle.stream())
            await anyio.wait_all_tasks_blocked()
            release.set()
    assert texts == ["Another", " try"]
    assert handle.text == "Another try"


async def test_restart_unread_changes_nothing_about_what_is_final(serve: Serve) -> None:
    server = serve(
        [Reply("Draft one", faults=(faults.stream_error(1, ErrorShape.INT_CODE, status=400),)), Reply("Another try")]
    )
    policy = RetryPolicy(initial=0, jitter=0, restart_unread=True)
    async with AsyncChatGPTAdapter("sk-1", transport=server, retry=policy) as adapter:
        result = await adapter.execute(Task("hi"))
    assert isinstance(result.exception, ChatError)
    assert (result.output, result.attempts, result.exception.status) == ("Draft", 1, 400)
