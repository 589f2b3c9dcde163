"""`python -m benchmarks.batch`: the CPU time and memory of a batch, and whether it survives SIGKILL.

`throughput` runs files of short and of long requests in four ways against the benchmark server, each in a separate
process, and compares CPU time: `chatscope.batch` with its journal and prices against `AsyncChatGPTAdapter.map` alone,
and the command `chatscope batch run` against a typical script for this (see `benchmarks.contenders.parallel_script`).
`resume` measures the memory and time of a resumption with 900,000 of 1,000,000 lines recorded. `kills` kills one run
with SIGKILL many times, with a faulty server, and counts the requests that were lost or sent twice. Without a name, all
three run. The exit status is 1 if a kill lost or doubled a line.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, cast

import anyio

from benchmarks.contenders import parallel_script
from benchmarks.harness.processes import LocalServer
from benchmarks.harness.wire import API_KEY
from benchmarks.scenarios.batch_input import LONG, SHORT, Length, figures_of, write_input
from benchmarks.scenarios.batch_kills import kills, serve
from benchmarks.scenarios.batch_resume import measure_resume, resume
from chatscope import AsyncChatGPTAdapter, Task
from chatscope.batch import run_batch
from chatscope.cli import main as main_of_cli

AT_ONCE: Final = 200
WARM_UP: Final = 200
"""Requests that each process runs before it is measured: modules, prices and the tokenizer's vocabulary are loaded only
once, however many requests follow."""


async def _batch(base_url: str, source: Path) -> None:
    adapter = AsyncChatGPTAdapter(API_KEY, base_url=base_url, max_concurrency=AT_ONCE, keep_finished=1)
    async with adapter, run_batch(source, source.with_name("out.jsonl"), adapter=adapter) as run:
        summary = await run.finish()
    assert summary.exit_code == 0, summary


async def _map(base_url: str, source: Path) -> None:
    def tasks() -> Iterator[Task]:
        with source.open("rb") as file:
            for data in file:
                body = json.loads(data)["body"]
                yield Task(
                    messages=body["messages"], parameters={"model": body["model"], "max_tokens": body["max_tokens"]}
                )

    adapter = AsyncChatGPTAdapter(API_KEY, base_url=base_url, max_concurrency=AT_ONCE, keep_finished=1)
    async with adapter, adapter.map(tasks()) as results:
        async for result in results:
            assert result.success, result.error


async def _script(base_url: str, source: Path) -> None:
    source = source.with_name("bodies.jsonl")
    await parallel_script.run(source, source.with_name("out.jsonl"), f"{base_url}/chat/completions", API_KEY)


def _command(base_url: str, source: Path, *options: str) -> None:
    """Run the command itself, in this process: its start would be measured otherwise."""
    os.environ["OPENAI_API_KEY"] = API_KEY
    arguments = [
        "batch",
        "run",
        str(source),
        "-o",
        str(source.with_name("out.jsonl")),
        "--base-url",
        base_url,
        *options,
    ]
    code = main_of_cli([*arguments, "--max-concurrency", str(AT_ONCE), "--progress", "none", "--json"])
    assert code == 0, code


def _on_asyncio(body: Callable[[str, Path], Awaitable[None]]) -> Callable[[str, Path], None]:
    return partial(anyio.run, cast("Callable[..., Awaitable[None]]", body))


CONTENDERS: Final[dict[str, Callable[[str, Path], None]]] = {
    "batch": _on_asyncio(_batch),
    "map": _on_asyncio(_map),
    "command": _command,
    "command --no-stream": lambda base_url, source: _command(base_url, source, "--no-stream"),
    "script": _on_asyncio(_script),
}
"""A batch is compared with `map` as one call with another. The script does not stream, so it is compared with the
command that does not either. What the command costs by default, when it parses each token, is shown beside it."""


def throughput(requests: int, repetitions: int) -> None:
    """Print requests per CPU second and per second for each contender, the medians, and the ratios."""
    if parallel_script.vocabulary() is None:
        print("the script counts no tokens, which flatters it: tiktoken or its vocabulary is missing")
    with LocalServer(core=None) as server:
        for length in (SHORT, LONG):
            _compare(f"http://127.0.0.1:{server.port}/burst/v1", length, requests, repetitions)


def _compare(base_url: str, length: Length, requests: int, repetitions: int) -> None:
    cpu: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    wall: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(repetitions):
        for name in CONTENDERS:  # in turn, so that a machine that slows down slows all of them
            with tempfile.TemporaryDirectory() as folder:
                source = write_input(Path(folder) / "in.jsonl", requests, length)
                figures = figures_of("--child", name, base_url, str(source))
            cpu[name].append(figures["cpu"])
            wall[name].append(figures["wall"])
    print(f"{length.prompt_tokens} tokens in, {length.completion_tokens} out")
    for name in CONTENDERS:
        seconds, all_seconds = sorted(cpu[name])[repetitions // 2], sorted(wall[name])[repetitions // 2]
        print(f"  {name:19} {requests / seconds:9,.0f} requests a CPU second {requests / all_seconds:9,.0f} a second")
    print(f"  batch: {_ratio(cpu['map'], cpu['batch'])} of map alone (wanted 0.8)")
    print(f"  command --no-stream: {_ratio(cpu['script'], cpu['command --no-stream'])} times the script (wanted 3)")
    print(f"  command: {_ratio(cpu['script'], cpu['command'])} times the script")


def _ratio(firsts: list[float], seconds: list[float]) -> str:
    """Return the median of the ratios within each turn, and their middle half.

    A machine that slows down for a while affects both sides of most turns, so many short turns tell more than few long
    ones.
    """
    ratios = sorted(first / second for first, second in zip(firsts, seconds, strict=True))
    quarter = len(ratios) // 4
    return f"{ratios[len(ratios) // 2]:.2f} (middle half: {ratios[quarter]:.2f} to {ratios[-1 - quarter]:.2f})"


def _run_child(name: str, base_url: str, source: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        CONTENDERS[name](base_url, write_input(Path(folder) / "in.jsonl", WARM_UP))
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    CONTENDERS[name](base_url, source)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"cpu": cpu, "wall": time.perf_counter() - began}))


def main() -> int:
    """Run the parts that the arguments name."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.batch", description="The cost of a batch, and whether it survives SIGKILL."
    )
    parser.add_argument("only", nargs="*", choices=["throughput", "resume", "kills", []], help="default: all")
    parser.add_argument("--requests", type=int, default=4_000, help="of one run of throughput")
    parser.add_argument("--repetitions", type=int, default=15, help="turns of throughput")
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
        measure_resume(Path(given.resume))
    elif given.serve is not None:
        anyio.run(serve, given.serve)
    else:
        only = given.only or ["throughput", "resume", "kills"]
        if "throughput" in only:
            throughput(given.requests, given.repetitions)
        if "resume" in only:
            resume(given.lines, given.lines * 9 // 10)
        if "kills" in only and not kills(5_000, given.kills, given.seed):
            return 1
    return 0
