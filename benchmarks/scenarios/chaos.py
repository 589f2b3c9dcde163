"""`python -m benchmarks.chaos [SEEDS]`: random tasks against a random server, cancelled at random moments.

Each seed is one adapter with a few dozen tasks. They stream or not, use tools, deadlines and priorities, and are hedged
or not. The server responds correctly, slowly, wrongly or not at all. Tasks are read, cancelled, awaited, or abandoned
while they run. Afterwards, whatever happened, no slot may be held and no connection open, each task has one result, and
each request is in exactly one attempts log. A seed that breaks this is printed, and the exit status is 1. Run one seed
alone with `--first SEED 1`.

The server is the endpoint of `chatscope.testing`, in this process. So thousands of cancellations hit every await point
of the client. With a real network, most would hit its waits.
"""

from __future__ import annotations

import argparse
import logging
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import anyio
import anyio.lowlevel

from benchmarks.contenders import LOOPS
from benchmarks.harness.loops import run
from chatscope import AsyncChatGPTAdapter, ChatError, ChatTask, QueueFullError, RetryPolicy, Task, TaskConstraints
from chatscope import TaskStatus as Status
from chatscope._limits.retry_budget import CAPACITY
from chatscope.simulator import Answer, ChatRequest, Reply, ToolCall, error, faults
from chatscope.testing import ChatEndpoint

SEEDS: Final = 300
TASKS: Final = 24
"""Tasks for each seed: several for each slot."""

HANGS: Final = 5.0
"""Seconds after which a seed counts as hanging. A seed takes a fraction of a second."""

ENDS: Final = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})


@dataclass
class Figures:
    """What happened in all seeds."""

    statuses: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    hedged: int = 0
    """Requests that were sent while another one for the same task was open."""


class ChaosServer(ChatEndpoint):
    """Responds at random."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(allow_unexpected=True, allow_unused=True)
        self._chance = chance
        self.default = self._answer

    def _answer(self, request: ChatRequest) -> Answer:
        chance = self._chance
        slow = chance.choice([0.0, 0.0, 0.001, 0.01])
        reply = Reply("one two three", first_token=slow, between_tokens=chance.choice([0.0, 0.0, 0.001]))
        if "tools" in request.body and not any(message["role"] == "tool" for message in request.body["messages"]):
            return Reply(None, tool_calls=(ToolCall("look", {}),), first_token=slow)
        at = chance.choice([1, 2])
        answers: list[Answer] = [
            *[reply] * 16,
            error(429, retry_after=0.001),
            error(500),
            error(503),
            error(400),
            Reply("one two three", faults=(faults.close(at),)),
            Reply("one two three", faults=(faults.stall(at),)),
            Reply("one two three", faults=(faults.stream_error(at),)),
            Reply("one two three", faults=(faults.malformed(at),)),
        ]
        return chance.choice(answers)


class Chaos:
    """One seed.

    Args:
        seed: decides every random choice, except the order in which a loop runs its tasks.
        hedge_after: the adapter's argument.
    """

    def __init__(self, seed: int, hedge_after: float | None) -> None:
        self._chance = random.Random(seed)
        self._server = ChaosServer(random.Random(seed + 1))
        self._tasks: list[ChatTask] = []
        self.adapter = AsyncChatGPTAdapter(
            "key",
            base_url="http://chaos.example/v1",
            transport=self._server,
            retry=RetryPolicy(attempts=3, initial=0.0, jitter=0.0),
            max_concurrency=self._chance.choice([1, 3, 8]),
            max_pending=self._chance.choice([None, None, 6]),
            hedge_after=hedge_after,
        )

    async def run(self, figures: Figures) -> list[str]:
        """Run the tasks and return the problems found afterwards."""
        how = self._chance.choice(["wait", "wait", "raise", "cancel"])
        with anyio.move_on_after(HANGS) as hang, anyio.CancelScope() as outer:
            try:
                async with self.adapter, anyio.create_task_group() as group:
                    for number in range(TASKS):
                        group.start_soon(self._user, number)
                        await self._ticks(3)
                    if how != "wait":
                        await anyio.sleep(self._chance.random() * 0.01)
                    if how == "cancel":
                        outer.cancel()
                    if how == "raise":
                        raise LookupError
            except* LookupError:
                pass
        problems = ["it hangs"] if hang.cancelled_caught else []
        problems += self._held()
        for task in self._tasks:
            problems += self._wrong_with(task, figures)
        figures.requests += len(self._server.requests)
        return problems

    async def _user(self, number: int) -> None:
        """Submit a task and do something with it."""
        chance = self._chance
        try:
            task = self.adapter.start_task(self._task(number))
        except QueueFullError:
            return
        self._tasks.append(task)
        what = chance.choice(["wait", "cancel", "cancel at once", "read", "leave", "time out", "order"])
        if what == "cancel at once":
            await task.cancel()
        elif what == "cancel":
            await self._ticks(12)
            await task.cancel()
        elif what == "order":
            await self._ticks(12)
            task.request_cancel()
        elif what == "time out":
            await self.adapter.get_result(task.id, chance.random() * 0.005, cancel_on_timeout=chance.random() < 0.5)
        elif what in {"read", "leave"}:
            try:
                async for _ in task.stream():
                    if what == "leave":
                        await task.cancel()
            except ChatError:
                pass

    def _task(self, number: int) -> Task:
        chance = self._chance

        async def look() -> str:
            """Look it up."""
            await self._ticks(3)
            if chance.random() < 0.3 and len(self._tasks) < 2 * TASKS:
                soon = TaskConstraints(timeout_seconds=0.3)
                inner = self.adapter.start_task(Task(f"inner {number} {len(self._tasks)}", constraints=soon))
                self._tasks.append(inner)
                return (await inner.wait()).output
            return "found"

        constraints = TaskConstraints(
            # A deadline ends everything in the end, even a stream that stalls.
            timeout_seconds=chance.choice([0.005, 0.1, 0.3, 0.3]),
            priority=chance.choice([0, 0, 1]),
        )
        parameters: dict[str, Any] = {} if chance.random() < 0.6 else {"stream": False}
        tools = [look] if chance.random() < 0.2 else []
        return Task(f"task {number}", parameters=parameters, constraints=constraints, tools=tools)

    async def _ticks(self, most: int) -> None:
        for _ in range(self._chance.randrange(most)):
            await anyio.lowlevel.checkpoint()

    def _held(self) -> list[str]:
        counts = self.adapter.statistics()
        held = {
            "running": counts.running,
            "queued": counts.queued,
            "paced": counts.paced,
            "held back": counts.held_back,
            "in flight": counts.in_flight,
            "open responses": self._server.open,
        }
        problems = [f"{name}: {number} at the end" for name, number in held.items() if number]
        if not 0 <= counts.retry_tokens <= CAPACITY + 2 * TASKS:
            problems.append(f"{counts.retry_tokens} retries in store")
        report = self.adapter.get_adapter_status()
        if report["pending"] or report["running"]:
            problems.append(f"{report['pending']} tasks pending, {report['running']} running at the end")
        if report["finished"] != len(self._tasks):
            problems.append(f"{report['finished']} results for {len(self._tasks)} tasks")
        logged = sum(len(task.result.attempts_log) for task in self._tasks if task.result is not None)
        if logged != len(self._server.requests):
            problems.append(f"{logged} requests logged, {len(self._server.requests)} received")
        return problems

    def _wrong_with(self, task: ChatTask, figures: Figures) -> list[str]:
        result = task.result
        if result is None or result.status not in ENDS:
            return [f"{task.id} is {task.status}"]
        figures.statuses[result.status] += 1
        figures.errors[type(result.exception).__name__] += result.exception is not None
        times = sorted((each.started_seconds, each.duration_seconds) for each in result.attempts_log)
        figures.hedged += sum(start + length > after for (start, length), (after, _) in pairwise(times))
        problems = []
        if result.attempts != len(result.attempts_log):
            problems.append(f"{task.id}: {result.attempts} attempts, {len(result.attempts_log)} logged")
        if (result.status is Status.COMPLETED) != (result.exception is None):
            problems.append(f"{task.id} is {result.status} with {result.exception!r}")
        if result.exception is not None and not isinstance(result.exception, ChatError):
            problems.append(f"{task.id} failed with {result.exception!r}")
        if result.status is Status.COMPLETED and not result.output.endswith("one two three"):
            problems.append(f"{task.id} completed with {result.output!r}")
        return problems


async def run_seeds(seeds: Sequence[int], hedge_after: float | None, figures: Figures) -> list[str]:
    """Run seeds one after another and return the problems, each with its seed."""
    problems = []
    for seed in seeds:
        for problem in await Chaos(seed, hedge_after).run(figures):
            problems.append(f"seed {seed}, hedge_after={hedge_after}: {problem}")
            print(problems[-1], flush=True)
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the seeds that the arguments select; return the exit status."""
    parser = argparse.ArgumentParser("python -m benchmarks.chaos", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument(
        "seeds", nargs="?", type=int, default=SEEDS, help=f"number of seeds for each loop (default: {SEEDS})"
    )
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument("--loop", choices=list(LOOPS), action="append", help="default: all")
    options = parser.parse_args(arguments)
    logging.getLogger("chatscope").setLevel(logging.CRITICAL)
    problems: list[str] = []
    for loop in options.loop or LOOPS:
        for hedge_after in (None, 0.001):
            began, figures = time.perf_counter(), Figures()
            seeds = range(options.first, options.first + options.seeds)
            found = run(loop, lambda: run_seeds(seeds, hedge_after, figures))  # noqa: B023 - it is called at once
            problems += [f"{loop}, {problem}" for problem in found]
            print(
                f"{loop}, {'hedged' if hedge_after else 'not hedged'}: {len(seeds)} seeds in "
                f"{time.perf_counter() - began:.1f} s, {len(found)} problems; {figures.requests} requests, "
                f"{figures.hedged} beside another; {dict(figures.statuses)}; {dict(figures.errors.most_common(8))}",
                flush=True,
            )
    return 1 if problems else 0
