"""`python -m benchmarks.many`: ten thousand tasks through `map`, from a generator, against the simulator.

It prints for each event loop: whether each task gave exactly one result, how far ahead the source was read, the time
(most of it spent by the simulator), and the growth of the resident size after the first thousand results. The exit
status is 1 if a result is missing or doubled, if the look-ahead was exceeded, or if the size grew by more than a tenth.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from benchmarks.contenders import LOOPS
from benchmarks.harness.loops import run
from benchmarks.harness.memory import resident_bytes
from benchmarks.harness.processes import ROOT, environment
from chatscope import AsyncChatGPTAdapter, Task
from chatscope._tasks.map import LOOK_AHEAD

SETTLED = 1_000
"""The number of results after which the size should stay constant: by then, connections are open and code is loaded."""

MOST_GROWTH = 0.1


class Figures(NamedTuple):
    """The results of one run."""

    each_once: bool
    furthest: int
    seconds: float
    growth: float


async def measure(base_url: str, tasks: int, concurrency: int) -> Figures:
    """Run a number of tasks, a number at a time."""
    read = delivered = furthest = 0
    seen = bytearray(tasks)

    def source() -> Iterator[Task]:
        nonlocal read
        for number in range(tasks):
            read += 1
            yield Task(f"Say {number}.", metadata={"number": number})

    began = time.perf_counter()
    settled = resident_bytes()
    async with (
        AsyncChatGPTAdapter("", base_url=base_url, max_concurrency=concurrency) as adapter,
        adapter.map(source()) as results,
    ):
        async for result in results:
            delivered += 1
            furthest = max(furthest, read - delivered)
            if result.task is not None and result.success:
                seen[result.task.metadata["number"]] += 1
            if delivered == SETTLED:
                settled = resident_bytes()
        size = resident_bytes()
    seconds = time.perf_counter() - began
    return Figures(seen == b"\1" * tasks and delivered == tasks, furthest, seconds, size / settled - 1)


@contextmanager
def simulator() -> Iterator[str]:
    """Run the simulator in a separate process while the block is open; yield its address."""
    options = ("--port", "0", "--first-token", "0", "--between-tokens", "0")
    command = [sys.executable, "-m", "chatscope", "simulator", *options]
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = re.search(r"http://\S+", process.stdout.readline())
            assert address is not None
            yield address[0]
        finally:
            process.terminate()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tasks on each loop; return the exit status."""
    parser = argparse.ArgumentParser("python -m benchmarks.many", description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=200)
    parser.add_argument("--loop", choices=LOOPS, action="append", help="may be given more than once; default all")
    options = parser.parse_args(arguments)
    status = 0
    with simulator() as base_url:
        for loop in options.loop or LOOPS:
            figures = run(loop, partial(measure, base_url, options.tasks, options.concurrency))
            bound = options.concurrency + LOOK_AHEAD
            print(
                f"{loop:8} {options.tasks} tasks in {figures.seconds:.1f} s, each once: {figures.each_once}, "
                f"read ahead at most {figures.furthest} of {bound}, grew by {figures.growth:.1%}"
            )
            if not figures.each_once or figures.furthest > bound or figures.growth > MOST_GROWTH:
                status = 1
    return status
