"""Runs in worker processes: one schedule for any number of them, their death, and how they are stopped. Real time."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest
from tests.support.processes import launcher
from tests.support.simulated import Simulate, simulators

from chatscope.load import Length, LoadMonitor, LoadPlan, LoadReport, Workload, run, run_in_processes
from chatscope.load.connections import connections_sentence
from chatscope.load.schedule import OpenLoop, due_offsets
from chatscope.load.sizing import worker_count
from chatscope.load.worker_loops import WorkerLoop
from chatscope.simulator import Reply, error

REPLY = Reply(tokens=3)
SLOW = Reply(tokens=2, first_token=60)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="signals and descriptors as on Unix")]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {}  # the workers' loops are what differs


@pytest.fixture
def simulate() -> Iterator[Simulate]:
    with simulators() as start:
        yield start


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[anyio.abc.Process]:
    """The worker processes that were started."""
    found: list[anyio.abc.Process] = []
    original = anyio.open_process

    async def open_process(*given: Any, **more: Any) -> anyio.abc.Process:
        found.append(await original(*given, **more))
        return found[-1]

    monkeypatch.setattr(anyio, "open_process", open_process)
    return found


def plan(base_url: str, **values: Any) -> LoadPlan:
    workload = Workload(prompt_tokens=Length(16, 4), output_tokens=Length(3))
    given: dict[str, Any] = {
        "model": "m",
        "base_url": base_url,
        "api_key": "",
        "workload": workload,
        "calibrate": False,
    }
    return LoadPlan(**(given | values))


def due_and_lengths(report: LoadReport) -> list[tuple[int, int, int | None]]:
    """Return every request's index, due time from the first and length."""
    records = sorted(report.records, key=lambda record: record.index)
    return [(each.index, each.due_ns - records[0].due_ns, each.requested_prompt_tokens) for each in records]


async def test_the_schedule_is_the_same_to_the_nanosecond_for_any_number_of_workers_on_every_loop(
    simulate: Simulate,
) -> None:
    simulated = simulate(REPLY)
    given = plan(simulated.base_url, rate=60, requests=30, seed=4, salt="s")
    runs: list[tuple[int, WorkerLoop]] = [(1, "asyncio"), (2, "trio"), (4, "uvloop")]
    alone = due_and_lengths(await run(given))
    offsets = list(due_offsets(OpenLoop(60), "4:arrivals:0", requests=30))
    assert [due for _, due, _ in alone] == [offset - offsets[0] for offset in offsets]
    bodies = {request.content for request in simulated.server.requests}
    for workers, loop in runs:
        report = await run_in_processes(given, workers=workers, loop=loop)
        assert due_and_lengths(report) == alone, (workers, loop)
        assert {record.worker for record in report.records} == set(range(workers))
        assert report.ok == 30
        evidence = report.stages[0].verdict.evidence
        assert bool(evidence.read_lag.count) == (sys.platform == "linux"), "the kernel bears witness on every loop"
        assert (evidence.no_witness is None) == (sys.platform == "linux")
    assert {request.content for request in simulated.server.requests} == bodies, "the same prompts, too"


async def test_stamps_are_in_the_order_of_what_happens(simulate: Simulate) -> None:
    """Connecting is over when a request is sent, and counts once for each connection."""
    simulated = simulate(Reply(tokens=3, first_token=0.02))
    report = await run(plan(simulated.base_url, concurrency=1, requests=4, connections="on-demand"))
    for record in report.records:
        assert record.dispatched_ns is not None
        assert record.sent_ns is not None
        assert record.headers_ns is not None
        assert record.finished_ns is not None
        assert record.due_ns <= record.dispatched_ns <= record.sent_ns <= record.headers_ns <= record.token_ns[0]
        assert record.token_ns[-1] <= record.finished_ns
    first, *others = sorted(report.records, key=lambda record: record.index)
    assert first.connect_ns is not None
    assert first.dispatched_ns is not None
    assert first.sent_ns is not None
    assert 0 < first.connect_ns <= first.sent_ns - first.dispatched_ns
    assert [record.connect_ns for record in others] == [None] * 3
    assert report.stages[0].summary.metrics["connect"].count == 1


@pytest.mark.parametrize(
    ("loop", "shape", "ahead", "connected"),
    [
        ("asyncio", {"concurrency": 9, "requests": 18}, 9, 0),
        ("uvloop", {"rate": 40, "arrivals": "constant", "requests": 40}, 8, 0),
        ("trio", {"rate": 40, "requests": 9, "max_concurrency": 3}, 3, 0),
        ("trio", {"concurrency": 9, "requests": 18, "connections": "on-demand"}, None, 9),
    ],
)
async def test_connections_are_opened_before_requests_need_them(
    simulate: Simulate, loop: WorkerLoop, shape: dict[str, Any], ahead: int | None, connected: int
) -> None:
    """Also those of an open loop, whose requests are ever more here. The report says which it was."""
    simulated = simulate(Reply(tokens=2, first_token=1))
    (stage,) = (await run_in_processes(plan(simulated.base_url, **shape), workers=2, loop=loop)).stages
    evidence, connects = stage.verdict.evidence, stage.summary.metrics["connect"].count
    assert (evidence.connections_ahead, evidence.not_ahead, connects) == (ahead, None, connected)
    sentence = connections_sentence(evidence, connects, stage.summary.attempts)
    if ahead is None:
        assert sentence.startswith("connections were not opened ahead: 9 of 18 measured requests opened one, which is")
    else:
        assert sentence.startswith(f"connections that were open before the first request: {ahead}; 0 of")


async def test_connections_that_cannot_be_opened_leave_it_to_the_requests_to_say_why() -> None:
    (stage,) = (await run(plan("http://127.0.0.1:9/v1", concurrency=2, requests=4))).stages
    assert stage.summary.failures == {"APIConnectionError": 4}
    sentence = connections_sentence(stage.verdict.evidence, 0, 4)
    assert sentence.startswith("connections could not all be opened ahead (")
    assert "127.0.0.1 port 9" in sentence


async def test_a_request_whose_usage_is_refused_is_not_sent_again_unseen(simulate: Simulate) -> None:
    refusal = error(400, "Unknown parameter: stream_options", param="stream_options")
    simulated = simulate(lambda request: refusal if "stream_options" in request.body else REPLY)
    report = await run(plan(simulated.base_url, concurrency=1, requests=3))
    assert len(simulated.server.requests) == 3
    assert report.stages[0].summary.failures == {"400 BadRequestError": 3}


async def test_a_closed_loop_is_shared_by_its_slots(simulate: Simulate) -> None:
    simulated = simulate(REPLY)
    report = await run_in_processes(plan(simulated.base_url, concurrency=[3, 1], requests=9), workers=8)
    assert [stage.summary.ok for stage in report.stages] == [9, 9]
    assert {record.worker for record in report.records} == {0}, "the second stage has one slot, so one worker runs all"
    report = await run_in_processes(plan(simulated.base_url, concurrency=3, duration=0.5), workers=2)
    counts = [sum(record.worker == worker for record in report.records) for worker in range(2)]
    assert all(counts)
    assert report.stages[0].summary.failed == 0
    assert len(report.stages[0].verdict.evidence.cpu_shares) == 2


async def test_failures_in_a_worker_are_recorded_as_anywhere(simulate: Simulate) -> None:
    simulated = simulate([error(503), REPLY])
    report = await run_in_processes(plan(simulated.base_url, rate=50, requests=6), workers=2)
    assert report.stages[0].summary.failures == {"503 InternalServerError": 1}
    assert report.ok == 5


async def test_a_worker_that_is_killed_loses_its_requests_and_the_verdict_is_invalid(
    simulate: Simulate, started: list[anyio.abc.Process], tmp_path: Path
) -> None:
    """The others go on. Of each lost request, what was planned is recorded."""
    simulated = simulate(REPLY)
    reports = []
    trace = tmp_path / "trace.csv"
    rows = "".join(f"{n / 20},s{n // 4},9,3\n" for n in range(40))
    trace.write_text(f"Timestamp,Session ID,Request tokens,Response tokens\n{rows}")

    async def measure() -> None:
        given = plan(simulated.base_url, trace=trace, workload=Workload(), slos=["failed<1%"])
        reports.append(await run_in_processes(given, workers=2))

    async with anyio.create_task_group() as group:
        group.start_soon(measure)
        await anyio.to_thread.run_sync(simulated.wait_until, lambda server: server.requests_received >= 10)
        started[1].send_signal(signal.SIGKILL)
    (report,) = reports
    (stage,) = report.stages
    assert stage.verdict.state == report.verdict == "invalid"
    (loss,) = stage.verdict.evidence.losses
    assert (loss.worker, loss.reason) == (1, "its process ended with status -9 (SIGKILL)")
    assert 10 <= loss.requests <= 20, "what it had not reported is lost, too"
    assert "requests were lost with worker 1" in stage.verdict.reasons[0]
    assert (stage.summary.attempts, stage.summary.unfinished) == (40, loss.requests)
    assert stage.summary.failures == {"WorkerDied": loss.requests}
    for record in report.records:
        assert (record.session, record.turn) == (f"s{record.index // 4}", record.index % 4)
    assert stage.goodput == pytest.approx(1 - loss.requests / 40)
    assert not report.meets_objectives
    assert sum(record.outcome == "ok" and record.worker == 0 for record in report.records) == 20


async def test_a_server_that_dies_half_way_fails_the_rest() -> None:
    monitor, reports = LoadMonitor(), []

    async def measure(base_url: str) -> None:
        given = plan(base_url, rate=20, arrivals="constant", requests=40, timeout=5)
        reports.append(await run_in_processes(given, workers=2, monitor=monitor))

    with launcher() as launch:
        server = launch("chatscope", "simulator", "--port", "0", "--first-token", "0.1", "--between-tokens", "0.3")
        assert server.stdout is not None
        base_url = server.stdout.readline().split()[4]
        async with anyio.create_task_group() as group:
            group.start_soon(measure, base_url)
            while (progress := monitor.progress()) is None or progress.sent < 20:  # noqa: ASYNC110 - it tells nobody
                await anyio.sleep(0.05)
            server.kill()
    (report,) = reports
    summary = report.stages[0].summary
    assert (summary.attempts, summary.unfinished) == (40, 0)
    assert summary.failed >= 10
    assert {"StreamTruncatedError", "APIConnectionError"} <= {name.split(" (")[0] for name in summary.failures}
    assert report.stages[0].verdict.evidence.losses == []


async def test_stopping_drains_every_worker_within_the_grace(
    simulate: Simulate, started: list[anyio.abc.Process]
) -> None:
    simulated = simulate(lambda request: SLOW if request.number % 2 else REPLY)
    monitor, reports = LoadMonitor(), []

    async def measure() -> None:
        given = plan(simulated.base_url, rate=40, duration=60, grace=0.5)
        reports.append(await run_in_processes(given, workers=2, monitor=monitor))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(measure)
            await anyio.to_thread.run_sync(simulated.wait_until, lambda server: server.requests_received >= 20)
            assert monitor.stop()
    (report,) = reports
    assert report.was_stopped
    assert report.ok >= 8
    assert report.stages[0].summary.unfinished >= 8
    assert report.stages[0].verdict.evidence.losses == []
    assert [process.returncode for process in started] == [0, 0]


async def test_a_cancelled_run_leaves_no_process(simulate: Simulate, started: list[anyio.abc.Process]) -> None:
    simulated = simulate(SLOW)
    async with anyio.create_task_group() as group:
        given = plan(simulated.base_url, concurrency=4, duration=60)
        group.start_soon(partial(run_in_processes, given, workers=3))
        await anyio.to_thread.run_sync(simulated.wait_until, lambda server: server.requests_received >= 4)
        group.cancel_scope.cancel()
    assert len(started) == 3
    assert all(process.returncode is not None for process in started)


async def test_a_value_whose_class_a_worker_cannot_import_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("only_here")
    user = type("User", (str,), {"__module__": module.__name__})
    monkeypatch.setattr(module, "User", user, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    given = plan("http://127.0.0.1:9/v1", rate=1, requests=2, parameters={"user": user("a")})
    with anyio.fail_after(30), pytest.raises(ValueError, match=r"only_here.*give it plain values"):
        await run_in_processes(given, workers=2)


def test_workers_end_with_a_parent_that_was_killed(simulate: Simulate) -> None:
    simulated = simulate(SLOW)
    arguments = ("load", "--model", "m", "--concurrency", "4", "--duration", "60", "--no-calibrate-prompts", "--quiet")
    with launcher() as launch:
        process = launch("chatscope", *arguments, base_url=simulated.base_url)
        simulated.wait_until(lambda server: server.requests_received >= 4)
        process.kill()
        process.communicate()  # ends once no worker holds the pipes
        simulated.wait_until(lambda server: server.connections_open == 0)


async def test_a_malformed_file_ends_the_run_with_its_line(simulate: Simulate, tmp_path: Path) -> None:
    """Found by the parent, or by the worker of a closed loop without an end."""
    simulated = simulate(REPLY)
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "Hello"}\n' * 100 + '{"no": "prompt"}\n')
    workload = Workload(prompts=path)
    with pytest.raises(ValueError, match="prompt 101 is malformed"):
        await run_in_processes(plan(simulated.base_url, rate=1000, duration=1, workload=workload), workers=2)
    with pytest.raises(ValueError, match="prompt 101 is malformed"):
        await run_in_processes(plan(simulated.base_url, concurrency=2, duration=5, workload=workload), workers=2)


async def test_a_loop_that_no_worker_can_run_on_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    given = plan("http://server/v1", rate=1, requests=1)
    with pytest.raises(ValueError, match="loop must be one of asyncio, uvloop, trio"):
        await run_in_processes(given, loop="curio")  # type: ignore[arg-type]  # the mistake
    monkeypatch.setattr("chatscope.load.processes.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install uvloop"):
        await run_in_processes(given, loop="uvloop")


@pytest.mark.parametrize(
    ("values", "cores", "workers"),
    [
        ({"rate": 1, "requests": 10}, 4, 1),
        ({"rate": 200, "requests": 10, "workload": Workload(output_tokens=Length(100))}, 8, 3),
        ({"concurrency": 400, "requests": 400}, 4, 3),
        ({"concurrency": [2, 400], "requests": 400}, 8, 2),
        ({"rate": 1000, "requests": 10, "max_concurrency": 2, "workload": Workload()}, 8, 2),
        ({"concurrency": 400, "requests": 400}, 1, 1),
    ],
)
def test_the_number_of_workers_follows_the_load_and_the_cores(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], cores: int, workers: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    count, notices = worker_count(plan("http://server/v1", **values), "auto")
    assert count == workers
    assert bool(notices) == (cores == 1)
    assert worker_count(plan("http://server/v1", **values), 1) == (1, [])
