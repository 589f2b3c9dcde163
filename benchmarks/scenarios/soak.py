"""`python -m benchmarks.soak`: very many tasks through one adapter, with many kinds of failure, and a complete check.

What happens to each task is known in advance (`mishaps.py`), and so is its expected result. The server is the simulator
in a separate process. The exit status is 1 if any result is lost, doubled or wrong, or if any connection or slot is
still in use at the end. Memory is checked once finished tasks are being forgotten, without collecting garbage first.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import anyio
import anyio.abc

from benchmarks.contenders import LOOPS
from benchmarks.harness.loops import run
from benchmarks.harness.memory import resident_bytes
from benchmarks.harness.processes import Process
from benchmarks.scenarios.mishaps import ATTEMPTS, MISHAPS, Server, Stop, kind_of, task_of, wrong_with
from benchmarks.scenarios.soak_report import Plan, Report, Seen
from chatscope import AsyncChatGPTAdapter, ChatError, ChatTask, Result, RetryPolicy, Statistics, TaskStatus
from chatscope._http.builtin import BuiltinSender
from chatscope._limits.retry_budget import CAPACITY, RATIO
from chatscope.simulator import Config, Simulator, simulator
from chatscope.transport.pool import TransportStatistics

RETRY: Final = RetryPolicy(ATTEMPTS, initial=0.005, max=0.05, jitter=0.005)

TASK_HANGS: Final = 60.0
"""Seconds after which a task counts as lost. Its own limits end every task in much less than a second."""

SETTLES: Final = 5.0
"""Seconds in which the server must see all connections closed."""

TOLERANCE_MIB: Final = 8.0
"""The largest allowed growth of the resident size between 10 % and 100 % of the tasks. A leak of 100 bytes per task
exceeds it within those 90,000 tasks; the growth caused by allocators and an uneven load does not."""

READERS: Final[Sequence[tuple[float, ...]]] = [()] * 6 + [(0.0,), (0.005,), (0.0, 0.0, 0.002), (0.0,)]
"""The readers of a task, by the last digit of its number: none, or readers with a delay in seconds per text part."""


AskServer = Callable[[], Awaitable[Seen]]


class Soak:
    """One soak of one adapter.

    Args:
        plan: the size and limits of the soak.
        ask_server: returns what the server has seen.
    """

    def __init__(self, plan: Plan, ask_server: AskServer) -> None:
        self._plan = plan
        self._ask_server = ask_server
        self._report = Report(plan.tasks)
        self._numbers: Iterator[int] = iter(range(plan.tasks))
        self._done = 0
        self._last = deque[str](maxlen=2 * plan.keep_finished)

    async def run(self, base_url: str) -> Report:
        """Run all of it against a server."""
        plan, report = self._plan, self._report
        began = time.perf_counter()
        adapter = AsyncChatGPTAdapter(
            "key",
            base_url=base_url,
            max_concurrency=plan.concurrency,
            keep_finished=plan.keep_finished,
            retry=RETRY,
        )
        async with adapter:
            async with anyio.create_task_group() as group:
                for _ in range(2 * plan.concurrency):  # so that as many tasks wait for a slot as hold one
                    group.start_soon(self._work, adapter)
            report.seconds = time.perf_counter() - began
            finished = adapter.get_adapter_status()["finished"]
            states = [await adapter.get_status(task_id) for task_id in self._last]
            report.known_at_the_end = sum(state is not TaskStatus.UNKNOWN for state in states)
            await self._settle(adapter)
            report.statistics = asdict(statistics := adapter.statistics())
            report.transport = asdict(connections := _connections(adapter))
        seen = await self._all_closed()
        report.server = asdict(seen)
        unsent = (
            seen.requests - statistics.requests - connections.resent
        )  # the requests that the transport itself sent again
        report.duplicates = max(0, finished - plan.tasks) + seen.repeated + max(0, unsent)
        self._judge(finished, statistics, connections, seen)
        return report

    async def _work(self, adapter: AsyncChatGPTAdapter) -> None:
        """Run one task after another."""
        for number in self._numbers:
            self._report.kinds[kind_of(number)] += 1
            result: Result | None = None
            with anyio.move_on_after(TASK_HANGS):
                result = await self._take(adapter, number)
            if result is None:
                self._report.lost += 1
                self._report.complain(f"task {number} ({kind_of(number)}) has no result")
            else:
                self._count(number, result)
            self._done += 1
            for percent in (10, 50, 100):
                if self._done == self._plan.tasks * percent // 100:
                    self._report.resident_mib[f"{percent} %"] = resident_bytes() / 2**20

    async def _take(self, adapter: AsyncChatGPTAdapter, number: int) -> Result:
        task = task_of(number)
        stop = MISHAPS[kind_of(number)].stop
        if stop is Stop.BY_LEAVING:
            async with adapter.execute_streaming(task) as text:
                async for _ in text:
                    break
            return await adapter.get_result(task.task_id or "")
        handle = adapter.start_task(task)
        if stop is Stop.AT_ONCE:
            await handle.cancel()
        elif stop is Stop.BY_ID:
            async for _ in handle.stream():
                break
            if not await adapter.cancel_task(handle.id):
                self._wrong(number, "cancel_task said no")
        elif readers := READERS[number % 10]:
            await self._read(handle, number, readers)
        return await handle.wait()

    async def _read(self, handle: ChatTask, number: int, readers: Sequence[float]) -> None:
        """Read a task to its end, with several readers that each wait for a number of seconds after each text part."""

        async def read(seconds: float) -> None:
            text = ""
            with suppress(ChatError):  # the result holds the error, too
                async for piece in handle.stream():
                    text += piece
                    await anyio.sleep(seconds)
            if text != (await handle.wait()).output:
                self._wrong(number, f"a reader got {text!r}")

        if number % 10 == 9:
            await handle.wait()  # and is read at the very end
        async with anyio.create_task_group() as group:
            for seconds in readers:
                group.start_soon(read, seconds)

    def _count(self, number: int, result: Result) -> None:
        self._report.attempts += result.attempts
        name = type(result.exception).__name__ if result.exception else ""
        self._report.results[f"{result.status} {name}".strip()] += 1
        if result.task is not None and result.task.task_id is not None:
            self._last.append(result.task.task_id)
        if (problem := wrong_with(number, result)) is not None:
            self._wrong(number, problem)

    def _wrong(self, number: int, problem: str) -> None:
        self._report.wrong += 1
        self._report.complain(f"task {number} ({kind_of(number)}): {problem}")

    async def _settle(self, adapter: AsyncChatGPTAdapter) -> None:
        """Refill the retry budget by successes, which is the only way to refill it."""
        harmless = next(number for number in range(1000) if kind_of(number) == "none")
        for at in range(int(CAPACITY / RATIO)):
            if adapter.statistics().retry_tokens >= CAPACITY:
                break
            number = (self._plan.tasks // 1000 + 1 + at) * 1000 + harmless
            (await adapter.execute(task_of(number))).raise_for_error()

    async def _all_closed(self) -> Seen:
        """Wait until the server has seen every connection closed, for at most `SETTLES` seconds."""
        seen = await self._ask_server()
        with anyio.move_on_after(SETTLES):
            while seen.open_connections:
                await anyio.sleep(0.02)
                seen = await self._ask_server()
        return seen

    def _judge(self, finished: int, statistics: Statistics, connections: TransportStatistics, seen: Seen) -> None:
        plan, report = self._plan, self._report
        report.demand("tasks that have finished", finished, plan.tasks)
        report.demand("results", report.results.total(), plan.tasks)
        report.demand("duplicates", report.duplicates, 0)
        report.demand("finished tasks that are kept", report.known_at_the_end, min(plan.tasks, plan.keep_finished))
        report.demand("connections in use", connections.active, 0)
        report.demand("connections open at the server after the block", seen.open_connections, 0)
        left = (statistics.running, statistics.queued, statistics.paced, statistics.held_back)
        report.demand("tasks running, queued, paced, held back", left, (0, 0, 0, 0))
        report.demand("tokens in the retry budget", statistics.retry_tokens, CAPACITY)
        sizes = report.resident_mib
        if plan.tasks // 10 >= plan.keep_finished and (grown := sizes["100 %"] - sizes["10 %"]) > TOLERANCE_MIB:
            report.complain(f"the resident size grew by {grown:.1f} MiB, more than {TOLERANCE_MIB} MiB")


def _connections(adapter: AsyncChatGPTAdapter) -> TransportStatistics:
    sender = adapter._core.sender
    assert isinstance(sender, BuiltinSender)
    return sender.transport.statistics()


async def serve() -> None:
    """Print the base URL as a line of JSON; then print what was seen after each line of standard input."""
    script = Server()
    server = simulator(script, Config(directives=False, keep_requests=1))
    async with server as base_url:
        print(json.dumps(base_url), flush=True)
        while await anyio.to_thread.run_sync(sys.stdin.readline):
            print(json.dumps(asdict(what_was_seen(server, script))), flush=True)


def what_was_seen(server: Simulator, script: Server) -> Seen:
    """Return what a server has seen so far."""
    return Seen(server.requests_received, script.repeated, server.connections_open)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak that the arguments describe; return the exit status."""
    usual = Plan()
    parser = argparse.ArgumentParser("python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--tasks", type=int, default=usual.tasks, help="how many (default: %(default)s)")
    parser.add_argument("--loop", choices=LOOPS, default="asyncio", help="(default: %(default)s)")
    parser.add_argument("--concurrency", type=int, default=usual.concurrency, help="slots (default: %(default)s)")
    parser.add_argument("--keep-finished", type=int, default=usual.keep_finished, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to put the report")
    parser.add_argument("--serve", action="store_true", help="be the server; for the command itself")
    options = parser.parse_args(arguments)
    if options.serve:
        anyio.run(serve, backend_options={"use_uvloop": find_spec("uvloop") is not None})
        return 0
    logging.basicConfig(level=logging.ERROR)  # each retry would be a line
    with Process("soak", "--serve", core=None) as process:

        async def ask_server() -> Seen:
            return Seen(**process.ask({}))

        soak = Soak(Plan(options.tasks, options.concurrency, options.keep_finished), ask_server)
        report = run(options.loop, partial(soak.run, process.greeting))
    print(report)
    if options.json:
        options.json.write_text(json.dumps(report.document(), indent=1) + "\n", encoding="utf-8")
    return 1 if report.problems else 0
