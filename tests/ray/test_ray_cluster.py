"""On a real cluster of three nodes: a stage of Ray Data, a sharded batch, one limit for all, and what is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.ray.conftest import ChatServer, until
from tests.support.batches import ids, line, read_lines, write_lines

from benchmarks.harness.ray_cluster import RayCluster
from chatscope.batch import BatchSummary
from chatscope.load import Length, LoadPlan, LoadReport, Workload
from chatscope.ray import ChatMap, SharedLimit, run_batch_on_ray, run_load_on_ray
from chatscope.simulator import ChatRequest, Reply, error

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),  # one cluster
    pytest.mark.filterwarnings("default"),  # Ray's own are not ours to mend
    pytest.mark.timeout(400),
]


def run(server: ChatServer, cluster: RayCluster, source: Path, output: Path, **given: Any) -> BatchSummary:
    """Run a batch to its end. Callers that do something meanwhile do it in another thread."""
    adapter = {"api_key": "sk-secret", "base_url": server.url, "retry": 3, **given.pop("adapter", {})}

    async def main() -> BatchSummary:
        async with run_batch_on_ray(source, output, address=cluster.address, adapter=adapter, **given) as batch:
            return await batch.finish()

    return anyio.run(main)


def in_thread(*arguments: Any, **given: Any) -> Future[BatchSummary]:
    return ThreadPoolExecutor(1).submit(run, *arguments, **given)


def is_bad(request: ChatRequest) -> bool:
    return bool(request.body["messages"][-1]["content"] == "Question 3")


def test_a_stage_of_ray_data(cluster: RayCluster, server: ChatServer) -> None:
    """Every row comes back, with one schema, whatever became of it; and the actors close their connections."""
    server.sim.script = lambda request: error(400, "no") if is_bad(request) else Reply("Hello.")
    rows: list[dict[str, Any]] = [
        {"id": number, "text": f"Question {number}", "output": "mine"} for number in range(40)
    ]
    limit = SharedLimit(tokens_per_minute=1e6, name="stage").start()
    stage = cluster.ray.data.from_items(rows, override_num_blocks=4).map_batches(
        ChatMap,
        fn_constructor_kwargs={
            "prompt": "{text}",
            "limit": limit,
            "adapter": {"base_url": server.url, "api_key": "sk-secret", "retry": 1},
        },
        batch_size=10,
        compute=cluster.ray.data.ActorPoolStrategy(size=2),
        num_cpus=0.1,
    )
    done = {row["id"]: row for row in stage.take_all()}
    assert sorted(done) == list(range(40))
    assert (done[0]["output"], done[0]["input_output"], done[0]["error"], done[0]["status"]) == (
        "Hello.",
        "mine",
        "",
        200,
    )
    assert (done[3]["output"], done[3]["status"], done[3]["attempts"]) == ("", 400, 1)
    assert "no" in done[3]["error"]
    assert sorted(server.asked()) == sorted(row["text"] for row in rows)
    until(lambda: server.sim.connections_open == 0)


def test_a_killed_node_costs_no_row(cluster: RayCluster, server: ChatServer, tmp_path: Path) -> None:
    """Its shards go on elsewhere from their journals. Only what was in flight on it is asked again."""
    cluster.add_node()
    server.sim.script = Reply("Hello.", first_token=0.4)  # the killed worker must not end first
    source = write_lines(tmp_path / "in.jsonl", [line(number) for number in range(1200)])
    running = in_thread(server, cluster, source, tmp_path / "out.jsonl", workers=3, adapter={"max_concurrency": 60})
    server.wait_for(400)
    until(lambda: server.sim.connections_open == 60)  # every worker sends: one may start seconds after the others
    cluster.kill(cluster.node_of("ShardWorker"))
    summary = running.result()
    assert (summary.exit_code, summary.succeeded, summary.failed) == (0, 1200, 0)
    assert any("workers were lost" in notice for notice in summary.notices)
    assert Counter(ids(tmp_path / "out.jsonl")) == Counter(f"request-{number}" for number in range(1200))
    twice = [count for count in Counter(server.asked()).values() if count > 1]
    assert max(twice, default=2) == 2
    assert len(twice) <= 60
    assert not (tmp_path / "out.meta" / "shards").exists()
    assert "sk-secret" not in "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())


def test_a_killed_driver_goes_on(cluster: RayCluster, server: ChatServer, tmp_path: Path) -> None:
    """Its workers end with it. The same command merges what they recorded, and asks for the rest."""
    source, output = write_lines(tmp_path / "in.jsonl", [line(number) for number in range(600)]), tmp_path / "out.jsonl"
    options = ["--ray", cluster.address, "--ray-workers", "2", "--max-concurrency", "20", "--progress", "none"]
    command = [sys.executable, "-m", "chatscope", "batch", "run", str(source), "-o", str(output), *options]
    environment = os.environ | {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "sk-secret"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as driver:
        server.wait_for(200)
        driver.kill()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Counter(ids(output)) == Counter(f"request-{number}" for number in range(600))
    twice = [count for count in Counter(server.asked()).values() if count > 1]
    assert max(twice, default=2) == 2
    assert len(twice) <= 20


def test_one_limit_for_all_workers(cluster: RayCluster, server: ChatServer, tmp_path: Path) -> None:
    """Four workers share 600 a minute: ten a second. A pause stops all; the death of the limit stops none."""
    source = write_lines(tmp_path / "in.jsonl", [line(number) for number in range(170)])
    adapter = {"requests_per_minute": 600, "max_concurrency": 40}
    running = in_thread(server, cluster, source, tmp_path / "out.jsonl", workers=4, adapter=adapter)
    server.wait_for(60)
    server.sim.script = [error(429, retry_after=4), Reply("Hello.", first_token=0.05)]
    refused = server.sim.requests_received
    server.wait_for(refused + 20)
    requests = list(server.sim.requests)
    paused_at = next(request.time for request in requests if request.status == 429)
    during = [request.time - paused_at for request in requests if request.time > paused_at]
    assert [at for at in during if 1.5 < at < 3.9] == []
    cluster.kill_limit()
    summary = running.result()
    assert (summary.exit_code, summary.succeeded, summary.retries) == (0, 170, 1)
    times = server.times()
    for first, start in enumerate(times):
        assert sum(at <= start + 10 for at in times[first:]) <= 100 + 20 + 10, "ten seconds' worth, with two in hand"


def test_a_run_goes_on_wherever_it_was_begun(cluster: RayCluster, server: ChatServer, tmp_path: Path) -> None:
    """Rows that are recorded are not asked again, failures and rows that are no requests are in their place."""
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines: list[Any] = [line(number) for number in range(120)]
    write_lines(source, [*lines[:40], '{"custom_id": "bad", "body": {"messages": []}}'])
    server.sim.script = lambda request: error(503) if is_bad(request) else Reply("Hello.")
    first = run(server, cluster, source, output, workers=2, adapter={"retry": 1})
    assert (first.exit_code, first.succeeded, first.failed, first.invalid) == (1, 39, 2, 1)
    assert first.failures == {"503": 1, "invalid_line": 1}
    assert ids(tmp_path / "out.errors.jsonl") == ["bad", "request-3"]
    server.sim.script = Reply("Hello.")
    write_lines(source, lines)
    second = run(server, cluster, source, output, workers=2)
    assert (second.exit_code, second.settled, second.succeeded) == (0, 39, 81)
    assert read_lines(tmp_path / "out.errors.jsonl") == []
    numbers = {each["custom_id"]: each["chatscope"]["line"] for each in read_lines(output)}
    assert numbers == {f"request-{number}": number + 1 for number in range(120)}


def measure(server: ChatServer, cluster: RayCluster, workers: int, **given: Any) -> LoadReport:
    workload = Workload(prompt_tokens=Length(8))
    plan = LoadPlan(model="m", base_url=server.url, api_key="", workload=workload, calibrate=False, **given)
    return anyio.run(lambda: run_load_on_ray(plan, address=cluster.address, workers=workers))


def test_a_load_test_from_two_nodes(cluster: RayCluster, server: ChatServer) -> None:
    """The schedule is shared out; every stamp is on the clock of the process that reports."""
    report = measure(server, cluster, 2, rate=[40.0], requests=120)
    assert (len(report.records), report.ok) == (120, 120)
    assert Counter(record.worker for record in report.records) == {0: 60, 1: 60}
    due = sorted(record.due_ns for record in report.records)
    assert due[-1] - due[0] == pytest.approx(3e9, rel=0.5)  # 120 arrivals at 40 a second, drawn with a fixed seed
    assert all(record.due_ns <= (record.dispatched_ns or 0) <= (record.finished_ns or 0) for record in report.records)
    assert "2 workers on 2 nodes, each with its own clock" in report.notices[-1]
    assert server.sim.requests_received == 120


def test_a_load_test_that_loses_a_node_says_so(cluster: RayCluster, server: ChatServer) -> None:
    cluster.add_node()
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(measure, server, cluster, 3, rate=[20.0], duration=6.0)
        server.wait_for(40)
        cluster.kill(cluster.node_of("LoadNode"))
        report = running.result()
    assert report.verdict == "invalid"
    assert "its node was lost" in report.stages[0].verdict.reasons[0]
    lost = [record for record in report.records if record.error is not None]
    assert {record.error.class_ for record in lost if record.error is not None} == {"WorkerDied"}
    assert len(report.records) == len({record.index for record in report.records})
