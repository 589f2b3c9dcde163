"""Runs a plan in the calling process, on asyncio or trio, and returns its report.

Here: the stages one after another. Not here: one stage (`stages`), several processes (`processes`), and the command
(`chatscope.cli.load`).
"""

from __future__ import annotations

import time
from typing import Final

import httpx

from chatscope.load.connections import transport_for
from chatscope.load.monitor import LoadMonitor
from chatscope.load.plan import LoadPlan
from chatscope.load.report import LoadReport, StageReport
from chatscope.load.schedule import SECOND
from chatscope.load.search import next_stage
from chatscope.load.sending import Encoder
from chatscope.load.setup import client_of, prepare, report_of
from chatscope.load.stages import PreparedStage, conclude
from chatscope.transport import ReadWitness

LEAD_SECONDS: Final = 0.05
"""Seconds between the preparation of a stage and its start. The first requests are encoded before they are due."""


async def run(
    plan: LoadPlan,
    *,
    monitor: LoadMonitor | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> LoadReport:
    """Run a plan in this process and return its report. If cancelled, all requests are cancelled, without a report.

    A failed request is recorded and never sent again. Until the end of each stage, the garbage collector is off.

    Args:
        plan: what to measure.
        monitor: shows the progress, receives the records as they arrive, and stops the run early.
        transport: sends the requests instead of the default transport. There are then no stamps by the kernel.

    Raises:
        ValueError: the plan names a file that cannot be read as prompts or as a trace, or there is no key.
        ChatError: the calibration's requests failed, so that no request was measured.
        OSError: a file cannot be read.
    """
    monitor = monitor or LoadMonitor()
    reads = None
    if transport is None:
        reads = ReadWitness()
        transport = transport_for(plan, reads)
    stages: list[StageReport] = []
    async with client_of(plan, transport) as client:
        setup = await prepare(plan, client, transport)
        encoder = Encoder.of(client, setup)
        while not monitor.is_stopped and (stage := next_stage(plan, stages)) is not None:
            first = len(monitor.records)
            requests = plan.schedule(stage, setup.workload)
            prepared = PreparedStage(encoder, stage, requests, monitor.add, transport=transport, reads=reads)
            await prepared.open_connections()
            started_ns = time.perf_counter_ns() + round(LEAD_SECONDS * SECOND)
            monitor.on_stage(stage, prepared.worker, plan)
            evidence = await prepared.run(started_ns)
            records, was_stopped = monitor.records[first:], monitor.is_stopped
            stages.append(conclude(plan, stage, started_ns, records, [evidence], was_stopped=was_stopped))
    return report_of(setup, stages, monitor)
