"""`python -m benchmarks.batch`: what a batch costs, how much memory it takes, and what it survives.

`throughput` runs one file three ways against the benchmark server, each in a process of its own, and compares CPU time:
`chatscope.batch` with its journal and prices, `AsyncChatGPTAdapter.map` alone, and a script of the kind that people
write for this (see `benchmarks.contenders.parallel_script`). `resume` measures memory and time of a resumption with
900,000 of 1,000,000 lines recorded. `kills` kills one run with SIGKILL again and again, under faults, and counts what
was lost and what was asked twice. Without a name, all three run. The exit status is 1 if a kill lost or doubled a line.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import anyio

from benchmarks.contenders import parallel_script
from benchmarks.harness.processes import ROOT, LocalServer, environment
from benchmarks.harness.wire import API_KEY, MODEL, PROMPT
from chatscope import AsyncChatGPTAdapter, Task
from chatscope.batch import BatchOptions, run_batch
from chatscope.batch.journal import Paths
from chatscope.batch.readers import InputRow
from chatscope.batch.requests import RowParser
from chatscope.batch.status import read_status
from chatscope.simulator import Reply, error, faults, simulator

AT_ONCE: Final = 200
TOKENS: Final = 20
"""Completion tokens of a response; the server sends them at once, so that the client is what is measured."""


def line(number: int, **more: Any) -> bytes:
    """Return one line of an input."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": f"{number}: {PROMPT}"}], "max_tokens": TOKENS}
    request = {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": {**body, **more}}
    return json.dumps(request).encode() + b"\n"


def write_input(path: Path, lines: int) -> Path:
    """Write an input of so many lines, and beside it `bodies.jsonl`, the same as the script reads it."""
    with path.open("wb") as file, path.with_name("bodies.jsonl").open("wb") as bodies:
        for number in range(lines):
            file.write(data := line(number))
            request = json.loads(data)
            metadata = {"row_id": request["custom_id"]}
            bodies.write(json.dumps({**request["body"], "metadata": metadata}).encode() + b"\n")
    return path


# -- throughput --------------------------------------------------------------------------------------------------------


async def _batch(base_url: str, source: Path, *, stream: bool = True) -> None:
    adapter = AsyncChatGPTAdapter(API_KEY, base_url=base_url, max_concurrency=AT_ONCE, keep_finished=1)
    async with adapter, run_batch(source, source.with_name("out.jsonl"), adapter=adapter, stream=stream) as run:
        summary = await run.finish()
    assert summary.exit_code == 0, summary


async def _map(base_url: str, source: Path) -> None:
    def tasks() -> Iterator[Task]:
        with source.open("rb") as file:
            for data in file:
                body = json.loads(data)["body"]
                yield Task(messages=body["messages"], parameters={"model": body["model"], "max_tokens": TOKENS})

    adapter = AsyncChatGPTAdapter(API_KEY, base_url=base_url, max_concurrency=AT_ONCE, keep_finished=1)
    async with adapter, adapter.map(tasks()) as results:
        async for result in results:
            assert result.success, result.error


async def _script(base_url: str, source: Path) -> None:
    source = source.with_name("bodies.jsonl")
    await parallel_script.run(source, source.with_name("out.jsonl"), f"{base_url}/chat/completions", API_KEY)


async def _batch_plain(base_url: str, source: Path) -> None:
    await _batch(base_url, source, stream=False)


CONTENDERS: Final[dict[str, Callable[[str, Path], Any]]] = {
    "batch": _batch,
    "map": _map,
    "batch --no-stream": _batch_plain,
    "script": _script,
}
"""The script asks for plain responses, so `--no-stream` is what compares with it."""


def throughput(requests: int, repetitions: int) -> None:
    """Print requests a CPU second and a second for each contender, medians, and the ratios."""
    cpu: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    wall: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    with LocalServer(core=None) as server:
        for _ in range(repetitions):
            for name in CONTENDERS:  # in turn, so that a machine that slows down slows all of them
                with tempfile.TemporaryDirectory() as folder:
                    source = write_input(Path(folder) / "in.jsonl", requests)
                    figures = _child("--child", name, f"http://127.0.0.1:{server.port}/burst/v1", str(source))
                cpu[name].append(figures["cpu"])
                wall[name].append(figures["wall"])
    for name in CONTENDERS:
        seconds, all_seconds = sorted(cpu[name])[repetitions // 2], sorted(wall[name])[repetitions // 2]
        print(f"{name:18} {requests / seconds:9,.0f} requests a CPU second {requests / all_seconds:9,.0f} a second")
    if parallel_script.vocabulary() is None:
        print("the script counted no tokens, which flatters it: tiktoken or its vocabulary is missing")
    print(f"batch: {_ratio(cpu['map'], cpu['batch'])} of map alone (wanted 0.8)")
    print(f"batch --no-stream: {_ratio(cpu['script'], cpu['batch --no-stream'])} times the script (wanted 3)")


def _ratio(firsts: list[float], seconds: list[float]) -> str:
    """Return the median of the ratios within each turn, and their range: a noisy moment hits both of a turn."""
    ratios = sorted(first / second for first, second in zip(firsts, seconds, strict=True))
    return f"{ratios[len(ratios) // 2]:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def _child(*arguments: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.batch", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _run_child(name: str, base_url: str, source: Path) -> None:
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    anyio.run(CONTENDERS[name], base_url, source)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"cpu": cpu, "wall": time.perf_counter() - began}))


# -- resuming ----------------------------------------------------------------------------------------------------------


def resume(lines: int, settled: int) -> None:
    """Print the peak of the resident size, and how long it takes to the first new request."""
    with tempfile.TemporaryDirectory() as folder:
        source = write_input(Path(folder) / "in.jsonl", lines)
        _write_output(source, Path(folder) / "out.jsonl", settled)
        figures = _child("--resume", str(source))
    print(
        f"{lines:,} lines, {settled:,} recorded: first progress after {figures['progress']:.2f} s (wanted 1), first new"
        f" request after {figures['first']:.1f} s (wanted 15; {figures['cpu']:.1f} s of CPU), of which"
        f" {figures['scan']:.1f} s to read the output ({settled / figures['scan']:,.0f} lines a second, wanted"
        f" 100,000); peak {figures['mib']:.0f} MiB of 250"
    )


def _write_output(source: Path, output: Path, settled: int) -> None:
    parser = RowParser(BatchOptions(), MODEL)
    content = "Structured concurrency keeps tasks inside a block. " * 4
    body = {"id": "chatcmpl-1", "object": "chat.completion", "model": MODEL, "created": 1}
    body["choices"] = [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}]
    body["usage"] = {"prompt_tokens": 20, "completion_tokens": 40, "total_tokens": 60}
    response = {"status_code": 200, "request_id": "req_1", "body": body}
    paths = Paths(output)
    paths.meta.mkdir()
    with source.open("rb") as lines, output.open("wb") as file, paths.started.open("wb") as started:
        started.write(b"run 1\n")
        for number, data in zip(range(1, settled + 1), lines, strict=False):
            row = parser.parse(InputRow(number, data.strip()))
            facts = {"key": row.key.hex(), "source": row.source.hex(), "line": number, "attempts": 1, "cost_usd": 1e-5}
            recorded = {"id": "batch_req_1", "custom_id": row.custom_id, "response": response, "error": None}
            file.write(json.dumps(recorded | {"chatscope": facts}).encode() + b"\n")
            started.write(f"{row.request().pair.hex()} {json.dumps(row.custom_id)}\n".encode())


def _run_resume(source: Path) -> None:
    began = time.perf_counter()
    seen: dict[str, float] = {}

    async def main() -> None:
        server = simulator(Reply("Hello.", first_token=0, between_tokens=0))
        async with server as base_url, AsyncChatGPTAdapter("", base_url=base_url, max_concurrency=4) as adapter:
            run = run_batch(source, source.with_name("out.jsonl"), adapter=adapter)
            async with anyio.create_task_group() as group:
                group.start_soon(watch, run)
                async with run:
                    while not server.requests:  # noqa: ASYNC110 - it has no event for that
                        await anyio.sleep(0.01)
                    seen["first"], seen["cpu"] = time.perf_counter() - began, time.process_time()
                group.cancel_scope.cancel()

    async def watch(run: Any) -> None:
        while True:
            await anyio.sleep(0.05)
            progress = run.progress()
            seen.setdefault("progress", time.perf_counter() - began)
            if progress.phase != "reading the output":
                seen.setdefault("scan", time.perf_counter() - began)

    anyio.run(main)
    seen["mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(seen))


# -- kills -------------------------------------------------------------------------------------------------------------


KILLED_AT_ONCE: Final = 16
"""Requests at a time in the runs that are killed: so few that one file lasts for hundreds of kills."""

RESPONSE_SECONDS: Final = 0.05
KILLED_EARLY: Final = 0.2
"""Of the kills, so many come before the first request: while the run starts, reads its output, or mends it."""

FINAL_RUNS: Final = 20
"""At most so many runs at the end, one after the other: failures that may pass run again."""


def kills(requests: int, times: int, seed: int) -> bool:
    """Kill a run at random moments, finish it, and return whether nothing was lost, doubled or refused.

    Most kills come a random time after the run's first request; its mean is such that the file lasts for all of them.
    """
    chance = random.Random(seed)
    mean = 0.8 * requests / times * RESPONSE_SECONDS / KILLED_AT_ONCE
    with tempfile.TemporaryDirectory() as folder, _faulty_server(seed) as (base_url, seen):
        source = write_input(Path(folder) / "in.jsonl", requests)
        output = source.with_name("out.jsonl")
        command = [sys.executable, "-m", "chatscope", "batch", "run", str(source), "-o", str(output)]
        command += ["--max-concurrency", str(KILLED_AT_ONCE), "--progress", "none", "--timeout", "2"]
        command += ["--base-url", base_url]
        variables = environment() | {"OPENAI_API_KEY": "x"}
        killed = early = in_flight = 0
        latest = ""
        codes: Counter[int] = Counter()
        while killed < times and not {0, 1} & codes.keys():
            process = subprocess.Popen(command, env=variables, stderr=subprocess.DEVNULL)
            if chance.random() < KILLED_EARLY:
                early += 1
                delay = chance.uniform(0, 1)
            else:
                _wait_for_a_request(process, Paths(output))
                delay = chance.uniform(0, 2 * mean)
            try:
                codes[process.wait(delay)] += 1
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                killed += 1
                if (begun := _run_of(Paths(output))) != latest:  # else it was killed before it began its own log
                    latest = begun
                    in_flight += read_status(output).in_flight
        code = 1
        for _ in range(FINAL_RUNS):
            code = subprocess.call(command, env=variables, stderr=subprocess.DEVNULL)
            codes[code] += 1
            if code != 1:
                break
        recorded = Counter(json.loads(data)["custom_id"] for data in output.read_bytes().splitlines())
        twice = sum(count - 1 for count in Counter(seen()).values())
    is_whole = len(recorded) == requests and set(recorded.values()) == {1} and code == 0
    print(
        f"{requests:,} requests, killed {killed} times of {times} (seed {seed}), {early} of them at the start: "
        f"{len(recorded):,} ids, each once and none failed: {is_whole}; refused resumes {codes[2]}; other exit codes "
        f"{ {number: count for number, count in codes.items() if number not in {0, 1, 2}} or 'none' }; sent twice "
        f"{twice:,}, in flight at the kills {in_flight:,}, as `status` said"
    )
    return is_whole and killed == times and not {2, 3} & codes.keys() and twice <= in_flight


def _run_of(paths: Paths) -> str:
    """Return which run the log of started requests belongs to."""
    return paths.started.read_text().partition("\n")[0] if paths.started.exists() else ""


def _wait_for_a_request(process: subprocess.Popen[bytes], paths: Paths) -> None:
    """Wait until a run has written its manifest and begun a request, or has ended."""
    began = paths.manifest.stat().st_mtime_ns if paths.manifest.exists() else 0
    while process.poll() is None:
        if paths.manifest.exists() and paths.manifest.stat().st_mtime_ns != began and paths.started.stat().st_size > 20:
            return
        time.sleep(0.001)


@contextmanager
def _faulty_server(seed: int) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """Serve in a process of its own, so that it outlives every kill; it tells which requests it answered well."""
    command = [sys.executable, "-m", "benchmarks.batch", "--serve", str(seed)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        base_url = process.stdout.readline().strip()

        def seen() -> list[str]:
            found, _ = process.communicate("\n")
            names: list[str] = json.loads(found)
            return names

        yield base_url, seen
        process.kill()


async def _serve(seed: int) -> None:
    chance = random.Random(seed)
    hello = Reply("Hello, hello.", first_token=RESPONSE_SECONDS, between_tokens=0.001)
    mishaps = [
        error(429, retry_after=0.05),
        error(503),
        Reply("Hello, hello.", faults=(faults.reset(2),)),
        Reply("Hello, hello.", faults=(faults.stall(1),)),
    ]
    answered: list[str] = []

    def script(request: Any) -> Any:
        if chance.random() < 0.1:
            return chance.choice(mishaps)
        answered.append(request.body["messages"][-1]["content"].partition(":")[0])
        return hello

    async with simulator(script) as base_url:
        print(base_url, flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)
    print(json.dumps(answered))


def main() -> int:
    """Run what the arguments name."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.batch", description="What a batch costs, and what it survives."
    )
    parser.add_argument("only", nargs="*", choices=["throughput", "resume", "kills", []], help="default: all")
    parser.add_argument("--requests", type=int, default=20_000, help="of one run of throughput")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--lines", type=int, default=1_000_000, help="of resume; nine tenths are recorded")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--resume", help=argparse.SUPPRESS)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        _run_child(given.child[0], given.child[1], Path(given.child[2]))
    elif given.resume:
        _run_resume(Path(given.resume))
    elif given.serve is not None:
        anyio.run(_serve, given.serve)
    else:
        only = given.only or ["throughput", "resume", "kills"]
        if "throughput" in only:
            throughput(given.requests, given.repetitions)
        if "resume" in only:
            resume(given.lines, given.lines * 9 // 10)
        if "kills" in only and not kills(5_000, given.kills, given.seed):
            return 1
    return 0
