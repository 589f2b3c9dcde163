"""Many tasks from one source: every result once, the look-ahead, both orders, early ends, a source that raises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

from chatscope import (
    APIConnectionError,
    AsyncChatGPTAdapter,
    QueueFullError,
    Result,
    ResultStream,
    Task,
    TaskConstraints,
    TaskStatus,
)
from chatscope._tasks.map import LOOK_AHEAD
from chatscope.simulator import Answer, ChatRequest, Reply, error, faults

if TYPE_CHECKING:
    from tests.support.memory_server import Serve


class Source:
    """A generator of tasks that knows how far it was read, and whether it was closed."""

    def __init__(self, number: int, *, fails_at: int | None = None, close_error: Exception | None = None) -> None:
        self.number = number
        self.fails_at = fails_at
        self.close_error = close_error
        self.read = 0
        self.closed = False

    def sync(self) -> Iterator[Task]:
        try:
            while self.read < self.number:
                if self.read == self.fails_at:
                    raise LookupError("the file ends here")
                self.read += 1
                yield Task(str(self.read - 1))
        finally:
            self.closed = True
            if self.close_error is not None:
                raise self.close_error

    async def slow(self) -> AsyncIterator[Task]:
        """The same, and waits before each task."""
        tasks = self.sync()
        try:
            for task in tasks:
                await anyio.lowlevel.checkpoint()
                yield task
        finally:
            tasks.close()  # type: ignore[attr-defined]  # a generator is more than an iterator


def number_of(result: Result) -> int:
    assert result.task is not None
    return int(result.task.prompt)


def held(releases: dict[int, anyio.Event]) -> object:
    """A script that answers some prompts only when they are released."""

    def answer(request: ChatRequest) -> Answer:
        release = releases.get(int(request.prompt))
        return Reply("Hello.") if release is None else Reply("Hello.", faults=(faults.hold(1, release),))

    return answer


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "ordered"), [("sync", False), ("slow", True)])
async def test_three_hundred_tasks_give_three_hundred_results_once(serve: Serve, kind: str, ordered: bool) -> None:
    source = Source(300)
    found: list[int] = []
    furthest = 0
    async with AsyncChatGPTAdapter("sk-1", transport=serve(Reply("Hello.")), max_concurrency=20) as adapter:
        tasks = source.sync() if kind == "sync" else source.slow()
        async with adapter.map(tasks, ordered=ordered) as results:
            async for result in results:
                assert result.success
                found.append(number_of(result))
                furthest = max(furthest, source.read - len(found))
        assert adapter.get_adapter_status()["finished"] == 300
        assert adapter._tasks._finished == {}, "what was delivered is not kept as well"
    assert sorted(found) == list(range(300))
    assert not ordered or found == sorted(found)
    assert furthest <= 20 + LOOK_AHEAD
    assert source.closed


async def test_it_runs_as_many_at_a_time_as_there_are_slots(serve: Serve) -> None:
    release = anyio.Event()
    server = serve(Reply("Hello.", faults=(faults.hold(1, release),)))
    source = Source(1000)
    async with (
        AsyncChatGPTAdapter("sk-1", transport=server, max_concurrency=5) as adapter,
        adapter.map(source.sync(), look_ahead=12) as results,
    ):
        await server.wait_for_requests(5)
        await anyio.wait_all_tasks_blocked()
        assert (server.open, source.read) == (5, 12)
        release.set()
        for _ in range(3):
            assert (await anext(results)).success
        await anyio.wait_all_tasks_blocked()
        assert source.read == 15, "each result that is taken makes room for one task"


async def test_the_default_look_ahead_follows_the_slots(serve: Serve) -> None:
    server = serve()
    source = Source(10**6)
    async with (
        AsyncChatGPTAdapter("sk-1", transport=server, max_concurrency=3) as adapter,
        adapter.map(source.sync()),
    ):
        await anyio.wait_all_tasks_blocked()
        assert source.read == 3 + LOOK_AHEAD
        assert len(server.requests) == source.read, "a reader that takes nothing holds back the source, not the tasks"


@pytest.mark.parametrize(("seconds", "at_once"), [(60.0, True), (0.0, False)])
async def test_a_source_that_never_waits_is_read_for_a_moment_and_leaves_turns_to_others(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, seconds: float, at_once: bool
) -> None:
    monkeypatch.setattr("chatscope._tasks.map_source.TURN_SECONDS", seconds)
    source = Source(10**6)
    async with (
        AsyncChatGPTAdapter("sk-1", transport=serve()) as adapter,
        adapter.map(source.sync(), look_ahead=50),
    ):
        while not source.read:
            await anyio.lowlevel.checkpoint()
        assert (source.read == 50) is at_once


async def test_as_completed_a_slow_task_holds_up_nobody(serve: Serve) -> None:
    release = anyio.Event()
    server = serve(held({0: release}))
    found = []
    async with (
        AsyncChatGPTAdapter("sk-1", transport=server) as adapter,
        adapter.map(Source(50).sync()) as results,
    ):
        async for result in results:
            found.append(number_of(result))
            if len(found) == 49:
                release.set()
    assert (found[-1], sorted(found)) == (0, list(range(50)))


async def test_ordered_a_slow_task_holds_back_the_others_within_the_window(serve: Serve) -> None:
    release = anyio.Event()
    source = Source(50)
    server = serve(held({0: release}))
    async with (
        AsyncChatGPTAdapter("sk-1", transport=server) as adapter,
        adapter.map(source.sync(), ordered=True, look_ahead=10) as results,
    ):
        await anyio.wait_all_tasks_blocked()
        assert (source.read, len(server.requests)) == (10, 10)
        release.set()
        assert [number_of(result) async for result in results] == list(range(50))


async def test_failures_are_results(serve: Serve) -> None:
    tasks = [Task("1"), Task(""), Task("2", constraints=TaskConstraints(timeout_seconds=-1)), Task("3")]
    server = serve(lambda request: error(400) if request.prompt == "3" else Reply("Hello."))
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        results = await adapter.gather(tasks)
    assert [result.task for result in results[1:3]] == tasks[1:3]
    assert [(result.status.value, type(result.exception).__name__) for result in results] == [
        ("completed", "NoneType"),
        ("failed", "ValueError"),
        ("failed", "ValueError"),
        ("failed", "BadRequestError"),
    ]
    assert "prompt" in (results[1].error or "")
    assert "timeout_seconds" in (results[2].error or "")
    assert results[1].metadata.keys() == results[0].metadata.keys()


async def test_a_bounded_queue_is_waited_for(serve: Serve) -> None:
    server = serve()
    async with AsyncChatGPTAdapter("sk-1", transport=server, max_concurrency=2, max_pending=1) as adapter:
        results = await adapter.gather(Source(20).sync())
    assert [result.status for result in results] == [TaskStatus.COMPLETED] * 20


async def test_a_queue_that_others_fill_is_a_failure(serve: Serve) -> None:
    release = anyio.Event()
    server = serve(Reply("Hello.", faults=(faults.hold(1, release),)))
    async with AsyncChatGPTAdapter("sk-1", transport=server, max_concurrency=1, max_pending=1) as adapter:
        others = [adapter.start_task(Task("other")) for _ in range(2)]
        (result,) = await adapter.gather([Task("mine")])
        assert isinstance(result.exception, QueueFullError)
        release.set()
        assert [(await other.wait()).success for other in others] == [True, True]


@pytest.mark.parametrize("kind", ["sync", "slow"])
async def test_leaving_early_cancels_what_runs_and_closes_the_source(serve: Serve, kind: str) -> None:
    source = Source(10**6)
    never = {number: anyio.Event() for number in range(1, 10**3)}
    server = serve(held(never))
    async with AsyncChatGPTAdapter("sk-1", transport=server, max_concurrency=4) as adapter:
        async with adapter.map(source.sync() if kind == "sync" else source.slow()) as results:
            async for result in results:
                assert number_of(result) == 0
                break
            await server.wait_for_requests(5)
        assert (server.open, source.closed) == (0, True)
        status = adapter.get_adapter_status()
        assert (status["running"], status["pending"]) == (0, 0)
        assert {task.status for task in adapter._tasks._finished.values()} == {TaskStatus.CANCELLED}


async def test_tasks_do_not_run_on_while_the_source_closes(serve: Serve) -> None:
    server = serve(faults.stall(1))
    closed = False

    async def source() -> AsyncIterator[Task]:
        nonlocal closed
        try:
            for number in range(10**6):
                yield Task(str(number))
        finally:
            while server.open:
                await anyio.lowlevel.checkpoint()
            closed = True

    async with AsyncChatGPTAdapter("sk-1", transport=server, max_concurrency=4) as adapter:
        async with adapter.map(source()):
            await server.wait_for_requests(4)
            await anyio.wait_all_tasks_blocked()
        assert closed


async def test_a_task_that_comes_in_the_moment_of_leaving_is_cancelled_too(serve: Serve) -> None:
    server = serve(faults.stall(1))
    go_on = anyio.Event()

    async def source() -> AsyncIterator[Task]:
        yield Task("0")
        await go_on.wait()
        yield Task("1")

    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        async with adapter.map(source()):
            await anyio.wait_all_tasks_blocked()
            go_on.set()
        assert adapter.get_adapter_status()["running"] == adapter.get_adapter_status()["pending"] == 0
        assert {task.status for task in adapter._tasks._finished.values()} == {TaskStatus.CANCELLED}


async def test_an_exception_in_the_loop_comes_out_as_it_is(serve: Serve) -> None:
    source = Source(10**6)
    async with AsyncChatGPTAdapter("sk-1", transport=serve(held({5: anyio.Event()}))) as adapter:

        async def fail() -> None:
            async with adapter.map(source.sync()) as results:
                async for _ in results:
                    raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        assert adapter.get_adapter_status()["running"] == 0
    assert source.closed


async def test_a_cancelled_loop_leaves_nothing_behind(serve: Serve) -> None:
    source = Source(10**6)
    server = serve(faults.stall(1))
    async with AsyncChatGPTAdapter("sk-1", transport=server, max_concurrency=4) as adapter:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:

                async def read() -> None:
                    async with adapter.map(source.slow()) as results:
                        async for _ in results:
                            raise AssertionError("nothing comes")

                group.start_soon(read)
                await server.wait_for_requests(4)
                scope.cancel()
        assert (scope.cancelled_caught, source.closed, server.open) == (True, True, 0)
        assert adapter.get_adapter_status()["running"] == 0


async def test_a_wait_that_is_cancelled_loses_no_result(serve: Serve) -> None:
    release = anyio.Event()
    async with (
        AsyncChatGPTAdapter("sk-1", transport=serve(held({0: release}))) as adapter,
        adapter.map([Task("0")]) as results,
    ):
        with anyio.CancelScope(deadline=anyio.current_time() - 1):
            await anext(results)
        release.set()
        assert number_of(await anext(results)) == 0
        with pytest.raises(StopAsyncIteration):
            await anext(results)


async def test_several_readers_share_the_results(serve: Serve) -> None:
    found: list[int] = []

    async def read(results: ResultStream) -> None:
        found.extend([number_of(result) async for result in results])

    async with (
        AsyncChatGPTAdapter("sk-1", transport=serve(), max_concurrency=3) as adapter,
        adapter.map(Source(40).slow()) as results,
        anyio.create_task_group() as group,
    ):
        for _ in range(3):
            group.start_soon(read, results)
    assert sorted(found) == list(range(40))


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("kind", ["sync", "slow"])
async def test_what_the_source_raises_comes_out_as_it_is(serve: Serve, kind: str, ordered: bool) -> None:
    source = Source(100, fails_at=10)
    server = serve(held({number: anyio.Event() for number in range(5, 100)}))
    found = []
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        tasks = source.sync() if kind == "sync" else source.slow()
        async with adapter.map(tasks, ordered=ordered, look_ahead=10) as results:
            await anyio.wait_all_tasks_blocked()  # the window is full, and five of ten have ended

            async def read() -> None:
                async for result in results:
                    found.append(number_of(result))  # noqa: PERF401 - a comprehension would lose them with the error

            with pytest.raises(LookupError, match="the file ends here"):
                await read()
            assert adapter.get_adapter_status()["running"] == 0, "the others are cancelled by then"
            assert server.open == 0
            assert [result async for result in results] == []
    assert sorted(found) == list(range(5))


async def test_what_closing_the_source_raises_comes_out_of_the_block(serve: Serve) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=serve()) as adapter:

        async def read_one(kind: str, error: Exception | None) -> None:
            source = Source(1000, close_error=OSError("disk"))
            async with adapter.map(source.sync() if kind == "sync" else source.slow()) as results:
                await anext(results)
                if error is not None:
                    raise error

        for kind in ("sync", "slow"):
            with pytest.raises(OSError, match="disk"):
                await read_one(kind, None)
            with pytest.raises(ZeroDivisionError):
                await read_one(kind, ZeroDivisionError())


async def test_only_tasks_are_tasks(serve: Serve) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=serve()) as adapter:
        with pytest.raises(TypeError, match="tasks must yield tasks or prompts only, not bytes"):
            await adapter.gather([b"hello"])  # type: ignore[list-item]  # that is the point
        for tasks in (5, None, Task("hello")):
            with pytest.raises(TypeError, match=r"^tasks must be an iterable of tasks, not "):
                adapter.map(tasks)  # type: ignore[arg-type]  # that is the point
            with pytest.raises(TypeError, match=r"^tasks must be an iterable of tasks, not "):
                await adapter.gather(tasks)  # type: ignore[arg-type]  # that is the point


async def test_a_look_ahead_that_is_none(serve: Serve) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=serve()) as adapter:
        for look_ahead in (0, -1, 1.5, True):
            with pytest.raises(ValueError, match="look_ahead"):
                adapter.map([], look_ahead=look_ahead)  # type: ignore[arg-type]  # that is the point


async def test_the_blocks_must_be_open(serve: Serve) -> None:
    adapter = AsyncChatGPTAdapter("sk-1", transport=serve())
    with pytest.raises(RuntimeError, match="async with"):
        adapter.map([Task("hi")])
    with pytest.raises(RuntimeError, match="async with"):
        await adapter.gather([Task("hi")])
    async with adapter:
        results = adapter.map([Task("hi")])
        with pytest.raises(RuntimeError, match="async with"):
            await anext(results)
        async with results:
            assert (await anext(results)).success
        with pytest.raises(RuntimeError, match="once"):
            await results.__aenter__()


async def test_an_iterator_that_is_no_generator_stays_open(serve: Serve) -> None:
    send, receive = anyio.create_memory_object_stream[Task](5)
    async with AsyncChatGPTAdapter("sk-1", transport=serve()) as adapter, send, receive:
        await send.send(Task("0"))
        async with adapter.map(receive) as results:
            assert number_of(await anext(results)) == 0
        await send.send(Task("1"))
        assert (await receive.receive()).prompt == "1"


async def test_gather_returns_in_order(serve: Serve) -> None:
    release = anyio.Event()
    server = serve(held({0: release}))
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter, anyio.create_task_group() as group:

        async def gather() -> None:
            results = await adapter.gather(Source(30).slow())
            assert [number_of(result) for result in results] == list(range(30))

        group.start_soon(gather)
        await server.wait_for_requests(30)
        release.set()
    assert server.peak > 1


async def test_gather_nothing(serve: Serve) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=serve()) as adapter:
        assert await adapter.gather([]) == []


async def test_cancelling_gather_cancels_its_tasks(serve: Serve) -> None:
    server = serve(faults.stall(1))
    tasks = [Task(str(number)) for number in range(10)]
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter, anyio.create_task_group() as group:
        group.start_soon(adapter.gather, tasks)
        await server.wait_for_requests(10)
        group.cancel_scope.cancel()
    assert server.open == 0
    assert {result.status for result in adapter._tasks._finished.values()} == {TaskStatus.CANCELLED}


async def test_other_tasks_of_the_adapter_are_left_alone(serve: Serve) -> None:
    release = anyio.Event()
    server = serve(held({7: release}))
    async with AsyncChatGPTAdapter("sk-1", transport=server, keep_finished=1) as adapter:
        other = await adapter.execute(Task("1"))
        slow = adapter.start_task(Task("7"))
        async with adapter.map(Source(5).sync()) as results:
            await anext(results)
        assert slow.status is TaskStatus.RUNNING
        release.set()
        assert (await slow.wait()).success
    assert other.success


@pytest.mark.parametrize("ordered", [False, True])
async def test_results_that_are_there_can_be_taken_together(serve: Serve, ordered: bool) -> None:
    releases = {0: anyio.Event()}
    async with (
        AsyncChatGPTAdapter("sk-1", transport=serve(held(releases)), max_concurrency=9) as adapter,
        adapter.map(Source(4).sync(), ordered=ordered) as results,
    ):
        assert results.ready() == []
        await anyio.wait_all_tasks_blocked()
        first = [number_of(result) for result in results.ready()]
        assert sorted(first) == ([] if ordered else [1, 2, 3])
        releases[0].set()
        rest = [await anext(results), *results.ready()]
        assert sorted([*first, *map(number_of, rest)]) == [0, 1, 2, 3]
        assert [result async for result in results] == []
        assert adapter.get_adapter_status()["finished"] == 4


async def test_the_start_of_a_task_is_reported_before_its_request_and_can_be_refused(serve: Serve) -> None:
    server = serve(Reply("Hello."))
    started: list[tuple[str, int]] = []

    def on_start(task: Task) -> None:
        started.append((task.prompt, len(server.requests)))
        if task.prompt == "1":
            raise PermissionError("not this one")

    async with (
        AsyncChatGPTAdapter("sk-1", transport=server, max_concurrency=1) as adapter,
        adapter.map(Source(3).sync(), ordered=True, on_start=on_start) as results,
    ):
        found = [result async for result in results]
    assert started == [("0", 0), ("1", 1), ("2", 1)]
    assert [result.success for result in found] == [True, False, True]
    refused = found[1]
    assert (refused.status, refused.attempts, refused.cost) == (TaskStatus.FAILED, 0, None)
    assert isinstance(refused.exception, PermissionError)
    assert refused.timings is not None
    assert refused.timings.started_ns is None


async def test_a_start_that_is_refused_or_cancelled_is_not_tried_again(serve: Serve) -> None:
    server = serve(Reply("Hello."))
    started: list[str] = []
    scope = anyio.CancelScope()

    def on_start(task: Task) -> None:
        started.append(task.prompt)
        if task.prompt == "1":
            raise APIConnectionError("an error that a request would be sent again for")
        if task.prompt == "2":
            scope.cancel()

    with scope:
        async with (
            AsyncChatGPTAdapter("sk-1", transport=server, max_concurrency=1) as adapter,
            adapter.map(Source(3).sync(), ordered=True, on_start=on_start) as results,
        ):
            assert [(await anext(results)).success for _ in range(2)] == [True, False]
            await anyio.sleep_forever()
    assert started == ["0", "1", "2"]
    assert len(server.requests) == 1
