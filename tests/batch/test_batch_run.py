"""Runs: outcomes recorded once, resumed, stopped, refused; on every event loop."""

from __future__ import annotations

import gc
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
from tests.support.batches import MODEL, ids, line, questions, read_lines, write_lines
from tests.support.memory_server import MemoryServer, Serve

from chatscope import AsyncChatGPTAdapter, RetryPolicy, Task
from chatscope._tasks.map import LOOK_AHEAD
from chatscope.batch import BatchError, BatchResult, BatchSummary, InputError, JournalError, LockedError, run_batch
from chatscope.batch.status import read_status
from chatscope.batch.stopping import REFUSALS
from chatscope.simulator import Reply, error

HELLO = Reply("Hello.")


def adapter_of(server: MemoryServer, **given: Any) -> AsyncChatGPTAdapter:
    options: dict[str, Any] = {"max_concurrency": 4, "retry": RetryPolicy(attempts=1), **given}
    return AsyncChatGPTAdapter("sk-1", transport=server, **options)


async def finish(server: MemoryServer, source: Any, output: Path, **options: Any) -> BatchSummary:
    server.closed = False
    async with adapter_of(server) as adapter, run_batch(source, output, adapter=adapter, **options) as run:
        return await run.finish()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that only can be looked at."""
    with anyio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - files and lists have no event
            await anyio.sleep(0.01)


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path, Path]:
    """An input of eight requests, the output, and its errors."""
    source = write_lines(tmp_path / "in.jsonl", [line(number) for number in range(8)])
    return source, tmp_path / "out.jsonl", tmp_path / "out.errors.jsonl"


def fails_for(*numbers: int, status: int = 400) -> Any:
    """A script: these questions are refused."""
    bad = {f"Question {number}" for number in numbers}

    def script(request: Any) -> Any:
        return error(status) if questions([request.body])[0] in bad else HELLO

    return script


async def test_each_outcome_is_recorded_once_and_handed_out(serve: Serve, paths: tuple[Path, Path, Path]) -> None:
    source, output, errors = paths
    server = serve(fails_for(3))
    async with adapter_of(server) as adapter, run_batch(source, output, adapter=adapter) as run:
        results = [result async for result in run]
    assert sorted(result.custom_id for result in results) == [f"request-{number}" for number in range(8)]
    assert sorted(ids(output)) == sorted(result.custom_id for result in results if result.success)
    assert ids(errors) == ["request-3"]
    recorded = read_lines(output)[0]
    assert recorded["response"]["status_code"] == 200
    assert recorded["response"]["body"]["choices"][0]["message"] == {"role": "assistant", "content": "Hello."}
    assert recorded["error"] is None
    refused = read_lines(errors)[0]
    assert refused["error"] is None
    assert refused["response"]["status_code"] == 400
    assert refused["response"]["body"]["error"]["type"] == "invalid_request_error"
    assert (run.summary.succeeded, run.summary.failed, run.summary.exit_code) == (7, 1, 1)
    assert json.loads(output.with_name("out.summary.json").read_text())["failures"] == {"400": 1}


async def test_what_is_recorded_is_not_sent_again(serve: Serve, paths: tuple[Path, Path, Path]) -> None:
    source, output, errors = paths
    await finish(serve(fails_for(3)), source, output)
    server = serve(HELLO)
    summary = await finish(server, source, output)
    assert server.requests == []
    assert (summary.settled, summary.succeeded, summary.standing_failures, summary.exit_code) == (8, 0, 1, 1)
    summary = await finish(server, source, output, retry_errors="400")
    assert questions(server.bodies) == ["Question 3"]
    assert (summary.exit_code, ids(errors), sorted(ids(output))) == (0, [], [f"request-{n}" for n in range(8)])


@pytest.mark.one_loop
@pytest.mark.parametrize("status", [401, 408, 429, 503])
async def test_failures_that_may_pass_run_again(serve: Serve, paths: tuple[Path, Path, Path], status: int) -> None:
    source, output, errors = paths
    await finish(serve(fails_for(1, 2, status=status)), source, output)
    assert sorted(ids(errors)) == ["request-1", "request-2"]
    summary = await finish(serve(fails_for(2, status=status)), source, output)
    assert (summary.settled, summary.succeeded, ids(errors)) == (6, 1, ["request-2"])


async def test_rows_may_move_come_and_go(serve: Serve, paths: tuple[Path, Path, Path]) -> None:
    source, output, _ = paths
    await finish(serve(HELLO), source, output)
    write_lines(source, [line(20), *[line(number) for number in reversed(range(6))]])
    server = serve(HELLO)
    summary = await finish(server, source, output)
    assert questions(server.bodies) == ["Question 20"]
    assert (summary.settled, summary.vanished, len(ids(output))) == (6, 2, 9)
    summary = await finish(server, source, output, limit=3)
    assert (summary.settled, summary.vanished) == (3, 0), "rows beyond the limit are still there"


async def test_rows_without_an_id_are_known_by_what_they_ask(serve: Serve, tmp_path: Path) -> None:
    bodies = [line(number)["body"] for number in (0, 1, 1, 1)]
    source = write_lines(tmp_path / "in.jsonl", bodies[:3])
    await finish(serve(HELLO), source, tmp_path / "out.jsonl")
    write_lines(source, [line(9)["body"], *bodies])
    server = serve(HELLO)
    summary = await finish(server, source, tmp_path / "out.jsonl")
    assert sorted(questions(server.bodies)) == ["Question 1", "Question 9"]
    assert (summary.settled, len(set(ids(tmp_path / "out.jsonl")))) == (3, 5)


@pytest.mark.one_loop
@pytest.mark.parametrize(("changed", "asked"), [("rerun", ["Edited"]), ("keep", [])])
async def test_an_edited_row(serve: Serve, paths: tuple[Path, Path, Path], changed: str, asked: list[str]) -> None:
    source, output, _ = paths
    await finish(serve(HELLO), source, output)
    write_lines(source, [line(0, messages=[{"role": "user", "content": "Edited"}]), line(1)])
    server = serve(HELLO)
    with pytest.raises(JournalError, match="is recorded for another request"):
        await finish(server, source, output)
    assert server.requests == []
    await finish(server, source, output, changed=changed)
    assert questions(server.bodies) == asked


async def test_settings_that_change_answers_are_not_changed_by_accident(
    serve: Serve, paths: tuple[Path, Path, Path]
) -> None:
    source, output, _ = paths
    await finish(serve(HELLO), source, output, parameters={"temperature": 0})
    server = serve(HELLO)
    with pytest.raises(JournalError, match=r"parameters was {'temperature': 0} when this output was begun"):
        await finish(server, source, output, parameters={"temperature": 1})
    assert server.requests == []
    await finish(server, source, output, parameters={"temperature": 1}, new_settings=True, changed="rerun")
    assert len(server.requests) == 8


async def test_two_rows_with_one_id_are_refused_before_anything_is_sent(
    serve: Serve, paths: tuple[Path, Path, Path]
) -> None:
    source, output, _ = paths
    server = serve(HELLO)
    await finish(server, source, output)
    write_lines(source, [line(0), line(7), "", line(0)])
    for each in (output, output.with_name("first_run.jsonl")):
        with pytest.raises(InputError, match=r"in\.jsonl: lines 1 and 4 have the same custom_id 'request-0'"):
            await finish(server, source, each)
    assert len(server.requests) == 8


async def test_a_bad_row_is_an_error_row_and_the_rest_goes_on(serve: Serve, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [line(0), line(1, stream=True), "{bad", line(2)])
    output, errors = tmp_path / "out.jsonl", tmp_path / "out.errors.jsonl"
    for _ in range(2):
        summary = await finish(serve(HELLO), source, output)
        assert (sorted(ids(output)), summary.exit_code) == (["request-0", "request-2"], 1)
        assert [(one["error"]["code"], one["chatscope"]["line"]) for one in read_lines(errors)] == [
            ("invalid_line", 2),
            ("invalid_line", 3),
        ]
    with pytest.raises(InputError, match="line 2: stream must not be set"):
        await finish(serve(HELLO), source, tmp_path / "other.jsonl", strict=True)


async def test_equal_requests_are_sent_once(serve: Serve, tmp_path: Path) -> None:
    equal = [line(0) | {"custom_id": f"equal-{number}"} for number in range(6)]
    source = write_lines(tmp_path / "in.jsonl", equal[:4])
    server = serve(HELLO)
    summary = await finish(server, source, tmp_path / "out.jsonl", dedup=True)
    assert (len(server.requests), summary.succeeded, summary.copied) == (1, 4, 3)
    write_lines(source, equal)
    summary = await finish(server, source, tmp_path / "out.jsonl", dedup=True)
    assert (len(server.requests), summary.succeeded, sorted(ids(tmp_path / "out.jsonl"))) == (
        1,
        2,
        [f"equal-{number}" for number in range(6)],
    )
    costs = [one["chatscope"]["cost_usd"] for one in read_lines(tmp_path / "out.jsonl")]
    assert sum(cost > 0 for cost in costs) == 1, "paid for once"


async def test_an_invalid_row_may_be_corrected(serve: Serve, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    source = write_lines(tmp_path / "in.jsonl", [line(0), line(1) | {"url": "/v1/embeddings"}])
    summary = await finish(serve(HELLO), source, output)
    assert (summary.succeeded, summary.failed) == (1, 1)
    write_lines(source, [line(0), line(1)])
    summary = await finish(serve(HELLO), source, output)
    assert (summary.succeeded, summary.exit_code, ids(output)) == (1, 0, ["request-0", "request-1"])


async def test_a_kill_before_superseded_failures_are_removed_counts_their_cost_once(
    serve: Serve, tmp_path: Path
) -> None:
    output, schema = tmp_path / "out.jsonl", {"type": "object"}
    source = write_lines(tmp_path / "in.jsonl", [line(0)])
    await finish(serve(Reply("no JSON")), source, output, schema=schema)
    errors = tmp_path / "out.errors.jsonl"
    failures, earlier_cost = errors.read_bytes(), read_status(output).cost
    await finish(serve(Reply("{}")), source, output, schema=schema, retry_errors=True)
    cost = read_status(output).cost
    assert cost > earlier_cost > 0
    errors.write_bytes(failures)  # as a kill leaves it: what they cost is written down before they are removed
    assert read_status(output).cost == pytest.approx(cost)


async def test_a_failure_is_not_copied_to_an_equal_request_that_comes_later(serve: Serve, tmp_path: Path) -> None:
    failed, output = anyio.Event(), tmp_path / "out.jsonl"

    async def rows() -> AsyncIterator[dict[str, Any]]:
        yield line(0)
        await failed.wait()
        yield line(0) | {"custom_id": "later"}

    server = serve([error(400), HELLO])
    async with adapter_of(server) as adapter, run_batch(rows(), output, adapter=adapter, dedup=True) as run:
        async for _ in run:
            failed.set()
    assert (run.summary.failed, run.summary.copied, ids(output)) == (1, 0, ["later"])


async def test_an_ordered_output_has_the_order_of_the_input(serve: Serve, paths: tuple[Path, Path, Path]) -> None:
    source, output, _ = paths
    write_lines(source, [line(number) for number in (5, 2, 7, 0)])
    delays = {"Question 5": 0.05, "Question 2": 0.0, "Question 7": 0.02, "Question 0": 0.0}
    server = serve(lambda request: Reply("Hi.", first_token=delays[questions([request.body])[0]]))
    await finish(server, source, output, ordered=True)
    assert ids(output) == ["request-5", "request-2", "request-7", "request-0"]


async def test_records_keep_their_columns(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,q\n1,one\n2,two\n")
    options = {"prompt": "Say {q}", "id_column": "id", "output_format": "record", "model": MODEL}
    await finish(serve(HELLO), tmp_path / "in.csv", tmp_path / "out.jsonl", **options)
    recorded = sorted(read_lines(tmp_path / "out.jsonl"), key=lambda one: str(one["id"]))
    assert [(one["q"], one["output"], one["error"]) for one in recorded] == [
        ("one", "Hello.", None),
        ("two", "Hello.", None),
    ]
    server = serve(HELLO)
    await finish(server, tmp_path / "in.csv", tmp_path / "out.jsonl", **options)
    assert server.requests == []


async def test_responses_can_be_asked_for_whole(serve: Serve, paths: tuple[Path, Path, Path]) -> None:
    source, output, _ = paths
    server = serve(HELLO)
    await finish(server, source, output, stream=False)
    assert "stream" not in server.bodies[0] or server.bodies[0]["stream"] is False
    assert read_lines(output)[0]["response"]["body"]["object"] == "chat.completion"
    assert (await finish(server, source, output)).settled == 8, "how it is asked for does not change what is asked"


@pytest.mark.parametrize("kind", ["pipe", "list", "async", "tasks"])
async def test_iterables_and_pipes_are_sources(serve: Serve, tmp_path: Path, kind: str) -> None:
    records = [line(number) for number in range(5)]

    async def generated() -> AsyncIterator[dict[str, Any]]:
        for record in records:
            await anyio.lowlevel.checkpoint()
            yield record

    tasks = [Task(f"Question {number}") for number in range(5)]
    os.mkfifo(pipe := tmp_path / "pipe")
    for expected in (5, 0):
        server = serve(HELLO)
        source = {"pipe": pipe, "list": records, "async": generated(), "tasks": tasks}[kind]
        if kind == "pipe":
            threading.Thread(target=write_lines, args=(pipe, records)).start()
        summary = await finish(server, source, tmp_path / "out.jsonl")
        assert (len(server.requests), summary.settled, summary.exit_code) == (expected, 5 - expected, 0)


@pytest.mark.one_loop
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_errors": 2}, "max_errors"),
        ({"max_cost": 1e-9}, "budget"),
        ({"max_tokens_total": 5}, "tokens"),
    ],
)
async def test_a_run_stops_at_its_limits(serve: Serve, tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    source = write_lines(tmp_path / "in.jsonl", [line(number) for number in range(100)])
    server = serve(fails_for(*range(100)) if reason == "max_errors" else HELLO)
    summary = await finish(server, source, tmp_path / "out.jsonl", **options)
    assert (summary.stop_reason, summary.exit_code) == (reason, 3)
    assert len(server.requests) < 20
    assert summary.not_sent == 100 - len(server.requests)
    earlier = len(server.requests)
    if reason == "budget":
        await finish(server, source, tmp_path / "out.jsonl", **options)
        assert len(server.requests) <= earlier + 5, "the earlier run's cost counts"


@pytest.mark.one_loop
@pytest.mark.parametrize("status", [401, 402, 403])
async def test_refusals_of_the_key_or_the_account_stop_the_run(serve: Serve, tmp_path: Path, status: int) -> None:
    source = write_lines(tmp_path / "in.jsonl", [line(number) for number in range(50)])
    server = serve(error(status))
    async with (
        adapter_of(server, max_concurrency=1) as adapter,
        run_batch(source, tmp_path / "out.jsonl", adapter=adapter) as run,
    ):
        summary = await run.finish()
    assert (summary.stop_reason, summary.exit_code) == ("refused", 3)
    assert (summary.failed, len(server.requests) - REFUSALS in {0, 1}) == (REFUSALS, True)
    server = serve(HELLO)
    summary = await finish(server, source, tmp_path / "out.jsonl")
    assert (summary.succeeded, summary.exit_code) == (50, 0), "they say nothing against the requests"


async def test_stopping_sends_nothing_new_and_records_what_runs(serve: Serve, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [line(number) for number in range(200)])
    server = serve(Reply("Hello.", first_token=0.05))
    async with adapter_of(server) as adapter, run_batch(source, tmp_path / "out.jsonl", adapter=adapter) as run:
        await anext(run)
        sent = len(server.requests)
        run.stop()
        rest = [result async for result in run]
    assert len(server.requests) <= sent + 4, "so many had a slot, and may not have been sent yet"
    sent = len(server.requests)
    started = (tmp_path / "out.meta" / "started.log").read_bytes().count(b"\n") - 1  # without its head
    assert 1 + len(rest) == sent == started == len(ids(tmp_path / "out.jsonl"))
    assert (run.summary.exit_code, run.summary.not_sent) == (130, 200 - sent)


async def test_what_does_not_end_within_the_grace_is_sent_by_the_next_run(serve: Serve, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [line(number) for number in range(9)])
    server = serve(Reply("Late.", first_token=60))
    output = tmp_path / "out.jsonl"
    async with adapter_of(server) as adapter, run_batch(source, output, adapter=adapter, grace=0.05) as run:
        await until(lambda: len(server.requests) == 4)
        await anyio.wait_all_tasks_blocked()
        assert read_status(output).in_flight == 4, "a row that waits for a slot was not sent"
        assert run.progress().waiting_for == "slots"
        run.stop()
        summary = await run.finish()
    assert (ids(tmp_path / "out.jsonl"), summary.not_sent, summary.exit_code) == ([], 9, 130)
    summary = await finish(serve(HELLO), source, tmp_path / "out.jsonl")
    assert (summary.in_flight_at_kill, summary.succeeded) == (4, 9)


async def test_a_row_that_waits_for_a_permit_was_not_sent(serve: Serve, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [line(number) for number in range(30)])
    server, output = serve(Reply("Late.", first_token=60)), tmp_path / "out.jsonl"
    adapter = adapter_of(server, requests_per_minute=6, max_concurrency=30)
    async with adapter, run_batch(source, output, adapter=adapter, grace=0.05) as run:
        await until(lambda: len(server.requests) > 0)
        await anyio.wait_all_tasks_blocked()
        assert read_status(output).in_flight == run.progress().running == len(server.requests) < 30
        run.stop()
        assert (await run.finish()).not_sent == 30
    assert read_status(output).in_flight == len(server.requests)


async def test_a_cancelled_run_leaves_the_output_unlocked_and_nothing_running(
    serve: Serve, paths: tuple[Path, Path, Path]
) -> None:
    source, output, _ = paths
    server = serve(Reply("Hello.", first_token=60))
    async with adapter_of(server) as adapter:
        run = run_batch(source, output, adapter=adapter)
        with anyio.CancelScope() as scope:
            async with run, anyio.create_task_group() as group:
                group.start_soon(run.finish)
                await until(lambda: len(server.requests) == 4)
                scope.cancel()
        assert scope.cancelled_caught
        assert adapter.get_adapter_status()["running"] == 0
    assert run.summary.not_sent == 8
    assert (await finish(serve(HELLO), source, output)).succeeded == 8
    gc.collect()


async def test_leaving_the_block_early_cancels_what_runs(serve: Serve, paths: tuple[Path, Path, Path]) -> None:
    source, output, _ = paths
    server = serve(lambda request: HELLO if request.number == 1 else Reply("Late.", first_token=60))
    async with adapter_of(server) as adapter, run_batch(source, output, adapter=adapter) as run:
        async for result in run:
            assert result.success
            break
    assert (len(ids(output)), run.summary.stop_reason) == (1, "interrupted")


@pytest.mark.parametrize("dedup", [False, True])
async def test_a_slow_reader_holds_back_the_requests_but_not_the_records(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dedup: bool
) -> None:
    monkeypatch.setattr("chatscope.batch.delivery.UNDELIVERED", 10)
    output = tmp_path / "out.jsonl"
    rows = [line(0 if dedup else number) | {"custom_id": f"row-{number}"} for number in range(400)]
    source = write_lines(tmp_path / "in.jsonl", rows)
    if dedup:  # then all others are copies of a recorded outcome
        await finish(serve(HELLO), rows[:1], output, dedup=True)
    most = 1 + 10 + 4 + LOOK_AHEAD  # read, undelivered, in slots, and submitted before that
    async with adapter_of(serve(HELLO)) as adapter, run_batch(source, output, adapter=adapter, dedup=dedup) as run:
        await anext(run)
        await until(lambda: len(ids(output)) > 10)
        await anyio.wait_all_tasks_blocked()
        assert len(ids(output)) <= most
        assert 1 + len([result async for result in run]) == 400 - dedup


async def test_what_ended_within_the_grace_is_recorded(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the disk is so slow that the outcomes before it are still being synced."""
    source = write_lines(tmp_path / "in.jsonl", [line(number) for number in range(4)])
    server, output, fsync = serve(Reply("Hello.", first_token=0.02)), tmp_path / "out.jsonl", os.fsync
    options: dict[str, Any] = {"fsync": "each", "grace": 0.1}
    unsynced: list[int] = []
    async with adapter_of(server) as adapter, run_batch(source, output, adapter=adapter, **options) as run:
        add = run._delivery.add

        def noted(results: Iterable[BatchResult]) -> None:
            if delivered := list(results):
                unsynced.append(run._prepared.journal.unsynced)
            add(delivered)

        monkeypatch.setattr(run._delivery, "add", noted)

        def slow(fd: int) -> None:
            time.sleep(0.3)
            fsync(fd)

        monkeypatch.setattr(os, "fsync", slow)
        await until(lambda: len(server.requests) == 4)
        run.stop()
        summary = await run.finish()
    assert (len(ids(output)), summary.not_sent, read_status(output).in_flight) == (4, 0, 0)
    assert set(unsynced) == {0}, "with `each`, what is delivered is on the disk"


@pytest.mark.one_loop
@pytest.mark.parametrize(("name", "reason"), [("in.jsonl", "input"), ("out.errors.jsonl", "disk")])
async def test_last_steps_that_fail_are_said(
    serve: Serve, paths: tuple[Path, Path, Path], name: str, reason: str
) -> None:
    source, output, _ = paths
    server = serve(HELLO)
    async with adapter_of(server) as adapter, run_batch(source, output, adapter=adapter, ordered=True) as run:
        await anext(run)
        damaged = output.with_name(name)
        if damaged == source:
            damaged.unlink()
        else:
            with damaged.open("a") as file:
                file.write("garbage\n")
        with pytest.raises(BatchError, match=name):
            [None async for _ in run]
    assert (run.summary.stop_reason, run.summary.exit_code) == (reason, 3)
    assert name in (run.summary.stop_message or "")


async def test_a_summary_with_any_text_is_written_and_no_sync_blocks_the_loop(
    serve: Serve, paths: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output, _ = paths
    fsync, threads = os.fsync, set()

    def noted(fd: int) -> None:
        threads.add(threading.current_thread())
        fsync(fd)

    def fails(_: object) -> object:
        raise httpx.ConnectError("no certificate \udce9")  # the name of a file, say

    monkeypatch.setattr(os, "fsync", noted)
    summary = await finish(serve(fails), source, output)
    assert "no certificate ?" in summary.examples["connection_error"]
    assert json.loads(output.with_name("out.summary.json").read_text())["failed"] == 8
    assert threads
    assert threading.current_thread() not in threads
    assert (await finish(serve(HELLO), source, output)).succeeded == 8


async def test_a_run_is_entered_once_even_if_the_first_time_was_cancelled(
    serve: Serve, paths: tuple[Path, Path, Path]
) -> None:
    source, output, _ = paths
    async with adapter_of(serve(HELLO)) as adapter:
        run = run_batch(source, output, adapter=adapter)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await run.__aenter__()
        with pytest.raises(RuntimeError, match="can be entered once"):
            await run.__aenter__()


async def test_a_disk_that_fills_up_stops_the_run(
    serve: Serve, paths: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output, _ = paths
    write, written = os.write, [0]

    def fills_up(fd: int, data: bytes) -> int:
        if bytes(data).startswith(b'{"id":"batch_req'):
            lines = bytes(data).count(b"\n")  # some are written together, and then only some of them fit
            if written[0] + lines > 3:
                raise OSError(28, "No space left on device")
            written[0] += lines
        return write(fd, data)

    monkeypatch.setattr(os, "write", fills_up)
    summary = await finish(serve(HELLO), source, output)
    monkeypatch.undo()
    assert (summary.stop_reason, summary.exit_code, len(ids(output))) == ("disk", 3, 3)
    assert summary.stop_message is not None
    assert "No space left" in summary.stop_message
    summary = await finish(serve(HELLO), source, output)
    assert sorted(ids(output)) == [f"request-{number}" for number in range(8)]


async def test_a_second_run_is_refused_while_the_first_runs(serve: Serve, paths: tuple[Path, Path, Path]) -> None:
    source, output, _ = paths
    server = serve(Reply("Hello.", first_token=0.2))
    async with adapter_of(server) as adapter, run_batch(source, output, adapter=adapter) as run:
        with pytest.raises(LockedError, match="another run is writing"):
            async with run_batch(source, output, adapter=adapter):
                pass
        assert (await run.finish()).succeeded == 8


async def test_responses_that_do_not_fit_the_schema_are_failures(serve: Serve, paths: tuple[Path, Path, Path]) -> None:
    source, output, errors = paths
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    server = serve(lambda request: Reply('{"n": 1}' if request.number % 2 else '{"n": "one"}'))
    summary = await finish(server, source, output, schema=schema)
    assert (summary.succeeded, summary.failures) == (4, {"output_invalid": 4})
    assert "$.n: 'one' is not of type 'integer'" in read_lines(errors)[0]["error"]["message"]
    assert server.bodies[0]["response_format"]["json_schema"]["schema"] == schema


async def test_progress_says_how_far_a_run_is(serve: Serve, paths: tuple[Path, Path, Path]) -> None:
    source, output, _ = paths
    async with adapter_of(serve(HELLO)) as adapter:
        run = run_batch(source, output, adapter=adapter)
        assert run.progress().phase == "reading the output"
        async with run:
            assert (run.progress().phase, run.progress().total, run.progress().left) == ("running", 8, 8)
            await run.finish()
        progress = run.progress()
    assert (progress.phase, progress.left, progress.succeeded, progress.running) == ("ended", 0, 8, 0)
    assert progress.projected_cost == pytest.approx(run.summary.total_cost)
