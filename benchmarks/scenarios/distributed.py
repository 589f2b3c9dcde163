"""`python -m benchmarks.distributed`: batches on a Ray cluster of two nodes on this machine (extra `ray`).

`limit` sends as fast as a limit of 600 requests per minute allows, with four workers, for a few minutes; the server
asks for one pause. `lost` does the same and kills the limit's actor twice. `node` kills a node in the middle of 2,000
rows. `cpu` compares the CPU time of 20,000 rows on two workers with that of `chatscope.batch` in one process. `http`
runs the same rows through `ChatMap` and through the HTTP processor of `ray.data.llm`. Without a name, all of them run.
The exit status is 1 if a row is lost or doubled, or if a figure misses its target.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import anyio
from anyio.from_thread import start_blocking_portal

from benchmarks.harness.processes import LocalServer
from benchmarks.harness.ray_cluster import RayCluster
from benchmarks.harness.wire import API_KEY, MODEL
from benchmarks.scenarios.batch import AT_ONCE
from benchmarks.scenarios.batch_input import figures_of, write_input
from chatscope.batch import BatchSummary
from chatscope.ray import ChatMap, run_batch_on_ray
from chatscope.simulator import ChatRequest, Config, Reply, Simulator, error, simulator

LIMIT: Final = 600
WORKERS: Final = 4
PAUSE_SECONDS: Final = 8.0
BAD: Final = 50
"""The server refuses one row in this many."""


@contextmanager
def server_of(script: Any) -> Iterator[tuple[Simulator, str]]:
    """Run a simulator in a separate thread."""
    sim = simulator(script, Config(keep_requests=1_000_000))
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(sim) as url:
        yield sim, url


def start(cluster: RayCluster, url: str, source: Path, workers: int, **adapter: Any) -> Future[BatchSummary]:
    """Run a batch in another thread."""
    arguments = {"api_key": API_KEY, "base_url": url, **adapter}

    async def run() -> BatchSummary:
        output = source.with_name("out.jsonl")
        async with run_batch_on_ray(
            source, output, address=cluster.address, workers=workers, adapter=arguments
        ) as batch:
            return await batch.finish()

    return ThreadPoolExecutor(1).submit(anyio.run, run)


def wait_for(sim: Simulator, requests: int) -> None:
    """Wait until the server has received a number of requests."""
    while sim.requests_received < requests:
        time.sleep(0.02)


def busiest_minute(times: list[float]) -> int:
    """Return the largest number of requests in any minute."""
    first = most = 0
    for last, at in enumerate(times):
        while times[first] <= at - 60:
            first += 1
        most = max(most, last - first + 1)
    return most


def check_rows(output: Path, rows: int, asked: list[str]) -> tuple[bool, int]:
    """Return whether each row is in the output exactly once, and how many requests were sent more than once."""
    ids = Counter(json.loads(line)["custom_id"] for line in output.read_bytes().splitlines())
    whole = ids == Counter(f"r{number}" for number in range(rows))
    return whole, sum(times > 1 for times in Counter(asked).values())


def asked_of(sim: Simulator) -> list[str]:
    """Return the prompts of the requests."""
    return [request.json["messages"][-1]["content"] for request in list(sim.requests)]


# -- the limit ---------------------------------------------------------------------------------------------------------


def limit(rows: int) -> bool:
    """Check that four workers on two nodes observe one limit and one pause."""
    with tempfile.TemporaryDirectory() as folder, server_of(Reply("Hello.", first_token=0.2)) as (sim, url):
        with RayCluster() as cluster:
            source = write_input(Path(folder) / "in.jsonl", rows)
            running = start(cluster, url, source, WORKERS, requests_per_minute=LIMIT, max_concurrency=200)
            wait_for(sim, rows // 2)
            sim.script = [error(429, retry_after=PAUSE_SECONDS), Reply("Hello.", first_token=0.2)]
            summary = running.result()
        requests = list(sim.requests)
    refused_at = next(request.time for request in requests if request.status == 429)
    after = [request.time - refused_at for request in requests if request.time > refused_at]
    last = max((at for at in after if at < PAUSE_SECONDS - 0.1), default=0.0)
    most = busiest_minute([request.time for request in requests])
    print(f"{rows:,} rows, {WORKERS} workers on 2 nodes, {LIMIT} requests a minute: {summary.wall_seconds:.0f} s")
    print(f"  busiest minute: {most} requests, {most / LIMIT:.3f} of the limit (wanted: at most 1.05)")
    print(
        f"  after a 429 with retry-after {PAUSE_SECONDS:g}: the last request {last:.2f} s later (wanted: at most 1.5)"
    )
    return most <= 1.05 * LIMIT and last <= 1.5 and summary.exit_code == 0


def lost(rows: int) -> bool:
    """Check that a batch survives the death of the limit's actor, twice."""
    with tempfile.TemporaryDirectory() as folder, server_of(Reply("Hello.", first_token=0.2)) as (sim, url):
        with RayCluster() as cluster:
            source = write_input(Path(folder) / "in.jsonl", rows)
            running = start(cluster, url, source, WORKERS, requests_per_minute=LIMIT, max_concurrency=200)
            for part in (3, 2):
                wait_for(sim, rows // part)
                cluster.kill_limit()
            summary = running.result()
        times, asked = [request.time for request in list(sim.requests)], asked_of(sim)
        whole, _ = check_rows(source.with_name("out.jsonl"), rows, asked)
    most = busiest_minute(times)
    print(f"the limit's actor killed twice, {rows:,} rows in {summary.wall_seconds:.0f} s: every row once: {whole}")
    print(f"  busiest minute: {most} requests, {most / LIMIT:.3f} of the limit (wanted: at most 1.05)")
    return whole and most <= 1.05 * LIMIT and summary.exit_code == 0


# -- a node ------------------------------------------------------------------------------------------------------------


def node(rows: int) -> bool:
    """Check that a batch survives the death of a node with its workers."""
    at_once = 64
    with tempfile.TemporaryDirectory() as folder, server_of(Reply("Hello.", first_token=0.2)) as (sim, url):
        with RayCluster(nodes=1) as cluster:
            doomed = cluster.add_node()
            source = write_input(Path(folder) / "in.jsonl", rows)
            running = start(cluster, url, source, WORKERS, max_concurrency=at_once)
            wait_for(sim, rows // 2)
            cluster.kill(doomed)
            summary = running.result()
        whole, twice = check_rows(source.with_name("out.jsonl"), rows, asked_of(sim))
    killed = [notice for notice in summary.notices if "lost" in notice]
    print(f"a node of 2 killed in the middle of {rows:,} rows: every row once: {whole}; asked twice: {twice}")
    print(f"  in flight on all workers: at most {at_once}; {killed[0][:60] if killed else 'no worker was on it'}")
    return whole and twice <= at_once and bool(killed)


# -- CPU ---------------------------------------------------------------------------------------------------------------


class WorkerTimes(threading.Thread):
    """Samples the CPU time of all processes whose name begins with `ray::`. It cannot be read after they have ended."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seconds: dict[int, float] = {}
        self.names: dict[int, str] = {}
        self.own = 0.0
        self.ended = threading.Event()

    def run(self) -> None:
        """Sample until `ended` is set."""
        while not self.ended.wait(0.1):
            for entry in Path("/proc").iterdir():
                if entry.name.isdecimal():
                    self._sample(entry)
            self.own = time.thread_time()

    def total(self, name: str) -> float:
        """Return the CPU seconds of the processes that have had this name."""
        return sum(self.seconds[pid] for pid, had in self.names.items() if name in had)

    def _sample(self, entry: Path) -> None:
        try:
            name = (entry / "cmdline").read_bytes().decode(errors="replace")
            if name.startswith("ray::"):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                pid = int(entry.name)
                self.seconds[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
                if "Worker" in name or "Limit" in name:
                    self.names[pid] = name
        except OSError:
            return  # the process has just ended


def cpu(rows: int) -> bool:
    """Compare the CPU time per row of two workers, their driver and the limit with that of the batch runner alone.

    A short batch on the same cluster shows the cost of the start: processes, imports, connections.
    """
    with LocalServer(core=None) as server, tempfile.TemporaryDirectory() as folder:
        url = f"http://127.0.0.1:{server.port}/burst/v1"
        alone = figures_of("--child", "batch", url, str(write_input(_folder(folder), rows)))
        with RayCluster() as cluster:
            start_up = _cluster_seconds(cluster, url, write_input(_folder(folder), START_ROWS))
            whole = _cluster_seconds(cluster, url, write_input(_folder(folder), rows))
    sending = {name: whole[name] - start_up[name] for name in PARTS}
    before, after, micro = alone["cpu"], sum(sending.values()), 1e6 / rows
    print(f"{rows:,} rows: {before * micro:.0f} us of CPU a row for chatscope.batch in one process; on two workers")
    print(f"  {after * micro:.0f} us, {after / before:.2f} times as much (wanted: at most 2):", end=" ")
    print(", ".join(f"{name} {seconds * micro:.0f}" for name, seconds in sending.items()))
    started = sum(start_up[name] for name in PARTS)
    print(f"  beside that {started:.1f} s of CPU to start, {(after + started) / before:.2f} times as much with it")
    print(f"  {rows / alone['wall']:,.0f} and {rows / whole['wall']:,.0f} rows a second")
    return after <= 2 * before


START_ROWS: Final = 100
PARTS: Final = ("workers", "driver", "limit")


def _folder(folder: str) -> Path:
    return Path(tempfile.mkdtemp(dir=folder)) / "in.jsonl"


def _cluster_seconds(cluster: RayCluster, url: str, source: Path) -> dict[str, float]:
    """Run a batch on two workers; return the CPU seconds of each part, and the seconds that it took."""
    times = WorkerTimes()
    times.start()
    began = time.process_time()
    summary = start(cluster, url, source, 2, max_concurrency=AT_ONCE).result()
    driver = time.process_time() - began
    times.ended.set()
    times.join()
    assert summary.exit_code == 0, summary
    workers, limit = times.total("ShardWorker"), times.total("LimitActor")
    return {"workers": workers, "driver": driver - times.own, "limit": limit, "wall": summary.wall_seconds}


# -- beside Ray's own --------------------------------------------------------------------------------------------------


def refuse_some(request: ChatRequest) -> Any:
    """Refuse one row in `BAD`, as a server refuses a prompt that is too long."""
    number = int(request.body["messages"][-1]["content"].partition(":")[0])
    if number % BAD == 0:
        return error(400, "This model's maximum context length is exceeded.")
    return Reply("Hello.", first_token=0.2)


def http(rows: int) -> bool:
    """Run `ChatMap` and `ray.data.llm` side by side."""
    with server_of(refuse_some) as (sim, url), RayCluster() as cluster:
        _chat_map(url)(cluster.ray.data.range(64)).materialize()  # the first run also starts Ray Data's own processes
        for name, stage in (("ChatMap", _chat_map), ("ray.data.llm", _ray_processor)):
            sim.requests.clear()
            began = time.perf_counter()
            data = cluster.ray.data.range(rows, override_num_blocks=8)
            try:
                done = stage(url)(data).take_all()
            except Exception as failure:  # noqa: BLE001 - that is what is compared
                reason = str(failure).strip().splitlines()[-1][:100]
                print(f"{name:13} ended after {time.perf_counter() - began:.1f} s without rows: {reason}")
                continue
            requests = list(sim.requests)
            sending = requests[-1].time - requests[0].time
            errors = sum(bool(row["error"]) for row in done)
            print(
                f"{name:13} {len(done):,} rows, {len(requests) / sending:,.0f} requests a second while it sent"
                f" ({len(done) / (time.perf_counter() - began):,.0f} with the start); error rows: {errors}"
            )
    return True


def _chat_map(url: str) -> Callable[[Any], Any]:
    def stage(data: Any) -> Any:
        return data.map_batches(
            ChatMap,
            fn_constructor_kwargs={
                "prompt": "{id}: Say hello.",
                "model": MODEL,
                "adapter": {"api_key": API_KEY, "base_url": url},
            },
            batch_size=64,
            compute=import_module("ray.data").ActorPoolStrategy(size=2),
            num_cpus=0.1,
        )

    return stage


def _ray_processor(url: str) -> Callable[[Any], Any]:
    llm = import_module("ray.data.llm")
    config = llm.HttpRequestProcessorConfig(
        url=f"{url}/chat/completions",
        headers={"Authorization": f"Bearer {API_KEY}"},
        batch_size=64,
        concurrency=2,
        qps=10_000,  # without this, it sends one request after another
        max_retries=4,
    )

    def ask(row: dict[str, Any]) -> dict[str, Any]:
        messages = [{"role": "user", "content": f"{row['id']}: Say hello."}]
        return {"payload": {"model": MODEL, "messages": messages}}

    def answer(row: dict[str, Any]) -> dict[str, Any]:
        body = row["http_response"]
        failed = body.get("error")
        return {"output": "" if failed else body["choices"][0]["message"]["content"], "error": str(failed or "")}

    stage: Callable[[Any], Any] = llm.build_processor(config, preprocess=ask, postprocess=answer)
    return stage


SCENARIOS: Final[dict[str, tuple[Callable[[int], bool], int]]] = {
    "limit": (limit, 1500),
    "lost": (lost, 1200),
    "node": (node, 2000),
    "cpu": (cpu, 20_000),
    "http": (http, 2000),
}


def main() -> int:
    """Run the scenarios that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distributed", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="NAME", help=f"of {', '.join(SCENARIOS)}")
    parser.add_argument("--rows", type=int, help="instead of each scenario's own number")
    options = parser.parse_args()
    if unknown := sorted({*options.scenarios} - {*SCENARIOS}):
        parser.error(f"unknown: {', '.join(unknown)}")
    good = True
    for name in options.scenarios or SCENARIOS:
        scenario, rows = SCENARIOS[name]
        good = scenario(options.rows or rows) and good
        sys.stdout.flush()
    return 0 if good else 1
