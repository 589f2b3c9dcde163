"""A run among others: a busy adapter, readers and sources that fail, budgets that are spent, cancellation, memory."""

from __future__ import annotations

import gc
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.batch.test_batch_run import HELLO, adapter_of, fails_for, finish, until
from tests.support.batches import MODEL, ids, line, write_lines
from tests.support.memory_server import Serve

from chatscope import AsyncChatGPTAdapter, Result, Task
from chatscope.batch import BatchProgress, run_batch
from chatscope.batch.stopping import UNPRICED
from chatscope.simulator import Reply


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


async def test_a_busy_adapter_does_not_starve_a_run(serve: Serve, output: Path) -> None:
    source = write_lines(output.with_name("in.jsonl"), [line(number) for number in range(30)])
    at_once: list[int] = []
    async with adapter_of(serve(Reply("Hi.", first_token=0.02))) as adapter, anyio.create_task_group() as group:

        async def other() -> None:
            while True:
                await adapter.execute(Task("Other"))

        async def look() -> None:
            while True:
                await anyio.sleep(0.002)
                at_once.append(run.progress().running)

        async with run_batch(source, output, adapter=adapter) as run:
            for _ in range(20):
                group.start_soon(other)
            group.start_soon(look)
            with anyio.fail_after(20):
                await run.finish()
        group.cancel_scope.cancel()
    assert max(at_once) >= 3


@pytest.mark.parametrize("concurrency", ["auto", None, 1])
async def test_any_concurrency_ends(serve: Serve, output: Path, concurrency: Any) -> None:
    source = write_lines(output.with_name("in.jsonl"), [line(number) for number in range(60)])
    server = serve(HELLO)
    async with (
        adapter_of(server, max_concurrency=concurrency) as adapter,
        run_batch(source, output, adapter=adapter) as run,
    ):
        assert (await run.finish()).succeeded == 60


async def test_the_reader_s_exception_ends_the_run_and_closes_the_source(serve: Serve, output: Path) -> None:
    closed: list[str] = []
    with pytest.raises(RuntimeError, match="within 'async with"):
        await run_batch([], output, adapter=adapter_of(serve(HELLO))).finish()

    async def generated() -> AsyncIterator[dict[str, Any]]:
        try:
            for number in range(100):
                yield line(number)
        finally:
            closed.append("async")

    def plain() -> Iterator[dict[str, Any]]:
        try:
            yield from (line(number) for number in range(100))
        finally:
            closed.append("plain")

    sources: list[Any] = [generated(), plain()]
    for source in sources:
        threads = threading.active_count()
        async with adapter_of(serve(HELLO)) as adapter:

            async def read(adapter: AsyncChatGPTAdapter, items: Any) -> None:
                async with run_batch(items, output, adapter=adapter) as run:
                    async for _ in run:
                        raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                await read(adapter, source)
            assert adapter.get_adapter_status()["running"] == 0
        assert threading.active_count() <= threads + 2
    assert closed == ["async", "plain"]
    assert (await finish(serve(HELLO), [line(number) for number in range(100)], output)).exit_code == 0


async def test_a_source_may_hold_a_cancel_scope_while_it_yields(serve: Serve, output: Path) -> None:
    """It is closed in the task that read it, so the scope is left where it was entered."""
    closed: list[bool] = []

    async def source() -> AsyncIterator[dict[str, Any]]:
        try:
            with anyio.fail_after(60):
                for number in range(100):
                    yield line(number)
        finally:
            closed.append(True)

    limits: list[dict[str, Any]] = [{}, {"max_tokens_total": 1}]
    for limit in limits:
        async with adapter_of(serve(HELLO)) as adapter, run_batch(source(), output, adapter=adapter, **limit) as run:
            async for _ in run:
                break
    assert closed == [True, True]


@pytest.mark.parametrize("cleanup", ["raises", "hangs"])
async def test_the_cleanup_of_a_source_costs_no_outcome(
    serve: Serve, output: Path, cleanup: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatscope.batch.sending.CLOSE_SECONDS", 0.1)
    server = serve(Reply("Hello.", first_token=0.05))
    cleaned: list[bool] = []

    async def source() -> AsyncIterator[dict[str, Any]]:
        try:
            for number in range(100):
                yield line(number)
        finally:
            await anyio.sleep(0.01)
            cleaned.append(True)
            if cleanup == "raises":
                raise KeyError("mine")
            await anyio.sleep_forever()

    run = run_batch(source(), output, adapter=adapter_of(server), limit=3)
    with pytest.raises(KeyError, match="mine") if cleanup == "raises" else nullcontext():
        async with run._adapter, run:
            await run.finish()
    assert (len(ids(output)), len(server.requests), cleaned) == (3, 3, [True])
    assert (run.summary.stop_reason, run.summary.succeeded) == (None, 3)


@pytest.mark.one_loop
async def test_an_iterator_is_made_and_read_in_the_loop_s_thread(serve: Serve, output: Path) -> None:
    """Cursors of sqlite, for example, belong to the thread that made them."""
    threads = set()

    class Rows:
        def __iter__(self) -> Iterator[dict[str, Any]]:
            threads.add(threading.current_thread())
            return iter([line(0)])

    assert (await finish(serve(HELLO), Rows(), output)).succeeded == 1
    assert threads == {threading.current_thread()}


async def test_what_runs_is_recorded_when_the_source_fails(serve: Serve, output: Path) -> None:
    server = serve(Reply("Hello.", first_token=0.05))

    async def source() -> AsyncIterator[dict[str, Any]]:
        for number in range(3):
            yield line(number)
        await until(lambda: len(server.requests) == 3)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await finish(server, source(), output)
    assert len(ids(output)) == 3


async def test_what_is_spent_already_stops_a_run_before_it_sends(serve: Serve, output: Path) -> None:
    source = write_lines(output.with_name("in.jsonl"), [line(number) for number in range(10)])
    await finish(serve(HELLO), source, output, max_cost=1e-9)
    server = serve(HELLO)
    summary = await finish(server, source, output, max_cost=1e-9)
    assert (server.requests, summary.stop_reason, summary.exit_code) == ([], "budget", 3)
    unpriced = write_lines(output.with_name("others.jsonl"), [line(0, model="unpriced")])
    summary = await finish(serve(HELLO), unpriced, output.with_name("others-out.jsonl"), max_cost=1e-9)
    assert summary.exit_code == 0
    (notice,) = summary.notices
    assert notice.startswith("max_cost did not limit 1 requests")


async def test_a_budget_that_cannot_hold_stops_the_run(serve: Serve, output: Path) -> None:
    rows = [line(number, model="unpriced" if number % 9 else MODEL) for number in range(40)]
    source, server = write_lines(output.with_name("in.jsonl"), rows), serve(HELLO)
    summary = await finish(server, source, output, max_cost=1.0)
    assert (summary.stop_reason, summary.exit_code) == ("budget", 3)
    assert "max_cost limits nothing: use max_tokens_total" in (summary.stop_message or "")
    assert UNPRICED <= len(server.requests) <= 2 * 9 + 4  # rows 0 and 9, which have prices, may end late and early
    summary = await finish(serve(HELLO), source, output, max_cost=1.0, max_tokens_total=10**6)
    assert (summary.settled + summary.succeeded, summary.exit_code) == (40, 0)


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0, 0.001, 0.005, 0.02, 0.05, 0.1])
async def test_a_run_cancelled_at_any_moment_can_be_resumed_at_once(serve: Serve, output: Path, delay: float) -> None:
    source = write_lines(output.with_name("in.jsonl"), [line(number) for number in range(50)])
    server = serve(fails_for(3))
    async with adapter_of(server) as adapter:
        with anyio.move_on_after(delay):
            async with run_batch(source, output, adapter=adapter, ordered=True) as run:
                await run.finish()
        assert adapter.get_adapter_status()["running"] == 0
        async with run_batch(source, output, adapter=adapter, ordered=True) as run:
            summary = await run.finish()
    assert (summary.failed_rows, summary.not_sent, len(ids(output))) == (1, 0, 49)


@pytest.mark.one_loop
async def test_progress_can_be_seen_while_files_are_read(serve: Serve, output: Path) -> None:
    source = write_lines(output.with_name("in.jsonl"), [line(number) for number in range(30_000)])
    recorded = {"response": {"status_code": 200, "body": {}}, "error": None}
    write_lines(output, [recorded | {"custom_id": f"request-{number}"} for number in range(30_000)])
    seen: list[BatchProgress] = []
    async with adapter_of(serve(HELLO)) as adapter, anyio.create_task_group() as group:
        run = run_batch(source, output, adapter=adapter)

        async def watch() -> None:
            while True:
                seen.append(run.progress())
                await anyio.sleep(0.001)

        group.start_soon(watch)
        async with run:
            await run.finish()
        group.cancel_scope.cancel()
        assert (run.summary.settled, run.summary.exit_code) == (30_000, 0)
    for phase in ("reading the output", "reading the input"):
        assert len({progress.rows_read for progress in seen if progress.phase == phase}) > 1, phase


@pytest.mark.slow
@pytest.mark.one_loop
async def test_outcomes_do_not_stay_in_memory(serve: Serve, output: Path) -> None:
    source = write_lines(output.with_name("in.jsonl"), [line(number) for number in range(100)])
    async with adapter_of(serve(HELLO), keep_finished=1) as adapter, run_batch(source, output, adapter=adapter) as run:
        summary = await run.finish()
        gc.collect()
        assert sum(isinstance(item, Result) for item in gc.get_objects()) < 20
    assert summary.succeeded == 100
