"""Runs a plan's shape against the built-in simulator, which stamps its writes, to measure this client's own error.

Here: that run. Not here: the comparison (`client_error`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

import anyio
import anyio.abc
import msgspec

from chatscope.load.children import close_child, open_child
from chatscope.load.client_error import ClientError, compare_stamps
from chatscope.load.plan import LoadPlan
from chatscope.load.processes import run_in_processes
from chatscope.load.worker_loops import WorkerLoop

if TYPE_CHECKING:
    from chatscope.simulator.written import WrittenResponses

FIRST_TOKEN: Final = 0.05
BETWEEN_TOKENS: Final = 0.01
"""The pace of a fast server. A slower server demands less of the client."""

MOST_SECONDS: Final = 10.0
"""The longest stage, in seconds. At a thousand tokens per second, one second suffices for the error at p99."""

OUTPUT_TOKENS: Final = 256
"""The length of the simulator's responses if the plan sets none."""


async def measure_client_error(
    plan: LoadPlan, *, workers: int | Literal["auto"] = "auto", loop: WorkerLoop = "asyncio"
) -> ClientError:
    """Run a plan's shape against the simulator in a separate process. If cancelled, all processes are killed.

    Stages last at most ten seconds. Of the plan's parameters, only the length of the output is sent.

    Args:
        plan: the plan that will be run against a server.
        workers: as for the run itself.
        loop: likewise.

    Raises:
        ImportError: the simulator's extra is not installed.
        OSError: a process cannot be started.
        ValueError: the plan does not stream, so no token has a time; or as for the run itself.
    """
    if not plan.stream:
        raise ValueError("the client's own error is that of tokens: it needs streams")
    async with _simulator(plan) as simulated:
        report = await run_in_processes(shape_of(plan, simulated.base_url), workers=workers, loop=loop)
        written = await simulated.end()
    return compare_stamps(report.records, written, report.verdict)


def shape_of(plan: LoadPlan, base_url: str) -> LoadPlan:
    """Return a plan of the same shape for the simulator."""
    duration = MOST_SECONDS if plan.duration is None else min(plan.duration, MOST_SECONDS)
    shrunk = 1.0 if plan.duration is None else duration / plan.duration
    return replace(
        plan,
        base_url=base_url,
        api_key="",
        profile=None,
        duration=duration,
        warmup=min(plan.warmup * shrunk, MOST_SECONDS / 2),
        cooldown=plan.cooldown * shrunk,
        ramp=None if plan.ramp is None else plan.ramp * shrunk,
        parameters={},
        slos=(),
        search=None,
        rate=(plan.rate or 1) if plan.search == "rate" else plan.rate,
        concurrency=(plan.concurrency or 1) if plan.search == "concurrency" else plan.concurrency,
        calibrate=False,
    )


@dataclass(frozen=True, slots=True)
class _SimulatorProcess:
    """The simulator in its process."""

    process: anyio.abc.Process
    base_url: str

    async def end(self) -> WrittenResponses:
        """Stop it and return what it wrote. If cancelled, it is killed with the block."""
        from chatscope.simulator.written import WrittenResponses  # noqa: PLC0415 - an extra

        assert self.process.stdin is not None  # noqa: S101 - pipes
        assert self.process.stdout is not None  # noqa: S101
        await self.process.stdin.aclose()
        data = b"".join([part async for part in self.process.stdout])
        return msgspec.json.decode(data, type=WrittenResponses)


@asynccontextmanager
async def _simulator(plan: LoadPlan) -> AsyncIterator[_SimulatorProcess]:
    from chatscope.simulator import paced  # noqa: PLC0415 - an extra; fails here with its name

    asked = plan.workload.output_tokens
    tokens = OUTPUT_TOKENS if asked is None else round(asked.mean + 3 * asked.deviation)
    reply = {"tokens": tokens, "first_token": FIRST_TOKEN, "between_tokens": BETWEEN_TOKENS}
    process = await open_child(paced.__name__, msgspec.json.encode(reply).decode())
    try:
        assert process.stdout is not None  # noqa: S101 - a pipe
        line = b""
        while not line.endswith(b"\n"):
            line += await process.stdout.receive()
        yield _SimulatorProcess(process, line.decode().strip())
    finally:
        await close_child(process)
