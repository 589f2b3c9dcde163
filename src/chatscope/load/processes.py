"""Runs a plan in worker processes, so that the speed of one core does not limit the load, and nothing else disturbs it.

Here: the number of workers, their start and their end. Not here: one stage in all of them (`shared_stage`), and what a
worker does (`process_worker`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Literal

import anyio
import anyio.abc

from chatscope.load.children import close_child, open_child
from chatscope.load.messages import BeginRun
from chatscope.load.monitor import LoadMonitor
from chatscope.load.plan import LoadPlan
from chatscope.load.report import LoadReport
from chatscope.load.schedule import WorkShare
from chatscope.load.setup import RunSetup, prepare_alone, report_of
from chatscope.load.shared_stage import run_stages
from chatscope.load.sizing import worker_count
from chatscope.load.started_worker import WorkerProcess
from chatscope.load.worker_loops import WORKER_LOOPS, WorkerLoop


async def run_in_processes(
    plan: LoadPlan,
    *,
    workers: int | Literal["auto"] = "auto",
    loop: WorkerLoop = "asyncio",
    monitor: LoadMonitor | None = None,
) -> LoadReport:
    """Run a plan in worker processes and return its report. If cancelled, they are killed, and there is no report.

    The schedule is made here, and each worker gets its share before the stage starts. `max_concurrency` is divided,
    too: each worker limits its own part. If a worker dies, the others continue. Its requests count as lost, and the
    verdict is `invalid`.

    Args:
        plan: what to measure.
        workers: how many processes send. `"auto"` starts enough workers to keep each below half a core, as far as
            there are cores, and reserves one core for everything else.
        loop: the event loop of the workers.
        monitor: shows the progress, receives the records in batches, and stops the run early.

    Raises:
        ValueError: the plan names a file that cannot be read as prompts or as a trace, there is no key, or the plan has
            values that cannot be passed to another process.
        ChatError: the calibration's requests failed, so that no request was measured.
        OSError: a file cannot be read, or a process cannot be started.
        ImportError: the event loop's package is not installed.
    """
    _check_loop(loop)
    monitor = monitor or LoadMonitor()
    setup = await prepare_alone(plan)
    count, notices = worker_count(plan, workers)
    async with _started(setup, count, loop) as processes:
        stages = await run_stages(setup, processes, monitor)
    return report_of(setup, stages, monitor, notices)


def _check_loop(loop: str) -> None:
    if loop not in WORKER_LOOPS:
        raise ValueError(f"loop must be one of {', '.join(WORKER_LOOPS)}, not {loop!r}")
    if find_spec(loop) is None:
        raise ImportError(f"{loop} is not installed; install it with: pip install {loop}")


@asynccontextmanager
async def _started(setup: RunSetup, count: int, loop: WorkerLoop) -> AsyncIterator[list[WorkerProcess]]:
    """Start the workers. The end of the block ends their orders, and so the workers. Any that do not end are killed.

    If cancelled, all of them are killed.
    """
    processes: list[anyio.abc.Process] = []
    try:
        started = []
        for worker in range(count):
            process = await open_child("chatscope.load.process_worker")
            processes.append(process)
            started.append(WorkerProcess(WorkShare(worker, count), process))
        for each in started:
            await each.send(BeginRun(setup, each.share, loop))
        yield started
    finally:
        async with anyio.create_task_group() as group:  # in turn, a cancellation would reach only the first
            for process in processes:
                group.start_soon(close_child, process)
