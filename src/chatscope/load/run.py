"""Runs a plan in the calling process, on asyncio or trio, and returns its report.

Here: the client, the stages one after another, and what is concluded from them. Not here: one stage's sending
(`worker`), the formulas (`metrics`) and the command (`chatscope.cli.load`).
"""

from __future__ import annotations

import os
import platform
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import anyio
import httpx

from chatscope import ChatClient, RetryPolicy, Timeouts
from chatscope.load.calibration import calibrate
from chatscope.load.distributions import distribution
from chatscope.load.metrics import latency, summarise
from chatscope.load.monitor import LoadMonitor
from chatscope.load.objectives import goodput
from chatscope.load.plan import LoadPlan, LoadStage, PlannedRequest
from chatscope.load.records import RequestRecord
from chatscope.load.report import LoadReport, StageReport, worst_verdict
from chatscope.load.schedule import SECOND
from chatscope.load.sending import Encoder
from chatscope.load.verdict import ClientEvidence, judge, own_lateness, shared_read_share
from chatscope.load.witnesses import ClientWitness
from chatscope.load.worker import StageWorker
from chatscope.load.workload import WordScale
from chatscope.profiles import find_profile
from chatscope.version import __version__

LEAD_SECONDS: Final = 0.05
"""Between the preparation of a stage and its start, so that the first requests are encoded before they are due."""

LENGTH_TOLERANCE: Final = 0.05
"""Where real lengths miss the requested ones by more than this, a notice says so."""


async def run(
    plan: LoadPlan,
    *,
    monitor: LoadMonitor | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> LoadReport:
    """Run a plan in this process and return its report. If cancelled, every request is, and there is no report.

    A failed request is recorded and never sent again. Until the end of each stage, the garbage collector is off.

    Args:
        plan: what to measure.
        monitor: shows the progress, receives the records as they come, and stops the run early.
        transport: sends the requests instead of the default transport.

    Raises:
        ValueError: the plan names a file that cannot be read as prompts or as a trace, or there is no key.
        ChatError: the calibration's requests failed, so that no request was measured.
        OSError: a file cannot be read.
    """
    monitor = monitor or LoadMonitor()
    salt = plan.salt or secrets.token_hex(8)
    workload = replace(plan.workload, seed=plan.seed, salt=salt)
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    notices: list[str] = []
    stages: list[StageReport] = []
    async with _client(plan, transport) as client:
        scale = None
        if plan.calibrate and workload.prompts is None:
            scale = await calibrate(client, plan, workload)
            if scale is None:
                notices.append("the server reports no usage, so prompts have one word for each requested token")
        profile = find_profile(plan.profile, client.base_url)
        encoder = Encoder(client, plan, workload, scale or WordScale(), profile.name)
        for stage in plan.stages():
            if monitor.is_stopped:
                break
            stages.append(await _run_stage(encoder, stage, monitor))
    return LoadReport(
        verdict=worst_verdict(stages),
        stages=stages,
        plan=plan_values(plan),
        salt=salt,
        started_at=started_at,
        host=host_values(),
        notices=notices,
        tokens_per_word=None if scale is None else scale.per_word,
        prompt_overhead_tokens=None if scale is None else scale.overhead,
        was_stopped=monitor.is_stopped,
        records=monitor.records,
    )


def _client(plan: LoadPlan, transport: httpx.AsyncBaseTransport | None) -> ChatClient:
    """Return a client that never retries and sets no limit of its own."""
    return ChatClient(
        plan.api_key,
        base_url=plan.base_url,
        timeout=Timeouts(read=plan.timeout),
        retry=RetryPolicy(attempts=1),
        backpressure=False,  # a refusal must not delay what is due
        profile=plan.profile,
        transport=transport,
    )


async def _run_stage(encoder: Encoder, stage: LoadStage, monitor: LoadMonitor) -> StageReport:
    plan, witness, first = encoder.plan, ClientWitness(), len(monitor.records)
    schedule: Iterator[PlannedRequest] = plan.schedule(stage, encoder.workload)
    worker = StageWorker(encoder, stage, schedule, stage.index * _INDEXES_A_STAGE, monitor.add)
    worker.encode_ahead()  # what is wrong with the requests is found before anything is sent
    started_ns = time.perf_counter_ns() + round(LEAD_SECONDS * SECOND)
    windows = plan.windows()
    ends_ns = None if windows.end is None else started_ns + windows.end
    monitor.on_stage(stage, worker, plan)
    failure: Exception | None = None
    with witness.frozen_collector():
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(witness.watch, started_ns + windows.start, ends_ns)
                await worker.run(started_ns)
                group.cancel_scope.cancel()
        except* (ValueError, OSError) as errors:  # a line of a file, found while the stage ran
            failure = _first(errors)
    if failure is not None:
        raise failure
    records = monitor.records[first:]
    last_ns = max((record.finished_ns or record.due_ns for record in records), default=started_ns)
    starts = started_ns + windows.start
    ends = last_ns if ends_ns is None or (monitor.is_stopped and last_ns < ends_ns) else ends_ns
    return _conclude(plan, stage, records, (starts, max(starts, ends)), witness)


def _conclude(
    plan: LoadPlan, stage: LoadStage, records: list[RequestRecord], window_ns: tuple[int, int], witness: ClientWitness
) -> StageReport:
    measured = [record for record in records if record.window == "measured"]
    summary = summarise(stage.name, records, window_ns, concurrency=stage.concurrency, rate=stage.rate)
    evidence = ClientEvidence(
        cpu_shares=[] if witness.cpu_share is None else [witness.cpu_share],
        lateness=own_lateness(measured),
        loop_lag=distribution((woken - due) / SECOND for due, woken in witness.lags),
        shared_read_share=shared_read_share(measured, witness.lags),
        gc_share=witness.gc_share,
        ttft_p50=latency(measured, "ttft").percentile(50),
    )
    objectives = plan.objectives()
    good = goodput(measured, objectives)
    seconds = summary.seconds
    return StageReport(
        summary=summary,
        verdict=judge(evidence),
        window_ns=window_ns,
        objectives=[objective.check(measured) for objective in objectives],
        goodput=good,
        goodput_per_second=good * len(measured) / seconds if seconds else 0.0,
        notices=list(_length_notices(summary.prompt_tokens_mean, summary.requested_prompt_tokens_mean, "prompts"))
        + list(_length_notices(summary.output_tokens_mean, summary.requested_output_tokens_mean, "responses")),
    )


def plan_values(plan: LoadPlan) -> dict[str, Any]:
    """Return a plan as plain values, without its key."""
    values = asdict(plan)
    del values["api_key"], values["salt"]
    for name in ("seed", "salt"):
        del values["workload"][name]
    values["slos"] = list(plan.slos)
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def host_values() -> dict[str, Any]:
    """Return what can explain a difference between two machines."""
    return {
        "chatscope": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
    }


_INDEXES_A_STAGE: Final = 1 << 40
"""Numbers of requests that a stage can have: no prompt of one stage is repeated in another."""


def _length_notices(real: float | None, requested: float | None, what: str) -> Iterator[str]:
    if real is not None and requested is not None and abs(real - requested) > LENGTH_TOLERANCE * requested:
        yield f"{what} had {real:.1f} tokens on average, and {requested:.1f} were requested"


def _first(error: BaseException) -> Exception:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Exception)  # noqa: S101 - `except*` named only such
    return error
