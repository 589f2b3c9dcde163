"""Kills a run with SIGKILL many times, with a faulty server: counts what was lost, doubled, refused, or sent twice."""

from __future__ import annotations

import json
import random
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

from benchmarks.harness.processes import ROOT, environment
from benchmarks.scenarios.batch_input import write_input
from chatscope.batch.journal import Paths
from chatscope.batch.status import read_status
from chatscope.simulator import Reply, error, faults, simulator

KILLED_AT_ONCE: Final = 16
"""Requests at a time in the runs that are killed. There are so few that one file lasts for hundreds of kills."""

RESPONSE_SECONDS: Final = 0.05
KILLED_EARLY: Final = 0.2
"""The share of kills before the first request, while the run starts, reads its output, or repairs it."""

FINAL_RUNS: Final = 20
"""The largest number of runs at the end, one after another. Requests with transient failures run again."""


def kills(requests: int, times: int, seed: int) -> bool:
    """Kill a run at random moments, finish it, and return whether nothing was lost, doubled or refused.

    Most kills come a random time after the run's first request. The mean time is chosen so that the file lasts for all
    kills.
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
                if (begun := _run_of(Paths(output))) != latest:  # otherwise it was killed before it started its own log
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
    """Run the server in a separate process, which survives every kill; it reports the requests that succeeded."""
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


async def serve(seed: int) -> None:
    """Serve with faults until standard input ends, then print which requests succeeded."""
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
